//! What a developer may change of a WasmPlugin: their own entries under `spec.pluginConfig.intercepts`.

use super::{LABEL, MAX_INTERCEPTS, Policy, Validation, metadata_text};
use crate::manifest::istio::names;

/// The map of intercepts of this object.
pub fn intercepts(object: &str) -> String {
    format!("dyn({object}).spec.?pluginConfig.?intercepts.orValue({{}})")
}

pub fn policy() -> Policy {
    Policy {
        name: "injector-entries",
        comment: "Holds developers to their own entries under `spec.pluginConfig.intercepts` of a WasmPlugin that `injector install` made.\n\
                  Who may patch a WasmPlugin could otherwise run any module in the workload's sidecar. Removing what somebody else left behind is the policy injector-leftover-entries."
            .to_owned(),
        group: "extensions.istio.io",
        version: "v1alpha1",
        resource: "wasmplugins",
        operations: &["UPDATE"],
        conditions: vec![Policy::held("extensions.istio.io", "wasmplugins")],
        variables: vec![
            ("before", intercepts("oldObject"), ""),
            ("after", intercepts("object"), ""),
            ("me", "request.userInfo.username".to_owned(), ""),
            (
                "changed",
                "variables.after.filter(k, !(k in variables.before) || variables.after[k] != variables.before[k])".to_owned(),
                "The names of the entries that were added or are different.",
            ),
        ],
        validations: vec![ours(), metadata(), spec(), map(), owner(), name(), cluster()],
        clock: false,
    }
}

fn ours() -> Validation {
    Validation {
        comment: "Other plugins are none of a developer's business.",
        expression: format!(
            "{} == '{}'",
            metadata_text("oldObject", "labels", names::MANAGED_BY),
            names::MANAGER
        ),
        message: "a developer may change only WasmPlugins that `injector install` made".to_owned(),
    }
}

pub fn metadata() -> Validation {
    Validation {
        comment: "A label such as `istio.io/rev` would take the filter out of the proxies; a finalizer or an owner would bind its life to something else.",
        expression: "['labels', 'annotations', 'finalizers', 'ownerReferences'].all(k, dyn(object).metadata[?k] == dyn(oldObject).metadata[?k])".to_owned(),
        message: "a developer may not change a WasmPlugin's labels, annotations, finalizers or owners".to_owned(),
    }
}

pub fn spec() -> Validation {
    let same = |map: &str, but: &str| {
        let [new, old] = ["object", "oldObject"].map(|object| format!("dyn({object}).{map}"));
        format!(
            "{new}.all(k, k == '{but}' || {new}[?k] == {old}[?k]) &&\n{old}.all(k, k == '{but}' || k in {new})"
        )
    };
    // The installer writes pluginConfig; an object without it cannot be judged and is refused.
    Validation {
        comment: "The module, its digest, the limits, the selector and all else are the operator's.",
        expression: format!(
            "{} &&\n{}",
            same("spec", "pluginConfig"),
            same("spec.pluginConfig", "intercepts")
        ),
        message: "a developer may change nothing of a WasmPlugin but spec.pluginConfig.intercepts"
            .to_owned(),
    }
}

fn map() -> Validation {
    Validation {
        comment: "A list or a text in its place would take everybody's intercepts away. So would an object that etcd refuses to grow any further.",
        expression: format!(
            "type(variables.after) == map &&\n(size(variables.after) <= {MAX_INTERCEPTS} || size(variables.after) <= size(variables.before))"
        ),
        message: format!(
            "spec.pluginConfig.intercepts: expected a map of at most {MAX_INTERCEPTS} intercepts"
        ),
    }
}

fn owner() -> Validation {
    Validation {
        comment: "Nobody intercepts in somebody else's name, nor changes what somebody else made.",
        expression: "variables.changed.all(k,\n  variables.after[k].?owner.orValue('') == variables.me &&\n  (!(k in variables.before) || variables.before[k].?owner.orValue('') == variables.me)\n)".to_owned(),
        message: "spec.pluginConfig.intercepts: the owner of an entry must be you, before and after the change".to_owned(),
    }
}

fn name() -> Validation {
    Validation {
        comment: "The name becomes a cluster's and a header's value.",
        expression: format!("variables.changed.all(k, k.matches('^{LABEL}$'))"),
        message: "spec.pluginConfig.intercepts: expected a DNS label as an intercept's name"
            .to_owned(),
    }
}

fn cluster() -> Validation {
    Validation {
        comment: "Its own cluster, or the shared one of a relay, each of its own port. Otherwise an entry could send requests to another developer's relay, or to a port that whoever asks may not reach.",
        expression: "variables.changed.all(k,\n  variables.after[k].cluster == 'intercept|' + string(variables.after[k].port) + '|' + k ||\n  variables.after[k].cluster.matches('^intercept[|]relay-[0-9]+[|]' + string(variables.after[k].port) + '$')\n)".to_owned(),
        message: "spec.pluginConfig.intercepts: an entry's cluster must be `intercept|PORT|NAME` or `intercept|relay-N|PORT`, with its own port and name; is your `injector` of another version than the installation?".to_owned(),
    }
}
