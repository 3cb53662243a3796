//! Are developers and the controller held to what is theirs?

use serde_json::Value;

use super::Check;
use super::snapshot::Installation;
use crate::install_args::InstallArgs;

/// How many admission policies there are; fewer, and some of what RBAC cannot say is not held.
const POLICIES: usize = 2;

pub fn policies(seen: &Installation, namespace: &str) -> Check {
    const ID: &str = "admission-policies";
    let (bindings, policies) = match (&seen.bindings, &seen.policies) {
        (Ok(bindings), Ok(policies)) => (bindings, policies),
        (Err(error), _) | (_, Err(error)) => {
            return Check::unanswered(ID, "admission policies", error);
        }
    };
    let in_force = bindings
        .iter()
        .filter(|binding| is_in_force(binding, policies))
        .count();
    if in_force >= POLICIES {
        return Check::pass(
            ID,
            "developers are held to their own Intercepts, and the controller to what it writes, by admission policies",
        );
    }
    Check::fail(
        ID,
        format!("{in_force} of {POLICIES} admission policies are in force"),
        format!(
            "an administrator applies them again: {}",
            install_line(namespace)
        ),
    )
}

fn install_line(namespace: &str) -> String {
    format!("injector install{}", InstallArgs::beside(namespace).flags())
}

/// Does it refuse, everywhere, by a policy that is there?
fn is_in_force(binding: &Value, policies: &[Value]) -> bool {
    let spec = &binding["spec"];
    let denies = spec["validationActions"]
        .as_array()
        .is_some_and(|actions| actions.iter().any(|action| action == "Deny"));
    let is_everywhere = spec["matchResources"].is_null();
    let has_policy = policies.iter().any(|policy| {
        policy["metadata"]["name"] == spec["policyName"]
            && policy["spec"]["failurePolicy"] == "Fail"
    });
    denies && is_everywhere && has_policy
}
