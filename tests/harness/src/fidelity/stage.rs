//! An Envoy with two ports of each kind, one of them intercepted.
//!
//! Origins behind both; and a way to send cases through them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::case::{Case, Kind};
use super::client;
use super::compare::{Deviation, Side, What, compare};
use super::message::{End, Message};
use super::origin::{Origin, Received, Role};
use crate::intercept::Intercept;
use crate::mesh::{Mesh, Plan};

/// How many cases run at once.
const AT_ONCE: usize = 64;

/// How long an origin may take to notice what its client has already seen.
const SETTLE: Duration = Duration::from_secs(5);

/// The setup for all cases.
#[derive(Debug)]
pub struct Stage {
    origin: Origin,
    mesh: Mesh,
    _intercepts: Vec<Intercept>,
}

/// The result of one run of a case.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What the origins received.
    pub received: Vec<Received>,
    /// What the client received.
    pub got: Vec<Message>,
    /// Bytes after the client's last response.
    pub extra: Vec<u8>,
}

/// Both runs of a case.
#[derive(Debug)]
pub struct Pair {
    /// The case.
    pub case: Case,
    /// Through the port without an intercept.
    pub direct: Outcome,
    /// Through the intercepted one.
    pub matched: Outcome,
}

impl Stage {
    /// Starts origins, relay and Envoy, and intercepts everything on every second port.
    pub async fn start() -> Self {
        let origin = Origin::start().await;
        let mut plan = Plan::nowhere().edit(|bootstrap| {
            for listener in bootstrap["static_resources"]["listeners"]
                .as_array_mut()
                .expect("listeners")
            {
                let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
                // A new number for each request would differ between any two runs.
                manager["generate_request_id"] = false.into();
            }
        });
        for kind in Kind::ALL {
            for role in [Role::Direct, Role::Fallback] {
                plan = plan.and_at(&port_name(kind, role), origin.addr(role), kind.protocol());
            }
        }
        let mesh = plan.start().await;
        let mut intercepts = Vec::new();
        for kind in Kind::ALL {
            let port = origin.addr(Role::Developer).port();
            let port = format!("{port}:{}", port_name(kind, Role::Fallback));
            let name = format!("fidelity-{}", kind.as_str());
            let developer = mesh.developer(kind.as_str());
            let arguments = ["--name", &name, "--http-header=all"];
            intercepts.push(developer.intercept_port(&port, &arguments).await);
        }
        Self {
            origin,
            mesh,
            _intercepts: intercepts,
        }
    }

    /// Runs all cases, in parallel except for those that run alone. Returns the results.
    pub async fn run(self: &Arc<Self>, cases: Vec<Case>) -> Vec<Pair> {
        let cases = cases.into_iter().enumerate();
        let (alone, together): (Vec<_>, Vec<_>) = cases.partition(|(_, case)| case.is_alone);
        let free = Arc::new(Semaphore::new(AT_ONCE));
        let mut running = Vec::new();
        for (number, case) in together {
            let permit = Arc::clone(&free).acquire_owned().await.expect("open");
            let stage = Arc::clone(self);
            running.push(tokio::spawn(async move {
                let pair = stage.pair(number, case).await;
                drop(permit);
                pair
            }));
        }
        let mut pairs = Vec::new();
        for pair in running {
            pairs.push(pair.await.expect("no panic"));
        }
        for (number, case) in alone {
            pairs.push(self.pair(number, case).await);
        }
        pairs
    }

    async fn pair(&self, number: usize, case: Case) -> Pair {
        let (direct, matched) = tokio::join!(
            self.send(format!("c{number}"), Role::Direct, &case),
            self.send(format!("c{number}"), Role::Fallback, &case),
        );
        Pair {
            case,
            direct,
            matched,
        }
    }

