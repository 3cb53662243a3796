//! `install`, `uninstall`, `render istio` and `doctor` on a cluster without the injector.
//!
//! `$KUBECONFIG` names an administrator.
//!
//! One test in several parts, since the cluster part exists once: what is installed, prepared, refused, kept and removed. Only the first part waits for pods that run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::binaries;
use harness::cluster::kubectl::Kubectl;
use harness::cluster::{SYSTEM, load_relay};
use serde_json::{Value, json};
use tempfile::TempDir;

const IMAGE: &str = "registry.example.com/injector:test";
const NAMESPACE: &str = "install-shop";
const RELAYS: &str = "install-relays";
const OPERATOR: &str = "olga@example.com";
/// The digest of the file that [`Stage::new`] writes.
const SHA256: &str = "93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476";

/// All kinds of our objects.
const KINDS: &str = "namespaces,services,serviceaccounts,statefulsets.apps,deployments.apps,poddisruptionbudgets,networkpolicies.networking.k8s.io,roles,rolebindings,clusterroles,clusterrolebindings,\
customresourcedefinitions,validatingadmissionpolicies,validatingadmissionpolicybindings,wasmplugins,envoyfilters,destinationrules,peerauthentications.security.istio.io,authorizationpolicies.security.istio.io";

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

/// The cluster, and a directory with a filter.
struct Stage {
    kubectl: Kubectl,
    dir: TempDir,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("filter.wasm"), b"\0asm\x01\0\0\0").unwrap();
        let kubectl = Kubectl::new();
        Self { kubectl, dir }
    }

    /// The operator's kubeconfig.
    fn operator(&self) -> PathBuf {
        self.kubectl.user(OPERATOR, &[])
    }

    fn run(&self, kubeconfig: Option<&Path>, words: &str) -> Ran {
        let mut command = Command::new(binaries::injector());
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

    /// `install` in the workloads' namespace, of a filter that is not served.
    ///
    /// None of its pods really runs, so there are no proxies to wait for.
    fn prepare(&self, words: &str) -> String {
        let module = self.dir.path().join("filter.wasm");
        format!(
            "install -n {NAMESPACE} --module={} --no-wait {words}",
            module.display()
        )
    }

    /// Runs `kubectl` with these arguments. Returns its stdout.
    fn kubectl(&self, words: &str) -> String {
        let words: Vec<&str> = words.split_whitespace().collect();
        self.kubectl.must(&words)
    }

    /// Names of all our objects in the cluster.
    fn ours(&self) -> Vec<String> {
        let ours = "app.kubernetes.io/managed-by=injector";
        let list = self.kubectl.get(&[KINDS, "-A", "-l", ours]);
        let objects = list["items"].as_array().unwrap().iter();
        // A namespace takes a while to be deleted.
        let staying = objects.filter(|object| object["metadata"]["deletionTimestamp"].is_null());
        let mut names: Vec<String> = staying
            .map(|object| {
                let text = |value: &Value| value.as_str().map(str::to_owned);
                let name = text(&object["metadata"]["name"]).unwrap();
                let kind = text(&object["kind"]).unwrap();
                match text(&object["metadata"]["namespace"]) {
                    Some(namespace) => format!("{kind} {namespace}/{name}"),
                    None => format!("{kind} {name}"),
                }
            })
            .collect();
        names.sort();
        names
    }

    fn plugin(&self) -> Value {
        let plugin = ["wasmplugin", "injector-deployment-orders"];
        self.kubectl
            .get(&[&["-n", NAMESPACE], &plugin[..]].concat())
    }

    /// Creates a namespace with a workload that can be prepared, and one that cannot.
    fn shop(&self) {
        let workload = |name: &str| {
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
                "spec": {
                    "selector": {"matchLabels": {"app": name}},
                    "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app", "image": "x", "ports": [{"containerPort": 8080, "name": "web"}]}]}},
                },
            })
        };
        let ports = json!([{"name": "http", "port": 80, "targetPort": "web"}, {"name": "grpc", "port": 90, "targetPort": 9090}, {"name": "tcp", "port": 5432}]);
        self.kubectl.apply(&[
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"istio-injection": "enabled"}}}),
            workload("orders"),
            workload("worker"),
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "orders", "namespace": NAMESPACE},
                "spec": {"selector": {"app": "orders"}, "ports": ports},
            }),
        ]);
    }

    /// Binds the operator's two roles.
    fn bind_operator(&self) {
        let binding = |kind: &str, role: &str, metadata: Value| {
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": "injector-operator"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OPERATOR}],
            })
        };
        let beside = json!({"name": "install-operators", "namespace": SYSTEM});
        self.kubectl.apply(&[
            binding(
                "ClusterRoleBinding",
                "ClusterRole",
                json!({"name": "install-operators"}),
            ),
            binding("RoleBinding", "Role", beside),
        ]);
    }

    /// Creates an Intercept as the administrator. No controller runs here, so it has no effect.
    fn intercept(&self, port: u16) {
        let owner = self.kubectl("auth whoami -o jsonpath={.status.userInfo.username}");
        self.kubectl.apply(&[json!({
            "apiVersion": "injector.dev/v1alpha1", "kind": "Intercept",
            "metadata": {"name": "bob", "namespace": NAMESPACE},
            "spec": {
                "owner": owner.trim(), "workload": {"kind": "Deployment", "name": "orders"}, "port": port, "match": {},
                "tunnel": {"relay": 0, "address": "0".repeat(32)}, "leaseSeconds": 3600, "renewTime": "2026-11-30T09:00:00Z",
            },
        })]);
    }
}

