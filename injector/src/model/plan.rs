//! What one `injector intercept` set out to do, and whether it may, for what is there at the moment. Decides; changes nothing.

use std::time::Duration;

use intercept_core::room::left_out;
use intercept_core::{Document, Intercept, Limits, MatchBaggage, MatchHeader, MatchPath, validate};
use intercept_overlap::{ExampleRequest, Kind, Meeting};
use intercept_tunnel::developer::LocalProtocol;

use super::answers::Placement;
use crate::describe;
use crate::error::{CliError, Result};
use crate::shell::quote;

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
    /// What chooses the place where it is kept, with a blank before each word, in a command that is shown.
    pub context_flags: String,
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
        self.check_limits(&document.limits, intercept)?;
        self.check_room(document, intercept)?;
        self.check_conflicts(document, intercept, now)
    }

    fn check_name(&self, document: &Document) -> Result<()> {
        let Some(known) = document.intercepts.get(&self.name) else {
            if document.intercepts.len() >= MAX_INTERCEPTS {
                return Err(CliError::failed(
                    format!(
                        "{}: has {MAX_INTERCEPTS} intercepts already, which is the most",
                        self.workload
                    ),
                    format!("injector list{}", self.context_flags),
                ));
            }
            return Ok(());
        };
        if known.owner != self.owner || self.replaces.as_ref() != Some(&known.address) {
            return Err(self.taken_by(&known.owner));
        }
        Ok(())
    }

    /// The name is taken, by an intercept of this owner.
    pub fn taken_by(&self, owner: &str) -> CliError {
        if owner != self.owner {
            return CliError::failed(
                format!("{}: {owner} has an intercept of this name", self.name),
                format!(
                    "injector intercept{} {} --name=ANOTHER-NAME",
                    self.context_flags,
                    quote(&self.workload)
                ),
            );
        }
        CliError::failed(
            format!(
                "{}: your intercept of this name exists, and its tunnel is up",
                self.name
            ),
            format!(
                "take its place with --replace, or end it: injector leave{} {}",
                self.context_flags,
                quote(&self.name)
            ),
        )
    }

    /// Does the operator allow this entry?
    pub fn check_limits(&self, limits: &Limits, intercept: &Intercept) -> Result<()> {
        let longest = Duration::from_secs(limits.max_lease_seconds);
        if self.lease > longest {
            return Err(CliError::failed(
                format!(
                    "--lease {}: the operator allows at most {} (limits.max_lease_seconds)",
                    describe::span(self.lease),
                    describe::span(longest)
                ),
                format!(
                    "injector intercept{} {} --lease={}s",
                    self.context_flags,
                    quote(&self.workload),
                    longest.as_secs()
                ),
            ));
        }
        validate(&self.name, intercept, limits).map_err(|invalid| {
            CliError::failed(
                format!("{}{invalid}", self.name),
                "ask an operator, or use other conditions: injector intercept --help",
            )
        })
    }

    /// Does the filter have room for this entry, and leave out no other one for it?
    fn check_room(&self, document: &Document, intercept: &Intercept) -> Result<()> {
        let mut intercepts = document.intercepts.clone();
        let before = left_out(&intercepts.clone().into_iter().collect::<Vec<_>>());
        intercepts.insert(self.name.clone(), intercept.clone());
        let mut after = left_out(&intercepts.into_iter().collect::<Vec<_>>()).into_iter();
        match after.find(|entry| !before.contains(entry)) {
            None => Ok(()),
            Some(entry) => Err(CliError::failed(
                entry.reason,
                format!("injector list{}", self.context_flags),
            )),
        }
    }

    fn check_conflicts(
        &self,
        document: &Document,
        intercept: &Intercept,
        now: u64,
    ) -> Result<Vec<String>> {
        intercept_overlap::check(document, &self.name, intercept, now)
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
            Kind::Refused if !self.allow_overlap => Err(CliError::failed(
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use intercept_tunnel::relay_end::RelayEnd;

    use super::*;

    fn plan(name: &str, owner: &str) -> Plan {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        Plan {
            name: name.to_owned(),
            workload: "orders".to_owned(),
            port: 8080,
            url: "http://orders.shop".to_owned(),
            protocol: LocalProtocol::Auto,
            developer_port: 3000,
            place: Placement {
                relay: RelayEnd::tcp(nowhere),
                cluster: format!("intercept|{name}"),
                identity: None,
                replica: 0,
            },
            owner: owner.to_owned(),
            headers: vec![MatchHeader {
                name: "Coder".to_owned(),
                value: name.to_owned(),
            }],
            baggage: Vec::new(),
            path: None,
            lease: Duration::from_secs(3_600),
            allow_overlap: false,
            replaces: None,
            context_flags: " -n shop".to_owned(),
        }
    }

    /// Of bob's, as many as that.
    fn document(count: usize) -> Document {
        let intercepts = (0..count).map(|number| {
            let name = format!("bob-{number}");
            let address = format!("{number:032x}");
            let entry = plan(&name, "bob").intercept(&address, 0, 0);
            (name, entry)
        });
        Document {
            version: intercept_core::SCHEMA_VERSION,
            limits: Limits::default(),
            intercepts: intercepts.collect::<BTreeMap<_, _>>(),
        }
    }

    fn checked(plan: &Plan, document: &Document) -> Result<Vec<String>> {
        plan.check(document, &plan.intercept(&"f".repeat(32), 0, 0), 0)
    }

    #[test]
    fn limit_of_intercepts_allows_replacement() {
        let alice = plan("alice", "alice");
        let (full, room) = (document(1_000), document(999));
        assert!(checked(&alice, &room).is_ok());
        let refused = checked(&alice, &full).expect_err("no room");
        assert_eq!(
            refused.error(),
            "orders: has 1000 intercepts already, which is the most"
        );
        assert_eq!(refused.hint(), "injector list -n shop");
        let mut again = plan("bob-7", "bob");
        again.replaces = Some(full.intercepts["bob-7"].address.clone());
        assert!(checked(&again, &full).is_ok());
    }

    #[test]
    fn only_the_own_tunnel_is_replaced() {
        let one = document(1);
        let by_alice = checked(&plan("bob-0", "alice"), &one).expect_err("bob's");
        assert_eq!(by_alice.error(), "bob-0: bob has an intercept of this name");
        let mut by_bob = plan("bob-0", "bob");
        by_bob.replaces = Some("e".repeat(32));
        let refused = checked(&by_bob, &one).expect_err("another tunnel");
        assert_eq!(
            refused.error(),
            "bob-0: your intercept of this name exists, and its tunnel is up"
        );
        assert_eq!(
            refused.hint(),
            "take its place with --replace, or end it: injector leave -n shop bob-0"
        );
    }
}
