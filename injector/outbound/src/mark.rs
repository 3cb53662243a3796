//! Adds an intercept's own headers to the plain HTTP/1.1 requests of a connection, where they are missing.
//!
//! It follows how requests are framed (RFC 9112, section 6) to find the next one. Whatever it does not know passes as it is, and so does the rest of that connection.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// A head that is longer passes as it is.
const LONGEST_HEAD: usize = 64 * 1024;

/// The methods of requests that are marked. The first bytes of other protocols are none of these.
const METHODS: [&[u8]; 8] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"PATCH ",
    b"DELETE ",
    b"OPTIONS ",
    b"TRACE ",
];

/// What is added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    /// Names and values of headers. One that is there already stays as it is.
    pub headers: Vec<(String, String)>,
    /// Keys and values of members of the `baggage` header. One that is there already stays as it is.
    pub baggage: Vec<(String, String)>,
}

/// Marks the requests of one connection.
#[derive(Debug)]
pub(crate) struct Marker {
    mark: Option<Arc<Mark>>,
    state: State,
    /// Received, and not known yet for what it is.
    held: BytesMut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of a body.
    Body(u64),
    /// The line with the size of a chunk.
    ChunkSize,
    /// So many bytes of a chunk, its line end among them.
    Chunk(u64),
    /// The lines behind the last chunk.
    Trailers,
    /// The rest of the connection.
    Anything,
}

impl Marker {
    /// `None`: everything passes as it is.
    pub(crate) fn new(mark: Option<Arc<Mark>>) -> Self {
        let state = match mark {
            Some(_) => State::Head,
            None => State::Anything,
        };
        Self {
            mark,
            state,
            held: BytesMut::new(),
        }
    }

    /// What is to be sent on once these bytes have come.
    pub(crate) fn pass(&mut self, bytes: Bytes) -> Bytes {
        if self.state == State::Anything {
            return bytes;
        }
        self.held.extend_from_slice(&bytes);
        let mut out = BytesMut::new();
        while !self.held.is_empty() {
            match self.step(&mut out) {
                Some(next) => self.state = next,
                None if self.held.len() > LONGEST_HEAD => self.state = State::Anything,
                None => break,
            }
        }
        out.freeze()
    }

    /// What was held back, at the end of the connection.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.state = State::Anything;
        self.held.split().freeze()
    }

    /// Moves on what is known. `None`: more has to come.
    fn step(&mut self, out: &mut BytesMut) -> Option<State> {
        match self.state {
            State::Anything => {
                out.unsplit(self.held.split());
                Some(State::Anything)
            }
            State::Body(left) => Some(match self.take(left, out) {
                0 => State::Head,
                left => State::Body(left),
            }),
            State::Chunk(left) => Some(match self.take(left, out) {
                0 => State::ChunkSize,
                left => State::Chunk(left),
            }),
            State::ChunkSize => {
                let size = chunk_size(&self.line(out)?);
                Some(match size {
                    Some(0) => State::Trailers,
                    Some(size) => State::Chunk(size.saturating_add(2)),
                    None => State::Anything,
                })
            }
            State::Trailers => Some(match self.line(out)?.as_ref() {
                b"\r\n" => State::Head,
                _ => State::Trailers,
            }),
            State::Head if !may_be_request(&self.held) => Some(State::Anything),
            State::Head => {
                let end = self.held.windows(4).position(|four| four == b"\r\n\r\n")?;
                let head = self.held.split_to(end + 4);
                let mark = self.mark.as_ref().filter(|_| head.len() <= LONGEST_HEAD);
                let marked = mark.and_then(|mark| marked(&head, mark));
                let (next, text) = marked.unwrap_or((State::Anything, head.to_vec()));
                out.extend_from_slice(&text);
                Some(next)
            }
        }
    }

    /// Moves on at most so many bytes. How many are left.
    fn take(&mut self, left: u64, out: &mut BytesMut) -> u64 {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let piece = self.held.split_to(most.min(self.held.len()));
        out.extend_from_slice(&piece);
        left - piece.len() as u64
    }

    fn line(&mut self, out: &mut BytesMut) -> Option<BytesMut> {
        let end = self.held.iter().position(|byte| *byte == b'\n')?;
        let line = self.held.split_to(end + 1);
        out.extend_from_slice(&line);
        Some(line)
    }
}

