//! Finds the program behind `--` as `execvp` will, before anything is created.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::error::{CliError, Result};
use crate::shell::quote;

/// Exit code of a shell if a program is not found (POSIX, 2.8.2).
pub const NOT_FOUND: u8 = 127;
/// Exit code of a shell if a program cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;

/// Where `execvp` searches without a PATH.
const USUAL_PATH: &str = "/bin:/usr/bin";

/// Fails with a shell's exit code unless this program can be run.
pub fn find(program: &OsStr) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or(USUAL_PATH.into());
    find_in(program, &path)
}

fn find_in(program: &OsStr, path: &OsStr) -> Result<()> {
    let is_path = program.as_encoded_bytes().contains(&b'/');
    let places: Vec<PathBuf> = match is_path {
        true => vec![program.into()],
        // An empty part of PATH means the working directory.
        false => std::env::split_paths(path)
            .map(|dir| Path::new(".").join(dir).join(program))
            .collect(),
    };
    if places.iter().any(|place| is_program(place)) {
        return Ok(());
    }
    let is_there = |place: &&PathBuf| place.is_file() || (is_path && place.exists());
    match places.iter().find(is_there) {
        Some(place) => {
            let place = quote(&place.to_string_lossy());
            Err(
                failure(program, "permission denied", format!("ls -l {place}"))
                    .exit(NOT_EXECUTABLE),
            )
        }
        None => Err(not_found(program)),
    }
}

fn is_program(place: &Path) -> bool {
    place.is_file() && access(place, Access::EXEC_OK).is_ok()
}

/// The error for a program that does not exist.
pub fn not_found(program: &OsStr) -> CliError {
    let hint = match program.as_encoded_bytes().contains(&b'/') {
        true => format!("ls -l {}", quote(&program.to_string_lossy())),
        false => "echo $PATH".to_owned(),
    };
    failure(program, "command not found", hint).exit(NOT_FOUND)
}

fn failure(program: &OsStr, why: &str, hint: String) -> CliError {
    CliError::failed(
        format_args!("-- {}: {why}", program.to_string_lossy()),
        hint,
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_is_found_as_a_shell_does() {
        let scratch = tempfile::tempdir().unwrap();
        let file = |name: &str, mode| {
            let path = scratch.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let (good, plain) = (file("bin/good", 0o755), file("bin/plain", 0o644));
        file("first/good", 0o644);
        fs::create_dir(scratch.path().join("bin/dir")).unwrap();
        let dirs = ["first", "none", "bin"].map(|dir| scratch.path().join(dir));
        let path = std::env::join_paths(dirs).unwrap();
        let code = |program: &OsStr| match find_in(program, &path) {
            Ok(()) => "found".to_owned(),
            Err(failure) => format!("{:?}", failure.code()),
        };
        let exit = |code: u8| format!("{:?}", std::process::ExitCode::from(code));
        let dir = scratch.path().join("bin/dir");
        for (program, expected) in [
            (OsStr::new("good"), "found".to_owned()),
            (good.as_os_str(), "found".to_owned()),
            (OsStr::new("plain"), exit(NOT_EXECUTABLE)),
            (plain.as_os_str(), exit(NOT_EXECUTABLE)),
            (dir.as_os_str(), exit(NOT_EXECUTABLE)),
            (OsStr::new("dir"), exit(NOT_FOUND)),
            (OsStr::new("nosuchcmd"), exit(NOT_FOUND)),
            (OsStr::new("./nosuchcmd"), exit(NOT_FOUND)),
            (OsStr::new(""), exit(NOT_FOUND)),
        ] {
            assert_eq!(code(program), expected, "{program:?}");
        }
    }
}
