//! Local connections opened ahead of their request.
//!
//! The client holds its body back until a `100 Continue`.
//!
//! The response to the relay's question keeps each one open: that response has an endless body, and dropping it (the relay cancelled, or is gone) closes
//! the connection, unless the request has taken it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use tokio::net::TcpStream;

use crate::stream::Notes;
use crate::{Body, BoxError};

/// Connections that wait for their request.
#[derive(Clone, Default)]
pub(super) struct Held(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    next: u64,
    connections: HashMap<u64, TcpStream>,
}

impl Held {
    /// The response that keeps this connection open.
    pub(super) fn hold(&self, connection: TcpStream) -> Response<Body> {
        let mut waiting = self.lock();
        let id = waiting.next;
        waiting.next += 1;
        waiting.connections.insert(id, connection);
        drop(waiting);
        let hold = Hold {
            held: self.clone(),
            id,
        };
        let mut response = Response::new(hold.boxed_unsync());
        let notes = Notes {
            held: Some(id),
            ..Notes::default()
        };
        notes.write(response.headers_mut());
        response
    }

    /// Takes the connection with this number, if it is still there.
    pub(super) fn take(&self, id: u64) -> Option<TcpStream> {
        self.lock().connections.remove(&id)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Hold {
    held: Held,
    id: u64,
}

impl HttpBody for Hold {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Pending
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.lock().connections.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn held_connection_is_taken_once() {
        let held = Held::default();
        let (near, far) = pair().await;
        let mut answer = held.hold(near);
        let id = Notes::take(answer.headers_mut()).held.unwrap();
        let taken = held.take(id).unwrap();
        assert_eq!(taken.peer_addr().unwrap(), far.local_addr().unwrap());
        assert!(held.take(id).is_none());
    }

    #[tokio::test]
    async fn held_connection_closes_with_its_response() {
        let held = Held::default();
        let (near, mut far) = pair().await;
        let mut answer = held.hold(near);
        let id = Notes::take(answer.headers_mut()).held.unwrap();
        drop(answer);
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        assert!(held.take(id).is_none());
    }
}
