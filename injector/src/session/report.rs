//! Output on stderr while an intercept is live.
//!
//! The summary, one line per request, notes and warnings. Colour only on a terminal.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::ProgressBar;
use intercept_manifest::printable::one_line;
use intercept_tunnel::developer::{RequestLine, RequestOutcome};
use serde::Serialize;

use crate::args::Global;
use crate::curl;
use crate::describe;
use crate::model::{Live, Plan, Replicas};
use crate::outbound::Line;
use crate::output::intercept::InterceptShown;
use crate::output::print::Shown;
use crate::shell::quote;

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();

/// Where to write, and how much.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    quiet: bool,
    verbose: bool,
    /// Output goes to a log: every line starts with date and time.
    is_log: bool,
}

impl Report {
    /// A report with the verbosity of the flags.
    pub fn new(global: &Global) -> Self {
        Self {
            quiet: global.quiet,
            verbose: global.verbose,
            is_log: false,
        }
    }

    /// Switches to a log, which ignores `--quiet` and adds the date.
    pub fn into_log(self) -> Self {
        Self {
            quiet: false,
            is_log: true,
            ..self
        }
    }

    /// Prints a warning.
    pub fn warn(self, text: &str) {
        self.say(&format!(
            "{}{WARNING}warning:{WARNING:#} {}",
            self.stamp(),
            one_line(text)
        ));
    }

    /// Prints a note.
    pub fn note(self, text: &str) {
        let (stamp, text) = (self.stamp(), one_line(text));
        self.say(&format!("{stamp}{BOLD}note:{BOLD:#} {text}"));
    }

    /// What the connection into the cluster says.
    pub fn line(self, line: &Line) {
        match line {
            Line::Note(text) => self.note(text),
            Line::Warning(text) => self.warn(text),
        }
    }

    /// Something that a log must tell, and that somebody before a terminal knows.
    pub fn record(self, text: &str) {
        match self.is_log {
            true => self.say(&format!("{}{}", self.stamp(), one_line(text))),
            false => self.detail(text),
        }
    }

    /// Prints a line with --verbose only.
    pub fn detail(self, text: &str) {
        if self.verbose {
            let (time, text) = (self.time(), one_line(text));
            self.say(&format!("{DIM}{time} {text}{DIM:#}"));
        }
    }

    /// Shows on a terminal how many replicas have the intercept, until the result is dropped.
    pub fn progress(self) -> Progress {
        Progress::new(self.quiet)
    }

    /// Prints what is intercepted, where it goes, and how to try it.
    pub fn live(self, plan: &Plan, live: &Live) {
        self.say(&block(plan, live));
    }

    /// Prints one intercepted request.
    pub fn request(self, line: &RequestLine) {
        self.say(&request_line(&self.time(), line));
    }

    /// Prints that the end of the intercept waits for running requests.
    pub fn waiting(self, count: usize, most: Duration) {
        let how = match self.is_log {
            true => format!("at most {}", describe::span(most)),
            false => "Ctrl-C again to stop now".to_owned(),
        };
        let requests = describe::count(count, "request");
        self.note(&format!("waiting for {requests} to end ({how})"));
    }

    /// Prints how to see the log of a detached intercept, and how to end it.
    pub fn detached(self, name: &str, log: &Path, flags: &str) {
        let name = quote(name);
        let rows = [
            [
                "  log",
                &format!("injector logs{flags} {name} -f"),
                &format!("({})", log.display()),
            ],
            ["  end", &format!("injector leave{flags} {name}"), ""],
        ];
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.iter().map(|cell| (*cell).to_owned()).collect())
            .collect();
        let table = crate::output::print::table(&rows);
        self.say(&format!(
            "{BOLD}{name}{BOLD:#} goes on in the background\n{}",
            table.trim_end()
        ));
    }

    fn stamp(self) -> String {
        match self.is_log {
            true => format!("{DIM}{}{DIM:#} ", self.time()),
            false => String::new(),
        }
    }

    fn time(self) -> String {
        let format = match self.is_log {
            true => "%Y-%m-%d %H:%M:%S%.3f",
            false => "%H:%M:%S%.3f",
        };
        jiff::Zoned::now().strftime(format).to_string()
    }

    fn say(self, text: &str) {
        if !self.quiet {
            // A closed terminal or a full disk behind a log is no reason to exit without a teardown.
            let _ = writeln!(anstream::stderr(), "{text}");
        }
    }
}

