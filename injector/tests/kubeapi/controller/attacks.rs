//! What an ordinary user, and the controller's own account, may not do.

use serde_json::{Value, json};

use super::control::{PLUGIN, Shop, filter_name, intercept, with};

/// What is tried, as kubectl's arguments, and an object to go with them.
type Attempt = (Vec<String>, Option<Value>);

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// `kubectl VERB … -p PATCH`.
fn patch(text: &str, patch: &Value) -> Attempt {
    let mut arguments = words(&format!("patch {text} --type=merge -p"));
    arguments.push(patch.to_string());
    (arguments, None)
}

#[track_caller]
fn assert_refused(shop: &Shop, user: &str, attempts: &[Attempt]) {
    for (arguments, input) in attempts {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (passed, text) = shop.kubectl(user, &arguments, input.as_ref());
        assert!(!passed, "{user}: kubectl {arguments:?} {input:?}: {text}");
        let is_right = [
            "forbidden",
            "Forbidden",
            "denied",
            "cannot",
            "immutable",
            "belongs to",
            "conflict",
        ];
        assert!(
            is_right.iter().any(|word| text.contains(word)),
            "{user}: kubectl {arguments:?}: {text}"
        );
    }
}

#[test]
fn ordinary_user_cannot_touch_others() {
    let shop = Shop::new("attacked");
    let other = Shop::on(std::sync::Arc::clone(&shop.control), "attacked-too");
    shop.server().must(
        &[
            "-n",
            "attacked-too",
            "delete",
            "rolebinding",
            "alice-injector-developer",
        ],
        None,
    );
    shop.create("bob", &intercept("bob", "bob"));
    other.create("bob", &intercept("bob-too", "bob"));
    shop.create("alice", &intercept("alice", "alice"));
    shop.until("bob", "Programmed", "True Programmed");
    let before = shop.get("bob").expect("it is there");

    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b"}]);
    let renewed = |name: &str| {
        with(
            intercept(name, "bob"),
            "/spec/renewTime",
            json!("2027-01-01T00:00:00Z"),
        )
    };
    let stored = |change: &dyn Fn(&mut Value)| {
        let mut object = before.clone();
        change(&mut object);
        object
    };
    let mine = |pointer: &str, value: Value| {
        let mut object = intercept("mine", "alice");
        object["metadata"][pointer] = value;
        object
    };
    let anonymous = json!({"apiVersion": "injector.dev/v1alpha1", "kind": "Intercept", "metadata": {"generateName": "bob-"}, "spec": intercept("x", "bob")["spec"]});
    let lua = json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": {"name": filter_name("alice")}, "spec": {"configPatches": []}});
    let text = json!({"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": PLUGIN}, "spec": {"pluginConfig": {"intercepts": "{}"}}});
    let grant = |kind: &str, role: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "alice"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}, "subjects": [{"kind": "User", "name": "alice"}]})
    };
    let status = json!({"status": {"expires": "2099-01-01T00:00:00Z"}});
    let many = json!({"a": "", "b": "", "c": "", "d": "", "e": ""});
    let attempts: Vec<Attempt> = vec![
        // In another's name.
        (words("create"), Some(intercept("eve", "bob"))),
        (words("create"), Some(anonymous)),
        (words("apply --server-side"), Some(intercept("eve", "bob"))),
        // Another's.
        patch(
            "intercept bob",
            &json!({"spec": {"renewTime": "2027-01-01T00:00:00Z"}}),
        ),
        patch("intercept bob", &json!({"spec": {"renewTime": null}})),
        patch("intercept bob", &json!({"spec": {"owner": "alice"}})),
        patch("intercept bob", &json!({"spec": {"allowOverlap": true}})),
        patch(
            "intercept bob",
            &json!({"metadata": {"labels": {"a": "b"}}}),
        ),
        patch(
            "intercept bob",
            &json!({"metadata": {"annotations": {"a": "b"}}}),
        ),
        patch(
            "intercept bob",
            &json!({"metadata": {"finalizers": ["a/b"]}}),
        ),
        patch(
            "intercept bob",
            &json!({"metadata": {"ownerReferences": owner}}),
        ),
        patch(
            "intercept bob",
            &json!({"metadata": {"managedFields": [{}]}}),
        ),
        patch("intercept bob --subresource=status", &status),
        (
            words("apply --server-side --field-manager=eve"),
            Some(renewed("bob")),
        ),
        (
            words("apply --server-side --field-manager=eve --force-conflicts"),
            Some(renewed("bob")),
        ),
        (
            words("apply --server-side --field-manager=injector-controller --force-conflicts"),
            Some(renewed("bob")),
        ),
        (
            words("replace"),
            Some(stored(&|one| {
                one["spec"]["renewTime"] = json!("2027-01-01T00:00:00Z")
            })),
        ),
        (
            words("replace"),
            Some(stored(&|one| one["spec"]["owner"] = json!("alice"))),
        ),
        (words("replace --force"), Some(stored(&|_| {}))),
        (
            words("replace --subresource=status"),
            Some(stored(&|one| one["status"] = json!({}))),
        ),
        (words("delete intercept bob"), None),
        (words("delete intercept bob --cascade=orphan"), None),
        (words("delete intercept bob --cascade=foreground"), None),
        (words("delete intercept bob --grace-period=0 --force"), None),
        (words("delete intercept bob --dry-run=server"), None),
        (
            words("delete --raw /apis/injector.dev/v1alpha1/namespaces/attacked/intercepts"),
            None,
        ),
        // One's own, beyond what is one's own business.
        (words("create"), Some(mine("finalizers", json!(["a/b"])))),
        (
            words("create"),
            Some(mine("ownerReferences", owner.clone())),
        ),
        (words("create"), Some(mine("annotations", many))),
        (
            words("create"),
            Some(mine("annotations", json!({"a": "x".repeat(4_097)}))),
        ),
        patch(
            "intercept alice",
            &json!({"metadata": {"finalizers": ["a/b"]}}),
        ),
        patch(
            "intercept alice",
            &json!({"metadata": {"ownerReferences": owner}}),
        ),
        patch("intercept alice", &json!({"spec": {"owner": "bob"}})),
        patch("intercept alice --subresource=status", &status),
        // Elsewhere.
        (
            words("-n attacked-too create"),
            Some(intercept("alice", "alice")),
        ),
        (words("-n attacked-too delete intercept bob-too"), None),
        (words("-n attacked-too get intercepts"), None),
        // What reaches proxies.
        (words("get envoyfilters"), None),
        (words("create"), Some(lua)),
        (
            words(&format!("delete envoyfilter {}", filter_name("bob"))),
            None,
        ),
        (
            words("apply --server-side --force-conflicts"),
            Some(text.clone()),
        ),
        (
            words("create"),
            Some(with(text, "/metadata/name", json!("mine"))),
        ),
        patch(
            &format!("wasmplugin {PLUGIN}"),
            &json!({"spec": {"pluginConfig": {"intercepts": "{}"}}}),
        ),
        patch(
            &format!("wasmplugin {PLUGIN}"),
            &json!({"spec": {"url": "http://eve/"}}),
        ),
        (words(&format!("delete wasmplugin {PLUGIN}")), None),
        // The controller's rights.
        (
            words("create"),
            Some(grant("ClusterRole", "injector-controller-workload")),
        ),
        (words("create"), Some(grant("ClusterRole", "cluster-admin"))),
        (
            words("-n injector-system create token injector-controller"),
            None,
        ),
        (
            words("delete validatingadmissionpolicy injector-intercepts"),
            None,
        ),
        (
            words("delete validatingadmissionpolicybinding injector-intercepts"),
            None,
        ),
        (words("delete crd intercepts.injector.dev"), None),
    ];
    assert!(attempts.len() >= 40, "{}", attempts.len());
    assert_refused(&shop, "alice", &attempts);
    let after = shop.get("bob").expect("it is there");
    assert_eq!(
        (&before["spec"], &before["metadata"]["uid"]),
        (&after["spec"], &after["metadata"]["uid"])
    );
    assert!(other.get("bob-too").is_some());

    // What is one's own business.
    shop.must("alice", &["label", "intercept", "alice", "team=red"], None);
    shop.must(
        "alice",
        &["annotate", "intercept", "alice", "note=mine"],
        None,
    );
    shop.must("alice", &["delete", "intercept", "alice"], None);
}

