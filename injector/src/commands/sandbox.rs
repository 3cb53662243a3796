//! `injector sandbox`: starts everything on this machine, says what to type next, and stops it all on Ctrl-C.

use std::io::{self, Write};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::curl::quote;
use crate::hint::{Failure, OrHint, Result};
use crate::sandbox::{
    NotFound, Options, SERVICE, Sandbox, SandboxError, USUAL_PORT, find_envoy, find_filter,
};

/// Try it without a cluster: Envoy, a demo service `orders` and the relay on this machine
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where the demo service is reached through Envoy [default: 8080, or another one if that is taken]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// How many worker threads Envoy has
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
}

/// Runs until Ctrl-C, SIGTERM or the terminal's end.
pub async fn run(args: &Args) -> Result<()> {
    let options = Options {
        port: args.port,
        concurrency: args.concurrency,
        envoy: find_envoy().map_err(not_found)?,
        filter: find_filter().map_err(not_found)?,
    };
    // Before anything is started: from now on a signal no longer just ends us.
    let mut stopped = Stop::new()?;
    let mut sandbox = tokio::select! {
        started = Sandbox::start(&options) => started.map_err(|error| failed(error, args))?,
        () = stopped.wait() => return Ok(()),
    };
    tell(&sandbox, args);
    let ended = tokio::select! {
        error = sandbox.failed() => Err(failed(error, args)),
        () = stopped.wait() => Ok(()),
    };
    sandbox.stop().await;
    ended
}

/// A reader that has gone away wanted no more.
fn tell(sandbox: &Sandbox, args: &Args) {
    let _ = io::stdout().write_all(next_steps(sandbox, args).as_bytes());
    let _ = io::stdout().flush();
}

fn next_steps(sandbox: &Sandbox, args: &Args) -> String {
    let url = format!("http://{}", sandbox.address());
    let port = sandbox.address().port();
    let taken = if args.port.is_none() && port != USUAL_PORT {
        format!("port {USUAL_PORT} is taken, so it is {port}\n")
    } else {
        String::new()
    };
    format!(
        "{SERVICE} answers on {url} (Envoy, the service and the relay; Ctrl-C stops them)\n{taken}\n\
         in another terminal:\n  \
           export INJECTOR_ENVOY={}\n  \
           curl {url}/api/version\n  \
           injector intercept {SERVICE} --port 3000 --http-header=Coder=Bob\n  \
           curl -H 'Coder: Bob' {url}/api/version\n",
        quote(&sandbox.dir().path().to_string_lossy()),
    )
}

fn not_found(missing: NotFound) -> Failure {
    let hint = match missing.what {
        "envoy" => "make tools (or: export ENVOY=/path/to/envoy)",
        _ => "make build (or: export INJECTOR_FILTER=/path/to/filter.wasm)",
    };
    Failure::failed(missing, hint)
}

fn failed(error: SandboxError, args: &Args) -> Failure {
    let hint = match &error {
        SandboxError::Port { .. } => {
            "injector sandbox (without --port it takes a free one)".to_owned()
        }
        SandboxError::Envoy { .. } => match args.port {
            Some(port) => {
                format!("injector sandbox --port {port} (or: export ENVOY=/path/to/envoy)")
            }
            None => "injector sandbox (or: export ENVOY=/path/to/envoy)".to_owned(),
        },
        _ => "injector sandbox".to_owned(),
    };
    Failure::failed(error, hint)
}

/// The signals that end us.
struct Stop([Signal; 3]);

impl Stop {
    fn new() -> Result<Self> {
        let [interrupt, terminate, hangup] = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ]
        .map(|kind| signal(kind).or_hint("signals", "ulimit -n"));
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
