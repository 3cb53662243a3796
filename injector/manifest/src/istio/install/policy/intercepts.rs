//! Developers change their own Intercepts and no others.

use serde_json::json;

use super::object::{Policy, Validation, Variable};

/// The most annotations on an Intercept, and the most bytes in each: `kubectl apply` keeps a copy of the object in one.
const ANNOTATIONS: (usize, usize) = (4, 4096);

/// Rights are checked by the API server at every request, so no account of the system is named: they differ from distribution to distribution.
pub fn policy() -> Policy {
    let ending = Variable {
        comment: "Without it, a namespace with an Intercept in it could never be deleted.",
        ..Variable::new(
            "ending",
            "request.operation == 'DELETE' && has(namespaceObject.metadata.deletionTimestamp)",
        )
    };
    Policy {
        name: "injector-intercepts",
        comment: "Holds developers to their own Intercepts.",
        rules: json!([{
            "apiGroups": ["injector.dev"],
            "apiVersions": ["*"],
            "resources": ["intercepts"],
            "operations": ["CREATE", "UPDATE", "DELETE"],
        }]),
        condition: None,
        variables: vec![
            Variable::new(
                "operator",
                "authorizer.group('injector.dev').resource('intercepts').subresource('status').namespace(request.namespace).check('update').allowed()",
            ),
            ending,
            Variable::new("free", "variables.operator || variables.ending"),
        ],
        validations: validations(),
    }
}

fn validations() -> Vec<Validation> {
    let (count, bytes) = ANNOTATIONS;
    let annotations = "object.metadata.annotations";
    vec![
        Validation {
            comment: "The owner is the user who creates it; the schema makes it immutable.",
            expression: "request.operation != 'CREATE' ||\nobject.spec.owner == request.userInfo.username".to_owned(),
            message: "spec.owner: must be the user who creates it".to_owned(),
        },
        Validation {
            comment: "Only the owner changes and deletes it, and those who may write the status: operators, the controller, and the garbage collector at a foreground deletion.",
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
    ]
}
