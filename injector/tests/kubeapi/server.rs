//! A real API server with etcd on this machine's loopback, Istio's custom resources, the cluster part of `injector install`, and in the place of a node a kubelet of our own
//! with two relays in this process. One for all tests that run at the same time; it ends with the last of them.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use intercept_manifest::istio::{INSTALLER, example, install};
use intercept_tunnel::relay;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::kubelet::{self, Pods};
use super::programs::{
    ADMIN, api_command, binary, controllers_command, etcd_command, free_port, write_keys,
    write_users,
};
use super::support::{BINARY, Ran, Running, ran};

/// How long starting may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

pub struct Server {
    folder: tempfile::TempDir,
    processes: Mutex<Vec<Child>>,
    /// Where etcd and the API server listen.
    ports: (u16, u16),
    /// The data ports and the presence ports of the relays, by their pods.
    relays: Mutex<HashMap<String, (SocketAddr, SocketAddr)>>,
    pub runtime: tokio::runtime::Runtime,
    pub pods: Pods,
    controller: Mutex<Option<Running>>,
}

/// The server that other tests use at the moment, or a new one.
pub fn server() -> Arc<Server> {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(Server::start());
    *shared = Arc::downgrade(&server);
    server
}

impl Server {
    pub fn start() -> Self {
        let server = Self::bare();
        server.install();
        server.start_relays();
        server.start_controller();
        server
    }

    /// A kubeconfig of the controller's account.
    pub fn account(&self) -> PathBuf {
        let create = ["-n", "injector-system", "create", "token"];
        let token = ["injector-controller", "--duration=1h"];
        let token = self.must(&[&create[..], &token].concat(), None);
        let file = self.kubeconfig("bob", "injector-system");
        let text = fs::read_to_string(&file).expect("a kubeconfig");
        let own = file.with_file_name("controller-account");
        // In one go: another test may read it.
        let whole = tempfile::NamedTempFile::new_in(self.folder.path()).expect("a file");
        fs::write(whole.path(), text.replace("token-bob", token.trim())).expect("written");
        whole.persist(&own).expect("in its place");
        own
    }

    pub fn start_controller(&self) {
        *self.controller.lock().expect("whole") = Some(self.another_controller());
    }

    /// One more, beside the one that runs.
    pub fn another_controller(&self) -> Running {
        self.controller_with(&self.account(), &[])
    }

    /// One with this kubeconfig and these variables.
    pub fn controller_with(&self, kubeconfig: &Path, variables: &[(&str, &str)]) -> Running {
        let mut command = Command::new(BINARY);
        command
            .arg("controller")
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            .envs(variables.iter().copied())
            .stdin(Stdio::null());
        let running = Running::new(&mut command);
        running.says("watching");
        running
    }

    pub fn stop_controller(&self) {
        let running = self.controller.lock().expect("whole").take();
        let running = running.expect("it runs");
        running.signal(Signal::KILL);
        running.end();
    }

