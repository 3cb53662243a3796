//! `injector doctor`: what could keep an intercept from working. Changes nothing.

use intercept_manifest::printable::one_line;
use serde::Serialize;

use crate::args::{Doctor, Global, connect};
use crate::doctor::{Check, Outcome, examine, namespace};
use crate::error::{CliError, Result};
use crate::output::print::{self, Shown};

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
        let bad = self.0.iter().filter(|check| check.outcome == Outcome::Fail);
        bad.map(|check| check.found.as_str()).collect()
    }
}

/// Prints all checks; the exit code says whether one of them is bad. Of a plain Envoy there is only this machine to look at.
pub async fn run(global: &Global, args: &Doctor) -> Result<u8> {
    let mut checks = match (&global.envoy, &args.target) {
        (None, target) => {
            let cluster = connect(global).await?;
            examine(&cluster, &args.relay_namespace, target.as_deref()).await
        }
        (Some(_), None) => Vec::new(),
        (Some(_), Some(target)) => return Err(no_cluster(target)),
    };
    checks.push(namespace::check().await);
    let is_bad = checks.iter().any(|check| check.outcome == Outcome::Fail);
    print::print(global.output, &Report(checks))?;
    Ok(u8::from(is_bad))
}

fn no_cluster(target: &str) -> CliError {
    CliError::usage(
        format!(
            "doctor {target}: looks at a service of a cluster, but --envoy (or INJECTOR_ENVOY) chooses a plain Envoy"
        ),
        "unset INJECTOR_ENVOY; a plain Envoy tells about itself: injector status",
    )
}
