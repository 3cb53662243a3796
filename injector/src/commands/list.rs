//! `injector list`: what is intercepted at the moment, one line each.

use std::collections::HashMap;

use intercept_core::Config;
use serde::Serialize;

use crate::args::{Global, List};
use crate::backend;
use crate::detached::Place;
use crate::error::Result;
use crate::model::Found;
use crate::output::intercept::{DetachedShown, InterceptShown};
use crate::output::print::{self, Shown};
use crate::rejection;

/// Prints the table.
pub async fn run(global: &Global, flags: &List) -> Result<()> {
    let all = gather(global, flags.all_namespaces).await?;
    print::print(global.output, &Table(all))
}

/// All intercepts, with what the relay knows of their tunnels.
pub async fn gather(global: &Global, everywhere: bool) -> Result<Vec<InterceptShown>> {
    let mut backend = backend::open(global).await?;
    if everywhere {
        backend.everywhere()?;
    }
    // A user who may only read sees the list all the same.
    let _ = backend.sweep();
    let all = backend.all().await?;
    let now = backend.now().await?;
    let tunnels = backend.presences(&all).await;
    let left_out = left_out(&all, now);
    let mut shown = Vec::new();
    let beside = left_out.into_iter().zip(tunnels);
    for (found, (left_out, tunnel)) in all.into_iter().zip(beside) {
        let Found {
            namespace,
            workload,
            name,
            intercept,
            refusal,
            replicas,
            ..
        } = found;
        let place = Place::of(&backend.detached_in(namespace.as_deref()));
        let detached = place.and_then(|place| detached(&place, &name, &intercept.address));
        let mut one = InterceptShown::new(name, &workload, intercept, tunnel, now);
        one.left_out = refusal.or(left_out);
        one.namespace = namespace;
        one.replicas = replicas;
        one.detached = detached;
        shown.push(one);
    }
    if shown.is_empty() && !global.quiet {
        eprintln!("nothing is intercepted");
    }
    Ok(shown)
}

/// Why the filter leaves each out although its lease is not over, where that is so. In the same order. In a mesh the controller has said so before.
fn left_out(all: &[Found], now: u64) -> Vec<Option<String>> {
    if all.iter().any(|found| found.namespace.is_some()) {
        return vec![None; all.len()];
    }
    let workload = |found: &Found| (found.namespace.clone(), found.kind, found.workload.clone());
    let of_workload = |found: &[Found]| {
        let intercepts = found.iter();
        let intercepts = intercepts.map(|one| (one.name.clone(), one.intercept.clone()));
        let config = Config {
            limits: found[0].limits.clone(),
            intercepts: intercepts.collect(),
            ..Config::default()
        };
        let mut reasons = HashMap::new();
        for (name, reason) in rejection::reasons(config, Some(now)) {
            let reason = reason.strip_prefix(&format!("intercepts.{name}"));
            let reason = reason
                .unwrap_or_default()
                .trim_start_matches(['.', ':', ' ']);
            reasons.entry(name).or_insert(reason.to_owned());
        }
        let reasons = found.iter().map(|one| reasons.remove(&one.name));
        reasons.collect::<Vec<_>>()
    };
    let workloads = all.chunk_by(|one, next| workload(one) == workload(next));
    workloads.flat_map(of_workload).collect()
}

fn detached(place: &Place, name: &str, address: &str) -> Option<DetachedShown> {
    let process = place.find(name)?;
    let is_it = process.record.address == address && process.is_here() && process.is_running();
    is_it.then(|| DetachedShown {
        pid: process.record.pid,
        log: process.record.log.to_string_lossy().into_owned(),
    })
}

#[derive(Serialize)]
#[serde(transparent)]
struct Table(Vec<InterceptShown>);

impl Shown for Table {
    fn text(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let mut head = vec![
            "NAME",
            "DEVELOPER",
            "REQUESTS",
            "DESTINATION",
            "LEASE",
            "TUNNEL",
        ];
        if self.0.iter().any(|shown| shown.replicas.is_some()) {
            head.push("REPLICAS");
        }
        let mut rows = vec![head.into_iter().map(str::to_owned).collect()];
        rows.extend(self.0.iter().map(|shown| {
            vec![
                shown.name.clone(),
                shown.developer.clone(),
                format!("{}:{} {}", shown.place(), shown.port, shown.requests),
                shown.cluster.clone(),
                shown.lease_left(),
                shown.tunnel_here(),
                shown.replicas_live(),
            ]
        }));
        print::table(&rows)
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|shown| shown.name.as_str()).collect()
    }
}
