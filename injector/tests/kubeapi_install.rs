//! `install`, `uninstall` and `render istio` in conversation with a real API server that has Istio's custom resources. Needs no node, no controller and no sidecar:
//! `$KUBECONFIG` names an administrator. Users are impersonated, so nothing here depends on how a cluster knows its users.
//!
//! One story, since the cluster part is there once: what is installed, prepared, refused, kept and removed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const IMAGE: &str = "registry.example.com/injector:test";
const NAMESPACE: &str = "kubeapi-shop";
const OPERATOR: &str = "olga@example.com";

/// What of ours is anywhere.
const KINDS: &str = "namespaces,services,serviceaccounts,statefulsets.apps,deployments.apps,poddisruptionbudgets,networkpolicies.networking.k8s.io,roles,clusterroles,\
validatingadmissionpolicies,validatingadmissionpolicybindings,wasmplugins,envoyfilters,destinationrules,peerauthentications.security.istio.io,authorizationpolicies.security.istio.io";

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    #[track_caller]
    fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    #[track_caller]
    fn refused(self, code: i32, expected: &str) {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        assert!(
            self.stderr.contains(expected),
            "{expected}\n{}",
            self.stderr
        );
        assert!(self.stderr.contains("\n\nhint: "), "{}", self.stderr);
    }
}

/// A place with a filter and with kubeconfigs.
struct Stage {
    dir: TempDir,
}

impl Stage {
    fn new() -> Self {
        assert!(
            std::env::var_os("KUBECONFIG").is_some(),
            "no cluster is named by $KUBECONFIG; run: make cluster, or make test-istio"
        );
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("filter.wasm"), b"\0asm\x01\0\0\0").unwrap();
        Self { dir }
    }

    fn module(&self) -> String {
        format!("--module={}", self.dir.path().join("filter.wasm").display())
    }

    /// The administrator's kubeconfig, for somebody else.
    fn kubeconfig(&self, user: &str) -> PathBuf {
        let config = kubectl(
            &[
                "config",
                "view",
                "--raw",
                "--flatten",
                "--minify",
                "-o",
                "json",
            ],
            None,
        )
        .done();
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config["users"][0]["user"]["as"] = json!(user);
        config["users"][0]["user"]["as-groups"] = json!(["system:authenticated"]);
        let path = self.dir.path().join(user);
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    fn run(&self, kubeconfig: Option<&Path>, words: &str) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_injector"));
        command
            .env_remove("INJECTOR_ENVOY")
            .args(words.split_whitespace());
        if let Some(kubeconfig) = kubeconfig {
            command.arg("--kubeconfig").arg(kubeconfig);
        }
        command.output().unwrap().into()
    }

    fn injector(&self, words: &str) -> Ran {
        self.run(None, words)
    }
}

fn kubectl(arguments: &[&str], input: Option<&Value>) -> Ran {
    let mut child = Command::new("kubectl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl: apt-get install kubernetes-client");
    let mut stdin = child.stdin.take().unwrap();
    if let Some(input) = input {
        stdin.write_all(input.to_string().as_bytes()).unwrap();
    }
    drop(stdin);
    child.wait_with_output().unwrap().into()
}

fn create(object: &Value) {
    kubectl(&["apply", "--server-side", "-f", "-"], Some(object)).done();
}

/// Names of everything of ours, all over the cluster.
fn ours() -> Vec<String> {
    let arguments = [
        "get",
        KINDS,
        "-A",
        "-l",
        "app.kubernetes.io/managed-by=injector",
        "-o",
        "json",
    ];
    let list: Value = serde_json::from_str(&kubectl(&arguments, None).done()).unwrap();
    let mut names: Vec<String> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        // Without its controller a namespace that was deleted stays for ever.
        .filter(|object| object["metadata"]["deletionTimestamp"].is_null())
        .map(|object| {
            let name = object["metadata"]["name"].as_str().unwrap();
            let kind = object["kind"].as_str().unwrap();
            match object["metadata"]["namespace"].as_str() {
                Some(namespace) => format!("{kind} {namespace}/{name}"),
                None => format!("{kind} {name}"),
            }
        })
        .collect();
    names.sort();
    names
}

