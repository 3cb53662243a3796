//! What `injector uninstall` takes from a whole cluster, and what it leaves.

use std::sync::Arc;

use serde_json::json;

use super::controller::control::{Control, PLUGIN, Shop, filter_name, intercept};
use super::programs::ADMIN;
use super::server::Server;

const INSTALL: &str =
    "install --relay-namespace relays --relay-image registry.example.com/injector:1 --no-wait";

#[track_caller]
fn done(server: &Server, user: &str, words: &str) -> String {
    let ran = server.injector(user, words);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.stdout
}

#[test]
fn installation_is_found_in_any_namespace() {
    let server = Server::bare();
    done(&server, ADMIN, INSTALL);

    // Another namespace is not this one.
    let text = done(&server, ADMIN, "uninstall --relay-namespace elsewhere");
    for expected in [
        "removed  ClusterRole injector-operator\n",
        "removed  CustomResourceDefinition intercepts.injector.dev\n",
    ] {
        assert!(text.contains(expected), "{expected}{text}");
    }
    assert!(!text.contains("relays"), "{text}");

    let text = done(&server, ADMIN, "uninstall");
    for expected in [
        "removed  StatefulSet relays/injector-relay\n",
        "removed  Deployment relays/injector-module\n",
        "removed  Deployment relays/injector-controller\n",
        "removed  Service relays/injector-relay-0\n",
        "removed  Role relays/injector-developer\n",
        "changed  Namespace relays\n",
        "note: the namespace relays is left; to delete it with all that is in it: kubectl delete namespace relays\n",
    ] {
        assert!(text.contains(expected), "{expected}{text}");
    }
    let namespace = server.get("default", "namespace", "relays");
    assert!(namespace["metadata"]["deletionTimestamp"].is_null());
    assert_eq!(
        namespace["metadata"]["labels"],
        json!({"kubernetes.io/metadata.name": "relays"})
    );
    let text = done(&server, ADMIN, "uninstall");
    assert_eq!(text, "nothing of ours is in this cluster\n");
}

#[test]
fn live_intercepts_are_ended_by_force_only() {
    let control = Arc::new(Control::start(Server::bare()));
    let shop = Shop::on(Arc::clone(&control), "ending");
    let server = shop.server();
    shop.create("bob", &intercept("live", "bob"));
    shop.until("live", "Accepted", "True Accepted");
    let refused = server.injector(ADMIN, "uninstall -n ending --workload orders");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for expected in [
        "Deployment/orders in ending is intercepted by live\n",
        "hint: injector leave -n ending --force live; or: injector uninstall -n ending … --force\n",
    ] {
        assert!(refused.stderr.contains(expected), "{expected}{refused:?}");
    }
    assert!(shop.get("live").is_some() && shop.filter("live").is_some());

    // The controller takes it out and deletes it: the Event tells the two ways apart.
    let text = done(
        server,
        ADMIN,
        "uninstall -n ending --workload orders --force",
    );
    for expected in [
        "removed  Intercept ending/live\n",
        "removed  WasmPlugin ending/injector-deployment-orders\n",
        &format!("removed  EnvoyFilter ending/{}\n", filter_name("live")),
        "removed  DestinationRule ending/injector-relay-0\n",
        "removed  RoleBinding ending/injector-controller-workload\n",
    ] {
        assert!(text.contains(expected), "{expected}{text}");
    }
    let events = ["-n", "ending", "get", "events", "-o", "json"];
    let events = server.must(&events, None);
    assert!(events.contains("the lease was given back"), "{events}");
    for (kind, name) in [("wasmplugin", PLUGIN), ("intercept", "live")] {
        assert_eq!(server.object("ending", kind, name), None);
    }
}

#[test]
fn intercepts_end_without_a_controller() {
    let server = Server::bare();
    let control = Arc::new(Control::start(server));
    let shop = Shop::on(Arc::clone(&control), "alone");
    shop.create("bob", &intercept("left", "bob"));
    shop.until("left", "Accepted", "True Accepted");
    // Of a workload that is not prepared.
    let mut other = intercept("other", "bob");
    other["spec"]["workload"]["name"] = json!("elsewhere");
    shop.create("bob", &other);
    control.stop();
    let text = done(shop.server(), ADMIN, "uninstall --force");
    for expected in [
        "removed  Intercept alone/left\n",
        "removed  WasmPlugin alone/injector-deployment-orders\n",
        "removed  Deployment injector-system/injector-controller\n",
        "note: the definition of Intercepts is left, since 1 of workloads that are not prepared are left",
    ] {
        assert!(text.contains(expected), "{expected}{text}");
    }
    assert!(!text.contains("CustomResourceDefinition"), "{text}");
    let all = ["delete", "intercepts", "-A", "--all"];
    shop.server().must(&all, None);
    let text = done(shop.server(), ADMIN, "uninstall");
    assert_eq!(
        text,
        "removed  CustomResourceDefinition intercepts.injector.dev\n"
    );
}
