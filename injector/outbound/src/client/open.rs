//! Single requests on an HTTP/2 connection.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response};

use crate::chunk::Chunk;

/// Sends a request and waits for the head of its response. `body`: all of it; a CONNECT has none, and stays open. Dropped before, it resets the stream.
pub(super) async fn request(
    requests: SendRequest<Chunk>,
    request: Request<()>,
    body: Option<Bytes>,
) -> Result<(Response<RecvStream>, SendStream<Chunk>), h2::Error> {
    let stays_open = request.method() == Method::CONNECT;
    let mut requests = requests.ready().await?;
    let has_body = body.is_some() || stays_open;
    let (response, stream) = requests.send_request(request, !has_body)?;
    // Each handle that waits takes part in h2's count of streams.
    drop(requests);
    let mut stream = ResetOnDrop(Some(stream));
    if let (Some(body), Some(stream)) = (body, &mut stream.0) {
        stream.send_data(Chunk::from(body), true)?;
    }
    let response = response.await?;
    match stream.0.take() {
        Some(stream) => Ok((response, stream)),
        None => Err(Reason::INTERNAL_ERROR.into()),
    }
}

/// A request whose caller has given up.
struct ResetOnDrop(Option<SendStream<Chunk>>);

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.0 {
            stream.send_reset(Reason::CANCEL);
        }
    }
}

/// The whole body; `None` where it breaks off or is larger than `limit` bytes.
pub(super) async fn body(mut stream: RecvStream, limit: usize) -> Option<Bytes> {
    let mut whole = BytesMut::new();
    while let Some(bytes) = poll_fn(|cx| stream.poll_data(cx)).await {
        let bytes = bytes.ok()?;
        stream.flow_control().release_capacity(bytes.len()).ok()?;
        whole.extend_from_slice(&bytes);
        if whole.len() > limit {
            return None;
        }
    }
    Some(whole.freeze())
}
