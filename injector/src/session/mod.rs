//! The life of one intercept: create, renew, watch, and tear down on every way out.
//!
//! Independent of where intercepts are stored.
//!
//! The order keeps requests whole: the tunnel is up before the entry is written, and the entry is gone before the tunnel closes.

pub mod background;
pub mod exec_child;
pub mod program;

mod child;
mod lease;
mod renew;
mod report;
mod signals;
mod start;
mod teardown;
mod tunnel;

use std::fmt;
use std::future::pending;
use std::time::Duration;

use intercept_core::Limits;
use intercept_tunnel::Secret;
use intercept_tunnel::developer::{Dial, Event};
use intercept_tunnel::relay_end::RelayEnd;
use rustix::process::Signal;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

use self::child::Child;
pub use self::child::{ChildCommand, NAME_VARIABLE};
use self::lease::Lease;
use self::report::Report;
pub use self::signals::Signals;
use self::tunnel::Tunnel;
use crate::args::Global;
use crate::detached::{Kept, Prepared};
use crate::environment::file::EnvFile;
use crate::error::{CliError, Result};
use crate::model::{Plan, Target};
use crate::outbound::{CommandNetwork, Forwards, Line, Link, Network};

/// How long to wait for Envoy to accept or to drop an intercept.
const ENVOY_TIMEOUT: Duration = Duration::from_secs(10);

/// Shutdown timeout after a second signal.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(3);

/// What runs beside an intercept while it lives.
#[derive(Debug, Default)]
pub struct SessionOptions {
    /// The command to run; its exit ends the intercept.
    pub command: Option<ChildCommand>,
    /// The file for the workload's environment, moved into place once the intercept is live.
    pub env_file: Option<EnvFile>,
    /// What leads into the cluster.
    pub outbound: Option<Outbound>,
    /// The files of an intercept that goes into the background once it lives.
    pub detach: Option<Prepared>,
}

/// What leads into the cluster while an intercept lives.
#[derive(Debug)]
pub struct Outbound {
    /// Where connections are opened.
    pub end: RelayEnd,
    /// Ports of this machine.
    pub forwards: Forwards,
    /// The command's network.
    pub network: Option<CommandNetwork>,
}

/// Makes the intercept, runs the command behind `--`, and undoes everything. Returns the exit code.
pub async fn run(
    global: &Global,
    target: &dyn Target,
    plan: Plan,
    secret: Secret,
    mut beside: SessionOptions,
) -> Result<u8> {
    let mut signals = Signals::catch().map_err(|error| {
        CliError::failed(
            format_args!("signals: {error}"),
            "injector intercept --help",
        )
    })?;
    // A log has them whatever the flags say.
    let lines = !global.quiet || beside.detach.is_some();
    let mut session = Session::new(global, target, plan, secret, lines);
    let end = tokio::select! {
        biased;
        signal = signals.next() => End::Signal(signal),
        started = session.start(&mut beside) => match started {
            Ok(()) => session.stay(&mut signals, beside.command).await,
            Err(failure) => End::Failed(failure),
        },
    };
    // A shell that closes sends SIGHUP twice in quick succession: that is no request to hurry.
    signals.ignore_hangup();
    let signal = tokio::select! {
        code = session.finish(end) => return code,
        signal = signals.next() => signal,
    };
    // The second signal: shut down at once.
    let _ = timeout(CLEAR_TIMEOUT, session.drop_at_once()).await;
    Ok(killed_by(signal))
}

/// Why an intercept ends.
#[derive(Debug)]
enum End {
    Signal(Signal),
    Child(u8),
    Failed(CliError),
}

/// The text for the log.
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
    target: &'a dyn Target,
    plan: Plan,
    report: Report,
    /// The tunnel's public name; the entry with this address is ours.
    address: String,
    secret: Secret,
    tunnel: Tunnel,
    /// The way to the developer's server.
    dial: Dial,
    /// Is there a line for each request?
    lines: bool,
    /// The connection into the cluster, where there is one.
    link: Option<Link>,
    /// The command's network, where it has one of its own.
    network: Option<Network>,
    is_away: bool,
    is_live: bool,
    /// A write of the entry was cut off or its outcome is unknown: it may still take effect.
    is_adding: bool,
    /// When entry and upstream cluster were last written.
    added: Option<Instant>,
    /// The entry is removed, and the proxies had time to drop it.
    is_undone: bool,
    child: Option<Child>,
    /// Seconds since the epoch.
    created: u64,
    lease: Lease,
    /// The operator's limits that this intercept was last checked against.
    ///
    /// `None` until the first look.
    limits: Option<Limits>,
    /// Since when the user has been denied access to the entry.
    denied_since: Option<Instant>,
    /// The reported reason why no proxy has the entry.
    refusal: Option<String>,
    /// The local state of a detached intercept.
    kept: Option<Kept>,
}