#[test]
fn controllers_account_is_held_to_what_it_writes() {
    let shop = Shop::new("held");
    shop.create("bob", &intercept("bob", "bob"));
    shop.until("bob", "Programmed", "True Programmed");
    let filter = shop.filter("bob").expect("it is there");
    let bare = |name: &str| {
        let mut filter = filter.clone();
        filter["metadata"] = json!({"name": filter_name(name), "namespace": "held", "labels": filter["metadata"]["labels"],
            "annotations": filter["metadata"]["annotations"], "ownerReferences": filter["metadata"]["ownerReferences"]});
        filter["metadata"]["labels"]["injector.dev/intercept"] = json!(name);
        let cluster = &mut filter["spec"]["configPatches"][0]["patch"]["value"]["name"];
        *cluster = json!(format!("intercept|8080|{name}|relay-0"));
        filter
    };
    let value = "/spec/configPatches/0/patch/value";
    let clusters = format!("{value}/cluster_type/typed_config/clusters");
    let relay = bare("x")
        .pointer(&format!("{clusters}/0"))
        .cloned()
        .expect("a relay");
    let apply = "apply --server-side --force-conflicts --field-manager=injector-controller";
    let changed = |pointer: &str, to: Value| (words(apply), Some(with(bare("x"), pointer, to)));
    let plugin = format!("wasmplugin {PLUGIN}");
    let config =
        |key: &str, to: Value| patch(&plugin, &json!({"spec": {"pluginConfig": {key: to}}}));
    let lua = json!([{"applyTo": "HTTP_FILTER", "match": {"context": "SIDECAR_INBOUND"}, "patch": {"operation": "INSERT_FIRST", "value": {"name": "lua"}}}]);
    let attempts: Vec<Attempt> = vec![
        patch(&plugin, &json!({"spec": {"url": "http://eve/filter.wasm"}})),
        patch(&plugin, &json!({"spec": {"sha256": "0".repeat(63) + "1"}})),
        patch(
            &plugin,
            &json!({"spec": {"selector": {"matchLabels": {"app": "payments"}}}}),
        ),
        patch(
            &plugin,
            &json!({"spec": {"vmConfig": {"env": [{"name": "A", "value": "b"}]}}}),
        ),
        patch(&plugin, &json!({"spec": {"failStrategy": "FAIL_CLOSE"}})),
        config("limits", json!({"allow_all": true})),
        config("version", json!(3)),
        config("generation", json!(1)),
        config("intercepts", json!({"a": {}})),
        patch(
            &plugin,
            &json!({"metadata": {"labels": {"istio.io/rev": "x"}}}),
        ),
        patch(
            &plugin,
            &json!({"metadata": {"annotations": {"injector.dev/preparation": "{}"}}}),
        ),
        patch(&plugin, &json!({"metadata": {"finalizers": ["a/b"]}})),
        (words(&format!("delete {plugin}")), None),
        (
            words("create"),
            Some(
                json!({"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "x"}, "spec": {"url": "http://eve/"}}),
            ),
        ),
        changed("/spec/configPatches", lua),
        changed("/spec/workloadSelector", Value::Null),
        changed("/spec/workloadSelector", json!({"labels": {}})),
        changed("/spec/priority", json!(1)),
        changed("/spec/configPatches/0/applyTo", json!("LISTENER")),
        changed("/spec/configPatches/0/match/context", json!("ANY")),
        changed("/spec/configPatches/0/patch/operation", json!("MERGE")),
        changed(&format!("{value}/name"), json!("inbound|8080||")),
        changed(
            &format!("{value}/name"),
            json!("intercept|8080|another|relay-0"),
        ),
        changed(&format!("{value}/name"), json!("intercept|8080|x|relay-1")),
        changed(&format!("{value}/name"), json!("intercept|8080|x")),
        changed("/metadata/name", json!("intercept-x")),
        changed("/metadata/name", json!("intercept-x-0123456789")),
        changed("/metadata/name", json!("intercept-x-y-01234567")),
        changed("/metadata/name", json!("intercept-x-0123456z")),
        changed(
            &clusters,
            json!([relay, "outbound|80||payments.held.svc.cluster.local"]),
        ),
        changed(
            &clusters,
            json!([
                "outbound|8080||payments.held.svc.cluster.local",
                "intercept-app|8080"
            ]),
        ),
        changed(&clusters, json!([relay])),
        changed(&format!("{value}/transport_socket"), json!({"name": "x"})),
        changed("/metadata/finalizers", json!(["a/b"])),
        changed("/metadata/ownerReferences", Value::Null),
        changed("/metadata/labels/injector.dev~1intercept", Value::Null),
        (
            words(apply),
            Some(with(bare("x"), "/metadata/name", json!("gate"))),
        ),
        (
            words("-n default create"),
            Some(with(bare("x"), "/metadata/namespace", json!("default"))),
        ),
        (words("get secrets"), None),
        patch("intercept bob", &json!({"spec": {"renewTime": null}})),
    ];
    assert_refused(&shop, "controller", &attempts);
    // What it writes itself.
    shop.must(
        "controller",
        &words(apply).iter().map(String::as_str).collect::<Vec<_>>(),
        Some(&bare("x")),
    );
    shop.must(
        "controller",
        &["delete", "envoyfilter", &filter_name("x")],
        None,
    );
    let (arguments, _) = config("intercepts", json!("{}"));
    shop.must(
        "controller",
        &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
        None,
    );
}
