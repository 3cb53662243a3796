//! From the command line's words to the core's types, with errors that name the flag. Asks no backend: what only a workload can answer is left to `commands`.

use std::time::Duration;

use intercept_core::{
    Intercept, InvalidIntercept, Limits, MatchBaggage, MatchHeader, MatchPath, Unsatisfiable,
    header_key, validate,
};
use intercept_overlap::regex_error::{self, InvalidRegex};
use intercept_overlap::{Impossible, impossible};

use crate::args;
use crate::error::{CliError, Result};
use crate::shell::quote;
use crate::typed::retyped;

/// The header of `--http-header auto`.
pub const AUTO_HEADER: &str = "x-intercept-id";

/// The shortest lease. Every renewal is a configuration push to every proxy of a workload.
pub const MIN_LEASE: Duration = Duration::from_secs(5 * 60);

/// The longest lease.
const MAX_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

const INTERCEPT_HELP: &str = "injector intercept --help";

const HEADER: &str = "--http-header";
const BAGGAGE: &str = "--baggage";

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
pub fn conditions(flags: &args::Conditions) -> Result<Conditions> {
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
            let key = if member.is_empty() {
                "developer"
            } else {
                member
            };
            let hint = retyped(BAGGAGE, member, &format!("{key}=VALUE"));
            CliError::usage(error, hint)
        })?;
        read.baggage.push(MatchBaggage { key, value });
    }
    if all && (read.auto || !read.headers.is_empty() || !read.baggage.is_empty()) {
        return Err(CliError::usage(
            "--http-header all takes everybody's requests: it excludes other headers, `auto` and --baggage",
            "leave out `--http-header=all`, or keep it with at most one --http-path flag",
        ));
    }
    read.auto |= !all && read.headers.is_empty() && read.baggage.is_empty();
    check(flags, &read)?;
    Ok(read)
}

/// The words of `--http-header`. Answers whether `all` is among them.
fn headers(flags: &args::Conditions, read: &mut Conditions) -> Result<bool> {
    let mut all = false;
    for flag in &flags.http_header {
        match (pair(flag), flag.as_str()) {
            (Some((name, value)), _) => read.headers.push(MatchHeader { name, value }),
            (None, "auto") if !read.auto => read.auto = true,
            (None, "all") if !all => all = true,
            (None, word @ ("auto" | "all")) => {
                let error = format!("--http-header {word}: given twice, expected once");
                return Err(CliError::usage(error, INTERCEPT_HELP));
            }
            (None, _) => {
                let error = format!("--http-header {flag}: expected NAME=REGEX, `auto` or `all`");
                let hint = retyped(HEADER, flag, &corrected_header(flag));
                return Err(CliError::usage(error, hint));
            }
        }
    }
    Ok(all)
}

/// `NAME=VALUE` for a flag without `=`, which may be a line as it is typed for curl: `Coder: Bob`.
fn corrected_header(flag: &str) -> String {
    let (name, value) = match flag.split_once(':') {
        Some((name, value)) if !name.is_empty() => (name.trim(), value.trim()),
        _ => (flag, ""),
    };
    let name = if name.is_empty() { "Coder" } else { name };
    let value = if value.is_empty() { "VALUE" } else { value };
    format!("{name}={value}")
}

/// The first `=` splits; everything behind it, commas and further `=` included, is the regex.
fn pair(flag: &str) -> Option<(String, String)> {
    let (name, value) = flag.split_once('=')?;
    Some((name.to_owned(), value.to_owned()))
}

