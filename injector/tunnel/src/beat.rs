//! What an end of a tunnel sends to show that it lives: an HTTP/2 frame of a type that no standard defines, every half second, between the frames of the library.
//!
//! A receiver must ignore and discard it (RFC 9113 §4.1, §5.5), so it has no stream, no flow control and no answer, and neither end's library counts it.
//! What h2 0.4.20 does count of a peer's frames, per connection, and why ordinary use cannot spend it:
//!
//! | h2 counts | up to | what could spend it, and what keeps it from doing so |
//! |---|---|---|
//! | empty DATA frames without END_STREAM (`num_recv_empty_data_frames`), for ever | 100 | beats were such frames: every tunnel ended after 200 s. Nothing sends them now: h2 drops those of a client's or a server's before they reach us |
//! | DATA frames below 256 bytes that are not read yet (`data_frame_budget`), by what they lack of 256 | half the connection window in bytes | small messages that come faster than they are read: connection windows are as large as they can be |
//! | frames for a stream that was reset and is forgotten (`max_local_error_reset_streams`), for ever | 1 024, here no limit | downloads that clients give up, uploads that are answered early: what was on the way arrives after the reset. 50 streams are remembered, for a second |
//! | streams that are reset before they were accepted (`max_pending_accept_reset_streams`), at the moment | 20, here [`super::settings::PENDING_RESETS`] | requests that are given up while this end stands still |
//! | CONTINUATION frames of one header list | 5 or more, by its largest size | header lists above [`super::settings::HEADER_LIST`] are answered before they are sent |
//! | stream numbers (RFC 9113 §5.1.1), for ever | 2³⁰ | a thousand requests a second for twelve days: a tunnel is followed by a new one long before, see [`super::Tempo::requests`] |
//!
//! PING, SETTINGS, RST_STREAM, WINDOW_UPDATE and GOAWAY are not counted. hyper's own keep-alive is of no use here: it sends no PING while anything is read, nor
//! before the last one is answered, which may stand in a queue behind a bulk upload. A request per beat would do, and costs a stream's life at each end,
//! and only the relay could begin one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// Length 0, a type of those for experiments (RFC 9113 §11.2), no flags, stream 0.
const FRAME: [u8; HEAD] = [0, 0, 0, 0xfb, 0, 0, 0, 0, 0];
const HEAD: usize = 9;
/// What a client sends before its first frame (RFC 9113 §3.4).
const PREFACE: usize = 24;

const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Follows what the library writes, to know where another frame may stand.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; HEAD],
    /// Bytes of the head that have passed.
    seen: usize,
    /// Bytes of the payload, or of the preface, that have not.
    left: usize,
    /// Nothing may stand before the first frame, nor inside a header list (RFC 9113 §3.4, §6.10).
    may_follow: bool,
}

impl Frames {
    /// Those of the end that opens the streams.
    pub(super) fn of_client() -> Self {
        Self {
            left: PREFACE,
            ..Self::of_server()
        }
    }

    /// Those of the other end.
    pub(super) fn of_server() -> Self {
        Self {
            head: [0; HEAD],
            seen: 0,
            left: 0,
            may_follow: false,
        }
    }

    /// These bytes have been written.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let into_head = if self.left > 0 {
                0
            } else {
                (HEAD - self.seen).min(bytes.len())
            };
            let (head, rest) = bytes.split_at(into_head);
            self.head[self.seen..self.seen + into_head].copy_from_slice(head);
            self.seen += into_head;
            if self.seen == HEAD {
                self.begin();
            }
            let passed = self.left.min(rest.len());
            self.left -= passed;
            bytes = &rest[passed..];
        }
    }

    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        self.seen = 0;
        self.left = u32::from_be_bytes([0, a, b, c]) as usize;
        let is_of_list = matches!(kind, HEADERS | PUSH_PROMISE | CONTINUATION);
        self.may_follow = !is_of_list || flags & END_HEADERS != 0;
    }

    fn is_between(&self) -> bool {
        self.may_follow && self.seen == 0 && self.left == 0
    }
}

/// The beat that is due, if one is.
#[derive(Debug, Default)]
pub(super) struct Beat(&'static [u8]);

impl Beat {
    /// One more; the one before counts for it if it could not be sent yet.
    pub(super) fn is_due(&mut self) {
        if self.0.is_empty() {
            self.0 = &FRAME;
        }
    }

    /// Sends what may be sent. Ready when the library may write.
    pub(super) fn poll_send<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        frames: &Frames,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.0.is_empty() && frames.is_between() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, self.0))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.0 = &self.0[written..];
            if self.0.is_empty() {
                let _ = Pin::new(&mut *io).poll_flush(cx)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(vec![9; length]);
        frame
    }

    /// After which bytes of these frames another one may stand, read in pieces of `size`.
    fn places(mut frames: Frames, bytes: &[u8], size: usize) -> Vec<usize> {
        let mut places = Vec::new();
        let mut at = 0;
        for piece in bytes.chunks(size) {
            frames.follow(piece);
            at += piece.len();
            if frames.is_between() {
                places.push(at);
            }
        }
        places
    }

    #[test]
    fn beats_stand_between_frames_only() {
        let settings = frame(4, 0, 6);
        let data = frame(0, 0, 20_000);
        let bytes = [settings, data, frame(8, 0, 4), frame(0, 1, 0)].concat();
        let ends = [15, 15 + 20_009, 15 + 20_009 + 13, bytes.len()];
        assert_eq!(places(Frames::of_server(), &bytes, 1), ends);
        for size in [2, 3, 7, 9, 10, 1_000, 16_384, bytes.len()] {
            for place in places(Frames::of_server(), &bytes, size) {
                assert!(ends.contains(&place), "{place} in pieces of {size}");
            }
        }
        let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &bytes[..]].concat();
        let after_preface = ends.map(|end| end + PREFACE);
        assert_eq!(places(Frames::of_client(), &preface, 1), after_preface);
    }

    #[test]
    fn no_beat_stands_inside_a_header_list() {
        let settings = frame(4, 0, 0);
        let list = [
            frame(HEADERS, 0, 30),
            frame(CONTINUATION, 0, 30),
            frame(CONTINUATION, END_HEADERS, 30),
        ]
        .concat();
        let bytes = [&settings[..], &list].concat();
        assert_eq!(
            places(Frames::of_server(), &bytes, 1),
            [settings.len(), bytes.len()]
        );
    }
}
