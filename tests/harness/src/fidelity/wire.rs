//! Reads HTTP/1.1 from a socket without changes (RFC 9112).
//!
//! Repairs nothing, and accepts everything that can be framed.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::message::{End, Fields, Message};

/// A socket and its read-ahead.
pub(super) struct Wire<S> {
    pub(super) stream: S,
    pub(super) ahead: Vec<u8>,
}

/// How a body is delimited (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Nothing,
    Length(usize),
    Chunked,
    UntilClose,
}

impl Framing {
    /// The framing of a request.
    pub(super) fn of_request(head: &Message) -> Self {
        Self::declared(head).unwrap_or(Self::Nothing)
    }

    /// The framing of a response, which depends on whether the request was HEAD.
    pub(super) fn of_response(head: &Message, is_head: bool) -> Self {
        match head.status() {
            Some(100..=199 | 204 | 304) => Self::Nothing,
            _ if is_head => Self::Nothing,
            _ => Self::declared(head).unwrap_or(Self::UntilClose),
        }
    }

    fn declared(head: &Message) -> Option<Self> {
        if head.lists("transfer-encoding", "chunked") {
            return Some(Self::Chunked);
        }
        let length = std::str::from_utf8(head.field("content-length")?).ok()?;
        length.parse().ok().map(Self::Length)
    }
}

impl<S: AsyncRead + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        let ahead = Vec::new();
        Self { stream, ahead }
    }

    /// Reads once. `false` at the end of the connection.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        // In a small buffer with little room, it would read a large body in pieces of 64 bytes.
        self.ahead.reserve(64 * 1024);
        Ok(self.stream.read_buf(&mut self.ahead).await? > 0)
    }

    /// Reads a line without its CRLF; `None` if the connection ends first.
    async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut from = 0;
        loop {
            let found = self.ahead[from..].windows(2).position(|two| two == b"\r\n");
            if let Some(at) = found {
                let rest = self.ahead.split_off(from + at + 2);
                let mut line = std::mem::replace(&mut self.ahead, rest);
                line.truncate(from + at);
                return Ok(Some(line));
            }
            from = self.ahead.len().saturating_sub(1);
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Reads header lines up to the empty one.
    async fn fields(&mut self, fields: &mut Fields) -> io::Result<bool> {
        while let Some(line) = self.line().await? {
            if line.is_empty() {
                return Ok(true);
            }
            let colon = line.iter().position(|byte| *byte == b':');
            let (name, value) = line.split_at(colon.unwrap_or(line.len()));
            let value = value.strip_prefix(b":").unwrap_or_default();
            fields.push((name.to_vec(), value.to_vec()));
        }
        Ok(false)
    }

    /// Reads the next head into `message`. `false` if the connection ends first.
    pub(super) async fn head(&mut self, message: &mut Message) -> io::Result<bool> {
        let Some(start) = self.line().await? else {
            return Ok(false);
        };
        message.start = start;
        self.fields(&mut message.fields).await
    }

    /// Reads a body into `message`, and sets its end. On an error, the data before it stays.
    pub(super) async fn body(&mut self, framing: Framing, message: &mut Message) {
        let ended = match framing {
            Framing::Nothing => Ok(End::Whole(false)),
            Framing::Length(length) => self.bytes(length, message).await,
            Framing::Chunked => self.chunks(message).await,
            Framing::UntilClose => self.rest(message).await,
        };
        message.end = ended.unwrap_or(End::ConnectionReset);
    }

    async fn bytes(&mut self, mut left: usize, message: &mut Message) -> io::Result<End> {
        loop {
            let rest = self.ahead.split_off(left.min(self.ahead.len()));
            left -= self.ahead.len();
            message.body.append(&mut self.ahead);
            self.ahead = rest;
            if left == 0 {
                return Ok(End::Whole(false));
            }
            if !self.fill().await? {
                return Ok(End::Closed);
            }
        }
    }

    async fn chunks(&mut self, message: &mut Message) -> io::Result<End> {
        loop {
            let Some(line) = self.line().await? else {
                return Ok(End::Closed);
            };
            let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit());
            let (digits, extension) = line.split_at(digits.unwrap_or(line.len()));
            message.extensions.extend_from_slice(extension);
            let digits = std::str::from_utf8(digits).unwrap_or_default();
            let Ok(size) = usize::from_str_radix(digits, 16) else {
                return Ok(End::Garbled);
            };
            if size == 0 {
                let whole = self.fields(&mut message.trailers).await?;
                return Ok(if whole {
                    End::Whole(false)
                } else {
                    End::Closed
                });
            }
            match self.bytes(size, message).await? {
                End::Whole(_) => {}
                cut => return Ok(cut),
            }
            match self.line().await? {
                Some(line) if line.is_empty() => {}
                Some(_) => return Ok(End::Garbled),
                None => return Ok(End::Closed),
            }
        }
    }

    async fn rest(&mut self, message: &mut Message) -> io::Result<End> {
        loop {
            message.body.append(&mut self.ahead);
            if !self.fill().await? {
                return Ok(End::Whole(false));
            }
        }
    }
}
