//! How a command reaches the cluster: in a network namespace of its own, else by the variables of a proxy.

use std::sync::Arc;

use intercept_outbound::{ClusterConfig, Mark, Proxy};
use intercept_tunnel::developer::Dial;

use super::link::{Line, Link};
use super::marks::{in_words, mark};
use super::namespace::CommandNamespace;
use super::publish::Publish;
use super::variables::{self, Variable};
use crate::args::OutboundMode;
use crate::error::{CliError, OrHint, Result};
use crate::model::Plan;

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
    /// Do the command's requests into the cluster get the intercept's own header?
    pub is_marked: bool,
}

/// The network of a running command. It ends when it is dropped.
#[derive(Debug)]
pub enum Network {
    /// A namespace of its own.
    Namespace(CommandNamespace, Arc<ClusterConfig>),
    /// This machine's, with a proxy.
    Proxy(Proxy),
}

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
    pub fn without(&self, failure: &CliError) -> Line {
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
    pub async fn start(
        self,
        plan: &Plan,
        link: &Link,
        dial: &Dial,
    ) -> Result<(Option<Network>, Vec<Line>)> {
        let Some(config) = link.client().config().await else {
            let failure = CliError::failed(
                "outbound connections: the connection is lost",
                "injector doctor",
            );
            return match self.is_optional() {
                true => Ok((None, vec![self.without(&failure)])),
                false => Err(failure),
            };
        };
        if self.mode == OutboundMode::Proxy {
            let line = Line::Note(by_variables(&self.program, &config));
            return Ok((Some(proxy(link, config).await?), vec![line]));
        }
        let mark = mark(plan).filter(|_| self.is_marked);
        match self.namespace(link, &config, mark.clone()).await {
            Ok(namespace) => {
                namespace.serve(dial);
                let mut lines = vec![Line::Note(reaches(&self.program, &config))];
                lines.extend(mark.map(|mark| marks(&self.program, &mark)));
                lines.extend(namespace.warning());
                Ok((Some(Network::Namespace(namespace, config)), lines))
            }
            Err(failure) if self.is_optional() => self.fall_back(&failure, link, config).await,
            Err(failure) => Err(failure),
        }
    }

    async fn namespace(
        &self,
        link: &Link,
        config: &Arc<ClusterConfig>,
        mark: Option<Mark>,
    ) -> Result<CommandNamespace> {
        let (label, publish) = (self.label.clone(), self.publish.clone());
        CommandNamespace::start(link.client(), config.clone(), label, publish, mark).await
    }

    /// To a proxy, where that takes no proxy of the developer's away.
    async fn fall_back(
        &self,
        failure: &CliError,
        link: &Link,
        config: Arc<ClusterConfig>,
    ) -> Result<(Option<Network>, Vec<Line>)> {
        let Self { program, .. } = self;
        let (error, hint) = (failure.error(), failure.hint());
        if let Some(own) = variables::own_proxy(|name| std::env::var(name).ok()) {
            let line = format!(
                "{program} does not reach the cluster ({own} is kept, and --outbound=proxy would replace it): {error}; what helps: {hint}"
            );
            return Ok((None, vec![Line::Warning(line)]));
        }
        let line = format!(
            "{program} reaches the cluster only where it heeds HTTP_PROXY or ALL_PROXY: {error}; what helps: {hint}"
        );
        Ok((Some(proxy(link, config).await?), vec![Line::Warning(line)]))
    }
}

impl Network {
    /// The word of the namespace that the command is to join.
    pub fn membership(&self) -> Option<String> {
        match self {
            Self::Namespace(namespace, _) => Some(namespace.membership()),
            Self::Proxy(_) => None,
        }
    }

    /// Variables that the command needs. `read`: what it has without them.
    pub fn variables(&self, read: impl Fn(&str) -> Option<String>) -> Vec<Variable> {
        match self {
            Self::Namespace(_, config) => variables::of_namespace(config, read),
            Self::Proxy(proxy) => variables::of_proxy(proxy),
        }
    }

    /// The next line to be read. Waits for ever where there is none.
    pub async fn next(&mut self) -> Line {
        match self {
            Self::Namespace(namespace, _) => namespace.next().await,
            Self::Proxy(_) => std::future::pending().await,
        }
    }
}

async fn proxy(link: &Link, config: Arc<ClusterConfig>) -> Result<Network> {
    let proxy = Proxy::start(link.client().clone(), config).await;
    Ok(Network::Proxy(
        proxy.or_hint("127.0.0.1", "injector doctor")?,
    ))
}

/// `npm reaches the cluster by HTTP_PROXY and ALL_PROXY`.
fn by_variables(program: &str, config: &ClusterConfig) -> String {
    reaches(
        &format!("{program}, where it heeds HTTP_PROXY or ALL_PROXY,"),
        config,
    )
}

fn marks(program: &str, mark: &Mark) -> Line {
    Line::Note(format!(
        "plain HTTP requests of {program} into the cluster get {} where that is missing (--no-mark: they do not)",
        in_words(mark)
    ))
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
