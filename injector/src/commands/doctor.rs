//! `injector doctor`: what could keep an intercept from working. Changes nothing.

use serde::Serialize;

use crate::args::{Global, connect};
use crate::doctor::{Check, Outcome, examine};
use crate::hint::{Failure, Result};
use crate::manifest::istio::names::SYSTEM_NAMESPACE;
use crate::print::{self, Shown};
use crate::printable::one_line;

/// Look for what could keep intercepts from working
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  injector doctor                 # the cluster part, and what you may do
  injector doctor -n shop orders  # this service as well
  injector doctor orders -o json

Exit code 1 if something is found with which intercepts cannot work.")]
pub struct Args {
    /// The service or workload to look at
    pub target: Option<String>,
    /// Namespace of relays and module server
    #[arg(long, value_name = "NAME", default_value = SYSTEM_NAMESPACE)]
    pub relay_namespace: String,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Report(Vec<Check>);

impl Shown for Report {
    fn text(&self) -> String {
        let mut text = String::new();
        for check in &self.0 {
            text.push_str(&format!(
                "{} {}\n",
                check.outcome.sign(),
                one_line(&check.found)
            ));
            if let Some(hint) = &check.hint {
                text.push_str(&format!("  {}\n", one_line(hint)));
            }
        }
        text
    }

    fn names(&self) -> Vec<&str> {
        let bad = self.0.iter().filter(|check| check.outcome == Outcome::Bad);
        bad.map(|check| check.found.as_str()).collect()
    }
}

/// Prints all checks; the exit code says whether one of them is bad.
pub async fn run(global: &Global, args: &Args) -> Result<u8> {
    if global.envoy.is_some() {
        return Err(Failure::usage(
            "doctor: only for a cluster, but --envoy (or INJECTOR_ENVOY) chooses a plain Envoy",
            "unset INJECTOR_ENVOY; a plain Envoy tells about itself: injector status",
        ));
    }
    let cluster = connect(global).await?;
    let checks = examine(&cluster, &args.relay_namespace, args.target.as_deref()).await;
    let is_bad = checks.iter().any(|check| check.outcome == Outcome::Bad);
    print::print(global.output, &Report(checks))?;
    Ok(u8::from(is_bad))
}
