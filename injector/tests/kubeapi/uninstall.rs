//! What `injector uninstall` takes from a whole cluster, and what it leaves.

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
