//! One intercept while it lives: made, kept, watched, and undone on every way out. Independent of where intercepts are kept.
//!
//! The order is what keeps requests whole: the tunnel is up before the entry is written, and the entry is gone before the tunnel goes.

pub mod plan;
pub mod presence;

mod child;
mod lease;
mod report;
mod signals;
mod tunnel;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use intercept_core::Intercept;
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use self::child::Child;
use self::lease::Lease;
use self::plan::Plan;
use self::presence::Presence;
use self::report::{LiveShown, Report};
use self::signals::Signals;
use self::tunnel::Tunnel;
use crate::backend::{Backend, NotRenewed, now};
use crate::cli::Global;
use crate::commands::list::InterceptShown;
use crate::hint::{Failure, Result};
use crate::print;
use crate::tunnel::Secret;
use crate::tunnel::developer::Event;
use crate::words;

/// How long the first connection to the relay may take.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for Envoy to take an intercept, or to let go of it.
const ENVOY_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the entry is looked at: whether it is still there, whether it wants renewing, whether its lease ran out while the machine slept.
const LOOK: Duration = Duration::from_secs(2);

/// Makes the intercept, runs the command behind `--`, and undoes everything. Returns the exit code.
pub async fn run(
    global: &Global,
    backend: &Backend,
    plan: Plan,
    command: &[OsString],
) -> Result<u8> {
    let mut signals = Signals::catch().map_err(|error| {
        Failure::failed(
            format_args!("signals: {error}"),
            "injector intercept --help",
        )
    })?;
    let mut session = Session::new(global, backend, plan);
    let end = tokio::select! {
        biased;
        signal = signals.next() => End::Signal(signal),
        started = session.start(command.is_empty()) => match started {
            Ok(()) => session.stay(&mut signals, command).await,
            Err(failure) => End::Failed(failure),
        },
    };
    tokio::select! {
        // Whoever asks twice wants out at once. The entry goes first of all, so only what waits is cut short.
        code = session.finish(end) => code,
        signal = signals.next() => Ok(killed_by(signal)),
    }
}

/// Why an intercept ends.
enum End {
    Signal(Signal),
    Child(u8),
    Failed(Failure),
}

struct Session<'a> {
    global: &'a Global,
    backend: &'a Backend,
    plan: Plan,
    report: Report,
    /// The tunnel's public name; the entry that has it is ours.
    address: String,
    tunnel: Tunnel,
    is_away: bool,
    child: Option<Child>,
    /// In seconds since the epoch.
    created: u64,
    lease: Lease,
}

impl<'a> Session<'a> {
    fn new(global: &'a Global, backend: &'a Backend, plan: Plan) -> Self {
        let secret = Secret::random();
        Self {
            global,
            backend,
            report: Report::new(global),
            address: secret.address().as_str().to_owned(),
            tunnel: Tunnel::open(&plan, secret),
            is_away: false,
            child: None,
            created: now(),
            lease: Lease::new(plan.lease),
            plan,
        }
    }

    /// Tunnel, then entry, then the word that it lives.
    async fn start(&mut self, warn_of_silence: bool) -> Result<()> {
        let listens = listens(self.plan.developer_port);
        let (up, listens) = tokio::join!(
            self.tunnel.first_up(self.plan.control, TUNNEL_TIMEOUT),
            listens
        );
        up?;
        self.add()?;
        let live = self
            .backend
            .wait_live(&self.plan.name, &self.address, ENVOY_TIMEOUT)
            .await;
        if words::takes_everybody(&self.entry()) {
            self.report.warn(&format!(
                "this takes EVERYBODY's requests to {} ({}), not only yours",
                self.plan.workload,
                words::conditions(&self.entry())
            ));
        }
        if warn_of_silence && !listens {
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
        );
        print::print(
            self.global.output,
            &LiveShown::new(&self.plan, shown, &live),
        )
    }

    /// Writes the entry with a fresh lease, if it may be there.
    fn add(&mut self) -> Result<()> {
        let now = now();
        let intercept = self.plan.intercept(&self.address, self.created, now);
        let (plan, report) = (&self.plan, self.report);
        self.backend.add(&plan.name, &intercept, |document| {
            let notes = plan.check(document, &intercept, now)?;
            notes.iter().for_each(|note| report.note(note));
            Ok(())
        })?;
        self.lease.until(intercept.expires);
        Ok(())
    }

