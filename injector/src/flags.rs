//! From the command line's words to the core's types, with errors that name the flag. Asks no backend: what only a workload can answer is left to `commands`.

use std::time::Duration;

use intercept_core::{
    Intercept, InvalidIntercept, Limits, MatchBaggage, MatchHeader, MatchPath, Unsatisfiable,
    validate,
};

use crate::cli;
use crate::curl::quote;
use crate::hint::{Failure, Result};
use crate::regex_position::{self, InvalidRegex};

/// The header of `--http-header auto`.
pub const AUTO_HEADER: &str = "x-intercept-id";

/// The shortest lease. Every renewal is a configuration push to every proxy of a workload.
pub const MIN_LEASE: Duration = Duration::from_secs(5 * 60);

/// The longest lease.
const MAX_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

const INTERCEPT_HELP: &str = "injector intercept --help";

/// Which requests the developer asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions {
    /// Headers given by name.
    pub headers: Vec<MatchHeader>,
    /// Is a header of the developer's own wanted, asked for or implied?
    pub auto: bool,
    /// Baggage members.
    pub baggage: Vec<MatchBaggage>,
    /// The path, where it matters.
    pub path: Option<MatchPath>,
}

/// Where requests go, and which of the service's ports they come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Port {
    /// The port on the developer machine; `None`: the same number as the workload's.
    pub developer: Option<u16>,
    /// The service's port, by name or number; `None`: the only HTTP port.
    pub service: Option<String>,
}

/// Reads the condition flags, and checks them by the same code that the filter runs.
pub fn conditions(flags: &cli::Conditions) -> Result<Conditions> {
    let mut read = Conditions {
        headers: Vec::new(),
        auto: false,
        baggage: Vec::new(),
        path: path(flags)?,
    };
    let all = headers(flags, &mut read)?;
    for member in &flags.baggage {
        let (key, value) = pair(member).ok_or_else(|| {
            let error = format!("--baggage {member}: expected KEY=REGEX");
            Failure::usage(error, "injector intercept … --baggage=developer=bob")
        })?;
        read.baggage.push(MatchBaggage { key, value });
    }
    if all && (read.auto || !read.headers.is_empty() || !read.baggage.is_empty()) {
        return Err(Failure::usage(
            "--http-header all takes everybody's requests: it excludes other headers, `auto` and --baggage",
            "leave out `--http-header=all`, or keep it with at most one --http-path flag",
        ));
    }
    read.auto |= !all && read.headers.is_empty() && read.baggage.is_empty();
    check(flags, &read)?;
    Ok(read)
}

/// The words of `--http-header`. Answers whether `all` is among them.
fn headers(flags: &cli::Conditions, read: &mut Conditions) -> Result<bool> {
    let mut all = false;
    for flag in &flags.http_header {
        match (pair(flag), flag.as_str()) {
            (Some((name, value)), _) => read.headers.push(MatchHeader { name, value }),
            (None, "auto") if !read.auto => read.auto = true,
            (None, "all") if !all => all = true,
            (None, word @ ("auto" | "all")) => {
                let error = format!("--http-header {word}: given twice, expected once");
                return Err(Failure::usage(error, INTERCEPT_HELP));
            }
            (None, _) => {
                let error = format!("--http-header {flag}: expected NAME=REGEX, `auto` or `all`");
                let hint = format!("injector intercept … {}", quote(&corrected_header(flag)));
                return Err(Failure::usage(error, hint));
            }
        }
    }
    Ok(all)
}

/// `--http-header=NAME=VALUE` for a flag without `=`, which may be a line as it is typed for curl: `Coder: Bob`.
fn corrected_header(flag: &str) -> String {
    let (name, value) = match flag.split_once(':') {
        Some((name, value)) if !name.is_empty() => (name.trim(), value.trim()),
        _ => (flag, ""),
    };
    let name = if name.is_empty() { "Coder" } else { name };
    let value = if value.is_empty() { "VALUE" } else { value };
    format!("--http-header={name}={value}")
}

/// The first `=` splits; everything behind it, commas and further `=` included, is the regex.
fn pair(flag: &str) -> Option<(String, String)> {
    let (name, value) = flag.split_once('=')?;
    Some((name.to_owned(), value.to_owned()))
}

