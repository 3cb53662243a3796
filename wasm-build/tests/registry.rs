//! The image in a real registry.
//!
//! Pushed with skopeo as in `docs/module-image.md`, pulled back, and unpacked as Istio's agent does.
//!
//! Needs Debian's `docker-registry` and `skopeo`.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use oci_spec::image::{ImageIndex, ImageManifest};
use tempfile::TempDir;

mod support;

use support::{COMMIT, module, wasm_build};

/// How long the registry may take to listen.
const DEADLINE: Duration = Duration::from_secs(20);

/// What Istio's agent reads from a registry: the last layer, and in it a file of this name.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const PLUGIN: &str = "plugin.wasm";

/// A registry on loopback with its own storage, ended with the test.
struct Registry {
    process: Child,
    address: String,
    _storage: TempDir,
}

impl Registry {
    fn start() -> Self {
        let storage = tempfile::tempdir().unwrap();
        let config = storage.path().join("config.yml");
        let root = storage.path().join("data");
        let yaml = format!(
            "{{version: 0.1, storage: {{filesystem: {{rootdirectory: {root:?}}}}}, http: {{addr: '127.0.0.1:0'}}}}"
        );
        fs::write(&config, yaml).unwrap();
        let log = storage.path().join("log");
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .expect("docker-registry: apt-get install docker-registry");
        let address = wait_for_address(&log, &mut process);
        Self {
            process,
            address,
            _storage: storage,
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// Reads the registry's address from its log.
fn wait_for_address(log: &Path, process: &mut Child) -> String {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let text = fs::read_to_string(log).unwrap();
        if let Some((_, rest)) = text.split_once("listening on ")
            && let Some((address, _)) = rest.split_once(['"', ','])
        {
            return address.to_owned();
        }
        let ended = process.try_wait().unwrap();
        if ended.is_some() || Instant::now() > deadline {
            _ = process.kill();
            panic!("the registry does not listen ({ended:?}):\n{text}");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn skopeo(args: &[&str]) {
    let output = Command::new("skopeo")
        .args(args)
        .output()
        .expect("skopeo: apt-get install skopeo");
    assert!(
        output.status.success(),
        "skopeo {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Builds a module and its image in a directory.
fn built_image(dir: &Path) -> Vec<u8> {
    let (wasm, layout) = (dir.join("filter.wasm"), dir.join("image"));
    let module = module(COMMIT);
    fs::write(&wasm, &module).unwrap();
    let output = wasm_build(&[
        "image",
        "--module",
        wasm.to_str().unwrap(),
        "--out",
        layout.to_str().unwrap(),
    ]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    module
}

/// The manifest of the only image in a layout.
fn manifest(layout: &Path) -> (String, ImageManifest) {
    let index = ImageIndex::from_file(layout.join("index.json")).unwrap();
    assert_eq!(index.manifests().len(), 1);
    let digest = index.manifests()[0].as_digest_sha256().unwrap().to_owned();
    let manifest = ImageManifest::from_file(layout.join("blobs/sha256").join(&digest)).unwrap();
    (digest, manifest)
}

/// Unpacks an image as Istio's agent does.
fn unpacked(layout: &Path) -> Vec<u8> {
    let (_, manifest) = manifest(layout);
    let layer = manifest.layers().last().unwrap();
    assert_eq!(layer.media_type().to_string(), LAYER);
    let blob = File::open(
        layout
            .join("blobs/sha256")
            .join(layer.as_digest_sha256().unwrap()),
    )
    .unwrap();
    let mut archive = tar::Archive::new(GzDecoder::new(blob));
    let mut plugin = archive
        .entries()
        .unwrap()
        .map(Result::unwrap)
        .find(|entry| entry.path().unwrap().ends_with(PLUGIN))
        .expect(PLUGIN);
    let mut bytes = Vec::new();
    plugin.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_registry_takes_the_image_and_gives_back_the_same_module() {
    let dir = tempfile::tempdir().unwrap();
    let module = built_image(dir.path());
    let layout = dir.path().join("image");
    let registry = Registry::start();

    let remote = format!("docker://{}/injector/filter:1.2.3", registry.address);
    skopeo(&[
        "copy",
        "--dest-tls-verify=false",
        &format!("oci:{}:1.2.3", layout.display()),
        &remote,
    ]);
    let pulled = dir.path().join("pulled");
    skopeo(&[
        "copy",
        "--src-tls-verify=false",
        &remote,
        &format!("oci:{}:1.2.3", pulled.display()),
    ]);

    assert_eq!(unpacked(&pulled), module);
    let (pushed, pulled) = (manifest(&layout), manifest(&pulled));
    assert_eq!(
        pushed.0, pulled.0,
        "the registry knows the image under another digest than the one printed"
    );
    assert_eq!(pushed.1.annotations(), pulled.1.annotations());
}

#[test]
fn the_image_is_replaced_but_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    built_image(dir.path());
    let first = manifest(&dir.path().join("image")).0;
    built_image(dir.path());
    assert_eq!(manifest(&dir.path().join("image")).0, first);

    let wasm = dir.path().join("filter.wasm");
    let output = wasm_build(&[
        "image",
        "--module",
        wasm.to_str().unwrap(),
        "--out",
        dir.path().to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(wasm.exists());
}

#[test]
fn a_module_that_is_missing_or_not_ours_is_an_error_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let (wasm, out) = (dir.path().join("filter.wasm"), dir.path().join("image"));
    for (bytes, expected) in [
        (None, "read "),
        (Some(&b"#!/bin/sh"[..]), "not a module that Envoy loads"),
    ] {
        if let Some(bytes) = bytes {
            fs::write(&wasm, bytes).unwrap();
        }
        let output = wasm_build(&[
            "image",
            "--module",
            wasm.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains(expected),
            "{stderr}"
        );
        assert!(
            stderr.ends_with("\n\nhint: cargo run -p wasm-build -- build\n"),
            "{stderr}"
        );
        assert!(!out.exists());
    }
}
