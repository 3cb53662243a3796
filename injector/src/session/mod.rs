//! One intercept while it lives: made, kept, watched, and undone on every way out. Independent of where intercepts are kept.
//!
//! The order is what keeps requests whole: the tunnel is up before the entry is written, and the entry is gone before the tunnel goes.

pub mod background;
pub mod plan;
pub mod presence;
pub mod relay;

mod child;
mod keep;
mod lease;
mod report;
mod signals;
mod tunnel;
mod undo;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use intercept_core::{Document, Intercept};
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use self::child::Child;
pub use self::child::ChildCommand;
use self::lease::Lease;
use self::plan::Plan;
use self::presence::Presence;
use self::report::{LiveShown, Report};
use self::signals::Signals;
use self::tunnel::{NotUp, Tunnel};
use crate::backend::{Live, Target};
use crate::cli::Global;
use crate::commands::list::InterceptShown;
use crate::curl::quote;
use crate::detached::{Kept, Prepared, Record};
use crate::environment::EnvFile;
use crate::hint::{Failure, OrHint, Result};
use crate::print;
use crate::tunnel::Secret;
use crate::tunnel::developer::Event;
use crate::words;

/// How long the first connection to the relay may take.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for Envoy to take an intercept, or to let go of it.
const ENVOY_TIMEOUT: Duration = Duration::from_secs(10);

/// After how long without an effect an intercept is written once more: the usual is half a second.
const NUDGE_AFTER: Duration = Duration::from_secs(3);

/// How long somebody who wants out at once waits for the API server and the proxies.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(3);

/// What goes on beside an intercept while it lives.
#[derive(Debug, Default)]
pub struct Beside {
    /// What to run; its end ends the intercept.
    pub command: Option<ChildCommand>,
    /// The file with the workload's environment, to be put in its place once the intercept lives.
    pub env_file: Option<EnvFile>,
    /// The files of an intercept that goes into the background once it lives.
    pub detach: Option<Prepared>,
}

/// Makes the intercept, runs the command behind `--`, and undoes everything. Returns the exit code.
pub async fn run(
    global: &Global,
    target: &Target<'_>,
    plan: Plan,
    secret: Secret,
    mut beside: Beside,
) -> Result<u8> {
    let mut signals = Signals::catch().map_err(|error| {
        Failure::failed(
            format_args!("signals: {error}"),
            "injector intercept --help",
        )
    })?;
    let mut session = Session::new(global, target, plan, secret);
    let end = tokio::select! {
        biased;
        signal = signals.next() => End::Signal(signal),
        started = session.start(&mut beside) => match started {
            Ok(()) => session.stay(&mut signals, beside.command).await,
            Err(failure) => End::Failed(failure),
        },
    };
    // A shell that is closed hangs up twice in a moment: that is no impatience.
    signals.ignore_hangup();
    let signal = tokio::select! {
        code = session.finish(end) => return code,
        signal = signals.next() => signal,
    };
    // Whoever asks twice wants out at once.
    let _ = timeout(CLEAR_TIMEOUT, session.drop_at_once()).await;
    Ok(killed_by(signal))
}

/// Why an intercept ends.
enum End {
    Signal(Signal),
    Child(u8),
    Failed(Failure),
}

/// As a log tells it.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Signal(signal) if *signal == Signal::TERM => {
                f.write_str("ends: it was told to (`injector leave`, SIGTERM)")
            }
            Self::Signal(signal) => write!(f, "ends: signal {}", signal.as_raw()),
            Self::Child(code) => write!(f, "ends: the command ended with {code}"),
            Self::Failed(failure) => write!(f, "ends: {}", failure.error()),
        }
    }
}

struct Session<'a> {
    global: &'a Global,
    target: &'a Target<'a>,
    plan: Plan,
    report: Report,
    /// The tunnel's public name; the entry that has it is ours.
    address: String,
    secret: Secret,
    tunnel: Tunnel,
    is_away: bool,
    /// Nobody knows whether the proxies have the entry.
    is_unseen: bool,
    is_live: bool,
    /// Writing the entry was cut off, or nobody said how it ended: it may still be taken.
    is_adding: bool,
    child: Option<Child>,
    /// In seconds since the epoch.
    created: u64,
    lease: Lease,
    /// What is remembered of it on this machine while it runs in the background.
    kept: Option<Kept>,
}

impl<'a> Session<'a> {
    fn new(global: &'a Global, target: &'a Target<'a>, plan: Plan, secret: Secret) -> Self {
        Self {
            global,
            target,
            report: Report::new(global),
            address: secret.address().as_str().to_owned(),
            tunnel: Tunnel::open(&plan, secret.clone()),
            secret,
            is_away: false,
            is_unseen: false,
            is_live: false,
            is_adding: false,
            child: None,
            created: 0,
            lease: Lease::new(plan.lease),
            kept: None,
            plan,
        }
    }