fn path(flags: &cli::Conditions) -> Result<Option<MatchPath>> {
    let equal = flags.http_path_equal.iter().cloned().map(MatchPath::Equal);
    let prefix = flags
        .http_path_prefix
        .iter()
        .cloned()
        .map(MatchPath::Prefix);
    let regex = flags.http_path_regex.iter().cloned().map(MatchPath::Regex);
    let mut paths = equal.chain(prefix).chain(regex);
    let first = paths.next();
    match (&first, paths.next()) {
        (Some(one), Some(other)) => Err(Failure::usage(
            format!(
                "{} and {}: expected at most one path flag",
                path_flag(one),
                path_flag(&other)
            ),
            "say both in one: --http-path-regex='(one|other)'",
        )),
        _ => Ok(first),
    }
}

fn path_flag(path: &MatchPath) -> String {
    match path {
        MatchPath::Equal(text) => format!("--http-path-equal {text}"),
        MatchPath::Prefix(text) => format!("--http-path-prefix {text}"),
        MatchPath::Regex(text) => format!("--http-path-regex {text}"),
    }
}

/// Everything that would be refused whatever the operator allows, told in terms of flags: the regexes first, since only here one can say where they are wrong,
/// then the filter's own check.
fn check(flags: &cli::Conditions, read: &Conditions) -> Result<()> {
    for header in &read.headers {
        let flag = format!("--http-header {}={}", header.name, header.value);
        regex_position::describe(&header.value).map_err(|error| invalid_regex(&flag, &error))?;
    }
    for (flag, member) in flags.baggage.iter().zip(&read.baggage) {
        let flag = format!("--baggage {flag}");
        regex_position::describe(&member.value).map_err(|error| invalid_regex(&flag, &error))?;
    }
    if let Some(path @ MatchPath::Regex(pattern)) = &read.path {
        regex_position::describe_path(pattern)
            .map_err(|error| invalid_regex(&path_flag(path), &error))?;
    }
    let limits = Limits {
        allow_all: true,
        ..Limits::default()
    };
    validate("flags", &any_intercept(read), &limits).map_err(|invalid| refused(read, &invalid))
}

/// An intercept with these conditions and nothing else to object to.
fn any_intercept(read: &Conditions) -> Intercept {
    Intercept {
        port: 1,
        cluster: "intercept|flags".to_owned(),
        address: "0".repeat(32),
        owner: String::new(),
        created: 0,
        headers: read.headers.clone(),
        baggage: read.baggage.clone(),
        path: read.path.clone(),
        expires: 0,
    }
}

fn refused(read: &Conditions, invalid: &InvalidIntercept) -> Failure {
    match (invalid, &read.path) {
        (InvalidIntercept::HeaderName(index, name), _) => Failure::usage(
            format!(
                "--http-header {name}={}: expected a header name (letters, digits, `-` and the like), found `{name}`",
                read.headers[*index].value
            ),
            "injector intercept … --http-header=Coder=Bob",
        ),
        (InvalidIntercept::ReservedHeader(index, name), _) => Failure::usage(
            format!(
                "--http-header {name}={}: `{name}` is reserved, expected a header of your own",
                read.headers[*index].value
            ),
            "injector intercept … --http-header=Coder=Bob",
        ),
        (InvalidIntercept::UnmetHeader(index, why), _) => {
            let MatchHeader { name, value } = &read.headers[*index];
            unmet(
                &format!("--http-header {name}={value}"),
                "--http-header",
                name,
                value,
                why,
            )
        }
        (InvalidIntercept::UnmetBaggage(index, why), _) => {
            let MatchBaggage { key, value } = &read.baggage[*index];
            unmet(
                &format!("--baggage {key}={value}"),
                "--baggage",
                key,
                value,
                why,
            )
        }
        (InvalidIntercept::BaggageKey(index, key), _) => Failure::usage(
            format!(
                "--baggage {key}={}: expected a key (letters, digits, `-` and the like), found `{key}`",
                read.baggage[*index].value
            ),
            "injector intercept … --baggage=developer=bob",
        ),
        (InvalidIntercept::Path(text), Some(path)) => {
            let flag = path_flag(path);
            Failure::usage(
                format!("{flag}: expected a path that begins with `/` and has neither `?` nor `#`"),
                format!(
                    "injector intercept … {}",
                    quote(&corrected_path(&flag, text))
                ),
            )
        }
        (InvalidIntercept::PathCharacter(text), Some(path)) => {
            let flag = path_flag(path);
            let name = flag.split(' ').next().unwrap_or_default();
            let encoded = text.chars().fold(format!("{name}="), |sent, char| {
                let stands = intercept_core::target::carries_path(format!("/{char}").as_bytes());
                match stands {
                    true => format!("{sent}{char}"),
                    false => format!("{sent}%{:02X}", u32::from(char)),
                }
            });
            Failure::usage(
                format!("{flag}: a character of it stands percent-encoded in requests"),
                format!("injector intercept … {}", quote(&encoded)),
            )
        }
        (other, _) => Failure::usage(format!("conditions{other}"), INTERCEPT_HELP),
    }
}

