//! The cluster part: is it there, does it run, does it fit this build?

use intercept_kube::Cluster;
use intercept_manifest::istio::names;
use serde_json::Value;

use super::snapshot::{Answer, Installation, Target, text};
use super::{Check, admission};
use crate::install::module;
use crate::mesh::relay::{VERSION, is_compatible};
use crate::shell::quote;

pub fn checks(seen: &Installation, namespace: &str) -> Vec<Check> {
    let mut checks = vec![match &seen.istio {
        Ok(_) => Check::pass("istio", "Istio's custom resources are there"),
        Err(error) => Check::unanswered("istio", "Istio", error),
    }];
    checks.extend(workload("relay", names::RELAY, &seen.relay, namespace));
    checks.extend(seen.relay.iter().flatten().map(version));
    checks.extend(workload(
        "module-server",
        names::MODULE,
        &seen.module,
        namespace,
    ));
    checks.extend(workload(
        "controller",
        names::CONTROLLER,
        &seen.controller,
        namespace,
    ));
    checks.push(admission::policies(seen, namespace));
    checks
}

fn workload(
    id: &'static str,
    name: &str,
    answer: &Answer<Option<Value>>,
    namespace: &str,
) -> Vec<Check> {
    let object = match answer {
        Ok(Some(object)) => object,
        Ok(None) => {
            return vec![Check::fail(
                id,
                format!("{name}: there is none in {namespace}"),
                "an administrator installs it: injector install --help; another namespace: --relay-namespace NAME",
            )];
        }
        Err(error) => return vec![Check::unanswered(id, name, error)],
    };
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let (ready, wanted) = (number("/status/readyReplicas"), number("/spec/replicas"));
    let found = format!("{name}: {ready}/{wanted} ready");
    let hint = format!(
        "kubectl -n {} get pods -l app.kubernetes.io/name={name}",
        quote(namespace)
    );
    vec![match ready {
        0 => Check::fail(id, found, hint),
        _ if ready < wanted => Check::warn(id, found, hint),
        _ => Check::pass(id, found),
    }]
}

/// Before 1.0 every minor version may speak differently.
fn version(relay: &Value) -> Check {
    const ID: &str = "relay-version";
    let found = text(relay, "/metadata/labels/app.kubernetes.io~1version");
    match is_compatible(found, VERSION) {
        true => Check::pass(
            ID,
            format!("relays and this command are of version {found} and {VERSION}"),
        ),
        false => Check::fail(
            ID,
            format!("the relays are of version `{found}`, this command is {VERSION}"),
            "take the command of that version, or an operator upgrades: injector install --relay-image …",
        ),
    }
}

/// Is what the module server hands out what the workload's sidecars are told to accept?
pub async fn digest(cluster: &Cluster, namespace: &str, target: &Target) -> Check {
    const ID: &str = "module-digest";
    let pinned = match &target.plugin {
        Ok(Some(plugin)) => plugin,
        _ => {
            return Check::unknown(
                ID,
                "the filter's digest: not verified, the workload is not prepared",
            );
        }
    };
    let url = text(pinned, "/spec/url");
    if !url.starts_with(&format!("http://{}.{namespace}.svc.", names::MODULE)) {
        return Check::unknown(
            ID,
            format!("the filter's digest: not verified, it is fetched from {url}"),
        );
    }
    match module::served_sha256(cluster, namespace).await {
        Ok(served) => same_digest(&served, text(pinned, "/spec/sha256"), target),
        Err(failure) => Check::unknown(
            ID,
            format!("the filter's digest: not verified: {}", failure.error()),
        ),
    }
}

pub(super) fn same_digest(served: &str, pinned: &str, target: &Target) -> Check {
    const ID: &str = "module-digest";
    match served == pinned {
        true => Check::pass(
            ID,
            "the module server hands out the filter that the workload was prepared with",
        ),
        false => Check::fail(
            ID,
            format!(
                "the module server hands out another filter (sha256 {served}) than {} was prepared with ({pinned}): its next pods run without it",
                target.label()
            ),
            format!("an operator prepares it again: {}", target.command()),
        ),
    }
}
