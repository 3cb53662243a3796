//! What `injector install` does: to a cluster with an older version in it, to workloads that were prepared before, and by an operator who is no administrator.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use intercept_manifest::istio::names;
use serde_json::{Value, json};

use super::controller::control::intercept;
use super::programs::ADMIN;
use super::rbac;
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
        let rule = ("destinationrule", "injector-relay-2");
        let plugin = self.server.get(namespace, "wasmplugin", PREPARED);
        let preparation = &plugin["metadata"]["annotations"]["injector.dev/preparation"];
        let is_known = preparation
            .as_str()
            .is_some_and(|text| text.contains("\"relay_replicas\":3"));
        is_known && self.server.object(namespace, rule.0, rule.1).is_some()
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

    // A gate of another version stays as it is, unless a flag allows to drain it.
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

    // The filter of a new image is unknown until the image runs.
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

const INSTALL: &str = "install --relay-image registry.example.com/injector:1 --no-wait";

/// `install` in a namespace, with a filter that need not be served.
fn prepare(module: &tempfile::NamedTempFile, namespace: &str, flags: &str) -> String {
    std::fs::write(module.path(), b"\0asm\x01\0\0\0").expect("written");
    let module = module.path().display();
    format!("install -n {namespace} --module {module} --no-wait --workload orders {flags}")
}

#[test]
fn install_is_idempotent_and_removes_an_older_version() {
    let server = Arc::new(Server::bare());
    let labels = json!({"app.kubernetes.io/managed-by": "injector", "app.kubernetes.io/part-of": "injector"});
    let metadata = |name: &str| json!({"name": name, "labels": labels});
    let policy = "admissionregistration.k8s.io/v1";
    server.apply_all(&[
        json!({"apiVersion": policy, "kind": "ValidatingAdmissionPolicy", "metadata": metadata("injector-entries"),
            "spec": {"matchConstraints": {"resourceRules": [{"apiGroups": ["extensions.istio.io"], "apiVersions": ["v1alpha1"], "resources": ["wasmplugins"], "operations": ["UPDATE"]}]},
                "validations": [{"expression": "true"}]}}),
        json!({"apiVersion": policy, "kind": "ValidatingAdmissionPolicyBinding", "metadata": metadata("injector-entries"),
            "spec": {"policyName": "injector-entries", "validationActions": ["Deny"]}}),
    ]);
    let dry = server.injector(ADMIN, &format!("{INSTALL} --dry-run -o name"));
    let ran = server.injector(ADMIN, INSTALL);
    assert_eq!((dry.code, ran.code), (Some(0), Some(0)), "{dry:?}{ran:?}");
    for kind in [
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ] {
        let line = format!("removed  {kind} injector-entries\n");
        assert!(ran.stdout.contains(&line), "{line}{ran:?}");
        let note = format!("note: {kind} injector-entries: would be removed\n");
        assert!(dry.stderr.contains(&note), "{note}{dry:?}");
    }
    let again = server.injector(ADMIN, "install --no-wait");
    let mut lines = again.stdout.lines();
    assert!(lines.all(|line| line.starts_with("unchanged")), "{again:?}");

    // A workload that was prepared by the older version, with an intercept.
    let stage = Stage::on(Arc::clone(&server), "older", json!({}));
    let mut entry = metadata("intercept-bob");
    entry["namespace"] = json!("older");
    entry["labels"]["injector.dev/intercept"] = json!("bob");
    entry["annotations"] = json!({"injector.dev/workload": "Deployment/orders"});
    let filter = json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": entry, "spec": {}});
    server.apply(&filter);
    let old = r#"[{"op": "replace", "path": "/spec/pluginConfig/version", "value": 1},
        {"op": "add", "path": "/spec/pluginConfig/intercepts", "value": {"bob": {"port": 8080}}},
        {"op": "remove", "path": "/metadata/annotations/injector.dev~1preparation"}]"#;
    let patch = [
        "-n",
        "older",
        "patch",
        "wasmplugin",
        PREPARED,
        "--type=json",
        "-p",
        old,
    ];
    server.must(&patch, None);
    let noted = server.injector(ADMIN, "install --no-wait");
    let note = "note: Deployment/orders in older: prepared for another version (what it has cannot be read by this version); to prepare it again: injector install -n older --workload Deployment/orders";
    assert!(noted.stdout.contains(note), "{noted:?}");
    let module = tempfile::NamedTempFile::new().expect("a file");
    let words = prepare(&module, "older", "--force-conflicts");
    let ran = server.injector(ADMIN, &words);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let line = "removed    EnvoyFilter older/intercept-bob\n";
    assert!(ran.stdout.contains(line), "{ran:?}");
    let config = &stage.plugin()["spec"]["pluginConfig"];
    assert_eq!(
        (&config["version"], &config["intercepts"]),
        (&json!(2), &Value::Null)
    );
}

