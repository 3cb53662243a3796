//! A namespace with a prepared workload of two replicas, and developers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use injector::cluster::{Cluster, KubeFlags};
use injector::hint::Failure;
use injector::manifest::istio::{Workload, example, workload_objects};
use injector::mesh::Target;
use intercept_core::{Document, Intercept, MatchHeader};
use serde_json::{Value, json};

use super::envoy::Envoy;
use super::rbac;
use super::server::{Server, server};
use super::support::{BINARY, Ran, Running, now};

/// The plugin and the gate of the workload.
pub const PREPARED: &str = "injector-deployment-orders";

/// The usual one.
pub const INTERCEPT: &[&str] = &["intercept", "orders", "--port=1", "--http-header=Coder=Bob"];

pub struct Stage {
    pub server: Arc<Server>,
    pub namespace: String,
    /// While it is set, new replicas are stuck, see [`Envoy`].
    pub stuck: Arc<AtomicBool>,
    /// The workload's container, besides its name, image and port.
    app: Value,
    /// While it is set, all replicas are refusing.
    pub refusing: Arc<AtomicBool>,
    /// While it is set, all replicas are plain.
    pub plain: Arc<AtomicBool>,
    home: tempfile::TempDir,
}

impl Stage {
    /// bob and alice are developers in it, and may look into the replicas.
    pub fn new(namespace: &str) -> Self {
        Self::with_app(namespace, json!({}))
    }

    /// The same on a server that no other test uses.
    pub fn alone(namespace: &str) -> Self {
        Self::on(Arc::new(Server::start()), namespace, json!({}))
    }

    /// With more said of the workload's container.
    pub fn with_app(namespace: &str, app: Value) -> Self {
        Self::on(server(), namespace, app)
    }

