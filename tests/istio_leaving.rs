//! Every way to end an intercept with running requests, on a real mesh.
//!
//! The same as `sandbox_leaving` in the sandbox.

use std::process::Command;

use harness::binaries;
use harness::cluster::{Plan, Stage};
use harness::leaving::{COMMANDS, Kind, Place, SIGNALS, Way};

/// The kinds of requests on a port of protocol http.
const WEB: [Kind; 5] = [
    Kind::Get,
    Kind::Head,
    Kind::Post,
    Kind::Events,
    Kind::WebSocket,
];

/// A port of the Service, the text after the port in `--port`, and the kinds of requests.
struct Port {
    number: u16,
    service: &'static str,
    kinds: &'static [Kind],
}

const PORTS: [Port; 2] = [
    Port {
        number: 80,
        service: ":http",
        kinds: &WEB,
    },
    Port {
        number: 9000,
        service: ":grpc",
        kinds: &[Kind::Grpc],
    },
];

/// Runs the cases on one port after the other, and checks that nothing is left.
async fn leave(name: &str, ways: &[Way]) {
    let plan = Plan::new(name).port("grpc", 9000, 9000, "app");
    let stage = plan.start().await;
    for port in PORTS {
        leave_at(&stage, &port, ways).await;
    }
}

async fn leave_at(stage: &Stage, port: &Port, ways: &[Way]) {
    let has_entry = |name: &str| stage.entries().iter().any(|entry| entry == name);
    let place = Place {
        developer: &|name| stage.developer(name),
        service: port.service,
        endpoint: stage.endpoint(port.number),
        kinds: port.kinds,
        has_entry: &has_entry,
        uninstall: &|| {
            let mut command = Command::new(binaries::injector());
            let namespace = stage.namespace.as_str();
            command
                .args([
                    "uninstall",
                    "-n",
                    namespace,
                    "--workload",
                    "orders",
                    "--force",
                ])
                .env_remove("INJECTOR_ENVOY");
            command
        },
        scratch: stage.dir(),
    };
    place.leave(ways).await;
    let there = stage.intercepts();
    for way in ways {
        let is_left = there.contains(&way.intercept());
        assert_eq!(is_left, *way == Way::Kill, "{way:?}");
        if is_left {
            stage.developer(&way.developer()).run(&["leave", "--all"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_signal_keeps_requests_whole() {
    leave("signals", &SIGNALS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_keeps_requests_whole() {
    leave("commands", &COMMANDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstall_keeps_requests_whole() {
    let plan = Plan::new("uninstalled");
    let stage = plan.start().await;
    leave_at(&stage, &PORTS[0], &[Way::Uninstalled]).await;
}
