//! The documented example: a workload `orders` in the namespace `shop`, prepared, and one intercept of `bob`. What it renders to is the directory `istio/`.

use std::net::SocketAddr;

use intercept_core::{Intercept, Limits, MatchHeader};
use serde_json::{Value, json};

use super::commented;
use super::facts::{Mesh, Module, Plugin, Port, ServicePort, Workload};
use super::install::{ClusterInstall, cluster_objects};
use super::intercept::{NewIntercept, intercept_objects, own_cluster};
use super::invalid::InvalidFacts;
use super::kind::Kind;
use super::object::Object;
use super::resource;
use super::workload::workload_objects;
use crate::manifest::facts::Protocol;

/// The name of the example's intercept.
pub const INTERCEPT: &str = "orders-bob";

/// The cluster part of the example.
pub fn install() -> ClusterInstall {
    ClusterInstall {
        mesh: Mesh {
            namespace: "injector-system".to_owned(),
            root_namespace: "istio-system".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            relay_replicas: 2,
        },
        revision: None,
        image: concat!("registry.example.com/injector:", env!("CARGO_PKG_VERSION")).to_owned(),
        image_pull_secret: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        has_clock: true,
    }
}

/// The workload of the example.
pub fn workload() -> Workload {
    Workload {
        kind: Kind::Deployment,
        name: "orders".to_owned(),
        namespace: "shop".to_owned(),
        selector: [("app".to_owned(), "orders".to_owned())].into(),
        ports: vec![Port {
            number: 8080,
            protocol: Protocol::Http,
            app: SocketAddr::from(([127, 0, 0, 1], 8080)),
            services: vec![ServicePort {
                service: "orders".to_owned(),
                port: 80,
            }],
        }],
    }
}

/// What the example's operator allows; the digest is a stand-in.
pub fn plugin() -> Plugin {
    Plugin {
        module: Module {
            url: install().module_url(),
            sha256: "0".repeat(64),
        },
        limits: Limits::default(),
    }
}

/// The example's entry.
pub fn entry() -> Intercept {
    Intercept {
        port: 8080,
        cluster: own_cluster(INTERCEPT, 8080),
        address: "9f2c7be80d41a3650bcd7c5f6e1f2a34".to_owned(),
        owner: "bob@example.com".to_owned(),
        created: 1_795_347_600,
        headers: vec![MatchHeader {
            name: "Coder".to_owned(),
            value: "Bob".to_owned(),
        }],
        baggage: Vec::new(),
        path: None,
        expires: 1_795_351_200,
    }
}

/// A file of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name; the number is the order in which objects are applied.
    pub name: String,
    /// YAML.
    pub text: String,
}

/// The whole directory: one object a file, then the `kustomization.yaml` that applies all but the intercept, and the definition of Intercepts, which nothing uses yet.
pub fn files() -> Result<Vec<File>, ExampleError> {
    let install = install();
    let mut installed = cluster_objects(&install)?;
    let cluster_part = installed.len();
    installed.extend(workload_objects(&install.mesh, &workload(), &plugin())?);
    let entry = entry();
    let new = NewIntercept {
        name: INTERCEPT,
        entry: &entry,
        relay: 0,
    };
    let intercept = intercept_objects(&install.mesh, &workload(), new)?;
    let mut files = Vec::new();
    for (index, object) in installed.iter().chain(&intercept).enumerate() {
        files.push(File {
            name: file_name(index + 1, object),
            text: object.yaml()?,
        });
    }
    files.push(kustomization(&files[..installed.len()], cluster_part)?);
    files.push(File {
        name: "intercepts.injector.dev.yaml".to_owned(),
        text: resource::definition().yaml()?,
    });
    Ok(files)
}

fn file_name(number: usize, object: &Object) -> String {
    format!(
        "{number:02}-{}-{}.yaml",
        object.kind().to_lowercase(),
        object.name()
    )
}

/// `cluster_part`: how many of the files are applied once, and not for the workload.
fn kustomization(files: &[File], cluster_part: usize) -> Result<File, serde_saphyr::ser::Error> {
    let names: Vec<Value> = files.iter().map(|file| json!(file.name)).collect();
    let value = json!({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": names});
    let comment = format!(
        "What an administrator's `injector install --relay-image …` applies once (01 to {cluster_part:02}), \
         and `injector install -n shop --workload orders` for the workload of this example ({:02} to {:02}). To read, and to apply by hand:\n\
         \n  kubectl apply --server-side --field-manager injector-install -k istio/\n\
         \nSet the image and the module's sha256 first. The last two files are what an intercept adds for as long as it lives; `injector intercept` writes them, so they are not listed.\n\
         Rendered by the code, never edited by hand; a test compares the two.",
        cluster_part + 1,
        files.len(),
    );
    Ok(File {
        name: "kustomization.yaml".to_owned(),
        text: commented::document(&comment, &value, &[])?,
    })
}

/// Why the example cannot be rendered; only a fault of this build can be the reason.
#[derive(Debug, thiserror::Error)]
pub enum ExampleError {
    /// Its facts.
    #[error(transparent)]
    Facts(#[from] InvalidFacts),
    /// Its YAML.
    #[error(transparent)]
    Yaml(#[from] serde_saphyr::ser::Error),
}
