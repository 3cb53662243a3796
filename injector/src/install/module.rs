//! The digest of the filter that the module server hands out: computed here, from what it hands out now.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use intercept_kube::{Cluster, kind};
use intercept_manifest::digest::sha256;
use intercept_manifest::istio::install::MODULE_PORT;
use intercept_manifest::istio::names;
use serde_json::Value;

use crate::error::{CliError, OrHint, Result};
use crate::module_server::PATH;
use crate::shell::quote;

/// No module is larger, in bytes.
const LARGEST: usize = 16 << 20;

/// How long it may take to hand it out.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The digest of what a module server in this namespace hands out, by way of a port-forward to one of its pods.
pub async fn served_sha256(cluster: &Cluster, namespace: &str) -> Result<String> {
    let hint = format!(
        "kubectl -n {} get pods -l app.kubernetes.io/name={}; or name the file it serves: --module filter.wasm",
        quote(namespace),
        names::MODULE
    );
    let labels = format!("app.kubernetes.io/name={}", names::MODULE);
    let pods = cluster
        .list(&kind::POD, Some(namespace), Some(&labels))
        .await?;
    let ready = pods.iter().find(|pod| is_ready(pod));
    let Some(pod) = ready.and_then(|pod| pod["metadata"]["name"].as_str()) else {
        let what = format!(
            "{}: expected a pod that is ready, found none of {}",
            names::MODULE,
            pods.len()
        );
        return Err(CliError::failed(what, hint));
    };
    let stream = cluster.connect_pod(namespace, pod, MODULE_PORT).await?;
    let bytes = tokio::time::timeout(TIMEOUT, get(stream)).await;
    let bytes = bytes.or_hint(pod, &hint)?.or_hint(pod, &hint)?;
    if !bytes.starts_with(b"\0asm") {
        return Err(CliError::failed(
            format!("{pod}: what it serves is no WebAssembly module"),
            hint,
        ));
    }
    Ok(sha256(&bytes))
}

async fn get<S>(stream: S) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = http::Request::get(PATH).header(http::header::HOST, names::MODULE);
    let response = sender
        .send_request(request.body(Empty::<Bytes>::new())?)
        .await?;
    if !response.status().is_success() {
        return Err(format!("{PATH}: expected 200, found {}", response.status()).into());
    }
    Ok(Limited::new(response.into_body(), LARGEST)
        .collect()
        .await?
        .to_bytes())
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
