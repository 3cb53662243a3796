//! The network namespace of a command, in the words of this program.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use intercept_outbound::namespace::{
    ClusterDialer, Event, Hold, Membership, Namespace, Options, helper,
};
use intercept_outbound::{Client, ClusterConfig, Mark};
use intercept_tunnel::developer::Dial;

use super::link::Line;
use super::publish::Publish;
use crate::error::{CliError, OrHint, Result};

/// The namespace of a running command.
#[derive(Debug)]
pub struct CommandNamespace(Namespace);

/// Becomes the process that makes a namespace, where the arguments of this one ask for it.
pub fn run_helper() -> Option<ExitCode> {
    let first = std::env::args_os().nth(1);
    helper::is_requested(first.as_deref()).then(|| match helper::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Moves this process into the namespace of this word. It has one thread, and becomes the command next.
pub fn join(membership: &str) -> Result<()> {
    const WHAT: &str = "network namespace of the intercept";
    let membership: Membership = membership.parse().or_hint(WHAT, "injector exec --help")?;
    membership
        .join()
        .or_hint(WHAT, "injector doctor; is its command still running?")
}

/// The word of the namespace with this label that a process of this user keeps.
pub fn find(label: &str) -> Result<Option<String>> {
    let membership = Membership::find(label).or_hint("/proc", "ls /proc/self")?;
    Ok(membership.map(|membership| membership.to_string()))
}

impl CommandNamespace {
    /// Makes it. `mark`: what is added to the command's requests into the cluster.
    ///
    /// # Errors
    /// The step that failed, and what helps.
    pub async fn start(
        client: &Client,
        config: Arc<ClusterConfig>,
        label: String,
        publish: Publish,
        mark: Option<Mark>,
    ) -> Result<Self> {
        let publish = match publish {
            Publish::Auto => intercept_outbound::namespace::Publish::All,
            Publish::Ports(ports) => intercept_outbound::namespace::Publish::Only(ports),
            Publish::Off => intercept_outbound::namespace::Publish::None,
        };
        let dialer = ClusterDialer::new(client.clone(), config).marked(mark);
        let namespace = Namespace::start(dialer, Options { label, publish }).await;
        let namespace =
            namespace.map_err(|error| CliError::failed(error.describe(), error.hint()))?;
        Ok(Self(namespace))
    }

    /// What a process needs to join.
    pub fn membership(&self) -> String {
        self.0.membership().to_string()
    }

    /// From now on intercepted requests go to what listens in the namespace, or else on this machine.
    pub fn serve(&self, dial: &Dial) {
        let server = self.0.local_server();
        dial.set(move |port| {
            let server = server.clone();
            Box::pin(async move { server.connect(port).await })
        });
    }

    /// What the kernel does not offer.
    pub fn warning(&self) -> Option<Line> {
        (self.0.hold() == Hold::None).then(|| {
            Line::Warning(
                "this kernel has no nfnetlink_queue: connections into the cluster open before it has answered, and break where it refuses".to_owned(),
            )
        })
    }

    /// The next line to be read.
    pub async fn next(&mut self) -> Line {
        match self.0.next_event().await {
            Event::Published(port) => Line::Note(format!(
                "port {port} of the command is 127.0.0.1:{port} of this machine"
            )),
            Event::NotPublished(port, error) => Line::Warning(not_published(port, &error)),
            Event::DatagramsLost(to) => Line::Warning(format!(
                "{to}: UDP into the cluster is not possible, except for DNS"
            )),
            Event::HelperLost => Line::Warning(
                "the process of the network namespace has ended: the command keeps its connections into the cluster, but no request reaches its ports".to_owned(),
            ),
        }
    }
}

fn not_published(port: u16, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there".to_owned(),
        io::ErrorKind::PermissionDenied => "only root may listen there".to_owned(),
        _ => error.to_string(),
    };
    format!("port {port} of the command is not 127.0.0.1:{port} of this machine: {why}")
}
