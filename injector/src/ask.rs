//! Questions over HTTP/1.1 that are answered in JSON, on a connection that somebody else opened: to Envoy's admin interface and to a relay's control port.

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

/// The largest answer that is read, in bytes: a filter's configuration with a thousand intercepts is less than one.
const LIMIT: usize = 16 << 20;

/// A connection on which several questions can be asked, one after the other.
#[derive(Debug)]
pub struct Asked {
    requests: SendRequest<Empty<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Asked {
    /// Begins. Needs a runtime.
    pub async fn over<S>(stream: S) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (requests, connection) = handshake(TokioIo::new(stream)).await?;
        Ok(Self {
            requests,
            connection: tokio::spawn(connection),
        })
    }

    /// The answer to one question; `Null` where there is nothing of the name.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        self.ask(Request::get(path), path).await
    }

    /// As [`Self::get`], and no further question. Envoy's admin interface closes some connections after an answer.
    pub async fn get_last(mut self, path: &str) -> anyhow::Result<Value> {
        let request = Request::get(path).header(header::CONNECTION, "close");
        self.ask(request, path).await
    }

    async fn ask(&mut self, request: http::request::Builder, path: &str) -> anyhow::Result<Value> {
        let request = request
            .header(header::HOST, "localhost")
            .body(Empty::<Bytes>::new())?;
        self.requests.ready().await?;
        let response = self.requests.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LIMIT).collect().await;
        let body = body
            .map_err(|error| anyhow::anyhow!("{path}: {error}"))?
            .to_bytes();
        match status {
            StatusCode::OK => Ok(serde_json::from_slice(&body)?),
            StatusCode::NOT_FOUND => Ok(Value::Null),
            other => anyhow::bail!("{path}: {other}: {}", String::from_utf8_lossy(&body).trim()),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
