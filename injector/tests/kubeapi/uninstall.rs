//! What `injector uninstall` takes from a whole cluster, and what it leaves.

use serde_json::{Value, json};

use super::programs::ADMIN;
use super::rbac;
use super::server::Server;
use super::support::wait_until;

const RELAYS: &str = "relays";
const INSTALL: &str =
    "install --relay-namespace relays --relay-image registry.example.com/injector:1 --no-wait";

/// What users may keep there, none of it of a kind that `install` makes something special of. Pods do not run here, so nothing must be true of them.
fn of_others() -> Vec<Value> {
    let object = |version: &str, kind: &str, more: Value| {
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "mine", "namespace": RELAYS}});
        if let (Some(object), Some(more)) = (object.as_object_mut(), more.as_object()) {
            object.extend(more.clone());
        }
        object
    };
    let containers = json!([{"name": "app", "image": "x"}]);
    let template = json!({"spec": {"restartPolicy": "Never", "containers": containers}});
    let job = json!({"template": template});
    let claim =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    vec![
        object("batch/v1", "Job", json!({"spec": job})),
        object(
            "batch/v1",
            "CronJob",
            json!({"spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": job}}}),
        ),
        object("v1", "Pod", json!({"spec": {"containers": containers}})),
        object("v1", "PersistentVolumeClaim", json!({"spec": claim})),
        object("v1", "ServiceAccount", json!({})),
        object(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"spec": {"podSelector": {}}}),
        ),
        object("rbac.authorization.k8s.io/v1", "Role", json!({"rules": []})),
        object(
            "networking.istio.io/v1",
            "VirtualService",
            json!({"spec": {"hosts": ["x.example"]}}),
        ),
    ]
}

/// What is in every namespace, or goes with what is removed; without controllers nobody makes or removes it here.
fn of_nobody(server: &Server) -> Vec<Value> {
    let set = server.get(RELAYS, "statefulset", "injector-relay");
    let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "injector-relay", "uid": set["metadata"]["uid"]});
    let event = json!({"kind": "Namespace", "name": RELAYS, "namespace": RELAYS});
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": RELAYS}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt", "namespace": RELAYS}}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "owned", "namespace": RELAYS, "ownerReferences": [owner]}}),
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "event", "namespace": RELAYS}, "involvedObject": event, "reason": "X", "message": "x"}),
    ]
}

/// Everything but Jobs.
fn almost_administrator(user: &str) -> [Value; 2] {
    let groups = [
        "",
        "admissionregistration.k8s.io",
        "apps",
        "autoscaling",
        "coordination.k8s.io",
        "discovery.k8s.io",
        "extensions.istio.io",
        "networking.istio.io",
        "networking.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "security.istio.io",
        "telemetry.istio.io",
    ];
    let rules = json!([{"apiGroups": groups, "resources": ["*"], "verbs": ["*"]}]);
    [
        rbac::cluster_role("almost", rules),
        rbac::cluster_binding(user, "almost"),
    ]
}

#[track_caller]
fn done(server: &Server, user: &str, words: &str) -> String {
    let ran = server.injector(user, words);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.stdout
}

#[test]
fn relays_are_found_in_whichever_namespace_they_are() {
    let server = Server::bare();
    done(&server, ADMIN, INSTALL);

    // Another namespace is not this one.
    let text = done(&server, ADMIN, "uninstall --relay-namespace elsewhere");
    assert!(
        text.contains("removed  ClusterRole injector-operator"),
        "{text}"
    );
    assert!(!text.contains("relays"), "{text}");

    let text = done(&server, ADMIN, "uninstall");
    for expected in [
        "removed  StatefulSet relays/injector-relay\n",
        "removed  Deployment relays/injector-module\n",
        "removed  Service relays/injector-relay-0\n",
        "removed  Role relays/injector-developer\n",
        "removed  Namespace relays\n",
    ] {
        assert!(text.contains(expected), "{expected}{text}");
    }
    // Without controllers the namespace stays on its way out.
    let text = done(&server, ADMIN, "uninstall");
    assert_eq!(text, "nothing of ours is in this cluster\n");
}

