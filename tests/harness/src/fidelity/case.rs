//! The notation for a case: what the client sends, and what the origin responds. Contains no cases.

use intercept_manifest::facts::Protocol;

use super::message::Fields;

/// The protocol of the workload's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// HTTP/1.1 to the application.
    Http,
    /// HTTP/2 to the application.
    Http2,
    /// gRPC, which is HTTP/2.
    Grpc,
    /// The client's protocol.
    Auto,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Http, Self::Http2, Self::Grpc, Self::Auto];

    /// The workload's protocol.
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Http => Protocol::Http,
            Self::Http2 => Protocol::Http2,
            Self::Grpc => Protocol::Grpc,
            Self::Auto => Protocol::Auto,
        }
    }

    /// The workload's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Auto => "auto",
        }
    }
}

/// The client's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Downstream {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// A step of an HTTP/1.1 client or origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Writes these bytes.
    Send(Vec<u8>),
    /// Waits until the other side has sent a head: an interim response or the response.
    AwaitHead,
    /// Reads the whole body (origin).
    ReadBody,
    /// Closes its sending side, then reads until the other side closes (origin).
    Close,
    /// Resets the connection (origin).
    Reset,
    /// Echoes input (origin).
    Echo,
}

/// A step of an HTTP/2 client or origin on one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A header block: head, interim response or trailers. `true` ends the stream.
    Head(Fields, bool),
    /// DATA. `true` ends the stream.
    Data(Vec<u8>, bool),
    /// Resets the stream with this code.
    Reset(u32),
    /// Waits until the other side has sent a head (client).
    AwaitHead,
    /// Reads the whole body (origin).
    ReadBody,
    /// Echoes input (origin).
    Echo,
}

/// What a client sends.
#[derive(Debug, Clone)]
pub enum Sent {
    /// Over HTTP/1.1. `{case}` in the bytes stands for the line that names the case.
    Http1(Vec<Step>),
    /// Over HTTP/2. The field that names the case is added to the first block.
    Http2(Vec<Part>),
}

/// One request, or several on one connection, with responses.
#[derive(Debug, Clone)]
pub struct Case {
    /// The unique name.
    pub name: String,
    /// The protocol of the workload's port.
    pub kind: Kind,
    /// What the client sends.
    pub sent: Sent,
    /// The number of responses to wait for.
    pub answers: usize,
    /// The steps of an HTTP/1.1 origin after a head.
    pub http1: Vec<Step>,
    /// The steps of an HTTP/2 origin after a head.
    pub http2: Vec<Part>,
    /// The origin responds before it reads the body, so how much of it arrives depends on timing.
    pub is_early: bool,
    /// Envoy rejects the request midway, so whether any of it arrives depends on timing.
    pub is_cut: bool,
    /// The case makes Envoy close a connection that cases share, so it runs by itself.
    pub is_alone: bool,
}

impl Case {
    /// An HTTP/1.1 request of these bytes, on a port of HTTP/1.1.
    pub fn http1(name: impl Into<String>, request: impl AsRef<[u8]>) -> Self {
        Self::new(
            name,
            Sent::Http1(vec![Step::Send(request.as_ref().to_vec())]),
        )
    }

    /// An HTTP/2 request of these parts, on a port of HTTP/2.
    pub fn http2(name: impl Into<String>, parts: Vec<Part>) -> Self {
        Self::new(name, Sent::Http2(parts)).on(Kind::Http2)
    }

    /// A case with the response "ok".
    fn new(name: impl Into<String>, sent: Sent) -> Self {
        Self {
            name: name.into(),
            kind: Kind::Http,
            sent,
            answers: 1,
            http1: vec![
                Step::ReadBody,
                Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()),
            ],
            http2: vec![
                Part::ReadBody,
                Part::Head(
                    fields(&[(":status", "200"), ("content-length", "2")]),
                    false,
                ),
                Part::Data(b"ok".to_vec(), true),
            ],
            is_early: false,
            is_cut: false,
            is_alone: false,
        }
    }

    /// Sets the kind of port.
    pub fn on(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// Responds with these bytes after reading the body.
    pub fn answered(self, answer: impl AsRef<[u8]>) -> Self {
        let answer = Step::Send(answer.as_ref().to_vec());
        self.served(vec![Step::ReadBody, answer])
    }

    /// Responds with these bytes, and then closes the connection.
    pub fn answered_until_close(self, answer: impl AsRef<[u8]>) -> Self {
        let answer = Step::Send(answer.as_ref().to_vec());
        self.served(vec![Step::ReadBody, answer, Step::Close])
    }

    /// Sets the steps of an HTTP/1.1 origin.
    pub fn served(self, http1: Vec<Step>) -> Self {
        Self { http1, ..self }
    }

    /// Sets the steps of an HTTP/2 origin.
    pub fn served_http2(self, http2: Vec<Part>) -> Self {
        Self { http2, ..self }
    }

    /// Marks a case that Envoy rejects midway.
    pub fn cut(self) -> Self {
        let is_cut = true;
        Self { is_cut, ..self }
    }

    /// Marks a case that runs by itself.
    pub fn alone(self) -> Self {
        let is_alone = true;
        Self { is_alone, ..self }
    }

    /// The client's protocol.
    pub fn downstream(&self) -> Downstream {
        match self.sent {
            Sent::Http1(_) => Downstream::Http1,
            Sent::Http2(_) => Downstream::Http2,
        }
    }

    /// Name, port and the client's HTTP version.
    pub fn title(&self) -> String {
        let version = match self.downstream() {
            Downstream::Http1 => "HTTP/1.1",
            Downstream::Http2 => "HTTP/2",
        };
        format!("{} ({version} to {})", self.name, self.kind.as_str())
    }
}

/// Converts text to fields.
pub fn fields(pairs: &[(&str, &str)]) -> Fields {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect()
}
