//! The policies for Intercepts: one for developers' own objects, one that holds the controller's account to what it writes.
//!
//! No clock and no object besides the one in hand: the controller decides everything else.

use serde_json::{Value, json};

use super::{LABEL, Validation, envoy_filter, metadata_text, wasm_plugin};
use crate::manifest::istio::facts::Mesh;
use crate::manifest::istio::names::{self, CONTROLLER, MANAGER};
use crate::manifest::istio::object::Object;

/// The most annotations on an Intercept, and the most bytes in each: `kubectl apply` keeps a copy of the object in one.
const ANNOTATIONS: (usize, usize) = (4, 4096);

/// Both policies, each followed by its binding.
pub fn objects(mesh: &Mesh) -> Vec<Object> {
    [intercepts(), controller(mesh)]
        .into_iter()
        .flat_map(|policy| {
            let name = policy.name().to_owned();
            [policy, binding(&name)]
        })
        .collect()
}

/// Its rights are checked by the API server at every request, so no account of the system is named: they differ from distribution to distribution.
fn intercepts() -> Object {
    let (count, bytes) = ANNOTATIONS;
    let annotations = "object.metadata.annotations";
    let rules = [
        Validation {
            comment: "The owner is the user who creates it. Those who may write the status (the controller, and the garbage collector at a foreground deletion) may update others' objects.",
            expression: "request.operation == 'DELETE' ||\nvariables.operator && request.operation == 'UPDATE' ||\nobject.spec.owner == request.userInfo.username".to_owned(),
            message: "spec.owner: must be the user who creates it".to_owned(),
        },
        Validation {
            comment: "Only the owner changes and deletes it.",
            expression: "request.operation == 'CREATE' ||\nvariables.free ||\noldObject.spec.owner == request.userInfo.username".to_owned(),
            message: "it belongs to another user".to_owned(),
        },
        Validation {
            comment: "A finalizer would keep the object and its namespace; an owner would bind its life to something else.",
            expression: "request.operation == 'DELETE' ||\nvariables.free ||\n!has(object.metadata.finalizers) && !has(object.metadata.ownerReferences)".to_owned(),
            message: "metadata: an Intercept has neither finalizers nor owners".to_owned(),
        },
        Validation {
            comment: "The schema bounds the spec, and nothing else bounds annotations.",
            expression: format!(
                "request.operation == 'DELETE' ||\nvariables.free ||\n!has({annotations}) ||\n{annotations}.size() <= {count} && {annotations}.all(k, {annotations}[k].size() <= {bytes})"
            ),
            message: format!("metadata.annotations: at most {count}, of at most {bytes} bytes each (kubectl apply: --server-side)"),
        },
    ];
    policy(
        "injector-intercepts",
        "Holds developers to their own Intercepts.",
        json!([{
            "apiGroups": ["injector.dev"],
            "apiVersions": ["*"],
            "resources": ["intercepts"],
            "operations": ["CREATE", "UPDATE", "DELETE"],
        }]),
        None,
        &[
            (
                "operator",
                "authorizer.group('injector.dev').resource('intercepts').subresource('status').namespace(request.namespace).check('update').allowed()".to_owned(),
                "",
            ),
            (
                "ending",
                "request.operation == 'DELETE' && has(namespaceObject.metadata.deletionTimestamp)".to_owned(),
                "Without it, a namespace with an Intercept in it could never be deleted.",
            ),
            ("free", "variables.operator || variables.ending".to_owned(), ""),
        ],
        &rules,
    )
}

