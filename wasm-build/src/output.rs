//! Writes results to disk atomically: a concurrent reader sees the old file or the new one.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempDir};

/// Replaces a file.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = existing_parent(path)?;
    // 0666 and the umask, as for any new file; the default for a temporary file is 0600.
    let mut file = Builder::new()
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// Replaces a directory by a new one that `fill` fills, and returns its result.
///
/// An existing directory is removed only if `is_ours` allows it, and then as a whole.
pub fn replace_dir<T>(
    path: &Path,
    is_ours: impl FnOnce(&Path) -> bool,
    fill: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    if path.exists() && !is_ours(path) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is something else there already",
        ));
    }
    let staging = dir_beside(path)?;
    let fresh = staging.path().join("fresh");
    fs::create_dir(&fresh)?;
    let filled = fill(&fresh)?;
    if path.exists() {
        fs::rename(path, staging.path().join("old"))?;
    }
    fs::rename(&fresh, path)?;
    Ok(filled)
}

/// A temporary directory on the same file system, so that a rename works.
fn dir_beside(path: &Path) -> io::Result<TempDir> {
    Builder::new()
        .prefix(".image-")
        .tempdir_in(existing_parent(path)?)
}

fn existing_parent(path: &Path) -> io::Result<PathBuf> {
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    fs::create_dir_all(dir)?;
    Ok(dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_readable_by_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/filter.wasm");
        replace_file(&path, b"one").unwrap();
        replace_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let plain = dir.path().join("plain");
        fs::write(&plain, "").unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions(),
            fs::metadata(&plain).unwrap().permissions()
        );
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "something temporary was left behind"
        );
    }

    #[test]
    fn a_directory_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        replace_dir(&path, |_| true, |fresh| fs::write(fresh.join("old"), "")).unwrap();
        replace_dir(&path, |_| true, |fresh| fs::write(fresh.join("new"), "")).unwrap();
        assert!(path.join("new").exists() && !path.join("old").exists());
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "something temporary was left behind"
        );
    }

    #[test]
    fn a_directory_that_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis"), "").unwrap();
        let error = replace_dir(dir.path(), |_| false, |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(dir.path().join("thesis").exists());
    }

    #[test]
    fn a_directory_that_cannot_be_filled_is_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        replace_dir(&path, |_| true, |fresh| fs::write(fresh.join("old"), "")).unwrap();
        replace_dir(
            &path,
            |_| true,
            |_| Err::<(), _>(io::Error::other("disk full")),
        )
        .unwrap_err();
        assert!(path.join("old").exists());
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "something temporary was left behind"
        );
    }
}
