//! The file of `--env-file`: one `NAME=value` per line, mode 0600, moved into place once complete.
//!
//! The format is that of `docker run --env-file`: values are literal, without quotes or escapes. Dotenv tools read all but a few values the same way.

use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::Environment;
use crate::error::{CliError, OrHint, Result};
use crate::shell::quote;

/// The longest line that Docker reads (Go's `bufio.MaxScanTokenSize`).
const LONGEST: usize = 64 * 1024 - 1;

/// A file that is complete but not yet in place.
#[derive(Debug)]
pub struct EnvFile {
    written: NamedTempFile,
    path: PathBuf,
}

impl EnvFile {
    /// Writes the file beside its destination. Also returns notes for the user.
    pub fn prepare(path: &Path, environment: &Environment) -> Result<(Self, Vec<String>)> {
        if path.is_dir() {
            return Err(failure(
                path,
                "it is a directory, expected the name of a file",
            ));
        }
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let (text, notes) = lines(environment);
        // Creates it with mode 0600.
        let written = NamedTempFile::new_in(folder).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.flush()?;
            Ok(file)
        });
        let written = written.map_err(|error| failure(path, error))?;
        let path = path.to_owned();
        Ok((Self { written, path }, notes))
    }

    /// Moves the file into place, and replaces an existing one.
    pub fn keep(self) -> Result<()> {
        let Self { written, path } = self;
        written
            .persist(&path)
            .map(drop)
            .or_hint(format_args!("--env-file {}", path.display()), look(&path))
    }
}

fn failure(path: &Path, why: impl std::fmt::Display) -> CliError {
    CliError::failed(
        format_args!("--env-file {}: {why}", path.display()),
        look(path),
    )
}

fn look(path: &Path) -> String {
    format!(
        "ls -ld {}",
        quote(&path.parent().unwrap_or(path).join(".").to_string_lossy())
    )
}

fn lines(environment: &Environment) -> (String, Vec<String>) {
    let mut text = String::new();
    let mut notes = Vec::new();
    let mut read_otherwise = Vec::new();
    for (name, value) in environment.variables() {
        if let Some(why) = unwritable(name, value) {
            notes.push(format!(
                "{name} is left out of the file: {why}; a command behind `--` gets it"
            ));
            continue;
        }
        if !is_plain(value) {
            read_otherwise.push(name);
        }
        text.push_str(&format!("{name}={value}\n"));
    }
    if !read_otherwise.is_empty() {
        notes.push(format!(
            "docker reads these as they are; a dotenv tool may not (quotes, `#`, `$` or blanks at an end): {}",
            read_otherwise.join(", ")
        ));
    }
    (text, notes)
}

fn unwritable(name: &str, value: &str) -> Option<&'static str> {
    if value.contains(['\n', '\r']) {
        return Some("its value has several lines, which the format cannot hold");
    }
    if name.starts_with('#') || name.contains(char::is_whitespace) {
        return Some("the format cannot hold its name");
    }
    (name.len() + value.len() >= LONGEST).then_some("it is longer than 64 KiB")
}

/// Do all tools read this value the same way?
fn is_plain(value: &str) -> bool {
    let is_quoted = value.starts_with(['"', '\'', '`']);
    value.trim() == value && !is_quoted && !value.contains(['#', '$'])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        let mut environment = Environment::default();
        for (name, value) in pairs {
            environment.add(name, (*value).to_owned());
        }
        environment
    }

    #[test]
    fn values_stand_as_they_are_one_a_line() {
        let (text, notes) = lines(&environment(&[
            ("A", "1"),
            ("B", "two words = x"),
            ("C", ""),
            ("D", "{\"json\": true}"),
        ]));
        assert_eq!(text, "A=1\nB=two words = x\nC=\nD={\"json\": true}\n");
        assert_eq!(notes, [""; 0]);
    }

    #[test]
    fn what_the_format_cannot_hold_is_named_and_its_value_is_not() {
        let long = "s3cret".repeat(12_000);
        let (text, notes) = lines(&environment(&[
            ("KEY", "s3cret\nline"),
            ("CR", "s3cret\r"),
            ("#N", "s3cret"),
            ("A B", "s3cret"),
            ("LONG", &long),
        ]));
        assert_eq!(text, "");
        assert_eq!(notes.len(), 5);
        let notes = notes.join("\n");
        for name in ["KEY is left out", "CR is", "#N is", "A B is", "LONG is"] {
            assert!(notes.contains(name), "{name}: {notes}");
        }
        assert!(!notes.contains("s3cret"), "{notes}");
    }

    #[test]
    fn what_dotenv_tools_read_otherwise_is_named() {
        let pairs = [
            ("A", " a"),
            ("B", "'b'"),
            ("C", "c #d"),
            ("D", "p$w"),
            ("E", "plain"),
        ];
        let (text, notes) = lines(&environment(&pairs));
        assert_eq!(text, "A= a\nB='b'\nC=c #d\nD=p$w\nE=plain\n");
        assert!(notes[0].ends_with(": A, B, C, D"), "{notes:?}");
    }

    #[test]
    fn the_file_is_its_owners_alone_and_replaces_what_was_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("orders.env");
        std::fs::write(&path, "old").expect("written");
        let (file, _) = EnvFile::prepare(&path, &environment(&[("A", "1")])).expect("prepared");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "old");
        file.keep().expect("kept");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "A=1\n");
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_refused_beforehand_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("no/such/orders.env");
        let refused = EnvFile::prepare(&missing, &Environment::default()).unwrap_err();
        assert!(refused.to_string().contains("--env-file"), "{refused}");
        assert!(EnvFile::prepare(folder.path(), &Environment::default()).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 0);
    }
}
