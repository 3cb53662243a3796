//! How the command fails: what went wrong, what to do about it, and the exit code. The only place that knows what an error looks like on a terminal.

mod kube;

use std::fmt::{self, Display};
use std::process::ExitCode;

use intercept_manifest::printable::one_line;

/// Every way in which a command can fail.
#[derive(Debug)]
pub struct CliError {
    /// Done 0, failed 1, wrong usage 2; a child's own code where there is one.
    code: u8,
    /// Where, what, what was expected.
    error: String,
    /// What it is about, a line each.
    details: Vec<String>,
    /// What to do next, with a command to run.
    hint: String,
    /// May the same work in a moment?
    may_pass: bool,
    /// Does the user lack a right?
    is_denied: bool,
}

/// What a command returns.
pub type Result<T, E = CliError> = std::result::Result<T, E>;

impl CliError {
    /// Something failed: exit code 1.
    pub fn failed(error: impl Display, hint: impl Into<String>) -> Self {
        Self {
            code: 1,
            error: error.to_string(),
            details: Vec::new(),
            hint: hint.into(),
            may_pass: false,
            is_denied: false,
        }
    }

    /// The command line itself is wrong: exit code 2.
    pub fn usage(error: impl Display, hint: impl Into<String>) -> Self {
        Self {
            code: 2,
            error: error.to_string(),
            details: Vec::new(),
            hint: hint.into(),
            may_pass: false,
            is_denied: false,
        }
    }

    /// With another exit code.
    pub fn exit(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// Shows these below the error, a line each.
    pub fn with_details(self, lines: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let details = lines.into_iter().map(Into::into).collect();
        Self { details, ..self }
    }

    /// Says whether the same may work in a moment.
    pub fn passing(self, may_pass: bool) -> Self {
        Self { may_pass, ..self }
    }

    /// May the same work in a moment? It was not refused, or there was no response: what was asked for may still be done.
    pub fn may_pass(&self) -> bool {
        self.may_pass
    }

    /// Says whether the user lacks a right.
    pub fn denied(self, is_denied: bool) -> Self {
        Self { is_denied, ..self }
    }

    /// Does the user lack a right? Asked again, it is refused again.
    pub fn is_denied(&self) -> bool {
        self.is_denied
    }

    /// What went wrong.
    pub fn error(&self) -> &str {
        self.error.trim_end()
    }

    /// What to do next.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// The exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "error: {}", one_line(self.error()))?;
        for line in &self.details {
            write!(f, "\n  {}", one_line(line))?;
        }
        write!(f, "\n\nhint: {}", one_line(&self.hint))
    }
}

/// What to do about an error of a crate that knows no terminal.
pub trait Hint: Display {
    /// With a command to run.
    fn hint(&self) -> String;

    /// Is the command line itself wrong?
    fn is_usage(&self) -> bool {
        false
    }

    /// May the same work in a moment?
    fn may_pass(&self) -> bool {
        false
    }

    /// Does the user lack a right?
    fn is_denied(&self) -> bool {
        false
    }
}

impl<E: Hint> From<E> for CliError {
    fn from(error: E) -> Self {
        let (hint, may_pass, is_denied) = (error.hint(), error.may_pass(), error.is_denied());
        let failure = match error.is_usage() {
            true => Self::usage(error, hint),
            false => Self::failed(error, hint),
        };
        failure.passing(may_pass).denied(is_denied)
    }
}

/// Adds what to do next to a library's error.
pub trait OrHint<T> {
    /// On error: exit code 1, `what: error`, and this hint.
    fn or_hint(self, what: impl Display, hint: impl Into<String>) -> Result<T>;
}

impl<T, E: Display> OrHint<T> for std::result::Result<T, E> {
    fn or_hint(self, what: impl Display, hint: impl Into<String>) -> Result<T> {
        self.map_err(|error| CliError::failed(format_args!("{what}: {error}"), hint))
    }
}

/// A usage error of clap in the look of all others.
impl From<clap::Error> for CliError {
    fn from(error: clap::Error) -> Self {
        let text = error.render().to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let parts: Vec<&str> = text.split("\n\n").map(str::trim_end).collect();
        let tip = parts
            .iter()
            .find_map(|part| part.trim_start().strip_prefix("tip: "));
        let tip = tip.and_then(|tip| tip.lines().next());
        let usage = parts.iter().find_map(|part| part.strip_prefix("Usage: "));
        let command = usage.map_or("injector".to_owned(), command_words);
        let hint = match tip {
            Some(tip) => format!("{tip}; see `{command} --help`"),
            None => format!("{command} --help"),
        };
        let mut lines = parts.first().unwrap_or(&text).lines();
        let error = lines.next().unwrap_or_default();
        Self::usage(error, hint).with_details(lines.map(str::trim))
    }
}

/// `injector intercept` out of `injector intercept [OPTIONS] <TARGET>`.
fn command_words(usage: &str) -> String {
    let words = usage.split_whitespace();
    let is_command = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
    words.take_while(is_command).collect::<Vec<_>>().join(" ")
}
