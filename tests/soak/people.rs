//! Developers who come and go: each way of leaving in turn, with running requests of every kind.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use harness::app::Do;
use harness::intercept::Intercept;
use harness::wait;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::contract::{Kind, Outcome, Phase, Verdict};
use crate::failures;
use crate::requests::{Fired, Shot, Until, fire};
use crate::world::{Lane, Person, World};

/// What a command prints once its tunnel is down.
pub const AWAY: &str = "the tunnel is away";

/// A way to end an intercept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Interrupt,
    InterruptTwice,
    Terminate,
    HangUp,
    Leave,
    LeaveAll,
    Detach,
    Child,
    Kill,
    Replace,
}

impl Way {
    pub const ALL: [Self; 10] = [
        Self::Interrupt,
        Self::InterruptTwice,
        Self::Terminate,
        Self::HangUp,
        Self::Leave,
        Self::LeaveAll,
        Self::Detach,
        Self::Child,
        Self::Kill,
        Self::Replace,
    ];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "Ctrl-C",
            Self::InterruptTwice => "Ctrl-C twice",
            Self::Terminate => "SIGTERM",
            Self::HangUp => "SIGHUP",
            Self::Leave => "leave NAME, elsewhere",
            Self::LeaveAll => "leave --all, elsewhere",
            Self::Detach => "--detach, then leave",
            Self::Child => "end of -- CMD",
            Self::Kill => "kill -9",
            Self::Replace => "--replace by another, then Ctrl-C",
        }
    }

    /// Do running requests get their five seconds?
    fn is_patient(self) -> bool {
        matches!(
            self,
            Self::Interrupt | Self::Terminate | Self::HangUp | Self::Detach | Self::Child
        )
    }

    /// The possible exit codes of a command that ends in this way.
    fn codes(self) -> &'static [i32] {
        match self {
            Self::Interrupt | Self::Terminate | Self::HangUp | Self::Child | Self::Detach => &[0],
            Self::InterruptTwice => &[0, 130],
            // Another user removed it.
            Self::Leave | Self::LeaveAll | Self::Replace => &[0, 1],
            Self::Kill => &[],
        }
    }
}

/// The timing of developers.
#[derive(Debug, Clone, Copy)]
pub struct Rhythm {
    /// Approximate time from one arrival to the next.
    pub cycle: Duration,
    /// Time from the last byte of a killed command until its tunnel is completely gone.
    pub silence: Duration,
}

/// A developer comes and goes until the soak stops. `place` is the developer's index.
pub async fn come_and_go(
    world: Arc<World>,
    lane: Arc<Lane>,
    person: Arc<Person>,
    place: usize,
    rhythm: Rhythm,
) {
    // Not all at once.
    world.pause(rhythm.cycle * (place as u32 % 20) / 40).await;
    let mut is_left_over = false;
    for turn in place.. {
        if world.is_stopping() {
            break;
        }
        let way = Way::ALL[turn % Way::ALL.len()];
        let took =
            std::panic::AssertUnwindSafe(one_turn(&world, &lane, &person, way, turn, rhythm));
        if took.catch_unwind().await.is_err() {
            let said = failures::take().join("; ");
            let example = format!("{} {}: {said}", person.name, way.name());
            world.deviates("a command did not do as it was told", &example);
            person.timeline.mark(Phase::Leaving);
            sleep(rhythm.silence).await;
            person.timeline.mark(Phase::Away);
        }
        is_left_over = way == Way::Kill;
        world.count_turn(way.name());
        world.pause(rhythm.cycle / 20 * (1 + turn as u32 % 4)).await;
    }
    if is_left_over {
        run(&person, &["leave", person.name]).await;
    }
}

