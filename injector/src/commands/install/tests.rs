//! What `install` refuses, what it writes, and what the other two commands make of it.

use std::fs;
use std::path::PathBuf;

use clap::Parser;
use intercept_core::Intercept;
use tempfile::TempDir;

use super::*;
use crate::args::{Render, RenderWhat, Uninstall};
use crate::commands::{render, uninstall};
use crate::envoy::{Dir, EnvoyDirError};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Install,
}

/// A scratch directory with a module in it.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("filter.wasm"), b"\0asm\x01\0\0\0").unwrap();
        fs::write(scratch.path().join("text.wasm"), b"hello").unwrap();
        Self(scratch)
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("envoy")
    }

    fn module(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    /// `install` with the usual flags, and these.
    fn install(&self, flags: &str) -> Result<String> {
        let module = self.module("filter.wasm");
        let usual = [
            "install",
            "--relay-data=127.0.0.1:1",
            "--relay-control=127.0.0.1:2",
            "--module",
        ];
        let line = usual
            .into_iter()
            .chain([module.as_str()])
            .chain(flags.split_whitespace());
        plain::run(&Line::try_parse_from(line).unwrap().args, &self.dir())
    }

    fn open(&self) -> Dir {
        Dir::open(&self.dir()).unwrap()
    }

    fn add(&self, name: &str, port: u16, expires: u64) {
        let intercept = Intercept {
            port,
            cluster: format!("intercept|{port}|{name}"),
            address: "0".repeat(32),
            owner: "bob".to_owned(),
            created: 0,
            headers: Vec::new(),
            baggage: Vec::new(),
            path: None,
            expires,
        };
        self.open()
            .add(name, &intercept, |_| Ok::<(), EnvoyDirError>(()))
            .unwrap();
    }

    fn uninstall(&self, force: bool) -> Result<String> {
        let args = Uninstall {
            force,
            ..Uninstall::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(uninstall::plain(&args, &self.dir()))
    }
}

const ORDERS: &str = "--workload orders --port 8080:http --app 127.0.0.1:18080";

#[test]
fn every_flag_arrives_in_what_is_written() {
    let scratch = Scratch::new();
    scratch
        .install(
            "--workload orders --port 8080:http --app 127.0.0.1:18080 --protocol auto --url http://orders.test/ \
             --port 8090 --app 127.0.0.1:18090 --protocol grpc --url https://grpc.test --admin 127.0.0.1:9901 \
             --allow-all --max-lease 90min --header-name Coder --header-name :method",
        )
        .unwrap();
    let dir = scratch.open();
    let mut workload = dir.workload().clone();
    assert_eq!(
        workload.module.path,
        PathBuf::from(scratch.module("filter.wasm"))
    );
    workload.module.path = "filter.wasm".into();
    insta::assert_snapshot!(serde_json::to_string_pretty(&workload).unwrap());
    let document = dir.document().unwrap();
    assert_eq!(document.limits, workload.limits);
    assert!(document.intercepts.is_empty());
}

#[test]
fn wrong_flags_are_refused_and_nothing_is_created() {
    let cases = [
        (
            "--workload Orders --port 80 --app 127.0.0.1:1",
            "--workload Orders: expected lower-case",
        ),
        (
            "--workload orders --port 0 --app 127.0.0.1:1",
            "--port 0: expected LISTEN",
        ),
        (
            "--workload orders --port http --app 127.0.0.1:1",
            "--port http: expected LISTEN",
        ),
        (
            "--workload orders --port 80:81 --app 127.0.0.1:1",
            "--port 80:81: expected LISTEN",
        ),
        (
            "--workload orders --port 80: --app 127.0.0.1:1",
            "--port 80:: expected LISTEN",
        ),
        (
            "--workload orders --port 80 --port 81 --app 127.0.0.1:1",
            "--app: given 1 times",
        ),
        (
            "--workload orders --port 80 --port 80 --app 127.0.0.1:1 --app 127.0.0.1:1",
            "same number or name",
        ),
        (
            "--workload orders --port 80:a --port 81:a --app 127.0.0.1:1 --app 127.0.0.1:1",
            "same number or name",
        ),
        (
            "--workload orders --port 80 --app 0.0.0.0:1",
            "--app 0.0.0.0:1: expected an address",
        ),
        (
            "--workload orders --port 80 --app 127.0.0.1:0",
            "--app 127.0.0.1:0: expected an address",
        ),
        (
            "--workload o --port 80 --app 127.0.0.1:1 --url orders.test",
            "--url orders.test: expected http",
        ),
        (
            "--workload o --port 80 --app 127.0.0.1:1 --url http://o.test/api",
            "without a path",
        ),
        (
            "--workload o --port 80 --app 127.0.0.1:1 --max-lease 48h",
            "--max-lease 48h: expected a time",
        ),
        (
            "--workload o --port 80 --app 127.0.0.1:1 --max-lease 1",
            "--max-lease 1: expected a time",
        ),
        (
            "--workload o --port 80 --app 127.0.0.1:1 --header-name a=b",
            "--header-name a=b: expected a header",
        ),
        (
            "--workload o --port 80 --app 127.0.0.1:1 --admin 0.0.0.0:1",
            "--admin 0.0.0.0:1: expected",
        ),
    ];
    let scratch = Scratch::new();
    for (flags, expected) in cases {
        let error = scratch.install(flags).expect_err(flags).to_string();
        assert!(error.contains(expected), "{flags}\n{error}");
        assert!(!scratch.dir().exists(), "{flags}");
    }
}

#[test]
fn a_module_that_is_none_is_refused() {
    let scratch = Scratch::new();
    for (name, expected) in [
        ("none.wasm", "No such file"),
        ("text.wasm", "not a WebAssembly module"),
    ] {
        let line =
            format!("x --relay-data=127.0.0.1:1 --relay-control=127.0.0.1:2 {ORDERS} --module");
        let module = scratch.module(name);
        let words = line.split_whitespace().chain([module.as_str()]);
        let error =
            plain::run(&Line::try_parse_from(words).unwrap().args, &scratch.dir()).expect_err(name);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("make build"), "{error}");
        assert!(!scratch.dir().exists());
    }
}