/// Waits for nobody: without its controller a namespace that was deleted stays for ever.
fn bury(namespace: &str) {
    let ran = kubectl(&["get", "namespace", namespace, "-o", "json"], None);
    if ran.code == Some(0) {
        let mut object: Value = serde_json::from_str(&ran.stdout).unwrap();
        object["spec"] = json!({});
        let path = format!("/api/v1/namespaces/{namespace}/finalize");
        // Its controller may have been faster.
        kubectl(&["replace", "--raw", &path, "-f", "-"], Some(&object));
    }
}

/// A namespace with a workload that can be prepared, one that cannot, and what stands around them.
fn shop() {
    let workload = |name: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app", "image": "x", "ports": [{"containerPort": 8080, "name": "web"}]}]}},
            },
        })
    };
    let ports = json!([{"name": "http", "port": 80, "targetPort": "web"}, {"name": "grpc", "port": 90, "targetPort": 9090}, {"name": "tcp", "port": 5432}]);
    create(
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"istio-injection": "enabled"}}}),
    );
    create(&workload("orders"));
    create(&workload("worker"));
    create(&json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "orders", "namespace": NAMESPACE},
        "spec": {"selector": {"app": "orders"}, "ports": ports},
    }));
}

const PLUGIN: [&str; 5] = [
    "-n",
    NAMESPACE,
    "wasmplugin",
    "injector-deployment-orders",
    "-o",
];

fn plugin() -> Value {
    let arguments: Vec<&str> = ["get"].into_iter().chain(PLUGIN).chain(["json"]).collect();
    serde_json::from_str(&kubectl(&arguments, None).done()).unwrap()
}

fn intercept(port: u16) {
    let entry = json!({
        "port": port, "cluster": "intercept|bob", "address": "0".repeat(32), "owner": "bob", "created": 1, "expires": 4_000_000_000_u64,
    });
    let plugin = json!({
        "apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
        "metadata": {"name": "injector-deployment-orders", "namespace": NAMESPACE},
        "spec": {"pluginConfig": {"intercepts": {"bob": entry}}},
    });
    kubectl(
        &[
            "apply",
            "--server-side",
            "--field-manager=injector-bob",
            "-f",
            "-",
        ],
        Some(&plugin),
    )
    .done();
}

