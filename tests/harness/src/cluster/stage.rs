//! A namespace of one test.
//!
//! It has the workload `orders`, prepared as an operator would, a caller with a sidecar, and developers.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::kubectl::Kubectl;
use super::{Cluster, DEVELOPERS, objects};
use crate::app::App;
use crate::client::{Answer, Client, wait_answered};
use crate::endpoint::Endpoint;
use crate::intercept::{Developer, Intercept};
use crate::load::Executed;
use crate::{tcp_proxy, wait};

/// Timeout for pods to become ready: a small machine starts many sidecars at once.
pub const PODS: Duration = Duration::from_secs(180);

/// The header of bob's requests.
pub const BOB: (&str, &str) = ("coder", "Bob");

/// The kind of the workload `orders`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The usual kind.
    Deployment,
    /// Pods that keep their names.
    StatefulSet,
    /// One pod for each node.
    DaemonSet,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
        }
    }
}

/// A port of the app and of its Service.
#[derive(Debug)]
pub(super) struct Port {
    /// The port's name, from which Istio reads the protocol.
    pub name: String,
    pub service: u16,
    pub container: u16,
    /// The app's name on this port.
    pub app: String,
}

/// The setup of a test.
#[derive(Debug)]
pub struct Plan {
    name: String,
    pub(super) kind: Kind,
    pub(super) replicas: usize,
    pub(super) ports: Vec<Port>,
    pub(super) hidden: Vec<(u16, String)>,
    pub(super) annotations: Value,
    pub(super) is_strict: bool,
    pub(super) objects: Vec<Value>,
    prepare: Option<Vec<String>>,
}

impl Plan {
    /// A Deployment of two replicas with one HTTP port, 80 on 8080.
    ///
    /// Its namespace has strict mTLS and no limits.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: Kind::Deployment,
            replicas: 2,
            ports: Vec::new(),
            hidden: Vec::new(),
            annotations: json!({}),
            is_strict: true,
            objects: Vec::new(),
            prepare: Some(vec!["--allow-all".to_owned()]),
        }
        .port("http", 80, 8080, "app")
    }

    /// Adds a port to the Service, on which the app responds with that name.
    ///
    /// Several may share a port of the container.
    pub fn port(mut self, name: &str, service: u16, container: u16, app: &str) -> Self {
        let (name, app) = (name.to_owned(), app.to_owned());
        self.ports.push(Port {
            name,
            service,
            container,
            app,
        });
        self
    }

    /// Makes the app listen on another port with that name.
    ///
    /// It is in no Service and no pod specification.
    pub fn listening(mut self, container: u16, app: &str) -> Self {
        self.hidden.push((container, app.to_owned()));
        self
    }

    /// Sets the kind of workload.
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets the number of replicas.
    pub fn replicas(mut self, count: usize) -> Self {
        self.replicas = count;
        self
    }

    /// Adds an annotation to the pods.
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations[key] = value.into();
        self
    }

    /// Also admits callers outside the mesh.
    pub fn permissive(mut self) -> Self {
        self.is_strict = false;
        self
    }

    /// Adds a user's object to the namespace.
    pub fn object(mut self, object: Value) -> Self {
        self.objects.push(object);
        self
    }

    /// Prepares the workload with these flags instead of `--allow-all`.
    pub fn prepared(mut self, flags: &[&str]) -> Self {
        self.prepare = Some(flags.iter().map(|flag| (*flag).to_owned()).collect());
        self
    }

    /// Leaves the workload unprepared.
    pub fn bare(mut self) -> Self {
        self.prepare = None;
        self
    }

    /// Creates everything.
    pub async fn start(self) -> Stage {
        let cluster = Cluster::get().await;
        wait::blocking(|| self.start_at(cluster)).await
    }

    fn start_at(self, cluster: &'static Cluster) -> Stage {
        let namespace = format!("{}-{}", self.name, std::process::id());
        let dir = tempfile::tempdir().expect("a temporary directory");
        let counts = cluster.kubectl.dir().join("counts").join(&namespace);
        std::fs::create_dir_all(&counts).expect("a writable directory");
        open_to_all(&counts);
        let stage = Stage {
            cluster,
            namespace,
            dir,
            counts,
        };
        let counts = stage.counts.to_str().expect("a path in UTF-8");
        let kubectl = &cluster.kubectl;
        kubectl.apply(&[objects::namespace(&stage.namespace)]);
        kubectl.apply(&objects::of_plan(
            &self,
            &stage.namespace,
            &cluster.standin,
            counts,
        ));
        stage.wait_ready(&self);
        if let Some(flags) = &self.prepare {
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            stage.prepare(&flags);
        }
        stage
    }
}

fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(dir, mode).expect("a directory of ours");
}

/// A ready namespace. Dropping it deletes the namespace.
#[derive(Debug)]
pub struct Stage {
    cluster: &'static Cluster,
    /// Its name, which differs in each run.
    pub namespace: String,
    dir: TempDir,
    counts: PathBuf,
}

impl Stage {
    /// The default setup of [`Plan::new`].
    pub async fn new(name: &str) -> Self {
        Plan::new(name).start().await
    }

    /// Its cluster.
    pub fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    pub(super) fn kubectl(&self) -> &Kubectl {
        &self.cluster.kubectl
    }

    /// Runs `kubectl` in this namespace, as an administrator.
    pub fn run(&self, arguments: &[&str]) -> String {
        self.kubectl()
            .must(&[&["-n", &self.namespace], arguments].concat())
    }

    /// Gets objects of this namespace.
    pub fn get(&self, arguments: &[&str]) -> Value {
        self.kubectl()
            .get(&[&["-n", &self.namespace], arguments].concat())
    }

    /// Applies an object in this namespace.
    pub fn apply(&self, object: Value) {
        self.apply_all([object]);
    }

    /// Applies objects in this namespace in one call.
    pub fn apply_all<const N: usize>(&self, mut objects: [Value; N]) {
        for object in &mut objects {
            object["metadata"]["namespace"] = self.namespace.clone().into();
        }
        self.kubectl().apply(&objects);
    }

    fn wait_ready(&self, plan: &Plan) {
        let timeout = format!("--timeout={}s", PODS.as_secs());
        let workload = format!("{}/orders", plan.kind.name().to_lowercase());
        self.run(&["rollout", "status", &workload, &timeout]);
        self.run(&["wait", "pod/caller", "--for=condition=Ready", &timeout]);
    }

    /// Prepares the workload as an operator.
    pub fn prepare(&self, flags: &[&str]) -> String {
        let arguments = ["install", "-n", &self.namespace, "--workload", "orders"];
        self.cluster.injector(&[&arguments, flags].concat())
    }

    /// A developer with the role and a kubeconfig for this namespace.
    pub fn developer(&self, name: &str) -> Developer {
        self.user(name, &[DEVELOPERS])
    }

    /// bob intercepts the requests of [`BOB`] for an app called `server`.
    ///
    /// Returns once every replica has the intercept.
    pub async fn bob_intercepts(&self, server: &App) -> Intercept {
        let bob = self.developer("bob");
        let live = bob.intercept(server, &["--http-header=Coder=Bob"]).await;
        self.wait_answered_by(BOB, "server").await;
        live
    }

    /// A user in these groups.
    pub fn user(&self, name: &str, groups: &[&str]) -> Developer {
        let kubeconfig = self.kubeconfig(name);
        std::fs::copy(self.cluster.user(name, groups), &kubeconfig).expect("a kubeconfig");
        let file = kubeconfig.to_str().expect("a path in UTF-8");
        let set = ["config", "set-context", "--current", "--kubeconfig", file];
        self.kubectl()
            .must(&[&set[..], &["--namespace", &self.namespace]].concat());
        Developer::of_cluster(name, &kubeconfig, self.dir.path())
    }

    /// The kubeconfig of an existing developer.
    pub fn kubeconfig(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.conf"))
    }

