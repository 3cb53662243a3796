//! The pulse, a stream that carries the relay's signals about its tunnel.
//!
//! It lives as long as the tunnel.
//! Its end means that the developer machine takes no new requests. Knows neither registry nor sockets.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::BoxError;

/// The relay's signals, one byte each. Unknown bytes are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Requests for the address now come this way.
    Registered,
    /// Open another tunnel, this one only completes its requests.
    ///
    /// The relay is shutting down, or the stream numbers run out.
    RelayLeaving,
    /// Another program now holds the address.
    Replaced,
}

impl Signal {
    fn byte(self) -> u8 {
        match self {
            Self::Registered => b'U',
            Self::RelayLeaving => b'L',
            Self::Replaced => b'R',
        }
    }

    fn read(byte: u8) -> Option<Self> {
        [Self::Registered, Self::RelayLeaving, Self::Replaced]
            .into_iter()
            .find(|signal| signal.byte() == byte)
    }
}

/// One direction of the pulse. Ends when the channel's other end is dropped.
pub(super) struct Pulse(mpsc::Receiver<Signal>);

/// A direction of the pulse, and the channel that feeds it; signals → pulse: what to send.
pub(super) fn pulse() -> (mpsc::Sender<Signal>, Pulse) {
    let (signals_tx, signals) = mpsc::channel(4);
    (signals_tx, Pulse(signals))
}

impl HttpBody for Pulse {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx).map(|signal| {
            signal.map(|signal| Ok(Frame::data(Bytes::copy_from_slice(&[signal.byte()]))))
        })
    }
}

/// Reads the other direction to its end.
pub(super) async fn listen(mut body: Incoming, mut hear: impl AsyncFnMut(Signal)) {
    while let Some(Ok(frame)) = body.frame().await {
        let Some(bytes) = frame.data_ref() else {
            continue;
        };
        for signal in bytes.iter().copied().filter_map(Signal::read) {
            hear(signal).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pulse_ends_with_its_channel() {
        let (signals, mut pulse) = pulse();
        signals.send(Signal::Replaced).await.unwrap();
        let frame = pulse.frame().await.unwrap().unwrap();
        assert_eq!(
            Signal::read(frame.data_ref().unwrap()[0]),
            Some(Signal::Replaced)
        );
        drop(signals);
        assert!(pulse.frame().await.is_none());
    }
}
