//! `make soak`: checks every promise in ordinary use, for hours.
//!
//! Developers come and go in every way while requests of every kind continue. Each response is checked against the contract, and memory and descriptors for growth.
//!
//!     soak [--duration 1h] [--mesh] [--rate 200] [--developers 20] [--cycle 60s] [--restart 5m] [--json FILE]
//!
//! Exit code 0 if everything met the contract, 1 if not, 2 for wrong usage. It ends what it started, also on Ctrl-C, which ends it early.

mod contract;
mod failures;
mod ledger;
mod load;
mod local;
mod long;
mod mesh;
mod people;
mod report;
mod requests;
mod samples;
mod stage;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use harness::intercept::Intercept;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinSet, LocalSet};

use crate::contract::{IN_PLACE, Phase};
use crate::long::Long;
use crate::people::{AWAY, Rhythm, come_and_go, count_losses};
use crate::report::Report;
use crate::samples::{Samples, Watched};
use crate::stage::{NAMES, Stage, end_leftovers};
use crate::world::{Person, World};

/// The command line's options.
#[derive(Debug, Clone)]
struct Options {
    duration: Duration,
    is_mesh: bool,
    rate: f64,
    developers: usize,
    cycle: Duration,
    restart: Option<Duration>,
    json: Option<PathBuf>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            duration: Duration::from_secs(3_600),
            is_mesh: false,
            rate: 200.0,
            developers: 20,
            cycle: Duration::from_secs(60),
            restart: None,
            json: None,
        };
        while let Some(flag) = words.next() {
            let mut value = || words.next().ok_or(format!("{flag}: expected a value"));
            match flag.as_str() {
                "--mesh" => options.is_mesh = true,
                "--duration" => options.duration = time(&value()?)?,
                "--cycle" => options.cycle = time(&value()?)?,
                "--restart" => options.restart = Some(time(&value()?)?),
                "--json" => options.json = Some(value()?.into()),
                "--rate" => options.rate = number(&value()?, 1.0, 2_000.0)?,
                "--developers" => {
                    options.developers = number(&value()?, 1.0, NAMES.len() as f64)? as usize;
                }
                _ => return Err(format!("{flag}: unknown flag")),
            }
        }
        Ok(options)
    }

    /// The interval of restarts, by default a fifth of the duration, at most five minutes.
    fn restart(&self) -> Duration {
        let most = Duration::from_secs(300);
        self.restart.unwrap_or_else(|| most.min(self.duration / 5))
    }
}

/// Parses `90s`, `2m` or `1h`.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text}: expected a time of at least 1s, such as 90s, 2m or 1h");
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let time = number
        .checked_mul(seconds)
        .filter(|time| (1..=172_800).contains(time));
    time.map(Duration::from_secs).ok_or_else(wrong)
}

