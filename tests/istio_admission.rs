//! What the roles and the admission policies let through and what they refuse, asked of a real API server with Istio's custom resources. Needs no node, no istiod
//! and no sidecar: `$KUBECONFIG` names an administrator. Users are impersonated, so nothing here depends on how a cluster knows its users.

use injector::manifest::istio::install::{cluster_objects, policy::MAX_INTERCEPTS};
use injector::manifest::istio::intercept::{own_cluster, shared_cluster};
use injector::manifest::istio::{INSTALLER, example, field_manager, names, workload_objects};
use intercept_core::Intercept;
use serde_json::{Value, json};

mod admission {
    pub mod api;
    pub mod clockless;
    pub mod stage;
}

use admission::api::{ADMIN, Api, BOB};
use admission::clockless::Clockless;
use admission::stage::{
    ALICE, FOREIGN, HOUR, Stage, cluster, entry, now, objects, plugin, workload,
};

/// An operator.
const OLGA: &str = "olga@example.com";
const WASM_PLUGINS: &str = "wasmplugins.extensions.istio.io";
const ENVOY_FILTERS: &str = "envoyfilters.networking.istio.io";
const POLICIES: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";

/// What istiod, where there is one, says of an EnvoyFilter as such. Any other warning would be about ours.
const EVERY_ENVOY_FILTER: &str =
    "Warning: EnvoyFilter exposes internal implementation details that may change at any time.";

/// Those of the example.
fn make_namespaces(api: &Api) {
    let namespaces = ["shop", "injector-system"]
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    api.apply_all(ADMIN, INSTALLER, &namespaces).must_pass();
}

#[test]
fn the_api_server_takes_every_object_that_is_rendered() {
    let api = Api::new();
    let install = example::install();
    let mut all = cluster_objects(&install).unwrap();
    all.extend(workload_objects(&install.mesh, &example::workload(), &example::plugin()).unwrap());
    all.extend(objects("shop", example::INTERCEPT, &example::entry()));
    make_namespaces(&api);
    assert!(all.len() > 30);
    for object in &all {
        let spec = &object.value()["spec"];
        let is_entry = object.kind() == "WasmPlugin" && spec["url"].is_null();
        if object.kind() == "WasmPlugin" && !is_entry {
            // An entry is no object by itself: the API server must know the plugin that it goes into.
            api.apply(ADMIN, INSTALLER, object.value()).must_pass();
        }
        let manager = field_manager(example::INTERCEPT);
        let manager = if is_entry { &manager } else { INSTALLER };
        let outcome = api.try_apply(ADMIN, manager, object.value());
        let (kind, name) = (object.kind(), object.name());
        let text = outcome.text().replace(EVERY_ENVOY_FILTER, "");
        assert!(
            !text.contains("Warning"),
            "{kind} {name}: {}",
            outcome.text()
        );
        outcome.must_pass();
    }
    api.delete(ADMIN, "shop", "wasmplugin", &plugin(), false)
        .must_pass();
}

#[test]
fn the_api_server_takes_the_directory_istio_as_a_reader_is_told_to_apply_it() {
    let api = Api::new();
    make_namespaces(&api);
    let install = example::install();
    let of_workload =
        workload_objects(&install.mesh, &example::workload(), &example::plugin()).unwrap();
    let outcome = api.run(
        ADMIN,
        &[
            "apply",
            "--server-side",
            "--dry-run=server",
            "--field-manager",
            INSTALLER,
            "-k",
            concat!(env!("CARGO_MANIFEST_DIR"), "/../istio"),
        ],
        None,
    );
    let applied = outcome.text().matches("serverside-applied").count();
    assert_eq!(
        applied,
        cluster_objects(&install).unwrap().len() + of_workload.len(),
        "{}",
        outcome.text()
    );
    outcome.must_pass();
}

#[test]
fn the_plugin_is_the_installers_again_after_leave() {
    let stage = Stage::new("leave");
    let before = stage.spec();
    let mine = entry("orders-bob", BOB);
    for object in objects(&stage.namespace, "orders-bob", &mine) {
        stage
            .api
            .apply(BOB, &field_manager("orders-bob"), object.value())
            .must_pass();
    }
    assert_eq!(stage.intercepts(), json!({"orders-bob": mine}));
    for object in workload_objects(
        &example::install().mesh,
        &workload(&stage.namespace),
        &example::plugin(),
    )
    .unwrap()
    {
        stage
            .api
            .apply(ADMIN, INSTALLER, object.value())
            .must_pass();
    }
    assert_eq!(
        stage.intercepts(),
        json!({"orders-bob": mine}),
        "installing again takes no intercept away"
    );
    stage.remove(BOB, "orders-bob", false).must_pass();
    stage.delete(BOB, "intercept-orders-bob", false).must_pass();
    assert_eq!(stage.spec(), before);
}

