//! A real Envoy as a child process, and queries of its admin interface.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::client::Client;
use crate::command::Process;
use crate::wait;

/// A running Envoy.
///
/// Killed when dropped; prints its log, configuration and counters if the test failed.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    config: PathBuf,
    admin: SocketAddr,
}

/// How to start an Envoy.
#[derive(Debug, Clone)]
pub struct Start {
    /// The program, after any wrapper such as a profiler.
    pub program: Vec<PathBuf>,
    /// The number of worker threads.
    pub concurrency: u32,
    /// Timeout of the start.
    pub deadline: Duration,
}

impl Envoy {
    /// Starts Envoy with this configuration, and waits until it is live.
    ///
    /// The admin port should be 0. Its files are in `dir`.
    pub async fn start(start: &Start, bootstrap: &Value, dir: &Path) -> Self {
        let config = dir.join("envoy.json");
        let admin_path = dir.join("admin-address");
        let text = serde_json::to_string_pretty(bootstrap).expect("JSON");
        std::fs::write(&config, text).expect("a writable directory");
        // A file of an earlier Envoy would be mistaken for this one's.
        let _ = std::fs::remove_file(&admin_path);
        let mut command = Command::new(&start.program[0]);
        command
            .args(&start.program[1..])
            .arg("--config-path")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&admin_path)
            .args(["--use-dynamic-base-id", "--log-level", "info"])
            .args(["--concurrency", &start.concurrency.to_string()]);
        let mut process = Process::start("envoy", dir, command);
        let admin = wait::within(
            start.deadline,
            "Envoy tells its admin address",
            async || {
                assert_eq!(process.exited(), None, "Envoy ended: {}", process.output());
                std::fs::read_to_string(&admin_path)
                    .ok()?
                    .trim()
                    .parse()
                    .ok()
            },
        )
        .await;
        let mut envoy = Self {
            process,
            config,
            admin,
        };
        envoy.wait_live(start.deadline).await;
        envoy
    }

    async fn wait_live(&mut self, deadline: Duration) {
        let client = Client::h1(self.admin);
        wait::within(deadline, "Envoy is live", async || {
            let ended = self.process.exited();
            assert_eq!(ended, None, "Envoy ended: {}", self.process.output());
            let ready = client.ask(crate::client::Ask::get("/ready")).await;
            ready.ok().filter(|answer| answer.status == 200)
        })
        .await;
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// The address of its admin interface.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// All counters and gauges whose name contains that text.
    pub async fn stats(&self, contains: &str) -> BTreeMap<String, u64> {
        let answer = Client::h1(self.admin).get("/stats", &[]).await;
        let text = String::from_utf8(answer.body.to_vec()).expect("text");
        text.lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(name, _)| name.contains(contains))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// Bytes that its allocator has given out, at this moment.
    ///
    /// The gauges of that name are some seconds old.
    pub async fn allocated(&self) -> u64 {
        let answer = Client::h1(self.admin).get("/memory", &[]).await;
        let memory: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let bytes = memory["allocated"].as_str().expect("a number as text");
        bytes.parse().expect("bytes")
    }

    /// The sum of all counters whose name ends with that text.
    ///
    /// Panics if there is none: a sum over nothing proves nothing.
    pub async fn stat(&self, ends_with: &str) -> u64 {
        let stats = self.stats(ends_with).await;
        let mut found = stats
            .iter()
            .filter(|(name, _)| name.ends_with(ends_with))
            .map(|(_, value)| *value)
            .peekable();
        assert!(found.peek().is_some(), "no counter ends with {ends_with}");
        found.sum()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.process.output()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let config = std::fs::read_to_string(&self.config);
            eprintln!("--- Envoy's configuration:\n{}", config.unwrap_or_default());
            let stats = crate::raw::exchange_blocking(
                self.admin,
                b"GET /stats?usedonly HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n",
            );
            eprintln!("--- Envoy's counters:\n{}", String::from_utf8_lossy(&stats));
        }
    }
}