    /// A server with Istio's custom resources and without the injector, for tests of install and uninstall: those affect every namespace, and so every other test.
    pub fn bare() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().to_owned();
        let (etcd, peer, secure) = (free_port(), free_port(), free_port());
        write_keys(&place);
        write_users(&place, secure);
        let server = Self {
            folder,
            processes: Mutex::default(),
            ports: (etcd, secure),
            relays: Mutex::default(),
            runtime: tokio::runtime::Runtime::new().expect("a runtime"),
            pods: Pods::default(),
            controller: Mutex::default(),
        };
        server.spawn(&etcd_command(&place, etcd, peer), "etcd.log");
        server.spawn(&api_command(&place, etcd, secure), "api.log");
        server.wait_ready();
        server.install_mesh();
        server
    }

    /// Only for a server that no other test uses: controllers also create and delete objects in other tests' namespaces.
    pub fn start_controllers(&self) {
        let command = controllers_command(self.folder.path());
        self.spawn(&command, "controllers.log");
    }

    /// Below a shell that ends the program when its own input ends: also when this process is killed.
    fn spawn(&self, program: &Command, log: &str) {
        const UNTIL_END_OF_INPUT: &str =
            r#"exec 3<&0; "$0" "$@" </dev/null & read -r _ <&3; kill -9 $!; wait"#;
        let log = fs::File::create(self.folder.path().join(log)).expect("a log");
        let errors = log.try_clone().expect("a log");
        let child = Command::new("sh")
            .args(["-c", UNTIL_END_OF_INPUT])
            .arg(program.get_program())
            .args(program.get_args())
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors)
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("{program:?}: {error}"));
        self.processes.lock().expect("whole").push(child);
    }

    /// Kills the API server and starts it again: every connection breaks, and requests in between are refused.
    pub fn restart_api(&self) {
        // After etcd.
        let mut api = self.processes.lock().expect("whole").remove(1);
        drop(api.stdin.take());
        api.wait().expect("a child of ours");
        let (etcd, secure) = self.ports;
        self.spawn(&api_command(self.folder.path(), etcd, secure), "api.log");
        self.wait_ready();
    }

    fn wait_ready(&self) {
        let until = Instant::now() + DEADLINE;
        while !self.kubectl(&["get", "--raw", "/readyz"], None).0 {
            assert!(Instant::now() < until, "{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("api.log")).unwrap_or_default();
        let start = log.len().saturating_sub(4_000);
        log.get(start..).unwrap_or(&log).to_owned()
    }

    /// A kubeconfig of this user, with the namespace as its default.
    pub fn kubeconfig(&self, user: &str, namespace: &str) -> PathBuf {
        let text = fs::read_to_string(self.folder.path().join(user)).expect("a known user");
        let file = self.folder.path().join(format!("{user}-{namespace}"));
        let context = format!("{{cluster: c, user: u, namespace: {namespace}}}");
        let text = text.replace("{cluster: c, user: u}", &context);
        // In one go: a command that was started before reads it meanwhile.
        let whole = tempfile::NamedTempFile::new_in(self.folder.path()).expect("a file");
        fs::write(whole.path(), text).expect("written");
        whole.persist(&file).expect("in its place");
        file
    }

    /// The command of this user's, with `default` as the namespace where it says nothing else.
    pub fn injector(&self, user: &str, words: &str) -> Ran {
        let mut command = Command::new(BINARY);
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", self.kubeconfig(user, "default"))
            .args(words.split_whitespace())
            .stdin(Stdio::null());
        ran(&mut command)
    }

    /// Did it work, and what was printed.
    pub fn kubectl(&self, arguments: &[&str], input: Option<&Value>) -> (bool, String) {
        let file = self.folder.path().join("input.json");
        let mut command = Command::new(binary("kubernetes-*/kubectl"));
        command
            .args(arguments)
            .arg("--request-timeout=20s")
            .env("KUBECONFIG", self.folder.path().join(ADMIN))
            .env("HOME", self.folder.path());
        if let Some(input) = input {
            let file = tempfile::NamedTempFile::new_in(file.parent().unwrap()).unwrap();
            fs::write(file.path(), input.to_string()).expect("written");
            command.arg("-f").arg(file.path());
            let output = command.output().expect("kubectl runs");
            return told(&output);
        }
        told(&command.output().expect("kubectl runs"))
    }

    #[track_caller]
    pub fn must(&self, arguments: &[&str], input: Option<&Value>) -> String {
        let (passed, text) = self.kubectl(arguments, input);
        assert!(passed, "kubectl {arguments:?}: {text}");
        text
    }

    #[track_caller]
    pub fn apply(&self, object: &Value) {
        self.apply_all(std::slice::from_ref(object));
    }

    /// In this order, by one kubectl.
    #[track_caller]
    pub fn apply_all(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let arguments = ["apply", "--server-side", "--field-manager", INSTALLER];
        self.must(&arguments, Some(&list));
    }

    #[track_caller]
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Value {
        let text = self.must(&["-n", namespace, "get", kind, name, "-o", "json"], None);
        serde_json::from_str(&text).expect("JSON")
    }

    /// `None` where there is none.
    pub fn object(&self, namespace: &str, kind: &str, name: &str) -> Option<Value> {
        let arguments = ["-n", namespace, "get", kind, name, "-o", "json"];
        let (is_there, text) = self.kubectl(&arguments, None);
        is_there.then(|| serde_json::from_str(&text).expect("JSON"))
    }

    /// A pod as an ordinary user would create it, on our node.
    pub fn pod(namespace: &str, name: &str, labels: &Value, containers: &Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"nodeName": "here", "containers": containers, "automountServiceAccountToken": false},
        })
    }

    /// Starts them; all have the same containers.
    pub fn run_pods(&self, pods: &[Value]) {
        let containers = pods[0]["spec"]["containers"].as_array();
        let running: Vec<Value> = containers
            .into_iter()
            .flatten()
            .map(|container| {
                json!({"name": container["name"], "image": "x", "imageID": "x", "ready": true, "restartCount": 0,
                       "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
            })
            .collect();
        let status = json!({"status": {
            "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": running,
        }})
        .to_string();
        let arguments = [
            "patch",
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ];
        let list = json!({"apiVersion": "v1", "kind": "List", "items": pods});
        self.must(&arguments, Some(&list));
    }

    pub fn status(&self, namespace: Option<&str>, kind: &str, name: &str, status: &Value) {
        let status = status.to_string();
        let mut arguments = vec![
            "patch",
            kind,
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ];
        arguments.extend(namespace.map(|_| "-n"));
        arguments.extend(namespace);
        self.must(&arguments, None);
    }

    /// The namespace, with the account without which no pod starts.
    pub fn namespace_objects(name: &str) -> [Value; 2] {
        [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}),
        ]
    }

    fn install_mesh(&self) {
        let crds = Command::new(binary("istio-*/istioctl"))
            .args([
                "manifest",
                "generate",
                "--set",
                "profile=empty",
                "--set",
                "components.base.enabled=true",
            ])
            .output()
            .expect("istioctl runs");
        let file = self.folder.path().join("crds.yaml");
        fs::write(&file, told(&crds).1).expect("written");
        // It also holds what needs a namespace that is not here.
        self.kubectl(
            &["apply", "--server-side", "-f", &file.to_string_lossy()],
            None,
        );
        self.must(
            &[
                "wait",
                "--for=condition=Established",
                "crd",
                "--all",
                "--timeout=60s",
            ],
            None,
        );
    }

    /// The cluster part, as `injector install` applies it. Its pods do not run here.
    pub fn install(&self) {
        let mut objects = Vec::new();
        for object in install::cluster_objects(&example::install()).expect("rendered") {
            objects.push(object.value().clone());
            if object.kind() == "Namespace" {
                let [_, account] = Self::namespace_objects(object.name());
                objects.push(account);
            }
        }
        self.apply_all(&objects);
        let established = "--for=condition=Established";
        let definition = "crd/intercepts.injector.dev";
        self.must(&["wait", established, definition, "--timeout=60s"], None);
    }

    /// Two relays in this process, and the node on which the API server believes them.
    fn start_relays(&self) {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "here"}});
        self.apply(&node);
        let port = self.runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("bound");
            let port = listener.local_addr().expect("bound").port();
            let (folder, pods) = (self.folder.path().to_owned(), self.pods.clone());
            tokio::spawn(async move { kubelet::serve(listener, &folder, pods).await });
            port
        });
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }});
        self.status(None, "node", "here", &status);
        for replica in 0..example::install().mesh.relay_replicas {
            self.relay("injector-system", replica, relay::Options::default());
        }
    }

    /// Where a relay's data port is, to which gates send requests.
    pub fn data(&self, replica: u64) -> SocketAddr {
        self.relays.lock().expect("whole")[&format!("injector-relay-{replica}")].0
    }

    /// Where pods ask the relays whether a tunnel is up.
    pub fn presence(&self) -> Vec<SocketAddr> {
        let relays = self.relays.lock().expect("whole");
        relays.values().map(|(_, presence)| *presence).collect()
    }

    /// A relay in this process, and its pod. Returns the address of its control port.
    pub fn relay(&self, namespace: &str, replica: u16, options: relay::Options) -> SocketAddr {
        let name = format!("injector-relay-{replica}");
        let [data, control, presence] = self.runtime.block_on(start_relay(options));
        let mut relays = self.relays.lock().expect("whole");
        relays.insert(name.clone(), (data, presence));
        drop(relays);
        self.pods.put(namespace, &name, 7070, control);
        let containers = json!([{"name": "relay", "image": "x"}]);
        let labels = json!({"app.kubernetes.io/name": "injector-relay"});
        let pods = [Self::pod(namespace, &name, &labels, &containers)];
        self.apply_all(&pods);
        self.run_pods(&pods);
        control
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = self.controller.lock().expect("whole").take() {
            if std::thread::panicking() {
                eprintln!("--- controller:\n{}", running.stderr());
            }
            running.signal(Signal::KILL);
            running.end();
        }
        for process in self.processes.lock().expect("whole").iter_mut().rev() {
            drop(process.stdin.take());
            let _ = process.wait();
        }
    }
}

/// The addresses of its data port, its control port and its presence port.
async fn start_relay(options: relay::Options) -> [SocketAddr; 3] {
    let bind = async || {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        listener.expect("bound")
    };
    let [data, control, presence] = [bind().await, bind().await, bind().await];
    let addresses = [&data, &control, &presence].map(|it| it.local_addr().expect("bound"));
    tokio::spawn(relay::serve(
        vec![data],
        control,
        Some(presence),
        options,
        std::future::pending(),
    ));
    addresses
}

pub fn told(output: &std::process::Output) -> (bool, String) {
    let text = match output.status.success() {
        true => &output.stdout,
        false => &output.stderr,
    };
    (
        output.status.success(),
        String::from_utf8_lossy(text).into_owned(),
    )
}