    /// On a server of the test's own, where the cluster part must be.
    pub fn on(server: Arc<Server>, namespace: &str, app: Value) -> Self {
        let stage = Self {
            server,
            namespace: namespace.to_owned(),
            stuck: Arc::default(),
            app,
            refusing: Arc::default(),
            plain: Arc::default(),
            home: tempfile::tempdir().expect("a home"),
        };
        let replicas = ["orders-1", "orders-2"].map(|name| stage.replica(name));
        let mut objects = Server::namespace_objects(namespace).to_vec();
        objects.extend(stage.workload_objects());
        objects.extend(replicas.iter().cloned());
        let rendered = workload_objects(
            &example::install().mesh,
            &stage.workload(),
            &example::plugin(),
        );
        objects.extend(
            rendered
                .expect("rendered")
                .iter()
                .map(|object| object.value().clone()),
        );
        for user in ["bob", "alice"] {
            objects.extend(stage.developer(user));
        }
        let look = json!([{"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]}]);
        objects.push(rbac::role(namespace, "look", look));
        objects.push(rbac::binding(namespace, "bob", "Role", "look"));
        stage.server.apply_all(&objects);
        stage.server.run_pods(&replicas);
        stage
    }

    pub fn workload(&self) -> Workload {
        Workload {
            namespace: self.namespace.clone(),
            ..example::workload()
        }
    }

    /// `kind`: `Role` or `ClusterRole`.
    pub fn bind(&self, user: &str, kind: &str, role: &str) {
        let binding = rbac::binding(&self.namespace, user, kind, role);
        self.server.apply_all(&[binding]);
    }

    /// The role beside the relays.
    pub fn bind_tunnel(&self, user: &str) {
        self.server.apply_all(&[tunnel_binding(user)]);
    }

    /// Both roles of a developer.
    pub fn developer(&self, user: &str) -> [Value; 2] {
        let role = "injector-developer";
        [
            rbac::binding(&self.namespace, user, "ClusterRole", role),
            tunnel_binding(user),
        ]
    }

    fn workload_objects(&self) -> [Value; 2] {
        let labels = json!({"app": "orders"});
        let template =
            json!({"metadata": {"labels": labels}, "spec": {"containers": [self.container()]}});
        let metadata = json!({"name": "orders", "namespace": self.namespace});
        let ports = json!([{"name": "http", "port": 80, "targetPort": "web"}]);
        [
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
                "spec": {"selector": {"matchLabels": labels}, "template": template}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
                "spec": {"selector": labels, "ports": ports}}),
        ]
    }

    fn container(&self) -> Value {
        let mut container = self.app.clone();
        container["name"] = json!("app");
        container["image"] = json!("x");
        container["ports"] = json!([{"name": "web", "containerPort": 8080}]);
        container
    }

    /// One more pod with a sidecar; stuck if others are at the moment.
    pub fn add_replica(&self, name: &str) {
        let pods = [self.replica(name)];
        self.server.apply_all(&pods);
        self.server.run_pods(&pods);
    }

    /// The pod, whose Envoy is here already.
    fn replica(&self, name: &str) -> Value {
        let stuck = match self.stuck.load(Ordering::SeqCst) {
            true => Arc::clone(&self.stuck),
            false => Arc::default(),
        };
        let envoy = Envoy {
            cluster: self.cluster("admin"),
            namespace: self.namespace.clone(),
            stuck,
            refusing: Arc::clone(&self.refusing),
            refused: Arc::default(),
            plain: Arc::clone(&self.plain),
        };
        let admin = self.wait(envoy.start());
        self.server.pods.put(&self.namespace, name, 15000, admin);
        let sidecar = json!({"name": "istio-proxy", "image": "istio/proxyv2:1.31.0"});
        let containers = json!([self.container(), sidecar]);
        Server::pod(
            &self.namespace,
            name,
            &json!({"app": "orders"}),
            &containers,
        )
    }

    pub fn delete_replica(&self, name: &str) {
        let now = ["--force", "--grace-period=0"];
        let delete = ["-n", &self.namespace, "delete", "pod", name];
        self.server.must(&[&delete[..], &now].concat(), None);
    }

    pub fn cluster(&self, user: &str) -> Cluster {
        let flags = KubeFlags {
            kubeconfig: Some(self.kubeconfig(user)),
            ..KubeFlags::default()
        };
        self.wait(Cluster::connect(&flags)).expect("a kubeconfig")
    }

    pub fn target(&self, user: &str) -> Target {
        let cluster = self.cluster(user);
        let target = self.wait(Target::open(&cluster, "orders"));
        target.unwrap_or_else(|failure| panic!("{failure}"))
    }

    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.server.runtime.block_on(future)
    }

    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.server.kubeconfig(user, &self.namespace)
    }

    pub fn command(&self, user: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("KUBECONFIG", self.kubeconfig(user))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Where the commands of all users are at home.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn run(&self, user: &str, arguments: &[&str]) -> Ran {
        self.start(user, arguments).end()
    }

    /// An intercept of this developer's, which lives.
    pub fn live(&self, user: &str) -> Running {
        let running = self.start(user, INTERCEPT);
        running.is_live();
        running
    }

    pub fn start(&self, user: &str, arguments: &[&str]) -> Running {
        Running::new(&mut self.command(user, arguments))
    }

    pub fn plugin(&self) -> Value {
        self.server.get(&self.namespace, "wasmplugin", PREPARED)
    }

    pub fn entry(&self, name: &str) -> Option<Value> {
        let plugin = self.plugin();
        plugin["spec"]["pluginConfig"]["intercepts"]
            .get(name)
            .cloned()
    }

    /// The EnvoyFilters of intercepts.
    pub fn clusters(&self) -> Vec<String> {
        let arguments = [
            "-n",
            &self.namespace,
            "get",
            "envoyfilters",
            "-l",
            "injector.dev/intercept",
            "-o",
            "name",
        ];
        let text = self.server.must(&arguments, None);
        text.lines()
            .filter_map(|line| Some(line.rsplit_once('/')?.1.to_owned()))
            .collect()
    }

    /// The messages of the Events on the workload.
    pub fn events(&self) -> Vec<String> {
        let arguments = [
            "-n",
            &self.namespace,
            "get",
            "events",
            "-o",
            "json",
            "--field-selector=involvedObject.kind=Deployment,involvedObject.name=orders",
        ];
        let events: Value =
            serde_json::from_str(&self.server.must(&arguments, None)).expect("JSON");
        let events = events["items"].as_array().cloned().unwrap_or_default();
        events
            .iter()
            .filter_map(|event| Some(event["message"].as_str()?.to_owned()))
            .collect()
    }

    /// Writes an entry as nobody but an administrator may.
    pub fn put_entry(&self, name: &str, entry: &Value) {
        let patch = json!({"spec": {"pluginConfig": {"intercepts": {name: entry}}}}).to_string();
        self.patch(&patch);
    }

    pub fn remove_entry(&self, name: &str) {
        let patch = json!({"spec": {"pluginConfig": {"intercepts": {name: null}}}}).to_string();
        self.patch(&patch);
    }

    /// The operator changes the limits, as `injector install` does.
    pub fn limit(&self, limits: &Value) {
        self.patch(&json!({"spec": {"pluginConfig": {"limits": limits}}}).to_string());
    }

    fn patch(&self, patch: &str) {
        let arguments = [
            "-n",
            &self.namespace,
            "patch",
            "wasmplugin",
            PREPARED,
            "--type=merge",
            "-p",
            patch,
        ];
        self.server.must(&arguments, None);
    }
}

/// An intercept that no command keeps.
pub fn entry(name: &str, owner: &str, coder: &str) -> Intercept {
    Intercept {
        port: 8080,
        cluster: format!("intercept|8080|{name}"),
        address: "0123456789abcdef".repeat(2),
        owner: owner.to_owned(),
        created: now(),
        headers: vec![MatchHeader {
            name: "Coder".to_owned(),
            value: coder.to_owned(),
        }],
        baggage: Vec::new(),
        path: None,
        expires: now() + 3_600,
    }
}

/// What is there does not matter.
pub fn anything(_: &Document) -> Result<(), Failure> {
    Ok(())
}

fn tunnel_binding(user: &str) -> Value {
    rbac::binding("injector-system", user, "Role", "injector-developer")
}
