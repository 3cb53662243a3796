//! Finds Envoy and the filter on this machine. Downloads nothing.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The Envoy version that is tested most.
const VERSION: &str = "1.39.3";

/// A program or file that the sandbox needs does not exist on this machine.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct NotFound {
    /// What was looked for.
    pub what: &'static str,
    /// Where it was looked for.
    pub reason: String,
}

/// Finds Envoy: `$ENVOY`, then `PATH`, then where `make` puts it.
pub fn envoy() -> Result<PathBuf, NotFound> {
    envoy_in(&|name| env::var_os(name).filter(|value| !value.is_empty()))
}

fn envoy_in(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf, NotFound> {
    let named = variable("ENVOY").map(PathBuf::from);
    if let Some(path) = named {
        return is_program(&path)
            .then(|| path.clone())
            .ok_or_else(|| NotFound {
                what: "envoy",
                reason: format!("$ENVOY is {}, which is no program", path.display()),
            });
    }
    let cache = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")))
        .map(|cache| cache.join(format!("injector/envoy-{VERSION}/bin/envoy")));
    let path = variable("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|dir| dir.join("envoy"))
        .chain(cache.clone())
        .find(|path| is_program(path))
        .ok_or_else(|| NotFound {
            what: "envoy",
            reason: match cache {
                Some(cache) => format!("neither on the PATH nor at {}", cache.display()),
                None => "not on the PATH".to_owned(),
            },
        })
}

fn is_program(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
}

/// Finds the filter: `$INJECTOR_FILTER`, beside this program, or in the parent directory.
pub fn filter() -> Result<PathBuf, NotFound> {
    let program = env::current_exe().unwrap_or_default();
    filter_in(
        env::var_os("INJECTOR_FILTER").filter(|value| !value.is_empty()),
        &program,
    )
}

fn filter_in(named: Option<OsString>, program: &Path) -> Result<PathBuf, NotFound> {
    let places: Vec<PathBuf> = match named {
        Some(path) => vec![PathBuf::from(path)],
        None => program
            .ancestors()
            .skip(1)
            .take(2)
            .map(|dir| dir.join("filter.wasm"))
            .collect(),
    };
    let found = places.iter().find(|path| path.is_file()).cloned();
    found.ok_or_else(|| NotFound {
        what: "filter.wasm",
        reason: format!(
            "not at {}",
            places
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
                .join(", nor at ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn envoy_is_taken_from_the_variable_then_the_path_then_the_cache() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let variables = |name: &str| {
            Some(match name {
                "PATH" => at("bin").into_os_string(),
                "HOME" => at("home").into_os_string(),
                _ => return None,
            })
        };
        let missing = envoy_in(&variables).unwrap_err().to_string();
        assert!(
            missing.starts_with("envoy: neither on the PATH nor at"),
            "{missing}"
        );
        let cached = at("home/.cache/injector/envoy-1.39.3/bin/envoy");
        program(&cached);
        assert_eq!(envoy_in(&variables), Ok(cached));
        fs::create_dir_all(at("bin/envoy")).unwrap();
        assert_ne!(
            envoy_in(&variables),
            Ok(at("bin/envoy")),
            "a directory is no program"
        );
        fs::remove_dir(at("bin/envoy")).unwrap();
        program(&at("bin/envoy"));
        assert_eq!(envoy_in(&variables), Ok(at("bin/envoy")));
        let named = |name: &str| match name {
            "ENVOY" => Some(at("mine").into_os_string()),
            other => variables(other),
        };
        assert!(
            envoy_in(&named)
                .unwrap_err()
                .to_string()
                .contains("no program")
        );
        program(&at("mine"));
        assert_eq!(envoy_in(&named), Ok(at("mine")));
    }

    #[test]
    fn the_filter_is_beside_the_program_or_above_it() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let program = at("target/release/injector");
        fs::create_dir_all(at("target/release")).unwrap();
        let missing = filter_in(None, &program).unwrap_err().to_string();
        assert!(
            missing.contains("target/release/filter.wasm, nor at"),
            "{missing}"
        );
        fs::write(at("target/filter.wasm"), "").unwrap();
        assert_eq!(filter_in(None, &program), Ok(at("target/filter.wasm")));
        fs::write(at("target/release/filter.wasm"), "").unwrap();
        assert_eq!(
            filter_in(None, &program),
            Ok(at("target/release/filter.wasm"))
        );
        let named = at("mine.wasm");
        assert!(filter_in(Some(named.clone().into()), &program).is_err());
        fs::write(&named, "").unwrap();
        assert_eq!(filter_in(Some(named.clone().into()), &program), Ok(named));
    }
}
