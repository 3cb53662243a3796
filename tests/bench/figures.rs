//! The figures: medians over all rounds, and their ratios.

use std::fmt::Write;
use std::time::Duration;

use crate::load::{Measured, Work};
use crate::rivals::Rival;

/// What every page begins with.
const HEAD: &str = "\
# The tunnel beside other forwarders

`make bench` writes this page: the same client asks the same server directly, through two plain TCP forwarders (bore, rathole), and through the tunnel (relay and `injector intercept -q`), in turns, on one machine.
Every end is a process of its own, and Envoy is not on the way.
Single figures depend on the machine and on what else it does. The ratios to bore do not: each is the median over all rounds of the ratio within one round.

A TCP forwarder copies bytes. The tunnel reads each request and answer: it must know what may be sent again, name the intercept, and end each request as it was ended.
";

/// All that was measured.
pub struct Table {
    names: Vec<&'static str>,
    work: Vec<Work>,
    /// By work and rival.
    cells: Vec<Vec<Vec<Measured>>>,
}

impl Table {
    pub fn new(rivals: &[Rival], work: &[Work]) -> Self {
        Self {
            names: rivals.iter().map(|rival| rival.name).collect(),
            work: work.to_vec(),
            cells: vec![vec![Vec::new(); rivals.len()]; work.len()],
        }
    }

    pub fn add(&mut self, rival: usize, work: Work, measured: Measured) {
        let row = self.work.iter().position(|one| *one == work);
        self.cells[row.expect("known work")][rival].push(measured);
    }

    /// The page: how it was measured, and a table for each kind of work.
    ///
    /// Ratios are medians over the rounds of ratios within one round.
    pub fn markdown(&self, how: &str) -> String {
        let mut text = format!("{HEAD}\n{how}\n\n");
        for (work, rivals) in self.work.iter().zip(&self.cells) {
            let (title, unit) = match work {
                Work::Requests { connections } => {
                    (format!("GET, {connections} connections"), "requests/s")
                }
                Work::Posts { connections } => {
                    (format!("POST, {connections} connections"), "requests/s")
                }
                Work::Down(mib) => (format!("{mib} MiB down"), "MiB/s"),
                Work::Up(mib) => (format!("{mib} MiB up"), "MiB/s"),
            };
            let per = if unit == "MiB/s" { "MiB" } else { "request" };
            let _ = writeln!(text, "### {title}\n");
            let _ = writeln!(
                text,
                "| | {unit} | ÷ bore | median | ÷ bore | CPU of both ends, µs per {per} | ÷ bore | developer's end |"
            );
            let _ = writeln!(text, "|---|---|---|---|---|---|---|---|");
            let bore = &rivals[self
                .names
                .iter()
                .position(|name| *name == "bore")
                .unwrap_or(0)];
            for (name, all) in self.names.iter().zip(rivals) {
                let ratio = |of: fn(&Measured) -> f64| {
                    let ratios = all.iter().zip(bore).map(|(one, bore)| of(one) / of(bore));
                    median(ratios.collect())
                };
                let mid = |of: fn(&Measured) -> f64| median(all.iter().map(of).collect());
                let _ = writeln!(
                    text,
                    "| {name} | {:.0} | {:.2} | {:.0} µs | {:.2} | {:.1} | {:.2} | {:.1} |",
                    mid(|one| one.rate),
                    ratio(|one| one.rate),
                    mid(|one| micros(one.median)),
                    ratio(|one| micros(one.median)),
                    mid(|one| micros(one.cpu)),
                    ratio(|one| micros(one.cpu)),
                    mid(|one| micros(one.near)),
                );
            }
            text.push('\n');
        }
        text
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