fn number(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (least..=most).contains(number));
    number.ok_or(format!("{text}: expected a number from {least} to {most}"))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("error: {error}\n\nhint: make soak DURATION=2m");
            return ExitCode::from(2);
        }
    };
    failures::keep();
    let report = LocalSet::new().run_until(soak(&options)).await;
    print!("{}", report.markdown());
    if let Some(path) = &options.json
        && let Err(error) = std::fs::write(path, format!("{:#}\n", report.json()))
    {
        eprintln!("error: {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    match report.is_good() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The interval of samples.
const SAMPLE: Duration = Duration::from_secs(5);

async fn soak(options: &Options) -> Report {
    let world = Arc::new(World::new());
    let mut stage = match options.is_mesh {
        true => mesh::start(&world, options.developers).await,
        false => local::start(&world, options.developers).await,
    };
    let holders = stage.holders.clone();
    let mut held = Vec::new();
    for holder in &holders {
        held.push(hold(holder).await);
    }
    let mut long = Long::new();
    for holder in &holders {
        long.open(&world, &stage.lanes[0], Some(holder));
    }
    for lane in &stage.lanes {
        long.open(&world, lane, None);
    }

    let people = come_and_go_all(&world, &stage, options.cycle);
    let control = stage.control.clone();
    let load = load::run(
        Arc::clone(&world),
        stage.lanes.clone(),
        options.rate,
        control,
    );
    let load = tokio::spawn(load);
    let changes = stage.changes().await;
    let processes = stage.processes(held[0].process.id());
    let samples = tokio::spawn(sample(Arc::clone(&world), processes));
    let clock = tokio::spawn(stop_after(Arc::clone(&world), options.duration));
    let restarts = stage.restart(&world, options.restart()).await;

    // The soak is stopping.
    let samples = samples.await.expect("no panic");
    let changes = stage.changes().await - changes;
    let lasted = world.began.elapsed();
    people.join_all().await;
    load.await.expect("no panic");
    clock.await.expect("no panic");
    long.end(&world, &holders).await;
    for (holder, live) in holders.iter().zip(held) {
        release(&world, holder, live).await;
    }
    stage.look(&world).await;
    judge_end(&world, &stage, &restarts);
    let suspects = stage.suspects().await;
    let left_over = world.tally.lock().expect("no panic").suspects;
    if left_over > suspects {
        let example = format!("{left_over} requests that are not safe, the relays say {suspects}");
        world.deviates(IN_PLACE, &example);
    }
    let (requests, wrong) = world.ledger.audit();
    for one in &wrong {
        world.deviates("ran otherwise than its client was told", one);
    }
    let warm = (options.duration / 5).min(Duration::from_secs(600));
    let tally = std::mem::take(&mut *world.tally.lock().expect("no panic"));
    Report {
        place: stage.name(),
        asked: options.duration,
        lasted,
        requests,
        developers: options.developers,
        restarts,
        changes,
        suspects,
        tally,
        summaries: samples.summaries(warm),
    }
}

fn come_and_go_all(world: &Arc<World>, stage: &Stage, cycle: Duration) -> JoinSet<()> {
    let rhythm = Rhythm {
        cycle,
        silence: stage.silence,
    };
    let mut people = JoinSet::new();
    let lanes = stage.lanes.iter();
    let all = lanes.flat_map(|lane| lane.people.iter().map(move |one| (lane, one)));
    for (place, (lane, person)) in all.enumerate() {
        let (world, lane, person) = (Arc::clone(world), Arc::clone(lane), Arc::clone(person));
        // Waiting for a command is not `Send`.
        people.spawn_local(come_and_go(world, lane, person, place, rhythm));
    }
    people
}

/// Starts the holder's intercept, which lives the whole time.
async fn hold(holder: &Person) -> Intercept {
    let port = format!("{}{}", holder.server.port(), holder.port);
    let header = format!("--http-header=Coder={}", holder.name);
    let words = [
        "intercept",
        "orders",
        "--port",
        &port,
        "--name",
        holder.name,
    ];
    let words = [&words[..], &[header.as_str(), "--lease=5min", "-v"]].concat();
    let live = holder
        .developer
        .start(holder.developer.command(&words))
        .await;
    holder.timeline.mark(Phase::Live);
    live
}

/// Ends the holder's intercept with Ctrl-C.
async fn release(world: &World, holder: &Person, mut live: Intercept) {
    holder.timeline.mark(Phase::Leaving);
    live.process.signal(rustix::process::Signal::INT);
    let status = live.process.wait().await;
    count_losses(world, holder, &live);
    if !status.success() {
        world.deviates("the holder's command failed", &live.process.output());
    }
}

async fn sample(world: Arc<World>, processes: Vec<Watched>) -> Samples {
    let mut samples = Samples::default();
    while !world.is_stopping() {
        samples.take(world.began.elapsed(), &processes).await;
        world.pause(SAMPLE).await;
    }
    samples
}

/// Stops after the duration, or on Ctrl-C or SIGTERM. Prints the progress once a minute.
async fn stop_after(world: Arc<World>, duration: Duration) {
    let [mut interrupt, mut terminate] = [SignalKind::interrupt(), SignalKind::terminate()]
        .map(|kind| signal(kind).expect("a signal"));
    let mut minute = tokio::time::interval(Duration::from_secs(60));
    let end = tokio::time::sleep(duration);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = interrupt.recv() => return cut_short(&world),
            _ = terminate.recv() => return cut_short(&world),
            _ = minute.tick() => tell(&world),
        }
    }
    world.stop();
}

/// Records a signal.
///
/// A terminal sends it to all processes at once, so nothing after it counts for the contract.
fn cut_short(world: &World) {
    world.deviates("cut short by a signal", "what follows is not judged");
    world.stop();
}

fn tell(world: &World) {
    let tally = world.tally.lock().expect("no panic");
    let count = |pick: fn(&world::Row) -> u64| tally.rows.values().map(pick).sum::<u64>();
    let deviations: u64 = tally.deviations.values().map(|one| one.count).sum();
    eprintln!(
        "+{} min: {} answered by the cluster, {} by developers, {} named errors, {deviations} deviations",
        world.began.elapsed().as_secs() / 60,
        count(|row| row.cluster),
        count(|row| row.developer),
        count(|row| row.named),
    );
}

/// Checks that nothing is left, and that everything was observed.
fn judge_end(world: &World, stage: &Stage, restarts: &[(String, usize)]) {
    for said in failures::take() {
        world.deviates("this program failed", &said);
    }
    let left = end_leftovers(&stage.dirs);
    if left > 0 {
        world.deviates(
            "processes are left",
            &format!("{left} of developers' commands"),
        );
    }
    let expected = world.tally.lock().expect("no panic").expected_losses;
    let count: usize = restarts.iter().map(|(_, count)| count).sum();
    if count > 1 && expected == 0 {
        let example = format!("no command wrote {AWAY:?}");
        world.deviates("restarts of the relay were not seen", &example);
    }
}
