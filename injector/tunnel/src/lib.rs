//! The tunnel: HTTP/2 with reversed roles.
//!
//! A developer machine opens one connection to the relay and upgrades it; then the relay is the HTTP/2 *client* and the developer machine the *server*, and each
//! intercepted request is one stream. Multiplexing, flow control, cancellation, trailers and "not processed" come from the standard, hyper and h2.
//!
//! This crate owns both ends and their protocol. It knows nothing of Kubernetes, of the filter's configuration or of the command line: the caller
//! provides the listeners, the connection to the relay, and the shutdown signal.
//!
//! What the marks on a response promise to Envoy is in [`marks`].

mod beat;
mod body;
pub mod developer;
mod headers;
pub mod http_json;
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

pub use body::with_causes;
use body::{Body, BoxError, Guarded, empty_body, text_body};
pub use headers::{ADDRESS, CLUSTER};
pub use protocol::VERSION;
pub use secret::{Address, InvalidSecret, Secret};
pub use settings::Tempo;
