//! The policies that need a clock, where there is none.

use injector::manifest::istio::example;
use injector::manifest::istio::install::cluster_objects;
use serde_json::{Value, json};

use super::api::ADMIN;
use super::stage::Stage;

/// Copies of them under other names: in one namespace, for as long as this lives.
pub struct Clockless<'a> {
    stage: &'a Stage,
    copies: Vec<Value>,
}

impl<'a> Clockless<'a> {
    pub fn new(stage: &'a Stage) -> Self {
        let namespace = &stage.namespace;
        let objects = cluster_objects(&example::install()).unwrap();
        let leftovers = objects
            .iter()
            .filter(|object| object.name().starts_with("injector-leftover-"));
        let copies = leftovers.map(|object| {
            let mut copy = object.value().clone();
            let name = format!("{}-{namespace}", object.name());
            copy["metadata"] = json!({"name": name});
            if object.kind() == "ValidatingAdmissionPolicyBinding" {
                copy["spec"]["policyName"] = json!(name);
                copy["spec"]["paramRef"]["selector"] = json!({"matchLabels": {"nobody": "has-it"}});
                copy["spec"]["matchResources"] = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}});
            }
            copy
        });
        let clockless = Self {
            stage,
            copies: copies.collect(),
        };
        assert_eq!(clockless.copies.len(), 4);
        for copy in &clockless.copies {
            stage.api.apply(ADMIN, "clockless", copy).must_pass();
        }
        clockless
    }
}

impl Drop for Clockless<'_> {
    fn drop(&mut self) {
        for copy in self.copies.iter().rev() {
            let kind = copy["kind"].as_str().unwrap_or_default().to_lowercase();
            let name = copy["metadata"]["name"].as_str().unwrap_or_default();
            let _ = self.stage.api.delete(ADMIN, "", &kind, name, false);
        }
    }
}