/// A condition that no request meets.
fn unmet(flag: &str, kind: &str, name: &str, value: &str, why: &Unsatisfiable) -> Failure {
    let corrected = match why {
        Unsatisfiable::Empty => "^$".to_owned(),
        Unsatisfiable::Excluded(earlier) => format!("({earlier}|{value})"),
        Unsatisfiable::Blank | Unsatisfiable::Control => value
            .trim_matches(|char: char| char.is_ascii_whitespace() || char.is_ascii_control())
            .to_owned(),
    };
    Failure::usage(
        format!("{flag}: the value {why}"),
        format!(
            "injector intercept … {}",
            quote(&format!("{kind}={name}={corrected}"))
        ),
    )
}

fn invalid_regex(flag: &str, error: &InvalidRegex) -> Failure {
    Failure::usage(
        format!("{flag}: {error}"),
        "a regex like RE2's, no look-around, no back-references; for a plain character put `\\` before it, as in --http-header='X-Version=1\\.2'",
    )
}

fn corrected_path(flag: &str, text: &str) -> String {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    let name = flag.split(' ').next().unwrap_or_default();
    format!("{name}=/{}", path.trim_start_matches('/'))
}

/// `--port DEV[:SERVICE]`; DEV may be left out.
pub fn port(flag: Option<&str>) -> Result<Port> {
    let Some(flag) = flag else {
        return Ok(Port::default());
    };
    let refused = || {
        Failure::usage(
            format!("--port {flag}: expected DEV[:SERVICE], DEV a port from 1 to 65535"),
            "injector intercept … --port 3000, or --port 3000:http where the service has several ports",
        )
    };
    let (developer, service) = match flag.split_once(':') {
        Some((developer, service)) => (developer, Some(service)),
        None => (flag, None),
    };
    if service == Some("") {
        return Err(refused());
    }
    let developer = match (developer, service) {
        ("", Some(_)) => None,
        (text, _) => match text.parse() {
            Ok(0) | Err(_) => return Err(refused()),
            Ok(port) => Some(port),
        },
    };
    Ok(Port {
        developer,
        service: service.map(str::to_owned),
    })
}

/// `--lease TIME`, whole seconds. The operator's own limit is held against it later.
pub fn lease(flag: &str) -> Result<Duration> {
    lease_time(flag).ok_or_else(|| {
        Failure::usage(
            format!("--lease {flag}: expected a time from 5min to 24h"),
            "injector intercept … --lease=1h (or 30min, 1h30m)",
        )
    })
}

/// `--max-lease TIME`, the operator's own limit.
pub fn max_lease(flag: &str) -> Result<Duration> {
    lease_time(flag).ok_or_else(|| {
        Failure::usage(
            format!("--max-lease {flag}: expected a time from 5min to 24h"),
            "injector install … --max-lease=8h (or 90min, 1h30m)",
        )
    })
}

/// A length that a lease can have, in whole seconds.
fn lease_time(text: &str) -> Option<Duration> {
    let span: jiff::SignedDuration = text.parse().ok()?;
    let time = Duration::try_from(span).ok()?;
    let is_allowed = (MIN_LEASE..=MAX_LEASE).contains(&time);
    is_allowed.then(|| Duration::from_secs(time.as_secs()))
}

/// `--name NAME`: an RFC 1123 label.
pub fn name(flag: &str) -> Result<String> {
    let label = label(flag);
    if label == flag && !label.is_empty() {
        return Ok(label);
    }
    let suggestion = if label.is_empty() {
        "orders-bob"
    } else {
        &label
    };
    Err(Failure::usage(
        format!("--name {flag}: expected lower-case letters, digits and `-`, at most 63"),
        format!("injector intercept … --name={suggestion}"),
    ))
}

/// The nearest DNS label; may be empty.
pub fn label(text: &str) -> String {
    let lower = text.to_lowercase();
    let mut label = String::new();
    for char in lower.chars() {
        match char {
            'a'..='z' | '0'..='9' => label.push(char),
            '-' if !label.is_empty() => label.push(char),
            _ if !label.is_empty() && !label.ends_with('-') => label.push('-'),
            _ => {}
        }
    }
    label.truncate(63);
    label.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests;
