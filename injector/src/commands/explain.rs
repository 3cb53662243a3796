//! `injector explain`: the filter's own decision about one request, told in words.

use std::io::Read;
use std::path::Path;

use intercept_core::{Matcher, Rejected, Verdict, parse};
use intercept_manifest::printable::one_line;
use intercept_tunnel::presence::Presence;
use serde::Serialize;

use crate::args::{Explain, Global};
use crate::backend;
use crate::error::{CliError, OrHint, Result};
use crate::output::print::{self, Shown};
use crate::shell::quote;

/// Prints which intercept takes the request.
pub async fn run(global: &Global, flags: &Explain) -> Result<()> {
    let (answer, notes) = match (&flags.config, flags.words.as_slice()) {
        (Some(file), [path]) => in_file(flags, file, path)?,
        (Some(_), [_, path, ..]) => {
            return Err(CliError::usage(
                "--config and TARGET: expected one of them",
                format!("injector explain --config FILE {path}"),
            ));
        }
        (None, [target, path]) => at_target(global, flags, target, path).await?,
        _ => {
            return Err(CliError::usage(
                "expected TARGET PATH, or --config FILE PATH",
                "injector explain orders -H 'Coder: Bob' /api",
            ));
        }
    };
    for note in notes {
        eprintln!("warning: {}", one_line(&note));
    }
    print::print(global.output, &answer)
}

/// By the intercepts in a file.
fn in_file(flags: &Explain, file: &Path, path: &str) -> Result<(Answer, Vec<String>)> {
    let document = read(file)?;
    let request = Asked::new(flags, flags.port, path, backend::now())?;
    // An empty configuration is one without intercepts.
    let json = match document.trim_ascii() {
        [] => b"{}",
        json => json,
    };
    serde_json::from_slice::<serde_json::Map<_, serde_json::Value>>(json).or_hint(
        format_args!("--config {}", file.display()),
        "kubectl get wasmplugins -o jsonpath='{.items[0].spec.pluginConfig}' prints one",
    )?;
    Ok(explain(&document, &request))
}

/// By the intercepts of a workload, as they are this moment.
async fn at_target(
    global: &Global,
    flags: &Explain,
    name: &str,
    path: &str,
) -> Result<(Answer, Vec<String>)> {
    let backend = backend::open(global).await?;
    let target = backend.target(name).await?;
    let port = flags.port.map(|port| {
        let known = target.port(Some(&port.to_string()));
        known.map(|port| port.number).map_err(|unknown| {
            let place = global.context_flags();
            let hint = format!("injector explain{place} {} {}", quote(name), quote(path));
            CliError::usage(format_args!("--{}", unknown.error()), hint)
        })
    });
    // By the clock that leases are counted by, as the filter's node should have it too.
    let (document, now) = tokio::try_join!(target.configuration(), target.now())?;
    let request = Asked::new(flags, port.transpose()?, path, now)?;
    let (mut answer, notes) = explain(&document, &request);
    if let Some(address) = &answer.address {
        answer.tunnel = Some(target.presence(address).await);
    }
    Ok((answer, notes))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut text = Vec::new();
        let read = std::io::stdin().read_to_end(&mut text);
        read.or_hint("--config -", "injector explain --config FILE PATH")?;
        return Ok(text);
    }
    std::fs::read(file).or_hint(
        format_args!("--config {}", file.display()),
        format!("ls -l {}", crate::shell::quote(&file.to_string_lossy())),
    )
}

/// The request that the flags describe.
struct Asked {
    /// In lower case, pseudo-headers included, the lines of one name joined.
    headers: Vec<(String, String)>,
    port: Option<u16>,
    now: u64,
}

impl Asked {
    /// `now` in seconds since the epoch, by the clock that leases are counted by.
    fn new(flags: &Explain, port: Option<u16>, path: &str, now: u64) -> Result<Self> {
        if !path.starts_with('/') {
            return Err(CliError::usage(
                format!("PATH {path}: expected a path that begins with `/`"),
                format!("injector explain … /{path}"),
            ));
        }
        let mut asked = Self {
            headers: vec![
                (":path".to_owned(), path.to_owned()),
                (":method".to_owned(), flags.method.clone()),
                (":scheme".to_owned(), "http".to_owned()),
            ],
            port,
            now,
        };
        for header in &flags.headers {
            let (name, value) = header_line(header).ok_or_else(|| {
                CliError::usage(
                    format!("-H {header}: expected 'NAME: VALUE'"),
                    "injector explain … -H 'Coder: Bob' /api",
                )
            })?;
            asked.add(name, value);
        }
        Ok(asked)
    }

