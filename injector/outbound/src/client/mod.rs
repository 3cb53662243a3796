//! The developer's end: keeps a connection to the cluster's end, and opens connections into the cluster on it.

mod connect;
mod event;
mod keeper;
mod open;
mod state;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use h2::RecvStream;
use http::{Method, Request, Response, StatusCode, Uri, header};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

pub use self::connect::{Connect, Connecting, Stream};
pub use self::event::Event;
use self::state::{AbortOnDrop, Live, State};
use crate::config::ClusterConfig;
use crate::connection::Connection;
use crate::dial::{Destination, DialError};
use crate::hello::Hello;
use crate::settings::{DIAL, DNS_MESSAGE, RECONNECT, Tempo};
use crate::words::{DIAL_HEADER, DNS_PATH, DNS_TYPE, REASON_HEADER};

/// Why a DNS question has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// No connection to the cluster's end.
    #[error("the cluster cannot be reached")]
    Away,
    /// The cluster's resolvers did not answer.
    #[error("the cluster's resolvers do not answer")]
    NoAnswer,
}

/// Opens connections into the cluster. Cheap to clone; the last one that is dropped ends the connection.
#[derive(Clone)]
pub struct Client {
    live: watch::Receiver<State>,
    events: mpsc::Sender<Event>,
    _keeper: Arc<AbortOnDrop<()>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Starts to connect, and goes on for as long as there is a clone. Needs a runtime. Events that are not read are dropped.
    pub fn start(
        hello: Hello,
        connect: Connect,
        tempo: Tempo,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let (live_tx, live) = watch::channel(State::Away);
        let keeper = keeper::keep(hello, connect, tempo, live_tx, events.clone());
        Self {
            live,
            events,
            _keeper: Arc::new(AbortOnDrop(tokio::spawn(keeper))),
        }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Why the cluster's end could not; [`DialError::Unreachable`] also where there is no connection to that within [`RECONNECT`].
    pub async fn dial(&self, destination: &Destination) -> Result<Connection, DialError> {
        let live = self.live().await.ok_or(DialError::Unreachable)?;
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        let uri = Uri::builder().authority(destination.to_string()).build();
        *request.uri_mut() = uri.map_err(|_| DialError::Unknown)?;
        // The other end's time-out comes first: a stream that is reset says nothing.
        let answered = timeout(
            DIAL + RECONNECT,
            open::request(live.requests, request, None),
        )
        .await;
        let answered = answered.map_err(|_| DialError::Timeout)?;
        let (response, stream) = answered.map_err(|_| DialError::Unreachable)?;
        if response.status() == StatusCode::OK {
            return Ok(Connection::new(response.into_body(), stream, None));
        }
        Err(self.refused(destination, &response))
    }

    fn refused(&self, destination: &Destination, response: &Response<RecvStream>) -> DialError {
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let error = header(DIAL_HEADER).and_then(DialError::parse);
        let error = error.unwrap_or(DialError::Unreachable);
        if error == DialError::Denied {
            let _ = self.events.try_send(Event::Denied {
                destination: destination.to_string(),
                reason: header(REASON_HEADER).unwrap_or("not allowed").to_owned(),
            });
        }
        error
    }

    /// Asks the cluster's resolvers. Both are whole DNS messages without a length (RFC 8484).
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn dns(&self, message: Bytes) -> Result<Bytes, DnsError> {
        let live = self.live().await.ok_or(DnsError::Away)?;
        let request = Request::post(format!("http://outbound{DNS_PATH}"))
            .header(header::CONTENT_TYPE, DNS_TYPE)
            .body(())
            .map_err(|_| DnsError::NoAnswer)?;
        let asked = async {
            let (response, _stream) = open::request(live.requests, request, Some(message))
                .await
                .map_err(|_| DnsError::Away)?;
            match response.status() {
                StatusCode::OK => open::body(response.into_body(), DNS_MESSAGE).await,
                _ => None,
            }
            .ok_or(DnsError::NoAnswer)
        };
        timeout(DIAL, asked).await.map_err(|_| DnsError::NoAnswer)?
    }

    /// What the cluster's end says of its cluster; `None` where there is no connection to it within [`RECONNECT`].
    pub async fn config(&self) -> Option<Arc<ClusterConfig>> {
        Some(self.live().await?.config)
    }

    /// The connection, which may be some seconds away.
    async fn live(&self) -> Option<Live> {
        let mut states = self.live.clone();
        let known = timeout(
            RECONNECT,
            states.wait_for(|state| !matches!(state, State::Away)),
        );
        match &*known.await.ok()?.ok()? {
            State::Up(live) => Some(live.clone()),
            State::Away | State::Rejected => None,
        }
    }
}
