//! What one case sends, and what the origin answers. Owns the words for it, no case.

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
    /// What the client speaks.
    Auto,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Http, Self::Http2, Self::Grpc, Self::Auto];

    /// The same in the workload's own words.
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Http => Protocol::Http,
            Self::Http2 => Protocol::Http2,
            Self::Grpc => Protocol::Grpc,
            Self::Auto => Protocol::Auto,
        }
    }

    /// As the workload spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Auto => "auto",
        }
    }
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Downstream {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// What an HTTP/1.1 client or origin does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Writes these bytes.
    Send(Vec<u8>),
    /// Waits until the other side has sent any head: an interim response, or the answer.
    AwaitHead,
    /// Reads the whole body (origin).
    ReadBody,
    /// Closes its sending side, then reads until the other one closes (origin).
    Close,
    /// Resets the connection (origin).
    Reset,
    /// Sends back what comes (origin).
    Echo,
}

/// What an HTTP/2 client or origin does on one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A header block: head, interim response or trailers. `true` ends the stream.
    Head(Fields, bool),
    /// DATA. `true` ends the stream.
    Data(Vec<u8>, bool),
    /// Resets the stream with this code.
    Reset(u32),
    /// Waits until the other side has sent any head (client).
    AwaitHead,
    /// Reads the whole body (origin).
    ReadBody,
    /// Sends back what comes (origin).
    Echo,
}

/// What a client sends.
#[derive(Debug, Clone)]
pub enum Sent {
    /// In HTTP/1.1. `{case}` in the bytes stands for the line that names the case.
    Http1(Vec<Step>),
    /// In HTTP/2. The field that names the case is added to the first block.
    Http2(Vec<Part>),
}

/// One request, or several on one connection, and the answer.
#[derive(Debug, Clone)]
pub struct Case {
    /// Tells it from all others.
    pub name: String,
    /// The workload's port.
    pub kind: Kind,
    /// What the client does.
    pub sent: Sent,
    /// How many answers it waits for.
    pub answers: usize,
    /// What an origin spoken to in HTTP/1.1 does once it has read a head.
    pub http1: Vec<Step>,
    /// The same in HTTP/2.
    pub http2: Vec<Part>,
    /// The origin answers before it read the body, so how much of it arrives depends on timing.
    pub is_early: bool,
    /// Envoy refuses it half way, so whether any of it arrives depends on timing.
    pub is_cut: bool,
    /// Envoy closes a connection that others share because of it, so it runs by itself.
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

    /// With the answer "ok".
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

    /// On a port of that kind.
    pub fn on(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// Answered by these bytes after the body was read.
    pub fn answered(self, answer: impl AsRef<[u8]>) -> Self {
        let answer = Step::Send(answer.as_ref().to_vec());
        self.served(vec![Step::ReadBody, answer])
    }

    /// Answered by these bytes, at whose end the connection closes.
    pub fn answered_until_close(self, answer: impl AsRef<[u8]>) -> Self {
        let answer = Step::Send(answer.as_ref().to_vec());
        self.served(vec![Step::ReadBody, answer, Step::Close])
    }

    /// Served by these steps in HTTP/1.1.
    pub fn served(self, http1: Vec<Step>) -> Self {
        Self { http1, ..self }
    }

    /// Served by these parts in HTTP/2.
    pub fn served_http2(self, http2: Vec<Part>) -> Self {
        Self { http2, ..self }
    }

    /// Envoy refuses it half way.
    pub fn cut(self) -> Self {
        let is_cut = true;
        Self { is_cut, ..self }
    }

    /// By itself.
    pub fn alone(self) -> Self {
        let is_alone = true;
        Self { is_alone, ..self }
    }

    /// What the client speaks.
    pub fn downstream(&self) -> Downstream {
        match self.sent {
            Sent::Http1(_) => Downstream::Http1,
            Sent::Http2(_) => Downstream::Http2,
        }
    }

    /// Name, port and client's version.
    pub fn title(&self) -> String {
        let version = match self.downstream() {
            Downstream::Http1 => "HTTP/1.1",
            Downstream::Http2 => "HTTP/2",
        };
        format!("{} ({version} to {})", self.name, self.kind.as_str())
    }
}

/// Fields from text.
pub fn fields(pairs: &[(&str, &str)]) -> Fields {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect()
}