#[test]
fn a_developer_changes_their_own_entries_and_nothing_else_of_a_plugin() {
    let stage = Stage::new("entries");
    let name = "orders-bob";
    stage.put("orders-alice", &entry("orders-alice", ALICE));
    stage.put(name, &entry(name, BOB));
    let shared = Intercept {
        cluster: shared_cluster(1, 8080),
        ..entry("shared", BOB)
    };
    let add = |name: &str, entry: &Intercept| json!({"spec": {"pluginConfig": {"intercepts": {name: entry}}}});
    let allowed = [
        ("its own cluster", add("bob-2", &entry("bob-2", BOB))),
        ("the shared cluster of a relay", add("bob-3", &shared)),
        (
            "a renewed lease",
            json!({"spec": {"pluginConfig": {"intercepts": {name: {"expires": now() + 2 * HOUR}}}}}),
        ),
        (
            "an entry of one's own removed",
            json!({"spec": {"pluginConfig": {"intercepts": {name: null}}}}),
        ),
        ("nothing at all", json!({})),
    ];
    for (what, patch) in allowed {
        assert!(
            stage.patch(BOB, "merge", &patch, true).passed(),
            "{what}: {}",
            stage.patch(BOB, "merge", &patch, true).text()
        );
    }
    let other = |change: &dyn Fn(&mut Intercept)| {
        let mut entry = entry("bob-2", BOB);
        change(&mut entry);
        add("bob-2", &entry)
    };
    let spec = "nothing of a WasmPlugin but spec.pluginConfig.intercepts";
    let metadata = "labels, annotations, finalizers or owners";
    let owner = "the owner of an entry must be you";
    let cluster = "an entry's cluster must be";
    let map = "expected a map";
    let refused = [
        (spec, json!({"spec": {"url": "http://evil/x.wasm"}})),
        (spec, json!({"spec": {"sha256": "1".repeat(64)}})),
        (spec, json!({"spec": {"sha256": null}})),
        (spec, json!({"spec": {"failStrategy": "FAIL_CLOSE"}})),
        (spec, json!({"spec": {"phase": "AUTHN"}})),
        (spec, json!({"spec": {"priority": 0}})),
        (
            spec,
            json!({"spec": {"selector": {"matchLabels": {"app": "payments"}}}}),
        ),
        (spec, json!({"spec": {"selector": null}})),
        (spec, json!({"spec": {"match": null}})),
        (
            spec,
            json!({"spec": {"vmConfig": {"env": [{"name": "A", "value": "b"}]}}}),
        ),
        (
            spec,
            json!({"spec": {"pluginConfig": {"limits": {"allow_all": true}}}}),
        ),
        (spec, json!({"spec": {"pluginConfig": {"limits": null}}})),
        (spec, json!({"spec": {"pluginConfig": {"version": 2}}})),
        (spec, json!({"spec": {"pluginConfig": {"more": {}}}})),
        (
            metadata,
            json!({"metadata": {"labels": {"istio.io/rev": "none"}}}),
        ),
        (
            metadata,
            json!({"metadata": {"labels": {names::MANAGED_BY: null}}}),
        ),
        (metadata, json!({"metadata": {"annotations": {"a": "b"}}})),
        (metadata, json!({"metadata": {"finalizers": ["a/b"]}})),
        (
            metadata,
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b"}]}}),
        ),
        (owner, other(&|entry| entry.owner = ALICE.to_owned())),
        (owner, other(&|entry| entry.owner.clear())),
        (
            owner,
            json!({"spec": {"pluginConfig": {"intercepts": {"orders-alice": {"owner": BOB}}}}}),
        ),
        (
            owner,
            json!({"spec": {"pluginConfig": {"intercepts": {"orders-alice": {"expires": 0}}}}}),
        ),
        (
            owner,
            json!({"spec": {"pluginConfig": {"intercepts": {"orders-alice": {"address": "0".repeat(32)}}}}}),
        ),
        (
            owner,
            json!({"spec": {"pluginConfig": {"intercepts": {name: {"owner": ALICE}}}}}),
        ),
        (
            cluster,
            other(&|entry| {
                entry.cluster = "outbound|80||payments.shop.svc.cluster.local".to_owned()
            }),
        ),
        (
            cluster,
            other(&|entry| entry.cluster = own_cluster("orders-alice", 8080)),
        ),
        // The cluster of an EnvoyFilter of one's own that falls back to another port than is intercepted.
        (
            cluster,
            other(&|entry| entry.cluster = own_cluster("bob-2", 9090)),
        ),
        (cluster, other(&|entry| entry.port = 9090)),
        (
            cluster,
            other(&|entry| entry.cluster = shared_cluster(0, 9090)),
        ),
        ("expected a DNS label", add("Bob|2", &entry("Bob|2", BOB))),
        // A list with every name in it: nothing seems to be missing, so this policy alone refuses.
        (
            map,
            json!({"spec": {"pluginConfig": {"intercepts": ["orders-alice", name]}}}),
        ),
        (
            FOREIGN,
            json!({"spec": {"pluginConfig": {"intercepts": null}}}),
        ),
        (
            FOREIGN,
            json!({"spec": {"pluginConfig": {"intercepts": {"orders-alice": null}}}}),
        ),
    ];
    for (reason, patch) in refused {
        let outcome = stage.patch(BOB, "merge", &patch, true);
        assert!(
            outcome.is_refused(reason),
            "{patch}: expected `{reason}`, got: {}",
            outcome.text()
        );
    }
}