fn path(flags: &args::Conditions) -> Result<Option<MatchPath>> {
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
        (Some(one), Some(other)) => Err(CliError::usage(
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
fn check(flags: &args::Conditions, read: &Conditions) -> Result<()> {
    for header in &read.headers {
        let flag = format!("--http-header {}={}", header.name, header.value);
        regex_error::describe(&header.value).map_err(|error| invalid_regex(&flag, &error))?;
    }
    for (flag, member) in flags.baggage.iter().zip(&read.baggage) {
        let flag = format!("--baggage {flag}");
        regex_error::describe(&member.value).map_err(|error| invalid_regex(&flag, &error))?;
    }
    if let Some(path @ MatchPath::Regex(pattern)) = &read.path {
        regex_error::describe_path(pattern)
            .map_err(|error| invalid_regex(&path_flag(path), &error))?;
    }
    let limits = Limits {
        allow_all: true,
        ..Limits::default()
    };
    let intercept = any_intercept(read);
    validate("flags", &intercept, &limits).map_err(|invalid| refused(read, &invalid))?;
    impossible(&intercept).map_or(Ok(()), |what| Err(unmeetable(read, &what)))
}

/// Flag, name and value of each.
fn header_pairs(read: &Conditions) -> impl Iterator<Item = (&'static str, &str, &str)> {
    let headers = read.headers.iter();
    headers.map(|header| (HEADER, header.name.as_str(), header.value.as_str()))
}

fn baggage_pairs(read: &Conditions) -> impl Iterator<Item = (&'static str, &str, &str)> {
    let baggage = read.baggage.iter();
    baggage.map(|member| (BAGGAGE, member.key.as_str(), member.value.as_str()))
}

fn unmeetable(read: &Conditions, what: &Impossible) -> CliError {
    let pairs: Vec<_> = match what {
        Impossible::Header(name) => header_pairs(read)
            .filter(|(_, known, _)| header_key(known) == *name)
            .collect(),
        Impossible::Baggage(key) => baggage_pairs(read)
            .filter(|(_, known, _)| known == key)
            .collect(),
        Impossible::Path => {
            let flag = read.path.as_ref().map_or(":path".to_owned(), path_flag);
            return CliError::usage(
                format!("{flag}: no path matches; the query string is not part of it"),
                INTERCEPT_HELP,
            );
        }
    };
    let flags: Vec<String> = pairs
        .iter()
        .map(|(flag, name, value)| format!("{flag} {name}={value}"))
        .collect();
    match pairs.as_slice() {
        [(flag, name, one), (_, _, other)] => CliError::usage(
            format!("{}: no value matches both", flags.join(" and ")),
            either(flag, name, one, other),
        ),
        _ => CliError::usage(
            format!("{}: no request matches", flags.join(" and ")),
            INTERCEPT_HELP,
        ),
    }
}

/// What the conditions most likely do not mean.
pub fn warnings(read: &Conditions) -> Vec<String> {
    let Some(path) = &read.path else {
        return Vec::new();
    };
    let flag = path_flag(path);
    let warning = match path {
        MatchPath::Equal(text) | MatchPath::Prefix(text) if text.contains('*') => format!(
            "{flag}: `*` stands for itself here; perhaps you mean {}",
            without_wildcards(text)
        ),
        MatchPath::Regex(text) if text.contains("/*") => format!(
            "{flag}: `/*` matches slashes only; perhaps you mean {}",
            quote(&format!("--http-path-regex={}", text.replace("/*", "/.*")))
        ),
        _ => return Vec::new(),
    };
    vec![warning]
}

/// The flag that means what a wildcard means elsewhere.
fn without_wildcards(text: &str) -> String {
    let before = text.trim_end_matches('*');
    if !before.contains('*') {
        return quote(&format!("--http-path-prefix={before}"));
    }
    let parts: Vec<String> = text.split('*').map(regex_syntax::escape).collect();
    quote(&format!("--http-path-regex={}", parts.join("[^/]*")))
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

fn refused(read: &Conditions, invalid: &InvalidIntercept) -> CliError {
    match (invalid, &read.path) {
        (InvalidIntercept::HeaderName(index, name), _) => {
            let value = &read.headers[*index].value;
            let expected = "expected a header name (letters, digits, `-` and the like)";
            renamed(
                HEADER,
                name,
                "Coder",
                value,
                &format!("{expected}, found `{name}`"),
            )
        }
        (InvalidIntercept::ReservedHeader(index, name), _) => {
            let value = &read.headers[*index].value;
            let error = format!("`{name}` is reserved, expected a header of your own");
            renamed(HEADER, name, "Coder", value, &error)
        }
        (InvalidIntercept::UnmetHeader(index, why), _) => {
            let MatchHeader { name, value } = &read.headers[*index];
            unmet(HEADER, name, value, why)
        }
        (InvalidIntercept::UnmetBaggage(index, why), _) => {
            let MatchBaggage { key, value } = &read.baggage[*index];
            unmet(BAGGAGE, key, value, why)
        }
        (InvalidIntercept::BaggageKey(index, key), _) => {
            let value = &read.baggage[*index].value;
            let expected = "expected a key (letters, digits, `-` and the like)";
            renamed(
                BAGGAGE,
                key,
                "developer",
                value,
                &format!("{expected}, found `{key}`"),
            )
        }
        (InvalidIntercept::Path(text), Some(path)) => {
            let without_query = text.split(['?', '#']).next().unwrap_or_default();
            let expected = "expected a path that begins with `/` and has neither `?` nor `#`";
            let right = format!("/{}", without_query.trim_start_matches('/'));
            repathed(path, text, &right, expected)
        }
        (InvalidIntercept::PathCharacter(text), Some(path)) => {
            let error = "a character of it stands percent-encoded in requests";
            let encoded = text.chars().fold(String::new(), |sent, char| {
                let stands = intercept_core::target::carries_path(format!("/{char}").as_bytes());
                match stands {
                    true => format!("{sent}{char}"),
                    false => format!("{sent}%{:02X}", u32::from(char)),
                }
            });
            repathed(path, text, &encoded, error)
        }
        (other, _) => CliError::usage(format!("conditions{other}"), INTERCEPT_HELP),
    }
}

fn renamed(flag: &str, wrong: &str, right: &str, value: &str, error: &str) -> CliError {
    CliError::usage(
        format!("{flag} {wrong}={value}: {error}"),
        retyped(
            flag,
            &format!("{wrong}={value}"),
            &format!("{right}={value}"),
        ),
    )
}

fn repathed(path: &MatchPath, wrong: &str, right: &str, error: &str) -> CliError {
    let typed = path_flag(path);
    let flag = typed.split(' ').next().unwrap_or_default();
    CliError::usage(format!("{typed}: {error}"), retyped(flag, wrong, right))
}

/// A value that no request has.
fn unmet(flag: &str, name: &str, value: &str, why: &Unsatisfiable) -> CliError {
    let typed = format!("{name}={value}");
    let hint = |right: &str| retyped(flag, &typed, &format!("{name}={right}"));
    let hint = match why {
        Unsatisfiable::Empty => hint("^$"),
        // The earlier flag would have to go as well.
        Unsatisfiable::Excluded(earlier) => either(flag, name, earlier, value),
        Unsatisfiable::Blank | Unsatisfiable::Control => hint(
            value.trim_matches(|char: char| char.is_ascii_whitespace() || char.is_ascii_control()),
        ),
    };
    CliError::usage(format!("{flag} {typed}: the value {why}"), hint)
}

/// One flag instead of two that exclude each other.
fn either(flag: &str, name: &str, one: &str, other: &str) -> String {
    let both = quote(&format!("{flag}={name}={one}|{other}"));
    format!("for either of them: {both}")
}

fn invalid_regex(flag: &str, error: &InvalidRegex) -> CliError {
    CliError::usage(
        format!("{flag}: {error}"),
        "a regex like RE2's, no look-around, no back-references; for a plain character put `\\` before it, as in --http-header='X-Version=1\\.2'",
    )
}

/// `--port DEV[:SERVICE]`; DEV may be left out.
pub fn port(flag: Option<&str>) -> Result<Port> {
    let Some(flag) = flag else {
        return Ok(Port::default());
    };
    let refused = || {
        CliError::usage(
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
        CliError::usage(
            format!("--lease {flag}: expected a time from 5min to 24h"),
            "injector intercept … --lease=1h (or 30min, 1h30m)",
        )
    })
}

/// `--max-lease TIME`, the operator's own limit.
pub fn max_lease(flag: &str) -> Result<Duration> {
    lease_time(flag).ok_or_else(|| {
        CliError::usage(
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
    Err(CliError::usage(
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
