//! The tunnel: HTTP/2 turned round. A developer machine opens one connection to the relay and upgrades it; then the relay is the HTTP/2 *client* and the
//! developer machine the *server*, and each intercepted request is one stream. Multiplexing, flow control, cancellation, trailers and "not processed" come
//! from the standard, and from hyper and h2, not from here.
//!
//! This module owns both ends and the words they share. It knows nothing of Kubernetes, of the filter's configuration or of the command line: whoever calls it
//! brings the listeners, the way to reach the relay, and the moment to stop.
//!
//! What the marks on an answer promise to Envoy is in [`marks`].

mod beat;
pub mod developer;
mod headers;
mod liveness;
pub mod marks;
mod memory;
pub mod presence;
mod protocol;
mod pulse;
pub mod relay;
pub mod relay_end;
mod secret;
mod settings;
mod stream;
mod switched;
mod tasks;

pub use headers::{ADDRESS, CLUSTER};
pub use protocol::VERSION;
pub use secret::{Address, InvalidSecret, Secret};
pub use settings::Tempo;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

/// Any error a body can end with: it is only ever shown, or turned into a reset of the stream.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The one body type on our side of hyper.
type Body = UnsyncBoxBody<Bytes, BoxError>;

fn empty_body() -> Body {
    http_body_util::Empty::new()
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn text_body(text: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(text.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Says an error with its causes: hyper's own text alone is often no more than "connection error".
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
