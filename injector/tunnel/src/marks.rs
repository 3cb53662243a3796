//! The marks on our responses, and the promise behind each.
//!
//! The gate in front of the workload relies on marks only, so a wrong one makes a request run twice.
//!
//! | response | promise | what the gate does |
//! |---|---|---|
//! | `503` + [`UNAVAILABLE`] | the developer's server has certainly not seen the request | any method falls back to the in-cluster version |
//! | `502` + [`ERROR`] + [`LOST`] | it may have seen it, and no part of a response was sent | safe methods fall back to the in-cluster version |
//!
//! A response that breaks off after its head was forwarded ends, inside the tunnel, with the trailers of [`broken_off`].
//!
//! For gRPC a lost call is trailers-only `grpc-status: 13`: clients read a 502 as UNAVAILABLE, and would repeat the call.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

pub use super::headers::{ERROR, LOST, SERVED_BY, UNAVAILABLE};
use super::{Body, empty_body, headers, text_body};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why a request was certainly not forwarded to the developer's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unavailable {
    /// The request names no tunnel.
    NoAddress,
    /// No developer machine holds this address.
    NoTunnel,
    /// The developer machine refused the stream, or declared that it would not process it.
    Refused,
    /// The tunnel ended before the request was sent.
    NotSent,
    /// No beat of the developer machine arrived in time, and the request could not be repeated.
    Suspect,
    /// All streams of the tunnel are in use.
    Busy,
    /// The tunnel is for another workload's identity, or the caller's is unknown.
    Identity,
    /// The header list exceeds the tunnel's limit.
    HeadersTooLarge,
    /// The relay cannot parse the request.
    Malformed,
    /// A plain CONNECT, which the tunnel does not support.
    Connect,
    /// The developer's port accepts no connections.
    NothingListens,
    /// The developer machine or the relay is shutting down.
    Leaving,
    /// A reason that this version does not know.
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

    /// The reason as spelled in the mark and in metrics.
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

    /// Parses the mark of a response; `None` if it has none.
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

/// The response to a request that was running when its side broke.
pub(super) fn lost(reason: &str, grpc: bool) -> Response<Body> {
    let mut response = failed(reason, grpc);
    let mark = response.headers()[ERROR].clone();
    response.headers_mut().insert(LOST, mark);
    response
}

/// The error for a response that cannot be forwarded.
///
/// It has no mark that would make Envoy repeat the request.
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

/// Removes our headers from a response, except for valid marks, and adds whose machine answered.
///
/// Thus a malicious machine can only mark its own responses as failed.
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

/// The trailers of a response that broke off after its head was forwarded.
///
/// [`ERROR`] with the reason.
///
/// They arrive after the data, which a reset would overtake (h2 discards what it has not sent yet). The relay forwards the data and then breaks off itself.
/// A developer's server cannot forge them: [`ERROR`] is removed from its own trailers.
pub(super) fn broken_off(reason: &str) -> HeaderMap {
    HeaderMap::from_iter([(ERROR, visible(reason))])
}

/// Why a response with these trailers broke off; `None` if it is complete. See [`broken_off`].
pub(super) fn broken_off_reason(trailers: &HeaderMap) -> Option<String> {
    trailers
        .get(ERROR)
        .map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned())
}

/// A reason as a header value, with blanks in place of invalid characters.
pub(super) fn visible(reason: &str) -> HeaderValue {
    let text: String = reason
        .chars()
        .take(300)
        .map(|c| if c.is_ascii_graphic() { c } else { ' ' })
        .collect();
    HeaderValue::from_str(text.trim()).unwrap_or(HeaderValue::from_static("unknown"))
}

/// Percent-encodes `grpc-message` (gRPC over HTTP/2, "Status-Message").
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

/// Did the peer certainly not process a request that failed with this error (RFC 9113 §8.7)?
///
/// It refused the stream, or its GOAWAY excludes the stream's number.
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
