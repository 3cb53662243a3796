//! `injector list`: what is intercepted at the moment, one line each; and one intercept as every command shows it.

use std::time::Duration;

use intercept_core::{Intercept, MatchBaggage, MatchHeader, MatchPath};
use serde::Serialize;

use crate::args::{Global, List};
use crate::backend::{Backend, Found, Replicas};
use crate::detached::Place;
use crate::hint::Result;
use crate::left_out;
use crate::print::{self, Shown};
use crate::printable::one_line;
use crate::session::presence::Presence;
use crate::words;

/// Prints the table.
pub async fn run(global: &Global, flags: &List) -> Result<()> {
    let all = gather(global, flags.all_namespaces).await?;
    print::print(global.output, &Table(all))
}

/// One intercept as it is shown; the JSON of `list` and `status`.
#[derive(Debug, Serialize)]
pub struct InterceptShown {
    /// Its name.
    pub name: String,
    /// The workload's namespace, in a mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The workload whose requests it takes.
    pub workload: String,
    /// Who claims it.
    pub developer: String,
    /// The workload's port.
    pub port: u16,
    /// Its conditions in words.
    pub requests: String,
    headers: Vec<MatchHeader>,
    baggage: Vec<MatchBaggage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<MatchPath>,
    /// The Envoy cluster that takes matched requests.
    cluster: String,
    /// The tunnel's public name.
    address: String,
    /// Seconds since the epoch.
    created: u64,
    /// Seconds since the epoch.
    expires: u64,
    lease_left_seconds: u64,
    /// Why it takes no request although its lease is not over, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<String>,
    /// Is the developer machine there?
    tunnel: Presence,
    /// How many replicas of the workload have it, where that can be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
    /// The process of this machine that keeps it in the background, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    detached: Option<DetachedShown>,
}

/// A process of this machine that keeps an intercept in the background.
#[derive(Debug, Serialize)]
struct DetachedShown {
    pid: u32,
    log: String,
}

/// All intercepts, with what the relay knows of their tunnels.
pub async fn gather(global: &Global, everywhere: bool) -> Result<Vec<InterceptShown>> {
    let backend = match everywhere {
        true => Backend::open(global).await?.everywhere()?,
        false => Backend::open(global).await?,
    };
    // Somebody who may only read wants to see the list all the same.
    let _ = backend.sweep().await;
    let all = backend.all().await?;
    let now = backend.now().await?;
    let (tunnels, replicas) = tokio::join!(backend.presences(&all), backend.replicas(&all));
    let mut shown = Vec::new();
    for ((found, tunnel), replicas) in all.into_iter().zip(tunnels).zip(replicas) {
        let Found {
            namespace,
            workload,
            name,
            intercept,
            limits,
            ..
        } = found;
        let place = Place::of(&backend.detached_in(namespace.as_deref()));
        let detached = place.and_then(|place| detached(&place, &name, &intercept.address));
        let left_out = left_out::reason(&name, &intercept, &limits, now);
        let mut one = InterceptShown::new(name, &workload, intercept, tunnel, now);
        one.left_out = left_out;
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

fn detached(place: &Place, name: &str, address: &str) -> Option<DetachedShown> {
    let process = place.find(name)?;
    let is_it = process.record.address == address && process.is_here() && process.is_running();
    is_it.then(|| DetachedShown {
        pid: process.record.pid,
        log: process.record.log.to_string_lossy().into_owned(),
    })
}

impl InterceptShown {
    /// What there is to show; `now` in seconds since the epoch.
    pub fn new(
        name: String,
        workload: &str,
        intercept: Intercept,
        tunnel: Presence,
        now: u64,
    ) -> Self {
        Self {
            name,
            namespace: None,
            replicas: None,
            detached: None,
            workload: workload.to_owned(),
            requests: words::conditions(&intercept),
            developer: intercept.owner,
            port: intercept.port,
            headers: intercept.headers,
            baggage: intercept.baggage,
            path: intercept.path,
            cluster: intercept.cluster,
            address: intercept.address,
            created: intercept.created,
            expires: intercept.expires,
            lease_left_seconds: intercept.expires.saturating_sub(now),
            left_out: None,
            tunnel,
        }
    }

    /// `orders`, or `shop/orders` where there are namespaces.
    fn place(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.workload),
            None => self.workload.clone(),
        }
    }

    /// `2/3`; empty where that cannot be seen.
    fn replicas_live(&self) -> String {
        let shown = self
            .replicas
            .map(|Replicas { live, all }| format!("{live}/{all}"));
        shown.unwrap_or_default()
    }

    /// `up, detached`.
    fn tunnel_here(&self) -> String {
        match self.detached {
            Some(_) => format!("{}, detached", self.tunnel),
            None => self.tunnel.to_string(),
        }
    }

    /// Empty where it does not run in the background of this machine.
    fn process(&self) -> String {
        let shown = self.detached.as_ref();
        let shown = shown.map(|DetachedShown { pid, log }| format!("process {pid}, log {log}"));
        shown.unwrap_or_default()
    }

    fn lease_left(&self) -> String {
        match self.lease_left_seconds {
            0 => "over".to_owned(),
            _ if self.left_out.is_some() => "left out".to_owned(),
            left => words::span(Duration::from_secs(left)),
        }
    }
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

impl Shown for InterceptShown {
    fn text(&self) -> String {
        let rows = [
            ("claimed by", self.developer.clone()),
            ("workload", format!("{}, port {}", self.place(), self.port)),
            ("requests", self.requests.clone()),
            (
                "destination",
                format!("cluster {}, tunnel {}", self.cluster, self.address),
            ),
            ("lease", self.lease_left()),
            ("reason", self.left_out.clone().unwrap_or_default()),
            ("tunnel", self.tunnel.to_string()),
            ("replicas", self.replicas_live()),
            ("detached", self.process()),
        ];
        let rows: Vec<Vec<String>> = rows
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(what, value)| vec![format!("  {what}"), value])
            .collect();
        format!("{}\n{}", one_line(&self.name), print::table(&rows))
    }

    fn names(&self) -> Vec<&str> {
        vec![&self.name]
    }
}
