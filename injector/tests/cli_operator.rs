//! What an operator's commands say before they ask a cluster anything.

use std::path::Path;
use std::process::Command;

use intercept_manifest::istio::{example, install};

/// A command in an empty directory, with a kubeconfig whose API server is away.
fn told(dir: &Path, words: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_injector"))
        .args(words.split_whitespace())
        .current_dir(dir)
        .env_remove("INJECTOR_ENVOY")
        .env("KUBECONFIG", "kubeconfig")
        .output()
        .unwrap();
    format!(
        "$ injector {words}\n{}{}exit {}\n\n",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        output.status.code().unwrap()
    )
}

fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = r#"{apiVersion: v1, kind: Config, current-context: c, users: [], clusters: [{name: k, cluster: {server: "http://127.0.0.1:1"}}], contexts: [{name: c, context: {cluster: k}}]}"#;
    std::fs::write(dir.path().join("kubeconfig"), kubeconfig).unwrap();
    std::fs::write(dir.path().join("text"), "hello").unwrap();
    dir
}

fn all(lines: &[&str]) -> String {
    let dir = place();
    lines.iter().map(|words| told(dir.path(), words)).collect()
}

#[test]
fn flags_that_do_not_go_together_are_refused_in_words() {
    insta::assert_snapshot!(all(&[
        "--envoy x --context y list",
        "install --envoy x -n shop --workload orders",
        "install --envoy x --all",
        "install --envoy x --dry-run",
        "install --app 127.0.0.1:1",
        "install --workload orders --all",
        "install --port http",
        "install --allow-all",
        "install --relay-image x --max-lease 24h",
        "install --all-prepared --header-name x",
        "render istio --relay-image x --max-lease 8h",
        "install --module-url https://x/filter.wasm",
        "install --workload orders --module-url oci://r/f:1",
        "install --workload orders --module-url oci://r/f:1 --module filter.wasm",
        "render istio --workload orders --module-url r/f:1",
        "uninstall --envoy x --all",
        "doctor --envoy x orders",
    ]));
}

#[test]
fn what_cannot_be_used_is_refused_in_words() {
    insta::assert_snapshot!(all(&[
        "install --kubeconfig nowhere",
        "install --context other",
        "install --workload orders --max-lease 1s",
        "install --workload orders --module text",
        "render istio",
        "module-server --file nowhere",
        "module-server --file text",
    ]));
}

#[test]
fn an_api_server_that_is_away_fails_every_command() {
    let dir = place();
    let fails = |words: &str| {
        let told = told(dir.path(), words);
        assert!(
            told.contains("http://127.0.0.1:1: ") && told.ends_with("exit 1\n\n"),
            "{told}"
        );
        told
    };
    for words in [
        "doctor",
        "render istio --workload orders --relay-image x",
        "list",
    ] {
        assert!(!fails(words).contains("trying again"), "{words}");
    }
    // What must not be left half done waits a while, and says so once; all at the same time, so that the test does not.
    std::thread::scope(|scope| {
        for words in ["install --relay-image x", "uninstall", "leave --all"] {
            scope.spawn(move || {
                assert_eq!(
                    fails(words).matches("trying again for up to 20 s").count(),
                    1,
                    "{words}"
                )
            });
        }
    });
}

#[test]
fn the_cluster_part_is_rendered_without_a_cluster() {
    insta::assert_snapshot!(all(&[
        "render istio --relay-image registry.example.com/injector:0.1.0 --replicas 1 -o name",
    ]));
}

#[test]
fn what_is_said_is_not_taken_for_granted() {
    let told = |flags: &str| {
        let words = format!("render istio --relay-image x -o name {flags}");
        told(place().path(), &words)
    };
    let domain = "taken to end with cluster.local";
    assert!(told("").contains(domain));
    assert!(!told("--cluster-domain corp.example").contains("note: "));
    assert!(!told("--quiet").contains("note: "));
}

#[test]
fn the_directory_istio_is_what_the_command_prints() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../istio/cluster");
    let cluster_part = install::cluster_objects(&example::install()).unwrap().len();
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let texts: Vec<String> = files[..cluster_part]
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    let words = format!("render istio -q --relay-image {}", example::install().image);
    let printed = told(place().path(), &words);
    let expected = format!("$ injector {words}\n{}exit 0\n\n", texts.join("---\n"));
    if printed != expected {
        let mut lines = printed.lines().zip(expected.lines());
        panic!(
            "{:?}",
            lines.find(|(printed, expected)| printed != expected)
        );
    }
}
