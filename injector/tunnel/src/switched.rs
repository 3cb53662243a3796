//! A switched connection as the body of a request or response.
//!
//! Inside the tunnel both directions are ordinary bodies that block,
//! end and are reset like any other. Knows nothing of their contents.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, ReadBuf, ReadHalf, WriteHalf, split};
use tokio::sync::oneshot;

use super::BoxError;
use super::tasks::Upload;

const BUFFER: usize = 16 * 1024;

type Connection = TokioIo<Upgraded>;

/// The peer's direction of a connection, once it has switched; empty if it never does.
pub(super) struct Said {
    half: Half,
    buffer: Box<[u8]>,
    upload: Arc<Upload>,
}

enum Half {
    /// The switch → the body.
    Waiting(oneshot::Receiver<ReadHalf<Connection>>),
    Open(ReadHalf<Connection>),
}

/// Passes a switched connection to its [`Said`].
pub(super) struct Switch(oneshot::Sender<ReadHalf<Connection>>);

/// A body, and the handle that it waits for. `upload` is notified of the body's end.
pub(super) fn said(upload: Arc<Upload>) -> (Switch, Said) {
    let (switch, waiting) = oneshot::channel();
    let said = Said {
        half: Half::Waiting(waiting),
        buffer: vec![0; BUFFER].into(),
        upload,
    };
    (Switch(switch), said)
}

impl Switch {
    /// Waits for the switch, and returns the other direction. `None` if the connection ended first.
    pub(super) async fn done(self, upgrade: OnUpgrade) -> Option<WriteHalf<Connection>> {
        let (read, write) = split(TokioIo::new(upgrade.await.ok()?));
        self.0.send(read).ok()?;
        Some(write)
    }
}

impl HttpBody for Said {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self {
            half,
            buffer,
            upload,
        } = self.get_mut();
        upload.sending();
        if let Half::Waiting(waiting) = half {
            match ready!(Pin::new(waiting).poll(cx)) {
                Ok(read) => *half = Half::Open(read),
                Err(_) => return Poll::Ready(None),
            }
        }
        let Half::Open(read) = half else {
            return Poll::Ready(None);
        };
        let mut buffer = ReadBuf::new(buffer);
        let result = ready!(Pin::new(read).poll_read(cx, &mut buffer));
        if result.is_err() || buffer.filled().is_empty() {
            upload.ended();
        }
        result?;
        let data = (!buffer.filled().is_empty()).then(|| Bytes::copy_from_slice(buffer.filled()));
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }
}
