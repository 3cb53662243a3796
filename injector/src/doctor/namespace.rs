//! Can a command on this machine have a network namespace? Only trying tells.

use super::Check;

const ID: &str = "network-namespace";

/// Makes one, and takes it away again.
#[cfg(target_os = "linux")]
pub async fn check() -> Check {
    of_probe(intercept_outbound::namespace::probe().await)
}

/// There are none.
#[cfg(not(target_os = "linux"))]
pub async fn check() -> Check {
    Check::warn(
        ID,
        "network namespaces: only Linux has them, so commands do not reach the cluster by name",
        "reach single services: injector intercept … --forward SERVICE:PORT",
    )
}

#[cfg(target_os = "linux")]
fn of_probe(
    probed: Result<intercept_outbound::namespace::Hold, intercept_outbound::namespace::SetupError>,
) -> Check {
    use intercept_outbound::namespace::Hold;

    match probed {
        Ok(Hold::None) => Check::warn(
            ID,
            "commands can have a network namespace, but their connections open before the cluster has answered (hold: none)",
            "sudo modprobe -a nfnetlink_queue nft_queue",
        ),
        Ok(hold) => Check::pass(
            ID,
            format!(
                "commands can have a network namespace; their connections wait for the cluster (hold: {})",
                hold.as_str()
            ),
        ),
        Err(error) => Check::warn(ID, error.describe(), error.hint()),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use intercept_outbound::namespace::{Hold, SetupError, Step};

    use super::super::Outcome;
    use super::*;

    #[test]
    fn step_and_cure_are_named() {
        let closed = SetupError::new(Step::Unshare, "", Some(28));
        let check = of_probe(Err(closed));
        assert_eq!(check.outcome, Outcome::Warn);
        let text = "network namespace: unshare: No space left on device";
        assert!(check.found.starts_with(text), "{check:?}");
        let hint = check.hint.unwrap_or_default();
        assert!(hint.starts_with("sudo sysctl -w user.max_"), "{hint}");
        assert_eq!(of_probe(Ok(Hold::Target)).outcome, Outcome::Pass);
        assert_eq!(of_probe(Ok(Hold::None)).outcome, Outcome::Warn);
    }
}
