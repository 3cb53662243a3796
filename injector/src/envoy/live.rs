//! Whether Envoy has taken a change, asked of its admin interface.
//!
//! Envoy hands a configuration to its workers before it shows it here, so a request sent after [`Live::Verified`] is decided by the new one.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use crate::ask::Asked;
use crate::manifest::facts::Workload;
use crate::manifest::filter;
use crate::model::Live;

/// Between two looks. Envoy takes a change in 9 to 52 ms.
const PAUSE: Duration = Duration::from_millis(3);

/// The part of Envoy's configuration that comes by extension config discovery.
const FILTERS: &str = "/config_dump?resource=ecds_filters";

/// The version of it that Envoy runs.
const ACCEPTED: &str = "/stats?format=json&type=TextReadouts&filter=^extension_config_discovery.http_filter.intercept.version_text$";

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

/// Ends with an error only if there is nobody to ask.
async fn ask(admin: SocketAddr, awaited: Awaited<'_>, why: &mut String) -> io::Result<()> {
    TcpStream::connect(admin).await?;
    loop {
        match missing(admin, awaited).await {
            Ok(None) => return Ok(()),
            Ok(Some(reason)) => *why = reason,
            Err(error) => *why = format!("{admin}: {error}"),
        }
        sleep(PAUSE).await;
    }
}

/// What Envoy does not have yet.
async fn missing(admin: SocketAddr, awaited: Awaited<'_>) -> anyhow::Result<Option<String>> {
    let filters = get(admin, FILTERS).await?;
    if !is_there(&filters, awaited) {
        return Ok(Some(
            "Envoy has not taken the filter's configuration".to_owned(),
        ));
    }
    // The dump shows what Envoy received; only the statistics say whether that was accepted.
    if accepted_version(&get(admin, ACCEPTED).await?) != entry(&filters).and_then(version) {
        return Ok(Some(
            "Envoy refused the filter's configuration (its log says why)".to_owned(),
        ));
    }
    let Some(cluster) = awaited.cluster else {
        return Ok(None);
    };
    let clusters = get(admin, &cluster_path(cluster)).await?;
    let is_there = names(&clusters, "/cluster/name").any(|name| name == cluster);
    Ok((!is_there).then(|| format!("Envoy has not taken the cluster {cluster}")))
}

/// Envoy takes a regex; a name is made of letters, digits, `-` and the `|` of our prefix.
pub fn cluster_path(cluster: &str) -> String {
    let regex = cluster.replace('|', "%5C%7C");
    format!("/config_dump?resource=dynamic_active_clusters&name_regex=%5E{regex}%24")
}

fn is_there(filters: &Value, awaited: Awaited<'_>) -> bool {
    let Some(filter) = entry(filters).and_then(|entry| entry.pointer("/ecds_filter/typed_config"))
    else {
        return false;
    };
    let document = filter::document_text(filter)
        .and_then(|text| serde_json::from_str::<Value>(text).ok())
        .unwrap_or_default();
    let address = document
        .get("intercepts")
        .and_then(|intercepts| intercepts.get(awaited.name)?.get("address")?.as_str());
    address == awaited.address
}

fn entry(filters: &Value) -> Option<&Value> {
    let is_ours = |config: &&Value| {
        config.pointer("/ecds_filter/name").and_then(Value::as_str) == Some(filter::NAME)
    };
    filters.get("configs")?.as_array()?.iter().find(is_ours)
}

fn version(entry: &Value) -> Option<&str> {
    entry.get("version_info")?.as_str()
}

fn accepted_version(stats: &Value) -> Option<&str> {
    stats.pointer("/stats/0/value")?.as_str()
}

/// The texts at `pointer` in each part of a dump.
pub fn names<'d>(dump: &'d Value, pointer: &'d str) -> impl Iterator<Item = &'d str> {
    let configs = dump.get("configs").and_then(Value::as_array);
    configs
        .into_iter()
        .flatten()
        .filter_map(move |config| config.pointer(pointer)?.as_str())
}

