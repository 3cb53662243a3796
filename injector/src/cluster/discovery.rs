//! Which kinds of objects the API server keeps, asked of itself: for whoever may overlook none. What we write ourselves stands in a table, [`super::kind`].

use http::header::ACCEPT;
use kube::core::Request;
use kube::core::discovery::v2::ACCEPT_AGGREGATED_DISCOVERY_V2;
use kube::core::params::ListParams;
use serde_json::Value;

use super::{Cluster, ClusterError, PAGE};

/// A kind whose objects live in a namespace and are deleted with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The API group; empty for the core.
    pub group: String,
    /// The version that the API server prefers.
    pub version: String,
    /// As it stands in `kind`.
    pub name: String,
    /// As it stands in URLs and in roles.
    pub plural: String,
}

impl Served {
    fn path(&self, namespace: &str) -> String {
        let Self {
            group,
            version,
            plural,
            ..
        } = self;
        let prefix = match group.as_str() {
            "" => "/api".to_owned(),
            group => format!("/apis/{group}"),
        };
        format!("{prefix}/{version}/namespaces/{namespace}/{plural}")
    }
}

/// `jobs.batch`, as kubectl takes it.
impl std::fmt::Display for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.group.as_str() {
            "" => write!(f, "{}", self.plural),
            group => write!(f, "{}.{group}", self.plural),
        }
    }
}

/// What lives in namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovered {
    /// Each kind once.
    pub kinds: Vec<Served>,
    /// Groups, with their version, whose own API server is away: which kinds they have is not known.
    pub away: Vec<String>,
}

impl Cluster {
    /// The kinds whose objects live in a namespace and are deleted with it.
    pub async fn discover(&self) -> Result<Discovered, ClusterError> {
        let mut discovered = Discovered::default();
        for path in ["/api", "/apis"] {
            let request = http::Request::get(path).header(ACCEPT, ACCEPT_AGGREGATED_DISCOVERY_V2);
            let request = request.body(Vec::new());
            let request = request.map_err(kube::core::request::Error::BuildRequest);
            let list = self.answer("kinds of objects", request).await?;
            if list["kind"] != "APIGroupDiscoveryList" {
                return Err(ClusterError::Unreachable {
                    server: self.server.clone(),
                    reason: format!(
                        "{path}: expected APIGroupDiscoveryList, found {}",
                        list["kind"]
                    ),
                    may_pass: false,
                });
            }
            discovered.add(&list);
        }
        Ok(discovered)
    }

    /// All objects of a kind in a namespace; of each only its metadata, in `metadata`.
    pub async fn list_metadata(
        &self,
        kind: &Served,
        namespace: &str,
    ) -> Result<Vec<Value>, ClusterError> {
        let what = format!("{kind} in {namespace}");
        let request = Request::new(kind.path(namespace));
        let page = |parameters: &ListParams| request.list_metadata(parameters);
        let parameters = ListParams::default().limit(PAGE);
        self.pages(&what, parameters, page).await
    }
}

impl Discovered {
    fn add(&mut self, list: &Value) {
        for group in array(&list["items"]) {
            let name = text(&group["metadata"]["name"]);
            for version in array(&group["versions"]) {
                let number = text(&version["version"]);
                if version["freshness"] == "Stale" {
                    self.away.push(format!("{name}/{number}"));
                }
                for resource in array(&version["resources"]).filter(|one| is_kept(one)) {
                    let plural = text(&resource["resource"]);
                    let is_known =
                        |known: &Served| (&known.group, &known.plural) == (&name, &plural);
                    if !self.kinds.iter().any(is_known) {
                        self.kinds.push(Served {
                            group: name.clone(),
                            version: number.clone(),
                            name: text(&resource["responseKind"]["kind"]),
                            plural,
                        });
                    }
                }
            }
        }
    }
}

/// What cannot be deleted is not kept: a question, or a view of something else.
fn is_kept(resource: &Value) -> bool {
    let may = |verb: &str| array(&resource["verbs"]).any(|known| *known == verb);
    resource["scope"] == "Namespaced" && (may("delete") || may("deletecollection"))
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(plural: &str, kind: &str, scope: &str, verbs: &[&str]) -> Value {
        json!({"resource": plural, "responseKind": {"kind": kind}, "scope": scope, "verbs": verbs})
    }

    #[test]
    fn a_kind_is_known_once_by_the_version_that_is_preferred() {
        let all = ["create", "delete", "get", "list"];
        let jobs = resource("jobs", "Job", "Namespaced", &all);
        let old = resource("oldjobs", "OldJob", "Namespaced", &all);
        let metrics = resource("pods", "PodMetrics", "Namespaced", &["get", "list"]);
        let groups = json!({"items": [
            {"metadata": {"name": "batch"}, "versions": [
                {"version": "v1", "freshness": "Current", "resources": [jobs, resource("queues", "Queue", "Cluster", &all)]},
                {"version": "v1beta1", "freshness": "Current", "resources": [jobs, old]},
            ]},
            {"metadata": {"name": "metrics.k8s.io"}, "versions": [{"version": "v1", "freshness": "Current", "resources": [metrics]}]},
            {"metadata": {"name": "away.example"}, "versions": [{"version": "v1", "freshness": "Stale"}]},
        ]});
        let mut discovered = Discovered::default();
        discovered.add(&groups);
        let kinds = discovered.kinds.iter();
        let paths: Vec<String> = kinds.map(|kind| kind.path("shop")).collect();
        assert_eq!(
            paths,
            [
                "/apis/batch/v1/namespaces/shop/jobs",
                "/apis/batch/v1beta1/namespaces/shop/oldjobs"
            ]
        );
        assert_eq!(discovered.kinds[0].to_string(), "jobs.batch");
        assert_eq!(discovered.away, ["away.example/v1"]);
    }

    #[test]
    fn the_core_has_no_group() {
        let pods = resource("pods", "Pod", "Namespaced", &["deletecollection"]);
        let versions = json!([{"version": "v1", "freshness": "Current", "resources": [pods]}]);
        let mut discovered = Discovered::default();
        discovered.add(&json!({"items": [{"metadata": {}, "versions": versions}]}));
        let [pods] = discovered.kinds.as_slice() else {
            panic!("{discovered:?}")
        };
        assert_eq!(pods.path("shop"), "/api/v1/namespaces/shop/pods");
        assert_eq!(pods.to_string(), "pods");
    }
}
