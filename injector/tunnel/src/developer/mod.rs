//! The developer machine's end: dials out to the relay, serves what comes through the tunnel from the developer's own server, and comes back whenever the
//! tunnel is lost, for as long as it lives.

mod body;
mod connect;
mod dial;
mod event;
mod hold;
mod keeper;
mod line;
mod local;
mod machine;
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

/// Keeps a tunnel open until `shutdown` is ready, then takes nothing new and lets running requests end.
/// The first [`Event::Up`] says that requests come through.
///
/// # Errors
/// Only what no further attempt can change, see [`TunnelError`].
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
