//! A plain Envoy's directory as a backend: what a word means there, and its errors with what to do.

use std::net::{IpAddr, SocketAddr, TcpListener};

use intercept_core::Intercept;

use crate::args::envoy_flag;
use crate::envoy::{Dir, EnvoyDirError};
use crate::hint::{Failure, Result};
use crate::manifest::facts::{Port, Workload};
use crate::sandbox;
use crate::shell::quote;

/// A directory has one workload, and TARGET must mean it.
pub fn named<'d>(dir: &'d Dir, target: &str) -> Result<&'d Workload> {
    let workload = dir.workload();
    let name = target.split_once('/').map_or(target, |(_, name)| name);
    if name == workload.name {
        return Ok(workload);
    }
    Err(Failure::failed(
        format!(
            "{target}: no such service, {} has only {}",
            dir.path().display(),
            workload.name
        ),
        format!(
            "its name is {0}, as in: injector intercept{1} {0}",
            quote(&workload.name),
            envoy_flag(dir.path())
        ),
    ))
}

/// Removes this cluster, if no entry needs it.
pub fn clear(dir: &Dir, cluster: &str) -> Result<()> {
    match dir.clear_clusters(&[cluster]) {
        Err(EnvoyDirError::NotInstalled(_)) => Ok(()),
        other => Ok(other?),
    }
}

/// The directory is not prepared any more.
pub fn gone(dir: &Dir, name: &str) -> Failure {
    let path = dir.path();
    if sandbox::has_made(path) {
        return Failure::failed(format!("{name}: the sandbox has ended"), "injector sandbox");
    }
    Failure::failed(
        format!(
            "{name}: {} is no longer prepared for intercepts",
            path.display()
        ),
        format!(
            "injector --envoy {} install --help",
            quote(&path.to_string_lossy())
        ),
    )
}

/// Only containers have one.
pub fn no_environment() -> Failure {
    Failure::usage(
        "--env-file: nothing is known of the environment of a program behind a plain Envoy, only of a workload of a cluster",
        "leave it out; for a cluster: unset INJECTOR_ENVOY",
    )
}

/// Removes the entry of this name and address.
pub fn remove(dir: &Dir, name: &str, address: &str) -> Result<Option<Intercept>> {
    match dir.remove(name, Some(address)) {
        // Uninstalled meanwhile: then it is gone as well.
        Err(EnvoyDirError::NotInstalled(_)) => Ok(None),
        removed => Ok(removed?),
    }
}

/// Refuses the ports of this machine on which the workload's Envoy, its admin interface or the relay listens.
pub fn check_developer_port(dir: &Dir, port: u16, service: Option<&str>) -> Result<()> {
    let workload = dir.workload();
    let is = |address: SocketAddr| address.port() == port && is_here(address.ip());
    let who = if workload.ports.iter().any(|of| of.number == port) {
        "Envoy itself listens there"
    } else if workload.admin.is_some_and(is) {
        "Envoy's admin interface listens there"
    } else if is(workload.relay.data) || is(workload.relay.control) {
        "the relay listens there"
    } else {
        return Ok(());
    };
    let service = service.map_or_else(String::new, |service| format!(":{}", quote(service)));
    Err(Failure::usage(
        format!("--port {port}: {who}, expected the port of your own program"),
        format!(
            "injector intercept{} {} --port 3000{service}",
            envoy_flag(dir.path()),
            quote(&workload.name)
        ),
    ))
}

/// Is this an address of this machine? Only such a one can be listened on.
fn is_here(address: IpAddr) -> bool {
    TcpListener::bind((address, 0)).is_ok()
}

/// The port that `--port` means: by name or number, else the only one.
pub fn choose_port<'d>(dir: &'d Dir, wanted: Option<&str>) -> Result<&'d Port> {
    let workload = dir.workload();
    let example = |port: &str| {
        let (flag, name) = (envoy_flag(dir.path()), quote(&workload.name));
        format!("injector intercept{flag} {name} --port 3000:{port}")
    };
    let list = || {
        let ports = workload.ports.iter();
        let ports: Vec<String> = ports
            .map(|port| format!("{} ({})", port.name, port.number))
            .collect();
        ports.join(", ")
    };
    match (wanted, workload.ports.as_slice()) {
        (Some(wanted), ports) => workload.port(wanted).ok_or_else(|| {
            let port = ports.first().map_or("http", |port| port.name.as_str());
            Failure::usage(
                format!(
                    "port {wanted}: {} has no such port, it has {}",
                    workload.name,
                    list()
                ),
                example(port),
            )
        }),
        (None, [only]) => Ok(only),
        (None, []) => Err(Failure::failed(
            format!("{}: no port speaks HTTP", workload.name),
            "injector install --help",
        )),
        (None, [first, ..]) => Err(Failure::usage(
            format!("{} has several ports: {}", workload.name, list()),
            example(&first.name),
        )),
    }
}

impl From<EnvoyDirError> for Failure {
    fn from(error: EnvoyDirError) -> Self {
        let hint = match &error {
            EnvoyDirError::NotInstalled(dir) => format!(
                "injector sandbox prints the directory to use; an operator prepares one with: injector --envoy {} install --help",
                quote(&dir.to_string_lossy())
            ),
            EnvoyDirError::Io { path, .. } => format!("ls -ld {}", quote(&path.to_string_lossy())),
            EnvoyDirError::Unreadable { path, .. } => {
                format!("cat {}", quote(&path.to_string_lossy()))
            }
            EnvoyDirError::UnknownPort { .. } => "injector intercept --help".to_owned(),
            EnvoyDirError::PortInUse { .. } | EnvoyDirError::Live { .. } => {
                "injector list, then: injector leave NAME".to_owned()
            }
        };
        Self::failed(error, hint)
    }
}
