//! A namespace with a prepared workload of two replicas, and developers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use injector::error::CliError;
use injector::mesh::MeshTarget;
use injector::model::{Plan, Target};
use intercept_core::{Document, Intercept, MatchHeader};
use intercept_kube::{Cluster, KubeFlags};
use intercept_manifest::istio::{Workload, example, workload_objects};
use intercept_tunnel::developer::LocalProtocol;
use serde_json::{Value, json};

use super::controller::Proxies;
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
    /// The workload's container, besides its name, image and port.
    app: Value,
    /// While it is set, all replicas are plain.
    pub plain: Arc<AtomicBool>,
    home: tempfile::TempDir,
    proxies: Proxies,
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
            proxies: Proxies::start(&server, namespace),
            server,
            namespace: namespace.to_owned(),
            app,
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
            .proxies
            .give(&stage.server, namespace, ["orders-1", "orders-2"]);
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

    /// The pod, whose Envoy is here already.
    fn replica(&self, name: &str) -> Value {
        let envoy = Envoy {
            cluster: self.cluster("admin"),
            namespace: self.namespace.clone(),
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

    pub fn cluster(&self, user: &str) -> Cluster {
        let flags = KubeFlags {
            kubeconfig: Some(self.kubeconfig(user)),
            ..KubeFlags::default()
        };
        self.wait(Cluster::connect(&flags)).expect("a kubeconfig")
    }

    pub fn target(&self, user: &str) -> MeshTarget {
        let cluster = self.cluster(user);
        let target = self.wait(MeshTarget::open(&cluster, "orders"));
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

    /// What the proxies are given of this name.
    pub fn entry(&self, name: &str) -> Option<Value> {
        let plugin = self.plugin();
        let text = plugin["spec"]["pluginConfig"]["intercepts"].as_str()?;
        let entries: Value = serde_json::from_str(text).expect("JSON");
        entries.get(name).cloned()
    }

    /// The Intercept of this name.
    pub fn intercept(&self, name: &str) -> Option<Value> {
        self.server.object(&self.namespace, "intercept", name)
    }

    /// The names of all Intercepts.
    pub fn intercepts(&self) -> Vec<String> {
        self.names(&["get", "intercepts", "-o", "name"])
    }

    /// As an administrator.
    pub fn delete(&self, name: &str) {
        let arguments = ["-n", &self.namespace, "delete", "intercept", name];
        self.server.must(&arguments, None);
    }

    fn names(&self, arguments: &[&str]) -> Vec<String> {
        let namespace = ["-n", self.namespace.as_str()];
        let text = self.server.must(&[&namespace, arguments].concat(), None);
        text.lines()
            .filter_map(|line| Some(line.rsplit_once('/')?.1.to_owned()))
            .collect()
    }

    /// The EnvoyFilters of intercepts.
    pub fn filters(&self) -> Vec<Value> {
        let ours = ["-n", &self.namespace, "get", "envoyfilters", "-o", "json"];
        let list = [&ours[..], &["-l", "injector.dev/intercept"]].concat();
        let list: Value = serde_json::from_str(&self.server.must(&list, None)).expect("JSON");
        list["items"].as_array().expect("a list").clone()
    }

    /// The names of the intercepts that have one.
    pub fn clusters(&self) -> Vec<String> {
        let filters = self.filters().into_iter();
        let names =
            filters.map(|filter| filter["metadata"]["labels"]["injector.dev/intercept"].clone());
        names
            .map(|name| name.as_str().expect("a name").to_owned())
            .collect()
    }

    /// An intercept of the workload's port, without an open tunnel.
    pub fn plan(&self, target: &dyn Target, name: &str, owner: &str, coder: &str) -> Plan {
        let port = target.port(None).expect("one port");
        Plan {
            name: name.to_owned(),
            workload: target.name().to_owned(),
            port: port.number,
            url: port.url,
            protocol: LocalProtocol::Http1,
            developer_port: 1,
            place: self.wait(target.place(name, port.number)).expect("a relay"),
            owner: owner.to_owned(),
            headers: vec![MatchHeader {
                name: "Coder".to_owned(),
                value: coder.to_owned(),
            }],
            baggage: Vec::new(),
            path: None,
            lease: Duration::from_secs(3_600),
            allow_overlap: false,
            replaces: None,
            context_flags: String::new(),
        }
    }

    /// Creates an Intercept that no command keeps.
    pub fn add(&self, name: &str, owner: &str, coder: &str) {
        let target = self.target(owner);
        let plan = self.plan(&target, name, owner, coder);
        let added = self.wait(target.add(&plan, &entry(&plan), &anything));
        added.unwrap_or_else(|failure| panic!("{failure}"));
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

/// Its entry, with a tunnel of its own.
pub fn entry(plan: &Plan) -> Intercept {
    let test = std::thread::current().name().map(str::to_owned);
    let address = intercept_manifest::digest::sha256(format!("{} {test:?}", plan.name));
    plan.intercept(&address[..32], now(), now())
}

/// What is there does not matter.
pub fn anything(_: &Document) -> Result<(), CliError> {
    Ok(())
}

fn tunnel_binding(user: &str) -> Value {
    rbac::binding("injector-system", user, "Role", "injector-developer")
}