/// Comes, stays and leaves once.
async fn one_turn(
    world: &Arc<World>,
    lane: &Arc<Lane>,
    person: &Arc<Person>,
    way: Way,
    turn: usize,
    rhythm: Rhythm,
) {
    let fifo = person.developer.home().join("fifo");
    person.timeline.mark(Phase::Coming);
    let live = try_again(world, async || come(person, way, &fifo).await).await;
    person.timeline.mark(Phase::Live);
    world.pause(rhythm.cycle / 10 * (3 + turn as u32 % 5)).await;

    let (left_tx, left) = watch::channel(false);
    let parting = part(world, lane, person, &left);
    sleep(Duration::from_millis(700)).await;
    person.timeline.mark(Phase::Leaving);
    leave(world, person, way, live, &fifo, rhythm).await;
    person.timeline.mark(Phase::Away);
    if way != Way::Kill {
        let list = run(person, &["list", "-o", "name"]).await;
        let is_left = list.lines().any(|line| line.trim().ends_with(person.name));
        assert!(!is_left, "it is still listed:\n{list}");
    }
    left_tx.send_replace(true);
    judge_parting(world, person, way, parting).await;
}

/// Errors of a command that refuses to start while a relay is being restarted.
const REFUSALS: [&str; 2] = ["not every relay answers", "the relay cannot be reached"];

/// Starts a command, and retries as the error message asks a person to.
async fn try_again<T>(world: &World, mut start: impl AsyncFnMut() -> T) -> T {
    for _ in 0..10 {
        let starting = std::panic::AssertUnwindSafe(start());
        if let Ok(started) = starting.catch_unwind().await {
            return started;
        }
        let said = failures::take().join("; ");
        let is_refused = REFUSALS.iter().any(|refusal| said.contains(refusal));
        assert!(is_refused, "{said}");
        world.tally.lock().expect("no panic").typed_again += 1;
        sleep(Duration::from_secs(3)).await;
    }
    start().await
}

/// Starts the command. Returns once it is live.
async fn come(person: &Person, way: Way, fifo: &Path) -> Option<Intercept> {
    let port = format!("{}{}", person.server.port(), person.port);
    let header = format!("--http-header=Coder={}", person.name);
    let mut words = vec![
        "intercept",
        "orders",
        "--port",
        &port,
        "--name",
        person.name,
    ];
    words.extend([header.as_str(), "--lease=5min"]);
    if way == Way::Detach {
        words.push("--detach");
        run(person, &words).await;
        return None;
    }
    if way == Way::Child {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        // It may exist from the last time.
        let _ = rustix::fs::mknodat(
            rustix::fs::CWD,
            fifo,
            rustix::fs::FileType::Fifo,
            mode,
            rustix::fs::Dev::default(),
        );
        words.extend(["--", "cat", fifo.to_str().expect("a path in UTF-8")]);
    }
    let command = person.developer.command(&words);
    Some(person.developer.start(command).await)
}

/// Starts requests that run while the developer leaves.
///
/// Short ones, and ones that do not end at the developer's server.
///
/// Streams that the cluster answers end once it has `left`.
fn part(
    world: &Arc<World>,
    lane: &Arc<Lane>,
    person: &Arc<Person>,
    left: &watch::Receiver<bool>,
) -> JoinSet<(&'static str, Fired)> {
    let held = Do::HoldAt(person.name);
    let endless = |kind, to| Shot {
        until: Until::Told(left.clone()),
        pause: Duration::from_millis(200),
        limit: Duration::from_secs(120),
        ..Shot::new(kind, to)
    };
    let shots = [
        (SHORT, Shot::new(Kind::Get, Do::Sleep(2_500))),
        (SHORT, Shot::new(Kind::Post, Do::Sleep(2_500))),
        ("", Shot::new(Kind::Get, held)),
        ("", Shot::new(Kind::Post, held)),
        ("", endless(Kind::Events, Do::Ticks(200))),
        ("", endless(Kind::Socket, Do::Tell)),
        ("", endless(Kind::Talk, Do::Tell)),
    ];
    let mut parting = JoinSet::new();
    let shots = shots.into_iter();
    for (what, shot) in shots.filter(|(_, shot)| person.takes(shot.kind)) {
        let (world, lane, person) = (Arc::clone(world), Arc::clone(lane), Arc::clone(person));
        parting.spawn(async move { (what, fire(&world, &lane, Some(&person), shot).await) });
    }
    parting
}

/// A request that ends within the five seconds of a graceful end.
const SHORT: &str = "short";