impl<'a> Session<'a> {
    fn new(
        global: &'a Global,
        target: &'a dyn Target,
        plan: Plan,
        secret: Secret,
        lines: bool,
    ) -> Self {
        let dial = Dial::default();
        Self {
            global,
            target,
            report: Report::new(global),
            address: secret.address().as_str().to_owned(),
            tunnel: Tunnel::open(&plan, secret.clone(), &dial, lines),
            secret,
            dial,
            lines,
            link: None,
            network: None,
            is_away: false,
            is_live: false,
            is_adding: false,
            added: None,
            is_undone: false,
            child: None,
            created: 0,
            lease: Lease::new(plan.lease),
            limits: None,
            denied_since: None,
            refusal: None,
            kept: None,
            plan,
        }
    }

    /// Runs until a signal, the child's exit, or the loss of the intercept.
    async fn stay(&mut self, signals: &mut Signals, command: Option<ChildCommand>) -> End {
        self.is_live = true;
        if self.kept.is_some() {
            signals.ignore_hangup();
        }
        let mut child = None;
        if let Some(command) = command {
            match Child::start(command, &self.plan.name, self.network.as_ref()) {
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
            match next(
                end(signals, child),
                &mut looks,
                &mut self.tunnel,
                line_of(&mut self.link, &mut self.network),
            )
            .await
            {
                Next::End(end) => return end,
                Next::Look => {
                    if let Some(kept) = &self.kept {
                        // A full disk is no reason to end an intercept.
                        let _ = kept.bound_log();
                    }
                    // A slow API server must not delay a shutdown. Cutting the look off is safe: it only read, or renewed an entry that is removed next.
                    let looked = tokio::select! {
                        biased;
                        end = end(signals, child) => return end,
                        looked = self.look() => looked,
                    };
                    if let Err(failure) = looked {
                        return End::Failed(failure);
                    }
                }
                Next::Line(line) => self.report.line(&line),
                Next::Event(event) => {
                    if let Err(failure) = self.tell(event) {
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
                // Once per absence; each further attempt is for --verbose.
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
                return Err(CliError::failed(
                    format!("{}: {why}", self.plan.name),
                    format!("injector status{}", self.plan.context_flags),
                ));
            }
        }
        Ok(())
    }
}

/// The next thing to do while an intercept is live.
#[derive(Debug)]
enum Next {
    End(End),
    Look,
    Event(Result<Event, String>),
    Line(Line),
}

/// Waits for the next thing to do.
///
/// If several are due, the end comes first and output last: output may be due all the time.
async fn next(
    end: impl Future<Output = End>,
    looks: &mut Interval,
    tunnel: &mut Tunnel,
    line: impl Future<Output = Line>,
) -> Next {
    tokio::select! {
        biased;
        end = end => Next::End(end),
        _ = looks.tick() => Next::Look,
        event = tunnel.next() => Next::Event(event),
        line = line => Next::Line(line),
    }
}

/// Never, where there is no connection into the cluster.
async fn line_of(link: &mut Option<Link>, network: &mut Option<Network>) -> Line {
    let of_link = async {
        match link {
            Some(link) => link.next().await,
            None => pending().await,
        }
    };
    let of_network = async {
        match network {
            Some(network) => network.next().await,
            None => pending().await,
        }
    };
    tokio::select! {
        line = of_link => line,
        line = of_network => line,
    }
}

/// Waits for the end.
///
/// A command behind `--` receives Ctrl-C as well: its exit must not hide the signal.
async fn end(signals: &mut Signals, child: &mut Option<Child>) -> End {
    tokio::select! {
        biased;
        signal = signals.next() => End::Signal(signal),
        code = wait_for(child) => End::Child(code),
    }
}

/// Waits for the child's exit code; forever if there is no child.
async fn wait_for(child: &mut Option<Child>) -> u8 {
    match child {
        Some(child) => child.wait().await.unwrap_or(1),
        None => pending().await,
    }
}

fn killed_by(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(130)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_requests_holds_up_no_look() {
        let event = || Event::Up {
            relay_version: String::new(),
        };
        let (events_tx, mut tunnel) = Tunnel::of_events(2);
        let mut looks = interval_at(Instant::now() + ENVOY_TIMEOUT, ENVOY_TIMEOUT);
        events_tx.try_send(event()).expect("room");
        let first = next(pending(), &mut looks, &mut tunnel, pending()).await;
        assert!(matches!(first, Next::Event(Ok(_))), "{first:?}");
        events_tx.try_send(event()).expect("room");
        tokio::time::advance(ENVOY_TIMEOUT).await;
        let due = next(pending(), &mut looks, &mut tunnel, pending()).await;
        assert!(matches!(due, Next::Look), "{due:?}");
        let after = next(pending(), &mut looks, &mut tunnel, pending()).await;
        assert!(matches!(after, Next::Event(Ok(_))), "{after:?}");
    }
}
