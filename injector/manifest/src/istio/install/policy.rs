//! Admission policies: they check what RBAC cannot say. One on Intercepts, one on what the controller's own account writes.
//!
//! No clock and no object besides the one in hand: the controller decides everything else.

mod cel;
mod controller;
mod intercepts;
mod object;

use crate::istio::facts::Mesh;
use crate::istio::object::Object;

/// Both policies, each followed by its binding.
pub fn objects(mesh: &Mesh) -> Vec<Object> {
    [intercepts::policy(), controller::policy(mesh)]
        .into_iter()
        .flat_map(|policy| [policy.object(), policy.binding()])
        .collect()
}
