//! One intercept as every command shows it.

use std::time::Duration;

use intercept_core::{Intercept, MatchBaggage, MatchHeader, MatchPath};
use intercept_manifest::printable::one_line;
use intercept_tunnel::presence::Presence;
use serde::Serialize;

use super::print::{self, Shown};
use crate::describe;
use crate::model::Replicas;

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
    pub cluster: String,
    /// The tunnel's public name.
    address: String,
    /// Seconds since the epoch.
    created: u64,
    /// Seconds since the epoch.
    expires: u64,
    lease_left_seconds: u64,
    /// Why it takes no request although its lease is not over, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
    /// Is the developer machine there?
    tunnel: Presence,
    /// How many replicas of the workload have it, where that can be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
    /// The process of this machine that keeps it in the background, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detached: Option<DetachedShown>,
}

/// A process of this machine that keeps an intercept in the background.
#[derive(Debug, Serialize)]
pub struct DetachedShown {
    /// Its number.
    pub pid: u32,
    /// The file of its log.
    pub log: String,
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
            requests: describe::conditions(&intercept),
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
    pub fn place(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.workload),
            None => self.workload.clone(),
        }
    }

    /// `2/3`; empty where that cannot be seen.
    pub fn replicas_live(&self) -> String {
        let shown = self
            .replicas
            .map(|Replicas { live, all }| format!("{live}/{all}"));
        shown.unwrap_or_default()
    }

    /// `up, detached`.
    pub fn tunnel_here(&self) -> String {
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

    /// How long it lives without a renewal.
    pub fn lease_left(&self) -> String {
        match self.lease_left_seconds {
            0 => "over".to_owned(),
            _ if self.left_out.is_some() => "left out".to_owned(),
            left => describe::span(Duration::from_secs(left)),
        }
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
