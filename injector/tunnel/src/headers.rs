//! Names of the tunnel's own headers, and headers that must not pass from hop to hop.
//!
//! Knows headers only: no sockets, no bodies.

use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::settings;

/// The tunnel that a request is for.
///
/// The filter writes it, the relay reads it, the developer's server never sees it.
pub const ADDRESS: HeaderName = HeaderName::from_static("x-intercept-address");
/// The upstream cluster that the filter chose. The gate removes it; both ends remove it again.
pub const CLUSTER: HeaderName = HeaderName::from_static("x-intercept-cluster");
/// The intercepts that a request passed, one line each.
///
/// The developer's end adds its own, so that the filter ignores a request that returns to the cluster.
pub const VIA: HeaderName = HeaderName::from_static("x-intercept-via");
/// Marks a request that was certainly not forwarded; the value is the reason.
pub const UNAVAILABLE: HeaderName = HeaderName::from_static("x-intercept-unavailable");
/// Marks a request that may have been forwarded, without any response sent.
pub const LOST: HeaderName = HeaderName::from_static("x-intercept-lost");
/// The reason for an error response, as text.
pub const ERROR: HeaderName = HeaderName::from_static("x-intercept-error");
/// The intercept whose developer machine sent this response.
pub const SERVED_BY: HeaderName = HeaderName::from_static("x-intercept-served-by");

/// All names of our own headers. Any other `x-intercept-…` is an ordinary header and passes.
const OURS: [HeaderName; 8] = [
    HeaderName::from_static("x-intercept"),
    ADDRESS,
    CLUSTER,
    VIA,
    SERVED_BY,
    ERROR,
    LOST,
    UNAVAILABLE,
];

