//! One admission policy with its binding. Knows no rule.

use serde_json::{Value, json};

use super::cel;
use crate::istio::names;
use crate::istio::object::Object;

/// A ValidatingAdmissionPolicy.
pub struct Policy {
    pub name: &'static str,
    pub comment: &'static str,
    /// Of `matchConstraints`.
    pub rules: Value,
    /// Name and expression: the policy applies where it is true.
    pub condition: Option<(&'static str, String)>,
    pub variables: Vec<Variable>,
    pub validations: Vec<Validation>,
}

/// A named expression.
pub struct Variable {
    pub name: &'static str,
    pub expression: String,
    /// May be empty.
    pub comment: &'static str,
}

impl Variable {
    pub fn new(name: &'static str, expression: impl Into<String>) -> Self {
        Self {
            name,
            expression: expression.into(),
            comment: "",
        }
    }
}

/// An expression that must be true, and what is said where it is not.
pub struct Validation {
    pub comment: &'static str,
    pub expression: String,
    pub message: String,
}

impl Policy {
    pub fn object(&self) -> Object {
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

    /// Puts it into force.
    pub fn binding(&self) -> Object {
        Object::new(
            "Puts the policy before it into force, in every namespace.",
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": names::cluster_metadata(self.name),
                "spec": {"policyName": self.name, "validationActions": ["Deny"]},
            }),
        )
    }
}

/// A label or annotation of an object, or nothing. `object` may be typed by a schema that does not know the key.
pub fn metadata_text(object: &str, map: &str, key: &str) -> String {
    format!(
        "dyn({object}).metadata.?{map}[?{}].orValue('')",
        cel::literal(&Value::from(key))
    )
}
