//! The marks that an answer of ours carries, and the promise behind each. The gate in front of the workload believes marks and nothing else, so a wrong one
//! makes a request run twice.
//!
//! | answer | promise | what the gate does |
//! |---|---|---|
//! | `503` + [`UNAVAILABLE`] | the developer's server has certainly not seen the request | any method goes to the in-cluster version |
//! | `502` + [`ERROR`] + [`LOST`] | it may have, and nothing of its answer was sent | safe methods go to the in-cluster version |
//!
//! An answer that breaks off after its head was passed on ends, inside the tunnel, in the trailers of [`broken_off`].
//!
//! For gRPC a lost call is trailers-only `grpc-status: 13`: clients take a 502 for UNAVAILABLE and would repeat it.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

pub use super::headers::{ERROR, LOST, SERVED_BY, UNAVAILABLE};
use super::{Body, empty_body, headers, text_body};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why a request was certainly not handed on to the developer's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unavailable {
    /// The request names no tunnel at all.
    NoAddress,
    /// No developer machine holds this address now.
    NoTunnel,
    /// The developer machine refused the stream, or said that it would not process it.
    Refused,
    /// The tunnel ended before the request was sent.
    NotSent,
    /// Nothing has been heard of the developer machine for longer than a beat, and the request could not be repeated.
    Suspect,
    /// Every stream of the tunnel is taken.
    Busy,
    /// The tunnel is for another workload's identity, or the caller's is not certain.
    Identity,
    /// The header list is larger than the tunnel passes.
    HeadersTooLarge,
    /// The request is one that the relay cannot read.
    Malformed,
    /// A plain CONNECT, which no tunnel carries.
    Connect,
    /// Nothing takes connections on the developer's port.
    NothingListens,
    /// The developer machine, or the relay, is leaving.
    Leaving,
    /// The other end gave a reason that this version does not know.
    Other,
}

impl Unavailable {
    const ALL: [Self; 13] = [
        Self::NoAddress,
        Self::NoTunnel,
        Self::Refused,
        Self::NotSent,
        Self::Suspect,
        Self::Busy,
        Self::Identity,
        Self::HeadersTooLarge,
        Self::Malformed,
        Self::Connect,
        Self::NothingListens,
        Self::Leaving,
        Self::Other,
    ];

    /// The reason as the mark and the metrics spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoAddress => "no-address",
            Self::NoTunnel => "no-tunnel",
            Self::Refused => "refused",
            Self::NotSent => "not-sent",
            Self::Suspect => "suspect",
            Self::Busy => "busy",
            Self::Identity => "identity",
            Self::HeadersTooLarge => "headers-too-large",
            Self::Malformed => "malformed",
            Self::Connect => "connect",
            Self::NothingListens => "nothing-listens",
            Self::Leaving => "leaving",
            Self::Other => "other",
        }
    }

    /// Reads the mark off an answer; `None` when it carries none.
    pub(super) fn on(headers: &HeaderMap) -> Option<Self> {
        let mark = headers.get(UNAVAILABLE)?;
        Some(
            Self::ALL
                .into_iter()
                .find(|reason| mark == reason.as_str())
                .unwrap_or(Self::Other),
        )
    }

    pub(super) fn answer(self) -> Response<Body> {
        let mut response = Response::new(empty_body());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
            .headers_mut()
            .insert(UNAVAILABLE, HeaderValue::from_static(self.as_str()));
        response
    }
}

/// The answer to a request that was under way when the side that had it broke.
pub(super) fn lost(reason: &str, grpc: bool) -> Response<Body> {
    let mut response = failed(reason, grpc);
    let mark = response.headers()[ERROR].clone();
    response.headers_mut().insert(LOST, mark);
    response
}

/// A response of the developer's server that cannot be passed on: without a mark that would make Envoy repeat the request.
pub(super) fn failed(reason: &str, grpc: bool) -> Response<Body> {
    let mark = visible(reason);
    let mut response = if grpc {
        let mut response = Response::new(empty_body());
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
            .headers_mut()
            .insert(GRPC_STATUS, HeaderValue::from_static("13"));
        response
            .headers_mut()
            .insert(GRPC_MESSAGE, percent_encoded(reason));
        response
    } else {
        let mut response = Response::new(text_body(format!("{reason}\n")));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        response
    };
    response.headers_mut().insert(ERROR, mark);
    response
}

