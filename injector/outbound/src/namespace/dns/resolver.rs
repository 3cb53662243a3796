//! Decides who is asked for a name, and learns which addresses are the cluster's.

use std::sync::Arc;

use bytes::Bytes;

use super::cache::Cache;
use super::host;
use super::message::{self, Code};
use super::transport::Transport;
use crate::domains::Domains;
use crate::namespace::dialer::Dialer;
use crate::namespace::learned::Learned;

/// Answers the queries of the namespace.
#[derive(Debug)]
pub struct Resolver<D> {
    dialer: Arc<D>,
    domains: Domains,
    learned: Arc<Learned>,
    cache: Cache,
}

impl<D: Dialer> Resolver<D> {
    /// Asks `dialer` for the cluster's names, and notes their addresses in `learned`.
    pub fn new(dialer: Arc<D>, learned: Arc<Learned>) -> Self {
        Self {
            domains: dialer.domains(),
            dialer,
            learned,
            cache: Cache::default(),
        }
    }

    /// The answer to a query; `None` to what is no DNS message.
    pub async fn answer(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let Some(question) = message::question(query) else {
            return message::failure(query, Code::FormatError);
        };
        let name = question.name.as_str();
        // It never leaves this machine (RFC 6761, 6.3).
        if name == "localhost" || name.ends_with(".localhost") {
            return message::localhost(query, &question);
        }
        let answer = match self.domains.contains(name) {
            true => self.ask_cluster(query).await,
            false => host::resolve(query, transport).await.ok(),
        };
        let answer = answer.or_else(|| message::failure(query, Code::ServerFailure))?;
        match transport {
            Transport::Udp => Some(message::fit(query, answer)),
            Transport::Tcp => Some(answer),
        }
    }

    async fn ask_cluster(&self, query: &[u8]) -> Option<Vec<u8>> {
        if let Some(answer) = self.cache.get(query) {
            return Some(answer);
        }
        let answer = self
            .dialer
            .resolve(Bytes::copy_from_slice(query))
            .await
            .ok()?;
        self.learned.add(message::addresses(&answer));
        self.cache.put(query, &answer);
        Some(answer.to_vec())
    }
}
