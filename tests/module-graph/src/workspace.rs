//! The crates of the workspace, from cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A library or a program of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The package's name.
    pub package: String,
    /// The root file.
    pub root: PathBuf,
}

/// `cargo metadata` failed.
#[derive(Debug, thiserror::Error)]
#[error("cargo metadata: {0}")]
pub struct MetadataError(String);

/// The libraries and programs of the workspace that contains this directory.
pub fn targets(dir: &Path) -> Result<Vec<Target>, MetadataError> {
    let wrong = |error: &dyn ToString| MetadataError(error.to_string());
    let said = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(dir)
        .output()
        .map_err(|error| wrong(&error))?;
    if !said.status.success() {
        return Err(wrong(&String::from_utf8_lossy(&said.stderr)));
    }
    let said: Value = serde_json::from_slice(&said.stdout).map_err(|error| wrong(&error))?;
    let list = |of: &Value, name: &str| of[name].as_array().cloned().unwrap_or_default();
    let mut targets = Vec::new();
    for package in list(&said, "packages") {
        for target in list(&package, "targets") {
            let kinds = list(&target, "kind");
            if !kinds
                .iter()
                .any(|kind| ["lib", "cdylib", "bin"].contains(&kind.as_str().unwrap_or_default()))
            {
                continue;
            }
            if let (Some(package), Some(root)) =
                (package["name"].as_str(), target["src_path"].as_str())
            {
                targets.push(Target {
                    package: package.to_owned(),
                    root: root.into(),
                });
            }
        }
    }
    Ok(targets)
}
