//! How what a mesh says is told to a developer: each with a command to run.

use super::plugin::InvalidPlugin;
use super::prepared::UnreadableGate;
use crate::backend::SelectPort;
use crate::curl::quote;
use crate::hint::Failure;
use crate::lookup::Found;

/// A WasmPlugin that cannot be used.
pub fn of_plugin(error: InvalidPlugin) -> Failure {
    let hint = match &error {
        InvalidPlugin::NotOurs(_) => {
            "another program made it; an operator looks into it: injector doctor"
        }
        InvalidPlugin::Version { .. } => {
            "use the version of `injector` that prepared the workload, or an operator prepares it anew: injector install"
        }
        InvalidPlugin::Limits { .. } => "an operator prepares it anew: injector install",
    };
    Failure::failed(error, hint)
}

/// A gate that cannot be read.
pub fn of_gate(error: UnreadableGate) -> Failure {
    Failure::failed(error, "an operator prepares it anew: injector install")
}

/// `--port` names none of the prepared ports; `meant` is the container port that it does name.
pub fn no_such_port(
    namespace: &str,
    found: &Found,
    word: &str,
    meant: Option<u16>,
    offered: &[SelectPort],
) -> Failure {
    let name = &found.name;
    let there = shown(offered);
    match meant {
        Some(number) if word != number.to_string() || offered.is_empty() => Failure::failed(
            format!("port {word}: no operator has prepared port {number} of {name}, only {there}"),
            format!(
                "is it HTTP? then an operator prepares it: {} --port {number}",
                found.install_command(namespace)
            ),
        ),
        _ => Failure::usage(
            format!("port {word}: {name} has no such port that is prepared, it has {there}"),
            example(name, offered),
        ),
    }
}

/// No `--port`, and several to choose from.
pub fn several_ports(name: &str, offered: &[SelectPort]) -> Failure {
    Failure::usage(
        format!("{name} has several ports: {}", shown(offered)),
        example(name, offered),
    )
}

fn example(name: &str, offered: &[SelectPort]) -> String {
    let port = offered.first().map_or_else(
        || "http".to_owned(),
        |port| port.name.clone().unwrap_or(port.number.to_string()),
    );
    format!("injector intercept {} --port 3000:{port}", quote(name))
}

fn shown(ports: &[SelectPort]) -> String {
    let ports: Vec<String> = ports
        .iter()
        .map(|port| match &port.name {
            Some(name) => format!("{name} ({})", port.number),
            None => port.number.to_string(),
        })
        .collect();
    match ports.as_slice() {
        [] => "none".to_owned(),
        ports => ports.join(", "),
    }
}
