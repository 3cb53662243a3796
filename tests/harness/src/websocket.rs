//! WebSockets: an echo for the app, and a client that can send its own headers.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::app::{ANSWERED_BY, BoxError};
use crate::endpoint::Endpoint;

/// Does this request open a WebSocket?
pub fn is_asked_for<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Accepts a WebSocket, and echoes every message until the peer closes.
pub fn echo(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, BoxError> {
    let key = request
        .headers()
        .get(SEC_WEBSOCKET_KEY)
        .ok_or("no sec-websocket-key")?;
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        let (to, from) = socket.split();
        // An error is a peer that disconnected.
        let _ = from
            .filter(|message| {
                let is_data = message
                    .as_ref()
                    .is_ok_and(|message| message.is_text() || message.is_binary());
                std::future::ready(is_data)
            })
            .forward(to)
            .await;
    });
    let mut response = Response::new(Empty::<Bytes>::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept)?);
    Ok(response)
}

/// An open WebSocket on the client's side.
#[derive(Debug)]
pub struct Socket {
    /// The response to the handshake.
    pub response: Response<()>,
    stream: WebSocketStream<TcpStream>,
}

impl Socket {
    /// Opens a WebSocket.
    pub async fn open(
        endpoint: impl Into<Endpoint>,
        headers: &[(&str, &str)],
    ) -> Result<Self, BoxError> {
        let endpoint = endpoint.into();
        let mut request = format!("ws://{}/socket", endpoint.authority()).into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().append(
                HeaderName::from_bytes(name.as_bytes())?,
                HeaderValue::from_str(value)?,
            );
        }
        let stream = endpoint.open().await?;
        let (stream, response) = tokio_tungstenite::client_async(request, stream).await?;
        Ok(Self {
            response: response.map(drop),
            stream,
        })
    }

    /// The name of the app that accepted it.
    pub fn answered_by(&self) -> &str {
        self.response.headers()[ANSWERED_BY]
            .to_str()
            .expect("a name is ASCII")
    }

    /// Sends a text and waits for the reply.
    pub async fn ask(&mut self, text: &str) -> Result<String, BoxError> {
        self.stream.send(Message::text(text)).await?;
        let message = self.stream.next().await.ok_or("closed")??;
        Ok(message.into_text()?.as_str().to_owned())
    }

    /// Reads until it ends. Breaking off without a closing handshake is an error.
    pub async fn ended(mut self) -> Result<(), BoxError> {
        while let Some(message) = self.stream.next().await {
            message?;
        }
        Ok(())
    }

    /// Closes it, and waits for the other side's close.
    pub async fn close(mut self) -> Result<(), BoxError> {
        self.stream.close(None).await?;
        while let Some(message) = self.stream.next().await {
            message?;
        }
        Ok(())
    }
}
