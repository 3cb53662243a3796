//! The documented example: a workload `orders` in the namespace `shop`, prepared, and one intercept of `bob`. What it renders to is the directory `istio/`.

use std::net::SocketAddr;

use intercept_core::{Intercept, Limits, MatchHeader};
use serde_json::{Value, json};

use super::commented;
use super::facts::{Mesh, Module, Plugin, Port, ServicePort, Workload};
use super::install::{ClusterInstall, Outbound, cluster_objects, outbound_objects};
use super::intercept::intercept_objects;
use super::invalid::InvalidFacts;
use super::kind::Kind;
use super::object::Object;
use super::preparation;
use super::reach::Reach;
use super::resource::{self, InterceptSpec, Match, Tunnel, WorkloadRef};
use super::workload::workload_objects;
use crate::cluster;
use crate::facts::Protocol;

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

/// The example's connections into the cluster, as `injector install -n shop --outbound --outbound-to data/postgres:5432` says them.
pub fn outbound() -> Outbound {
    let to = Reach {
        namespace: "data".to_owned(),
        service: Some("postgres".to_owned()),
        port: Some(5432),
    };
    Outbound {
        namespace: workload().namespace,
        to: vec![to],
        service_accounts: Vec::new(),
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
        cluster: cluster::mesh_intercept_name(8080, INTERCEPT, 0),
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

/// The example's intercept as its developer asks for it; [`entry`] is what the controller makes of it.
pub fn intercept() -> resource::Intercept {
    let entry = entry();
    let spec = InterceptSpec {
        owner: entry.owner.clone(),
        workload: WorkloadRef {
            kind: workload().kind,
            name: workload().name,
        },
        port: entry.port,
        r#match: Match::of(&entry),
        tunnel: Tunnel {
            relay: 0,
            address: entry.address,
        },
        lease_seconds: 3600,
        renew_time: Some("2026-11-22T09:00:00Z".to_owned()),
        allow_overlap: None,
    };
    let mut intercept = resource::Intercept::new(INTERCEPT, spec);
    intercept.metadata.namespace = Some(workload().namespace);
    intercept
}

/// A file of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path in the directory; numbers are the order in which objects are applied.
    pub name: String,
    /// YAML.
    pub text: String,
}

/// The whole directory, one object a file: `cluster/` is applied once, `example-workload/` for a workload, `example-outbound/` for connections from a namespace into the cluster. Each has a `kustomization.yaml`, which lists all but the intercept.
pub fn files() -> Result<Vec<File>, ExampleError> {
    let install = install();
    let mut files = numbered("cluster", &cluster_objects(&install)?, 0)?;
    files.push(kustomization(
        "cluster",
        &files,
        "What an administrator's `injector install --relay-image …` applies once. Set the image first; it is referred to by its digest best.",
    )?);
    let prepared = workload_objects(&install.mesh, &workload(), &plugin())?;
    let of_workload = numbered("example-workload", &prepared, 0)?;
    let kustomized = kustomization(
        "example-workload",
        &of_workload,
        "What `injector install -n shop --workload orders` applies. Set the module's sha256 first.\n\
         The last three files are an intercept: `injector intercept` writes the Intercept, and the controller the other two for as long as it lives. So they are not listed.",
    )?;
    files.extend(of_workload);
    files.push(kustomized);
    files.extend(numbered(
        "example-workload",
        &of_intercept()?,
        prepared.len(),
    )?);
    let of_outbound = numbered(
        "example-outbound",
        &outbound_objects(&install, &outbound())?,
        0,
    )?;
    let kustomized = kustomization(
        "example-outbound",
        &of_outbound,
        "What an administrator's `injector install -n shop --outbound --outbound-to data/postgres:5432` applies. Set the image first.",
    )?;
    files.extend(of_outbound);
    files.push(kustomized);
    Ok(files)
}

/// The example's intercept, and what the controller writes for it.
pub(super) fn of_intercept() -> Result<Vec<Object>, ExampleError> {
    let prepared = workload_objects(&install().mesh, &workload(), &plugin())?;
    let mut plugins = prepared
        .iter()
        .filter_map(|object| preparation::read(object.value()).ok()?);
    let objects = plugins.next().and_then(|mut plugin| {
        plugin.uid = "00000000-0000-0000-0000-000000000000".to_owned();
        intercept_objects(&plugin, &intercept(), &entry())
    });
    Ok(objects.ok_or(InvalidFacts::NoPorts(workload().label()))?)
}

/// The objects, numbered after `before`.
fn numbered(folder: &str, objects: &[Object], before: usize) -> Result<Vec<File>, ExampleError> {
    let file = |(index, object): (usize, &Object)| {
        let (number, kind) = (before + index + 1, object.kind().to_lowercase());
        Ok(File {
            name: format!("{folder}/{number:02}-{kind}-{}.yaml", object.name()),
            text: object.yaml()?,
        })
    };
    objects.iter().enumerate().map(file).collect()
}

fn kustomization(
    folder: &str,
    files: &[File],
    what: &str,
) -> Result<File, serde_saphyr::ser::Error> {
    let names: Vec<Value> = files
        .iter()
        .filter_map(|file| Some(json!(file.name.split_once('/')?.1)))
        .collect();
    let value = json!({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": names});
    let comment = format!(
        "{what}\n\
         \n  kubectl apply --server-side --field-manager injector-install -k istio/{folder}\n\
         \nRendered by the code, never edited by hand; a test compares the two."
    );
    Ok(File {
        name: format!("{folder}/kustomization.yaml"),
        text: commented::document(&comment, &value, &[])?,
    })
}

/// Why the example cannot be rendered; only a fault of this build can be the reason.
#[derive(Debug, thiserror::Error)]
pub enum ExampleError {
    /// Its facts.
    #[error(transparent)]
    Facts(#[from] InvalidFacts),
    /// Its JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Its YAML.
    #[error(transparent)]
    Yaml(#[from] serde_saphyr::ser::Error),
}