    /// Runs `kubectl` as a developer of this namespace, with input. Returns its stdout.
    pub fn kubectl_as(&self, name: &str, arguments: &[&str], input: &str) -> String {
        let ran = self
            .kubectl()
            .run_as(&self.kubeconfig(name), arguments, input);
        ran.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The condition `Programmed` of an intercept: status, reason and message.
    pub fn programmed(&self, name: &str) -> [String; 3] {
        let intercept = self.get(&["intercept", name]);
        let conditions = intercept["status"]["conditions"].as_array().cloned();
        let mut conditions = conditions.unwrap_or_default().into_iter();
        let programmed = conditions.find(|condition| condition["type"] == "Programmed");
        let programmed = programmed.unwrap_or_default();
        ["status", "reason", "message"]
            .map(|key| programmed[key].as_str().unwrap_or_default().to_owned())
    }

    /// A directory that is removed with this test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The way from the caller's pod to a port of the Service `orders`.
    pub fn endpoint(&self, port: u16) -> Endpoint {
        self.door_to(self.service_address(port), "orders")
    }

    /// The address of the Service `orders`.
    pub fn service_address(&self, port: u16) -> SocketAddr {
        self.cluster
            .service_address(&self.namespace, "orders", port)
    }

    /// The way from the caller's pod to any address.
    pub fn door_to(&self, destination: SocketAddr, authority: &str) -> Endpoint {
        let caller = self.get(&["pod", "caller"]);
        let tcp_proxy = (ip(&caller["status"]["podIP"]), tcp_proxy::PORT).into();
        Endpoint::through(tcp_proxy, destination, authority)
    }

    /// An HTTP/1.1 client for the first port.
    pub fn h1(&self) -> Client {
        Client::h1(self.endpoint(80))
    }

    /// The ready replicas of `orders`: names and addresses.
    pub fn replicas(&self) -> Vec<(String, IpAddr)> {
        self.cluster.pods(&self.namespace, "app=orders")
    }

    /// Directory of the recorded executions, with a file for each pod and port.
    pub fn counts(&self) -> &Path {
        &self.counts
    }

    /// Executions of each named request in the cluster, including those in deleted pods.
    pub fn executed(&self) -> Executed {
        let mut executed = Executed::new();
        for file in std::fs::read_dir(&self.counts).expect("a directory of ours") {
            let text = std::fs::read_to_string(file.expect("an entry").path()).expect("ASCII");
            for id in text.lines() {
                *executed.entry(id.to_owned()).or_default() += 1;
            }
        }
        executed
    }

    /// The names of the intercepts in the proxies' configuration.
    pub fn entries(&self) -> Vec<String> {
        let plugin = self.get(&["wasmplugin", "injector-deployment-orders"]);
        let text = plugin["spec"]["pluginConfig"]["intercepts"].as_str();
        let entries: Value = serde_json::from_str(text.unwrap_or("{}")).expect("JSON");
        entries
            .as_object()
            .expect("a map")
            .keys()
            .cloned()
            .collect()
    }

    /// The names of the Intercepts.
    pub fn intercepts(&self) -> Vec<String> {
        let all = self.get(&["intercepts"]);
        let all = all["items"].as_array().expect("a list").iter();
        let names = all.filter_map(|one| one["metadata"]["name"].as_str());
        names.map(str::to_owned).collect()
    }

    /// Waits until an app of that name answers a request with the header, from every replica.
    pub async fn wait_answered_by(&self, header: (&str, &str), name: &str) {
        let what = format!("{header:?} is answered by {name}");
        self.wait_answered(&what, "/", &[header], |answer| answer.by() == name)
            .await;
    }

    /// Waits until every replica gives the right response on the first port.
    pub async fn wait_answered(
        &self,
        what: &str,
        path: &str,
        headers: &[(&str, &str)],
        is_right: impl Fn(&Answer) -> bool,
    ) {
        wait_answered(&self.endpoint(80), what, path, headers, is_right).await;
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        let name = &self.namespace;
        // The API server may be down: the cluster is deleted as a whole later.
        let _ = self
            .kubectl()
            .run(&["delete", "namespace", name, "--wait=false"]);
    }
}

pub(super) fn ip(value: &Value) -> IpAddr {
    let text = value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is an address"));
    text.parse().expect("an address")
}
