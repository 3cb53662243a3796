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
fn a_developer_may_not_do_what_the_policies_take_for_an_operators_right() {
    let objects = installed(&example::install());
    let developer = rules(&objects, "ClusterRole", names::DEVELOPER_ROLE);
    assert_eq!(
        verbs(developer, "wasmplugins"),
        ["get", "list", "patch"].into()
    );
    assert_eq!(
        verbs(developer, "envoyfilters"),
        ["create", "delete", "get", "list", "patch"].into()
    );
    let operator = rules(&objects, "ClusterRole", names::OPERATOR_ROLE);
    for resource in ["wasmplugins", "envoyfilters"] {
        assert!(verbs(operator, resource).contains("update"));
    }
}

#[test]
fn nobody_is_given_a_right_before_the_policies_that_hold_it() {
    let objects = installed(&example::install());
    let is_policy = |object: &Object| object.kind() == "ValidatingAdmissionPolicyBinding";
    let is_role = |object: &Object| ["ClusterRole", "Role"].contains(&object.kind());
    let last_policy = objects.iter().rposition(is_policy).unwrap();
    let first_role = objects.iter().position(is_role).unwrap();
    assert!(last_policy < first_role);
}

#[test]
fn both_roles_have_what_the_commands_do_and_no_more() {
    let objects = installed(&example::install());
    for role in [names::DEVELOPER_ROLE, names::OPERATOR_ROLE] {
        let rules = rules(&objects, "ClusterRole", role);
        // Whoever may patch an Event can rewrite who removed an intercept, and what the kubelet said.
        assert_eq!(verbs(rules, "events"), ["create", "list"].into());
        assert_eq!(verbs(rules, "replicasets"), [].into());
        let all = rules.iter().flat_map(|rule| rule["verbs"].as_array());
        assert!(
            all.flatten().all(|verb| verb != "watch"),
            "no command opens a watch"
        );
    }
}

#[test]
fn ports_are_forwarded_to_the_relays_and_nowhere_else() {
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
fn every_policy_is_in_force_and_spares_those_who_may_do_more() {
    let objects = installed(&example::install());
    let policies = of_kind(&objects, "ValidatingAdmissionPolicy");
    let bindings = of_kind(&objects, "ValidatingAdmissionPolicyBinding");
    assert_eq!(policies.len(), 5);
    for (policy, binding) in policies.into_iter().zip(bindings) {
        assert_eq!(binding.value()["spec"]["policyName"], policy.name());
        assert_eq!(
            binding.value()["spec"]["validationActions"],
            json!(["Deny"])
        );
        let spec = &policy.value()["spec"];
        assert_eq!(spec["failurePolicy"], "Fail");
        assert!(
            spec["matchConditions"][0]["expression"]
                .as_str()
                .unwrap()
                .contains("check('update')")
        );
        assert_eq!(
            spec["paramKind"].is_object(),
            binding.value()["spec"]["paramRef"].is_object()
        );
    }
}

#[test]
fn a_policy_with_a_clock_sees_objects_of_ours_alone_and_without_a_clock_no_policy_asks_for_one() {
    let specs = |install: &ClusterInstall| -> Vec<Value> {
        let objects = installed(install);
        let policies = of_kind(&objects, "ValidatingAdmissionPolicy");
        let specs = policies.into_iter().map(|policy| &policy.value()["spec"]);
        specs.cloned().collect()
    };
    let ours = json!({"matchLabels": {names::MANAGED_BY: names::MANAGER}});
    let (with, without): (Vec<Value>, Vec<Value>) = specs(&example::install())
        .into_iter()
        .partition(|spec| spec["paramKind"].is_object());
    assert_eq!((with.len(), without.len()), (2, 3));
    for spec in &with {
        assert_eq!(spec["matchConstraints"]["objectSelector"], ours);
    }
    for spec in &without {
        assert!(spec["matchConstraints"]["objectSelector"].is_null());
    }
    let clockless = ClusterInstall {
        has_clock: false,
        ..example::install()
    };
    let objects = installed(&clockless);
    for object in &objects {
        let text = object.value().to_string();
        assert!(!text.contains("params"), "{}", object.name());
        assert!(!text.contains("paramRef"), "{}", object.name());
    }
    assert_eq!(specs(&clockless).len(), 5);
}

#[test]
fn the_policy_for_clusters_asks_for_what_is_rendered() {
    let objects = installed(&example::install());
    let policy = objects
        .iter()
        .find(|object| object.name() == "injector-clusters")
        .unwrap();
    let expected = policy.value()["spec"]["variables"][4]["expression"]
        .as_str()
        .unwrap();
    for piece in [
        "'intercept|' + variables.port + '|' + variables.name",
        "variables.members[0]",
        "'max_retries': dyn(4294967295)",
        "envoy.clusters.aggregate",
    ] {
        assert!(expected.contains(piece), "{expected}");
    }
}

#[test]
fn only_the_controller_may_write_the_mesh() {
    let objects = install::controller::objects(&mesh());
    let developer = rules(&objects, "ClusterRole", names::DEVELOPER_ROLE);
    assert_eq!(verbs(developer, "wasmplugins"), ["get", "list"].into());
    assert_eq!(verbs(developer, "envoyfilters"), [].into());
    assert_eq!(verbs(developer, "intercepts/status"), [].into());
    let reads = rules(&objects, "ClusterRole", names::CONTROLLER);
    for resource in ["intercepts", "wasmplugins", "envoyfilters"] {
        assert_eq!(verbs(reads, resource), ["get", "list", "watch"].into());
    }
    let writes = rules(&objects, "ClusterRole", install::controller::WORKLOAD_ROLE);
    assert_eq!(verbs(writes, "wasmplugins"), ["patch"].into());
    for resource in ["secrets", "pods/portforward", "configmaps", "roles"] {
        assert_eq!(verbs(writes, resource), [].into(), "{resource}");
        assert_eq!(verbs(reads, resource), [].into(), "{resource}");
    }
}
