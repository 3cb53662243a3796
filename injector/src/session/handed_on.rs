//! A kubeconfig that a shell gives by a descriptor, as in `--kubeconfig <(…)`: read here, and handed on to the copy in a file without a name. The descriptor itself would stay open
//! for as long as the intercept lives.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::io::{FdFlags, fcntl_setfd};

/// Where kubeconfigs are, without the flag.
const VARIABLE: &str = "KUBECONFIG";

/// What the copy is told instead, and the files, which are open until it has them.
#[derive(Debug, Default)]
pub struct HandedOn {
    /// The flag's value, and the one in its place.
    flag: Option<(OsString, OsString)>,
    variable: Option<OsString>,
    files: Vec<File>,
}

impl HandedOn {
    /// Reads them, to their ends. `flag`: the value of `--kubeconfig`; with it, the variable means nothing.
    pub fn read(flag: Option<&Path>) -> io::Result<Self> {
        let mut handed_on = Self::default();
        match (flag, std::env::var_os(VARIABLE)) {
            (Some(path), _) if is_descriptor(path) => {
                let held = handed_on.hold(path.to_owned())?;
                handed_on.flag = Some((path.into(), held.into()));
            }
            (None, Some(paths))
                if std::env::split_paths(&paths).any(|path| is_descriptor(&path)) =>
            {
                let paths = std::env::split_paths(&paths).map(|path| handed_on.hold(path));
                let paths = paths.collect::<io::Result<Vec<_>>>()?;
                let paths = std::env::join_paths(paths).map_err(io::Error::other)?;
                handed_on.variable = Some(paths);
            }
            _ => {}
        }
        Ok(handed_on)
    }

    /// The path by which the copy finds it.
    fn hold(&mut self, path: PathBuf) -> io::Result<PathBuf> {
        if !is_descriptor(&path) {
            return Ok(path);
        }
        let text = std::fs::read(path)?;
        let mut file = tempfile::tempfile()?;
        file.write_all(&text)?;
        file.rewind()?;
        fcntl_setfd(&file, FdFlags::empty())?;
        let held = format!("/dev/fd/{}", file.as_raw_fd());
        self.files.push(file);
        Ok(held.into())
    }

    /// These arguments, as the copy gets them.
    pub fn arguments(&self, all: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
        all.map(|argument| match &self.flag {
            Some((said, held)) if argument == *said => held.clone(),
            Some((said, held)) if argument == with_flag(said) => with_flag(held),
            _ => argument,
        })
    }

    /// The variable, where the copy gets another one.
    pub fn variable(&self) -> Option<(&'static str, &OsStr)> {
        Some((VARIABLE, self.variable.as_deref()?))
    }
}

/// As one argument.
fn with_flag(value: &OsStr) -> OsString {
    let mut argument = OsString::from("--kubeconfig=");
    argument.push(value);
    argument
}

/// Does it name what this process has open, besides what every process has?
fn is_descriptor(path: &Path) -> bool {
    let number = ["/dev/fd", "/proc/self/fd"].into_iter().find_map(|folder| {
        path.strip_prefix(folder)
            .ok()?
            .to_str()?
            .parse::<u32>()
            .ok()
    });
    number.is_some_and(|number| number > 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_of_the_shells_is_told_from_files_and_from_the_terminal() {
        for path in ["/dev/fd/63", "/proc/self/fd/11"] {
            assert!(is_descriptor(Path::new(path)), "{path}");
        }
        for path in [
            "/dev/fd/0",
            "/dev/fd/x",
            "/dev/fd",
            "/proc/7/fd/63",
            "63",
            "/home/bob/.kube/config",
        ] {
            assert!(!is_descriptor(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn the_copy_is_told_where_the_kubeconfig_is_held() {
        let mut given = tempfile::tempfile().expect("a file");
        given.write_all(b"text").expect("written");
        given.rewind().expect("at its start");
        let path = format!("/dev/fd/{}", given.as_raw_fd());
        let handed_on = HandedOn::read(Some(Path::new(&path))).expect("read");
        let told = |arguments: &[&str]| -> Vec<String> {
            let told = handed_on.arguments(arguments.iter().map(OsString::from));
            told.map(|argument| argument.into_string().expect("UTF-8"))
                .collect()
        };
        let [one, held] = &told(&["--kubeconfig", &path])[..] else {
            panic!("two");
        };
        assert_eq!(one, "--kubeconfig");
        assert_ne!(*held, path);
        assert_eq!(std::fs::read(held).expect("open"), b"text");
        let joined = format!("--kubeconfig={path}");
        assert_eq!(
            told(&[&joined, "-v"]),
            [format!("--kubeconfig={held}"), "-v".to_owned()]
        );
        assert_eq!(handed_on.variable(), None);
    }
}
