//! Sends one request through a tunnel, and returns its response or the reason for having none.
//!
//! Knows nothing of data ports.

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::outbound::Outbound;
use super::registry::{Stream, Tunnel};
use crate::marks::{self, Unavailable};
use crate::stream::Notes;
use crate::tasks::Upload;
use crate::{Body, with_causes};

/// Why there is no response.
pub(super) enum Failure {
    /// Not a byte of the request was sent; returned for another attempt.
    NotSent(Box<Request<Body>>),
    /// The other end declares that it did not process the request.
    NeverProcessed,
    /// The other end may have processed it.
    Lost(String),
}

impl Failure {
    pub(super) fn answer(self, grpc: bool) -> Response<Body> {
        match self {
            Self::NotSent(_) => Unavailable::NotSent.answer(),
            Self::NeverProcessed => Unavailable::Refused.answer(),
            Self::Lost(reason) => marks::lost(&reason, grpc),
        }
    }
}

pub(super) async fn send(
    tunnel: &Tunnel,
    request: Request<Body>,
) -> Result<Response<Incoming>, Failure> {
    let Some(mut sender) = tunnel.sender() else {
        return Err(Failure::NotSent(Box::new(request)));
    };
    let sent = sender.try_send_request(request);
    // See [`Tunnel::drive`].
    drop(sender);
    sent.await
        .map_err(|mut failed| match failed.take_message() {
            Some(request) => Failure::NotSent(Box::new(request)),
            None if marks::was_never_processed(failed.error()) => Failure::NeverProcessed,
            None => Failure::Lost(format!(
                "the tunnel to the developer machine broke: {}",
                with_causes(failed.error())
            )),
        })
}

/// The response for Envoy. Holds its stream until the body has ended.
pub(super) fn pass_on(
    response: Response<Incoming>,
    tunnel: &Tunnel,
    stream: Stream,
    upload: &Arc<Upload>,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    // Notes are not for the client; the length moves back into its header.
    Notes::take(&mut parts.headers);
    marks::keep_valid(parts.status, &mut parts.headers, &tunnel.served_by);
    parts.version = http::Version::HTTP_11;
    let body = Outbound::new(body, stream, Arc::clone(upload)).boxed_unsync();
    Response::from_parts(parts, body)
}
