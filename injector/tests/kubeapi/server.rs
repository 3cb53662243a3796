//! A real API server with etcd on this machine's loopback, Istio's custom resources, the cluster part of `injector install`, and in the place of a node a kubelet of our own
//! with two relays in this process. One for all tests that run at the same time; it ends with the last of them.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use injector::manifest::istio::{INSTALLER, example, install};
use injector::tunnel::relay;
use serde_json::{Value, json};

use super::kubelet::{self, Pods};

/// How long starting may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// The users that the API server knows by their tokens, besides the administrator.
const USERS: [&str; 5] = ["bob", "alice", "eve", "mallory", "carol"];
const ADMIN: &str = "admin";

pub struct Server {
    folder: tempfile::TempDir,
    processes: Vec<Child>,
    pub runtime: tokio::runtime::Runtime,
    pub pods: Pods,
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
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().to_owned();
        let (etcd, peer, secure) = (free_port(), free_port(), free_port());
        write_keys(&place);
        write_users(&place, secure);
        let mut server = Self {
            folder,
            processes: Vec::new(),
            runtime: tokio::runtime::Runtime::new().expect("a runtime"),
            pods: Pods::default(),
        };
        server.spawn(&etcd_command(&place, etcd, peer), "etcd.log");
        server.spawn(&api_command(&place, etcd, secure), "api.log");
        server.wait_ready();
        server.install();
        server.start_relays();
        server
    }

    /// Below a shell that ends the program when its own input ends: also when this process is killed.
    fn spawn(&mut self, program: &Command, log: &str) {
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
        self.processes.push(child);
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
        let arguments = ["apply", "--server-side", "--field-manager", INSTALLER];
        self.must(&arguments, Some(object));
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

    /// Pods as somebody would have started them, on our node.
    pub fn pod(&self, namespace: &str, name: &str, labels: &Value, containers: &Value) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"nodeName": "here", "containers": containers, "automountServiceAccountToken": false},
        });
        self.apply(&pod);
        let running: Vec<Value> = containers
            .as_array()
            .into_iter()
            .flatten()
            .map(|container| {
                json!({"name": container["name"], "image": "x", "imageID": "x", "ready": true, "restartCount": 0,
                       "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
            })
            .collect();
        let status = json!({"status": {
            "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": running,
        }});
        self.status(Some(namespace), "pod", name, &status);
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
    pub fn namespace(&self, name: &str) {
        self.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}});
        self.apply(&account);
    }

    fn install(&self) {
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
        for object in install::cluster_objects(&example::install()).expect("rendered") {
            self.apply(object.value());
            if object.kind() == "Namespace" {
                self.namespace(object.name());
                self.apply(object.value());
            }
        }
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

    /// A relay in this process, and its pod. Returns the address of its control port.
    pub fn relay(&self, namespace: &str, replica: u16, options: relay::Options) -> SocketAddr {
        let name = format!("injector-relay-{replica}");
        let control = self.runtime.block_on(start_relay(options));
        self.pods.put(namespace, &name, 7070, control);
        let containers = json!([{"name": "relay", "image": "x"}]);
        let labels = json!({"app.kubernetes.io/name": "injector-relay"});
        self.pod(namespace, &name, &labels, &containers);
        control
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            drop(process.stdin.take());
            let _ = process.wait();
        }
    }
}

/// The address of its control port.
async fn start_relay(options: relay::Options) -> SocketAddr {
    let data = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bound");
    let control = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bound");
    let address = control.local_addr().expect("bound");
    tokio::spawn(relay::serve(
        vec![data],
        control,
        options,
        std::future::pending(),
    ));
    address
}

fn told(output: &std::process::Output) -> (bool, String) {
    let text = match output.status.success() {
        true => &output.stdout,
        false => &output.stderr,
    };
    (
        output.status.success(),
        String::from_utf8_lossy(text).into_owned(),
    )
}

/// A program of the test cluster's cache. Its folder bears a version: `kubernetes-*/kubectl`.
pub fn binary(place: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache"));
    let (folder, program) = place.split_once('/').expect("a folder and a program");
    let prefix = folder.trim_end_matches('*');
    let folders = fs::read_dir(cache.join("injector/cluster"))
        .into_iter()
        .flatten()
        .flatten();
    let found = folders
        .filter(|folder| folder.file_name().to_string_lossy().starts_with(prefix))
        .map(|folder| folder.path().join(program))
        .find(|program| program.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "{place} is not below {}/injector/cluster; run: tests/cluster/build",
            cache.display()
        )
    })
}

fn etcd_command(place: &Path, port: u16, peer: u16) -> Command {
    let mut command = Command::new(binary("debian-*/usr/bin/etcd"));
    command
        .arg("--data-dir")
        .arg(place.join("etcd"))
        .args(["--unsafe-no-fsync", "--log-level=warn"])
        .arg(format!("--listen-client-urls=http://127.0.0.1:{port}"))
        .arg(format!("--advertise-client-urls=http://127.0.0.1:{port}"))
        .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}"));
    command
}

fn api_command(place: &Path, etcd: u16, secure: u16) -> Command {
    let file = |flag: &str, name: &str| format!("--{flag}={}", place.join(name).display());
    let mut command = Command::new(binary("kubernetes-*/kube-apiserver"));
    command.args([
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--secure-port={secure}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        "--service-cluster-ip-range=10.99.0.0/24".to_owned(),
        "--service-account-issuer=https://x".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        file("cert-dir", "certs"),
        file("service-account-key-file", "sa.pub"),
        file("service-account-signing-key-file", "sa.key"),
        file("token-auth-file", "tokens"),
    ]);
    command
}

fn write_keys(place: &Path) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .current_dir(place)
            .args(arguments)
            .output();
        let output = output.expect("openssl is missing; run: apt-get install openssl");
        assert!(output.status.success(), "{}", told(&output).1);
    };
    openssl(&[
        "ecparam",
        "-name",
        "prime256v1",
        "-genkey",
        "-noout",
        "-out",
        "sa.key",
    ]);
    openssl(&["ec", "-in", "sa.key", "-pubout", "-out", "sa.pub"]);
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=kubelet",
        "-days",
        "1",
        "-keyout",
        "kubelet.key",
        "-out",
        "kubelet.crt",
    ]);
}

/// Tokens and a kubeconfig each.
fn write_users(place: &Path, secure: u16) {
    let mut tokens = format!("token-{ADMIN},{ADMIN},0,\"system:masters\"\n");
    for (number, user) in USERS.into_iter().enumerate() {
        tokens.push_str(&format!("token-{user},{user},{},\n", number + 1));
    }
    fs::write(place.join("tokens"), tokens).expect("written");
    for user in USERS.into_iter().chain([ADMIN]) {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: \"https://127.0.0.1:{secure}\", insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: u, user: {{token: token-{user}}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        );
        fs::write(place.join(user), text).expect("written");
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}