#[test]
fn what_is_installed_is_found_kept_refused_and_removed() {
    let stage = Stage::new();
    assert_eq!(ours(), [""; 0], "another installation is in this cluster");
    shop();
    let module = stage.module();

    // The first installation must say which image, and what is printed is not applied.
    stage
        .injector("install")
        .refused(2, "--relay-image: expected");
    let install = format!("install --relay-image {IMAGE} --no-wait");
    let printed = stage
        .injector(&format!("{install} --dry-run -o name"))
        .done();
    assert_eq!(ours(), [""; 0]);
    let rendered = stage
        .injector(&format!("render istio --relay-image {IMAGE} -o name"))
        .done();
    assert_eq!(rendered, printed);

    // Installed is exactly what was printed; again, and nothing changes.
    let text = stage.injector(&install).done();
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("created"))
            .count(),
        printed.lines().count(),
        "{text}"
    );
    let mut expected: Vec<&str> = printed.lines().collect();
    expected.sort_unstable();
    assert_eq!(ours(), expected);
    let text = stage.injector("install --no-wait").done();
    assert!(
        text.lines().all(|line| line.starts_with("unchanged")),
        "{text}"
    );

    // Fewer relays: the Service of the one that goes is removed.
    let text = stage.injector("install --no-wait --replicas 1").done();
    assert!(
        text.contains("removed    Service injector-system/injector-relay-1"),
        "{text}"
    );
    stage.injector("install --no-wait --replicas 2").done();

    // Workloads that cannot be prepared are refused, and nothing is written.
    let before = ours();
    // None of its pods really runs, so there are no proxies to wait for.
    let orders = format!("install -n {NAMESPACE} {module} --workload orders --no-wait");
    stage
        .injector(&format!(
            "install -n {NAMESPACE} {module} --workload worker"
        ))
        .refused(
            1,
            "Deployment/worker: no port that can be intercepted: no Service leads to it",
        );
    stage
        .injector(&format!("{orders} --port 5432"))
        .refused(1, "port 5432 is `tcp` for Istio, expected HTTP");
    stage
        .injector(&format!(
            "install -n {NAMESPACE} {module} --workload nobody"
        ))
        .refused(
            1,
            "nobody: no such service or workload in the namespace kubeapi-shop",
        );
    stage
        .injector(&format!("{orders} --root-namespace {NAMESPACE}"))
        .refused(1, "it is the mesh's root namespace");
    assert_eq!(ours(), before);

    // The operator's role is enough to prepare a workload, and a developer's is not.
    let operator = stage.kubeconfig(OPERATOR);
    stage.run(Some(&operator), &orders).refused(1, "cannot get");
    create(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "kubeapi-operators"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "injector-operator"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OPERATOR}],
    }));
    create(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "kubeapi-operators", "namespace": "injector-system"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "injector-operator"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OPERATOR}],
    }));
    // Without --module, the module server is looked for, which the role allows; no pod of it can be ready here.
    let unserved = format!("install -n {NAMESPACE} --workload orders");
    stage.run(Some(&operator), &unserved).refused(
        1,
        "injector-module: expected a pod that is ready, found none of ",
    );
    let text = stage.run(Some(&operator), &orders).done();
    assert!(
        text.contains("Deployment/orders: ports 8080, 9090: ready for intercepts"),
        "{text}"
    );
    assert!(
        text.contains(
            "note: Deployment/orders: port 5432 is `tcp` for Istio, expected HTTP: left out"
        ),
        "{text}"
    );
    let sha256 = "93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476";
    assert_eq!(plugin()["spec"]["sha256"], sha256);
    let text = stage
        .injector(&format!("{orders} --dry-run -o name"))
        .done();
    assert_eq!(
        text.lines().count(),
        4,
        "two DestinationRules, filter and gate: {text}"
    );

    // An image is pinned by its own digest: Istio compares that one.
    let digest = "ab".repeat(32);
    let url = format!("oci://registry.example.com/filter@sha256:{digest}");
    let text = stage
        .injector(&format!(
            "render istio -n {NAMESPACE} --workload orders --module-url {url}"
        ))
        .done();
    for expected in [format!("url: {url}\n"), format!("sha256: {digest}\n")] {
        assert!(text.contains(&expected), "{expected}\n{text}");
    }

    // Another number of relays concerns every prepared workload. Only clusters change, which drains nothing, so they are prepared again at once.
    let text = stage.injector("install --no-wait --replicas 1").done();
    for expected in [
        "changed    EnvoyFilter kubeapi-shop/injector-deployment-orders",
        "removed    DestinationRule kubeapi-shop/injector-relay-1",
        "note: Deployment/orders in kubeapi-shop: prepared again for what is installed now; nothing was drained",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert_eq!(plugin()["spec"]["sha256"], sha256);
    stage.injector("install --no-wait --replicas 2").done();

    // A gate of another version is only listed, until somebody says that it may be.
    let old = json!([{"op": "replace", "path": "/spec/priority", "value": 7}]).to_string();
    let gate = [
        "-n",
        NAMESPACE,
        "patch",
        "envoyfilter",
        "injector-deployment-orders",
        "--type=json",
        "-p",
        &old,
    ];
    kubectl(&gate, None).done();
    let text = stage.injector("install --no-wait").done();
    assert!(
        text.contains("open connections are drained once); to prepare it again: injector install -n kubeapi-shop --workload Deployment/orders --port 8080 --port 9090, or all of them: injector install --all-prepared"),
        "{text}"
    );
    stage
        .injector("install --no-wait --all-prepared")
        .refused(1, "another program keeps these fields");
    let text = stage
        .injector("install --no-wait --all-prepared --force-conflicts")
        .done();
    assert!(
        text.contains("changed    EnvoyFilter kubeapi-shop/injector-deployment-orders"),
        "{text}"
    );

    // Names of Services end as was said once.
    stage
        .injector("install --no-wait --cluster-domain corp.example")
        .done();
    let rule = [
        "-n",
        NAMESPACE,
        "get",
        "destinationrule",
        "injector-relay-0",
        "-o",
        "jsonpath={.spec.host}",
    ];
    stage.injector(&orders).done();
    assert_eq!(
        kubectl(&rule, None).done(),
        "injector-relay-0.injector-system.svc.corp.example"
    );
    stage
        .injector("install --no-wait --cluster-domain cluster.local")
        .done();

    // An intercept outlives a new preparation; its port cannot be taken away; its limits can change.
    intercept(9090);
    stage.injector(&format!("{orders} --allow-all")).done();
    let config = plugin()["spec"]["pluginConfig"].clone();
    assert_eq!(
        (
            &config["limits"]["allow_all"],
            &config["intercepts"]["bob"]["port"]
        ),
        (&json!(true), &json!(9090))
    );
    stage
        .injector(&format!("{orders} --port http"))
        .refused(1, "bob intercepts port 9090");

    // What is intercepted is not uninstalled, unless by force; what is not ours stays.
    let uninstall = format!("uninstall -n {NAMESPACE} --workload orders");
    stage
        .injector(&uninstall)
        .refused(1, "Deployment/orders in kubeapi-shop is intercepted by bob");
    stage
        .injector("uninstall")
        .refused(1, "is intercepted by bob");
    stage
        .injector(&format!("uninstall -n {NAMESPACE} --workload worker"))
        .refused(1, "worker was not prepared");
    let text = stage.injector(&format!("{uninstall} --force")).done();
    assert!(
        text.contains("removed  DestinationRule kubeapi-shop/injector-relay-0"),
        "{text}"
    );
    assert_eq!(ours(), before);
    assert_eq!(
        stage
            .injector(&format!("uninstall -n {NAMESPACE} --all"))
            .done(),
        "no workload of kubeapi-shop is prepared\n"
    );

    // The doctor finds what is missing, and says so with its exit code.
    let ran = stage.injector(&format!("doctor -n {NAMESPACE} orders -o json"));
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let checks: Value = serde_json::from_str(&ran.stdout).unwrap();
    let bad: Vec<&str> = checks
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["outcome"] == "bad")
        .map(|check| check["found"].as_str().unwrap())
        .collect();
    assert_eq!(
        bad,
        [
            "injector-relay: 0/2 ready",
            "injector-module: 0/2 ready",
            "Deployment/orders: it is not prepared for intercepts"
        ]
    );
    let ids = |outcome: &str| -> Vec<&str> {
        let checks = checks.as_array().unwrap().iter();
        let meant = checks.filter(|check| check["outcome"] == outcome);
        meant.map(|check| check["id"].as_str().unwrap()).collect()
    };
    assert_eq!(ids("bad"), ["relay", "module-server", "prepared"]);
    for id in [
        "api-server",
        "clock",
        "admission-policies",
        "policy-clock",
        "relay-version",
        "relay-egress",
        "relay-export",
        "leftovers",
        "port-protocol",
    ] {
        assert!(ids("good").contains(&id), "{id}: {}", ran.stdout);
    }

    // Somebody's binding keeps the namespace; without it, everything goes.
    stage
        .injector(&format!("install -n {NAMESPACE} {module} --all"))
        .done();
    stage.injector("uninstall").done();
    assert_eq!(ours(), ["Namespace injector-system"]);
    kubectl(
        &[
            "-n",
            "injector-system",
            "delete",
            "rolebinding",
            "kubeapi-operators",
        ],
        None,
    )
    .done();
    stage.injector("uninstall").done();
    assert_eq!(ours(), [""; 0]);
    for name in ["orders", "worker"] {
        kubectl(&["-n", NAMESPACE, "get", "deployment", name], None).done();
    }
    kubectl(&["delete", "clusterrolebinding", "kubeapi-operators"], None).done();
    kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"], None).done();
    for namespace in [NAMESPACE, "injector-system"] {
        bury(namespace);
    }
}
