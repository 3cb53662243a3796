//! What the controller makes of Intercepts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use intercept_manifest::istio::resource::Intercept;
use serde_json::{Value, json};

use super::super::rbac;
use super::super::server::Server;
use super::super::support::now;
use super::control::{Control, PLUGIN, Shop, filter_name, intercept, with};

fn entries(shop: &Shop) -> Vec<String> {
    let text: Value = serde_json::from_str(&shop.text()).unwrap_or_default();
    text.as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect()
}

#[test]
fn intercept_is_programmed_and_removed() {
    let shop = Shop::new("reconciled");
    let started = Instant::now();
    shop.create("bob", &intercept("bob", "bob"));
    shop.must(
        "bob",
        &[
            "wait",
            "--for=condition=Programmed",
            "intercept/bob",
            "--timeout=60s",
        ],
        None,
    );
    println!(
        "programmed {:?} after kubectl was started",
        started.elapsed()
    );
    assert_eq!(
        shop.until("bob", "Programmed", "True Programmed"),
        "2/2 replicas"
    );
    assert_eq!(entries(&shop), ["bob"]);
    let filter = shop.filter("bob").expect("its cluster");
    let plugin = shop.plugin();
    assert_eq!(
        filter["metadata"]["ownerReferences"][0]["uid"],
        plugin["metadata"]["uid"]
    );
    let shown = shop.must(
        "admin",
        &[
            "get",
            "envoyfilter",
            &filter_name("bob"),
            "-o",
            "json",
            "--show-managed-fields",
        ],
        None,
    );
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let managers = shown["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let managers: Vec<_> = managers.iter().map(|one| &one["manager"]).collect();
    assert_eq!(managers, ["injector-controller"]);
    let status = &shop.get("bob").expect("it is there")["status"];
    assert_eq!(status["replicas"], json!({"programmed": 2, "total": 2}));
    assert_eq!(status["observedRenewTime"], "2026-11-30T09:00:00Z");
    let described = shop.must("bob", &["describe", "intercept", "bob"], None);
    assert!(
        described.contains("Accepted") && described.contains("2/2 replicas"),
        "{described}"
    );

    shop.must("bob", &["delete", "intercept", "bob"], None);
    shop.wait("the entry is gone", || {
        (shop.text() == "{}")
            .then_some(())
            .ok_or_else(|| shop.text())
    });
    assert!(shop.filter("bob").is_some(), "requests under way need it");
    // The operator's fields are as they were.
    assert_eq!(plugin["spec"]["url"], shop.plugin()["spec"]["url"]);
    assert_eq!(
        plugin["spec"]["pluginConfig"]["limits"],
        shop.plugin()["spec"]["pluginConfig"]["limits"]
    );
}

#[test]
fn conflicts_are_decided_in_order_of_creation() {
    let shop = Shop::new("conflicts");
    shop.create("bob", &intercept("bob", "bob"));
    shop.until("bob", "Accepted", "True Accepted");
    let same = with(
        intercept("alice", "alice"),
        "/spec/match/headers/0/value",
        json!("b.*"),
    );
    shop.create("alice", &same);
    let message = shop.until("alice", "Accepted", "False Conflict");
    assert_eq!(
        message,
        "bob of bob matches the same requests, for example GET / with Coder: bob"
    );
    let stolen = with(
        intercept("eve", "alice"),
        "/spec/tunnel",
        intercept("bob", "bob")["spec"]["tunnel"].clone(),
    );
    shop.create("alice", &stolen);
    assert_eq!(
        shop.until("eve", "Accepted", "False AddressInUse"),
        "spec.tunnel.address: it is the tunnel of bob"
    );
    shop.must("bob", &["delete", "intercept", "bob"], None);
    shop.until("alice", "Programmed", "True Programmed");
    shop.until("eve", "Accepted", "True Accepted");
}

#[test]
fn lease_given_back_ends_once_no_proxy_has_it() {
    let shop = Shop::new("given-back");
    shop.create("bob", &intercept("bob", "bob"));
    shop.until("bob", "Programmed", "True Programmed");
    shop.must(
        "bob",
        &[
            "patch",
            "intercept",
            "bob",
            "--type=merge",
            "-p",
            r#"{"spec": {"renewTime": null}}"#,
        ],
        None,
    );
    shop.wait("it is deleted", || {
        shop.get("bob").map_or(Ok(()), |one| Err(one.to_string()))
    });
    assert_eq!(shop.text(), "{}");
}

#[test]
fn restart_prolongs_no_lease() {
    let shop = Shop::on(Arc::new(Control::start(Server::bare())), "restarted");
    shop.create("bob", &intercept("bob", "bob"));
    shop.create("alice", &intercept("alice", "alice"));
    shop.until("alice", "Programmed", "True Programmed");
    let expires = |name: &str| shop.get(name).unwrap_or_default()["status"]["expires"].clone();
    let before = expires("alice");
    shop.control.restart(|| {
        // As if its lease had been given nearly an hour ago.
        let soon = jiff::Timestamp::from_second(i64::try_from(now()).expect("a time") + 20)
            .expect("a time");
        let patch = json!({"status": {"expires": soon.to_string()}}).to_string();
        shop.must(
            "admin",
            &[
                "patch",
                "intercept",
                "bob",
                "--subresource=status",
                "--type=merge",
                "-p",
                &patch,
            ],
            None,
        );
        shop.must(
            "alice",
            &[
                "patch",
                "intercept",
                "alice",
                "--type=merge",
                "-p",
                r#"{"metadata": {"labels": {"a": "b"}}}"#,
            ],
            None,
        );
    });
    shop.wait("it is deleted", || {
        shop.get("bob")
            .map_or(Ok(()), |one| Err(one["status"].to_string()))
    });
    assert_eq!(entries(&shop), ["alice"]);
    assert_eq!(expires("alice"), before);
}

#[test]
fn edited_objects_are_put_right() {
    let shop = Shop::new("edited");
    shop.create("bob", &intercept("bob", "bob"));
    shop.until("bob", "Programmed", "True Programmed");
    let (text, filter) = (shop.text(), shop.filter("bob").expect("its cluster"));
    let name = filter_name("bob");
    let edits: [&[&str]; 6] = [
        &[
            "patch",
            "wasmplugin",
            PLUGIN,
            "--type=merge",
            "-p",
            r#"{"spec": {"pluginConfig": {"intercepts": null}}}"#,
        ],
        &[
            "patch",
            "wasmplugin",
            PLUGIN,
            "--type=merge",
            "-p",
            r#"{"spec": {"pluginConfig": {"intercepts": "x"}}}"#,
        ],
        &[
            "patch",
            "wasmplugin",
            PLUGIN,
            "--type=merge",
            "-p",
            r#"{"spec": {"pluginConfig": {"intercepts": {"a": {}}}}}"#,
        ],
        &["delete", "envoyfilter", &name],
        &[
            "patch",
            "envoyfilter",
            &name,
            "--type=merge",
            "-p",
            r#"{"spec": {"configPatches": []}}"#,
        ],
        &[
            "patch",
            "envoyfilter",
            &name,
            "--type=merge",
            "-p",
            r#"{"metadata": {"ownerReferences": null, "annotations": null}}"#,
        ],
    ];
    for edit in edits {
        shop.must("admin", edit, None);
        shop.wait(&format!("{edit:?} is put right"), || {
            let there = shop.filter("bob").unwrap_or_default();
            let is_right = shop.text() == text
                && there["spec"] == filter["spec"]
                && there["metadata"]["annotations"] == filter["metadata"]["annotations"]
                && there["metadata"]["ownerReferences"] == filter["metadata"]["ownerReferences"];
            is_right
                .then_some(())
                .ok_or_else(|| format!("{} {there}", shop.text()))
        });
    }
    // The filter goes with the workload's preparation: the WasmPlugin is its owner. Nothing recreates it.
    shop.must("admin", &["delete", "wasmplugin", PLUGIN], None);
    shop.until("bob", "Accepted", "False NotPrepared");
    assert!(
        shop.server()
            .object("edited", "wasmplugin", PLUGIN)
            .is_none()
    );
}

#[test]
fn replica_that_lags_or_is_silent_is_named() {
    let shop = Shop::new("lagging");
    shop.proxies.is_stuck.store(true, Ordering::SeqCst);
    shop.create("bob", &intercept("bob", "bob"));
    shop.wait("half of them have it", || {
        let status = shop.get("bob").unwrap_or_default()["status"].clone();
        let is_half = status["replicas"] == json!({"programmed": 1, "total": 2});
        is_half.then_some(()).ok_or_else(|| status.to_string())
    });
    let message = shop.until("bob", "Programmed", "False Pending");
    assert_eq!(message, "1/2 replicas; orders-1 has an older configuration");
    shop.proxies.is_stuck.store(false, Ordering::SeqCst);
    shop.until("bob", "Programmed", "True Programmed");

    shop.proxies.is_silent.store(true, Ordering::SeqCst);
    shop.create("alice", &intercept("alice", "alice"));
    let message = shop.until("alice", "Programmed", "Unknown NotMeasured");
    assert!(
        message.starts_with("1/2 replicas; orders-1: 127."),
        "{message}"
    );
}

#[test]
fn two_controllers_and_kills_leave_nothing() {
    let shop = Shop::on(Arc::new(Control::start(Server::bare())), "killed");
    let mut another = shop.control.another_controller();
    for round in 0..10 {
        let name = format!("bob-{round}");
        shop.create("bob", &intercept(&name, "bob"));
        match round % 2 {
            0 => shop.control.restart(|| {}),
            _ => {
                another.signal(rustix::process::Signal::KILL);
                another = shop.control.another_controller();
            }
        }
        if round >= 2 {
            shop.must(
                "bob",
                &["delete", "intercept", &format!("bob-{}", round - 2)],
                None,
            );
        }
    }
    shop.until("bob-9", "Programmed", "True Programmed");
    shop.wait("only the last two are there", || {
        let entries = entries(&shop);
        (entries == ["bob-8", "bob-9"])
            .then_some(())
            .ok_or_else(|| format!("{entries:?}"))
    });
    shop.must("bob", &["delete", "intercept", "bob-8", "bob-9"], None);
    shop.wait("nothing is left", || {
        let filters = shop.must("admin", &["get", "envoyfilters", "-o", "name"], None);
        (filters.is_empty() && shop.text() == "{}")
            .then_some(())
            .ok_or(filters)
    });
}

#[test]
fn thousand_intercepts_fit_on_one_workload() {
    let shop = Shop::on(Arc::new(Control::start(Server::bare())), "thousand");
    let developers = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "all", "namespace": "thousand"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "injector-developer"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "developers"}]});
    shop.server().apply_all(&[developers]);
    let started = Instant::now();
    for owner in 0..50 {
        let user = format!("dev-{owner}");
        let items: Vec<Value> = (0..20)
            .map(|number| intercept(&format!("{user}-{number}"), &user))
            .collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        shop.must(
            "admin",
            &["create", "--as", &user, "--as-group=developers"],
            Some(&list),
        );
    }
    println!("created after {:?}", started.elapsed());
    let is_true = |one: &Intercept| {
        let status = one.status.as_ref();
        status
            .and_then(|status| status.condition("Programmed"))
            .is_some_and(|one| one.status == "True")
    };
    let until = Instant::now() + Duration::from_secs(300);
    loop {
        let list: Value =
            serde_json::from_str(&shop.must("admin", &["get", "intercepts", "-o", "json"], None))
                .expect("JSON");
        let all: Vec<Intercept> =
            serde_json::from_value(list["items"].clone()).expect("Intercepts");
        let programmed = all.iter().filter(|one| is_true(one)).count();
        if programmed == 1_000 {
            break;
        }
        assert!(Instant::now() < until, "{programmed} of {}", all.len());
        std::thread::sleep(Duration::from_millis(500));
    }
    println!(
        "programmed after {:?}, {} bytes of text",
        started.elapsed(),
        shop.text().len()
    );
    assert_eq!(entries(&shop).len(), 1_000);
    // One more of one owner is too many, and one of another is not.
    shop.must(
        "admin",
        &["create", "--as=dev-0", "--as-group=developers"],
        Some(&intercept("dev-0-more", "dev-0")),
    );
    shop.until("dev-0-more", "Accepted", "False TooMany");
    let started = Instant::now();
    shop.create("bob", &intercept("bob", "bob"));
    shop.until("bob", "Programmed", "True Programmed");
    println!("one more programmed after {:?}", started.elapsed());
}

#[test]
fn namespace_with_intercepts_can_be_deleted() {
    let server = Server::bare();
    server.start_controllers();
    let shop = Shop::on(Arc::new(Control::start(server)), "ending");
    shop.create("bob", &intercept("bob", "bob"));
    shop.until("bob", "Programmed", "True Programmed");
    shop.must(
        "admin",
        &["delete", "namespace", "ending", "--timeout=180s"],
        None,
    );
    assert!(shop.server().object("ending", "intercept", "bob").is_none());
}

/// The roles are enough for all of this: no test binds more to the controller's account.
#[test]
fn account_without_a_binding_writes_nothing() {
    let shop = Shop::new("unbound");
    let role = "injector-controller-workload";
    shop.must("admin", &["delete", "rolebinding", role], None);
    shop.create("bob", &intercept("bob", "bob"));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((shop.text().as_str(), shop.filter("bob")), ("", None));
    let mut binding = rbac::binding("unbound", "x", "ClusterRole", role);
    binding["subjects"] = json!([{"kind": "ServiceAccount", "name": "injector-controller", "namespace": "injector-system"}]);
    shop.server().apply_all(&[binding]);
    shop.until("bob", "Programmed", "True Programmed");
}
