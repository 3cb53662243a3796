//! `injector intercept`: from the flags and what is there to a plan; the session carries it out.

use std::ffi::OsStr;
use std::path::Path;

use intercept_core::{Intercept, MatchHeader};
use intercept_manifest::facts::Protocol;
use intercept_manifest::printable::one_line;
use intercept_tunnel::Secret;
use intercept_tunnel::developer::LocalProtocol;
use intercept_tunnel::presence::Presence;
use serde::Serialize;
use serde_json::Value;

use crate::args::{self, Format, Global, OutboundMode};
use crate::backend;
use crate::describe;
use crate::detached::{Place, Prepared};
use crate::environment::Environment;
use crate::environment::file::EnvFile;
use crate::error::{CliError, OrHint, Result};
use crate::flags::{self, AUTO_HEADER};
use crate::local_user;
use crate::model::{Backend, Named, Plan, Target};
use crate::outbound::{self, CommandNetwork, Forwards, Publish};
use crate::output::print::{self, Shown};
use crate::session::{self, ChildCommand, Outbound, SessionOptions, background, program};
use crate::shell::quote;
use crate::state::{AutoHeaderStore, new_id};

/// Intercepts until a signal ends it. Returns the exit code.
pub async fn run(global: &Global, flags: &args::Intercept) -> Result<u8> {
    let wanted = Wanted::read(flags)?;
    if flags.detach && !flags.dry_run && !background::is_copy() {
        return background::send(global).await;
    }
    warn(global, &flags::warnings(&wanted.conditions));
    let backend = backend::open(global).await?;
    let target = backend.target(&flags.target).await?;
    let port = target.port(wanted.port.service.as_deref())?;
    let owner = target.owner();
    target.check(port.number, wanted.takes_everybody())?;
    if !flags.dry_run {
        backend.sweep()?;
    }
    let document = target.document().await?;
    let usual = || local_user::intercept_name(base_name(&flags.target), &owner);
    let asked = wanted.name.clone().unwrap_or_else(usual);
    let named = target.named(&document, asked.clone(), wanted.name.is_none());
    let Named { name, holder } = named.await?;
    if name != asked {
        let what = format!("{asked} is the name of another intercept: this one is {name}");
        tell(global, &[what]);
    }
    let mine = holder.as_ref().filter(|holder| holder.owner == owner);
    let secret = Secret::random();
    let address = secret.address();
    let developer_port = wanted.port.developer.unwrap_or(port.number);
    target.check_developer_port(developer_port, wanted.port.service.as_deref())?;
    let mut plan = Plan {
        workload: target.name().to_owned(),
        port: port.number,
        protocol: developer_protocol(port.protocol),
        url: port.url,
        developer_port,
        place: target.place(&name, port.number).await?,
        owner,
        headers: wanted.conditions.headers,
        baggage: wanted.conditions.baggage,
        path: wanted.conditions.path,
        lease: wanted.lease,
        allow_overlap: flags.allow_overlap,
        replaces: replaces(global, flags, target.as_ref(), &name, mine).await?,
        context_flags: global.context_flags(),
        name,
    };
    let place = AutoHeaderStore::of(&backend.identity(), &plan.workload);
    if wanted.conditions.auto {
        plan.headers.push(MatchHeader {
            name: AUTO_HEADER.to_owned(),
            value: own_value(place.as_ref(), mine),
        });
    }
    let now = target.now().await?;
    let intercept = plan.intercept(address.as_str(), now, now);
    // Before the tunnel, so that a refusal is quick; again when the entry is written, since others write too.
    let notes = plan.check(&document, &intercept, now)?;
    if flags.dry_run {
        return dry_run(global, target.as_ref(), &plan, &intercept, &notes).await;
    }
    let beside = beside(global, flags, backend.as_ref(), target.as_ref(), &plan).await?;
    if let (true, Some(place), Some(own)) = (wanted.conditions.auto, place, plan.headers.last_mut())
    {
        own.value = place.remember(&own.value).or_hint(
            "the header of your own could not be remembered",
            "export XDG_STATE_HOME=… (a directory that you may write to)",
        )?;
    }
    session::run(global, target.as_ref(), plan, secret, beside).await
}