    fn entry(&self) -> Intercept {
        let mut entry = self.plan.intercept(&self.address, self.created, 0);
        entry.expires = self.lease.expires();
        entry
    }

    /// Until a signal, the child's end, or the loss of the intercept.
    async fn stay(&mut self, signals: &mut Signals, command: &[OsString]) -> End {
        match Child::start(command, &self.plan.name) {
            Ok(child) => self.child = child,
            Err(failure) => return End::Failed(failure),
        }
        let mut looks = interval_at(Instant::now() + LOOK, LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                signal = signals.next() => return End::Signal(signal),
                code = wait_for(&mut self.child) => return End::Child(code),
                event = self.tunnel.next() => if let Err(failure) = self.tell(event) {
                    return End::Failed(failure);
                },
                _ = looks.tick() => if let Err(failure) = self.look() {
                    return End::Failed(failure);
                },
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
            Ok(Event::Replaced) => {}
            Err(why) => {
                return Err(Failure::failed(
                    format!("{}: {why}", self.plan.name),
                    "injector status",
                ));
            }
        }
        Ok(())
    }

    /// Is the entry still ours, and does it live long enough?
    fn look(&mut self) -> Result<()> {
        let entry = match self.backend.find(&self.plan.name) {
            Ok(entry) => entry,
            Err(failure) => {
                self.report.detail(&failure.to_string());
                return Ok(());
            }
        };
        let now = now();
        match entry {
            Some(entry) if entry.address == self.address && entry.expires > now => {
                match self.lease.is_due(entry.expires, now) {
                    true => self.renew(now),
                    false => Ok(()),
                }
            }
            Some(entry) if entry.address == self.address => self.come_back(),
            None if self.lease.is_over(now) => self.come_back(),
            Some(entry) => Err(self.taken(&entry.owner)),
            None => Err(self.removed()),
        }
    }

    fn renew(&mut self, now: u64) -> Result<()> {
        let expires = self.lease.from(now);
        match self.backend.renew(&self.plan.name, &self.address, expires) {
            Ok(()) => {
                self.lease.until(expires);
                self.report.detail(&format!(
                    "lease renewed for {}",
                    words::span(self.plan.lease)
                ));
                Ok(())
            }
            Err(NotRenewed::Removed) => Err(self.removed()),
            Err(NotRenewed::Taken(owner)) => Err(self.taken(&owner)),
            Err(NotRenewed::Failed(why)) => {
                self.lease.failed(now);
                self.report
                    .warn(&format!("the lease could not be renewed: {why}"));
                Ok(())
            }
        }
    }

    /// The lease ran out while the machine slept: others may have come in the meantime, so everything is checked as at the start.
    fn come_back(&mut self) -> Result<()> {
        self.plan.replaces = Some(self.address.clone());
        self.add()?;
        self.report
            .note("the lease had run out while this machine slept; the intercept is back");
        Ok(())
    }

    fn removed(&self) -> Failure {
        Failure::failed(
            format!(
                "{}: somebody removed this intercept; it is not brought back",
                self.plan.name
            ),
            "ask the others, then start it again; what there is: injector list",
        )
    }

    fn taken(&self, owner: &str) -> Failure {
        Failure::failed(
            format!(
                "{}: {owner} took this name for another intercept",
                self.plan.name
            ),
            "injector status",
        )
    }

    /// Undoes everything: the entry first, so that no request is decided any more, then its cluster, then the tunnel, when what runs on it has ended.
    async fn finish(&mut self, end: End) -> Result<u8> {
        let undone = self.undo().await;
        let code = match (end, &mut self.child) {
            (End::Failed(failure), child) => {
                if let Some(child) = child {
                    child.end().await;
                }
                Err(failure)
            }
            (End::Child(code), _) => Ok(code),
            (End::Signal(signal), Some(child)) => {
                child.pass(signal);
                Ok(child.wait().await.unwrap_or(1))
            }
            (End::Signal(_), None) => Ok(0),
        };
        self.tunnel.close().await;
        let code = code?;
        undone?;
        Ok(code)
    }

    async fn undo(&mut self) -> Result<()> {
        let removed = self.backend.remove(&self.plan.name, Some(&self.address))?;
        if removed.is_some() {
            self.backend.wait_gone(&self.plan.name, ENVOY_TIMEOUT).await;
            self.report.detail(&format!("{} removed", self.plan.name));
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
