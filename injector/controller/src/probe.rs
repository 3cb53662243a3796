//! Queries a workload's ready replicas for their intercepts.
//!
//! Every Istio proxy has a Prometheus port for that.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use intercept_core::{ACTIVE_METRIC, HASH_METRIC, METRICS_PATH};
use intercept_kube::pods;
use intercept_kube::{Cluster, kind};
use intercept_manifest::istio::Workload;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::model::{Key, PodReport, PodState, Reports};

/// The Prometheus port of Istio's proxy.
const PORT: u16 = 15090;

/// Timeout for one proxy.
const ANSWER: Duration = Duration::from_secs(1);

/// The size limit for a response, which usually has 200 bytes.
const LONGEST: usize = 64 << 10;

/// How many proxies to query at once.
const AT_ONCE: usize = 32;

/// Pause between two rounds during a change.
const QUICK: Duration = Duration::from_millis(50);

/// How long a change lasts.
const CHANGING: Duration = Duration::from_secs(3);

/// Pause between two rounds while a replica lacks a change for longer than that.
const BEHIND: Duration = Duration::from_secs(1);

/// Pause between two rounds otherwise: replicas come and go.
const SLOW: Duration = Duration::from_secs(10);

/// Pause between a proxy's response and its report.
///
/// The response comes from Envoy's main thread; the last of its workers followed after 66 ms at the latest (measured).
const WORKERS: Duration = Duration::from_millis(100);

/// Queries the proxies periodically, and sends changed reports. Ends when the receiver is gone.
///
/// `hash_rx`, from the decision: the hash that the replicas should have. `reports_tx`, to the decision: their reports.
pub(super) async fn follow(
    cluster: Cluster,
    key: Key,
    workload: Workload,
    mut hash_rx: watch::Receiver<u64>,
    reports_tx: mpsc::Sender<(Key, Reports)>,
) {
    let mut last = None;
    loop {
        let expected = *hash_rx.borrow_and_update();
        let started = Instant::now();
        let pods = ready_pods(&cluster, &workload).await;
        let is_settled = loop {
            let reports = match &pods {
                Ok(pods) => Ok(ask_all(pods).await),
                Err(why) => Err(why.clone()),
            };
            let has_it =
                |pod: &PodReport| pod.state.as_ref().is_ok_and(|state| state.hash == expected);
            let is_settled = reports.as_ref().is_ok_and(|pods| pods.iter().all(has_it));
            if last.as_ref() != Some(&reports) {
                sleep(WORKERS).await;
                last = Some(reports.clone());
                if reports_tx.send((key.clone(), reports)).await.is_err() {
                    return;
                }
            }
            let has_changed = hash_rx.has_changed().unwrap_or(true);
            if is_settled || has_changed || started.elapsed() >= CHANGING {
                break is_settled;
            }
            sleep(QUICK).await;
        };
        let pause = if is_settled { SLOW } else { BEHIND };
        if let Ok(Err(_)) = timeout(pause, hash_rx.changed()).await {
            return;
        }
    }
}

/// The ready replicas with a sidecar, and their addresses.
async fn ready_pods(
    cluster: &Cluster,
    workload: &Workload,
) -> Result<Vec<(String, IpAddr)>, String> {
    let namespace = Some(workload.namespace.as_str());
    let pods = cluster
        .list(
            &kind::POD,
            namespace,
            Some(&pods::selector(&workload.selector)),
        )
        .await;
    let pods = pods.map_err(|error| error.to_string())?;
    let pods = pods
        .iter()
        .filter(|pod| pods::is_ready(pod) && pods::sidecar(pod).is_some());
    Ok(pods
        .filter_map(|pod| {
            let name = pods::name_of(pod).to_owned();
            Some((name, pod["status"]["podIP"].as_str()?.parse().ok()?))
        })
        .collect())
}

async fn ask_all(pods: &[(String, IpAddr)]) -> Vec<PodReport> {
    let asked: Vec<_> = pods.iter().cloned().map(report).collect();
    stream::iter(asked).buffered(AT_ONCE).collect().await
}

async fn report((name, address): (String, IpAddr)) -> PodReport {
    let address = SocketAddr::new(address, PORT);
    let answered = timeout(ANSWER, ask(address)).await;
    let state = answered.unwrap_or_else(|_| Err("no answer within a second".to_owned()));
    let state = state.map_err(|why| format!("{address}: {why}"));
    PodReport { name, state }
}

async fn ask(address: SocketAddr) -> Result<PodState, String> {
    let text = get(address).await.map_err(|error| error.to_string())?;
    read(&text).ok_or_else(|| "the filter does not run there, or is an older one".to_owned())
}

async fn get(address: SocketAddr) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::get(METRICS_PATH).header(http::header::HOST, "proxy");
    let exchange = async move {
        let request = request.body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let body = Limited::new(response.into_body(), LONGEST).collect();
        Ok(String::from_utf8(body.await?.to_bytes().to_vec())?)
    };
    // Not `select!`: the proxy may close the connection with its response. An error of the connection is one of the exchange.
    tokio::join!(exchange, connection).0
}

/// Parses Prometheus' text format: `NAME{} VALUE`.
fn read(text: &str) -> Option<PodState> {
    let value = |metric: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            let name = name.split('{').next()?;
            (name == metric).then(|| value.parse().ok()).flatten()
        })
    };
    Some(PodState {
        hash: value(HASH_METRIC)?,
        active: value(ACTIVE_METRIC)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_as_envoy_writes_them() {
        let text = "# TYPE intercept_active_entries gauge\nintercept_active_entries{} 2\n\n# TYPE intercept_config_hash gauge\nintercept_config_hash{} 281474976710655\n\n";
        let expected = PodState {
            hash: (1 << 48) - 1,
            active: 2,
        };
        assert_eq!(read(text), Some(expected));
        assert_eq!(read("intercept_config_hash{} 1\n"), None);
        assert_eq!(read(""), None);
    }
}
