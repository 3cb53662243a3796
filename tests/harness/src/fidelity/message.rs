//! An HTTP message as it was on the wire. Owns only the representation.

/// Name and value of each header line, in order, as written.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// The HTTP version of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0 and HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
}

/// The end of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum End {
    /// It did not end before the deadline.
    #[default]
    Endless,
    /// As its framing says. `true`: HTTP/2 ended it with the head.
    Whole(bool),
    /// The connection was closed before its end.
    Closed,
    /// The connection was reset before its end.
    ConnectionReset,
    /// HTTP/2 reset the stream with this code.
    StreamReset(u32),
    /// Its framing is invalid.
    Garbled,
}

/// A request or a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The HTTP version.
    pub version: Version,
    /// Interim responses (1xx) before it: first line and fields.
    pub interim: Vec<(Vec<u8>, Fields)>,
    /// The first line without its line break.
    ///
    /// Empty in HTTP/2, whose pseudo-headers are among the fields.
    pub start: Vec<u8>,
    /// The header lines.
    pub fields: Fields,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The extensions of all chunks.
    pub extensions: Vec<u8>,
    /// The trailer lines.
    pub trailers: Fields,
    /// The end of the message.
    pub end: End,
}

impl Message {
    /// The first value of a field, without the white space around it.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(_, value)| value.trim_ascii())
    }

    /// Does a list field include that member?
    pub fn lists(&self, name: &str, member: &str) -> bool {
        let lines = self.fields.iter();
        let mut lines = lines.filter(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()));
        lines.any(|(_, value)| {
            let mut members = value.split(|byte| *byte == b',');
            members.any(|other| other.trim_ascii().eq_ignore_ascii_case(member.as_bytes()))
        })
    }

    /// The status of a response.
    pub fn status(&self) -> Option<u16> {
        let text = match self.version {
            Version::Http1 => self.start.split(|byte| *byte == b' ').nth(1)?,
            Version::Http2 => self.field(":status")?,
        };
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    /// The same message in terms of HTTP/2, for comparison with an HTTP/2 message.
    ///
    /// Leaves out what only HTTP/1.1 has.
    pub fn neutral(&self) -> Self {
        if self.version == Version::Http2 {
            return self.clone();
        }
        let mut pseudo: Fields = Vec::new();
        let mut words = self.start.split(|byte| *byte == b' ');
        if self.start.starts_with(b"HTTP/") {
            let status = words.nth(1).unwrap_or_default();
            pseudo.push((b":status".to_vec(), status.to_vec()));
        } else {
            let method = words.next().unwrap_or_default();
            let path = words.next().unwrap_or_default();
            pseudo.push((b":method".to_vec(), method.to_vec()));
            pseudo.push((b":path".to_vec(), path.to_vec()));
            pseudo.push((b":scheme".to_vec(), b"http".to_vec()));
        }
        let fields = self.fields.iter().filter_map(|(name, value)| {
            match name.to_ascii_lowercase().as_slice() {
                b"transfer-encoding" | b"connection" => None,
                b"host" => Some((b":authority".to_vec(), value.trim_ascii().to_vec())),
                lower => Some((lower.to_vec(), value.trim_ascii().to_vec())),
            }
        });
        Self {
            start: Vec::new(),
            fields: pseudo.into_iter().chain(fields).collect(),
            ..self.clone()
        }
    }
}
