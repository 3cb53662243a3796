//! Admission policies: they check what RBAC cannot say. One on Intercepts, one on what the controller's own account writes.
//!
//! No clock and no object besides the one in hand: the controller decides everything else.

mod cel;
mod controller;
mod intercepts;

use serde_json::{Value, json};

use crate::manifest::istio::facts::Mesh;
use crate::manifest::istio::names;
use crate::manifest::istio::object::Object;

/// The name of an intercept, without anchors: a DNS label.
const LABEL: &str = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";

/// Both policies, each followed by its binding.
pub fn objects(mesh: &Mesh) -> Vec<Object> {
    [intercepts::policy(), controller::policy(mesh)]
        .into_iter()
        .flat_map(|policy| [policy.object(), binding(policy.name)])
        .collect()
}

/// A ValidatingAdmissionPolicy.
struct Policy {
    name: &'static str,
    comment: &'static str,
    /// Of `matchConstraints`.
    rules: Value,
    /// Name and expression: the policy applies where it is true.
    condition: Option<(&'static str, String)>,
    variables: Vec<Variable>,
    validations: Vec<Validation>,
}

/// A named expression.
struct Variable {
    name: &'static str,
    expression: String,
    /// May be empty.
    comment: &'static str,
}

impl Variable {
    fn new(name: &'static str, expression: impl Into<String>) -> Self {
        Self {
            name,
            expression: expression.into(),
            comment: "",
        }
    }
}

/// An expression that must be true, and what is said where it is not.
struct Validation {
    comment: &'static str,
    expression: String,
    message: String,
}

impl Policy {
    fn object(&self) -> Object {
        let mut spec =
            json!({"failurePolicy": "Fail", "matchConstraints": {"resourceRules": self.rules}});
        if let Some((name, expression)) = &self.condition {
            spec["matchConditions"] = json!([{"name": name, "expression": expression}]);
        }
        spec["variables"] = self
            .variables
            .iter()
            .map(|one| json!({"name": one.name, "expression": one.expression}))
            .collect();
        spec["validations"] = self
            .validations
            .iter()
            .map(|rule| json!({"expression": rule.expression, "message": rule.message, "reason": "Forbidden"}))
            .collect();
        let mut object = Object::new(
            self.comment,
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingAdmissionPolicy",
                "metadata": names::cluster_metadata(self.name),
                "spec": spec,
            }),
        )
        .note("/spec/failurePolicy", "What cannot be judged is refused.");
        for (index, one) in self.variables.iter().enumerate() {
            if !one.comment.is_empty() {
                object = object.note(format!("/spec/variables/{index}"), one.comment);
            }
        }
        for (index, rule) in self.validations.iter().enumerate() {
            object = object.note(format!("/spec/validations/{index}"), rule.comment);
        }
        object
    }
}

fn binding(policy: &str) -> Object {
    Object::new(
        "Puts the policy before it into force, in every namespace.",
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": names::cluster_metadata(policy),
            "spec": {"policyName": policy, "validationActions": ["Deny"]},
        }),
    )
}

/// A label or annotation of an object, or nothing. `object` may be typed by a schema that does not know the key.
fn metadata_text(object: &str, map: &str, key: &str) -> String {
    format!(
        "dyn({object}).metadata.?{map}[?{}].orValue('')",
        cel::literal(&Value::from(key))
    )
}
