//! What the sidecars say in their logs, to who reads why a test failed.

use super::{SYSTEM, Stage};

/// How much of a log is printed.
const LINES: &str = "--tail=20";

impl Stage {
    /// Prints its pods and the ends of the logs of the Envoys beside the replicas and the relays, for whoever reads why a test failed.
    pub fn tell(&self) {
        let orders = ["-n", &self.namespace, "-l", "app=orders"];
        let relays = ["-n", SYSTEM, "-l", "app.kubernetes.io/name=injector-relay"];
        let logs = ["logs", "-c", "istio-proxy", "--prefix", LINES];
        for words in [
            vec!["-n", &self.namespace, "get", "pods", "-o", "wide"],
            [&logs[..], &orders].concat(),
            [&logs[..], &relays].concat(),
        ] {
            let told = self.kubectl().run(&words);
            let told = told.unwrap_or_else(|error| error);
            eprintln!("--- kubectl {}\n{told}", words.join(" "));
        }
    }
}