/// Everything that may be refused, before anything is made.
async fn beside(
    global: &Global,
    flags: &args::Intercept,
    backend: &dyn Backend,
    target: &dyn Target,
    plan: &Plan,
) -> Result<SessionOptions> {
    let mut beside = SessionOptions {
        outbound: outbound(flags, backend, target, plan).await?,
        ..SessionOptions::default()
    };
    let is_passed = target.has_environment() && !flags.command.is_empty();
    let is_used = flags.env_file.is_some() || is_passed;
    let mut environment = Environment::default();
    if is_used && !flags.no_env {
        environment = target.environment(plan.port).await?;
        if !flags.env_all {
            environment.leave_out_code();
        }
        if let Some(outbound) = &beside.outbound {
            let (namespace, domain) = target.names();
            environment.point_to(&outbound.forwards.local_services(namespace, domain));
        }
    }
    let mut notes = environment.notes().to_vec();
    if let Some(path) = &flags.env_file {
        let (file, left_out) = EnvFile::prepare(path, &environment)?;
        notes.extend(left_out);
        beside.env_file = Some(file);
    }
    tell(global, &notes);
    if !flags.command.is_empty() {
        beside.command = Some(ChildCommand {
            words: flags.command.clone(),
            environment,
        });
    }
    if flags.detach {
        beside.detach = Some(prepare(&backend.detached_in(None), &plan.name)?);
    }
    Ok(beside)
}

/// What leads into the cluster: the ports that were asked for, and the command's network. Where no operator has opened connections, a command that does not insist runs without.
async fn outbound(
    flags: &args::Intercept,
    backend: &dyn Backend,
    target: &dyn Target,
    plan: &Plan,
) -> Result<Option<Outbound>> {
    let program = flags.command.first();
    let program = program.filter(|_| flags.outbound != OutboundMode::Off);
    let is_needed = !flags.forward.is_empty() || is_insisting(flags.outbound);
    if program.is_none() && !is_needed {
        return Ok(None);
    }
    let end = match target.outbound().await {
        Ok(end) => end,
        Err(failure) if is_needed => return Err(failure),
        Err(_) => return Ok(None),
    };
    let publish = Publish::read(flags.publish.as_deref())?;
    let network = program.map(|program| CommandNetwork {
        program: program_name(program),
        mode: flags.outbound,
        label: outbound::label(&backend.detached_in(None), &plan.name),
        publish,
        is_marked: !flags.no_mark,
    });
    Ok(Some(Outbound {
        end,
        forwards: Forwards::bind(&flags.forward).await?,
        network,
    }))
}

/// Is there to be no intercept without it?
fn is_insisting(mode: OutboundMode) -> bool {
    matches!(mode, OutboundMode::Namespace | OutboundMode::Proxy)
}

/// `npm` of `/usr/bin/npm`.
fn program_name(program: &OsStr) -> String {
    let name = Path::new(program).file_name().unwrap_or(program);
    name.to_string_lossy().into_owned()
}

/// The files of an intercept that goes into the background.
fn prepare(backend: &str, name: &str) -> Result<Prepared> {
    const HINT: &str = "export XDG_STATE_HOME=… (a directory that you may write to)";
    let place = Place::of(backend)
        .ok_or_else(|| CliError::failed("--detach: there is no place for its log", HINT))?;
    place.prepare(name).or_hint("--detach: its log", HINT)
}

/// TARGET without its kind.
fn base_name(target: &str) -> &str {
    target.split_once('/').map_or(target, |(_, name)| name)
}

/// The address of one's own intercept of the name, if its place may be taken. One whose lease is over takes no requests, wherever its tunnel is.
async fn replaces(
    global: &Global,
    flags: &args::Intercept,
    target: &dyn Target,
    name: &str,
    mine: Option<&Intercept>,
) -> Result<Option<String>> {
    let Some(mine) = mine else {
        return Ok(None);
    };
    if !flags.replace {
        match target.presence(&mine.address).await {
            Presence::Up => return Ok(None),
            Presence::Unknown if mine.expires > target.now().await? => {
                return Err(CliError::failed(
                    format!(
                        "{name}: your intercept of this name exists, and it is unknown whether its tunnel is up: not every relay answers"
                    ),
                    format!(
                        "take its place all the same with --replace, or end it: injector leave{} {}",
                        global.context_flags(),
                        quote(name)
                    ),
                ));
            }
            Presence::Unknown | Presence::Away => {}
        }
    }
    Ok(Some(mine.address.clone()))
}

