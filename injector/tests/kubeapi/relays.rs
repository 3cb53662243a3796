//! Which relay takes a tunnel.

use intercept_manifest::istio::install::cluster_objects;
use intercept_manifest::istio::{example, workload_objects};
use intercept_tunnel::developer::{Developer, Event, Local, LocalProtocol, Tcp, run};
use intercept_tunnel::{Secret, relay};
use rustix::process::Signal;
use serde_json::json;

use super::rbac;
use super::server::Server;
use super::stage::{INTERCEPT, Stage};

#[test]
fn a_developer_with_one_relay_of_two_uses_that_one() {
    let stage = Stage::new("onerelay");
    let rules = json!([
        {"apiGroups": ["apps"], "resources": ["statefulsets"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods", "pods/portforward"], "resourceNames": ["injector-relay-1"], "verbs": ["get", "create"]},
    ]);
    stage.server.apply_all(&[
        rbac::binding("onerelay", "carol", "ClusterRole", "injector-developer"),
        rbac::role("injector-system", "one-relay", rules),
        rbac::binding("injector-system", "carol", "Role", "one-relay"),
    ]);
    // Several names, so that the address of some would choose the other relay.
    for name in ["one", "two", "three", "four"] {
        let header = format!("--http-header=Coder={name}");
        let carol = stage.start(
            "carol",
            &["intercept", "orders", "--port=1", "--name", name, &header],
        );
        carol.is_live();
        let intercept = stage.intercept(name).expect("there");
        assert_eq!(intercept["spec"]["tunnel"]["relay"], 1);
        carol.signal(Signal::INT);
        assert_eq!(carol.end().code, Some(0));
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The workload's gate leads to relays of this version in another namespace, which have no pods yet.
fn own_relays(stage: &Stage, namespace: &str, version: &str) {
    let mut install = example::install();
    install.mesh.namespace = namespace.to_owned();
    install.version = version.to_owned();
    let mut rendered = cluster_objects(&install).expect("rendered");
    rendered.retain(|object| object.kind() == "StatefulSet");
    let gate = workload_objects(&install.mesh, &stage.workload(), &example::plugin());
    // The controller's rights stay as they are.
    let prepared = gate.expect("rendered").into_iter();
    rendered.extend(prepared.filter(|object| object.kind() != "RoleBinding"));
    let mut objects = Server::namespace_objects(namespace).to_vec();
    objects.extend(rendered.iter().map(|object| object.value().clone()));
    stage.server.apply_all(&objects);
}

#[test]
fn relays_that_are_not_ready_or_of_another_version_are_refused() {
    let stage = Stage::new("unready");
    own_relays(&stage, "unready-system", VERSION);
    let refused = |expected: &str| {
        let ran = stage.run("admin", INTERCEPT);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(
            ran.stderr.starts_with(&format!("error: {expected}\n")),
            "{ran:?}"
        );
        assert_eq!(stage.intercepts(), [""; 0]);
    };
    refused("no relay of unready-system is ready");
    own_relays(&stage, "unready-system", "99.0.0");
    refused(&format!(
        "the relays of unready-system are version 99.0.0, this is {VERSION}"
    ));
}

#[test]
fn a_tunnel_for_which_one_relay_has_no_room_goes_to_the_other() {
    // On a server of its own: the policy on the controller allows the relays of `injector-system` only.
    let stage = Stage::alone("crowded");
    let options = relay::Options {
        tunnels: 1,
        ..relay::Options::default()
    };
    let full = stage.server.relay("injector-system", 0, options);
    let (events_tx, mut events) = tokio::sync::mpsc::channel(16);
    stage.wait(async {
        let local = Local {
            port: 1,
            protocol: LocalProtocol::Auto,
        };
        let only = Developer::new("only", Secret::random(), local);
        tokio::spawn(run(only, Tcp(full), events_tx, std::future::pending()));
        let up = events.recv().await;
        assert!(matches!(up, Some(Event::Up { .. })), "{up:?}");
    });
    // Several, so that the address of some chooses the full one.
    let names = ["one", "two", "three", "four", "five"];
    let running = names.map(|name| {
        let header = format!("--http-header=Coder={name}");
        let arguments = ["intercept", "orders", "--port=1", "--name", name, &header];
        stage.start("admin", &arguments)
    });
    for (name, running) in names.iter().zip(running) {
        running.is_live();
        let intercept = stage.intercept(name).expect("there");
        assert_eq!(intercept["spec"]["tunnel"]["relay"], 1);
        running.signal(Signal::INT);
        assert_eq!(running.end().code, Some(0));
    }
}
