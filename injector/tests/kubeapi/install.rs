//! What `injector install` does to workloads that were prepared before, when the cluster part changes.

use std::sync::Arc;

use serde_json::json;

use super::programs::ADMIN;
use super::server::Server;
use super::stage::{PREPARED, Stage};
use super::support::Ran;

/// Two namespaces with a prepared workload each, on a server of their own: a change of the cluster part concerns all workloads.
struct Two {
    server: Arc<Server>,
    _stages: [Stage; 2],
    module: tempfile::NamedTempFile,
}

impl Two {
    fn new() -> Self {
        let server = Arc::new(Server::bare());
        let install = "install --relay-image registry.example.com/injector:1 --no-wait";
        let ran = server.injector(ADMIN, install);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let stage = |namespace: &str| Stage::on(Arc::clone(&server), namespace, json!({}));
        let stages = ["first", "second"].map(stage);
        let module = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(module.path(), b"\0asm\x01\0\0\0").expect("written");
        Self {
            server,
            _stages: stages,
            module,
        }
    }

    /// `install` in the first namespace, with a filter that need not be served.
    #[track_caller]
    fn install(&self, flags: &str) -> Ran {
        let module = self.module.path().display();
        let words = format!("install -n first --module {module} --no-wait {flags}");
        let ran = self.server.injector(ADMIN, &words);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran
    }

    fn has_third_relay(&self, namespace: &str) -> bool {
        let gate = self.server.get(namespace, "envoyfilter", PREPARED);
        gate.to_string().contains("injector-relay-2.")
    }
}

#[test]
fn a_change_beside_a_named_workload_reaches_the_others_and_the_named_one_once() {
    let two = Two::new();
    let ran = two.install("--workload orders --replicas 3");
    let note = "note: Deployment/orders in second: prepared again for what is installed now; nothing was drained";
    assert!(ran.stdout.contains(note), "{ran:?}");
    assert!(two.has_third_relay("first") && two.has_third_relay("second"));
    let of_first = format!("EnvoyFilter first/{PREPARED}");
    assert_eq!(ran.stdout.matches(&of_first).count(), 1, "{ran:?}");
    assert!(!ran.stdout.contains("orders in first"), "{ran:?}");

    // Without such a change the others are not looked at.
    let ran = two.install("--workload orders");
    assert!(!ran.stdout.contains("second"), "{ran:?}");
}
