//! Changes that hold only for the object as it was read: so two commands that change one object at the same time cannot undo each other's work.

use kube::core::params::{DeleteParams, Preconditions};
use serde_json::Value;

use super::{Cluster, ClusterError, Kind, absent, request};

impl Cluster {
    /// Removes an object, and none of the same name that was made later; `false`: it was not there any more. Another object is [`ClusterError::is_conflict`].
    pub async fn delete_this(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
        uid: &str,
    ) -> Result<bool, ClusterError> {
        let is_this = Preconditions {
            resource_version: None,
            uid: Some(uid.to_owned()),
        };
        self.delete_if(kind, namespace, name, is_this).await
    }

    /// Removes an object if it still is the version that was read; `false`: it was not there any more. Another version is [`ClusterError::is_conflict`].
    pub async fn delete_unchanged(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
        resource_version: &str,
    ) -> Result<bool, ClusterError> {
        let is_unchanged = Preconditions {
            resource_version: Some(resource_version.to_owned()),
            uid: None,
        };
        self.delete_if(kind, namespace, name, is_unchanged).await
    }

    async fn delete_if(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
        preconditions: Preconditions,
    ) -> Result<bool, ClusterError> {
        let parameters = DeleteParams::background().preconditions(preconditions);
        let what = kind.label(namespace, name);
        let built = request(kind, namespace).delete(name, &parameters);
        Ok(absent(self.send(kind, what, built).await)?.is_some())
    }
}

/// The version of an object that was read.
pub fn resource_version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default()
}