#[test]
fn a_plugin_that_is_not_ours_is_none_of_a_developers_business() {
    let stage = Stage::new("foreign");
    let foreign = json!({
        "apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "foreign", "namespace": stage.namespace},
        "spec": {"url": "oci://x", "pluginConfig": {"intercepts": {}}},
    });
    stage.api.apply(ADMIN, "somebody", &foreign).must_pass();
    let patch =
        json!({"spec": {"pluginConfig": {"intercepts": {"orders-bob": entry("orders-bob", BOB)}}}});
    let outcome = stage.api.patch(
        BOB,
        &stage.namespace,
        "wasmplugin",
        "foreign",
        "merge",
        &patch,
        true,
    );
    assert!(
        outcome.is_refused("only WasmPlugins that `injector install` made"),
        "{}",
        outcome.text()
    );
}

#[test]
fn what_somebody_left_behind_may_be_removed_ten_minutes_after_its_lease() {
    let stage = Stage::new("leftover");
    let ended = |name: &str, seconds: u64| Intercept {
        expires: now() - seconds,
        ..entry(name, ALICE)
    };
    for (name, entry) in [
        ("alice-old", ended("alice-old", 700)),
        ("alice-new", ended("alice-new", 300)),
        ("alice-live", entry("alice-live", ALICE)),
    ] {
        stage.put(name, &entry);
        stage
            .api
            .apply(
                ADMIN,
                &field_manager(name),
                &cluster(&stage.namespace, name, &entry),
            )
            .must_pass();
    }
    for name in ["alice-new", "alice-live"] {
        let outcome = stage.remove(BOB, name, false);
        assert!(outcome.is_refused(FOREIGN), "{name}: {}", outcome.text());
        let outcome = stage.delete(BOB, &names::of_intercept(name), false);
        assert!(
            outcome.is_refused("only your own EnvoyFilters may be deleted"),
            "{name}: {}",
            outcome.text()
        );
    }
    for outcome in [
        stage.remove(BOB, "alice-old", false),
        stage.delete(BOB, "intercept-alice-old", false),
    ] {
        assert!(outcome.passed(), "{}{}", outcome.text(), stage.api.clock());
    }
    let names: Vec<String> = stage
        .intercepts()
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(names, ["alice-live", "alice-new"]);
}

#[test]
fn an_intercept_whose_cluster_is_called_as_before_may_be_left_and_not_renewed() {
    let stage = Stage::new("before");
    let left_by = |name: &str, owner: &str, expires: u64| {
        let mut entry = entry(name, owner);
        entry.expires = expires;
        let mut filter = cluster(&stage.namespace, name, &entry);
        entry.cluster = format!("intercept|{name}");
        filter["spec"]["configPatches"][0]["patch"]["value"]["name"] = json!(entry.cluster);
        stage.put(name, &entry);
        stage
            .api
            .apply(ADMIN, &field_manager(name), &filter)
            .must_pass();
    };
    left_by("orders-bob", BOB, now() + HOUR);
    left_by("alice-old", ALICE, now() - 700);
    let renewed = json!({"spec": {"pluginConfig": {"intercepts": {"orders-bob": {"expires": now() + 2 * HOUR}}}}});
    let outcome = stage.patch(BOB, "merge", &renewed, true);
    assert!(
        outcome.is_refused("is your `injector` of another version than the installation?"),
        "{}",
        outcome.text()
    );
    for name in ["orders-bob", "alice-old"] {
        stage.remove(BOB, name, false).must_pass();
        stage
            .delete(BOB, &names::of_intercept(name), false)
            .must_pass();
    }
    assert_eq!(stage.intercepts(), json!({}));
}

