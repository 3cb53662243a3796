//! `injector outbound`: the in-cluster end of connections from developer machines; runs until a signal ends it.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use intercept_outbound::server::{DialRecord, Limits, Options, serve};
use intercept_outbound::{
    ABSENCE, ClusterConfig, DIAL, Destination, Policy, RECHECK, ResolvConf, Resolver,
    SERVICE_RANGE, Service, Tempo,
};
use intercept_tunnel::developer::{Connecting, Stream};
use intercept_tunnel::relay_end::RelayEnd;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::relay::take_all_descriptors;
use crate::args::{Global, Outbound};
use crate::error::{CliError, OrHint, Result};
use crate::outbound::RelayGate;
use crate::session::Signals;

const HELP: &str = "injector outbound --help";
/// Records that wait to be written.
const RECORDS: usize = 1_024;
/// How long connections may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or Ctrl-C.
pub async fn run(global: &Global, flags: &Outbound) -> Result<()> {
    take_all_descriptors();
    let mut signals = Signals::catch().or_hint("signals", HELP)?;
    let (audit, records) = mpsc::channel(RECORDS);
    let options = options(flags, audit)?;
    let listener = TcpListener::bind(flags.listen).await.or_hint(
        format_args!("--listen {}", flags.listen),
        "choose a free one: injector outbound --listen 127.0.0.1:0",
    )?;
    if !global.quiet {
        let address = listener.local_addr().or_hint("--listen", HELP)?;
        eprintln!("developer machines on {address}");
        if flags.to.is_empty() && flags.service.is_empty() {
            eprintln!("nothing may be dialled: no --to is given");
        }
    }
    let writing = std::thread::spawn(move || write(records));
    let stopped = async {
        signals.next().await;
    };
    serve(listener, options, stopped)
        .await
        .or_hint("outbound", HELP)?;
    // Connections that were cut off have their records too.
    let _ = tokio::task::spawn_blocking(move || writing.join()).await;
    Ok(())
}

/// What the flags and this system say.
pub fn options(flags: &Outbound, audit: mpsc::Sender<DialRecord>) -> Result<Options> {
    let services = flags.service.iter().map(|flag| service(flag));
    let services = services.collect::<Result<Vec<_>>>()?;
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let conf = ResolvConf::parse(&text);
    let mut ranges = Vec::new();
    for range in &flags.range {
        ranges.push(range.parse().map_err(|_| {
            let error = format!("--range {range}: expected a range as 10.96.0.0/12");
            CliError::usage(error, HELP)
        })?);
    }
    let domain = flags.domain.as_deref().or(conf.cluster_domain());
    let mut config = ClusterConfig {
        domain: domain.unwrap_or_default().trim_matches('.').to_owned(),
        search: conf.search.clone(),
        ndots: conf.ndots,
        ranges: ranges.clone(),
    };
    if !services.is_empty() {
        config.ranges.push(SERVICE_RANGE.into());
    }
    Ok(Options {
        gate: Arc::new(RelayGate::new(relays(&flags.relay)?)),
        resolver: Resolver::new(conf, services),
        policy: Policy {
            allowed: flags.to.clone(),
            never: flags.never.clone(),
            ranges,
        },
        limits: Limits {
            connections: flags.connections,
            dials_per_second: flags.dials,
            memory: flags.memory << 20,
            ..Limits::default()
        },
        config,
        tempo: Tempo::default(),
        dial: DIAL,
        grace: GRACE,
        recheck: RECHECK,
        absence: ABSENCE,
        audit,
    })
}

fn relays(flags: &[String]) -> Result<Vec<RelayEnd>> {
    let relays = flags.iter().map(|flag| {
        let destination: Destination = flag
            .parse()
            .map_err(|error| CliError::usage(format!("--relay {error}"), HELP))?;
        let at = destination.to_string();
        let connect = move || -> Connecting<'static> {
            let at = at.clone();
            Box::pin(async move {
                let stream = TcpStream::connect(&at).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream) as Box<dyn Stream>)
            })
        };
        Ok(RelayEnd::new(
            flag.clone(),
            "injector relay --help",
            connect,
        ))
    });
    relays.collect()
}

/// `inventory:80=127.0.0.1:4312`.
fn service(flag: &str) -> Result<Service> {
    let read = || {
        let (name, target) = flag.split_once('=')?;
        let Destination::Name(name, port) = name.parse().ok()? else {
            return None;
        };
        Some(Service {
            name,
            port,
            target: target.parse().ok()?,
        })
    };
    read().ok_or_else(|| {
        let error = format!("--service {flag}: expected NAME:PORT=ADDR:PORT");
        CliError::usage(error, HELP)
    })
}

/// One line each. A reader that is gone ends nothing.
fn write(mut records: mpsc::Receiver<DialRecord>) {
    while let Some(record) = records.blocking_recv() {
        if let Ok(line) = serde_json::to_string(&record) {
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }
}
