//! How long the conflict check takes a developer, against as many intercepts as there may be on one workload. Needs the release binary, and no Envoy.
//!
//! Measured is the processor time of `injector intercept … --dry-run`, less that of the same command where nobody else intercepts: what the machine does besides counts for
//! neither. Runs with and without the others take turns.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use harness::binaries;
use harness::intercept::Developer;
use harness::plugin::{NOBODY, document, entry, with_prefix};
use injector::envoy::Dir;
use injector::manifest::envoy::filter_file;
use injector::manifest::facts::{
    Module, Port as WorkloadPort, Protocol, Relay, WORKLOAD_VERSION, Workload,
};
use intercept_core::Document;

/// Together with the one that comes, a thousand: more are refused.
const OTHERS: usize = 999;
/// How many runs are made of each: the least counts, since what else the machine does only adds.
const ROUNDS: usize = 15;
/// The promise where the others' conditions are regexes.
const MOST_REGEXES: Duration = Duration::from_millis(50);
/// The promise where they are exact values.
const MOST_VALUES: Duration = Duration::from_millis(10);

/// What comes of the newcomer.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// It meets all of them in requests that carry its own header, too.
    Notes,
    Refused,
    Nothing,
}
use Expected::{Notes, Nothing, Refused};

/// One after the other: threads that share a core make each other slower.
static ALONE: Mutex<()> = Mutex::new(());

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

/// Every newcomer against that many others with these values of the header `Coder`, below /api.
fn measure(limit: Duration, value: impl Fn(usize) -> String, newcomers: &[(&str, Expected)]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (developer, times) in [&alone, &among].into_iter().zip(&mut times) {
                times.push(processor_time(developer, flag));
            }
        }
        let [alone, among] = times.map(least);
        let took = among.saturating_sub(alone);
        println!("{flag}: {took:?} ({among:?} less {alone:?})");
        assert!(
            took <= limit,
            "{flag}: {took:?}, expected at most {limit:?}"
        );
    }
}

fn command_line(flag: &str) -> [&str; 5] {
    ["intercept", "orders", "--port=3000", "--dry-run", flag]
}

/// What is measured is the whole check, not a refusal for some other reason.
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

/// As the shell's `time` has it, to the millisecond: of all threads, in the program and in the kernel.
fn processor_time(developer: &Developer, flag: &str) -> Duration {
    let script = r#"TIMEFORMAT="%3U %3S"; time "$@" >/dev/null 2>&1"#;
    let typed = developer.command(&command_line(flag));
    let mut command = Command::new(binaries::tool("bash", "bash"));
    command.args(["-c", script, "bash"]);
    command.arg(typed.get_program()).args(typed.get_args());
    for (name, value) in typed.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.env("LC_ALL", "C").output().expect("bash starts");
    let told = String::from_utf8(output.stderr).expect("text");
    let seconds = told.split_whitespace().map(|number| number.parse::<f64>());
    let seconds: Result<Vec<f64>, _> = seconds.collect();
    let seconds = seconds.unwrap_or_else(|_| panic!("two numbers, not {told}"));
    assert_eq!(seconds.len(), 2, "{told}");
    Duration::from_secs_f64(seconds.iter().sum())
}

fn least(times: Vec<Duration>) -> Duration {
    times.into_iter().min().expect("a run")
}

/// The workload's only port. Nothing listens there.
const PORT: u16 = 8080;

/// Somebody at a prepared workload with these intercepts.
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
