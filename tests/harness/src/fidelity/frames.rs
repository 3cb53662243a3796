//! HTTP/2 frames and header blocks (RFC 9113, RFC 7541), including invalid ones.

use std::io;

use httlib_hpack::Decoder;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::message::Fields;

/// The client's connection preface.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of a body.
pub const DATA: u8 = 0;
/// A frame of a header list.
pub const HEADERS: u8 = 1;
/// A frame that ends a stream at once.
pub const RST_STREAM: u8 = 3;
/// A frame of settings.
pub const SETTINGS: u8 = 4;
/// A frame that asks for an answer.
pub const PING: u8 = 6;
/// A frame that ends a connection.
pub const GOAWAY: u8 = 7;
/// A frame that lets the other end send more.
pub const WINDOW_UPDATE: u8 = 8;
/// A frame that continues a header list.
pub const CONTINUATION: u8 = 9;

/// Flag: nothing follows on the stream.
pub const END_STREAM: u8 = 0x1;
/// Flag: the answer to such a frame.
pub const ACK: u8 = 0x1;
/// Flag: the header list is whole.
pub const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The largest frame that a peer must take.
const FRAME_SIZE: usize = 16_384;

/// One frame.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    pub(super) fn ends_stream(&self) -> bool {
        self.flags & END_STREAM != 0
    }
}

/// Writes one frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Settings and windows of an end that never blocks its peer.
///
/// Without a dynamic table, with extended CONNECT.
pub fn opening() -> Vec<u8> {
    let mut settings = Vec::new();
    for (setting, value) in [(1u16, 0u32), (4, 1 << 30), (8, 1)] {
        settings.extend(setting.to_be_bytes());
        settings.extend(value.to_be_bytes());
    }
    let mut bytes = frame(SETTINGS, 0, 0, &settings);
    bytes.extend(frame(WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes()));
    bytes
}

/// A HEADERS frame, with the CONTINUATION frames that it needs.
pub fn headers(stream: u32, fields: &Fields, ends_stream: bool) -> Vec<u8> {
    let block = encode(fields);
    let mut parts = block.chunks(FRAME_SIZE).peekable();
    let mut bytes = Vec::new();
    let mut kind = HEADERS;
    let mut flags = if ends_stream { END_STREAM } else { 0 };
    while let Some(part) = parts.next() {
        flags |= if parts.peek().is_none() {
            END_HEADERS
        } else {
            0
        };
        bytes.extend(frame(kind, flags, stream, part));
        (kind, flags) = (CONTINUATION, 0);
    }
    bytes
}

/// DATA frames.
pub fn data(stream: u32, body: &[u8], ends_stream: bool) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = body.chunks(FRAME_SIZE).collect();
    if parts.is_empty() {
        parts.push(&[]);
    }
    let last = parts.len() - 1;
    let frames = parts.into_iter().enumerate().map(|(place, part)| {
        let flags = if ends_stream && place == last {
            END_STREAM
        } else {
            0
        };
        frame(DATA, flags, stream, part)
    });
    frames.flatten().collect()
}

/// Encodes each field as a literal, without indexing or Huffman coding (RFC 7541 section 6.2.2).
fn encode(fields: &Fields) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        string(name, &mut block);
        string(value, &mut block);
    }
    block
}

/// A string literal (RFC 7541 sections 5.1 and 5.2).
fn string(text: &[u8], block: &mut Vec<u8>) {
    let mut left = text.len();
    if left < 127 {
        block.push(u8::try_from(left).expect("below 127"));
    } else {
        block.push(127);
        left -= 127;
        while left >= 128 {
            block.push(u8::try_from(left % 128).expect("below 128") | 128);
            left /= 128;
        }
        block.push(u8::try_from(left).expect("below 128"));
    }
    block.extend(text);
}

/// Reads frames, and header blocks in one piece.
pub(super) struct Reader<S> {
    stream: S,
    decoder: Decoder<'static>,
    credit: usize,
}

/// An event of the other end.
#[derive(Debug)]
pub(super) enum Event {
    /// A header block, decoded.
    Fields {
        stream: u32,
        fields: Fields,
        ends_stream: bool,
    },
    /// Any other frame, without its padding.
    Frame(Frame),
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            decoder: Decoder::default(),
            credit: 0,
        }
    }

    /// The next event; `None` at the end of the connection.
    pub(super) async fn next(&mut self) -> io::Result<Option<Event>> {
        let Some(mut frame) = self.frame().await? else {
            return Ok(None);
        };
        unpad(&mut frame);
        if frame.kind != HEADERS {
            return Ok(Some(Event::Frame(frame)));
        }
        let mut block = frame.payload.clone();
        let mut flags = frame.flags;
        while flags & END_HEADERS == 0 {
            let Some(more) = self.frame().await? else {
                return Ok(None);
            };
            block.extend(more.payload);
            flags = more.flags;
        }
        let mut decoded = Vec::new();
        self.decoder
            .decode(&mut block, &mut decoded)
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
        let fields = decoded.into_iter().map(|(name, value, _)| (name, value));
        Ok(Some(Event::Fields {
            stream: frame.stream,
            fields: fields.collect(),
            ends_stream: frame.ends_stream(),
        }))
    }

    /// The reply that the connection's protocol requires.
    pub(super) fn reply(&mut self, event: &Event) -> Vec<u8> {
        let Event::Frame(frame) = event else {
            return Vec::new();
        };
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => self::frame(SETTINGS, ACK, 0, &[]),
            PING if frame.flags & ACK == 0 => self::frame(PING, ACK, 0, &frame.payload),
            DATA => {
                self.credit += frame.payload.len();
                if self.credit < 1 << 20 {
                    return Vec::new();
                }
                let credit = u32::try_from(std::mem::take(&mut self.credit)).expect("a window");
                self::frame(WINDOW_UPDATE, 0, 0, &credit.to_be_bytes())
            }
            _ => Vec::new(),
        }
    }

    async fn frame(&mut self) -> io::Result<Option<Frame>> {
        let mut head = [0; 9];
        match self.stream.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("24 bits")];
        self.stream.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Ok(Some(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        }))
    }
}

/// Removes padding and priority, which no test is about.
fn unpad(frame: &mut Frame) {
    if !matches!(frame.kind, DATA | HEADERS) {
        return;
    }
    if frame.flags & PADDED != 0 {
        let padding = usize::from(frame.payload.remove(0));
        frame.payload.truncate(frame.payload.len() - padding);
    }
    if frame.kind == HEADERS && frame.flags & PRIORITY != 0 {
        frame.payload.drain(..5);
    }
}
