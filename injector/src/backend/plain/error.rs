//! What to do about a directory that cannot be read or changed.

use crate::envoy::EnvoyDirError;
use crate::error::Hint;
use crate::shell::quote;

impl Hint for EnvoyDirError {
    fn hint(&self) -> String {
        match self {
            Self::NotInstalled(dir) => format!(
                "injector sandbox prints the directory to use; an operator prepares one with: injector --envoy {} install --help",
                quote(&dir.to_string_lossy())
            ),
            Self::Io { path, .. } => format!("ls -ld {}", quote(&path.to_string_lossy())),
            Self::Unreadable { path, .. } => {
                format!("cat {}", quote(&path.to_string_lossy()))
            }
            Self::UnknownPort { .. } => "injector intercept --help".to_owned(),
            Self::PortInUse { .. } | Self::Live { .. } => {
                "injector list, then: injector leave NAME".to_owned()
            }
        }
    }
}