#[test]
fn port_with_a_live_intercept_stays_prepared() {
    let server = Arc::new(Server::bare());
    assert_eq!(server.injector(ADMIN, INSTALL).code, Some(0));
    let _stage = Stage::on(Arc::clone(&server), "ports", json!({}));
    let two = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "orders", "namespace": "ports"},
        "spec": {"selector": {"app": "orders"}, "ports": [
            {"name": "http", "port": 80, "targetPort": "web"}, {"name": "http-admin", "port": 90, "targetPort": 9090}]}});
    server.apply(&two);
    let module = tempfile::NamedTempFile::new().expect("a file");
    let run = |flags: &str| server.injector(ADMIN, &prepare(&module, "ports", flags));
    assert_eq!(run("").code, Some(0));
    let mut intercept = intercept("admin-port", ADMIN);
    intercept["metadata"]["namespace"] = json!("ports");
    intercept["spec"]["port"] = json!(9090);
    server.must(&["create"], Some(&intercept));
    let refused = run("--port 8080");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let why = "Deployment/orders: admin-port intercepts port 9090, which would no longer be prepared\n\nhint: injector leave";
    assert!(refused.stderr.contains(why), "{refused:?}");
    assert_eq!(run("--port 9090").code, Some(0));
}

#[test]
fn operator_prepares_with_the_role_alone() {
    let server = Arc::new(Server::bare());
    assert_eq!(server.injector(ADMIN, INSTALL).code, Some(0));
    let _stage = Stage::on(Arc::clone(&server), "operated", json!({}));
    let role = "injector-operator";
    server.apply_all(&[
        rbac::cluster_binding("olga", role),
        rbac::binding("injector-system", "olga", "Role", role),
    ]);
    let binding = [
        "-n",
        "operated",
        "delete",
        "rolebinding",
        names::WORKLOAD_ROLE,
    ];
    server.must(&binding, None);
    let module = tempfile::NamedTempFile::new().expect("a file");
    let words = prepare(&module, "operated", "--max-lease 1h");
    let ran = server.injector("olga", &words);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let line = "created    RoleBinding operated/injector-controller-workload\n";
    assert!(ran.stdout.contains(line), "{ran:?}");

    // Neither another role under the same name, nor the same role under another.
    let refused = |object: &Value, why: &str| {
        let kubeconfig = server.kubeconfig("olga", "operated");
        let kubeconfig = kubeconfig.to_str().expect("a path");
        let (passed, text) = server.kubectl(&["--kubeconfig", kubeconfig, "create"], Some(object));
        assert!(!passed && text.contains(why), "{text}");
    };
    server.must(&binding, None);
    let mut other = rbac::binding("operated", "olga", "ClusterRole", "cluster-admin");
    other["metadata"]["name"] = json!(names::WORKLOAD_ROLE);
    refused(&other, "forbidden");
    let same = rbac::binding("operated", "olga", "ClusterRole", names::WORKLOAD_ROLE);
    refused(&same, "forbidden");

    // And takes it away again, with another user's intercept.
    server.must(
        &["create"],
        Some(&{
            let mut intercept = intercept("of-admin", ADMIN);
            intercept["metadata"]["namespace"] = json!("operated");
            intercept
        }),
    );
    let words = "uninstall -n operated --workload orders --force";
    let ran = server.injector("olga", words);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stdout
            .contains("removed  Intercept operated/of-admin\n"),
        "{ran:?}"
    );
}
