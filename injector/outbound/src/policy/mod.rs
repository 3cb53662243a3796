//! Which addresses may be dialled: never some, then those that a rule allows. Decided on the address, after names were resolved, so that no name can stand for another address.

mod never;
mod range;
mod rule;

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;

use self::range::contains;
pub use self::rule::{InvalidRule, Rule};
use crate::resolve::Resolver;

/// What an operator allows.
#[derive(Debug, Default)]
pub struct Policy {
    /// What may be dialled; nothing without a rule.
    pub allowed: Vec<Rule>,
    /// What may not, whatever is allowed: besides loopback, link-local, multicast and the like.
    pub never: Vec<Rule>,
    /// The cluster's addresses; where there are some, no other one is dialled.
    pub ranges: Vec<IpNet>,
}

impl Policy {
    /// Whether an address may be dialled. `name`: what was resolved to it.
    ///
    /// # Errors
    /// Which rule refuses it.
    pub(crate) async fn check(
        &self,
        address: SocketAddr,
        name: Option<&str>,
        resolver: &Arc<Resolver>,
    ) -> Result<(), String> {
        let ip = address.ip();
        if let Some(kind) = never::kind(ip) {
            return Err(format!("{ip} is never dialled: {kind}"));
        }
        for rule in &self.never {
            if rule.matches(address, name, resolver).await {
                return Err(format!("{address} is never dialled: --never {rule}"));
            }
        }
        if !self.ranges.is_empty() && !self.ranges.iter().any(|range| contains(range, ip)) {
            return Err(format!("{ip} is in no --range of the cluster"));
        }
        for rule in &self.allowed {
            if rule.matches(address, name, resolver).await {
                return Ok(());
            }
        }
        let known = name.map(|name| format!(" ({name})")).unwrap_or_default();
        Err(format!("no --to rule allows {address}{known}"))
    }
}
