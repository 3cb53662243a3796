//! JSON over HTTP/1.1, from a relay's control port or from Envoy's admin interface.

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use crate::BoxError;

/// The largest response, in bytes.
///
/// Envoy's dump of a filter with 1 000 intercepts is smaller than 1 MiB.
const LIMIT: usize = 16 << 20;

/// Why a request returned no JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The connection failed, or the peer does not speak HTTP/1.1.
    #[error(transparent)]
    Connection(#[from] hyper::Error),
    /// The path is not valid in a request.
    #[error(transparent)]
    Path(#[from] http::Error),
    /// The response ended early, or is larger than 16 MiB.
    #[error("{path}: {reason}")]
    Body {
        /// The request's path.
        path: String,
        /// What is wrong with the body.
        reason: BoxError,
    },
    /// A status other than 200 and 404.
    #[error("{path}: {status}: {text}")]
    Status {
        /// The request's path.
        path: String,
        /// The response's status.
        status: StatusCode,
        /// The response's body.
        text: String,
    },
    /// The response is not JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// A connection for several requests, one after the other.
#[derive(Debug)]
pub struct JsonClient {
    requests: SendRequest<Empty<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl JsonClient {
    /// Starts HTTP/1.1 on this connection. Needs a tokio runtime.
    pub async fn new<S>(stream: S) -> Result<Self, JsonError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (requests, connection) = handshake(TokioIo::new(stream)).await?;
        Ok(Self {
            requests,
            connection: tokio::spawn(connection),
        })
    }

    /// The response to one request; `Null` for a 404.
    pub async fn get(&mut self, path: &str) -> Result<Value, JsonError> {
        self.send(Request::get(path), path).await
    }

    /// Like [`Self::get`], for the last request.
    ///
    /// Envoy's admin interface closes some connections after a response.
    pub async fn get_last(mut self, path: &str) -> Result<Value, JsonError> {
        let request = Request::get(path).header(header::CONNECTION, "close");
        self.send(request, path).await
    }

    async fn send(
        &mut self,
        request: http::request::Builder,
        path: &str,
    ) -> Result<Value, JsonError> {
        let request = request
            .header(header::HOST, "localhost")
            .body(Empty::<Bytes>::new())?;
        self.requests.ready().await?;
        let response = self.requests.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LIMIT).collect().await;
        let path = path.to_owned();
        let body = match body {
            Ok(body) => body.to_bytes(),
            Err(reason) => return Err(JsonError::Body { path, reason }),
        };
        match status {
            StatusCode::OK => Ok(serde_json::from_slice(&body)?),
            StatusCode::NOT_FOUND => Ok(Value::Null),
            status => {
                let text = String::from_utf8_lossy(&body).trim().to_owned();
                Err(JsonError::Status { path, status, text })
            }
        }
    }
}

impl Drop for JsonClient {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
