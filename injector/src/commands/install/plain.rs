//! `injector --envoy DIR install`: prepares a directory for a plain Envoy. Nothing is written before everything was checked.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use http::Uri;
use intercept_manifest::facts::{Module, Port, Protocol, Relay, WORKLOAD_VERSION, Workload};

use super::limits::limits;
use crate::args::{Install, PlainFlags};
use crate::envoy::{Dir, EnvoyDirError};
use crate::error::{CliError, OrHint, Result};
use crate::shell::quote;

/// Checks everything, then writes. Returns what to tell the operator.
pub fn run(args: &Install, dir: &Path) -> Result<String> {
    let workload = workload(args)?;
    let installed = Dir::install(dir, &workload).map_err(|error| refused(dir, error))?;
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

fn refused(dir: &Path, error: EnvoyDirError) -> CliError {
    let hint = match &error {
        EnvoyDirError::PortInUse { intercept, .. } => {
            format!("injector --envoy {} leave --force {intercept}", shown(dir))
        }
        EnvoyDirError::Unreadable { path, .. } => format!("cat {}", shown(path)),
        EnvoyDirError::Io { path, .. } => {
            format!("ls -ld {}", shown(path.parent().unwrap_or(path)))
        }
        _ => "injector install --help".to_owned(),
    };
    CliError::failed(error, hint)
}

/// What was said, checked.
fn workload(args: &Install) -> Result<Workload> {
    let (prepare, flags) = (&args.prepare, &args.plain);
    let [name] = prepare.workload.as_slice() else {
        return Err(usage(
            format!(
                "--workload: given {} times, expected one behind a plain Envoy",
                prepare.workload.len()
            ),
            "--workload orders",
        ));
    };
    Ok(Workload {
        version: WORKLOAD_VERSION,
        name: workload_name(name)?,
        ports: ports(&prepare.port, flags)?,
        relay: Relay {
            data: reachable("--relay-data", said("--relay-data", flags.relay_data)?)?,
            control: reachable(
                "--relay-control",
                said("--relay-control", flags.relay_control)?,
            )?,
            outbound: flags
                .relay_outbound
                .map(|outbound| reachable("--relay-outbound", outbound))
                .transpose()?,
        },
        limits: limits(&prepare.limits)?,
        admin: flags
            .admin
            .map(|admin| reachable("--admin", admin))
            .transpose()?,
        module: module(said("--module", prepare.module.as_deref())?)?,
    })
}

fn said<T>(flag: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| {
        CliError::usage(
            format!("{flag}: expected behind a plain Envoy"),
            "injector install --help",
        )
    })
}

fn usage(error: impl std::fmt::Display, hint: &str) -> CliError {
    CliError::usage(error, format!("injector install … {hint}"))
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

fn ports(listen: &[String], args: &PlainFlags) -> Result<Vec<Port>> {
    let count = listen.len();
    if count == 0 {
        return Err(usage(
            "--port: expected at least one behind a plain Envoy".to_owned(),
            "--port 8080:http",
        ));
    }
    expect_count("--app", args.app.len(), &[count])?;
    expect_count("--protocol", args.protocol.len(), &[0, 1, count])?;
    expect_count("--url", args.url.len(), &[0, count])?;
    let mut ports = Vec::new();
    for (index, flag) in listen.iter().enumerate() {
        let (number, name) = port(flag)?;
        let protocol = args.protocol.get(index).or(args.protocol.first());
        ports.push(Port {
            name,
            number,
            app: reachable("--app", args.app[index])?,
            protocol: protocol.map_or(Protocol::Http, |protocol| (*protocol).into()),
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

/// An address that can be connected to.
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

/// Envoy reads the file itself, at every change; what it is must be known now.
fn module(path: &Path) -> Result<Module> {
    const HINT: &str = "make build, then --module target/filter.wasm";
    let what = || format!("--module {}", path.display());
    let absolute = std::path::absolute(path).or_hint(what(), HINT)?;
    let bytes = std::fs::read(&absolute).or_hint(what(), HINT)?;
    if !bytes.starts_with(b"\0asm") {
        return Err(CliError::failed(
            format!("{}: not a WebAssembly module", what()),
            HINT,
        ));
    }
    Ok(Module::new(absolute, &bytes))
}
