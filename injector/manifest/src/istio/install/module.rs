//! The module server: two pods that hand out `filter.wasm` and nothing else.

use serde_json::{Value, json};

use super::{ClusterInstall, MODULE_PORT, pods};
use crate::istio::names::{self, MODULE};
use crate::istio::object::Object;

pub fn objects(install: &ClusterInstall) -> Vec<Object> {
    vec![
        pods::service_account(
            install,
            MODULE,
            "The module server's identity. No role is bound to it.",
        ),
        service(install),
        pods::disruption_budget(
            install,
            MODULE,
            "One of the two is always there: while nothing serves the filter, a starting pod is ready 7 s later and does not intercept.",
        ),
        pods::network_policy(
            install,
            MODULE,
            &[MODULE_PORT],
            "Its one port, from everywhere in the cluster: every sidecar's agent may fetch the filter, which is no secret.",
        ),
        deployment(install),
    ]
}

fn service(install: &ClusterInstall) -> Object {
    Object::new(
        "Where the sidecars' agents fetch the filter.",
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": names::metadata(MODULE, &install.mesh.namespace, MODULE),
            "spec": {
                "selector": names::selector(MODULE),
                "ports": [{"name": "http", "port": MODULE_PORT, "targetPort": MODULE_PORT, "appProtocol": "http"}],
            },
        }),
    )
}

fn deployment(install: &ClusterInstall) -> Object {
    let mut labels = names::labels(MODULE);
    labels["sidecar.istio.io/inject"] = json!("false");
    let template = json!({"metadata": {"labels": labels}, "spec": pods::spread(install, MODULE, container(install))});
    let object = Object::new(
        "The module server, apart from the relays and their fate.",
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": names::metadata(MODULE, &install.mesh.namespace, MODULE),
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": names::selector(MODULE)},
                "template": template,
            },
        }),
    );
    pods::annotated(object)
        .note("/spec/replicas", "A pod that starts while nothing serves the filter runs without it.")
        .note("/spec/template/metadata/labels/sidecar.istio.io~1inject", "No sidecar: the agents fetch in plain text, from outside the mesh. Where mTLS is STRICT, a sidecar would refuse them.")
}

fn container(install: &ClusterInstall) -> Value {
    json!({
        "name": "module-server",
        "image": install.image,
        "command": ["/injector"],
        "args": ["module-server", "--listen", format!("0.0.0.0:{MODULE_PORT}"), "--file", "/filter.wasm"],
        "ports": [{"name": "http", "containerPort": MODULE_PORT}],
        "readinessProbe": {"tcpSocket": {"port": MODULE_PORT}, "periodSeconds": 2, "failureThreshold": 2},
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": pods::container_security(),
    })
}