const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Headers that Envoy removes from every message, too.
///
/// It removes no header just because `Connection` lists it.
const HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Removes hop-by-hop headers.
///
/// `te: trailers` stays: gRPC needs it, and it is true of every hop here.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let takes_trailers =
        list_members(headers, &header::TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    HOP_BY_HOP
        .iter()
        .for_each(|name| drop(headers.remove(name)));
    headers.remove(header::TE);
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes our headers from a response or its trailers, so that no peer can forge a mark.
pub(super) fn remove_ours(headers: &mut HeaderMap) {
    OURS.iter().for_each(|name| drop(headers.remove(name)));
}

/// Removes our headers from a request, except for [`VIA`].
///
/// That one must stay visible along a chain of intercepts.
pub(super) fn remove_ours_from_request(headers: &mut HeaderMap) {
    let others = OURS.into_iter().filter(|name| *name != VIA);
    others.for_each(|name| drop(headers.remove(name)));
}

/// Does a client ask to switch to WebSocket (RFC 6455 §4.1)?
pub(super) fn wants_websocket(headers: &HeaderMap) -> bool {
    list_members(headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"))
        && headers
            .get(header::UPGRADE)
            .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Does the client hold its body back until a `100 Continue` (RFC 9110 §10.1.1)?
pub(super) fn expects_continue(headers: &HeaderMap) -> bool {
    headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Is the method safe (RFC 9110 §9.2.1), so that a request can be repeated?
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Is this gRPC, whose errors are trailers, not statuses? gRPC-Web is not.
///
/// It is HTTP/1.1 with trailers in the body.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// Is a header list within the limits of both ends?
pub(super) fn fits(headers: &HeaderMap) -> bool {
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 32)
        .sum();
    headers.len() <= settings::HEADER_FIELDS && size <= settings::HEADER_LIST
}

/// Removes the receiving sidecar's own element from `x-forwarded-client-cert`.
///
/// It is the last one, and the others are those of the workload's own sidecar.
///
/// If the last element does not state the peer, the sidecar appends nothing.
pub(super) fn cut_own_hop(headers: &mut HeaderMap, peer: &str) {
    let mut lines: Vec<HeaderValue> = headers
        .get_all(FORWARDED_CLIENT_CERT)
        .iter()
        .cloned()
        .collect();
    let Some(last) = lines.pop() else { return };
    let (before, element) = split_last(last.as_bytes());
    if !states(element, peer) {
        return;
    }
    lines.extend(before.and_then(|before| HeaderValue::from_bytes(before).ok()));
    headers.remove(FORWARDED_CLIENT_CERT);
    for line in lines {
        headers.append(FORWARDED_CLIENT_CERT, line);
    }
}

/// Splits off the last element.
///
/// Reads from the end: only the last element is known to be well-formed, and an open quote that a client left before it would swallow it.
fn split_last(value: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let mut quoted = false;
    for at in (0..value.len()).rev() {
        let before = &value[..at];
        match value[at] {
            b'"' if !ends_in_escape(before) => quoted = !quoted,
            b',' if !quoted => return (Some(before), &value[at + 1..]),
            _ => {}
        }
    }
    (None, value)
}

/// Does the text end in an escape?
///
/// A backslash escapes the next character, including a backslash (RFC 2253, for a certificate's subject).
fn ends_in_escape(text: &[u8]) -> bool {
    text.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Does a well-formed element have this `URI`?
fn states(element: &[u8], uri: &str) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    let mut pairs = element.split(|byte| {
        let splits = *byte == b';' && !quoted;
        quoted ^= *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        splits
    });
    pairs.any(|pair| {
        let (key, value) = pair.split_at(pair.len().min(4));
        key.eq_ignore_ascii_case(b"uri=") && value == uri.as_bytes()
    })
}

fn list_members<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> + use<'a> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    name.parse::<HeaderName>().unwrap(),
                    value.parse::<HeaderValue>().unwrap(),
                )
            })
            .collect()
    }

    /// Sorted, because a map keeps no order between names.
    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn only_hop_by_hop_headers_are_removed() {
        let mut map = headers(&[
            ("connection", "close, X-Foo"),
            ("x-foo", "1"),
            ("keep-alive", "5"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("host", "a"),
        ]);
        remove_hop_by_hop(&mut map);
        assert_eq!(names(&map), ["host", "http2-settings", "x-foo"]);
    }

    #[test]
    fn te_keeps_trailers_and_nothing_else() {
        let mut map = headers(&[("te", "gzip;q=0.5, trailers"), ("connection", "te")]);
        remove_hop_by_hop(&mut map);
        assert_eq!(map["te"], "trailers");
        let mut map = headers(&[("te", "gzip")]);
        remove_hop_by_hop(&mut map);
        assert!(map.is_empty());
    }

    #[test]
    fn only_our_own_names_are_removed() {
        let ours = OURS.map(|name| name.as_str().to_owned());
        let others = [
            "id", "dev", "internal", "held", "switched", "status", "peer",
        ]
        .map(|name| format!("x-intercept-{name}"));
        let all: Vec<_> = ours.iter().chain(&others).collect();
        let pairs: Vec<_> = all.iter().map(|name| (name.as_str(), "1")).collect();
        let mut map = headers(&pairs);
        remove_ours_from_request(&mut map);
        assert_eq!(names(&map).len(), others.len() + 1);
        assert!(map.contains_key(VIA));
        remove_ours(&mut map);
        let left = names(&map);
        let mut expected = others.clone();
        expected.sort_unstable();
        assert_eq!(left, expected);
    }

    #[test]
    fn a_switch_to_websocket_needs_both_headers() {
        assert!(wants_websocket(&headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket")
        ])));
        assert!(!wants_websocket(&headers(&[("upgrade", "websocket")])));
        assert!(!wants_websocket(&headers(&[
            ("connection", "upgrade, http2-settings"),
            ("upgrade", "h2c")
        ])));
    }

    #[test]
    fn grpc_web_is_no_grpc() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web+proto", false),
            ("application/json", false),
        ] {
            assert_eq!(
                is_grpc(&headers(&[("content-type", kind)])),
                expected,
                "{kind}"
            );
        }
    }

    const PEER: &str = "spiffe://cluster.local/ns/shop/sa/orders";

    /// Elements as the relay's sidecar appends them, with subjects in OpenSSL's notation.
    fn own_elements() -> [String; 4] {
        ["", "CN=a", r#"CN=a\"b\,c\;d,O=\\"#, r#"O=\\\",CN=URI=x"#].map(|subject| {
            format!("By=spiffe://x/relay;Hash=1;Subject=\"{subject}\";URI={PEER};DNS=a")
        })
    }

    fn cut(lines: &[&str]) -> Vec<String> {
        let lines: Vec<_> = lines
            .iter()
            .map(|line| ("x-forwarded-client-cert", *line))
            .collect();
        let mut headers = headers(&lines);
        cut_own_hop(&mut headers, PEER);
        let left = headers.get_all(FORWARDED_CLIENT_CERT).iter();
        left.map(|line| line.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn own_hop_is_cut_behind_any_text() {
        let mut texts = vec![String::new()];
        let mut cases = 0;
        for _ in 0..=6 {
            for own in own_elements() {
                for before in &texts {
                    assert_eq!(cut(&[&format!("{before},{own}")]), [before.as_str()]);
                    cases += 1;
                }
            }
            texts = texts
                .iter()
                .flat_map(|text| ['"', '\\', ',', ';', 'a'].map(|next| format!("{text}{next}")))
                .collect();
        }
        assert_eq!(
            cases,
            4 * (0..=6).map(|power| 5_usize.pow(power)).sum::<usize>()
        );
    }

    proptest::proptest! {
        #[test]
        fn own_hop_is_cut_behind_any_header(before in r#"([",;\\=]|URI=|spiffe://victim|[ -~]){0,30}"#) {
            for own in own_elements() {
                proptest::prop_assert_eq!(cut(&[&format!("{before},{own}")]), vec![before.clone()]);
            }
        }
    }

    /// `make fuzz` runs it 10⁸ times; `FUZZ_HOPS` sets the number.
    #[test]
    fn own_hop_is_cut_behind_random_text() {
        const PARTS: [&[u8]; 12] = [
            b"\"",
            b"\\",
            b",",
            b";",
            b"=",
            b"URI=",
            b"By=",
            b"spiffe://victim",
            b"a",
            b" ",
            b"\xff",
            b"\\\"",
        ];
        let rounds = std::env::var("FUZZ_HOPS").map_or(20_000, |text| text.parse().unwrap());
        let elements = own_elements();
        let (mut state, mut value) = (0_u64, Vec::new());
        for round in 0..rounds {
            value.clear();
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(round | 1);
            let mut bits = state >> 16;
            while bits > 0 {
                value.extend(PARTS[(bits % 13) as usize % PARTS.len()]);
                bits /= 13 * 13;
            }
            let length = value.len();
            let own = elements[(state >> 8) as usize % elements.len()].as_bytes();
            value.push(b',');
            value.extend(own);
            assert_eq!(split_last(&value), (Some(&value[..length]), own), "{round}");
            assert!(states(own, PEER), "{round}");
        }
    }

    #[test]
    fn only_an_own_hop_is_cut() {
        let [own, ..] = own_elements();
        let other = "By=x;URI=spiffe://other";
        for (lines, left) in [
            (vec![own.as_str()], vec![]),
            (vec![other, &own], vec![other]),
            (vec![&own, other], vec![own.as_str(), other]),
            (vec![other], vec![other]),
            (vec![], vec![]),
        ] {
            assert_eq!(cut(&lines), left, "{lines:?}");
        }
        let quoted = format!("Subject=\"URI={PEER}\"");
        assert_eq!(cut(&[&quoted]), [quoted.as_str()]);
    }

    #[test]
    fn header_list_passes_up_to_limits() {
        let many = |count: usize| -> HeaderMap {
            (0..count)
                .map(|n| {
                    (
                        format!("x-{n}").parse().unwrap(),
                        HeaderValue::from_static("1"),
                    )
                })
                .collect()
        };
        assert!(fits(&many(1_000)));
        assert!(!fits(&many(1_001)));
        assert!(fits(&headers(&[(
            "x",
            &"v".repeat(settings::HEADER_LIST - 33)
        )])));
        assert!(!fits(&headers(&[(
            "x",
            &"v".repeat(settings::HEADER_LIST - 32)
        )])));
    }
}
