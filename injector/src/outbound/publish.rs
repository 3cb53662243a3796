//! `--publish`: which ports of a command's namespace are reached on this machine.

use std::collections::BTreeSet;

use crate::error::{CliError, Result};

/// Which ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publish {
    /// All at which something listens.
    Auto,
    /// These.
    Ports(BTreeSet<u16>),
    /// None.
    Off,
}

impl Publish {
    /// Reads the flag.
    pub fn read(flag: Option<&str>) -> Result<Self> {
        match flag {
            None | Some("auto") => Ok(Self::Auto),
            Some("off") => Ok(Self::Off),
            Some(flag) => {
                let ports = flag.split(',').map(|port| {
                    let port = port.trim().parse().ok();
                    port.filter(|port: &u16| *port > 0)
                });
                let ports: Option<_> = ports.collect();
                ports.map(Self::Ports).ok_or_else(|| refusal(flag))
            }
        }
    }
}

fn refusal(flag: &str) -> CliError {
    CliError::usage(
        format!("--publish {flag}: expected ports as 3000,9229, `auto` or `off`"),
        "injector intercept orders --publish=3000,9229 -- npm start",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read() {
        let read = |flag| Publish::read(flag).ok();
        assert_eq!(read(None), Some(Publish::Auto));
        assert_eq!(read(Some("auto")), Some(Publish::Auto));
        assert_eq!(read(Some("off")), Some(Publish::Off));
        let ports = Publish::Ports([3000, 9229].into());
        assert_eq!(read(Some("9229, 3000")), Some(ports));
        for flag in ["", "0", "3000,", "none", "65536"] {
            assert_eq!(read(Some(flag)), None, "{flag}");
        }
    }
}
