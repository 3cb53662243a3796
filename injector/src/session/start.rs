//! The start of an intercept: tunnel first, then the entry; live once the proxies have it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use intercept_core::{Document, Intercept};
use intercept_tunnel::presence::Presence;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::report::LiveShown;
use super::tunnel::{NotUp, Tunnel};
use super::{ENVOY_TIMEOUT, Outbound, Session, SessionOptions, background};
use crate::describe;
use crate::detached::{Prepared, Record};
use crate::error::{CliError, OrHint, Result};
use crate::model::{Live, Plan};
use crate::outbound::Link;
use crate::output::intercept::InterceptShown;
use crate::output::print;
use crate::shell::quote;

/// Timeout of the first connection to the relay.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(10);

impl Session<'_> {
    /// Opens the tunnel, writes the entry, and reports that it is live once the proxies have it.
    pub(super) async fn start(&mut self, beside: &mut SessionOptions) -> Result<()> {
        let listens = listens(self.plan.developer_port);
        let (up, listens) = tokio::join!(self.reach_relay(), listens);
        up?;
        if let Some(outbound) = beside.outbound.take() {
            self.open_outbound(outbound).await?;
        }
        self.created = self.target.now().await?;
        self.add().await?;
        let live = self.wait_live().await?;
        if describe::takes_everybody(&self.plan.headers, &self.plan.baggage) {
            self.report.warn(&format!(
                "this takes EVERYBODY's requests to {} ({}), not only yours",
                self.plan.workload,
                describe::conditions(&self.entry())
            ));
        }
        if beside.command.is_none() && !listens {
            self.report.warn(&format!(
                "nothing listens on port {} of this machine yet; until then the cluster answers",
                self.plan.developer_port
            ));
        }
        self.report.live(&self.plan, &live);
        let shown = InterceptShown::new(
            self.plan.name.clone(),
            &self.plan.workload,
            self.entry(),
            Presence::Up,
            self.created,
        );
        if let Some(file) = beside.env_file.take() {
            file.keep()?;
        }
        print::print(
            self.global.output,
            &LiveShown::new(&self.plan, shown, &live),
        )?;
        match beside.detach.take() {
            Some(prepared) => self.go_to_background(prepared),
            None => Ok(()),
        }
    }

    /// Connects into the cluster, and makes the command's network. Before the entry is written: what cannot be reached leaves nothing behind.
    async fn open_outbound(&mut self, outbound: Outbound) -> Result<()> {
        let Outbound {
            end,
            forwards,
            network,
        } = outbound;
        let optional = network.as_ref().filter(|network| network.is_optional());
        let optional = optional.filter(|_| forwards.is_empty());
        let lines = forwards.lines();
        let link = match Link::open(&end, &self.secret, &self.plan.name, forwards).await {
            Ok(link) => link,
            Err(failure) => {
                let Some(network) = optional else {
                    return Err(failure);
                };
                self.report.line(&network.without(&failure));
                return Ok(());
            }
        };
        lines.iter().for_each(|line| self.report.note(line));
        if let Some(network) = network {
            let (network, lines) = network.start(&self.plan, &link, &self.dial).await?;
            lines.iter().for_each(|line| self.report.line(line));
            self.network = network;
        }
        self.link = Some(link);
        Ok(())
    }

    /// Opens the tunnel.
    ///
    /// Tries another relay if the first one is full; if all are, waits for whichever has room first.
    async fn reach_relay(&mut self) -> Result<()> {
        let until = Instant::now() + TUNNEL_TIMEOUT;
        let (mut full, mut was_full) = (BTreeSet::new(), None);
        loop {
            let Plan {
                name, port, place, ..
            } = &self.plan;
            let left = until.saturating_duration_since(Instant::now());
            let failure = match self.tunnel.first_up(&place.relay, left).await {
                Ok(()) => return Ok(()),
                Err(NotUp::Failed(failure)) => return Err(was_full.unwrap_or(failure)),
                Err(NotUp::Full(failure)) => failure,
            };
            full.insert(place.replica);
            let beside = self.target.place_beside(name, *port, &full);
            was_full = match beside.await {
                None => Some(failure),
                Some(place) => {
                    self.report.detail(failure.error());
                    self.tunnel.abort().await;
                    self.plan.place = place;
                    self.tunnel =
                        Tunnel::open(&self.plan, self.secret.clone(), &self.dial, self.lines);
                    None
                }
            };
        }
    }

    fn go_to_background(&mut self, prepared: Prepared) -> Result<()> {
        let requests = describe::conditions(&self.entry());
        let record = Record {
            pid: std::process::id(),
            host: crate::detached::here(),
            address: self.address.clone(),
            workload: self.plan.workload.clone(),
            requests: requests.clone(),
            created: self.created,
            log: prepared.log_path(),
        };
        let kept = prepared.keep(&record).or_hint(
            "--detach",
            format!("ls -ld {}", quote(&record.log.to_string_lossy())),
        )?;
        self.report
            .detached(&self.plan.name, &record.log, &self.plan.context_flags);
        let kept = self.kept.insert(kept);
        background::leave_terminal(&kept.log)?;
        self.report = self.report.into_log();
        self.report.record(&format!(
            "{} intercepts port {} of {}: {requests} (process {})",
            self.plan.name, self.plan.port, self.plan.workload, record.pid
        ));
        background::tell(&kept.log)
    }

    async fn wait_live(&self) -> Result<Live> {
        let progress = self.report.progress();
        let entry = self.entry();
        self.target
            .wait_live(&self.plan.name, &entry, ENVOY_TIMEOUT, &|replicas| {
                progress.show(replicas)
            })
            .await
    }

    /// Writes the entry with a fresh lease, if the checks pass.
    pub(super) async fn add(&mut self) -> Result<()> {
        let now = self.target.now().await?;
        let intercept = self.plan.intercept(&self.address, self.created, now);
        let plan = &self.plan;
        // Runs again after each write conflict; only the last result counts.
        let notes = Mutex::new(Vec::new());
        let check = |document: &Document| {
            *notes.lock().unwrap_or_else(PoisonError::into_inner) =
                plan.check(document, &intercept, now)?;
            Ok(())
        };
        self.is_adding = true;
        let added = self.target.add(plan, &intercept, &check).await;
        self.added = Some(Instant::now());
        // A rejected write has no effect; one that was cut off may.
        self.is_adding = added.as_ref().is_err_and(CliError::may_pass);
        added?;
        let notes = notes.into_inner().unwrap_or_else(PoisonError::into_inner);
        notes.iter().for_each(|note| self.report.note(note));
        self.lease.until(intercept.expires);
        Ok(())
    }

    pub(super) fn entry(&self) -> Intercept {
        let mut entry = self.plan.intercept(&self.address, self.created, 0);
        entry.expires = self.lease.expires();
        entry
    }
}

/// Does a program accept connections on this port, over IPv4 or IPv6?
async fn listens(port: u16) -> bool {
    for address in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        let connected = timeout(
            Duration::from_millis(200),
            TcpStream::connect((address, port)),
        )
        .await;
        if matches!(connected, Ok(Ok(_))) {
            return true;
        }
    }
    false
}
