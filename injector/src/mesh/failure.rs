//! Errors of the mesh as the developer reads them, each with a command to run.

use intercept_kube::ClusterError;
use intercept_kube::resolve::Resolved;
use intercept_manifest::istio::names;
use intercept_manifest::istio::preparation::InvalidPreparation;

use crate::error::{CliError, Result};
use crate::install_args::{self, InstallArgs};
use crate::model::SelectPort;
use crate::shell::quote;

/// A WasmPlugin that cannot be used.
pub fn of_plugin(error: InvalidPreparation) -> CliError {
    CliError::failed(error, "an operator prepares it again: injector install")
}

/// A WasmPlugin of this name that no installer of this version made.
pub fn of_older_plugin(namespace: &str, found: &Resolved) -> CliError {
    CliError::failed(
        format!(
            "{}: it was prepared by another version of `injector`, or by another program",
            found.label()
        ),
        format!(
            "an operator prepares it again: {}",
            install_args::usual(namespace, &found.label())
        ),
    )
}

/// Refuses a caller who lacks what cannot be done without; `missing` as it stands in a sentence.
pub fn of_rights(namespace: &str, missing: &[String]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    Err(CliError::failed(
        format!("you may not {}", missing.join(", nor ")),
        format!(
            "an administrator binds the roles to you: kubectl create rolebinding … -n {} --clusterrole={1} --user=YOU, and the role {1} of the relays' namespace",
            quote(namespace),
            names::DEVELOPER_ROLE
        ),
    ))
}

/// A write that the API server did not take; an admission policy's reason stands in its own words.
pub fn refused(error: ClusterError) -> CliError {
    match error.is_forbidden() {
        true => CliError::failed(
            error,
            "kubectl auth whoami; what an operator allows is said above",
        )
        .denied(true),
        false => error.into(),
    }
}

/// `--port` names none of the prepared ports; `meant` is the container port that it does name, `place` what chooses the namespace in a command that is shown.
pub fn no_such_port(
    (namespace, place): (&str, &str),
    found: &Resolved,
    kept: &InstallArgs,
    word: &str,
    meant: Option<u16>,
    offered: &[SelectPort],
) -> CliError {
    let name = &found.name;
    let there = shown(offered);
    match meant {
        Some(number) if word != number.to_string() || offered.is_empty() => {
            let ports = kept.ports.iter().copied().chain([number]).collect();
            let kept = InstallArgs {
                ports,
                ..kept.clone()
            };
            CliError::failed(
                format!(
                    "port {word}: no operator has prepared port {number} of {name}, only {there}"
                ),
                format!(
                    "is it HTTP? then an operator prepares it: {}",
                    install_args::prepare(namespace, &found.label(), &kept)
                ),
            )
        }
        _ => CliError::usage(
            format!("port {word}: {name} has no such port that is prepared, it has {there}"),
            example(place, name, offered),
        ),
    }
}

/// No `--port`, and several to choose from.
pub fn several_ports(place: &str, name: &str, offered: &[SelectPort]) -> CliError {
    CliError::usage(
        format!("{name} has several ports: {}", shown(offered)),
        example(place, name, offered),
    )
}

fn example(place: &str, name: &str, offered: &[SelectPort]) -> String {
    let port = offered.first().map_or_else(
        || "http".to_owned(),
        |port| port.name.clone().unwrap_or(port.number.to_string()),
    );
    format!(
        "injector intercept{place} {} --port 3000:{port}",
        quote(name)
    )
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

#[cfg(test)]
mod tests {
    use intercept_manifest::istio::Kind;
    use serde_json::Value;

    use super::*;

    fn offered() -> [SelectPort; 2] {
        let port = |number, name: Option<&str>| SelectPort {
            number,
            name: name.map(str::to_owned),
        };
        [port(8080, Some("http")), port(9090, None)]
    }

    #[test]
    fn missing_rights_are_refused() {
        assert!(of_rights("shop", &[]).is_ok());
        let missing = ["create intercepts in shop", "get pods"].map(str::to_owned);
        let refusal = of_rights("shop", &missing).unwrap_err().to_string();
        assert!(
            refusal.starts_with("error: you may not create intercepts in shop, nor get pods\n"),
            "{refusal}"
        );
        assert!(refusal.contains("--clusterrole=injector-developer"));
    }

    #[test]
    fn several_ports_need_a_choice() {
        let failure = several_ports(" -n shop", "orders", &offered());
        assert_eq!(
            failure.to_string(),
            "error: orders has several ports: http (8080), 9090\n\nhint: injector intercept -n shop orders --port 3000:http"
        );
        let of_numbers = several_ports("", "orders", &offered()[1..]);
        assert!(of_numbers.hint().ends_with(":9090"), "{of_numbers}");
    }

    #[test]
    fn unprepared_port_lists_prepared_ones() {
        let found = Resolved {
            kind: Kind::Deployment,
            name: "orders".to_owned(),
            object: Value::Null,
            services: Vec::new(),
        };
        let refused = |word: &str, meant, offered: &[SelectPort]| {
            let failure = no_such_port(
                ("shop", ""),
                &found,
                &InstallArgs::default(),
                word,
                meant,
                offered,
            );
            failure.error().to_owned()
        };
        for (word, meant, expected) in [
            (
                "admin",
                Some(7070),
                "port admin: no operator has prepared port 7070 of orders, only http (8080), 9090",
            ),
            (
                "7070",
                Some(7070),
                "port 7070: orders has no such port that is prepared, it has http (8080), 9090",
            ),
            (
                "admin",
                None,
                "port admin: orders has no such port that is prepared, it has http (8080), 9090",
            ),
        ] {
            assert_eq!(refused(word, meant, &offered()), expected);
        }
        assert_eq!(
            refused("7070", Some(7070), &[]),
            "port 7070: no operator has prepared port 7070 of orders, only none"
        );
    }

    #[test]
    fn hint_keeps_prepared_ports() {
        let found = Resolved {
            kind: Kind::Deployment,
            name: "orders".to_owned(),
            object: Value::Null,
            services: Vec::new(),
        };
        let mut kept = InstallArgs {
            ports: vec![8080],
            ..InstallArgs::default()
        };
        kept.limits.allow_all = true;
        let failure = no_such_port(("shop", ""), &found, &kept, "grpc", Some(9090), &[]);
        assert_eq!(
            failure.hint(),
            "is it HTTP? then an operator prepares it: \
             injector install -n shop --workload deployment/orders --port 8080 --port 9090 --allow-all"
        );
    }
}
