//! The image of relay and module server: which program it accepts with which filter.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{COMMIT, module, wasm_build};
use tempfile::TempDir;

/// Packs a module of this commit, with additional arguments.
fn pack(dir: &Path, commit: &str, more: &[&str]) -> Output {
    let (wasm, out) = (dir.join("filter.wasm"), dir.join("image"));
    fs::write(&wasm, module(commit)).unwrap();
    let fixed = [
        "image",
        "--relay",
        "--module",
        wasm.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    wasm_build(&[&fixed, more].concat())
}

/// A file with the head of a static program for x86-64 that contains this text.
fn program(dir: &Path, text: &str) -> PathBuf {
    let mut file = vec![0; 64];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[18] = 62;
    file.extend(text.as_bytes());
    let path = dir.join("program");
    fs::write(&path, file).unwrap();
    path
}

#[test]
fn a_program_of_another_commit_than_the_filter_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("image");
    for other in ["ba9876543210", "0123456789ab+dirty", ""] {
        let program = program(dir.path(), other);
        let output = pack(
            dir.path(),
            COMMIT,
            &["--program", program.to_str().unwrap()],
        );
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{other}: {stderr}");
        let expected = "program: filter.wasm is of commit 0123456789ab, which this program does not name as its own\n\nhint: INJECTOR_COMMIT=0123456789ab RUSTFLAGS=";
        assert!(stderr.contains(expected), "{stderr}");
        assert!(!out.exists());
    }
    let program = program(dir.path(), "(0123456789ab)");
    let output = pack(
        dir.path(),
        COMMIT,
        &["--program", program.to_str().unwrap()],
    );
    assert!(output.status.success(), "{output:?}");
    assert!(out.join("index.json").is_file());
}

/// A directory that passes for a checkout of the project but has nothing to build; and its commit.
fn checkout() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("filter")).unwrap();
    for file in ["Cargo.lock", "filter/Cargo.toml"] {
        fs::write(dir.path().join(file), "").unwrap();
    }
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(dir.path())
            .args(["-c", "user.name=Bob", "-c", "user.email=bob@example.com"])
            .args(args)
            .output()
            .expect("git: apt-get install git");
        assert!(output.status.success(), "git {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-qm", "one"]);
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    (dir, commit)
}

#[test]
fn no_program_is_built_for_a_filter_of_another_commit() {
    let (checkout, commit) = checkout();
    let dir = tempfile::tempdir().unwrap();
    let wasm = dir.path().join("filter.wasm");
    let image = || {
        let output = assert_cmd::Command::cargo_bin("wasm-build")
            .unwrap()
            .current_dir(checkout.path())
            .args(["image", "--relay", "--module"])
            .arg(&wasm)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    fs::write(&wasm, module(COMMIT)).unwrap();
    let expected = format!(
        "error: filter.wasm is of commit {COMMIT}, the program would be of {commit}\n\nhint: cargo run -p wasm-build -- build\n"
    );
    assert_eq!(image(), expected);
    // The matching commit gets as far as cargo, which has nothing to build here.
    fs::write(&wasm, module(&commit)).unwrap();
    let stderr = image();
    assert!(
        stderr.contains("error: cargo build of a static injector: "),
        "{stderr}"
    );
    // An uncommitted change makes another program.
    fs::write(checkout.path().join("filter/Cargo.toml"), "\n").unwrap();
    let stderr = image();
    assert!(
        stderr.contains(&format!(
            "of commit {commit}, the program would be of {commit}+dirty\n"
        )),
        "{stderr}"
    );
}