/// A progress line, removed when all replicas have the intercept.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    fn new(quiet: bool) -> Self {
        // Without a terminal the spinner hides itself.
        let bar = match quiet {
            true => ProgressBar::hidden(),
            false => ProgressBar::new_spinner(),
        };
        Self(bar)
    }

    /// Updates the count.
    pub fn show(&self, Replicas { live, all }: Replicas) {
        self.0.set_message(format!("{live}/{all} replicas"));
        self.0.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The summary of a live intercept.
fn block(plan: &Plan, live: &Live) -> String {
    let intercept = plan.intercept("", 0, 0);
    let verified = match live {
        Live::Verified => format!("{GOOD}live{GOOD:#}"),
        Live::NotVerified { why } => format!("applied, not verified ({why})"),
    };
    let mut rows = vec![
        vec!["  requests".to_owned(), describe::conditions(&intercept)],
        vec![
            "  to".to_owned(),
            format!("{}, port {}", plan.workload, plan.port),
        ],
        vec![
            "  go to".to_owned(),
            format!("127.0.0.1:{} on this machine", plan.developer_port),
        ],
        vec![
            "  lease".to_owned(),
            format!("{}, renewed while this runs", describe::span(plan.lease)),
        ],
    ];
    if let Some(example) = curl::example(plan) {
        let headers: Vec<String> = example
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        if !headers.is_empty() {
            rows.insert(3, vec!["  send".to_owned(), headers.join(", ")]);
        }
        rows.push(vec!["  try".to_owned(), curl::line(plan, &example)]);
    }
    let table = crate::output::print::table(&rows);
    format!(
        "{BOLD}{}{BOLD:#} {verified}\n{}",
        plan.name,
        table.trim_end()
    )
}

/// `14:03:07.123 GET /api/orders 200 12 ms answered`.
fn request_line(time: &str, line: &RequestLine) -> String {
    let status = match line.status {
        Some(status) if status < 500 => format!("{GOOD}{status}{GOOD:#}"),
        Some(status) => format!("{BAD}{status}{BAD:#}"),
        None => format!("{BAD}---{BAD:#}"),
    };
    format!(
        "{DIM}{time}{DIM:#} {} {} {status} {DIM}{}{DIM:#} {}",
        line.method,
        one_line(&line.path),
        millis(line.duration),
        outcome(&line.outcome)
    )
}

fn outcome(outcome: &RequestOutcome) -> String {
    match outcome {
        RequestOutcome::Answered => "answered here".to_owned(),
        RequestOutcome::BrokeOff { bytes, reason } => {
            format!("broke off after {bytes} bytes ({})", one_line(reason))
        }
        RequestOutcome::FellBack(why) => format!("fell back to the cluster ({})", one_line(why)),
        RequestOutcome::Lost(why) => format!("lost ({})", one_line(why)),
        RequestOutcome::Cancelled => "cancelled by the client".to_owned(),
    }
}

fn millis(duration: Duration) -> String {
    match duration.as_millis() {
        0 => format!("{} µs", duration.as_micros()),
        millis if millis < 10_000 => format!("{millis} ms"),
        _ => describe::span(duration),
    }
}

/// What `-o json` prints once the intercept is live.
#[derive(Debug, Serialize)]
pub struct LiveShown {
    #[serde(flatten)]
    intercept: InterceptShown,
    developer_port: u16,
    /// Did Envoy confirm the intercept?
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    curl: Option<String>,
}

impl LiveShown {
    /// Collects what to print.
    pub fn new(plan: &Plan, intercept: InterceptShown, live: &Live) -> Self {
        Self {
            intercept,
            developer_port: plan.developer_port,
            verified: *live == Live::Verified,
            curl: curl::example(plan).map(|example| curl::line(plan, &example)),
        }
    }
}

impl Shown for LiveShown {
    /// Empty: the summary on stderr is the text form.
    fn text(&self) -> String {
        String::new()
    }

    fn names(&self) -> Vec<&str> {
        self.intercept.names()
    }
}