/// RBAC knows objects, not fields: with its role alone, the controller's account could put Lua or another module into every sidecar of a prepared namespace.
fn controller(mesh: &Mesh) -> Object {
    let account = format!("system:serviceaccount:{}:{CONTROLLER}", mesh.namespace);
    let plugin = |rule: Validation| Validation {
        expression: format!(
            "!variables.plugin ||\nrequest.operation != 'UPDATE' || (\n{}\n)",
            rule.expression
        ),
        ..rule
    };
    let filter = |rule: Validation| Validation {
        expression: format!(
            "variables.plugin ||\nrequest.operation == 'DELETE' || (\n{}\n)",
            rule.expression
        ),
        ..rule
    };
    let rules = [
        Validation {
            comment: "WasmPlugins are the operator's to make and to delete.",
            expression: "!variables.plugin || request.operation == 'UPDATE'".to_owned(),
            message: "the controller changes WasmPlugins and neither makes nor deletes them".to_owned(),
        },
        plugin(Validation {
            comment: "Of the WasmPlugins only those that `injector install` prepared for it.",
            expression: format!(
                "{} == '{MANAGER}' &&\n{} != '' &&\ntype(dyn(object).spec.pluginConfig.?intercepts.orValue('')) == string",
                metadata_text("oldObject", "labels", names::MANAGED_BY),
                metadata_text("oldObject", "annotations", names::PREPARATION),
            ),
            message: "the controller writes spec.pluginConfig.intercepts of prepared WasmPlugins, as a text".to_owned(),
        }),
        plugin(Validation {
            message: "the controller may not change a WasmPlugin's labels, annotations, finalizers or owners".to_owned(),
            ..wasm_plugin::metadata()
        }),
        plugin(Validation {
            message: "the controller may change nothing of a WasmPlugin but spec.pluginConfig.intercepts".to_owned(),
            ..wasm_plugin::spec()
        }),
        Validation {
            comment: "Of the EnvoyFilters only those of Intercepts.",
            expression: format!(
                "variables.plugin || (\n{}\n)",
                envoy_filter::is_of_intercept("(request.operation == 'DELETE' ? dyn(oldObject) : dyn(object))")
            ),
            message: "the controller writes EnvoyFilters of Intercepts only".to_owned(),
        },
        filter(Validation {
            comment: "The intercept's name, and the WasmPlugin with which it goes.",
            expression: format!(
                "variables.name.matches('^{LABEL}$') &&\n!has(object.metadata.finalizers) &&\nsize(dyn(object).metadata.?ownerReferences.orValue([])) == 1 &&\nobject.metadata.ownerReferences[0].kind == 'WasmPlugin'"
            ),
            message: "the EnvoyFilter of an Intercept is owned by a WasmPlugin and has no finalizers".to_owned(),
        }),
        filter(envoy_filter::patch()),
        filter(envoy_filter::members(mesh)),
        filter(Validation {
            comment: "Every field as the controller writes it. `metadata`, which is for metrics, is looked at below.",
            message: "the cluster differs from what the controller of this installation's version writes".to_owned(),
            ..envoy_filter::shape()
        }),
        filter(envoy_filter::metadata()),
    ];
    let mut variables = vec![(
        "plugin",
        "request.resource.resource == 'wasmplugins'".to_owned(),
        "",
    )];
    let of_filter = envoy_filter::variables().into_iter();
    variables.extend(of_filter.map(|(name, expression, _)| (name, expression, "")));
    policy(
        "injector-controller",
        "Holds the controller's account to the text of intercepts and to EnvoyFilters of one shape.",
        json!([
            {"apiGroups": ["extensions.istio.io"], "apiVersions": ["*"], "resources": ["wasmplugins"], "operations": ["CREATE", "UPDATE", "DELETE"]},
            {"apiGroups": ["networking.istio.io"], "apiVersions": ["*"], "resources": ["envoyfilters"], "operations": ["CREATE", "UPDATE", "DELETE"]},
        ]),
        Some((
            "is-controller",
            format!("request.userInfo.username == '{account}'"),
        )),
        &variables,
        &rules,
    )
}

fn policy(
    name: &str,
    comment: &str,
    resources: Value,
    condition: Option<(&str, String)>,
    variables: &[(&str, String, &'static str)],
    rules: &[Validation],
) -> Object {
    let mut spec =
        json!({"failurePolicy": "Fail", "matchConstraints": {"resourceRules": resources}});
    if let Some((name, expression)) = condition {
        spec["matchConditions"] = json!([{"name": name, "expression": expression}]);
    }
    spec["variables"] = variables
        .iter()
        .map(|(name, expression, _)| json!({"name": name, "expression": expression}))
        .collect();
    spec["validations"] = rules
        .iter()
        .map(|rule| json!({"expression": rule.expression, "message": rule.message, "reason": "Forbidden"}))
        .collect();
    let mut object = Object::new(
        comment,
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": names::cluster_metadata(name),
            "spec": spec,
        }),
    )
    .note("/spec/failurePolicy", "What cannot be judged is refused.");
    for (index, (_, _, comment)) in variables.iter().enumerate() {
        if !comment.is_empty() {
            object = object.note(format!("/spec/variables/{index}"), *comment);
        }
    }
    for (index, rule) in rules.iter().enumerate() {
        object = object.note(format!("/spec/validations/{index}"), rule.comment);
    }
    object
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
