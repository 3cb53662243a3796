//! Messages arrive as they were framed, in both directions.
//!
//! Clients and developer's servers are sockets here, because a library repairs what it reads.

use std::time::Duration;

use bytes::Bytes;
use harness::origin::{self, Origin, Received};
use harness::tunnel::{Machine, Relay, SOON, developer, eventually};
use http::{HeaderMap, Method, Request};
use intercept_tunnel::developer::{LocalProtocol, RequestOutcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND",
];
const OK: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// Sends bytes to the relay's data port for this machine, and reads until the other side closes.
async fn exchange(relay: &Relay, address: &str, line: &str, rest: &str) -> String {
    let mut stream = TcpStream::connect(relay.data).await.unwrap();
    let head = format!(
        "{line}\r\nhost: orders\r\nconnection: close\r\nx-intercept-address: {address}\r\n"
    );
    stream.write_all((head + rest).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset at the end is as good as a close.
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn rig(origin: &Origin) -> (Relay, Machine) {
    let relay = Relay::start().await;
    let machine = Machine::up(relay.control, developer(origin.port)).await;
    (relay, machine)
}

fn framing(request: &Received) -> (Option<&str>, Option<&str>, &str) {
    (
        request.header("content-length"),
        request.header("transfer-encoding"),
        &request.body,
    )
}

#[tokio::test]
async fn http1_requests_keep_their_framing() {
    const CHUNKED: &str = "transfer-encoding: chunked\r\n\r\n";
    for (sent, expected) in [
        ("\r\n".to_owned(), (None, None, "")),
        (
            "content-length: 0\r\n\r\n".to_owned(),
            (Some("0"), None, ""),
        ),
        (
            "content-length: 5\r\n\r\nhello".to_owned(),
            (Some("5"), None, "hello"),
        ),
        (
            format!("{CHUNKED}5\r\nhello\r\n0\r\n\r\n"),
            (None, Some("chunked"), "5\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            format!("{CHUNKED}0\r\n\r\n"),
            (None, Some("chunked"), "0\r\n\r\n"),
        ),
    ] {
        for method in METHODS {
            let origin = Origin::answering(OK).await;
            let (relay, machine) = rig(&origin).await;
            let answer = exchange(
                &relay,
                &machine.address(),
                &format!("{method} /a HTTP/1.1"),
                &sent,
            )
            .await;
            assert!(
                answer.starts_with("HTTP/1.1 204"),
                "{method} {sent:?}: {answer}"
            );
            let request = origin.only().await;
            assert_eq!(
                framing(&request),
                expected,
                "{method} {sent:?}: {request:?}"
            );
        }
    }
}

/// Sends one request over HTTP/2: its head, then any data and trailers.
///
/// Returns the status of the response.
async fn send_h2(
    relay: &Relay,
    machine: &Machine,
    method: &str,
    length: Option<usize>,
    data: Option<&'static str>,
    trailers: Option<HeaderMap>,
) -> u16 {
    let stream = TcpStream::connect(relay.data).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri("http://orders/a")
        .header("te", "trailers")
        .header("x-intercept-address", machine.address());
    if let Some(length) = length {
        request = request.header("content-length", length);
    }
    let ends = data.is_none() && trailers.is_none();
    let mut client = client.ready().await.unwrap();
    let (answer, mut body) = client
        .send_request(request.body(()).unwrap(), ends)
        .unwrap();
    if let Some(data) = data {
        body.send_data(Bytes::from(data), trailers.is_none())
            .unwrap();
    }
    if let Some(trailers) = trailers {
        body.send_trailers(trailers).unwrap();
    }
    timeout(SOON, answer)
        .await
        .unwrap()
        .unwrap()
        .status()
        .as_u16()
}

#[tokio::test]
async fn http2_requests_keep_their_framing() {
    for (length, data, expected) in [
        (None, None, (None, None, "")),
        (Some(0), None, (Some("0"), None, "")),
        (Some(5), Some("hello"), (Some("5"), None, "hello")),
        (
            None,
            Some("hello"),
            (None, Some("chunked"), "5\r\nhello\r\n0\r\n\r\n"),
        ),
    ] {
        for method in METHODS {
            let origin = Origin::answering(OK).await;
            let (relay, machine) = rig(&origin).await;
            let status = send_h2(&relay, &machine, method, length, data, None).await;
            assert_eq!(status, 204, "{method} {length:?} {data:?}");
            let request = origin.only().await;
            assert_eq!(framing(&request), expected, "{method}: {request:?}");
        }
    }
}

/// A server on HTTP/2 frames.
///
/// Reports whether each request's head ended its stream, its headers, body and trailers.
async fn h2_origin() -> (
    u16,
    tokio::sync::mpsc::Receiver<(bool, HeaderMap, Bytes, HeaderMap)>,
) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, rx) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let seen = seen.clone();
                    tokio::spawn(async move {
                        let (parts, mut body) = request.into_parts();
                        let ended = body.is_end_stream();
                        let mut data = Vec::new();
                        while let Some(chunk) = body.data().await {
                            data.extend_from_slice(&chunk.unwrap());
                        }
                        let trailers = body.trailers().await.unwrap().unwrap_or_default();
                        seen.send((ended, parts.headers, data.into(), trailers))
                            .await
                            .unwrap();
                        respond
                            .send_response(http::Response::new(()), true)
                            .unwrap();
                    });
                }
            });
        }
    });
    (port, rx)
}