    fn add(&mut self, name: String, value: &str) {
        match self.headers.iter_mut().find(|(known, _)| *known == name) {
            // A request has one method, path and authority: the last one given stands.
            Some((known, only)) if known.starts_with(':') => *only = value.to_owned(),
            Some((_, joined)) => {
                joined.push(',');
                joined.push_str(value);
            }
            None => self.headers.push((name, value.to_owned())),
        }
    }
}

/// The name as the matcher asks for it, and the value without the white space around it.
fn header_line(line: &str) -> Option<(String, &str)> {
    let at = line
        .strip_prefix(':')
        .map_or(line.find(':'), |rest| Some(rest.find(':')? + 1))?;
    let (name, value) = (
        intercept_core::header_key(line[..at].trim()),
        line[at + 1..].trim(),
    );
    (!name.is_empty()).then_some((name, value))
}

impl intercept_core::Request for Asked {
    fn header(&self, name: &str) -> Option<Vec<u8>> {
        let (_, value) = self.headers.iter().find(|(known, _)| known == name)?;
        Some(value.clone().into_bytes())
    }

    fn is_port(&self, port: u16) -> bool {
        self.port.is_none_or(|asked| asked == port)
    }

    fn now(&self) -> u64 {
        self.now
    }
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Answer {
    intercept: Option<String>,
    /// Of that intercept's tunnel.
    #[serde(skip)]
    address: Option<String>,
    /// Where a relay can be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<Presence>,
    considered: Vec<Considered>,
}

#[derive(Debug, Serialize)]
struct Considered {
    intercept: String,
    verdict: &'static str,
    reason: String,
}

/// The answer, and what concerns the document as a whole.
fn explain(document: &[u8], request: &Asked) -> (Answer, Vec<String>) {
    let (config, unread) = parse(document);
    let (matcher, invalid) = Matcher::compile(config);
    let explained = matcher.explain(request);
    let winner = explained
        .iter()
        .find(|entry| entry.verdict == Verdict::Wins);
    let intercept = winner.map(|entry| entry.intercept.to_owned());
    let mut compiled = matcher.intercepts().iter();
    let winner = winner.and_then(|entry| compiled.find(|own| own.name() == entry.intercept));
    let address = winner.map(|own| own.intercept().address.clone());
    let explained = explained.into_iter().map(|entry| Considered {
        intercept: entry.intercept.to_owned(),
        verdict: entry.verdict.as_str(),
        reason: entry.reason,
    });
    let (mut considered, mut notes) = (explained.collect::<Vec<_>>(), Vec::new());
    for Rejected { intercept, reason } in unread.into_iter().chain(invalid) {
        match intercept {
            Some(intercept) => considered.push(Considered {
                intercept,
                verdict: Verdict::Rejected.as_str(),
                reason,
            }),
            None => notes.push(reason),
        }
    }
    (
        Answer {
            intercept,
            address,
            tunnel: None,
            considered,
        },
        notes,
    )
}

impl Shown for Answer {
    fn text(&self) -> String {
        let text = match (&self.intercept, self.tunnel) {
            (Some(name), Some(Presence::Away)) => {
                format!("{name} matches, but its tunnel is away: the cluster answers.\n")
            }
            (Some(name), Some(Presence::Unknown)) => {
                format!(
                    "{name} takes this request if its tunnel is up: the relay does not answer.\n"
                )
            }
            (Some(name), Some(Presence::Up) | None) => format!("{name} takes this request.\n"),
            (None, _) => "No intercept takes this request: the cluster answers it.\n".to_owned(),
        };
        let rows: Vec<Vec<String>> = self
            .considered
            .iter()
            .map(|entry| {
                let cells = [
                    format!("  {}", entry.intercept),
                    entry.verdict.to_owned(),
                    entry.reason.clone(),
                ];
                cells.to_vec()
            })
            .collect();
        if rows.is_empty() {
            return text;
        }
        text + "\n" + &print::table(&rows)
    }

    fn names(&self) -> Vec<&str> {
        let is_away = self.tunnel == Some(Presence::Away);
        let taken_by = self.intercept.iter().filter(|_| !is_away);
        taken_by.map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn a_lease_ends_by_the_clock_that_is_asked() {
        let line = "injector explain orders / -H Coder:Bob";
        let Command::Explain(flags) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("{line}");
        };
        let document = r#"{"version": 1, "intercepts": {"bob": {"port": 8080, "cluster": "intercept|bob",
            "address": "00000000000000000000000000000000", "owner": "bob", "created": 0, "expires": 1001,
            "headers": [{"name": "Coder", "value": "Bob"}]}}}"#;
        for (now, verdict) in [(1_000, "wins"), (1_001, "expired")] {
            let asked = Asked::new(&flags, None, "/", now).unwrap();
            let (answer, _) = explain(document.as_bytes(), &asked);
            assert_eq!(answer.considered[0].verdict, verdict, "{now}");
        }
    }
}
