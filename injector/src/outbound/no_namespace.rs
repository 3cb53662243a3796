//! What there is of network namespaces where the system has none.

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;

use intercept_outbound::{Client, ClusterConfig, Mark};
use intercept_tunnel::developer::Dial;

use super::link::Line;
use super::publish::Publish;
use crate::error::{CliError, Result};

/// There is none.
#[derive(Debug)]
pub struct CommandNamespace(Infallible);

/// No process makes one.
pub fn run_helper() -> Option<ExitCode> {
    None
}

/// There is none to join.
pub fn join(_: &str) -> Result<()> {
    Err(failure())
}

/// There is none to find.
pub fn find(_: &str) -> Result<Option<String>> {
    Err(failure())
}

impl CommandNamespace {
    /// Says that there are none.
    pub async fn start(
        _: &Client,
        _: Arc<ClusterConfig>,
        _: String,
        _: Publish,
        _: Option<Mark>,
    ) -> Result<Self> {
        Err(failure())
    }

    /// Never called.
    pub fn membership(&self) -> String {
        match self.0 {}
    }

    /// Never called.
    pub fn serve(&self, _: &Dial) {
        match self.0 {}
    }

    /// Never called.
    pub fn warning(&self) -> Option<Line> {
        match self.0 {}
    }

    /// Never called.
    pub async fn next(&mut self) -> Line {
        match self.0 {}
    }
}

fn failure() -> CliError {
    CliError::failed(
        "network namespace: only Linux has them",
        "reach single services: injector intercept … --forward SERVICE:PORT",
    )
}