#[test]
fn what_is_installed_is_found_kept_refused_and_removed() {
    let stage = Stage::new();
    assert_eq!(
        stage.ours(),
        [""; 0],
        "another installation is in this cluster"
    );
    stage.shop();
    relays_without_a_sidecar_in_a_namespace_of_somebody_elses(&stage);
    what_is_printed_is_what_is_installed(&stage);
    what_cannot_be_prepared_is_refused(&stage);
    let before = stage.ours();
    an_operator_prepares_and_a_stranger_does_not(&stage);
    what_is_prepared_follows_the_installation(&stage);
    an_intercept_outlives_a_new_preparation(&stage);
    what_is_intercepted_stays_unless_by_force(&stage, &before);
    the_doctor_finds_what_is_missing(&stage);
    nothing_is_left(&stage);
}

/// A revision without a running mesh injects nothing.
fn relays_without_a_sidecar_in_a_namespace_of_somebody_elses(stage: &Stage) {
    let image = load_relay(&stage.kubectl);
    stage.kubectl(&format!("create namespace {RELAYS}"));
    let install = format!(
        "install --relay-namespace {RELAYS} --revision nothing --replicas 1 --relay-image {image}"
    );
    stage
        .injector(&install)
        .refused(1, "injector-relay-0: it has no sidecar");
    let ran = stage.injector(&format!("doctor --relay-namespace {RELAYS}"));
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("✗ injector-relay-0: it has no sidecar"),
        "{}",
        ran.stdout
    );
    // A namespace that the user created stays as it was.
    let text = stage
        .injector(&format!("uninstall --relay-namespace {RELAYS}"))
        .done();
    assert!(
        text.contains(&format!("changed  Namespace {RELAYS}\n")),
        "{text}"
    );
    let namespace = stage.kubectl.get(&["namespace", RELAYS]);
    assert_eq!(namespace["metadata"]["deletionTimestamp"], Value::Null);
    assert_eq!(
        namespace["metadata"]["labels"],
        json!({"kubernetes.io/metadata.name": RELAYS})
    );
    assert_eq!(stage.ours(), [""; 0]);
    stage.kubectl(&format!("delete namespace {RELAYS} --wait=false"));
}

/// The first installation must name an image, and printing does not apply anything.
fn what_is_printed_is_what_is_installed(stage: &Stage) {
    stage
        .injector("install")
        .refused(2, "--relay-image: expected");
    let install = format!("install --relay-image {IMAGE} --no-wait");
    let printed = stage
        .injector(&format!("{install} --dry-run -o name"))
        .done();
    assert_eq!(stage.ours(), [""; 0]);
    let rendered = stage
        .injector(&format!("render istio --relay-image {IMAGE} -o name"))
        .done();
    assert_eq!(rendered, printed);
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
    assert_eq!(stage.ours(), expected);
    let text = stage.injector("install --no-wait").done();
    assert!(
        text.lines().all(|line| line.starts_with("unchanged")),
        "{text}"
    );
    // With fewer relays, the Service of the removed one goes as well.
    let text = stage.injector("install --no-wait --replicas 1").done();
    assert!(
        text.contains("removed    Service injector-system/injector-relay-1"),
        "{text}"
    );
    stage.injector("install --no-wait --replicas 2").done();
}

