//! Which workloads an operator means, and what is known about each.

use intercept_kube::prepare::{Around, Facts, Unpreparable, facts};
use intercept_kube::resolve;
use intercept_kube::{Cluster, ClusterError, kind};
use intercept_manifest::istio::{Kind, names};
use serde_json::Value;

use crate::error::{CliError, Result};
use crate::shell::quote;

/// Which workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// These: a name, or a kind and a name as in `deploy/orders`.
    Named(&'a [String]),
    /// Those with these labels, as in kubectl's `--selector`.
    Labelled(&'a str),
    /// All of the namespace that can be prepared.
    All,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The workloads that can be prepared.
    pub facts: Vec<Facts>,
    /// Those that cannot, where all were asked for: each with its reason.
    pub skipped: Vec<String>,
}

impl Chosen {
    /// Is this one, `Deployment/orders`, among those that can be prepared?
    pub fn has(&self, namespace: &str, label: &str) -> bool {
        let mut workloads = self.facts.iter().map(|facts| &facts.workload);
        workloads.any(|own| own.namespace == namespace && own.label() == label)
    }
}

/// A namespace as it is.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    listed: resolve::Listed,
    namespace: Value,
    pods: Vec<Value>,
    sidecars: Vec<Value>,
}

impl Listed {
    /// Asks the API server, all questions at once.
    pub async fn read(
        cluster: &Cluster,
        namespace: &str,
        labels: Option<&str>,
    ) -> Result<Self, ClusterError> {
        let within = Some(namespace);
        let (listed, pods, sidecars, own) = tokio::try_join!(
            resolve::Listed::read(cluster, namespace, labels),
            cluster.list(&kind::POD, within, None),
            cluster.list(&kind::SIDECAR, within, None),
            cluster.get(&kind::NAMESPACE, None, namespace),
        )?;
        Ok(Self {
            listed,
            namespace: own.unwrap_or_default(),
            pods,
            sidecars,
        })
    }

    /// The workloads that are meant; `ports` as the operator names them.
    pub fn choose(&self, wanted: Wanted<'_>, ports: &[String]) -> Result<Chosen> {
        let mut chosen = Chosen::default();
        match wanted {
            Wanted::Named(names) => {
                for name in names {
                    let found = resolve::find(resolve::wanted(name)?, &self.listed)?;
                    let facts = self.facts(found.kind, &found.object, ports);
                    chosen.facts.push(facts?);
                }
            }
            Wanted::Labelled(labels) => {
                for (kind, object) in &self.listed.workloads {
                    chosen.facts.push(self.facts(*kind, object, ports)?);
                }
                if chosen.facts.is_empty() {
                    return Err(self.none(&format!("no workload with the labels {labels}")));
                }
            }
            Wanted::All => {
                for (kind, object) in &self.listed.workloads {
                    // Pods of developers' connections.
                    if object["metadata"]["labels"][names::MANAGED_BY] == names::MANAGER {
                        continue;
                    }
                    match self.facts(*kind, object, ports) {
                        Ok(facts) => chosen.facts.push(facts),
                        Err(reason) => chosen.skipped.push(reason.to_string()),
                    }
                }
                if chosen.facts.is_empty() {
                    let refused = self.none("no workload can be prepared");
                    return Err(refused.with_details(chosen.skipped));
                }
            }
        }
        Ok(chosen)
    }

    fn facts(&self, kind: Kind, object: &Value, ports: &[String]) -> Result<Facts, Unpreparable> {
        let around = Around {
            namespace: &self.namespace,
            services: &self.listed.services,
            pods: &self.pods,
            sidecars: &self.sidecars,
        };
        facts(kind, object, around, ports)
    }

    fn none(&self, what: &str) -> CliError {
        let namespace = &self.listed.namespace;
        let names: Vec<String> = self
            .listed
            .workloads
            .iter()
            .map(|(kind, object)| format!("{}/{}", kind.lower_case(), resolve::name_of(object)))
            .collect();
        let there = match names.as_slice() {
            [] => "nothing".to_owned(),
            names => names.join(", "),
        };
        CliError::failed(
            format!("namespace {namespace}: {what}"),
            format!(
                "there is {there}; another namespace: -n NAME; kubectl get deployments,statefulsets,daemonsets -n {}",
                quote(namespace)
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workload(name: &str) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": []}},
            },
        })
    }

    fn listed() -> Listed {
        let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}]}});
        Listed {
            listed: resolve::Listed {
                namespace: "shop".to_owned(),
                workloads: vec![
                    (Kind::Deployment, workload("orders")),
                    (Kind::StatefulSet, workload("orders")),
                    (Kind::Deployment, workload("worker")),
                ],
                services: vec![service("orders")],
            },
            namespace: json!({"metadata": {"name": "shop", "labels": {"istio-injection": "enabled"}}}),
            ..Listed::default()
        }
    }

    fn names(chosen: &Chosen) -> Vec<String> {
        chosen
            .facts
            .iter()
            .map(|facts| facts.workload.label())
            .collect()
    }

    #[test]
    fn a_workload_is_named_with_or_without_its_kind() {
        let listed = listed();
        let chosen = listed
            .choose(Wanted::Named(&["sts/orders".to_owned()]), &[])
            .unwrap();
        assert_eq!(names(&chosen), ["StatefulSet/orders"]);
        let error = listed
            .choose(Wanted::Named(&["orders".to_owned()]), &[])
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("say which one: deployment/orders"),
            "{error}"
        );
        let error = listed
            .choose(Wanted::Named(&["job/orders".to_owned()]), &[])
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("expected a name, or svc/, deploy/"),
            "{error}"
        );
    }

    #[test]
    fn a_workload_that_is_not_there_is_refused_with_those_that_are() {
        let error = listed()
            .choose(Wanted::Named(&["ordres".to_owned()]), &[])
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("ordres: no such service or workload in the namespace shop"),
            "{text}"
        );
        assert!(text.contains("there is orders, worker"), "{text}");
    }

    #[test]
    fn of_all_those_that_cannot_be_prepared_are_skipped_with_their_reason() {
        let mut listed = listed();
        let mut ours = workload("ours");
        ours["metadata"]["labels"] = json!({names::MANAGED_BY: names::MANAGER});
        listed.listed.workloads.push((Kind::StatefulSet, ours));
        let chosen = listed.choose(Wanted::All, &[]).unwrap();
        assert_eq!(names(&chosen), ["Deployment/orders", "StatefulSet/orders"]);
        assert_eq!(
            chosen.skipped,
            ["Deployment/worker: no port that can be intercepted: no Service leads to it"]
        );
        listed.listed.services.clear();
        let error = listed.choose(Wanted::All, &[]).unwrap_err().to_string();
        assert!(
            error.contains("no workload can be prepared\n  Deployment/orders: no port"),
            "{error}"
        );
    }

    #[test]
    fn what_a_label_selects_must_all_be_preparable() {
        let error = listed()
            .choose(Wanted::Labelled("a=b"), &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("Deployment/worker: no port"), "{error}");
    }
}
