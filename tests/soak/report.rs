//! The report of a soak: tables in Markdown for people, and JSON for programs.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::contract::Kind;
use crate::load::CONTROL;
use crate::samples::{ENOUGH, Fit, Summary};
use crate::world::{Latencies, Tally};

/// The results of a soak.
pub struct Report {
    pub place: &'static str,
    pub asked: Duration,
    pub lasted: Duration,
    pub requests: usize,
    pub developers: usize,
    pub restarts: Vec<(String, usize)>,
    pub changes: u64,
    /// Requests that the relays left to the cluster because a tunnel had missed a beat.
    ///
    /// By the relays' own count.
    pub suspects: u64,
    pub tally: Tally,
    pub summaries: Vec<Summary>,
}

impl Report {
    /// Did everything meet the contract?
    pub fn is_good(&self) -> bool {
        self.tally.deviations.is_empty() && self.growing().is_empty()
    }

    /// The processes that grow, if the soak was long enough to tell.
    fn growing(&self) -> Vec<String> {
        if self.lasted < ENOUGH {
            return Vec::new();
        }
        // This program keeps what it counts.
        let others = self
            .summaries
            .iter()
            .filter(|one| !one.what.starts_with('('));
        let memory = others
            .clone()
            .filter(|one| one.memory_grows(self.changes_an_hour()));
        let memory = memory.map(|one| format!("{}: memory", one.what));
        let descriptors = others.filter(|one| one.descriptors_grow());
        memory
            .chain(descriptors.map(|one| format!("{}: descriptors", one.what)))
            .collect()
    }

    fn changes_an_hour(&self) -> f64 {
        self.changes as f64 * 3_600.0 / self.lasted.as_secs_f64()
    }

    fn grows(&self, one: &Summary) -> bool {
        one.memory_grows(self.changes_an_hour()) || one.descriptors_grow()
    }