#[test]
fn a_developer_writes_one_shape_of_envoy_filter_under_their_own_name() {
    let stage = Stage::new("clusters");
    let namespace = &stage.namespace;
    let mine = cluster(namespace, "orders-bob", &entry("orders-bob", BOB));
    let manager = field_manager("orders-bob");
    stage.api.apply(BOB, &manager, &mine).must_pass();
    let mut renewed = mine.clone();
    renewed["metadata"]["annotations"][names::EXPIRES] = json!((now() + 2 * HOUR).to_string());
    stage.api.apply(BOB, &manager, &renewed).must_pass();
    let mut without_services = cluster(namespace, "bob-2", &entry("bob-2", BOB));
    without_services["spec"]["configPatches"][0]["patch"]["value"]
        .as_object_mut()
        .unwrap()
        .remove("metadata");
    stage
        .api
        .try_apply(BOB, &manager, &without_services)
        .must_pass();

    let value = "/spec/configPatches/0/patch/value";
    let remove = json!({"applyTo": "HTTP_FILTER", "match": {"context": "SIDECAR_INBOUND"}, "patch": {"operation": "REMOVE"}});
    let patch = "expected one CLUSTER ADD";
    let shape = "the cluster differs from what";
    let members = "the cluster's members must be";
    let name = "a developer may write only EnvoyFilters";
    let refused: Vec<(&str, String, Value)> = vec![
        (name, "/metadata/name".into(), json!("intercept-other")),
        (name, "/metadata/name".into(), json!("bob-filter")),
        (
            name,
            format!("/metadata/labels/{}", names::INTERCEPT.replace('/', "~1")),
            json!("orders-alice"),
        ),
        (
            name,
            format!("/metadata/labels/{}", names::MANAGED_BY.replace('/', "~1")),
            json!("me"),
        ),
        (
            "injector.dev/owner must be you",
            format!("/metadata/annotations/{}", names::OWNER.replace('/', "~1")),
            json!(ALICE),
        ),
        (patch, "/spec/priority".into(), json!(5000)),
        (patch, "/spec/workloadSelector/labels".into(), json!({})),
        (
            patch,
            "/spec/configPatches".into(),
            json!([mine["spec"]["configPatches"][0], remove]),
        ),
        (
            patch,
            "/spec/configPatches/0/applyTo".into(),
            json!("HTTP_FILTER"),
        ),
        (
            patch,
            "/spec/configPatches/0/match/context".into(),
            json!("ANY"),
        ),
        (
            patch,
            "/spec/configPatches/0/patch/operation".into(),
            json!("REMOVE"),
        ),
        (
            shape,
            format!("{value}/name"),
            json!(own_cluster("orders-alice", 8080)),
        ),
        // Of the port that the entry is held to, but another one as the fallback, and the other way round.
        (
            shape,
            format!("{value}/cluster_type/typed_config/clusters/1"),
            json!("intercept-app|9090"),
        ),
        (
            shape,
            format!("{value}/name"),
            json!(own_cluster("bob-3", 9090)),
        ),
        (shape, format!("{value}/name"), json!("inbound|8080||")),
        (shape, format!("{value}/connect_timeout"), json!("90s")),
        (
            shape,
            format!("{value}/circuit_breakers/thresholds/0/max_retries"),
            json!(3),
        ),
        (
            shape,
            format!("{value}/cluster_type/name"),
            json!("envoy.clusters.redis"),
        ),
        (
            shape,
            format!("{value}/transport_socket"),
            json!({"name": "x"}),
        ),
        (
            members,
            format!("{value}/cluster_type/typed_config/clusters/0"),
            json!("outbound|80||payments.shop.svc.cluster.local"),
        ),
        (
            members,
            format!("{value}/cluster_type/typed_config/clusters/0"),
            json!("outbound|8080||injector-relay-0.injector-systemXsvc.cluster.local"),
        ),
        (
            members,
            format!("{value}/cluster_type/typed_config/clusters/1"),
            json!("outbound|80||payments.shop.svc.cluster.local"),
        ),
        (
            "the cluster's metadata may only name",
            format!("{value}/metadata/filter_metadata/istio/services/0/namespace"),
            json!("bank"),
        ),
        (
            "the cluster's metadata may only name",
            format!("{value}/metadata/filter_metadata/envoy.lb"),
            json!({"a": "b"}),
        ),
    ];
    for (reason, pointer, change) in refused {
        let mut changed = cluster(namespace, "bob-3", &entry("bob-3", BOB));
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/");
        match changed.pointer_mut(parent).unwrap() {
            Value::Array(items) => items[key.parse::<usize>().unwrap()] = change,
            map => map[&key] = change,
        }
        let outcome = stage.api.try_apply(BOB, "bob-3", &changed);
        assert!(
            outcome.is_refused(reason),
            "{pointer}: expected `{reason}`, got: {}",
            outcome.text()
        );
    }
}