/// A connection per question: Envoy's admin interface closes some after an answer, and then a second question would be lost.
/// A dump with nothing in it is not an error here.
async fn get(admin: SocketAddr, path: &str) -> anyhow::Result<Value> {
    let stream = TcpStream::connect(admin).await?;
    Asked::over(stream).await?.get_last(path).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::manifest::facts::{Module, Relay, WORKLOAD_VERSION};

    /// Enough for a few looks on a machine that is busy with other things.
    const SHORT: Duration = Duration::from_secs(1);
    const LONG: Duration = Duration::from_secs(10);

    /// An Envoy that received version 3 with one intercept, runs `accepted`, and has these clusters.
    fn answers(
        accepted: &'static str,
        clusters: &'static [&'static str],
    ) -> impl Fn(&str) -> Value {
        move |path| {
            if path.starts_with("/stats") {
                return json!({"stats": [{"name": "extension_config_discovery.http_filter.intercept.version_text", "value": accepted}]});
            }
            if path.contains("dynamic_active_clusters") {
                let clusters = clusters.iter();
                return json!({"configs": clusters.map(|name| json!({"cluster": {"name": name}})).collect::<Vec<_>>()});
            }
            let document =
                json!({"version": 1, "intercepts": {"bob": {"address": "aa"}}}).to_string();
            json!({"configs": [
                {"ecds_filter": {"name": "another"}},
                {"version_info": "3", "ecds_filter": {"name": "intercept", "typed_config": {"config": {"configuration": {"value": document}}}}},
            ]})
        }
    }

    /// Answers every connection's one question, and closes it.
    async fn admin(answer: impl Fn(&str) -> Value + Send + Sync + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let mut head = vec![0; 4096];
                    let length = stream.read(&mut head).await.unwrap_or(0);
                    let head = String::from_utf8_lossy(&head[..length]).into_owned();
                    let Some(path) = head.split_whitespace().nth(1) else {
                        return;
                    };
                    let body = answer(path).to_string();
                    let text = format!(
                        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    let _ = stream.write_all(text.as_bytes()).await;
                });
            }
        });
        address
    }

    fn workload(admin: Option<SocketAddr>) -> Workload {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 1));
        Workload {
            version: WORKLOAD_VERSION,
            name: "orders".to_owned(),
            ports: Vec::new(),
            relay: Relay {
                data: anywhere,
                control: anywhere,
                outbound: None,
            },
            module: Module::new("/filter.wasm".into(), b""),
            limits: intercept_core::Limits::default(),
            admin,
        }
    }

    const BOB: Awaited<'static> = Awaited {
        name: "bob",
        address: Some("aa"),
        cluster: Some("intercept|bob"),
    };

    async fn why(
        answer: impl Fn(&str) -> Value + Send + Sync + 'static,
        awaited: Awaited<'_>,
    ) -> String {
        let admin = admin(answer).await;
        match wait(&workload(Some(admin)), awaited, SHORT).await {
            Live::NotVerified { why } => why,
            Live::Verified => "verified".to_owned(),
        }
    }

    #[tokio::test]
    async fn an_intercept_is_live_once_its_entry_is_accepted_and_its_cluster_there() {
        let admin = admin(answers("3", &["intercept|bob"])).await;
        let live = wait(&workload(Some(admin)), BOB, LONG).await;
        assert_eq!(live, Live::Verified);
    }

    #[tokio::test]
    async fn what_envoy_received_and_refused_is_not_live() {
        let why = why(answers("2", &["intercept|bob"]), BOB).await;
        assert!(why.starts_with("Envoy refused"), "{why}");
    }

    #[tokio::test]
    async fn an_intercept_without_its_cluster_is_not_live() {
        let why = why(answers("3", &["intercept|bobby"]), BOB).await;
        assert!(
            why.starts_with("Envoy has not taken the cluster intercept|bob"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn another_tunnels_entry_of_the_same_name_is_not_ours() {
        let awaited = Awaited {
            address: Some("bb"),
            ..BOB
        };
        let why = why(answers("3", &["intercept|bob"]), awaited).await;
        assert!(
            why.starts_with("Envoy has not taken the filter's configuration"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn an_intercept_is_gone_when_envoy_has_none_of_the_name() {
        let gone = Awaited {
            name: "alice",
            address: None,
            cluster: None,
        };
        let admin = admin(answers("3", &[])).await;
        assert_eq!(
            wait(&workload(Some(admin)), gone, LONG).await,
            Live::Verified
        );
        let still = Awaited {
            name: "bob",
            ..gone
        };
        assert!(
            why(answers("3", &[]), still)
                .await
                .starts_with("Envoy has not taken")
        );
    }

    #[tokio::test]
    async fn nobody_to_ask_is_said_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let started = Instant::now();
        for admin in [Some(address), None] {
            let live = wait(&workload(admin), BOB, LONG).await;
            assert!(matches!(live, Live::NotVerified { .. }), "{live:?}");
        }
        assert!(started.elapsed() < LONG / 2);
    }
}
