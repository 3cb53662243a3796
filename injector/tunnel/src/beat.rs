//! Beats, which show that an end of a tunnel is alive.
//!
//! An HTTP/2 frame of an undefined type, sent every half second between the library's frames.
//!
//! A receiver must ignore and discard such a frame (RFC 9113 §4.1, §5.5), so it has no stream, no flow control and no answer, and neither end's library counts it.
//! h2 0.4.20 does count other frames of a peer, per connection. These are its limits, and why ordinary use does not reach them:
//!
//! | h2 counts | up to | what could reach the limit, and what prevents it |
//! |---|---|---|
//! | empty DATA frames without END_STREAM (`num_recv_empty_data_frames`), for ever | 100 | beats were such frames: every tunnel ended after 200 s. Nothing sends them now: h2 drops those of a client or a server before they reach us |
//! | unread DATA frames below 256 bytes (`data_frame_budget`), by the bytes they lack to 256 | half the connection window in bytes | small messages that arrive faster than they are read: connection windows are as large as possible |
//! | frames for a stream that was reset and forgotten (`max_local_error_reset_streams`), for ever | 1 024, here no limit | downloads that clients abort, uploads that are answered early: data on the way arrives after the reset. 50 streams are remembered, for a second |
//! | streams that are reset before they were accepted (`max_pending_accept_reset_streams`), at the moment | 20, here [`super::settings::PENDING_RESETS`] | requests that are cancelled while this end is stalled |
//! | CONTINUATION frames of one header list | 5 or more, by its largest size | header lists above [`super::settings::HEADER_LIST`] are answered before they are sent |
//! | stream numbers (RFC 9113 §5.1.1), for ever | 2³⁰ | a thousand requests a second for twelve days: a new tunnel replaces it long before, see [`super::Tempo::requests`] |
//!
//! PING, SETTINGS, RST_STREAM, WINDOW_UPDATE and GOAWAY are not counted. hyper's own keep-alive does not help: it sends no PING while anything is read, nor
//! before the last one is answered, which may be queued behind a bulk upload. A request per beat would work, but costs a stream's life at each end,
//! and only the relay could send one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// Length 0, an experimental type (RFC 9113 §11.2), no flags, stream 0.
const FRAME: [u8; HEAD] = [0, 0, 0, 0xfb, 0, 0, 0, 0, 0];
const HEAD: usize = 9;
/// Length of the client's connection preface, which precedes its first frame (RFC 9113 §3.4).
const PREFACE: usize = 24;

const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Tracks what the library writes, to know where another frame may be inserted.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; HEAD],
    /// Bytes of the frame head that have passed.
    seen: usize,
    /// Remaining bytes of the payload or of the preface.
    left: usize,
    /// No frame may precede the first one, or interrupt a header list (RFC 9113 §3.4, §6.10).
    may_follow: bool,
}

impl Frames {
    /// Frames of the client, the end that opens the streams.
    pub(super) fn of_client() -> Self {
        Self {
            left: PREFACE,
            ..Self::of_server()
        }
    }

    /// Frames of the server.
    pub(super) fn of_server() -> Self {
        Self {
            head: [0; HEAD],
            seen: 0,
            left: 0,
            may_follow: false,
        }
    }

    /// Records bytes that were written.
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

/// A beat that waits to be sent.
#[derive(Debug, Default)]
pub(super) struct Beat(&'static [u8]);

impl Beat {
    /// Schedules a beat, unless the previous one still waits.
    pub(super) fn is_due(&mut self) {
        if self.0.is_empty() {
            self.0 = &FRAME;
        }
    }

    /// Sends the beat where it may be sent. Ready when the library may write.
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

    /// The positions between frames, if the bytes are written in pieces of `size`.
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
