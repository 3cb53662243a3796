//! Finds the programs and the module under test.
//!
//! A missing one is a failure that names the command to run, never a skipped test.

use std::path::{Path, PathBuf};

/// The Envoy version of most tests.
pub const ENVOY: &str = "1.39.3";
/// The Envoy versions of the fallback tests.
///
/// The oldest and the newest supported one, and one between.
pub const ENVOYS: [&str; 3] = ["1.37.0", ENVOY, "1.40.0"];

/// The path of Envoy in that version.
///
/// For [`ENVOY`]: `$ENVOY`, then `$PATH`, then where `make tools` puts it; for other versions only the last.
pub fn envoy(version: &str) -> PathBuf {
    let cached = cache().join(format!("injector/envoy-{version}/bin/envoy"));
    let given = std::env::var_os("ENVOY").map(PathBuf::from);
    let candidates = if version == ENVOY {
        [given, in_path("envoy"), Some(cached)]
    } else {
        [Some(cached), None, None]
    };
    candidates
        .into_iter()
        .flatten()
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("Envoy {version} is not here; run: make tools"))
}

/// The release `injector`.
pub fn injector() -> PathBuf {
    built("release/injector", "make build")
}

/// The release filter.
pub fn filter() -> PathBuf {
    built("filter.wasm", "make build")
}

/// The layout of the relay's image.
pub fn relay_image() -> PathBuf {
    let dir = target().join("relay-image");
    assert!(
        dir.is_dir(),
        "{} is not here; run: make images",
        dir.display()
    );
    dir
}

/// The stand-in for pods, linked statically.
pub fn standin() -> PathBuf {
    let arch = std::env::consts::ARCH;
    built(
        &format!("static/{arch}-unknown-linux-gnu/release/standin"),
        "make images",
    )
}

/// A program of a third-party test suite.
pub fn peer(name: &str) -> PathBuf {
    let path = cache().join("injector/peers").join(name);
    assert!(
        path.is_file(),
        "{} is not here; run: tests/peers/build",
        path.display()
    );
    path
}

/// A forwarder that `make bench` measures beside the tunnel.
pub fn bench_tool(name: &str) -> PathBuf {
    let path = cache().join("injector/bench/bin").join(name);
    assert!(
        path.is_file(),
        "{} is not here; run: scripts/install-tools bench",
        path.display()
    );
    path
}

/// A system tool.
pub fn tool(name: &str, package: &str) -> PathBuf {
    in_path(name).unwrap_or_else(|| panic!("{name} is not here; run: apt-get install {package}"))
}

fn built(path: &str, command: &str) -> PathBuf {
    let path = target().join(path);
    assert!(
        path.is_file(),
        "{} is not here; run: {command}",
        path.display()
    );
    path
}

fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the workspace");
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), |dir| workspace.join(dir))
}

fn cache() -> PathBuf {
    let home = || std::env::home_dir().expect("a home").join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from)
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}