/// Takes from an answer that came through a tunnel every header of ours but the marks above in their documented shape, and says whose machine answered:
/// a machine that is not what it should be can mark its own answers as failed, nothing else.
pub(super) fn keep_valid(status: StatusCode, answer: &mut HeaderMap, served_by: &HeaderValue) {
    let unavailable = Unavailable::on(answer).filter(|_| status == StatusCode::SERVICE_UNAVAILABLE);
    let is_failure = status == StatusCode::BAD_GATEWAY
        || answer.get(GRPC_STATUS).is_some_and(|status| status == "13");
    let [error, lost] = [ERROR, LOST].map(|name| {
        let mark = answer.get(name).filter(|_| is_failure)?;
        Some(visible(&String::from_utf8_lossy(mark.as_bytes())))
    });
    headers::remove_ours(answer);
    if let Some(reason) = unavailable {
        answer.insert(UNAVAILABLE, HeaderValue::from_static(reason.as_str()));
        return;
    }
    answer.insert(SERVED_BY, served_by.clone());
    if let Some(error) = error {
        answer.extend(lost.map(|lost| (LOST, lost)));
        answer.insert(ERROR, error);
    }
}

/// The trailers of an answer that broke off at the developer's server after its head had been passed on: [`ERROR`] with the reason. They stand in order behind
/// the data, which a reset would overtake (h2 throws away what it has not sent yet). The relay passes on what came before them and then breaks off itself.
/// A developer's server cannot say this: [`ERROR`] is removed from its own trailers.
pub(super) fn broken_off(reason: &str) -> HeaderMap {
    HeaderMap::from_iter([(ERROR, visible(reason))])
}

/// Why an answer with these trailers broke off; `None` when it is whole. See [`broken_off`].
pub(super) fn broken_off_reason(trailers: &HeaderMap) -> Option<String> {
    trailers
        .get(ERROR)
        .map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned())
}

/// A reason as a header value; what a header cannot hold becomes a blank.
pub(super) fn visible(reason: &str) -> HeaderValue {
    let text: String = reason
        .chars()
        .take(300)
        .map(|c| if c.is_ascii_graphic() { c } else { ' ' })
        .collect();
    HeaderValue::from_str(text.trim()).unwrap_or(HeaderValue::from_static("unknown"))
}

/// `grpc-message` is percent-encoded (gRPC over HTTP/2, "Status-Message").
fn percent_encoded(reason: &str) -> HeaderValue {
    let text: String = reason
        .bytes()
        .take(300)
        .map(|byte| {
            if (b' '..=b'~').contains(&byte) && byte != b'%' {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect();
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown"))
}

/// Whether the peer certainly did not process a request whose sending ended in this error (RFC 9113 §8.7): it refused the stream, or left out its number when it said goodbye.
pub(super) fn was_never_processed(error: &hyper::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(h2) = inner.downcast_ref::<h2::Error>() {
            let refused =
                h2.is_remote() && h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            let left_out =
                h2.is_remote() && h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR);
            return refused || left_out;
        }
        cause = inner.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_round_trip_through_marks() {
        for reason in Unavailable::ALL {
            assert_eq!(Unavailable::on(reason.answer().headers()), Some(reason));
        }
        assert_eq!(Unavailable::on(&HeaderMap::new()), None);
    }

    #[test]
    fn lost_grpc_call_is_internal_trailers() {
        let response = lost("it broke: 100 %", true);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "13");
        assert_eq!(response.headers()["grpc-message"], "it broke: 100 %25");
        assert!(http_body::Body::is_end_stream(response.body()));
        assert!(response.headers().contains_key(ERROR) && response.headers().contains_key(LOST));
    }

    #[test]
    fn unprintable_reason_still_makes_response() {
        assert_eq!(lost("a\r\nb", false).headers()[ERROR], "a  b");
        assert_eq!(lost("\u{1F4A5}", false).headers()[ERROR], "");
    }
}