/// Judges a request during an end.
///
/// With a graceful one, a short request must be the developer's to its end.
async fn judge_parting(
    world: &World,
    person: &Person,
    way: Way,
    parting: JoinSet<(&'static str, Fired)>,
) {
    for (what, fired) in parting.join_all().await {
        let is_late = matches!(
            &fired.outcome,
            // On a machine that stalls, it reached Envoy after the end of the intercept.
            Outcome::Answered {
                marks: Some([None, _]),
                ..
            }
        );
        let is_right = matches!(fired.verdict, Verdict::Developer | Verdict::Deviation(_));
        if what == SHORT && way.is_patient() && !(is_right || is_late) && person.breaks.count() == 0
        {
            let (took, outcome) = (fired.took, &fired.outcome);
            let example = format!("{} {}, {took:?}: {outcome:?}", person.name, way.name());
            world.deviates("a request that had time was cut short in leaving", &example);
        }
    }
}

async fn leave(
    world: &World,
    person: &Arc<Person>,
    way: Way,
    live: Option<Intercept>,
    fifo: &Path,
    rhythm: Rhythm,
) {
    let Some(mut live) = live else {
        run(person, &["leave", person.name]).await;
        return;
    };
    match way {
        Way::Interrupt => live.process.signal(Signal::INT),
        Way::InterruptTwice => {
            live.process.signal(Signal::INT);
            sleep(Duration::from_millis(300)).await;
            live.process.signal(Signal::INT);
        }
        Way::Terminate => live.process.signal(Signal::TERM),
        Way::HangUp => live.process.signal(Signal::HUP),
        Way::Leave => drop(run(person, &["leave", person.name]).await),
        Way::LeaveAll => drop(run(person, &["leave", "--all"]).await),
        Way::Child => open_and_close(fifo.to_owned()).await,
        Way::Kill => {
            live.process.kill();
            count_losses(world, person, &live);
            sleep(rhythm.silence).await;
            return;
        }
        Way::Replace => {
            let port = format!("{}{}", person.server.port(), person.port);
            let header = format!("--http-header=Coder={}", person.name);
            let words = [
                "intercept",
                "orders",
                "--port",
                &port,
                "--name",
                person.name,
                &header,
            ];
            let words = [&words[..], &["--lease=5min", "--replace"]].concat();
            let developer = &person.developer;
            let start = async || developer.start(developer.command(&words)).await;
            let next = try_again(world, start).await;
            ends(world, person, way, live).await;
            next.process.signal(Signal::INT);
            ends(world, person, Way::Interrupt, next).await;
            return;
        }
        Way::Detach => unreachable!("it has no process of ours"),
    }
    ends(world, person, way, live).await;
}

async fn ends(world: &World, person: &Person, way: Way, mut live: Intercept) {
    let status = live.process.wait().await;
    let code = status.code();
    let output = live.process.output();
    assert!(
        code.is_some_and(|code| way.codes().contains(&code)),
        "it ended with {status}:\n{output}"
    );
    count_losses(world, person, &live);
}

/// Counts tunnels that were lost although the developer did not leave and no relay was restarted.
pub fn count_losses(world: &World, person: &Person, live: &Intercept) {
    let output = live.process.output();
    let losses: Vec<&str> = output.lines().filter(|line| line.contains(AWAY)).collect();
    let mut tally = world.tally.lock().expect("no panic");
    if person.breaks.count() > 0 {
        tally.expected_losses += losses.len() as u64;
    } else if let Some(first) = losses.first() {
        tally.lost_tunnels += losses.len() as u64;
        let first = format!("{}: {first}", person.name);
        drop(tally);
        world.deviates("a tunnel was lost by itself", &first);
    }
}

/// Opens the FIFO for writing and closes it, which ends its reader.
async fn open_and_close(fifo: PathBuf) {
    wait::blocking(move || drop(std::fs::File::options().write(true).open(fifo))).await;
}

/// Runs `injector`, which must succeed. Returns its output.
pub async fn run(person: &Person, words: &[&str]) -> String {
    let mut command = person.developer.command(words);
    let output = wait::blocking(move || command.output().expect("it starts")).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "injector {}: {}{}",
        words.join(" "),
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}
