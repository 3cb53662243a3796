//! The header value of `--http-header auto`, remembered on the developer machine so that a browser extension set once keeps working.
//! One small file per backend and target under `${XDG_STATE_HOME:-~/.local/state}/injector/`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where a target's value is kept.
#[derive(Debug, Clone)]
pub struct AutoHeaderStore {
    file: PathBuf,
}

impl AutoHeaderStore {
    /// The place for this target of this backend. `None` where the machine offers no home for state.
    pub fn of(backend: &str, target: &str) -> Option<Self> {
        Some(Self::under(&state_home()?, backend, target))
    }

    fn under(state_home: &Path, backend: &str, target: &str) -> Self {
        let hash = intercept_manifest::digest::fingerprint(format!("{backend}\0{target}"));
        let readable = crate::flags::label(target);
        Self {
            file: state_home
                .join("injector")
                .join(format!("{readable}-{hash}.id")),
        }
    }

    /// The remembered value; anything but a UUID counts as nothing remembered.
    pub fn recall(&self) -> Option<String> {
        let text = fs::read_to_string(&self.file).ok()?;
        let id = uuid::Uuid::try_parse(text.trim()).ok()?;
        Some(id.to_string())
    }

    /// Remembers `id` unless something is remembered already (two commands may start at once), and returns what holds.
    pub fn remember(&self, id: &str) -> io::Result<String> {
        if let Some(known) = self.recall() {
            return Ok(known);
        }
        let folder = self.file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        // A temporary file is made with mode 0600.
        let mut written = tempfile::NamedTempFile::new_in(folder)?;
        writeln!(written, "{id}")?;
        if self.file.exists() {
            // Present but unreadable as a UUID.
            written.persist(&self.file).map_err(|error| error.error)?;
            return Ok(id.to_owned());
        }
        match written.persist_noclobber(&self.file) {
            Ok(_) => Ok(id.to_owned()),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(self.recall().unwrap_or_else(|| id.to_owned()))
            }
            Err(error) => Err(error.error),
        }
    }
}

/// A unique value.
pub fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Where this machine keeps what is remembered; `None` where it offers no such place.
pub(crate) fn state_home() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[test]
    fn a_value_once_remembered_stays() {
        let home = folder();
        let place = AutoHeaderStore::under(home.path(), "envoy:/tmp/e", "orders");
        assert_eq!(place.recall(), None);
        let first = place.remember(&new_id()).expect("written");
        assert_eq!(place.remember(&new_id()).expect("kept"), first);
        assert_eq!(place.recall(), Some(first));
    }

    #[test]
    fn targets_and_backends_do_not_share_a_value() {
        let home = folder();
        let one = AutoHeaderStore::under(home.path(), "envoy:/a", "orders");
        let other = AutoHeaderStore::under(home.path(), "envoy:/a", "carts");
        let elsewhere = AutoHeaderStore::under(home.path(), "envoy:/b", "orders");
        one.remember(&new_id()).expect("written");
        assert_eq!(other.recall(), None);
        assert_eq!(elsewhere.recall(), None);
    }

    #[test]
    fn nobody_else_may_read_the_file() {
        let home = folder();
        let place = AutoHeaderStore::under(home.path(), "envoy:/a", "orders");
        place.remember(&new_id()).expect("written");
        let mode = fs::metadata(&place.file)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_replaced() {
        let home = folder();
        let place = AutoHeaderStore::under(home.path(), "envoy:/a", "../or ders");
        let id = place.remember(&new_id()).expect("written");
        fs::write(&place.file, "gibberish\n").expect("damaged");
        assert_eq!(place.recall(), None);
        let again = place.remember(&new_id()).expect("replaced");
        assert_ne!(again, id);
        assert_eq!(place.recall(), Some(again));
    }
}
