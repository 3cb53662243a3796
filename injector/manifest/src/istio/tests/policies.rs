//! Who may do what: what can be told without an API server. The expressions themselves are tried on a real one.

use super::*;

fn rules<'a>(objects: &'a [Object], kind: &str, name: &str) -> &'a Vec<Value> {
    let role = objects
        .iter()
        .find(|object| object.kind() == kind && object.name() == name)
        .unwrap();
    role.value()["rules"].as_array().unwrap()
}

fn verbs<'a>(rules: &'a [Value], resource: &str) -> BTreeSet<&'a str> {
    let about = |rule: &&Value| {
        rule["resources"]
            .as_array()
            .unwrap()
            .contains(&json!(resource))
    };
    let verbs = rules
        .iter()
        .filter(about)
        .flat_map(|rule| rule["verbs"].as_array().unwrap());
    verbs.map(|verb| verb.as_str().unwrap()).collect()
}

#[test]
fn developers_write_intercepts_and_nothing_else() {
    let objects = installed(&example::install());
    let developer = rules(&objects, "ClusterRole", names::DEVELOPER_ROLE);
    for rule in developer {
        let is_intercepts = rule["resources"] == json!(["intercepts"]);
        let verbs = rule["verbs"].as_array().unwrap();
        let reads = |verb: &Value| ["get", "list"].contains(&verb.as_str().unwrap());
        assert!(is_intercepts || verbs.iter().all(reads), "{rule}");
    }
    assert_eq!(verbs(developer, "wasmplugins"), ["get", "list"].into());
    for resource in ["envoyfilters", "intercepts/status", "secrets", "configmaps"] {
        assert_eq!(verbs(developer, resource), [].into(), "{resource}");
    }
    let operator = rules(&objects, "ClusterRole", names::OPERATOR_ROLE);
    // By this the policy tells an operator.
    assert_eq!(verbs(operator, "intercepts/status"), ["update"].into());
}

#[test]
fn operators_bind_only_the_controllers_role() {
    let objects = installed(&example::install());
    let operator = rules(&objects, "ClusterRole", names::OPERATOR_ROLE);
    let of_rbac = |rule: &&Value| rule["apiGroups"] == json!(["rbac.authorization.k8s.io"]);
    let of_rbac: Vec<&Value> = operator.iter().filter(of_rbac).collect();
    assert_eq!(of_rbac.len(), 2);
    for rule in of_rbac {
        assert_eq!(rule["resourceNames"], json!([names::WORKLOAD_ROLE]));
    }
}

#[test]
fn policies_come_before_rights() {
    let objects = installed(&example::install());
    let is_policy = |object: &Object| object.kind() == "ValidatingAdmissionPolicyBinding";
    let is_role = |object: &Object| ["ClusterRole", "Role"].contains(&object.kind());
    let last_policy = objects.iter().rposition(is_policy).unwrap();
    let first_role = objects.iter().position(is_role).unwrap();
    assert!(last_policy < first_role);
}

#[test]
fn roles_have_exactly_the_needed_rights() {
    let objects = installed(&example::install());
    for role in [names::DEVELOPER_ROLE, names::OPERATOR_ROLE] {
        let rules = rules(&objects, "ClusterRole", role);
        assert_eq!(verbs(rules, "events"), ["list"].into());
        assert_eq!(verbs(rules, "replicasets"), [].into());
    }
}

#[test]
fn only_relays_may_be_port_forwarded() {
    let objects = installed(&example::install());
    for role in [names::DEVELOPER_ROLE, names::OPERATOR_ROLE] {
        assert!(verbs(rules(&objects, "ClusterRole", role), "pods/portforward").is_empty());
    }
    let tunnel = rules(&objects, "Role", names::DEVELOPER_ROLE);
    assert_eq!(verbs(tunnel, "pods/portforward"), ["create", "get"].into());
    assert_eq!(
        tunnel[2]["resourceNames"],
        json!(["injector-relay-0", "injector-relay-1"])
    );
}

#[test]
fn no_role_names_everything() {
    let objects = installed(&example::install());
    let roles = of_kind(&objects, "ClusterRole")
        .into_iter()
        .chain(of_kind(&objects, "Role"));
    for role in roles {
        assert!(
            !role.value().to_string().contains("\"*\""),
            "{}",
            role.name()
        );
    }
}

#[test]
fn every_policy_is_in_force() {
    let objects = installed(&example::install());
    let policies = of_kind(&objects, "ValidatingAdmissionPolicy");
    let bindings = of_kind(&objects, "ValidatingAdmissionPolicyBinding");
    assert_eq!(policies.len(), 2);
    for (policy, binding) in policies.into_iter().zip(bindings) {
        assert_eq!(binding.value()["spec"]["policyName"], policy.name());
        assert_eq!(
            binding.value()["spec"]["validationActions"],
            json!(["Deny"])
        );
        assert_eq!(policy.value()["spec"]["failurePolicy"], "Fail");
        assert_eq!(policy.value()["spec"]["paramKind"], Value::Null);
    }
}

#[test]
fn cluster_policy_matches_what_is_rendered() {
    let objects = installed(&example::install());
    let policy = objects
        .iter()
        .find(|object| object.name() == "injector-controller")
        .unwrap();
    let variables = policy.value()["spec"]["variables"].as_array().unwrap();
    let expected = variables
        .iter()
        .find(|one| one["name"] == "expected")
        .unwrap();
    let expected = expected["expression"].as_str().unwrap();
    for piece in [
        "'intercept|' + variables.port + '|' + variables.name + '|relay-' + variables.relay",
        "variables.members[0]",
        "'max_retries': dyn(4294967295)",
        "envoy.clusters.aggregate",
    ] {
        assert!(expected.contains(piece), "{expected}");
    }
}

#[test]
fn only_the_controller_may_write_the_mesh() {
    let objects = installed(&example::install());
    let reads = rules(&objects, "ClusterRole", names::CONTROLLER);
    for resource in ["intercepts", "wasmplugins", "envoyfilters"] {
        assert_eq!(verbs(reads, resource), ["get", "list", "watch"].into());
    }
    let writes = rules(&objects, "ClusterRole", names::WORKLOAD_ROLE);
    assert_eq!(verbs(writes, "wasmplugins"), ["patch"].into());
    for resource in ["secrets", "pods/portforward", "configmaps", "roles"] {
        assert_eq!(verbs(writes, resource), [].into(), "{resource}");
        assert_eq!(verbs(reads, resource), [].into(), "{resource}");
    }
    // Bound in the namespaces of workloads, and nowhere else.
    let bound = of_kind(&objects, "ClusterRoleBinding");
    let roles: Vec<&Value> = bound
        .into_iter()
        .map(|binding| &binding.value()["roleRef"]["name"])
        .collect();
    assert_eq!(roles, [names::CONTROLLER]);
}
