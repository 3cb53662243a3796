//! How a command reaches the cluster.

use intercept_outbound::ClusterConfig;
use intercept_tunnel::developer::Dial;

use super::link::{Line, Link};
use super::namespace::CommandNamespace;
use super::publish::Publish;
use crate::args::OutboundMode;
use crate::hint::{Failure, Result};

/// What is asked for.
#[derive(Debug)]
pub struct CommandNetwork {
    /// The command's program, as people call it.
    pub program: String,
    /// The way.
    pub mode: OutboundMode,
    /// See [`label`].
    pub label: String,
    /// Ports of the namespace that are reached on this machine.
    pub publish: Publish,
}

/// The network of a running command. It ends when it is dropped.
#[derive(Debug)]
pub struct Network(CommandNamespace);

/// By what a namespace is found: the backend as intercepts in the background know it, and the intercept's name.
pub fn label(backend: &str, name: &str) -> String {
    format!("{backend} {name}")
}

impl CommandNetwork {
    /// Is the intercept to go on where there is no such network?
    pub fn is_optional(&self) -> bool {
        self.mode == OutboundMode::Auto
    }

    /// Says that the command runs without it, why, and what helps.
    pub fn without(&self, failure: &Failure) -> Line {
        Line::Warning(format!(
            "{} does not reach the cluster: {}; what helps: {}",
            self.program,
            failure.error(),
            failure.hint()
        ))
    }

    /// Makes it, and lets intercepted requests find the command's server by `dial`. `None`: the command runs without it, as the lines say.
    ///
    /// # Errors
    /// What was asked for cannot be had.
    pub async fn start(self, link: &Link, dial: &Dial) -> Result<(Option<Network>, Vec<Line>)> {
        let client = link.client();
        let started = match client.config().await {
            Some(config) => {
                let reaches = reaches(&self.program, &config);
                let (label, publish) = (self.label.clone(), self.publish.clone());
                let namespace = CommandNamespace::start(client, config, label, publish).await;
                namespace.map(|namespace| (namespace, reaches))
            }
            None => Err(Failure::failed(
                "outbound connections: the connection is lost",
                "injector doctor",
            )),
        };
        match started {
            Ok((namespace, reaches)) => {
                namespace.serve(dial);
                let mut lines = vec![Line::Note(reaches)];
                lines.extend(namespace.warning());
                Ok((Some(Network(namespace)), lines))
            }
            Err(failure) if self.is_optional() => Ok((None, vec![self.without(&failure)])),
            Err(failure) => Err(failure),
        }
    }
}

impl Network {
    /// The word of the namespace that the command is to join.
    pub fn membership(&self) -> String {
        self.0.membership()
    }

    /// The next line to be read.
    pub async fn next(&mut self) -> Line {
        self.0.next().await
    }
}

/// `npm reaches the cluster: short names of shop.svc.cluster.local, and *.cluster.local`.
fn reaches(program: &str, config: &ClusterConfig) -> String {
    let short = config
        .search
        .first()
        .map(|first| match *first == config.domain {
            true => "short names".to_owned(),
            false => format!("short names of {first}"),
        });
    let full = Some(&config.domain).filter(|domain| !domain.is_empty());
    let full = full.map(|domain| format!("*.{domain}"));
    let names: Vec<String> = short.into_iter().chain(full).collect();
    match names.is_empty() {
        true => format!("{program} reaches the cluster by address"),
        false => format!("{program} reaches the cluster: {}", names.join(", and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn note_says_which_names() {
        let note = |domain: &str, search: &[&str]| {
            let config = ClusterConfig {
                domain: domain.to_owned(),
                search: search.iter().map(|name| (*name).to_owned()).collect(),
                ..ClusterConfig::default()
            };
            reaches("npm", &config)
        };
        assert_eq!(
            note(
                "cluster.local",
                &["shop.svc.cluster.local", "svc.cluster.local"]
            ),
            "npm reaches the cluster: short names of shop.svc.cluster.local, and *.cluster.local"
        );
        assert_eq!(
            note("sandbox", &["sandbox"]),
            "npm reaches the cluster: short names, and *.sandbox"
        );
        assert_eq!(note("", &[]), "npm reaches the cluster by address");
    }
}