#[test]
fn installing_again_keeps_the_intercepts_and_takes_the_new_limits() {
    let scratch = Scratch::new();
    scratch.install(ORDERS).unwrap();
    scratch.add("bob", 8080, u64::MAX);
    scratch.install(&format!("{ORDERS} --allow-all")).unwrap();
    let document = scratch.open().document().unwrap();
    assert_eq!(document.intercepts.len(), 1);
    assert!(document.limits.allow_all);
}

#[test]
fn a_port_that_is_intercepted_cannot_be_installed_away() {
    let scratch = Scratch::new();
    scratch.install(ORDERS).unwrap();
    scratch.add("bob", 8080, u64::MAX);
    let error = scratch
        .install("--workload orders --port 8081 --app 127.0.0.1:18080")
        .expect_err("port 8080 is intercepted");
    assert!(
        error.to_string().contains("bob intercepts port 8080"),
        "{error}"
    );
    assert!(scratch.open().workload().port_number(8080).is_some());
}

#[test]
fn uninstalling_removes_exactly_what_was_written() {
    let scratch = Scratch::new();
    scratch.install(ORDERS).unwrap();
    fs::write(scratch.dir().join("mine.yaml"), "mine").unwrap();
    scratch.uninstall(false).unwrap();
    let left: Vec<_> = fs::read_dir(scratch.dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["mine.yaml"]);
}

#[test]
fn uninstalling_removes_an_empty_directory() {
    let scratch = Scratch::new();
    scratch.install(ORDERS).unwrap();
    scratch.uninstall(false).unwrap();
    assert!(!scratch.dir().exists());
}

#[test]
fn uninstalling_under_a_live_intercept_needs_force() {
    let scratch = Scratch::new();
    scratch.install(ORDERS).unwrap();
    scratch.add("bob", 8080, u64::MAX);
    let error = scratch.uninstall(false).expect_err("bob is live");
    let text = error.to_string();
    assert!(text.contains("orders is intercepted by bob"), "{text}");
    assert!(error.to_string().contains("uninstall --force"), "{error}");
    scratch.uninstall(true).unwrap();
    assert!(!scratch.dir().exists());
}

#[test]
fn an_intercept_whose_lease_is_over_does_not_hold_the_uninstall() {
    let scratch = Scratch::new();
    scratch.install(ORDERS).unwrap();
    scratch.add("bob", 8080, 1);
    scratch.uninstall(false).unwrap();
    assert!(!scratch.dir().exists());
}

#[test]
fn what_is_not_installed_is_neither_rendered_nor_uninstalled() {
    let scratch = Scratch::new();
    let error = scratch.uninstall(false).expect_err("nothing is there");
    assert!(
        error.to_string().contains("no workload is installed here"),
        "{error}"
    );
    let error = render(&scratch, &["envoy"]).expect_err("nothing is there");
    assert!(
        error.to_string().contains("no workload is installed here"),
        "{error}"
    );
    assert!(!scratch.dir().exists());
}

#[derive(Parser)]
struct RenderLine {
    #[command(flatten)]
    args: Render,
}

fn render(scratch: &Scratch, words: &[&str]) -> Result<String> {
    let line = ["render"].iter().chain(words);
    match RenderLine::try_parse_from(line).unwrap().args.what {
        RenderWhat::Envoy(args) => render::envoy(&args, &scratch.dir()),
        RenderWhat::Istio(_) => unreachable!("these tests render for a plain Envoy"),
    }
}

#[test]
fn unmatched_requests_go_to_the_cluster_that_the_operator_names() {
    let scratch = Scratch::new();
    scratch
        .install("--workload o --port 80 --app 127.0.0.1:1 --port 81:b --app 127.0.0.1:2")
        .unwrap();
    let text = render(&scratch, &["envoy", "--app-cluster", "b=mine"]).unwrap();
    let defaults: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("default_cluster: "))
        .collect();
    assert_eq!(
        defaults,
        ["intercept-app|80", "intercept-app|80", "mine", "mine"]
    );
}

#[test]
fn a_cluster_that_would_break_out_of_its_string_is_refused() {
    let scratch = Scratch::new();
    scratch.install(ORDERS).unwrap();
    for flag in ["a\"b", "a b", "a\\b", "", "8081=a", "8080="] {
        assert!(
            render(&scratch, &["envoy", "--app-cluster", flag]).is_err(),
            "{flag}"
        );
    }
}

#[test]
fn what_to_render_must_be_said() {
    let error = RenderLine::try_parse_from(["render"]).err().unwrap();
    assert!(
        error.to_string().contains("requires a subcommand"),
        "{error}"
    );
}

#[test]
fn a_complete_configuration_is_one_yaml_document() {
    let scratch = Scratch::new();
    scratch.install(ORDERS).unwrap();
    let text = render(&scratch, &["envoy", "--bootstrap", "--listen", "::"]).unwrap();
    let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    let address = "/static_resources/listeners/0/address/socket_address/address";
    assert_eq!(value.pointer(address).unwrap(), "::");
}