#[test]
fn somebody_elses_envoy_filter_is_not_a_developers_to_change() {
    let stage = Stage::new("others");
    let namespace = &stage.namespace;
    stage
        .api
        .apply(
            ADMIN,
            "a",
            &cluster(namespace, "orders-alice", &entry("orders-alice", ALICE)),
        )
        .must_pass();
    let mine = json!({"metadata": {"annotations": {names::OWNER: BOB}}});
    for filter in ["intercept-orders-alice".to_owned(), plugin()] {
        let outcome = stage
            .api
            .patch(BOB, namespace, "envoyfilter", &filter, "merge", &mine, true);
        assert!(!outcome.passed(), "{filter}");
        assert!(
            outcome.text().contains("denied request"),
            "{}",
            outcome.text()
        );
    }
    assert!(
        stage
            .delete(BOB, &plugin(), true)
            .is_refused("only EnvoyFilters of intercepts")
    );
}

#[test]
fn who_may_update_is_not_held() {
    let stage = Stage::new("operators");
    let operator = OLGA;
    stage.bind("injector-operator", operator);
    stage.put("orders-alice", &entry("orders-alice", ALICE));
    stage.api.until("the operator's role is bound", || {
        stage.remove(operator, "orders-alice", true).passed()
    });
    stage
        .patch(
            operator,
            "merge",
            &json!({"spec": {"pluginConfig": {"limits": {"allow_all": true}}}}),
            true,
        )
        .must_pass();
    stage.delete(operator, &plugin(), true).must_pass();
    let controller = "system:serviceaccount:kube-system:namespace-controller";
    stage.delete(controller, &plugin(), true).must_pass();
    // As that controller does it when a namespace goes: the whole collection, which has no name.
    let path = format!(
        "/apis/networking.istio.io/v1alpha3/namespaces/{}/envoyfilters",
        stage.namespace
    );
    stage.api.delete_collection(controller, &path).must_pass();
    assert!(!stage.api.has(&stage.namespace, "envoyfilter", &plugin()));
}

#[test]
fn a_thousand_entries_are_judged_within_the_budget() {
    let stage = Stage::new("thousand");
    let many: serde_json::Map<String, Value> = (1..MAX_INTERCEPTS)
        .map(|index| {
            (
                format!("alice-{index}"),
                json!(entry(&format!("alice-{index}"), ALICE)),
            )
        })
        .collect();
    let plugin = json!({
        "apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
        "metadata": {"name": plugin(), "namespace": stage.namespace}, "spec": {"pluginConfig": {"intercepts": many}},
    });
    stage.api.apply(ADMIN, "many", &plugin).must_pass();
    let add =
        |name: &str| json!({"spec": {"pluginConfig": {"intercepts": {name: entry(name, BOB)}}}});
    stage
        .patch(BOB, "merge", &add("orders-bob"), false)
        .must_pass();
    let outcome = stage.patch(BOB, "merge", &add("bob-2"), true);
    assert!(outcome.is_refused("at most 1000"), "{}", outcome.text());
    let outcome = stage.remove(BOB, "alice-500", true);
    assert!(outcome.is_refused(FOREIGN), "{}", outcome.text());
    let all = json!({"spec": {"pluginConfig": {"intercepts": null}}});
    assert!(stage.patch(BOB, "merge", &all, true).is_refused(FOREIGN));
    stage.remove(BOB, "orders-bob", false).must_pass();
}