#[tokio::test]
async fn http2_servers_see_the_same_framing() {
    let (port, mut seen) = h2_origin().await;
    let relay = Relay::start().await;
    let mut offered = developer(port);
    offered.local.protocol = LocalProtocol::Http2;
    let machine = Machine::up(relay.control, offered).await;
    let trailers: HeaderMap = [("x-sum".parse().unwrap(), "42".parse().unwrap())]
        .into_iter()
        .collect();
    for method in METHODS {
        for (length, data, trailers) in [
            (None, None, None),
            (Some(0), None, None),
            (Some(5), Some("hello"), None),
            (None, Some("hello"), None),
            (None, Some("hello"), Some(trailers.clone())),
            (None, None, Some(trailers.clone())),
        ] {
            let what = format!("{method} {length:?} {data:?} {trailers:?}");
            let status = send_h2(&relay, &machine, method, length, data, trailers.clone()).await;
            assert_eq!(status, 200, "{what}");
            let (ended, headers, body, got) = timeout(SOON, seen.recv()).await.unwrap().unwrap();
            assert_eq!(ended, data.is_none() && trailers.is_none(), "{what}");
            let expected = length.map(|length: usize| length.to_string());
            let length = headers
                .get("content-length")
                .map(|value| value.to_str().unwrap());
            assert_eq!(length, expected.as_deref(), "{what}");
            assert_eq!(body, data.unwrap_or_default(), "{what}");
            assert_eq!(got, trailers.unwrap_or_default(), "{what}");
        }
    }
}

#[tokio::test]
async fn only_our_names_are_taken() {
    let answer = "HTTP/1.1 200 OK\r\nx-intercept-dev: a\r\nx-intercept-status: 204\r\nx-intercept-switched: b\r\nx-intercept-held: c\r\n\
                  x-intercept: d\r\nx-intercept-via: e\r\nx-intercept-lost: f\r\ncontent-length: 0\r\n\r\n";
    let origin = Origin::answering(answer).await;
    let (relay, machine) = rig(&origin).await;
    let sent = "x-intercept-dev: bob\r\nx-intercept-internal: hold\r\nx-intercept-held: 0\r\nx-intercept-peer: me\r\n\
                x-intercept-via: orders-ann\r\nx-intercept-via: orders-eve\r\nx-intercept-served-by: me\r\nx-intercept: me\r\n\r\n";
    let answer = exchange(&relay, &machine.address(), "GET / HTTP/1.1", sent).await;
    let request = origin.only().await;
    for (name, value) in [
        ("dev", "bob"),
        ("internal", "hold"),
        ("held", "0"),
        ("peer", "me"),
    ] {
        let name = format!("x-intercept-{name}");
        assert_eq!(request.header(&name), Some(value), "{name}: {request:?}");
    }
    let via: Vec<_> = request.headers("x-intercept-via").collect();
    assert_eq!(via, ["orders-ann", "orders-eve", "orders-bob"]);
    for name in [
        "x-intercept",
        "x-intercept-served-by",
        "x-intercept-address",
    ] {
        assert_eq!(request.header(name), None, "{request:?}");
    }
    for line in [
        "dev: a",
        "status: 204",
        "switched: b",
        "held: c",
        "served-by: orders-bob",
    ] {
        assert!(
            answer.contains(&format!("\r\nx-intercept-{line}\r\n")),
            "{line}: {answer}"
        );
    }
    for name in ["x-intercept:", "x-intercept-via:", "x-intercept-lost:"] {
        assert!(!answer.contains(&format!("\r\n{name}")), "{name}: {answer}");
    }
}

