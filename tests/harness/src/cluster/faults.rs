//! Faults in a cluster: killed programs, an absent controller, dropped packets.
//!
//! The guard or the test repairs each.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Cluster, SYSTEM};
use crate::wait;

/// The controller's Deployment.
const CONTROLLER: &str = "deployment/injector-controller";

/// Timeout for a program to come back.
const BACK: Duration = Duration::from_secs(60);

/// Processes of `/injector COMMAND` in the cluster's pods, found by the cluster's cgroup.
pub fn processes(command: &str) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = ids.filter(|id| {
        // It may end in the meantime.
        let read = |file: &str| std::fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
        let cgroup = String::from_utf8_lossy(&read("cgroup")).into_owned();
        let words = read("cmdline");
        let mut words = words.split(|byte| *byte == 0);
        cgroup.contains("/injector-cluster/")
            && words.next() == Some(&b"/injector"[..])
            && words.next() == Some(command.as_bytes())
    });
    ours.map(|id| Pid::from_raw(id).expect("not 0")).collect()
}

/// Kills processes with SIGKILL.
pub fn kill(processes: &[Pid]) {
    for process in processes {
        // It may have ended by itself.
        let _ = kill_process(*process, Signal::KILL);
    }
}

impl Cluster {
    /// Waits until the controller runs as another process than these.
    pub async fn wait_controller(&self, before: &[Pid]) {
        wait::within(BACK, "a controller runs", async || {
            let now = processes("controller");
            now.iter().any(|one| !before.contains(one)).then_some(())
        })
        .await;
    }

    /// Deletes the controller's pod without a grace period.
    pub fn delete_controller(&self) {
        let pods = ["-l", "app.kubernetes.io/name=injector-controller"];
        let at_once = ["--force", "--grace-period=0", "--wait=false"];
        let delete = ["-n", SYSTEM, "delete", "pod"];
        self.kubectl.must(&[&delete[..], &pods, &at_once].concat());
    }

    /// Removes the controller until the guard restores it.
    pub async fn without_controller(&'static self) -> Absent {
        let absent = Absent(self);
        self.scale_controller(0);
        wait::within(BACK, "the controller is gone", async || {
            processes("controller").is_empty().then_some(())
        })
        .await;
        absent
    }

    fn scale_controller(&self, replicas: usize) {
        let replicas = format!("--replicas={replicas}");
        self.kubectl
            .must(&["-n", SYSTEM, "scale", CONTROLLER, &replicas]);
    }
}

/// A guard while the controller is absent.
#[derive(Debug)]
pub struct Absent(&'static Cluster);

impl Absent {
    /// Restores the controller, and waits until it runs.
    pub async fn end(self) {
        let cluster = self.0;
        drop(self);
        cluster.wait_controller(&[]).await;
    }
}

impl Drop for Absent {
    fn drop(&mut self) {
        self.0.scale_controller(1);
    }
}

/// A rule that drops packets until the guard removes it.
#[derive(Debug)]
pub struct Dropped {
    cluster: &'static Cluster,
    rule: Vec<String>,
}

impl Dropped {
    /// Adds the rule to this iptables chain of the node.
    ///
    /// Packets between pods pass FORWARD, packets to the API server INPUT, and its responses OUTPUT.
    pub fn new(cluster: &'static Cluster, chain: &str, rule: &str) -> Self {
        let words = std::iter::once(chain).chain(rule.split_whitespace());
        let dropped = Self {
            cluster,
            rule: words.map(str::to_owned).collect(),
        };
        dropped.firewall("drop");
        dropped
    }

    /// Drops all packets of this pod's current connections to the API server.
    pub fn connections(cluster: &'static Cluster, pod: std::net::IpAddr) -> Vec<Self> {
        let ports = cluster.script("firewall", &["ports", &pod.to_string()]);
        let rules = ports.split_whitespace().flat_map(|port| {
            let sent = format!("--source {pod} --protocol tcp --sport {port}");
            let answered = format!("--destination {pod} --protocol tcp --dport {port}");
            [("INPUT", sent), ("OUTPUT", answered)]
        });
        rules
            .map(|(chain, rule)| Self::new(cluster, chain, &rule))
            .collect()
    }

    fn firewall(&self, verb: &str) {
        let words = std::iter::once(verb).chain(self.rule.iter().map(String::as_str));
        self.cluster.script("firewall", &words.collect::<Vec<_>>());
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        self.firewall("allow");
    }
}
