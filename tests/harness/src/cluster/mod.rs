//! A real cluster with Istio and the injector.
//!
//! `tests/cluster/up` creates the cluster, [`Cluster::get`] installs once per test program.

pub mod faults;
pub mod kubectl;
mod objects;
mod proxy;
pub mod stage;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::answer::hex;
use crate::binaries;
use crate::wait;
use kubectl::{Kubectl, run};
pub use stage::{Plan, Stage};

/// The namespace of the relays.
pub const SYSTEM: &str = "injector-system";
/// The group of users who may intercept.
pub const DEVELOPERS: &str = "injector-developers";

/// A cluster that is ready.
#[derive(Debug)]
pub struct Cluster {
    /// Access to its API server.
    pub kubectl: Kubectl,
    /// The image of the test app: see `standin.rs`.
    standin: String,
}

impl Cluster {
    /// The cluster of `$KUBECONFIG`, with relays and the developers' role.
    pub async fn get() -> &'static Self {
        static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
        CLUSTER.get_or_init(|| wait::blocking(Self::install)).await
    }

    fn install() -> Self {
        let kubectl = Kubectl::new();
        let relay_name = load_relay(&kubectl);
        let program = binaries::standin();
        let bytes = std::fs::read(&program).expect("the stand-in");
        let standin = format!("localhost/standin:{}", tag(&bytes));
        load(&kubectl, "image", &[&standin, path(&program)]);
        let cluster = Self { kubectl, standin };
        cluster.injector(&["install", "--relay-image", &relay_name]);
        let group =
            json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": DEVELOPERS});
        cluster.kubectl.apply(&[
            objects::binding(SYSTEM, "Role", &group),
            objects::strict_mesh(),
        ]);
        cluster
    }

    /// Runs a program of `tests/cluster`. Returns its stdout.
    pub fn script(&self, name: &str, arguments: &[&str]) -> String {
        self.kubectl.script(name, arguments)
    }

    /// Runs the release `injector` as an administrator. Returns its stdout.
    pub fn injector(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(binaries::injector());
        command.args(arguments).env_remove("INJECTOR_ENVOY");
        run(&mut command, b"").unwrap_or_else(|error| panic!("{error}"))
    }

    /// Ready pods with that label that are not terminating: names and addresses.
    pub fn pods(&self, namespace: &str, label: &str) -> Vec<(String, IpAddr)> {
        let pods = self.kubectl.get(&["-n", namespace, "pods", "-l", label]);
        let pods = pods["items"].as_array().expect("a list").iter();
        pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null() && is_ready(pod))
            .map(|pod| {
                let name = pod["metadata"]["name"].as_str().expect("a name").to_owned();
                (name, stage::ip(&pod["status"]["podIP"]))
            })
            .collect()
    }

    /// The ready relays.
    pub fn relays(&self) -> Vec<(String, IpAddr)> {
        self.pods(SYSTEM, "app.kubernetes.io/name=injector-relay")
    }

    /// The address of a Service.
    pub fn service_address(&self, namespace: &str, name: &str, port: u16) -> SocketAddr {
        let service = self.kubectl.get(&["-n", namespace, "service", name]);
        (stage::ip(&service["spec"]["clusterIP"]), port).into()
    }

    /// The kubeconfig of a user in these groups.
    pub fn user(&self, name: &str, groups: &[&str]) -> PathBuf {
        self.kubectl.user(name, groups)
    }
}

/// Loads the relay's image, for tests that install themselves. Returns its name.
pub fn load_relay(kubectl: &Kubectl) -> String {
    let relay = binaries::relay_image();
    let index = std::fs::read(relay.join("index.json")).expect("an OCI layout");
    let name = format!("localhost/injector:{}", tag(&index));
    load(kubectl, "load", &[path(&relay), &name]);
    name
}

/// Loads an image, unless the cluster has it.
fn load(kubectl: &Kubectl, script: &str, arguments: &[&str]) {
    let name = arguments.iter().find(|word| word.starts_with("localhost/"));
    let name = name.expect("an image's name").replace(['/', ':'], "-");
    let mark = kubectl.dir().join(format!("loaded-{name}"));
    if !mark.exists() {
        kubectl.script(script, arguments);
        std::fs::write(mark, "").expect("a writable directory");
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        all.iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    })
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A tag derived from the content, so that the loaded image is the one that runs.
fn tag(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))[..12].to_owned()
}
