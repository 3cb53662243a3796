//! What one `injector intercept` set out to do, and whether it may, for what is there at the moment. Decides; changes nothing.

use std::time::Duration;

use intercept_core::{Document, Intercept, MatchBaggage, MatchHeader, MatchPath, validate};

use crate::backend::Placement;
use crate::conflict::{self, ExampleRequest, Kind, Meeting};
use crate::curl::quote;
use crate::hint::{Failure, Result};
use crate::tunnel::developer::LocalProtocol;
use crate::words;

/// The most intercepts that one workload may have: 662 bytes each in the object that holds them all.
const MAX_INTERCEPTS: usize = 1_000;

/// One intercept as the developer wants it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// The workload's name.
    pub workload: String,
    /// The workload's port.
    pub port: u16,
    /// The URL by which people reach that port, without a path.
    pub url: String,
    /// What the developer's server is spoken to in.
    pub protocol: LocalProtocol,
    /// The port on the developer machine.
    pub developer_port: u16,
    /// Where the tunnel ends, and the Envoy cluster that leads there.
    pub place: Placement,
    /// Who claims it.
    pub owner: String,
    /// Header conditions, the automatic one included.
    pub headers: Vec<MatchHeader>,
    /// Baggage conditions.
    pub baggage: Vec<MatchBaggage>,
    /// The path condition.
    pub path: Option<MatchPath>,
    /// Its length; it is renewed at half of it.
    pub lease: Duration,
    /// May it meet other intercepts?
    pub allow_overlap: bool,
    /// The address of the entry of this name that it may take the place of.
    pub replaces: Option<String>,
}

impl Plan {
    /// The entry, with a lease that begins now. Times in seconds since the epoch.
    pub fn intercept(&self, address: &str, created: u64, now: u64) -> Intercept {
        Intercept {
            port: self.port,
            cluster: self.place.cluster.clone(),
            address: address.to_owned(),
            owner: self.owner.clone(),
            created,
            headers: self.headers.clone(),
            baggage: self.baggage.clone(),
            path: self.path.clone(),
            expires: now.saturating_add(self.lease.as_secs()),
        }
    }

    /// May this entry be added to what is there? Returns what the developer should know all the same.
    pub fn check(
        &self,
        document: &Document,
        intercept: &Intercept,
        now: u64,
    ) -> Result<Vec<String>> {
        self.check_name(document)?;
        self.check_limits(document, intercept)?;
        self.check_conflicts(document, intercept, now)
    }

    fn check_name(&self, document: &Document) -> Result<()> {
        let Some(known) = document.intercepts.get(&self.name) else {
            if document.intercepts.len() >= MAX_INTERCEPTS {
                return Err(Failure::failed(
                    format!(
                        "{}: has {MAX_INTERCEPTS} intercepts already, which is the most",
                        self.workload
                    ),
                    "injector list",
                ));
            }
            return Ok(());
        };
        if known.owner != self.owner {
            return Err(Failure::failed(
                format!(
                    "{}: {} has an intercept of this name",
                    self.name, known.owner
                ),
                format!(
                    "injector intercept {} --name=ANOTHER-NAME",
                    quote(&self.workload)
                ),
            ));
        }
        if self.replaces.as_ref() != Some(&known.address) {
            return Err(Failure::failed(
                format!(
                    "{}: an intercept of yours has this name, and its tunnel is up",
                    self.name
                ),
                format!(
                    "take its place with --replace, or end it: injector leave {}",
                    self.name
                ),
            ));
        }
        Ok(())
    }

    fn check_limits(&self, document: &Document, intercept: &Intercept) -> Result<()> {
        let longest = Duration::from_secs(document.limits.max_lease_seconds);
        if self.lease > longest {
            return Err(Failure::failed(
                format!(
                    "--lease {}: the operator allows at most {} (limits.max_lease_seconds)",
                    words::span(self.lease),
                    words::span(longest)
                ),
                format!(
                    "injector intercept {} --lease={}s",
                    quote(&self.workload),
                    longest.as_secs()
                ),
            ));
        }
        validate(&self.name, intercept, &document.limits).map_err(|invalid| {
            Failure::failed(
                format!("{}{invalid}", self.name),
                "ask an operator, or use other conditions: injector intercept --help",
            )
        })
    }

    fn check_conflicts(
        &self,
        document: &Document,
        intercept: &Intercept,
        now: u64,
    ) -> Result<Vec<String>> {
        conflict::check(document, &self.name, intercept, now)
            .iter()
            .map(|meeting| self.judge(meeting))
            .collect()
    }

    fn judge(&self, meeting: &Meeting) -> Result<String> {
        let Meeting {
            other,
            owner,
            kind,
            example,
        } = meeting;
        let such = example.as_ref().map(in_words);
        match kind {
            Kind::Refused if !self.allow_overlap => Err(Failure::failed(
                format!(
                    "{}: {other} of {owner} matches the same requests{}",
                    self.name,
                    such.map(|such| format!(", for example {such}"))
                        .unwrap_or_default()
                ),
                "add a header that only you send, or create it all the same with --allow-overlap",
            )),
            Kind::Refused => Ok(format!(
                "{other} of {owner} matches the same requests{}; which of the two takes them: injector explain",
                such.map(|such| format!(", for example {such}"))
                    .unwrap_or_default()
            )),
            Kind::Note { winner } => Ok(format!(
                "a request that carries your header and that of {other} ({owner}) goes to {winner}{}",
                such.map(|such| format!("; for example {such}"))
                    .unwrap_or_default()
            )),
        }
    }
}

/// `GET /api with Coder: Bob`.
fn in_words(example: &ExampleRequest) -> String {
    let headers = example.headers.iter();
    let headers: Vec<String> = headers
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    match headers.as_slice() {
        [] => format!("{} {}", example.method, example.path),
        headers => format!(
            "{} {} with {}",
            example.method,
            example.path,
            headers.join(", ")
        ),
    }
}