/// Checks that nothing is written.
fn what_cannot_be_prepared_is_refused(stage: &Stage) {
    let before = stage.ours();
    let cases = [
        (
            "--workload worker",
            "Deployment/worker: no port that can be intercepted: no Service leads to it",
        ),
        (
            "--selector app=worker",
            "Deployment/worker: no port that can be intercepted: no Service leads to it",
        ),
        (
            "--selector app=nobody",
            "no workload with the labels app=nobody",
        ),
        (
            "--workload orders --port 5432",
            "port 5432 is `tcp` for Istio, expected HTTP",
        ),
        (
            "--workload nobody",
            "nobody: no such service or workload in the namespace install-shop",
        ),
        (
            "--workload orders --root-namespace install-shop",
            "it is the mesh's root namespace",
        ),
    ];
    for (words, expected) in cases {
        stage.injector(&stage.prepare(words)).refused(1, expected);
    }
    assert_eq!(stage.ours(), before);
}

/// The operator's role is enough.
fn an_operator_prepares_and_a_stranger_does_not(stage: &Stage) {
    let (operator, orders) = (stage.operator(), stage.prepare("--workload orders"));
    stage.run(Some(&operator), &orders).refused(1, "cannot get");
    stage.bind_operator();
    // Without --module, the module server is looked up, which the role allows; none of its pods can be ready here.
    let unserved = format!("install -n {NAMESPACE} --workload orders");
    stage.run(Some(&operator), &unserved).refused(
        1,
        "injector-module: expected a pod that is ready, found none of ",
    );
    let text = stage.run(Some(&operator), &orders).done();
    for expected in [
        "Deployment/orders: ports 8080, 9090: ready for intercepts",
        "note: Deployment/orders: port 5432 is `tcp` for Istio, expected HTTP: left out",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert_eq!(stage.plugin()["spec"]["sha256"], SHA256);
    // Again, and selected by labels: the same five objects.
    for words in ["--workload orders", "--selector app=orders"] {
        let text = stage.injector(&stage.prepare(words)).done();
        let objects = text.lines().take_while(|line| !line.is_empty());
        let states: Vec<&str> = objects
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert_eq!(states, ["unchanged"; 5], "{text}");
    }
    let text = stage
        .injector(&format!("{orders} --dry-run -o name"))
        .done();
    assert_eq!(
        text.lines().count(),
        5,
        "two DestinationRules, the controller's rights, filter and gate: {text}"
    );
    // An image is pinned by its own digest: Istio compares that one.
    let digest = "ab".repeat(32);
    let url = format!("oci://registry.example.com/filter@sha256:{digest}");
    let render = format!("render istio -n {NAMESPACE} --workload orders --module-url {url}");
    let text = stage.injector(&render).done();
    for expected in [format!("url: {url}\n"), format!("sha256: {digest}\n")] {
        assert!(text.contains(&expected), "{expected}\n{text}");
    }
}

fn what_is_prepared_follows_the_installation(stage: &Stage) {
    // Another number of relays affects every prepared workload. Only upstream clusters change, which drains nothing, so they are prepared again at once.
    let text = stage.injector("install --no-wait --replicas 1").done();
    for expected in [
        "changed    EnvoyFilter install-shop/injector-deployment-orders",
        "removed    DestinationRule install-shop/injector-relay-1",
        "note: Deployment/orders in install-shop: prepared again for what is installed now; nothing was drained",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert_eq!(stage.plugin()["spec"]["sha256"], SHA256);
    stage.injector("install --no-wait --replicas 2").done();

    // A gate of another version is only listed, until a flag allows the change.
    stage.kubectl(&format!(
        r#"-n {NAMESPACE} patch envoyfilter injector-deployment-orders --type=json -p [{{"op":"replace","path":"/spec/priority","value":7}}]"#
    ));
    let text = stage.injector("install --no-wait").done();
    assert!(
        text.contains("open connections are drained once); to prepare it again: injector install -n install-shop --workload Deployment/orders --port 8080 --port 9090, or all of them: injector install --all-prepared"),
        "{text}"
    );
    stage
        .injector("install --no-wait --all-prepared")
        .refused(1, "another program keeps these fields");
    let text = stage
        .injector("install --no-wait --all-prepared --force-conflicts")
        .done();
    assert!(
        text.contains("changed    EnvoyFilter install-shop/injector-deployment-orders"),
        "{text}"
    );

    // The cluster domain is the one given once.
    stage
        .injector("install --no-wait --cluster-domain corp.example")
        .done();
    let orders = stage.prepare("--workload orders");
    stage.injector(&orders).done();
    let rule = ["-n", NAMESPACE, "destinationrule", "injector-relay-0"];
    assert_eq!(
        stage.kubectl.get(&rule)["spec"]["host"],
        "injector-relay-0.injector-system.svc.corp.example"
    );
    stage
        .injector("install --no-wait --cluster-domain cluster.local")
        .done();
}

/// Its port cannot be removed; its limits can change.
fn an_intercept_outlives_a_new_preparation(stage: &Stage) {
    let orders = stage.prepare("--workload orders");
    stage.intercept(9090);
    stage.injector(&format!("{orders} --allow-all")).done();
    let limits = &stage.plugin()["spec"]["pluginConfig"]["limits"];
    assert_eq!(limits["allow_all"], true);
    stage.kubectl(&format!("-n {NAMESPACE} get intercept bob"));
    stage
        .injector(&format!("{orders} --port http"))
        .refused(1, "bob intercepts port 9090");
}

/// Foreign objects always stay. `before` are the objects from before anything was prepared.
fn what_is_intercepted_stays_unless_by_force(stage: &Stage, before: &[String]) {
    let uninstall = format!("uninstall -n {NAMESPACE} --workload orders");
    stage
        .injector(&uninstall)
        .refused(1, "Deployment/orders in install-shop is intercepted by bob");
    stage
        .injector("uninstall")
        .refused(1, "is intercepted by bob");
    stage
        .injector(&format!("uninstall -n {NAMESPACE} --workload worker"))
        .refused(1, "worker was not prepared");
    let text = stage.injector(&format!("{uninstall} --force")).done();
    assert!(
        text.contains("removed  DestinationRule install-shop/injector-relay-0"),
        "{text}"
    );
    assert_eq!(stage.ours(), before);
    assert_eq!(
        stage
            .injector(&format!("uninstall -n {NAMESPACE} --all"))
            .done(),
        "no workload of install-shop is prepared\n"
    );
}

/// Checks findings and exit code.
fn the_doctor_finds_what_is_missing(stage: &Stage) {
    let ran = stage.injector(&format!("doctor -n {NAMESPACE} orders -o json"));
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let checks: Value = serde_json::from_str(&ran.stdout).unwrap();
    let of = |outcome: &str, key: &str| -> Vec<String> {
        let checks = checks.as_array().unwrap().iter();
        let meant = checks.filter(|check| check["outcome"] == outcome);
        meant
            .map(|check| check[key].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        of("fail", "id"),
        ["relay", "module-server", "controller", "prepared"]
    );
    assert_eq!(
        of("fail", "found"),
        [
            "injector-relay: 0/2 ready",
            "injector-module: 0/2 ready",
            "injector-controller: 0/1 ready",
            "Deployment/orders: it is not prepared for intercepts"
        ]
    );
    for id in [
        "api-server",
        "clock",
        "admission-policies",
        "relay-version",
        "relay-egress",
        "relay-export",
        "intercepts",
        "port-protocol",
    ] {
        let good = of("pass", "id");
        assert!(good.iter().any(|good| good == id), "{id}: {}", ran.stdout);
    }
}

/// Removes all objects, including those of an incomplete uninstallation. The namespace stays.
fn nothing_is_left(stage: &Stage) {
    stage.injector(&stage.prepare("--all")).done();
    stage.kubectl(&format!(
        "-n {NAMESPACE} delete wasmplugin injector-deployment-orders"
    ));
    let text = stage.injector("uninstall").done();
    let position = |object: &str| text.find(&format!("removed  {object}")).unwrap();
    assert!(
        position("ClusterRole ") < position("ValidatingAdmissionPolicyBinding "),
        "developers would have rights that nothing holds: {text}"
    );
    let note = "note: the namespace injector-system is left; to delete it with all that is in it: kubectl delete namespace injector-system\n";
    assert!(text.contains(note), "{text}");
    assert_eq!(stage.ours(), [""; 0]);
    stage.kubectl("delete namespace injector-system --wait=false");
    stage.kubectl(&format!("-n {NAMESPACE} get deployment orders worker"));
    stage.kubectl("delete clusterrolebinding install-operators");
    stage.kubectl(&format!("delete namespace {NAMESPACE} --wait=false"));
    // The next test installs into the first of them.
    for namespace in [SYSTEM, RELAYS, NAMESPACE] {
        stage.kubectl(&format!(
            "wait --for=delete namespace/{namespace} --timeout=60s"
        ));
    }
}
