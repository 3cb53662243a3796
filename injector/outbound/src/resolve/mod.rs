//! Names to addresses, by the resolvers of the pod, and which names an address was found under.
//!
//! An answer that a developer asked for is only a hint of a name: whether the name has an address is asked again where something depends on it.

mod exchange;
pub(crate) mod message;
mod resolv_conf;
mod service;
pub(crate) mod transport;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

pub use self::resolv_conf::ResolvConf;
use self::service::Services;
pub use self::service::{RANGE as SERVICE_RANGE, Service};

/// How long an answer is used.
const FRESH: Duration = Duration::from_secs(5);
/// Names whose answers are kept.
const ANSWERS: usize = 4_096;
/// Addresses whose names are kept, and names of one.
const HINTS: usize = 16_384;
const HINTS_OF_ONE: usize = 16;

/// Resolves names, and remembers which names an address has had.
#[derive(Debug, Default)]
pub struct Resolver {
    conf: ResolvConf,
    services: Services,
    answers: Mutex<HashMap<String, (Instant, Vec<IpAddr>)>>,
    hints: Mutex<HashMap<IpAddr, BTreeSet<String>>>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The full name that had the addresses.
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Resolver {
    /// Asks these resolvers; answers for these services itself.
    pub fn new(conf: ResolvConf, services: Vec<Service>) -> Self {
        Self {
            services: Services::new(services, &conf.search),
            conf,
            ..Self::default()
        }
    }

    /// What is dialled for this address, where it is one of a service.
    pub(crate) fn service_at(&self, address: SocketAddr) -> Option<SocketAddr> {
        self.services.target(address)
    }

    /// The addresses of a name, short or full; `None` where there are none.
    pub(crate) async fn resolve(&self, name: &str) -> Option<Resolved> {
        if let Some(addresses) = self.services.addresses(name) {
            let name = name.to_owned();
            return Some(Resolved { name, addresses });
        }
        let addresses = hosts_file(name).await;
        if !addresses.is_empty() {
            let name = name.to_owned();
            return Some(Resolved { name, addresses });
        }
        for name in self.conf.candidates(name) {
            let addresses = self.ask(&name).await;
            if !addresses.is_empty() {
                return Some(Resolved { name, addresses });
            }
        }
        None
    }

    /// Whether the name has that address now.
    pub(crate) async fn has_address(&self, name: &str, ip: IpAddr) -> bool {
        let resolved = self.resolve(name).await;
        resolved.is_some_and(|resolved| resolved.addresses.contains(&ip))
    }

    /// Names under which an address was found.
    pub(crate) fn names_of(&self, ip: IpAddr) -> Vec<String> {
        let hints = lock(&self.hints);
        hints.get(&ip).into_iter().flatten().cloned().collect()
    }

    /// Answers a DNS message; `None` where no resolver does, or it is no question.
    pub(crate) async fn answer(&self, message: Bytes) -> Option<Bytes> {
        let question = message::question(&message)?;
        if let Some(answer) = self.services.answer(&message, &question.name) {
            return Some(answer);
        }
        if self.conf.servers.is_empty() {
            return message::no_such_name(&message);
        }
        let answer = exchange::exchange(&self.conf.servers, &message).await?;
        let addresses = message::addresses(&answer);
        self.remember(&question.name, &addresses);
        Some(answer)
    }

    /// Both families of one full name.
    async fn ask(&self, name: &str) -> Vec<IpAddr> {
        if let Some((at, addresses)) = lock(&self.answers).get(name)
            && at.elapsed() < FRESH
        {
            return addresses.clone();
        }
        let (v4, v6) = tokio::join!(self.ask_for(name, false), self.ask_for(name, true));
        let addresses = [v4, v6].concat();
        self.remember(name, &addresses);
        let mut answers = lock(&self.answers);
        if answers.len() >= ANSWERS {
            answers.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        if answers.len() < ANSWERS {
            answers.insert(name.to_owned(), (Instant::now(), addresses.clone()));
        }
        addresses
    }

    async fn ask_for(&self, name: &str, v6: bool) -> Vec<IpAddr> {
        let Some(query) = message::query(name, v6) else {
            return Vec::new();
        };
        let answer = exchange::exchange(&self.conf.servers, &query).await;
        answer
            .map(|answer| message::addresses(&answer))
            .unwrap_or_default()
    }

    fn remember(&self, name: &str, addresses: &[IpAddr]) {
        let mut hints = lock(&self.hints);
        for ip in addresses {
            if hints.len() >= HINTS && !hints.contains_key(ip) {
                let other = hints.keys().next().copied();
                other.map(|other| hints.remove(&other));
            }
            let names = hints.entry(*ip).or_default();
            if names.len() < HINTS_OF_ONE {
                names.insert(name.trim_end_matches('.').to_owned());
            }
        }
    }
}

/// What hosts(5) says of a name.
async fn hosts_file(name: &str) -> Vec<IpAddr> {
    let text = tokio::fs::read_to_string("/etc/hosts")
        .await
        .unwrap_or_default();
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let ip = words.next()?.parse().ok()?;
        words
            .any(|word| word.eq_ignore_ascii_case(name))
            .then_some(ip)
    };
    lines.filter_map(address).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