/// Can a request of HTTP/1 begin so?
fn may_be_request(bytes: &[u8]) -> bool {
    let has_method = METHODS.iter().any(|method| {
        let length = method.len().min(bytes.len());
        method[..length] == bytes[..length]
    });
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let is_line = lines.next().is_none_or(|line| {
        !line.ends_with(b"\n")
            || line.ends_with(b" HTTP/1.1\r\n")
            || line.ends_with(b" HTTP/1.0\r\n")
    });
    has_method && is_line
}

/// RFC 9112, section 7.1.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let text = str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    let size = text.split(';').next()?.trim_end_matches([' ', '\t']);
    let is_hex = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(size, 16).ok().filter(|_| is_hex)
}

/// A line of a head: a name, and what stands behind its colon.
type Field<'h> = (&'h str, &'h [u8]);

/// What follows a head, and the head with what was missing. `None` where that is not certain.
fn marked(head: &[u8], mark: &Mark) -> Option<(State, Vec<u8>)> {
    let mut lines = head.strip_suffix(b"\r\n\r\n")?.split(|byte| *byte == b'\n');
    let mut text = lines.next()?.to_vec();
    let fields: Vec<Field<'_>> = lines.map(field).collect::<Option<_>>()?;
    let next = after(&fields)?;
    let members = missing_members(&fields, mark);
    // Into a line that is there: some programs read only one.
    let baggage = fields.iter().position(is_baggage);
    for (at, (name, value)) in fields.iter().enumerate() {
        text.extend_from_slice(b"\n");
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        text.extend_from_slice(value);
        if Some(at) == baggage && !members.is_empty() {
            // Before its line end.
            let end = text.len() - usize::from(value.ends_with(b"\r"));
            text.splice(end..end, format!(",{members}").into_bytes());
        }
    }
    let has = |name: &str| {
        fields
            .iter()
            .any(|(known, _)| known.eq_ignore_ascii_case(name))
    };
    let missing = mark.headers.iter().filter(|(name, _)| !has(name));
    let mut added: Vec<String> = missing
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    if baggage.is_none() && !members.is_empty() {
        added.push(format!("baggage: {members}"));
    }
    for line in added {
        text.extend_from_slice(b"\r\n");
        text.extend_from_slice(line.as_bytes());
    }
    text.extend_from_slice(b"\r\n\r\n");
    Some((next, text))
}

/// `None` for what is none, or goes on from the line before.
fn field(line: &[u8]) -> Option<Field<'_>> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = str::from_utf8(&line[..colon]).ok()?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_name = !name.is_empty() && name.bytes().all(is_token);
    is_name.then_some((name, &line[colon + 1..]))
}

/// What follows this head (RFC 9112, section 6.3).
fn after(fields: &[Field<'_>]) -> Option<State> {
    let values = |name: &'static str| {
        let named = fields
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim_ascii())
    };
    let (mut lengths, mut codings) = (values("content-length"), values("transfer-encoding"));
    // What follows these where the server agrees begins like no request; where it does not, requests go on.
    let is_known = |protocol: &[u8]| {
        let known: [&[u8]; 2] = [b"websocket", b"h2c"];
        known
            .iter()
            .any(|known| protocol.eq_ignore_ascii_case(known))
    };
    if !values("upgrade").all(is_known) {
        return Some(State::Anything);
    }
    let next = match (lengths.next(), codings.next()) {
        (None, None) => State::Head,
        (Some(length), None) => {
            let is_number = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
            let length = str::from_utf8(length).ok()?.parse().ok();
            match length.filter(|_| is_number)? {
                0 => State::Head,
                length => State::Body(length),
            }
        }
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => State::ChunkSize,
        _ => return None,
    };
    let is_single = lengths.next().is_none() && codings.next().is_none();
    is_single.then_some(next)
}

fn is_baggage(field: &Field<'_>) -> bool {
    field.0.eq_ignore_ascii_case("baggage")
}

