//! The cost of the conflict check, against as many intercepts as a workload may have.
//!
//! Needs the release binary, and no Envoy.
//!
//! Counts the instructions of `injector intercept … --dry-run`, minus those of the same command without other intercepts: independent of the machine's speed
//! and of its other load.

use std::path::Path;
use std::process::Command;

use harness::callgrind;
use harness::intercept::Developer;
use harness::plugin::{NOBODY, document, entry, with_prefix};
use injector::envoy::Dir;
use intercept_core::Document;
use intercept_manifest::envoy::filter_file;
use intercept_manifest::facts::{
    Module, Port as WorkloadPort, Protocol, Relay, WORKLOAD_VERSION, Workload,
};

/// With the new one, a thousand: more are rejected.
const OTHERS: usize = 999;
/// The instruction limit with regexes in the other intercepts: some 50 ms.
const MOST_REGEXES: u64 = 350 * MILLION;
/// The instruction limit with exact values: some 11 ms.
const MOST_VALUES: u64 = 85 * MILLION;
const MILLION: u64 = 1_000_000;

/// The expected verdict on the new intercept.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// It overlaps with all of them in requests with its own header, too.
    Notes,
    Refused,
    Nothing,
}
use Expected::{Notes, Nothing, Refused};

#[test]
fn a_thousand_regexes_are_compared_within_the_limit() {
    let value = |number| format!(r"(user|dev)-{number}-[a-z]+(@example\.com)?");
    measure(
        MOST_REGEXES,
        value,
        &[
            ("--http-header=all", Refused),
            ("--http-header=Coder=.*", Refused),
            ("--http-header=Coder=(user|dev)-77[0-9]-[a-f]+", Refused),
            ("--http-header=X-Team=r.d", Notes),
            ("--http-header=auto", Notes),
            ("--http-header=Coder=nobody-[0-9]+", Nothing),
            ("--http-header=Coder=[a-z]+-[0-9]+", Nothing),
            ("--http-header=Coder=.*!x.*", Nothing),
            ("--http-path-regex=/v[0-9]+/.*", Nothing),
        ],
    );
}

#[test]
fn a_thousand_values_are_compared_within_the_limit() {
    measure(
        MOST_VALUES,
        |number| format!("dev-{number}"),
        &[
            ("--http-header=all", Refused),
            ("--http-header=Coder=dev-[0-9]+", Refused),
            ("--http-header=X-Team=red", Notes),
            ("--http-header=Coder=nobody", Nothing),
            ("--http-header=Coder=nobody-[0-9]+", Nothing),
        ],
    );
}

/// Checks each new intercept against many others with these values of `Coder`, below /api.
fn measure(limit: u64, value: impl Fn(usize) -> String, newcomers: &[(&str, Expected)]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let others = (0..OTHERS).map(|number| {
        let name = format!("dev-{number}");
        let (name, mut entry) = entry(&name, PORT, NOBODY, "Coder", &value(number));
        entry.owner.clone_from(&name);
        with_prefix((name, entry), "/api")
    });
    let alone = developer(&dir.path().join("alone"), &document([]));
    let among = developer(&dir.path().join("among"), &document(others));
    for (flag, expected) in newcomers {
        assert_outcome(&among, flag, *expected);
        let [alone, among] = [&alone, &among].map(|developer| instructions(developer, flag));
        let added = among.saturating_sub(alone);
        println!("{flag}: {} million instructions", added / MILLION);
        assert!(added > MILLION, "{flag}: {added}: nothing was compared");
        assert!(added <= limit, "{flag}: {added}, expected at most {limit}");
    }
}

fn command_line(flag: &str) -> [&str; 5] {
    ["intercept", "orders", "--port=3000", "--dry-run", flag]
}

/// Checks that the whole check ran, not a rejection for some other reason.
fn assert_outcome(developer: &Developer, flag: &str, expected: Expected) {
    let output = developer.run(&command_line(flag));
    let stderr = String::from_utf8_lossy(&output.stderr);
    let notes = stderr
        .lines()
        .filter(|line| line.starts_with("note: a request that carries"));
    let is_refused = stderr.contains(" matches the same requests");
    let (status, count) = match expected {
        Notes => (Some(0), OTHERS),
        Refused => (Some(1), 0),
        Nothing => (Some(0), 0),
    };
    let refused = matches!(expected, Refused);
    assert_eq!(
        (output.status.code(), notes.count(), is_refused),
        (status, count, refused),
        "{flag}: {stderr}"
    );
}

/// Instructions of the program, over all its threads.
fn instructions(developer: &Developer, flag: &str) -> u64 {
    let counted = tempfile::NamedTempFile::new().expect("a temporary file");
    let words = callgrind::command_line(counted.path(), &[]);
    let typed = developer.command(&command_line(flag));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command.arg(typed.get_program()).args(typed.get_args());
    for (name, value) in typed.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.output().expect("valgrind starts");
    callgrind::total(counted.path())
}

/// The workload's only port, without a listener.
const PORT: u16 = 8080;

/// A developer at a prepared workload with these intercepts.
fn developer(dir: &Path, intercepts: &Document) -> Developer {
    let nowhere = ([127, 0, 0, 1], 9).into();
    let workload = Workload {
        version: WORKLOAD_VERSION,
        name: "orders".to_owned(),
        ports: vec![WorkloadPort {
            name: "http".to_owned(),
            number: PORT,
            app: nowhere,
            protocol: Protocol::Http,
            url: None,
        }],
        relay: Relay {
            data: nowhere,
            control: nowhere,
            outbound: None,
        },
        module: Module {
            path: "/filter.wasm".into(),
            sha256: "0".repeat(64),
        },
        limits: intercepts.limits.clone(),
        admin: None,
    };
    let files = dir.join("envoy");
    std::fs::create_dir_all(dir).expect("a writable directory");
    Dir::install(&files, &workload).expect("an empty directory");
    let file = filter_file(&workload, intercepts, 2).expect("JSON");
    std::fs::write(files.join("filter.json"), file.to_string()).expect("a writable directory");
    Developer::new("mine", &files, dir)
}