#[tokio::test]
async fn an_upload_given_up_is_no_whole_request() {
    let origin =
        Origin::start(|mut stream| async move { origin::receive(&mut stream).await }).await;
    let (relay, machine) = rig(&origin).await;
    let mut rounds = 0;
    // Over HTTP/1.1: the connection ends midway.
    for _ in 0..20 {
        for framing in ["content-length: 100", "transfer-encoding: chunked"] {
            let mut stream = TcpStream::connect(relay.data).await.unwrap();
            let head = format!(
                "POST / HTTP/1.1\r\nhost: orders\r\nx-intercept-address: {}\r\n{framing}\r\n\r\n5\r\nhello\r\n",
                machine.address()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(stream);
            rounds += 1;
        }
        // Over HTTP/2: the stream is reset, for any reason.
        for reason in [
            h2::Reason::CANCEL,
            h2::Reason::NO_ERROR,
            h2::Reason::INTERNAL_ERROR,
        ] {
            let stream = TcpStream::connect(relay.data).await.unwrap();
            let (client, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            let request =
                Request::post("http://orders/a").header("x-intercept-address", machine.address());
            let mut client = client.ready().await.unwrap();
            let (_answer, mut body) = client
                .send_request(request.body(()).unwrap(), false)
                .unwrap();
            body.send_data(Bytes::from_static(b"hello"), false).unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
            body.send_reset(reason);
            rounds += 1;
        }
    }
    eventually("every connection ended", async || {
        origin.received().len() == rounds
    })
    .await;
    let whole: Vec<_> = origin
        .received()
        .into_iter()
        .filter(|request| request.whole)
        .collect();
    assert_eq!(whole, []);
}

#[tokio::test]
async fn answers_of_old_servers_pass() {
    for (answer, expected) in [
        (
            "HTTP/1.1 200 OK\r\nx-folded: a\r\n  b\r\n\tc\r\ncontent-length: 2\r\n\r\nhi",
            "x-folded: a b c\r\n",
        ),
        ("HTTP/1.0 200 OK\r\n\r\nhi", ""),
        ("HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nhi", ""),
        (
            "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            "",
        ),
        ("HTTP/1.1 299 Odd\r\ncontent-length: 2\r\n\r\nhi", ""),
        ("HTTP/1.1 599 Odd\r\ncontent-length: 2\r\n\r\nhi", ""),
        (
            "HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 2\r\n\r\nhi",
            "set-cookie: a=1\r\nset-cookie: b=2\r\n",
        ),
    ] {
        let origin = Origin::answering(answer).await;
        let (relay, machine) = rig(&origin).await;
        let got = exchange(
            &relay,
            &machine.address(),
            "POST / HTTP/1.1",
            "content-length: 0\r\n\r\n",
        )
        .await;
        let status = answer.rsplit("HTTP/1.").next().unwrap()[2..5].to_owned();
        assert!(
            got.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer:?}: {got}"
        );
        assert!(
            got.contains(expected) && got.contains("hi"),
            "{answer:?}: {got}"
        );
    }
}

#[tokio::test]
async fn lengths_without_a_body_pass() {
    for (method, status) in [("HEAD", 200), ("HEAD", 404)] {
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 1234\r\n\r\n");
        let origin = Origin::answering(answer).await;
        let (relay, machine) = rig(&origin).await;
        let got = exchange(
            &relay,
            &machine.address(),
            &format!("{method} / HTTP/1.1"),
            "\r\n",
        )
        .await;
        assert!(got.starts_with(&format!("HTTP/1.1 {status}")), "{got}");
        assert!(
            got.contains("\r\ncontent-length: 1234\r\n"),
            "{method} {status}: {got}"
        );
    }
}

/// The reported outcome of a request to this port, and the client's result.
async fn reason(port: u16, method: &str, protocol: LocalProtocol) -> (RequestOutcome, String) {
    let relay = Relay::start().await;
    let mut offered = developer(port);
    offered.local.protocol = protocol;
    let mut machine = Machine::up(relay.control, offered).await;
    let answer = exchange(
        &relay,
        &machine.address(),
        &format!("{method} / HTTP/1.1"),
        "\r\n",
    )
    .await;
    (machine.line().await.outcome, answer)
}

#[tokio::test]
async fn tls_on_the_port_is_named() {
    let alert = Origin::start(|mut stream| async move {
        let request = origin::receive(&mut stream).await;
        let alert = b"\x15\x03\x03\x00\x02\x02\x46";
        stream.write_all(alert).await.unwrap();
        stream.shutdown().await.unwrap();
        // Closing with unread bytes would be a reset, which overtakes the alert.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        request
    })
    .await;
    let port = alert.port;
    for protocol in [LocalProtocol::Auto, LocalProtocol::Http2] {
        let hint =
            format!("port {port} speaks TLS, and the developer's server has to speak plain HTTP");
        let (outcome, answer) = reason(port, "POST", protocol).await;
        assert_eq!(outcome, RequestOutcome::Lost(hint.clone()), "{protocol:?}");
        assert!(
            answer.starts_with("HTTP/1.1 502") && answer.contains(&hint),
            "{answer}"
        );
        let (outcome, _) = reason(port, "GET", protocol).await;
        assert_eq!(outcome, RequestOutcome::FellBack(hint), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_port_that_closes_is_named() {
    // As `openssl s_server` does.
    let origin =
        Origin::start(|mut stream| async move { origin::receive(&mut stream).await }).await;
    let hint = format!(
        "port {} closed the connection without an answer; does it speak plain HTTP, and is it no forwarded port without a target?",
        origin.port
    );
    let (outcome, answer) = reason(origin.port, "POST", LocalProtocol::Auto).await;
    assert_eq!(outcome, RequestOutcome::Lost(hint.clone()));
    assert!(answer.contains(&hint), "{answer}");
}

#[tokio::test]
async fn lines_say_what_the_client_saw() {
    let whole = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    let part = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello";
    let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for (answer, bytes) in [(whole, None), (part, Some(5)), (chunks, Some(5))] {
        for method in ["GET", "POST"] {
            let origin = Origin::answering(answer).await;
            let (outcome, _) = reason(origin.port, method, LocalProtocol::Auto).await;
            match (&outcome, bytes) {
                (RequestOutcome::Answered, None) => {}
                (RequestOutcome::BrokeOff { bytes, .. }, Some(expected)) => {
                    assert_eq!(*bytes, expected)
                }
                other => panic!("{method} {answer:?}: {other:?}"),
            }
        }
    }
}

/// More headers than pass, and more than are read.
#[tokio::test]
async fn too_many_headers_are_lost_for_every_method() {
    for count in [1_010, 5_000] {
        let headers: String = (0..count).map(|n| format!("x-{n}: v\r\n")).collect();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{headers}\r\n");
        for method in ["GET", "POST"] {
            let origin = Origin::answering(answer.clone()).await;
            let (outcome, answer) = reason(origin.port, method, LocalProtocol::Auto).await;
            assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
            assert!(!answer.contains("x-intercept-lost"), "{answer}");
            let RequestOutcome::Lost(why) = outcome else {
                panic!("{method} {count}: {outcome:?}")
            };
            assert!(why.contains("larger than the tunnel passes"), "{why}");
        }
    }
}

#[tokio::test]
async fn long_answers_have_their_line_at_once_and_when_they_break() {
    let origin = Origin::start(|mut stream| async move {
        let request = origin::receive(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        stream.write_all(head).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        request
    })
    .await;
    let (relay, mut machine) = rig(&origin).await;
    let address = machine.address();
    let (_, (first, second)) = tokio::join!(
        exchange(&relay, &address, "GET / HTTP/1.1", "\r\n"),
        async { (machine.line().await.outcome, machine.line().await.outcome) }
    );
    assert_eq!(first, RequestOutcome::Answered);
    assert!(
        matches!(second, RequestOutcome::BrokeOff { bytes: 5, .. }),
        "{second:?}"
    );
}
