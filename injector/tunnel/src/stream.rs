//! Metadata about one stream, exchanged by the two ends of a tunnel.
//!
//! Clients and the developer's server cannot write it.
//!
//! Requests carry it in the `:authority`, responses in [`NOTE`], one of our names, which is removed from the developer's server's responses.
//! Knows no sockets and no bodies.

use http::header;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};

/// The purpose of a stream; the relay states it in the `:authority`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The tunnel's own stream, see [`super::pulse`].
    Pulse,
    /// Open a connection to the developer's server and hold it for a request that follows.
    Hold,
    /// A client's request to switch to WebSocket.
    ///
    /// After the switch, the two bodies carry the two directions.
    Switch,
    /// A client's request.
    Request {
        /// The connection that was opened ahead of the request, see [`Purpose::Hold`].
        held: Option<u64>,
        /// The request has a body of unknown length, even if that body is empty.
        chunked: bool,
    },
}

const CHUNKED: &str = "-chunked";

impl Purpose {
    /// Parses the purpose of a request inside the tunnel; `None` if this version does not know it.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let (name, chunked) = match uri.authority()?.as_str() {
            "pulse" => return Some(Self::Pulse),
            "hold" => return Some(Self::Hold),
            "switch" => return Some(Self::Switch),
            name => match name.strip_suffix(CHUNKED) {
                Some(name) => (name, true),
                None => (name, false),
            },
        };
        let held = match name {
            "tunnel" => None,
            name => Some(name.strip_prefix("held-")?.parse().ok()?),
        };
        Some(Self::Request { held, chunked })
    }

    /// The URI of a request inside the tunnel, with scheme, path and query of `of`.
    pub(super) fn uri(self, of: &Uri) -> Uri {
        let name = match self {
            Self::Pulse => "pulse".to_owned(),
            Self::Hold => "hold".to_owned(),
            Self::Switch => "switch".to_owned(),
            Self::Request { held, chunked } => {
                let name = held.map_or_else(|| "tunnel".to_owned(), |id| format!("held-{id}"));
                name + if chunked { CHUNKED } else { "" }
            }
        };
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(of.scheme().cloned().unwrap_or(Scheme::HTTP));
        uri.authority = Authority::try_from(name).ok();
        let path = of.path_and_query().cloned();
        uri.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        Uri::from_parts(uri).unwrap_or_default()
    }
}

/// On a response inside the tunnel, once per note: `KEY=VALUE`. The relay removes it.
const NOTE: HeaderName = HeaderName::from_static("x-intercept");

/// Notes of the developer's end about a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// For [`Purpose::Hold`]: the held connection.
    pub(super) held: Option<u64>,
    /// For [`Purpose::Switch`]: the developer's server switched to this protocol.
    pub(super) switched: Option<HeaderValue>,
    /// The `content-length` of the response.
    ///
    /// As a header, h2 would check the body against it, and replace the reason of a break with its own error.
    pub(super) length: Option<HeaderValue>,
}

impl Notes {
    /// Writes the notes on a response. Its `content-length` becomes one of them.
    pub(super) fn write(mut self, answer: &mut HeaderMap) {
        self.length = self.length.or(answer.remove(header::CONTENT_LENGTH));
        let held = self.held.map(HeaderValue::from);
        for (key, value) in [
            ("held=", held),
            ("switched=", self.switched),
            ("length=", self.length),
        ] {
            let note = value.map(|value| [key.as_bytes(), value.as_bytes()].concat());
            if let Some(note) = note.and_then(|note| HeaderValue::from_bytes(&note).ok()) {
                answer.append(NOTE, note);
            }
        }
    }

    /// Takes the notes off a response, and restores its `content-length`.
    pub(super) fn take(answer: &mut HeaderMap) -> Self {
        let note = |key: &str| {
            let mut notes = answer.get_all(NOTE).iter();
            notes.find_map(|note| note.as_bytes().strip_prefix(key.as_bytes()))
        };
        let value = |key| note(key).and_then(|value| HeaderValue::from_bytes(value).ok());
        let held = note("held=").and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
        let (switched, length) = (value("switched="), value("length="));
        answer.remove(NOTE);
        if let Some(length) = &length {
            // An existing one stays: h2 checks the body against it, and hyper relies on the two being the same.
            let kept = answer.entry(header::CONTENT_LENGTH);
            kept.or_insert_with(|| length.clone());
        }
        Self {
            held,
            switched,
            length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_purpose_is_read_back() {
        let requests = [None, Some(0), Some(u64::MAX)]
            .into_iter()
            .flat_map(|held| [false, true].map(|chunked| Purpose::Request { held, chunked }));
        for purpose in [Purpose::Pulse, Purpose::Hold].into_iter().chain(requests) {
            for (of, scheme) in [("/a?b", "http"), ("https://orders/a?b", "https")] {
                let uri = purpose.uri(&Uri::from_static(of));
                assert_eq!(Purpose::of(&uri), Some(purpose), "{uri}");
                assert_eq!(uri.path_and_query().unwrap(), "/a?b");
                assert_eq!(uri.scheme_str(), Some(scheme));
            }
        }
    }

    #[test]
    fn an_unknown_purpose_is_none() {
        for uri in [
            "/",
            "http://orders.shop/",
            "http://held-/",
            "http://held-x/",
            "http://pulse-chunked/",
        ] {
            assert_eq!(Purpose::of(&Uri::from_static(uri)), None, "{uri}");
        }
    }

    #[test]
    fn notes_are_taken_off_as_written() {
        let notes = Notes {
            held: Some(7),
            switched: Some(HeaderValue::from_static("WebSocket, x=y")),
            length: None,
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("5"));
        notes.clone().write(&mut headers);
        assert!(!headers.contains_key(header::CONTENT_LENGTH));
        let length = Some(HeaderValue::from_static("5"));
        assert_eq!(Notes::take(&mut headers), Notes { length, ..notes });
        assert_eq!(
            (headers.len(), &headers[header::CONTENT_LENGTH]),
            (1, &"5".parse().unwrap())
        );
    }

    /// A developer machine must not make the relay write more than the head of the response says.
    #[test]
    fn length_of_a_note_replaces_none() {
        let mut headers = HeaderMap::new();
        headers.insert(NOTE, HeaderValue::from_static("length=5"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("9"));
        Notes::take(&mut headers);
        assert_eq!(headers[header::CONTENT_LENGTH], "9");
    }
}