/// As they stand in a line.
fn missing_members(fields: &[Field<'_>], mark: &Mark) -> String {
    let known: Vec<&[u8]> = fields
        .iter()
        .filter(|field| is_baggage(field))
        .flat_map(|(_, value)| value.split(|byte| *byte == b','))
        .filter_map(|member| member.split(|byte| *byte == b'=').next())
        .map(<[u8]>::trim_ascii)
        .collect();
    let missing = mark.baggage.iter();
    let missing = missing.filter(|(key, _)| !known.contains(&key.as_bytes()));
    let members: Vec<String> = missing
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    members.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Arc<Mark> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Arc::new(Mark {
            headers: vec![pair("Coder", "Bob")],
            baggage: vec![pair("dev", "bob")],
        })
    }

    /// What becomes of a connection that comes in pieces of this size.
    fn sent(bytes: &[u8], size: usize) -> String {
        let mut marker = Marker::new(Some(mark()));
        let mut out = Vec::new();
        for piece in bytes.chunks(size) {
            out.extend_from_slice(&marker.pass(Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&marker.rest());
        String::from_utf8_lossy(&out).into_owned()
    }

    /// In one piece, byte by byte, and in between.
    fn assert_sent(bytes: &str, expected: &str) {
        for size in [1, 7, usize::MAX] {
            assert_eq!(sent(bytes.as_bytes(), size), expected, "{size}");
        }
    }

    #[test]
    fn each_request_is_marked() {
        let added = "\r\nCoder: Bob\r\nbaggage: dev=bob\r\n\r\n";
        let heads = [
            ("GET / HTTP/1.1\r\nHost: a", ""),
            ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5", "GET /"),
            (
                "PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked",
                "3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n",
            ),
            ("POST /x HTTP/1.1\r\nHost: a\r\ncontent-length:0", ""),
            ("DELETE /x HTTP/1.0\r\nHost:\t a ", ""),
        ];
        let all = |end: &str| -> String {
            let each = heads
                .iter()
                .map(|(head, body)| format!("{head}{end}{body}"));
            each.collect()
        };
        assert_sent(&all("\r\n\r\n"), &all(added));
    }

    #[test]
    fn what_is_there_stays() {
        assert_sent(
            "GET / HTTP/1.1\r\ncoder: Eve\r\nBaggage: a=b, dev = x;p\r\n\r\n",
            "GET / HTTP/1.1\r\ncoder: Eve\r\nBaggage: a=b, dev = x;p\r\n\r\n",
        );
        let longer = "GET / HTTP/1.1\r\nbaggage: a=b,dev=bob\r\nHost: a\r\nCoder: Bob\r\n\r\n";
        assert_sent("GET / HTTP/1.1\r\nbaggage: a=b\r\nHost: a\r\n\r\n", longer);
    }

    #[test]
    fn upgrades_end_or_go_on() {
        let added = "\r\nCoder: Bob\r\nbaggage: dev=bob\r\n\r\n";
        let (plain, other) = ("GET / HTTP/1.1", "GET /ws HTTP/1.1\r\nUpgrade: ");
        for (protocol, first, is_marked) in [
            ("websocket", "", true),
            ("WebSocket", "\u{1}\u{2}", false),
            ("h2c", "", true),
            ("h2c", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false),
            ("tcp", "", false),
        ] {
            let end = if is_marked { added } else { "\r\n\r\n" };
            assert_sent(
                &format!("{other}{protocol}\r\n\r\n{first}{plain}\r\n\r\n"),
                &format!("{other}{protocol}{added}{first}{plain}{end}"),
            );
        }
    }

    #[test]
    fn anything_else_passes_as_it_is() {
        for bytes in [
            "\u{16}\u{3}\u{1}GET / HTTP/1.1\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "PING\r\nGET / HTTP/1.1\r\n\r\n",
            "GET key\r\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\nx",
            "GET / HTTP/1.1\r\nHost",
            "CONNECT a:1 HTTP/1.1\r\n\r\n",
        ] {
            assert_sent(bytes, bytes);
        }
        let long = "x".repeat(LONGEST_HEAD);
        let long = format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        for size in [1000, usize::MAX] {
            assert_eq!(sent(long.as_bytes(), size), long);
        }
    }

    #[test]
    fn first_bytes_of_others_are_not_held() {
        for bytes in ["\0\0\0\u{8}", "*1\r\n", "G\r", "SSH-2.0"] {
            let mut marker = Marker::new(Some(mark()));
            assert_eq!(marker.pass(Bytes::from(bytes)), bytes);
        }
    }
}