/// What the flags alone say.
struct Wanted {
    conditions: flags::Conditions,
    port: flags::Port,
    lease: std::time::Duration,
    name: Option<String>,
}

impl Wanted {
    /// Do the flags ask for all requests, including the kubelet's probes?
    fn takes_everybody(&self) -> bool {
        let conditions = &self.conditions;
        !conditions.auto && describe::takes_everybody(&conditions.headers, &conditions.baggage)
    }

    fn read(flags: &args::Intercept) -> Result<Self> {
        if flags.detach && !flags.command.is_empty() {
            return Err(CliError::usage(
                "--detach: a command behind `--` needs the terminal that --detach gives back",
                "start the intercept with --detach --env-file FILE, then the command by itself; or leave out --detach",
            ));
        }
        if let Some(program) = flags.command.first() {
            program::find(program)?;
        }
        needs_command(flags)?;
        Ok(Self {
            conditions: flags::conditions(&flags.conditions)?,
            port: flags::port(flags.port.as_deref())?,
            lease: flags::lease(&flags.lease)?,
            name: flags.name.as_deref().map(flags::name).transpose()?,
        })
    }
}

/// Only a command has a network of its own. What is left out may stand in a script that serves both.
fn needs_command(flags: &args::Intercept) -> Result<()> {
    Publish::read(flags.publish.as_deref())?;
    let flag = match (flags.outbound, &flags.publish) {
        _ if !flags.command.is_empty() => return Ok(()),
        (OutboundMode::Namespace, _) => "--outbound=namespace".to_owned(),
        (OutboundMode::Proxy, _) => "--outbound=proxy".to_owned(),
        (_, Some(ports)) => format!("--publish={ports}"),
        _ => return Ok(()),
    };
    Err(CliError::usage(
        format!("{flag}: needs a command behind `--`"),
        format!(
            "injector intercept {} {flag} -- npm start",
            quote(&flags.target)
        ),
    ))
}

/// The value of the developer's own header: the remembered one, else that of the intercept whose place is taken, else a new one.
fn own_value(place: Option<&AutoHeaderStore>, mine: Option<&Intercept>) -> String {
    let inherited = || {
        let headers = &mine?.headers;
        let own = headers.iter().find(|header| header.name == AUTO_HEADER)?;
        uuid::Uuid::try_parse(&own.value).ok()?;
        Some(own.value.clone())
    };
    place
        .and_then(AutoHeaderStore::recall)
        .or_else(inherited)
        .unwrap_or_else(new_id)
}

/// What a pod is spoken to on this port. Where its protocol is not declared, that is what the client speaks, which the relay does not learn.
fn developer_protocol(protocol: Protocol) -> LocalProtocol {
    match protocol {
        Protocol::Http => LocalProtocol::Http1,
        Protocol::Auto => LocalProtocol::Auto,
        Protocol::Http2 | Protocol::Grpc => LocalProtocol::Http2,
    }
}

fn tell(global: &Global, notes: &[String]) {
    say(global, "note", notes);
}

fn warn(global: &Global, warnings: &[String]) {
    say(global, "warning", warnings);
}

/// In one go: there may be a thousand.
fn say(global: &Global, what: &str, lines: &[String]) {
    let said = lines.iter().filter(|_| !global.quiet);
    let lines: String = said
        .map(|line| format!("{what}: {}\n", one_line(line)))
        .collect();
    eprint!("{lines}");
}

async fn dry_run(
    global: &Global,
    target: &dyn Target,
    plan: &Plan,
    entry: &Intercept,
    notes: &[String],
) -> Result<u8> {
    tell(global, notes);
    let rendered = Rendered {
        name: &plan.name,
        value: target.rendered(plan, entry).await?,
    };
    let format = match global.output {
        Format::Text => Format::Yaml,
        format => format,
    };
    print::print(format, &rendered).map(|()| 0)
}

/// What would be written.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Rendered<'p> {
    #[serde(skip)]
    name: &'p str,
    value: Value,
}

impl Shown for Rendered<'_> {
    fn text(&self) -> String {
        String::new()
    }

    fn names(&self) -> Vec<&str> {
        vec![self.name]
    }
}