    /// Sends a case to the port of its kind that leads to `app` without a developer.
    async fn send(&self, id: String, app: Role, case: &Case) -> Outcome {
        let place = Kind::ALL.iter().position(|kind| *kind == case.kind);
        let place = 2 * place.expect("a kind") + usize::from(app == Role::Fallback);
        self.origin.expect(&id, case);
        let got = client::send(self.mesh.addr_of(place), &id, case).await;
        let is_mine =
            |received: &Received| (received.role == Role::Direct) == (app == Role::Direct);
        let mut changes = self.origin.changes();
        let settled = changes.wait_for(|_| {
            let mut received = self.origin.received(&id).into_iter().filter(is_mine);
            received.all(|received| received.is_served)
        });
        // An origin with an incomplete script shows up in the comparison.
        let _ = tokio::time::timeout(SETTLE, settled).await;
        Outcome {
            received: self
                .origin
                .received(&id)
                .into_iter()
                .filter(is_mine)
                .collect(),
            got: got.answers,
            extra: got.extra,
        }
    }
}

fn port_name(kind: Kind, app: Role) -> String {
    match app {
        Role::Direct => format!("{}-plain", kind.as_str()),
        _ => kind.as_str().to_owned(),
    }
}

impl Pair {
    /// The differences between both runs.
    pub fn deviations(&self) -> Vec<Deviation> {
        let (direct, matched) = (&self.direct, &self.matched);
        if direct.got.iter().any(is_envoys_error) {
            return self.without_answer();
        }
        let mut found = Vec::new();
        let counts = |side, one: usize, other: usize| Deviation {
            side,
            what: What::Count,
            text: format!("{one} → {other}"),
        };
        if self.case.is_cut {
            // Compared by the client's result.
        } else if direct.received.len() != matched.received.len() {
            found.push(counts(
                Side::Request,
                direct.received.len(),
                matched.received.len(),
            ));
        }
        if matched
            .received
            .iter()
            .any(|received| received.role == Role::Fallback)
        {
            found.push(Deviation {
                side: Side::Request,
                what: What::LeftToCluster,
                text: "the in-cluster version received it".to_owned(),
            });
        }
        let received = direct.received.iter().zip(&matched.received);
        for (one, other) in received.filter(|_| !self.case.is_cut) {
            let mut messages = [one.message.clone(), other.message.clone()];
            if self.case.is_early {
                for message in &mut messages {
                    message.body.clear();
                    message.trailers.clear();
                    message.end = End::default();
                }
            }
            found.extend(compare(Side::Request, &messages[0], &messages[1]));
        }
        if direct.got.len() != matched.got.len() {
            found.push(counts(Side::Response, direct.got.len(), matched.got.len()));
        }
        for (one, other) in direct.got.iter().zip(&matched.got) {
            found.extend(compare(Side::Response, one, other));
        }
        if direct.extra != matched.extra {
            found.push(Deviation {
                side: Side::Response,
                what: What::Extra,
                text: format!("{:?} → {:?}", direct.extra, matched.extra),
            });
        }
        found
    }

    /// The differences if Envoy had to respond itself.
    ///
    /// Only the first received request, and that there is some response, are compared.
    fn without_answer(&self) -> Vec<Deviation> {
        let (direct, matched) = (&self.direct, &self.matched);
        let received = direct.received.iter().zip(&matched.received).take(1);
        let mut found: Vec<Deviation> = received
            .flat_map(|(one, other)| compare(Side::Request, &one.message, &other.message))
            .collect();
        let is_answered = |message: &Message| message.status().is_some();
        let what = match matched.got.iter().all(is_answered) {
            true => What::NoAnswer,
            false => What::Count,
        };
        let status = |outcome: &Outcome| {
            let status = outcome.got.iter().map(Message::status);
            format!("{:?}", status.collect::<Vec<_>>())
        };
        found.push(Deviation {
            side: Side::Response,
            what,
            text: format!("{} → {}", status(direct), status(matched)),
        });
        found
    }
}

/// Did Envoy respond itself, because the application's response was invalid?
fn is_envoys_error(message: &Message) -> bool {
    const TEXTS: [&[u8]; 2] = [b"upstream connect error", b"upstream request timeout"];
    let reason = message.field("grpc-message").unwrap_or(&message.body);
    matches!(message.status(), Some(200 | 502..=504))
        && TEXTS.iter().any(|text| reason.starts_with(text))
}
