//! Admission policies: they hold a developer to what RBAC cannot say, single fields of a WasmPlugin and the shape of an EnvoyFilter.
//!
//! Held is whoever may not `update` the very object: developers only have `patch`. An administrator, a GitOps controller or a mesh team with full rights is not, and needs no exception.
//! The expressions are evaluated over maps of up to a thousand entries; each has a budget of a million cost units (Kubernetes' `PerCallLimit`).

mod cel;
pub mod controlled;
mod envoy_filter;
mod leftover;
mod object;
mod wasm_plugin;

use self::object::{LABEL, Policy, SECONDS, SUBDOMAIN, Validation, metadata_text};
pub use self::object::{LEFTOVER_AFTER_SECONDS, MAX_INTERCEPTS};
use crate::manifest::istio::facts::Mesh;
use crate::manifest::istio::object::Object;

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
