//! Intercepts, as far as an operator has to do with them: those that a change of their workload would cut off, and how they are ended before.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use intercept_kube::intercepts as mesh;
use intercept_kube::{Cluster, ClusterError, kind};
use intercept_manifest::istio::INSTALLER;
use intercept_manifest::istio::resource::Intercept;
use serde_json::json;
use tokio::time::{Instant, sleep};

/// How long the controller may take to end Intercepts: it deletes one once no proxy has it, after 2 s at the latest.
const CONTROLLER_TIMEOUT: Duration = Duration::from_secs(8);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Changes at the same time.
const AT_ONCE: usize = 16;

/// Those of a namespace, or of all; none where nothing of ours is installed.
pub async fn list(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Vec<Intercept>, ClusterError> {
    let objects = match cluster.list(&kind::INTERCEPT, namespace, None).await {
        Err(ClusterError::NoSuchKind { .. }) => return Ok(Vec::new()),
        objects => objects?,
    };
    let read = objects.into_iter().map(serde_json::from_value);
    // The schema lets nothing else in.
    Ok(read.filter_map(Result::ok).collect())
}

/// Does it take requests at `now`, in seconds since the epoch? One that the controller has not looked at yet counts.
pub fn is_live(intercept: &Intercept, now: u64) -> bool {
    let is_over = intercept.recorded_expiry().is_some_and(|end| end <= now);
    let is_going =
        intercept.metadata.deletion_timestamp.is_some() || intercept.spec.renew_time.is_none();
    intercept.refusal().is_none() && !is_over && !is_going
}

/// Ends these of a namespace, or of all: the controller takes them out of the proxies and deletes them. `false`: no controller did, so they were deleted here.
pub async fn end(
    cluster: &Cluster,
    within: Option<&str>,
    intercepts: &[Intercept],
) -> Result<bool, ClusterError> {
    let give_back = &json!([{"op": "remove", "path": "/spec/renewTime"}]);
    let leased = intercepts.iter();
    let leased = leased.filter(|one| one.spec.renew_time.is_some());
    let patches = stream::iter(leased).map(async |one| {
        let (namespace, kind) = (Some(one.namespace()), &kind::INTERCEPT);
        let patch = cluster.patch_json(kind, namespace, one.name(), give_back, INSTALLER);
        patch.await.map(drop)
    });
    let patched: Result<(), ClusterError> = patches.buffer_unordered(AT_ONCE).try_collect().await;
    patched?;
    let uids: HashSet<&str> = intercepts.iter().map(Intercept::uid).collect();
    let deadline = Instant::now() + CONTROLLER_TIMEOUT;
    loop {
        let mut left = list(cluster, within).await?;
        left.retain(|one| uids.contains(one.uid()) && one.metadata.deletion_timestamp.is_none());
        if left.is_empty() {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            for one in &left {
                let own = mesh::Intercepts::new(cluster, one.namespace());
                own.delete_this(one).await?;
            }
            return Ok(false);
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use intercept_manifest::istio::example;
    use serde_json::Value;

    use super::*;

    #[test]
    fn refused_and_expired_intercepts_are_not_live() {
        let with = |pointer: &str, value: Value| {
            let mut object = serde_json::to_value(example::intercept()).unwrap();
            let accepted = json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-11-22T09:00:00Z"});
            object["status"] = json!({"conditions": [accepted], "expires": "1970-01-01T00:01:40Z"});
            object["metadata"]["deletionTimestamp"] = Value::Null;
            // As in a list.
            object.as_object_mut().unwrap().remove("kind");
            object.as_object_mut().unwrap().remove("apiVersion");
            if !pointer.is_empty() {
                *object.pointer_mut(pointer).unwrap() = value;
            }
            serde_json::from_value::<Intercept>(object).unwrap()
        };
        let accepted = with("", Value::Null);
        assert!(is_live(&accepted, 99));
        assert!(!is_live(&accepted, 100));
        assert!(is_live(&with("/status/expires", Value::Null), 100));
        assert!(is_live(&with("/status", Value::Null), 100));
        for (pointer, value) in [
            ("/status/conditions/0/status", json!("False")),
            ("/spec/renewTime", Value::Null),
            ("/metadata/deletionTimestamp", json!("1970-01-01T00:00:01Z")),
        ] {
            assert!(!is_live(&with(pointer, value), 99), "{pointer}");
        }
        assert_eq!(accepted.spec.workload.label(), "Deployment/orders");
    }
}
