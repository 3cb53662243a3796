//! What a backend says: what was found, where a tunnel ends, and what is known of a change.

use std::time::Duration;

use intercept_core::{Intercept, Limits};
use intercept_manifest::facts::Protocol;
use intercept_manifest::istio::{Kind, resource};
use intercept_tunnel::relay_end::RelayEnd;

/// An intercept, and where it was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The workload's namespace, in a mesh.
    pub namespace: Option<String>,
    /// The workload's kind, in a mesh.
    pub kind: Option<Kind>,
    /// The workload's name.
    pub workload: String,
    /// The intercept's name.
    pub name: String,
    /// Its entry.
    pub intercept: Intercept,
    /// What the operator allows on that workload, where every intercept is held against it when it is shown.
    pub limits: Limits,
    /// Why the controller does not accept it.
    pub refusal: Option<String>,
    /// How many replicas have it, where that is known.
    pub replicas: Option<Replicas>,
}

/// A name for an intercept, and what has it.
#[derive(Debug, Clone)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The intercept that has it, the caller's own or not.
    pub holder: Option<Intercept>,
}

/// What an intercept that lives has to know, at one moment.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The intercept of its name.
    pub entry: Option<Intercept>,
    /// Why that is in no proxy although it is there.
    pub refusal: Option<String>,
    /// What the operator allows; `None`: the workload is not prepared any more.
    pub limits: Option<Limits>,
    /// Seconds since the epoch, by the clock that leases are counted by.
    pub now: u64,
}

/// The port that an intercept is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPort {
    /// The workload's own port.
    pub number: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// The URL by which people reach it, without a path.
    pub url: String,
}

/// A port that can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectPort {
    /// The workload's own port.
    pub number: u16,
    /// A name for it, where it has one.
    pub name: Option<String>,
}

/// Where a tunnel ends, and how requests get there.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The relay.
    pub relay: RelayEnd,
    /// The Envoy cluster that leads to it.
    pub cluster: String,
    /// The mesh's identity of the only workload that may use the tunnel (SPIFFE), where there are identities.
    pub identity: Option<String>,
    /// The relay's number; 0 where there is only one.
    pub replica: u16,
}

/// What is known about a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// Every Envoy concerned has it.
    Verified,
    /// It is written; whether Envoy has it is not known.
    NotVerified {
        /// The reason, to be shown.
        why: String,
    },
}

/// Where it cannot be seen, waits for as long as it usually takes.
pub async fn settled(live: Live, usual: Duration) -> Live {
    if let Live::NotVerified { .. } = live {
        tokio::time::sleep(usual).await;
    }
    live
}

/// How many replicas of a workload have a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Replicas {
    /// Those that have it.
    pub live: usize,
    /// Those that there are.
    pub all: usize,
}

impl From<resource::Replicas> for Replicas {
    fn from(replicas: resource::Replicas) -> Self {
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            live: count(replicas.programmed),
            all: count(replicas.total),
        }
    }
}

/// Why a lease could not be renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRenewed {
    /// The entry was removed.
    Removed,
    /// The name belongs to another tunnel now; who claims it.
    Taken(String),
    /// It may work the next time.
    Failed(String),
}