#[test]
fn a_namespace_goes_only_if_it_holds_nothing_of_others() {
    let server = Server::bare();
    done(&server, ADMIN, INSTALL);
    server.apply_all(&of_nobody(&server));
    server.apply_all(&of_others());
    let text = done(&server, ADMIN, "uninstall");
    assert!(is_there(&server), "{text}");
    let note = text.lines().last().unwrap_or_default();
    let start = "note: the namespace relays is kept, since it holds what is not ours: ";
    assert!(note.starts_with(start), "{text}");
    for object in of_others() {
        let expected = format!("{} mine", object["kind"].as_str().unwrap());
        assert!(note.contains(&expected), "{expected}\n{note}");
    }
    for other in ["default", "kube-root-ca.crt", "owned", "Event", "injector-"] {
        assert!(!note.contains(other), "{other}\n{note}");
    }

    // What cannot be told counts as theirs.
    let list = json!({"apiVersion": "v1", "kind": "List", "items": of_others()});
    server.must(&["delete", "--wait=false"], Some(&list));
    // A controller would say that no pod uses the claim.
    let unused = r#"{"metadata": {"finalizers": null}}"#;
    let patch = [
        "-n",
        RELAYS,
        "patch",
        "pvc",
        "mine",
        "--type=merge",
        "-p",
        unused,
    ];
    server.must(&patch, None);
    server.apply_all(&almost_administrator("dave"));
    let text = done(&server, "dave", "uninstall");
    assert!(text.starts_with(&format!("{start}perhaps ")), "{text}");
    assert!(
        text.contains("perhaps jobs.batch (you may not list them)"),
        "{text}"
    );
    assert!(is_there(&server), "{text}");

    assert_eq!(
        done(&server, ADMIN, "uninstall"),
        "removed  Namespace relays\n"
    );
    assert!(!is_there(&server));
}

#[test]
fn what_controllers_made_keeps_no_namespace() {
    let mut server = Server::bare();
    server.start_controllers();
    done(&server, ADMIN, INSTALL);
    // Pods of the StatefulSet and of the Deployment are there, and what belongs to them and to every namespace.
    let kinds =
        "pods,replicasets,controllerrevisions,endpoints,endpointslices,serviceaccounts,configmaps";
    let made = || server.must(&["-n", RELAYS, "get", kinds, "-o", "name"], None);
    let expected = [
        "pod/injector-relay-0",
        "pod/injector-module-",
        "replicaset.apps/injector-module-",
        "controllerrevision.apps/injector-relay-",
        "endpoints/injector-relay",
        "endpointslice.discovery.k8s.io/injector-module-",
        "serviceaccount/default",
        "configmap/kube-root-ca.crt",
    ];
    wait_until(
        || expected.iter().all(|expected| made().contains(expected)),
        made,
    );
    // As pods do that take their time to end, it all outlasts what it was made for.
    let names = made();
    let stay = |finalizers: &Value| {
        let patch = json!({"metadata": {"finalizers": finalizers}}).to_string();
        let words = ["-n", RELAYS, "patch", "--type=merge", "-p", &patch];
        let names = names.lines().filter(|name| name.contains("injector-"));
        server.must(&words.into_iter().chain(names).collect::<Vec<_>>(), None);
    };
    stay(&json!(["test.example/stay"]));
    let text = done(&server, ADMIN, "uninstall");
    assert!(text.ends_with("removed  Namespace relays\n"), "{text}");
    stay(&Value::Null);
    wait_until(
        || server.object("default", "namespace", RELAYS).is_none(),
        made,
    );
}

fn is_there(server: &Server) -> bool {
    let namespace = server.object("default", "namespace", RELAYS);
    namespace.is_some_and(|namespace| namespace["metadata"]["deletionTimestamp"].is_null())
}
