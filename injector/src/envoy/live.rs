//! Whether Envoy has taken a change, asked of its admin interface.
//!
//! Envoy hands a configuration to its workers before it shows it here, so a request sent after [`Live::Verified`] is decided by the new one.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use crate::manifest::facts::Workload;
use crate::manifest::filter;

/// Between two looks. Envoy takes a change in 9 to 52 ms.
const PAUSE: Duration = Duration::from_millis(3);

/// The part of Envoy's configuration that comes by extension config discovery.
const FILTERS: &str = "/config_dump?resource=ecds_filters";

/// What is known about a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// Envoy has it.
    Verified,
    /// It is written; whether Envoy has it is not known.
    NotVerified {
        /// The reason, to be shown.
        why: String,
    },
}

/// An intercept that Envoy should have.
#[derive(Debug, Clone, Copy)]
pub struct Awaited<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its tunnel's address; `None`: Envoy should have no intercept of this name.
    pub address: Option<&'a str>,
    /// The cluster that must be there too.
    pub cluster: Option<&'a str>,
}

/// Asks until Envoy has what is awaited, or until `timeout`.
pub async fn wait(workload: &Workload, awaited: Awaited<'_>, timeout: Duration) -> Live {
    let Some(admin) = workload.admin else {
        return Live::NotVerified {
            why: "the address of Envoy's admin interface is not known".to_owned(),
        };
    };
    let deadline = Instant::now() + timeout;
    let mut why = format!("{admin}: no answer");
    let asked = timeout_at(deadline, ask(admin, awaited, &mut why)).await;
    match asked {
        Ok(Ok(())) => Live::Verified,
        Ok(Err(error)) => Live::NotVerified {
            why: format!("{admin}: {error}"),
        },
        Err(_) => Live::NotVerified {
            why: format!("{why} after {} s", timeout.as_secs_f32()),
        },
    }
}

async fn ask(admin: SocketAddr, awaited: Awaited<'_>, why: &mut String) -> anyhow::Result<()> {
    let stream = TcpStream::connect(admin).await?;
    stream.set_nodelay(true)?;
    let (mut requests, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends with `requests`, when the wait is over.
    tokio::spawn(connection);
    loop {
        match missing(&mut requests, admin, awaited).await? {
            None => return Ok(()),
            Some(reason) => *why = reason,
        }
        sleep(PAUSE).await;
    }
}

/// What Envoy does not have yet.
async fn missing(
    requests: &mut SendRequest<Empty<Bytes>>,
    admin: SocketAddr,
    awaited: Awaited<'_>,
) -> anyhow::Result<Option<String>> {
    let dump = get(requests, admin, FILTERS).await?;
    if let Some(reason) = not_taken(&dump, awaited) {
        return Ok(Some(reason));
    }
    let Some(cluster) = awaited.cluster else {
        return Ok(None);
    };
    let dump = get(requests, admin, &cluster_path(cluster)).await?;
    let is_there = names(&dump, "/cluster/name").any(|name| name == cluster);
    Ok((!is_there).then(|| format!("Envoy has not taken the cluster {cluster}")))
}

/// Envoy takes a regex; a name is made of letters, digits, `-` and the `|` of our prefix.
fn cluster_path(cluster: &str) -> String {
    let regex = cluster.replace('|', "%5C%7C");
    format!("/config_dump?resource=dynamic_active_clusters&name_regex=%5E{regex}%24")
}

fn not_taken(dump: &Value, awaited: Awaited<'_>) -> Option<String> {
    let Some(filter) = filter_of(dump) else {
        return Some("Envoy has no configuration of the filter".to_owned());
    };
    let document = filter::document_text(filter)
        .and_then(|text| serde_json::from_str::<Value>(text).ok())
        .unwrap_or_default();
    let address = document
        .get("intercepts")
        .and_then(|intercepts| intercepts.get(awaited.name))
        .and_then(|intercept| intercept.get("address"))
        .and_then(Value::as_str);
    (address != awaited.address).then(|| match error_of(dump) {
        Some(error) => format!("Envoy refused the filter's configuration: {error}"),
        None => "Envoy has not taken the filter's configuration".to_owned(),
    })
}

fn entry(dump: &Value) -> Option<&Value> {
    dump.get("configs")?.as_array()?.iter().find(|config| {
        config.pointer("/ecds_filter/name").and_then(Value::as_str) == Some(filter::NAME)
    })
}

fn filter_of(dump: &Value) -> Option<&Value> {
    entry(dump)?.pointer("/ecds_filter/typed_config")
}

fn error_of(dump: &Value) -> Option<&str> {
    entry(dump)?.pointer("/error_state/details")?.as_str()
}

fn names<'d>(dump: &'d Value, pointer: &'d str) -> impl Iterator<Item = &'d str> {
    let configs = dump.get("configs").and_then(Value::as_array);
    configs
        .into_iter()
        .flatten()
        .filter_map(move |config| config.pointer(pointer)?.as_str())
}

/// A dump with nothing in it is not an error here; a client asks too early.
async fn get(
    requests: &mut SendRequest<Empty<Bytes>>,
    admin: SocketAddr,
    path: &str,
) -> anyhow::Result<Value> {
    let request = Request::get(path)
        .header(header::HOST, admin.to_string())
        .body(Empty::new())?;
    let response = requests.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    match status {
        StatusCode::OK => Ok(serde_json::from_slice(&body)?),
        StatusCode::NOT_FOUND => Ok(Value::Null),
        other => anyhow::bail!("{path}: {other}: {}", String::from_utf8_lossy(&body).trim()),
    }
}
