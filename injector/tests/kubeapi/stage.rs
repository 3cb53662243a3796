//! A namespace with a prepared workload of two replicas, and developers. The replicas' Envoys are here: they take what the API server has at once, as if istiod pushed it, unless they are stuck.

#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use injector::cluster::{Cluster, KubeFlags, kind};
use injector::manifest::facts::Protocol;
use injector::manifest::istio::{Workload, example, workload_objects};
use injector::mesh::Target;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::server::{Server, server};
use super::support::{BINARY, Ran, Running};

/// The plugin and the gate of the workload.
pub const PREPARED: &str = "injector-deployment-orders";

pub struct Stage {
    pub server: Arc<Server>,
    pub namespace: String,
    /// While it is set, new replicas do not take anything.
    pub stuck: Arc<AtomicBool>,
    /// The workload's container, besides its name, image and port.
    app: Value,
    /// While it is set, replicas say at every look that they refused one more update of clusters; those that are stuck as well take the filter and no cluster, and the others nothing
    /// until their third look.
    pub refusing: Arc<AtomicBool>,
    home: tempfile::TempDir,
}

impl Stage {
    /// bob and alice are developers in it, and may look into the replicas.
    pub fn new(namespace: &str) -> Self {
        Self::with_app(namespace, json!({}))
    }

    /// With more said of the workload's container.
    pub fn with_app(namespace: &str, app: Value) -> Self {
        let stage = Self {
            server: server(),
            namespace: namespace.to_owned(),
            stuck: Arc::default(),
            app,
            refusing: Arc::default(),
            home: tempfile::tempdir().expect("a home"),
        };
        stage.server.namespace(namespace);
        stage.start_workload();
        let mesh = example::install().mesh;
        for object in
            workload_objects(&mesh, &stage.workload(), &example::plugin()).expect("rendered")
        {
            stage.server.apply(object.value());
        }
        for user in ["bob", "alice"] {
            stage.bind(user, "clusterrole", "injector-developer");
            stage.bind_tunnel(user);
        }
        let look = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "look", "namespace": namespace},
            "rules": [{"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]}]});
        stage.server.apply(&look);
        stage.bind("bob", "role", "look");
        stage
    }

    pub fn workload(&self) -> Workload {
        Workload {
            namespace: self.namespace.clone(),
            ..example::workload()
        }
    }

    pub fn bind(&self, user: &str, kind: &str, role: &str) {
        let name = format!("{user}-{role}");
        let (role, user) = (format!("--{kind}={role}"), format!("--user={user}"));
        let arguments = [
            "-n",
            &self.namespace,
            "create",
            "rolebinding",
            &name,
            &role,
            &user,
        ];
        self.server.must(&arguments, None);
    }

    pub fn bind_tunnel(&self, user: &str) {
        let name = format!("{user}-{}", self.namespace);
        let user = format!("--user={user}");
        let arguments = [
            "-n",
            "injector-system",
            "create",
            "rolebinding",
            &name,
            "--role=injector-developer",
            &user,
        ];
        self.server.must(&arguments, None);
    }

    fn start_workload(&self) {
        let labels = json!({"app": "orders"});
        let containers = json!([self.container()]);
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": containers}});
        let metadata = json!({"name": "orders", "namespace": self.namespace});
        self.server.apply(
            &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
            "spec": {"selector": {"matchLabels": labels}, "template": template}}),
        );
        let ports = json!([{"name": "http", "port": 80, "targetPort": "web"}]);
        self.server.apply(
            &json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"selector": labels, "ports": ports}}),
        );
        self.add_replica("orders-1");
        self.add_replica("orders-2");
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
        let is_stuck = Arc::new(AtomicBool::new(false));
        let is_stuck = match self.stuck.load(Ordering::SeqCst) {
            true => Arc::clone(&self.stuck),
            false => is_stuck,
        };
        let cluster = self.cluster("admin");
        let namespace = self.namespace.clone();
        let admin = self.server.runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
            let address = listener.local_addr().expect("bound");
            let refusing = Arc::clone(&self.refusing);
            tokio::spawn(envoy(listener, cluster, namespace, is_stuck, refusing));
            address
        });
        self.server.pods.put(&self.namespace, name, 15000, admin);
        let containers =
            json!([self.container(), {"name": "istio-proxy", "image": "istio/proxyv2:1.31.0"}]);
        self.server.pod(
            &self.namespace,
            name,
            &json!({"app": "orders"}),
            &containers,
        );
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

/// An Envoy's admin interface.
async fn envoy(
    listener: TcpListener,
    cluster: Cluster,
    namespace: String,
    is_stuck: Arc<AtomicBool>,
    refusing: Arc<AtomicBool>,
) {
    let refused = Arc::new(AtomicU64::new(0));
    loop {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        let (cluster, namespace, is_stuck) =
            (cluster.clone(), namespace.clone(), Arc::clone(&is_stuck));
        let (refusing, refused) = (Arc::clone(&refusing), Arc::clone(&refused));
        tokio::spawn(async move {
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            let is_refusing = refusing.load(Ordering::SeqCst);
            let takes_it = match (is_stuck.load(Ordering::SeqCst), is_refusing) {
                (true, true) => head.contains("resource=ecds_filters"),
                (false, true) => refused.load(Ordering::SeqCst) >= 3,
                (is_stuck, false) => !is_stuck,
            };
            let body = match takes_it {
                _ if head.contains("/stats?") => {
                    let value = refused.fetch_add(u64::from(is_refusing), Ordering::SeqCst);
                    json!({"stats": [{"name": "cluster_manager.cds.update_rejected", "value": value}]})
                }
                true => dump(&cluster, &namespace, &head).await,
                false => json!({}),
            };
            let body = body.to_string();
            let text = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(text.as_bytes()).await;
        });
    }
}

async fn dump(cluster: &Cluster, namespace: &str, head: &str) -> Value {
    if head.contains("resource=ecds_filters") {
        let plugin = cluster
            .get(&kind::WASM_PLUGIN, Some(namespace), PREPARED)
            .await;
        let plugin = plugin.expect("reachable").unwrap_or_default();
        let text = plugin["spec"]["pluginConfig"].to_string();
        let name = format!(
            "extensions.istio.io/trafficextension/{namespace}.{PREPARED}~istio-translated-wasmplugin"
        );
        return json!({"configs": [{"ecds_filter": {"name": name, "typed_config": {"config": {"configuration": {"value": text}}}}}]});
    }
    let filters = cluster
        .list(&kind::ENVOY_FILTER, Some(namespace), None)
        .await
        .expect("reachable");
    let patches = filters
        .iter()
        .filter_map(|filter| filter["spec"]["configPatches"].as_array())
        .flatten();
    if head.contains("resource=dynamic_listeners") {
        let routes = patches.filter(|patch| patch["applyTo"] == "HTTP_ROUTE");
        let routes: Vec<&Value> = routes.map(|patch| &patch["patch"]["value"]).collect();
        let routes = json!({"name": "inbound|8080||", "virtual_hosts": [{"routes": routes}]});
        return json!({"configs": [{"active_state": {"listener": {"route_config": routes}}}]});
    }
    let clusters =
        patches.map(|patch| json!({"cluster": {"name": patch["patch"]["value"]["name"]}}));
    let mesh = example::install().mesh;
    let relays = (0..mesh.relay_replicas).map(|relay| {
        let name = mesh.relay_cluster(relay, Protocol::Http);
        json!({"cluster": {"name": name}})
    });
    json!({"configs": clusters.chain(relays).collect::<Vec<_>>()})
}
