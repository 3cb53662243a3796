//! `injector --envoy DIR install`: prepares a directory for a plain Envoy. Nothing is written before everything was checked.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::{HeaderName, Uri};
use intercept_core::Limits;

use crate::curl::quote;
use crate::envoy::{Dir, EnvoyDirError};
use crate::hint::{Failure, OrHint, Result};
use crate::manifest::facts::{Module, Port, Protocol, Relay, WORKLOAD_VERSION, Workload};

/// Leases may be limited to this and more, in seconds: a shorter one could not be renewed in peace.
const SHORTEST_LEASE: u64 = 5 * 60;

/// The longest limit, in seconds.
const LONGEST_LEASE: u64 = 24 * 3_600;

/// Prepare a workload behind a plain Envoy for intercepts; it intercepts nothing yet
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  injector --envoy /etc/envoy/intercept install --workload orders \\
    --port 8080:http --app 127.0.0.1:18080 --module /etc/envoy/filter.wasm \\
    --relay-data 10.0.0.7:8080 --relay-control 10.0.0.7:7070
  injector --envoy /etc/envoy/intercept render envoy    # for Envoy's bootstrap

Run again with other flags, it changes what it wrote and keeps the intercepts.")]
pub struct Args {
    /// What developers call the service
    #[arg(long, value_name = "NAME")]
    pub workload: String,
    /// Port on which Envoy listens for it, and what developers call that port [default: the number] (repeatable)
    #[arg(long, value_name = "LISTEN[:NAME]", required = true)]
    pub port: Vec<String>,
    /// Where the in-cluster version listens; one per --port, in the same order
    #[arg(long, value_name = "ADDR:PORT", required = true)]
    pub app: Vec<SocketAddr>,
    /// What the port speaks; once, or one per --port [default: http]
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Vec<Protocol>,
    /// URL under which users reach the port, for the line to try; one per --port
    #[arg(long, value_name = "URL")]
    pub url: Vec<Uri>,
    /// Where the relay takes requests from Envoy
    #[arg(long, value_name = "ADDR:PORT")]
    pub relay_data: SocketAddr,
    /// Where the relay takes tunnels from developer machines
    #[arg(long, value_name = "ADDR:PORT")]
    pub relay_control: SocketAddr,
    /// The filter, filter.wasm, where Envoy can read it
    #[arg(long, value_name = "FILE")]
    pub module: PathBuf,
    /// Envoy's admin interface, to see there whether it has taken a change
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<SocketAddr>,
    /// Allow intercepts of everybody's requests (--http-header=all)
    #[arg(long)]
    pub allow_all: bool,
    /// Longest lease, 5min to 24h
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub max_lease: String,
    /// Header that conditions may use, `baggage` for baggage (repeatable) [default: any]
    #[arg(long, value_name = "NAME")]
    pub header_name: Vec<String>,
}

/// Checks everything, then writes. Returns what to tell the operator.
pub fn run(args: &Args, dir: &Path) -> Result<String> {
    let workload = workload(args)?;
    let installed = Dir::install(dir, &workload).map_err(refused)?;
    let shown = shown(installed.path());
    Ok(format!(
        "{} is ready for intercepts in {shown}; nothing is intercepted yet\n\n\
         what Envoy needs once:\n  injector --envoy {shown} render envoy\n\
         what developers need:\n  export INJECTOR_ENVOY={shown}\n",
        workload.name
    ))
}

