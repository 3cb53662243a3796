//! `injector intercept`: from the flags and what is there to a plan; the session carries it out.

use std::collections::BTreeMap;

use intercept_core::{Document, Intercept, MatchHeader};
use serde::Serialize;
use serde_json::Value;

use crate::backend::{self, Backend, choose_port, now};
use crate::cli::{self, Format, Global};
use crate::developer;
use crate::flags::{self, AUTO_HEADER};
use crate::hint::{OrHint, Result};
use crate::manifest::facts::{Port, Protocol};
use crate::print::{self, Shown};
use crate::remembered::{Remembered, new_id};
use crate::session;
use crate::session::plan::Plan;
use crate::session::presence::{self, Presence};
use crate::tunnel::Secret;
use crate::tunnel::developer::LocalProtocol;

/// Intercepts until it is told to stop. Returns the exit code.
pub async fn run(global: &Global, flags: &cli::Intercept) -> Result<u8> {
    let wanted = Wanted::read(flags)?;
    let backend = Backend::open(global)?;
    let workload = backend.workload(&flags.target)?;
    let port = choose_port(workload, wanted.port.service.as_deref())?;
    let owner = developer::name();
    let name = match wanted.name {
        Some(name) => name,
        None => developer::intercept_name(&workload.name, &owner),
    };
    if !flags.dry_run {
        backend.sweep()?;
    }
    let document = backend.document()?;
    let mine = document
        .intercepts
        .get(&name)
        .filter(|known| known.owner == owner);
    let control = workload.relay.control;
    let mut plan = Plan {
        workload: workload.name.clone(),
        port: port.number,
        url: url(&workload.name, port),
        protocol: developer_protocol(port),
        developer_port: wanted.port.developer.unwrap_or(port.number),
        control,
        cluster: backend.cluster(&name),
        owner,
        headers: wanted.conditions.headers,
        baggage: wanted.conditions.baggage,
        path: wanted.conditions.path,
        lease: wanted.lease,
        allow_overlap: flags.allow_overlap,
        replaces: match mine {
            Some(known)
                if flags.replace
                    || presence::ask(control, &known.address).await != Presence::Up =>
            {
                Some(known.address.clone())
            }
            _ => None,
        },
        name,
    };
    let place = Remembered::of(&backend.identity(), &plan.workload);
    if wanted.conditions.auto {
        plan.headers.push(MatchHeader {
            name: AUTO_HEADER.to_owned(),
            value: own_value(place.as_ref(), mine),
        });
    }
    if flags.dry_run {
        return dry_run(global, &backend, &plan, &document);
    }
    // Before the tunnel, so that a refusal is quick; again when the entry is written, since others write too.
    plan.check(&document, &any_address(&plan), now())?;
    if let (true, Some(place), Some(own)) = (wanted.conditions.auto, place, plan.headers.last_mut())
    {
        own.value = place.remember(&own.value).or_hint(
            "the header of your own could not be remembered",
            "export XDG_STATE_HOME=… (a directory that you may write to)",
        )?;
    }
    session::run(global, &backend, plan, &flags.command).await
}

/// What the flags alone say.
struct Wanted {
    conditions: flags::Conditions,
    port: flags::Port,
    lease: std::time::Duration,
    name: Option<String>,
}

impl Wanted {
    fn read(flags: &cli::Intercept) -> Result<Self> {
        Ok(Self {
            conditions: flags::conditions(&flags.conditions)?,
            port: flags::port(flags.port.as_deref())?,
            lease: flags::lease(&flags.lease)?,
            name: flags.name.as_deref().map(flags::name).transpose()?,
        })
    }
}

/// The value of the developer's own header: the remembered one, else that of the intercept whose place is taken, else a new one.
fn own_value(place: Option<&Remembered>, mine: Option<&Intercept>) -> String {
    let inherited = || {
        let headers = &mine?.headers;
        let own = headers.iter().find(|header| header.name == AUTO_HEADER)?;
        uuid::Uuid::try_parse(&own.value).ok()?;
        Some(own.value.clone())
    };
    place
        .and_then(Remembered::recall)
        .or_else(inherited)
        .unwrap_or_else(new_id)
}

fn url(workload: &str, port: &Port) -> String {
    let by_name = || format!("http://{workload}:{}", port.number);
    port.url.clone().unwrap_or_else(by_name)
}

/// What a developer's server most likely speaks on this port.
fn developer_protocol(port: &Port) -> LocalProtocol {
    match port.protocol {
        Protocol::Http | Protocol::Auto => LocalProtocol::Auto,
        Protocol::Http2 | Protocol::Grpc => LocalProtocol::Http2,
    }
}

/// The entry, with an address that stands for any.
fn any_address(plan: &Plan) -> Intercept {
    let now = backend::now();
    plan.intercept(Secret::random().address().as_str(), now, now)
}

fn dry_run(global: &Global, backend: &Backend, plan: &Plan, document: &Document) -> Result<u8> {
    let intercept = any_address(plan);
    let notes = plan.check(document, &intercept, now())?;
    for note in notes.iter().filter(|_| !global.quiet) {
        eprintln!("note: {note}");
    }
    let written = Written {
        cluster: backend.cluster_object(&plan.name, plan.port),
        intercepts: BTreeMap::from([(plan.name.clone(), intercept)]),
    };
    let format = match global.output {
        Format::Text => Format::Yaml,
        format => format,
    };
    print::print(format, &written).map(|()| 0)
}

/// What would be written: one entry and its cluster.
#[derive(Debug, Serialize)]
struct Written {
    intercepts: BTreeMap<String, Intercept>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Value>,
}

impl Shown for Written {
    fn text(&self) -> String {
        String::new()
    }

    fn names(&self) -> Vec<&str> {
        self.intercepts.keys().map(String::as_str).collect()
    }
}
