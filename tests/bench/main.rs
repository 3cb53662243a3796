//! `make bench`: the tunnel beside plain TCP forwarders, on the same work, in turns.
//!
//!     bench [--rounds 9] [--slice 1s] [--bulk 256] [--old INJECTOR] [--out FILE]
//!
//! Prints Markdown. Single figures depend on the machine and what else it does; the ratios of one run do not.

mod figures;
mod load;
mod rivals;

use std::process::ExitCode;
use std::time::Duration;

use figures::Table;
use load::{Server, Work};
use rivals::Rival;

/// The command line's options.
struct Options {
    rounds: usize,
    slice: Duration,
    bulk_mib: u64,
    old: Option<std::path::PathBuf>,
    out: Option<std::path::PathBuf>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            rounds: 9,
            slice: Duration::from_secs(1),
            bulk_mib: 256,
            old: None,
            out: None,
        };
        while let Some(flag) = words.next() {
            let value = words.next().ok_or(format!("{flag}: expected a value"))?;
            let number = || value.trim_end_matches('s').parse::<u64>();
            let wrong = |_| format!("{flag}: expected a number, got {value}");
            match flag.as_str() {
                "--rounds" => options.rounds = number().map_err(wrong)? as usize,
                "--slice" => options.slice = Duration::from_secs(number().map_err(wrong)?),
                "--bulk" => options.bulk_mib = number().map_err(wrong)?,
                "--old" => options.old = Some(value.into()),
                "--out" => options.out = Some(value.into()),
                _ => return Err(format!("{flag}: unknown flag")),
            }
        }
        Ok(options)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let server = Server::start().await;
    let rivals = Rival::start_all(&server, options.old.as_deref()).await;
    let work = [
        Work::Requests { connections: 1 },
        Work::Requests { connections: 64 },
        Work::Posts { connections: 64 },
        Work::Down(options.bulk_mib),
        Work::Up(options.bulk_mib),
    ];
    let mut table = Table::new(&rivals, &work);
    for round in 0..options.rounds {
        for one in work {
            // Forwards, then backwards: none profits from its place.
            let mut places: Vec<usize> = (0..rivals.len()).collect();
            if round % 2 == 1 {
                places.reverse();
            }
            for place in places {
                let measured = load::measure(&rivals[place], one, options.slice).await;
                table.add(place, one, measured);
            }
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    let text = table.markdown(&how(&options));
    match &options.out {
        Some(path) => std::fs::write(path, text).expect("a writable file"),
        None => print!("{text}"),
    }
    ExitCode::SUCCESS
}

/// The machine, the versions and the command.
fn how(options: &Options) -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name"));
    let models: Vec<_> = models
        .map(|model| model.trim_start_matches([' ', '\t', ':']))
        .collect();
    let versions = rivals::versions();
    format!(
        "{} cores ({}); {}. {} rounds of {} s for each kind of work: `make bench BENCH='--rounds {} --slice {} --bulk {}'`.",
        models.len(),
        models.first().unwrap_or(&"of unknown make"),
        versions.join(", "),
        options.rounds,
        options.slice.as_secs(),
        options.rounds,
        options.slice.as_secs(),
        options.bulk_mib,
    )
}