fn shown(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

fn refused(error: EnvoyDirError) -> Failure {
    let hint = match &error {
        EnvoyDirError::PortInUse { intercept, .. } => format!("injector leave --force {intercept}"),
        EnvoyDirError::Unreadable { path, .. } => format!("cat {}", shown(path)),
        EnvoyDirError::Io { path, .. } => {
            format!("ls -ld {}", shown(path.parent().unwrap_or(path)))
        }
        _ => "injector install --help".to_owned(),
    };
    Failure::failed(error, hint)
}

/// What was said, checked.
fn workload(args: &Args) -> Result<Workload> {
    Ok(Workload {
        version: WORKLOAD_VERSION,
        name: workload_name(&args.workload)?,
        ports: ports(args)?,
        relay: Relay {
            data: reachable("--relay-data", args.relay_data)?,
            control: reachable("--relay-control", args.relay_control)?,
        },
        limits: limits(args)?,
        admin: args
            .admin
            .map(|admin| reachable("--admin", admin))
            .transpose()?,
        module: module(&args.module)?,
    })
}

fn usage(error: impl std::fmt::Display, hint: &str) -> Failure {
    Failure::usage(error, format!("injector install … {hint}"))
}

/// The default name of an intercept begins with it, so it must be a DNS label.
fn workload_name(name: &str) -> Result<String> {
    let is_label = (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !name.starts_with('-')
        && !name.ends_with('-');
    is_label.then(|| name.to_owned()).ok_or_else(|| {
        usage(
            format!("--workload {name}: expected lower-case letters, digits and `-`, at most 63"),
            "--workload orders",
        )
    })
}

fn ports(args: &Args) -> Result<Vec<Port>> {
    let count = args.port.len();
    expect_count("--app", args.app.len(), &[count])?;
    expect_count("--protocol", args.protocol.len(), &[0, 1, count])?;
    expect_count("--url", args.url.len(), &[0, count])?;
    let mut ports = Vec::new();
    for (index, flag) in args.port.iter().enumerate() {
        let (number, name) = port(flag)?;
        let protocol = args.protocol.get(index).or(args.protocol.first());
        ports.push(Port {
            name,
            number,
            app: reachable("--app", args.app[index])?,
            protocol: protocol.copied().unwrap_or(Protocol::Http),
            url: args.url.get(index).map(url).transpose()?,
        });
    }
    let numbers: BTreeSet<u16> = ports.iter().map(|port| port.number).collect();
    let names: BTreeSet<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    if numbers.len() < count || names.len() < count {
        return Err(usage(
            "--port: two ports with the same number or name",
            "--port 8080:http --port 8090:grpc",
        ));
    }
    Ok(ports)
}

fn expect_count(flag: &str, found: usize, expected: &[usize]) -> Result<()> {
    if expected.contains(&found) {
        return Ok(());
    }
    let count = expected.last().copied().unwrap_or_default();
    Err(usage(
        format!("{flag}: given {found} times, expected one per --port, {count}"),
        "--port 8080:http --app 127.0.0.1:18080 --port 8090:grpc --app 127.0.0.1:18090",
    ))
}

/// `8080` or `8080:http`. A name of digits only would be taken for a number.
fn port(flag: &str) -> Result<(u16, String)> {
    let refused = || {
        usage(
            format!("--port {flag}: expected LISTEN or LISTEN:NAME"),
            "--port 8080:http",
        )
    };
    let (number, name) = flag.split_once(':').unwrap_or((flag, flag));
    let number = number
        .parse()
        .ok()
        .filter(|number: &u16| *number > 0)
        .ok_or_else(refused)?;
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    if name.is_empty() || !name.bytes().all(is_name) || (is_number && name != number.to_string()) {
        return Err(refused());
    }
    Ok((number, name.to_owned()))
}

/// An address that somebody can connect to.
fn reachable(flag: &str, address: SocketAddr) -> Result<SocketAddr> {
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err(usage(
            format!("{flag} {address}: expected an address to connect to"),
            &format!("{flag} 127.0.0.1:{}", address.port().max(8080)),
        ));
    }
    Ok(address)
}

/// A path is appended to it.
fn url(url: &Uri) -> Result<String> {
    match (url.scheme_str(), url.authority(), url.path_and_query()) {
        (Some("http" | "https"), Some(_), path) if path.is_none_or(|path| path == "/") => {
            Ok(url.to_string().trim_end_matches('/').to_owned())
        }
        _ => Err(usage(
            format!("--url {url}: expected http://HOST or https://HOST without a path"),
            "--url http://orders.example:8080",
        )),
    }
}

fn limits(args: &Args) -> Result<Limits> {
    let mut names = Vec::new();
    for name in &args.header_name {
        let token = name.strip_prefix(':').unwrap_or(name);
        HeaderName::from_bytes(token.as_bytes()).map_err(|_| {
            usage(
                format!("--header-name {name}: expected a header's name"),
                "--header-name x-intercept-id",
            )
        })?;
        names.push(name.to_ascii_lowercase());
    }
    Ok(Limits {
        allow_all: args.allow_all,
        max_lease_seconds: max_lease(&args.max_lease)?,
        header_names: (!names.is_empty()).then_some(names),
    })
}

/// A number and one of `s`, `min`, `h`.
fn max_lease(flag: &str) -> Result<u64> {
    let split = flag
        .find(|char: char| !char.is_ascii_digit())
        .unwrap_or(flag.len());
    let (number, unit) = flag.split_at(split);
    let unit = match unit {
        "s" => Some(1),
        "m" | "min" => Some(60),
        "h" => Some(3_600),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .filter(|seconds| (SHORTEST_LEASE..=LONGEST_LEASE).contains(seconds))
        .ok_or_else(|| {
            usage(
                format!("--max-lease {flag}: expected a time from 5min to 24h"),
                "--max-lease 8h",
            )
        })
}

/// Envoy reads the file itself, at every change; what it is must be known now.
fn module(path: &Path) -> Result<Module> {
    const HINT: &str = "make build, then --module target/filter.wasm";
    let what = || format!("--module {}", path.display());
    let absolute = std::path::absolute(path).or_hint(what(), HINT)?;
    let bytes = std::fs::read(&absolute).or_hint(what(), HINT)?;
    if !bytes.starts_with(b"\0asm") {
        return Err(Failure::failed(
            format!("{}: not a WebAssembly module", what()),
            HINT,
        ));
    }
    Ok(Module::new(absolute, &bytes))
}

#[cfg(test)]
mod tests;