#[test]
fn the_roles_give_what_their_comments_say() {
    let stage = Stage::new("roles");
    let relays = example::install().mesh.namespace;
    let _bound = stage.bind_beside_the_relays("injector-developer", BOB);
    stage.api.until("the role is bound", || {
        stage.api.can(
            BOB,
            &relays,
            "get",
            "pods/injector-relay-0",
            Some("portforward"),
        )
    });
    let (relays, own) = (relays.as_str(), stage.namespace.as_str());
    stage.check_rights(
        BOB,
        &[
            (relays, "create", "pods/injector-relay-1", "portforward"),
            (own, "patch", WASM_PLUGINS, ""),
            (own, "create", ENVOY_FILTERS, ""),
            (own, "create", "events", ""),
        ],
        &[
            (relays, "create", "pods/injector-module-x", "portforward"),
            (relays, "list", "pods", ""),
            (own, "create", "pods/orders-x", "portforward"),
            (own, "get", "pods/orders-x", "portforward"),
            (own, "update", WASM_PLUGINS, ""),
            (own, "create", WASM_PLUGINS, ""),
            (own, "delete", WASM_PLUGINS, ""),
            (own, "update", ENVOY_FILTERS, ""),
            (own, "patch", "events", ""),
            (own, "get", "secrets", ""),
            (own, "create", "pods/orders-x", "exec"),
            ("default", "patch", WASM_PLUGINS, ""),
        ],
    );
}

#[test]
fn an_operator_prepares_workloads_and_reaches_no_secret_pod_or_role() {
    let stage = Stage::new("operator");
    let relays = example::install().mesh.namespace;
    stage.bind("injector-operator", OLGA);
    let _bound = stage.bind_beside_the_relays("injector-operator", OLGA);
    let may = |namespace, verb, resource| stage.api.can(OLGA, namespace, verb, resource, None);
    stage.api.until("both roles are bound", || {
        may(&relays, "list", "pods") && may(&stage.namespace, "update", WASM_PLUGINS)
    });
    let (relays, own) = (relays.as_str(), stage.namespace.as_str());
    let nobodys = [
        ("get", "secrets", ""),
        ("get", "configmaps", ""),
        ("create", "pods/orders-x", "exec"),
        ("patch", "deployments.apps", ""),
        ("create", "rolebindings.rbac.authorization.k8s.io", ""),
        ("create", "clusterroles.rbac.authorization.k8s.io", ""),
        ("bind", "clusterroles.rbac.authorization.k8s.io", ""),
        ("escalate", "clusterroles.rbac.authorization.k8s.io", ""),
        ("patch", POLICIES, ""),
    ];
    let mut refused: Vec<_> = [own, relays]
        .into_iter()
        .flat_map(|namespace| nobodys.map(|(verb, what, part)| (namespace, verb, what, part)))
        .collect();
    refused.extend([
        (own, "get", "pods/orders-x", "portforward"),
        (own, "create", "pods/orders-x", "portforward"),
        (relays, "patch", "statefulsets.apps/injector-relay", ""),
        ("default", "update", WASM_PLUGINS, ""),
    ]);
    stage.check_rights(
        OLGA,
        &[
            (own, "update", WASM_PLUGINS, ""),
            (own, "update", ENVOY_FILTERS, ""),
            (relays, "create", "pods/injector-module-x", "portforward"),
            (relays, "get", "pods/injector-relay-0", ""),
            (relays, "get", "statefulsets.apps/injector-relay", ""),
        ],
        &refused,
    );
}

#[test]
fn without_a_clock_other_peoples_plugins_and_filters_can_still_be_changed() {
    let stage = Stage::new("clockless");
    let filter = json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": {"name": "foreign", "namespace": stage.namespace},
        "spec": {"workloadSelector": {"labels": {"app": "other"}}},
    });
    let plugin = json!({
        "apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
        "metadata": {"name": "foreign", "namespace": stage.namespace},
        "spec": {"url": "oci://x"},
    });
    for foreign in [&filter, &plugin] {
        stage.api.apply(ADMIN, "somebody", foreign).must_pass();
    }
    let _clockless = Clockless::new(&stage);
    let touch = json!({"metadata": {"annotations": {"touched": "yes"}}});
    // Ours cannot be changed by anybody then, which is why `install` looks for the clock.
    stage.api.until("the copies are in force", || {
        stage
            .patch(ADMIN, "merge", &touch, true)
            .text()
            .contains("no params found")
    });
    stage
        .api
        .patch(
            ADMIN,
            &stage.namespace,
            "wasmplugin",
            "foreign",
            "merge",
            &touch,
            true,
        )
        .must_pass();
    stage.delete(ADMIN, "foreign", true).must_pass();
}
