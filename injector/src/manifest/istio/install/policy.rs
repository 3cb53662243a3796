//! Admission policies: they hold a developer to what RBAC cannot say, single fields of a WasmPlugin and the shape of an EnvoyFilter.
//!
//! Held is whoever may not `update` the very object: developers only have `patch`. An administrator, a GitOps controller or a mesh team with full rights is not, and needs no exception.
//! The expressions are evaluated over maps of up to a thousand entries; each has a budget of a million cost units (Kubernetes' `PerCallLimit`).

mod cel;
pub mod controlled;
mod envoy_filter;
mod leftover;
mod wasm_plugin;

use serde_json::{Value, json};

use crate::manifest::istio::facts::Mesh;
use crate::manifest::istio::names;
use crate::manifest::istio::object::Object;

/// The most intercepts that a workload may have: beyond, the object comes near what etcd stores.
pub const MAX_INTERCEPTS: usize = 1000;

/// How long after its lease an intercept may be cleared away by anybody, in seconds.
pub const LEFTOVER_AFTER_SECONDS: u64 = 600;

/// The name of an intercept, without anchors: a DNS label.
const LABEL: &str = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";

/// The name of a workload, without anchors: a DNS subdomain.
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?";

/// Seconds since the epoch, without anchors.
const SECONDS: &str = "[0-9]{1,12}";

pub(super) fn objects(mesh: &Mesh, has_clock: bool) -> Vec<Object> {
    [
        wasm_plugin::policy(),
        envoy_filter::policy(mesh),
        envoy_filter::deletions(),
        leftover::entries(has_clock),
        leftover::clusters(has_clock),
    ]
    .into_iter()
    .flat_map(|policy| {
        let binding = policy.binding();
        [policy.object(), binding]
    })
    .collect()
}

/// A ValidatingAdmissionPolicy in the making.
struct Policy {
    name: &'static str,
    comment: String,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    operations: &'static [&'static str],
    /// Name, expression: the policy applies where all are true.
    conditions: Vec<(&'static str, String)>,
    /// Name, expression, comment.
    variables: Vec<(&'static str, String, &'static str)>,
    validations: Vec<Validation>,
    /// Is the API server's clock needed? There is no `now` in CEL.
    clock: bool,
}

struct Validation {
    comment: &'static str,
    expression: String,
    message: String,
}

impl Policy {
    /// Not those who may do more anyway. The namespace controller, which may not `update`, deletes collections: such a request has no name.
    fn held(group: &str, resource: &str) -> (&'static str, String) {
        let may = |verb| {
            format!(
                "authorizer.group('{group}').resource('{resource}').namespace(request.namespace).name(has(request.name) ? request.name : '').check('{verb}').allowed()"
            )
        };
        (
            "is-held",
            format!(
                "!(\n  {} ||\n  {}\n)",
                may("update"),
                may("deletecollection")
            ),
        )
    }

    fn object(&self) -> Object {
        let mut spec = json!({"failurePolicy": "Fail"});
        if self.clock {
            spec["paramKind"] = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"});
        }
        spec["matchConstraints"] = json!({"resourceRules": [{
            "apiGroups": [self.group],
            "apiVersions": [self.version],
            "resources": [self.resource],
            "operations": self.operations,
        }]});
        if self.clock {
            // Looked at before the parameter, in the object before and after the change: without the label, no request is refused for want of a clock.
            spec["matchConstraints"]["objectSelector"] =
                json!({"matchLabels": {names::MANAGED_BY: names::MANAGER}});
        }
        spec["matchConditions"] = self
            .conditions
            .iter()
            .map(|(name, expression)| json!({"name": name, "expression": expression}))
            .collect();
        if !self.variables.is_empty() {
            spec["variables"] = self
                .variables
                .iter()
                .map(|(name, expression, _)| json!({"name": name, "expression": expression}))
                .collect();
        }
        spec["validations"] = self
            .validations
            .iter()
            .map(|rule| json!({"expression": rule.expression, "message": rule.message, "reason": "Forbidden"}))
            .collect();
        let object = Object::new(
            self.comment.clone(),
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingAdmissionPolicy",
                "metadata": names::cluster_metadata(self.name),
                "spec": spec,
            }),
        );
        self.annotated(object)
    }

    fn annotated(&self, object: Object) -> Object {
        let mut object = object
            .note("/spec/failurePolicy", "What cannot be judged is refused.")
            .note("/spec/matchConditions/0", "Whoever may `update` this object, or delete whole collections as the namespace controller does, may do all of this anyway.");
        if self.clock {
            object = object.note("/spec/paramKind", "A clock, which the language lacks: every API server renews a Lease of its own every ten seconds. With several, the one that is furthest behind decides.")
                .note("/spec/matchConstraints/objectSelector", "Ours only. Where no Lease is found, the API server refuses every request that matches here, whoever asks, before it looks at the conditions below.");
        }
        for (index, (_, _, comment)) in self.variables.iter().enumerate() {
            if !comment.is_empty() {
                object = object.note(format!("/spec/variables/{index}"), *comment);
            }
        }
        for (index, rule) in self.validations.iter().enumerate() {
            object = object.note(format!("/spec/validations/{index}"), rule.comment);
        }
        object
    }

    fn binding(&self) -> Object {
        let mut spec = json!({"policyName": self.name, "validationActions": ["Deny"]});
        let mut object_comment =
            "Puts the policy before it into force, in every namespace.".to_owned();
        if self.clock {
            spec["paramRef"] = json!({
                "namespace": "kube-system",
                "selector": {"matchLabels": {"apiserver.kubernetes.io/identity": "kube-apiserver"}},
                "parameterNotFoundAction": "Deny",
            });
            object_comment.push_str(" Should the clock be missing, ours cannot be changed so by anybody: `injector install` looks for it, and leaves it out where there is none.");
        }
        Object::new(
            object_comment,
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": names::cluster_metadata(self.name),
                "spec": spec,
            }),
        )
    }
}

/// A label or annotation of an object, or nothing. `object` may be typed by a schema that does not know the key.
fn metadata_text(object: &str, map: &str, key: &str) -> String {
    format!(
        "dyn({object}).metadata.?{map}[?{}].orValue('')",
        cel::literal(&Value::from(key))
    )
}
