//! What `injector install` does to workloads that were prepared before, when the cluster part changes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::programs::ADMIN;
use super::server::Server;
use super::stage::{PREPARED, Stage};
use super::support::Ran;

/// Two namespaces with a prepared workload each, on a server of their own: a change of the cluster part concerns all workloads.
struct Two {
    server: Arc<Server>,
    _stages: [Stage; 2],
    module: tempfile::NamedTempFile,
}

impl Two {
    fn new() -> Self {
        let server = Arc::new(Server::bare());
        let install = "install --relay-image registry.example.com/injector:1 --no-wait";
        let ran = server.injector(ADMIN, install);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let stage = |namespace: &str| Stage::on(Arc::clone(&server), namespace, json!({}));
        let stages = ["first", "second"].map(stage);
        let module = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(module.path(), b"\0asm\x01\0\0\0").expect("written");
        Self {
            server,
            _stages: stages,
            module,
        }
    }

    /// `install` in the first namespace, with a filter that need not be served.
    #[track_caller]
    fn install(&self, flags: &str) -> Ran {
        self.run(&format!("--no-wait {flags}"))
    }

    #[track_caller]
    fn run(&self, flags: &str) -> Ran {
        let module = self.module.path().display();
        let words = format!("install -n first --module {module} {flags}");
        let ran = self.server.injector(ADMIN, &words);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran
    }

    fn has_third_relay(&self, namespace: &str) -> bool {
        let gate = self.server.get(namespace, "envoyfilter", PREPARED);
        gate.to_string().contains("injector-relay-2.")
    }
}

#[test]
fn a_change_beside_a_named_workload_reaches_the_others_and_the_named_one_once() {
    let two = Two::new();
    let ran = two.install("--workload orders --replicas 3");
    let note = "note: Deployment/orders in second: prepared again for what is installed now; nothing was drained";
    assert!(ran.stdout.contains(note), "{ran:?}");
    assert!(two.has_third_relay("first") && two.has_third_relay("second"));
    let of_first = format!("EnvoyFilter first/{PREPARED}");
    assert_eq!(ran.stdout.matches(&of_first).count(), 1, "{ran:?}");
    assert!(!ran.stdout.contains("orders in first"), "{ran:?}");

    // Without such a change the others are not looked at.
    let ran = two.install("--workload orders");
    assert!(!ran.stdout.contains("second"), "{ran:?}");
}

#[test]
fn a_dry_run_prints_what_is_applied_removed_and_left() {
    let two = Two::new();
    let gate_of_second = format!("EnvoyFilter second/{PREPARED}\n");
    // Another filter and fewer relays: both drain nothing.
    let dry = two.run("--workload orders --replicas 1 --dry-run -o name");
    for object in [
        "StatefulSet injector-system/injector-relay\n",
        "WasmPlugin first/injector-deployment-orders\n",
        "WasmPlugin second/injector-deployment-orders\n",
        &gate_of_second,
    ] {
        assert_eq!(dry.stdout.matches(object).count(), 1, "{object}{dry:?}");
    }
    for note in [
        "note: Service injector-system/injector-relay-1: would be removed\n",
        "note: DestinationRule first/injector-relay-1: would be removed\n",
        "note: DestinationRule second/injector-relay-1: would be removed\n",
        "note: Deployment/orders in second: would be prepared again (nothing would be drained)\n",
    ] {
        assert_eq!(dry.stderr.matches(note).count(), 1, "{note}{dry:?}");
    }
    assert!(!dry.stderr.contains("orders in first"), "{dry:?}");
    let rules = ["get", "destinationrules", "-A", "-o", "name"];
    assert_eq!(two.server.must(&rules, None).lines().count(), 4);

    // The same command without --dry-run does just that.
    let real = two.install("--workload orders --replicas 1");
    let objects = real.stdout.lines().take_while(|line| !line.is_empty());
    let (removed, applied): (Vec<&str>, Vec<&str>) =
        objects.partition(|line| line.starts_with("removed"));
    let name = |line: &&str| line.split_once(' ').map(|(_, name)| name.trim().to_owned());
    let mut applied: Vec<String> = applied.iter().filter_map(name).collect();
    let mut printed: Vec<String> = dry.stdout.lines().map(str::to_owned).collect();
    applied.sort();
    printed.sort();
    assert_eq!(printed, applied);
    assert_eq!(removed.len(), 3, "{real:?}");

    // A gate of another version is left as it is, unless somebody says that it may be drained.
    let other = r#"[{"op": "replace", "path": "/spec/priority", "value": 7}]"#;
    let patch = [
        "-n",
        "second",
        "patch",
        "envoyfilter",
        PREPARED,
        "--type=json",
        "-p",
        other,
    ];
    two.server.must(&patch, None);
    let left = two.run("--dry-run -o name");
    let note = "note: Deployment/orders in second: prepared for another version (its gate changes, so open connections are drained once); to prepare it again: injector install -n second";
    assert!(left.stderr.contains(note), "{left:?}");
    assert!(!left.stdout.contains(&gate_of_second), "{left:?}");
    let all = two.run("--dry-run --all-prepared -o name");
    assert!(all.stdout.contains(&gate_of_second), "{all:?}");
    assert!(
        all.stderr
            .contains("would be prepared again (its gate changes"),
        "{all:?}"
    );

    // Which filter a new image serves, nobody can say before.
    let words = "install --relay-image registry.example.com/injector:2 --dry-run -o name";
    let ran = two.server.injector(ADMIN, words);
    let note =
        "note: which filter will be served is not known (it is known only once the image runs)";
    assert!(ran.code == Some(0) && ran.stderr.contains(note), "{ran:?}");

    // As `render` does.
    let worker = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "worker", "namespace": "first"},
        "spec": {"selector": {"matchLabels": {"app": "worker"}}, "template": {"metadata": {"labels": {"app": "worker"}}, "spec": {"containers": [{"name": "app", "image": "x"}]}}},
    });
    two.server.apply(&worker);
    let skipped = two.run("--all --dry-run");
    assert!(
        skipped
            .stderr
            .contains("note: skipped: Deployment/worker: "),
        "{skipped:?}"
    );
    assert!(!skipped.stdout.contains("worker"), "{skipped:?}");
}

#[test]
fn a_workload_whose_envoy_cannot_run_the_filter_is_left_as_it_is() {
    let stage = Stage::new("runtime");
    let module = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(module.path(), b"\0asm\x01\0\0\0").expect("written");
    let words = format!(
        "install -n runtime --workload orders --max-lease 1h --no-wait --module {}",
        module.path().display()
    );
    let before = stage.plugin();
    stage.plain.store(true, Ordering::SeqCst);
    for flag in ["", " --dry-run"] {
        let refused = stage.server.injector(ADMIN, &format!("{words}{flag}"));
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let why = "its sidecar's Envoy was built without envoy.wasm.runtime.v8";
        assert!(refused.stderr.contains(why), "{refused:?}");
        assert_eq!(stage.plugin(), before);
    }
    stage.plain.store(false, Ordering::SeqCst);
    let prepared = stage.server.injector(ADMIN, &words);
    assert_eq!(prepared.code, Some(0), "{prepared:?}");
    assert_ne!(stage.plugin(), before);
}