    /// Tunnel, then entry, then the word that it lives.
    async fn start(&mut self, beside: &mut Beside) -> Result<()> {
        let listens = listens(self.plan.developer_port);
        let (up, listens) = tokio::join!(self.reach_relay(), listens);
        up?;
        self.created = self.target.now().await?;
        self.add().await?;
        let live = self.wait_live().await?;
        if words::takes_everybody(&self.plan.headers, &self.plan.baggage) {
            self.report.warn(&format!(
                "this takes EVERYBODY's requests to {} ({}), not only yours",
                self.plan.workload,
                words::conditions(&self.entry())
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

    /// Opens the tunnel: at another relay where the first one is full, and where all are, at the one that has room first.
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
            let beside = self.target.place_beside(name, *port, &self.address, &full);
            was_full = match beside.await {
                None => Some(failure),
                Some(place) => {
                    self.report.detail(failure.error());
                    self.tunnel.close().await;
                    self.plan.place = place;
                    self.tunnel = Tunnel::open(&self.plan, self.secret.clone());
                    None
                }
            };
        }
    }

    fn go_to_background(&mut self, prepared: Prepared) -> Result<()> {
        let requests = words::conditions(&self.entry());
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
            .detached(&self.plan.name, &record.log, &self.global.place_flags());
        let kept = self.kept.insert(kept);
        background::leave_terminal(&kept.log)?;
        self.report = self.report.into_log();
        self.report.record(&format!(
            "{} intercepts port {} of {}: {requests} (process {})",
            self.plan.name, self.plan.port, self.plan.workload, record.pid
        ));
        background::tell(&kept.log)
    }

    /// Istio's agent hands on two updates of a filter in any order when they come close together (`deltaRewriteAndForward` of its xDS proxy runs in the
    /// background), and a proxy may be left with the older one. One more update puts that right: here if nothing is seen, else at the first look.
    async fn wait_live(&mut self) -> Result<Live> {
        let started = Instant::now();
        let mut live = self.live_within(NUDGE_AFTER).await;
        if !matches!(live, Live::Verified) && started.elapsed() >= NUDGE_AFTER {
            let now = self.target.now().await?;
            self.renew(now).await?;
            live = self.live_within(ENVOY_TIMEOUT).await;
        }
        self.is_unseen = !matches!(live, Live::Verified);
        Ok(live)
    }

    async fn live_within(&self, time: Duration) -> Live {
        let progress = self.report.progress();
        let entry = self.entry();
        self.target
            .wait_live(&self.plan.name, &entry, time, &|replicas| {
                progress.show(replicas)
            })
            .await
    }

    /// Writes the entry with a fresh lease, if it may be there.
    async fn add(&mut self) -> Result<()> {
        let now = self.target.now().await?;
        let intercept = self.plan.intercept(&self.address, self.created, now);
        let plan = &self.plan;
        // Asked again whenever somebody else was faster; only the last answer counts.
        let notes = Mutex::new(Vec::new());
        let check = |document: &Document| {
            *notes.lock().unwrap_or_else(PoisonError::into_inner) =
                plan.check(document, &intercept, now)?;
            Ok(())
        };
        self.is_adding = true;
        let added = self
            .target
            .add(&plan.name, &intercept, plan.place.replica, &check)
            .await;
        // What was refused will not come; what broke off may.
        self.is_adding = added.as_ref().is_err_and(Failure::may_pass);
        added?;
        let notes = notes.into_inner().unwrap_or_else(PoisonError::into_inner);
        notes.iter().for_each(|note| self.report.note(note));
        self.lease.until(intercept.expires);
        Ok(())
    }

    fn entry(&self) -> Intercept {
        let mut entry = self.plan.intercept(&self.address, self.created, 0);
        entry.expires = self.lease.expires();
        entry
    }

    /// Until a signal, the child's end, or the loss of the intercept.
    async fn stay(&mut self, signals: &mut Signals, command: Option<ChildCommand>) -> End {
        self.is_live = true;
        if self.kept.is_some() {
            signals.ignore_hangup();
        }
        let mut child = None;
        if let Some(command) = command {
            match Child::start(command, &self.plan.name) {
                Ok(started) => child = Some(started),
                Err(failure) => return End::Failed(failure),
            }
        }
        let end = self.watch(signals, &mut child).await;
        self.child = child;
        end
    }

    async fn watch(&mut self, signals: &mut Signals, child: &mut Option<Child>) -> End {
        let look = self.target.look_every();
        let mut looks = interval_at(Instant::now() + look, look);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // A command behind `--` gets Ctrl-C as well: its end must not hide that.
                biased;
                signal = signals.next() => return End::Signal(signal),
                code = wait_for(child) => return End::Child(code),
                event = self.tunnel.next() => if let Err(failure) = self.tell(event) {
                    return End::Failed(failure);
                },
                _ = looks.tick() => {
                    // An API server that takes its time holds up nobody who wants out. A look that is cut off has read, or moved the lease of an entry that is removed next.
                    let looked = tokio::select! {
                        biased;
                        signal = signals.next() => return End::Signal(signal),
                        code = wait_for(child) => return End::Child(code),
                        looked = self.look() => looked,
                    };
                    if let Err(failure) = looked {
                        return End::Failed(failure);
                    }
                }
            }
        }
    }

    fn tell(&mut self, event: Result<Event, String>) -> Result<()> {
        match event {
            Ok(Event::Up { relay_version }) => {
                if std::mem::take(&mut self.is_away) {
                    self.report.note("the tunnel is back");
                }
                self.report.detail(&format!(
                    "the tunnel is up, the relay's version {relay_version}"
                ));
            }
            Ok(Event::Away { reason, retry_in }) => {
                // Once per absence; each further attempt is for the curious.
                if !std::mem::replace(&mut self.is_away, true) {
                    self.report.warn(&format!(
                        "the tunnel is away ({reason}); meanwhile the cluster answers"
                    ));
                }
                self.report.detail(&format!(
                    "{reason}; next attempt in {} ms",
                    retry_in.as_millis()
                ));
            }
            Ok(Event::Request(line)) => self.report.request(&line),
            Ok(Event::Replaced | Event::Full) => {}
            Err(why) => {
                return Err(Failure::failed(
                    format!("{}: {why}", self.plan.name),
                    "injector status",
                ));
            }
        }
        Ok(())
    }
}

/// Never, where there is no child.
async fn wait_for(child: &mut Option<Child>) -> u8 {
    match child {
        Some(child) => child.wait().await.unwrap_or(1),
        None => std::future::pending().await,
    }
}

/// Does anything take connections on this port, on either of the addresses that are tried?
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

fn killed_by(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(130)
}
