//! The developer's end of the tunnel.
//!
//! Dials the relay, passes requests to the developer's server, and reconnects whenever the tunnel is lost.

mod body;
mod connect;
mod dial;
mod event;
mod hold;
mod keeper;
mod line;
mod local;
mod machine;
mod pool;
mod serve;
mod serving;
mod session;
mod switch;
mod under_way;

use tokio::sync::mpsc;

pub use connect::{Connect, Connecting, Stream, Tcp};
pub use dial::{Dial, Dialling};
pub use event::{Event, RequestLine, RequestOutcome, TunnelError};
use keeper::Keeper;
pub use local::{Local, LocalProtocol};
pub use machine::Developer;
pub use under_way::UnderWay;

/// Keeps a tunnel open until `shutdown`, then only lets running requests end.
///
/// The first [`Event::Up`] means that requests arrive.
///
/// # Errors
/// Only permanent ones, see [`TunnelError`].
pub async fn run(
    developer: Developer,
    connect: impl Connect,
    events: mpsc::Sender<Event>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), TunnelError> {
    let grace = developer.grace;
    let mut keeper = Keeper::new(developer, events)?;
    let result = tokio::select! {
        error = keeper.keep(&connect) => Err(error),
        () = shutdown => Ok(()),
    };
    keeper.leave(grace).await;
    result
}
