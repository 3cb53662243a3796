//! Queries of sidecars, and their logs for failed tests.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{SYSTEM, Stage};

/// How many lines of each log to read, and how many of those to print.
///
/// Requests that were answered as usual say nothing of a failure.
const LINES: (&str, usize) = ("--tail=2000", 30);

impl Stage {
    /// Queries the Envoy of each replica, by the replica's name.
    pub fn ask_proxies(&self, path: &str) -> BTreeMap<String, String> {
        let ask = |pod: &str| {
            let sidecar = ["exec", pod, "-c", "istio-proxy", "--"];
            self.run(&[&sidecar[..], &["pilot-agent", "request", "GET", path]].concat())
        };
        let replicas = self.replicas().into_iter();
        replicas.map(|(pod, _)| (pod.clone(), ask(&pod))).collect()
    }

    /// When each replica's Envoy received its inbound listener.
    ///
    /// A changed listener cuts open connections after a while.
    pub fn inbound_listeners(&self) -> BTreeMap<String, String> {
        let dumps = self.ask_proxies("config_dump?resource=dynamic_listeners");
        let since = |dump: &str| {
            let dump: Value = serde_json::from_str(dump).expect("JSON");
            let mut listeners = dump["configs"].as_array().expect("a list").iter();
            let inbound = listeners.find(|listener| listener["name"] == "virtualInbound");
            let since = &inbound.expect("one for what comes in")["active_state"]["last_updated"];
            since.as_str().expect("a time").to_owned()
        };
        let since = dumps.into_iter().map(|(pod, dump)| (pod, since(&dump)));
        since.collect()
    }

    /// Prints the pods and the ends of the Envoys' logs, to explain a failed test.
    ///
    /// The Envoys are those beside the replicas and the relays.
    pub fn tell(&self) {
        let orders = ["-n", &self.namespace, "-l", "app=orders"];
        let relays = ["-n", SYSTEM, "-l", "app.kubernetes.io/name=injector-relay"];
        let caller = ["-n", &self.namespace, "caller"];
        let logs = ["logs", "-c", "istio-proxy", "--prefix", LINES.0];
        for words in [
            vec!["-n", &self.namespace, "get", "pods", "-o", "wide"],
            [&logs[..], &caller].concat(),
            [&logs[..], &orders].concat(),
            [&logs[..], &relays].concat(),
        ] {
            let told = self.kubectl().run(&words);
            let told = told.unwrap_or_else(|error| error);
            let unusual = told.lines().filter(|line| !line.contains("\" 200 - "));
            let unusual: Vec<_> = unusual.collect();
            let last = &unusual[unusual.len().saturating_sub(LINES.1)..];
            eprintln!("--- kubectl {}\n{}", words.join(" "), last.join("\n"));
        }
    }
}
