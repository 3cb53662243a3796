//! Who may clear away what somebody else left behind: anybody, ten minutes after the lease is over.

use super::{
    LEFTOVER_AFTER_SECONDS, Policy, SECONDS, Validation, envoy_filter, metadata_text, wasm_plugin,
};
use crate::manifest::istio::names;

/// Now, in seconds since the epoch, at most ten seconds late. Without a clock it is never late enough: then only operators clear away what others left.
fn now(has_clock: bool) -> &'static str {
    match has_clock {
        true => "int(timestamp(params.spec.renewTime))",
        false => "0",
    }
}

/// Entries of a WasmPlugin.
pub fn entries(has_clock: bool) -> Policy {
    let now = now(has_clock);
    let (before, after) = (
        wasm_plugin::intercepts("oldObject"),
        wasm_plugin::intercepts("object"),
    );
    let me = "request.userInfo.username";
    let gone = format!(
        "{before}.exists(k,\n  !(k in {after}) &&\n  {before}[k].?owner.orValue('') != {me}\n)"
    );
    Policy {
        name: "injector-leftover-entries",
        comment: "Lets developers remove somebody else's entry once its lease has been over for ten minutes, and not before. It matches nothing any more by then.".to_owned(),
        group: "extensions.istio.io",
        version: "v1alpha1",
        resource: "wasmplugins",
        operations: &["UPDATE"],
        conditions: vec![
            Policy::held("extensions.istio.io", "wasmplugins"),
            ("removes-another-ones", gone),
        ],
        variables: vec![
            ("before", before, ""),
            ("after", after, ""),
        ],
        validations: vec![Validation {
            comment: "The lease of every entry that is gone and was not one's own.",
            expression: format!(
                "variables.before.all(k,\n  k in variables.after ||\n  variables.before[k].?owner.orValue('') == {me} ||\n  int(variables.before[k].expires) + {LEFTOVER_AFTER_SECONDS} < {now}\n)"
            ),
            message: "spec.pluginConfig.intercepts: only your own entries may be removed, and those whose lease has been over for ten minutes".to_owned(),
        }],
        clock: has_clock,
    }
}

/// EnvoyFilters of intercepts.
pub fn clusters(has_clock: bool) -> Policy {
    let now = now(has_clock);
    let owner = metadata_text("oldObject", "annotations", names::OWNER);
    let expires = metadata_text("oldObject", "annotations", names::EXPIRES);
    Policy {
        name: "injector-leftover-clusters",
        comment: "Lets developers delete an intercept's EnvoyFilter that is not their own once its lease has been over for ten minutes, and not before.".to_owned(),
        group: "networking.istio.io",
        version: "v1alpha3",
        resource: "envoyfilters",
        operations: &["DELETE"],
        conditions: vec![
            Policy::held("networking.istio.io", "envoyfilters"),
            // All others are the policy injector-deletions' business, and of two refusals the API server shows any.
            ("is-of-intercept", envoy_filter::is_of_intercept("oldObject")),
            ("is-another-ones", format!("{owner} != request.userInfo.username")),
        ],
        variables: Vec::new(),
        validations: vec![Validation {
                comment: "The lease stands on the object, since a policy sees no other one.",
                expression: format!("{expires}.matches('^{SECONDS}$') &&\nint({expires}) + {LEFTOVER_AFTER_SECONDS} < {now}"),
                message: "only your own EnvoyFilters may be deleted, and those whose lease has been over for ten minutes".to_owned(),
        }],
        clock: has_clock,
    }
}