    /// The report in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a text takes all");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let minutes = self.lasted.as_secs_f64() / 60.0;
        writeln!(text, "## {minutes:.0} minutes on the {}\n", self.place)?;
        self.write_summary(text)?;
        self.write_requests(text)?;
        self.write_latencies(text)?;
        self.write_long(text)?;
        self.write_turns(text)?;
        self.write_processes(text)?;
        self.write_deviations(text)
    }

    fn write_summary(&self, text: &mut String) -> std::fmt::Result {
        let deviations: u64 = self.tally.deviations.values().map(|one| one.count).sum();
        let named: u64 = self.tally.named.values().sum();
        let seconds = self.lasted.as_secs_f64();
        writeln!(text, "| what | figure |\n|---|---|")?;
        writeln!(
            text,
            "| requests, each judged and counted at both ends | {} ({:.0}/s) |",
            self.requests,
            self.requests as f64 / seconds
        )?;
        writeln!(
            text,
            "| errors that the contract does not name | {deviations} |"
        )?;
        writeln!(text, "| errors that it names | {named} |")?;
        for ((kind, name), count) in &self.tally.named {
            writeln!(text, "| … {}: {name} | {count} |", kind.name())?;
        }
        let every = seconds / self.changes.max(1) as f64;
        writeln!(
            text,
            "| tunnels lost by themselves | {} |",
            self.tally.lost_tunnels
        )?;
        writeln!(
            text,
            "| not safe, and answered by the cluster because the tunnel had missed a beat | {} (relays: {}) |",
            self.tally.suspects, self.suspects
        )?;
        writeln!(
            text,
            "| configuration changes | {} (one every {every:.1} s) |",
            self.changes
        )?;
        writeln!(
            text,
            "| commands typed again, because a relay was being restarted | {} |",
            self.tally.typed_again
        )?;
        for (what, count) in &self.restarts {
            writeln!(text, "| restarts: {what} | {count} |")?;
        }
        writeln!(text)
    }

    fn write_requests(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "| lane | requests | kind | cluster answered | developer answered | named errors | other errors |\n|---|---|---|---|---|---|---|"
        )?;
        for ((lane, matched, kind), row) in &self.tally.rows {
            writeln!(
                text,
                "| {lane} | {matched} | {} | {} | {} | {} | {} |",
                kind.name(),
                row.cluster,
                row.developer,
                row.named,
                row.deviations
            )?;
        }
        writeln!(text)
    }

    fn write_latencies(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "| small GETs | count | median | 99 % | 99.9 % | longest stall |\n|---|---|---|---|---|---|"
        )?;
        for (which, all) in &self.tally.latencies {
            let sorted = sorted(all);
            let part = |part: f64| quantile(&sorted, part);
            let (at, longest) = longest(all);
            let at = at.as_secs();
            writeln!(
                text,
                "| {which} | {} | {:.1} ms | {:.1} ms | {:.1} ms | {longest:.0} ms (at {}:{:02}) |",
                sorted.len(),
                part(0.5),
                part(0.99),
                part(0.999),
                at / 60,
                at % 60
            )?;
        }
        writeln!(text)
    }

    fn write_long(&self, text: &mut String) -> std::fmt::Result {
        for line in &self.tally.long {
            writeln!(text, "- {line}")?;
        }
        writeln!(text)
    }

    fn write_turns(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "{} developers came and went:\n\n| way of leaving | times |\n|---|---|",
            self.developers
        )?;
        for (way, count) in &self.tally.turns {
            writeln!(text, "| {way} | {count} |")?;
        }
        writeln!(text)
    }

    fn write_processes(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "| process | samples | memory, MiB | slope, KiB/h | in use, MiB | slope, KiB/h | descriptors | slope, 1/h | CPU | |\n|---|---|---|---|---|---|---|---|---|---|"
        )?;
        for one in &self.summaries {
            let verdict = match (self.lasted < ENOUGH, self.grows(one)) {
                (true, _) => "too short to say",
                (false, true) => "**grows**",
                (false, false) => "flat",
            };
            let allocated = one.allocated_kib.as_ref();
            let verdict = if one.what.starts_with('(') {
                ""
            } else {
                verdict
            };
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {:.1} % | {verdict} |",
                one.what,
                one.samples,
                range(&one.memory_kib, 1_024.0, 1),
                slope(&one.memory_kib, 0),
                allocated.map_or_else(String::new, |fit| range(fit, 1_024.0, 1)),
                allocated.map_or_else(String::new, |fit| slope(fit, 0)),
                range(&one.descriptors, 1.0, 0),
                slope(&one.descriptors, 1),
                one.cpu_percent
            )?;
        }
        writeln!(text)
    }

    fn write_deviations(&self, text: &mut String) -> std::fmt::Result {
        for (what, deviation) in &self.tally.deviations {
            writeln!(text, "- **{what}**: {} times", deviation.count)?;
            for example in &deviation.examples {
                writeln!(text, "  - `{}`", example.replace('\n', " "))?;
            }
        }
        for what in self.growing() {
            writeln!(text, "- **grows**: {what}")?;
        }
        writeln!(
            text,
            "\n{}",
            if self.is_good() {
                "Everything is as the contract says."
            } else {
                "Not as the contract says."
            }
        )
    }

    /// The report in JSON.
    pub fn json(&self) -> Value {
        let rows = self.tally.rows.iter().map(|((lane, matched, kind), row)| {
            json!({"lane": lane, "requests": matched, "kind": kind.name(), "cluster": row.cluster,
                "developer": row.developer, "named": row.named, "deviations": row.deviations})
        });
        let named = self.tally.named.iter().map(
            |((kind, name), count)| json!({"kind": Kind::name(*kind), "name": name, "count": count}),
        );
        let deviations =
            self.tally.deviations.iter().map(
                |(what, one)| json!({"what": what, "count": one.count, "examples": one.examples}),
            );
        let latencies = self.tally.latencies.iter().map(|(which, all)| {
            let sorted = sorted(all);
            json!({"which": which, "count": sorted.len(), "median_ms": quantile(&sorted, 0.5),
                "p99_ms": quantile(&sorted, 0.99), "p999_ms": quantile(&sorted, 0.999), "longest_ms": longest(all).1,
                "is_control": *which == CONTROL})
        });
        let processes = self.summaries.iter().map(|one| {
            json!({"process": one.what, "samples": one.samples, "memory_kib": fit(&one.memory_kib), "allocated_kib": one.allocated_kib.as_ref().map(fit),
                "descriptors": fit(&one.descriptors), "cpu_percent": one.cpu_percent,
                "grows": self.grows(one), "points": one.points})
        });
        json!({"place": self.place, "seconds": self.lasted.as_secs_f64(), "asked_seconds": self.asked.as_secs_f64(),
            "requests": self.requests, "developers": self.developers, "restarts": self.restarts, "configuration_changes": self.changes,
            "tunnels_lost": self.tally.lost_tunnels, "missed_beats": self.tally.suspects, "missed_beats_by_relays": self.suspects, "typed_again": self.tally.typed_again, "turns": self.tally.turns, "long": self.tally.long,
            "rows": rows.collect::<Value>(), "named": named.collect::<Value>(), "deviations": deviations.collect::<Value>(),
            "latencies": latencies.collect::<Value>(), "processes": processes.collect::<Value>(), "good": self.is_good()})
    }
}

fn sorted(all: &Latencies) -> Vec<f32> {
    let mut sorted: Vec<f32> = all.iter().map(|(_, took)| *took).collect();
    sorted.sort_by(f32::total_cmp);
    sorted
}

fn quantile(sorted: &[f32], part: f64) -> f32 {
    let place = (sorted.len() as f64 * part) as usize;
    let last = sorted.len().saturating_sub(1);
    sorted.get(place.min(last)).copied().unwrap_or_default()
}

fn longest(all: &Latencies) -> (Duration, f32) {
    let longest = all.iter().max_by(|one, other| one.1.total_cmp(&other.1));
    longest.copied().unwrap_or_default()
}

fn range(fit: &Fit, unit: f64, digits: usize) -> String {
    let (least, most) = fit.range;
    format!("{:.digits$}–{:.digits$}", least / unit, most / unit)
}

fn slope(fit: &Fit, digits: usize) -> String {
    format!("{:+.digits$} ± {:.digits$}", fit.slope, fit.error)
}

fn fit(fit: &Fit) -> Value {
    json!({"mean": fit.mean, "least": fit.range.0, "most": fit.range.1, "slope_per_hour": fit.slope, "standard_error": fit.error})
}
