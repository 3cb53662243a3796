//! The relay against a hand-made peer on HTTP/2 frames.
//!
//! Which ends of a request prove that it was never processed, and which do not.

use std::time::Duration;

use bytes::Bytes;
use harness::fidelity::frames::{
    ACK, DATA, END_HEADERS, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, data, frame,
    headers,
};
use harness::tunnel::{Answer, Relay, ask, eventually, full, get_text, h1, h2, request, within};
use http_body_util::BodyExt;
use intercept_tunnel::{Secret, VERSION};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

/// The pulse is the first stream that a relay opens.
const PULSE: u32 = 1;
/// The first request is the next stream.
const REQUEST: u32 = 3;

struct Peer(TcpStream);

impl Peer {
    /// Opens a tunnel by hand, answers the pulse, and waits until the tunnel is up.
    ///
    /// Also returns its address.
    async fn open(relay: &Relay, settings: &[u8]) -> (Self, String) {
        let secret = Secret::random();
        let mut stream = TcpStream::connect(relay.control).await.unwrap();
        let head = format!(
            "GET /tunnel HTTP/1.1\r\nhost: relay\r\nconnection: upgrade\r\nupgrade: intercept-h2\r\nx-intercept-tunnel-version: {VERSION}\r\n\
             x-intercept-tunnel-secret: {}\r\nx-intercept-tunnel-name: by-hand\r\nx-intercept-tunnel-instance: 1\r\n\r\n",
            secret.expose()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 101"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        assert_eq!(preface, PREFACE);
        let mut peer = Self(stream);
        peer.send(SETTINGS, 0, 0, settings).await;
        peer.until_headers_of(PULSE).await;
        // `:status: 200` is the static table's eighth entry (RFC 7541 appendix A).
        peer.send(HEADERS, END_HEADERS, PULSE, &[0x88]).await;
        let address = secret.address().to_string();
        eventually("the tunnel is up", async || {
            let described = get_text(relay.control, &format!("/tunnels/{address}")).await;
            described.contains("true")
        })
        .await;
        (peer, address)
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let frame = frame(kind, flags, stream, payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// Reads frames up to the HEADERS of this stream, and acknowledges SETTINGS and PING.
    async fn until_headers_of(&mut self, wanted: u32) {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let (kind, flags, stream) = (
                head[3],
                head[4],
                u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            );
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await.unwrap();
            match kind {
                SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]).await,
                PING if flags & ACK == 0 => self.send(PING, ACK, 0, &payload).await,
                HEADERS if stream == wanted => return,
                _ => assert!(kind != GOAWAY, "the relay gave up: {payload:?}"),
            }
        }
    }

    async fn reset(&mut self, reason: u32) {
        self.send(RST_STREAM, 0, REQUEST, &reason.to_be_bytes())
            .await;
    }

    async fn goodbye(&mut self, last: u32, reason: u32) {
        let payload: Vec<u8> = last
            .to_be_bytes()
            .into_iter()
            .chain(reason.to_be_bytes())
            .collect();
        self.send(GOAWAY, 0, 0, &payload).await;
    }
}

#[derive(Clone, Copy, Debug)]
enum End {
    Reset(u32),
    Goodbye(u32, u32),
    GoodbyeAndClose(u32, u32),
    Close,
}

/// What a client gets if its request's stream ends like this, with a body of this size.
async fn ended(end: End, size: usize) -> Answer {
    let relay = Relay::start().await;
    let (mut peer, address) = Peer::open(&relay, &[]).await;
    let mut client = h1(relay.data).await;
    let method = if size == 0 { "GET" } else { "POST" };
    let sent = request(method, "/", &address, full(Bytes::from(vec![1; size])));
    let (answer, ()) = tokio::join!(ask(&mut client, sent), async {
        peer.until_headers_of(REQUEST).await;
        match end {
            End::Reset(reason) => peer.reset(reason).await,
            End::Goodbye(last, reason) => peer.goodbye(last, reason).await,
            End::GoodbyeAndClose(last, reason) => {
                peer.goodbye(last, reason).await;
                peer.0.shutdown().await.unwrap();
            }
            End::Close => peer.0.shutdown().await.unwrap(),
        }
    });
    answer
}

#[tokio::test]
async fn only_a_refused_stream_and_a_number_left_out_of_a_goodbye_prove_that_nothing_was_processed()
{
    for (end, status) in [
        (End::Reset(REFUSED_STREAM), 503),
        (End::Goodbye(PULSE, NO_ERROR), 503),
        (End::GoodbyeAndClose(PULSE, NO_ERROR), 503),
        (End::Reset(CANCEL), 502),
        (End::Reset(INTERNAL_ERROR), 502),
        (End::Goodbye(PULSE, INTERNAL_ERROR), 502),
        (End::GoodbyeAndClose(REQUEST, NO_ERROR), 502),
        (End::Close, 502),
    ] {
        for size in [0, 100_000] {
            let answer = within(harness::tunnel::SOON, ended(end, size)).await;
            let mark = if status == 503 {
                "x-intercept-unavailable"
            } else {
                "x-intercept-lost"
            };
            assert_eq!(answer.status.as_u16(), status, "{end:?} {size}: {answer:?}");
            assert!(
                answer.headers.contains_key(mark),
                "{end:?} {size}: {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn beyond_the_peers_streams_a_request_is_unavailable_at_once() {
    let relay = Relay::start().await;
    // SETTINGS_MAX_CONCURRENT_STREAMS (3) = 3: the pulse and two requests.
    let (mut peer, address) = Peer::open(&relay, &[0, 3, 0, 0, 0, 3]).await;
    tokio::spawn(async move { peer.until_headers_of(u32::MAX).await });
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let sent = request("GET", "/", &address, full(""));
        let mut client = h2(relay.data).await;
        waiting.push(tokio::spawn(
            async move { client.send(sent).await.map(|_| ()) },
        ));
    }
    let asked = async || {
        let answer = ask(
            &mut h1(relay.data).await,
            request("GET", "/", &address, full("")),
        )
        .await;
        answer.header("x-intercept-unavailable").to_owned()
    };
    let busy = tokio::time::timeout(Duration::from_secs(5), async {
        // The two above may not have arrived yet; then this request waits for a response, is cancelled and sent again.
        loop {
            if let Ok(reason) = tokio::time::timeout(Duration::from_millis(500), asked()).await {
                return reason;
            }
        }
    });
    assert_eq!(busy.await.expect("an answer at once"), "busy");
    waiting.remove(0).abort();
    eventually("a stream came free", async || {
        tokio::time::timeout(Duration::from_millis(200), asked())
            .await
            .is_err()
    })
    .await;
}

#[tokio::test]
async fn a_rogue_machine_speaks_for_itself_only() {
    let relay = Relay::start().await;
    let long = "x".repeat(120);
    for (status, mark, value, expected) in [
        ("200", "x-intercept-served-by", "orders-ann", None),
        ("200", "x-intercept", "orders-ann", None),
        ("200", "x-intercept-via", "orders-ann", None),
        ("200", "x-intercept-error", "a", None),
        ("200", "x-intercept-lost", "a", None),
        ("200", "x-intercept-unavailable", "busy", None),
        ("502", "x-intercept-lost", "without a reason", None),
        ("502", "x-intercept-error", "a\tb", Some("a b")),
        ("502", "x-intercept-error", &long, Some(long.as_str())),
        (
            "503",
            "x-intercept-unavailable",
            "what is this",
            Some("other"),
        ),
        ("503", "x-intercept-unavailable", "busy", Some("busy")),
    ] {
        let (mut peer, address) = Peer::open(&relay, &[]).await;
        let mut client = h1(relay.data).await;
        let sent = request("POST", "/", &address, full(""));
        let (answer, ()) = tokio::join!(ask(&mut client, sent), async {
            peer.until_headers_of(REQUEST).await;
            let fields = [(":status", status), (mark, value), ("x-a", "b")];
            let fields = fields.map(|(name, value)| (name.into(), value.into()));
            let frames = headers(REQUEST, &fields.to_vec(), true);
            peer.0.write_all(&frames).await.unwrap();
        });
        let what = format!("{status} {mark}: {value}: {answer:?}");
        assert_eq!(answer.status.as_str(), status, "{what}");
        assert_eq!(answer.header("x-a"), "b", "{what}");
        let ours = answer
            .headers
            .keys()
            .filter(|name| name.as_str().starts_with("x-intercept"));
        let mut ours: Vec<_> = ours
            .map(|name| (name.as_str(), answer.header(name.as_str())))
            .collect();
        ours.sort_unstable();
        let mut wanted: Vec<_> = expected.map(|value| (mark, value)).into_iter().collect();
        // No developer machine answered a request that was not forwarded.
        if status != "503" {
            wanted.push(("x-intercept-served-by", "by-hand"));
        }
        wanted.sort_unstable();
        assert_eq!(ours, wanted, "{what}");
    }
}

/// Data beyond the length in the head must not reach the next request's client.
#[tokio::test]
async fn answers_end_where_their_head_says() {
    for (length, note) in [("9", "length=5"), ("5", "length=9"), ("9", "length=9")] {
        let relay = Relay::start().await;
        let (mut peer, address) = Peer::open(&relay, &[]).await;
        let mut client = TcpStream::connect(relay.data).await.unwrap();
        let head = format!(
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-intercept-address: {address}\r\n\r\n"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        peer.until_headers_of(REQUEST).await;
        let fields = [
            (":status", "200"),
            ("content-length", length),
            ("x-intercept", note),
        ];
        let fields = fields.map(|(name, value)| (name.into(), value.into()));
        let body = vec![b'~'; length.parse().unwrap()];
        let answer = [
            headers(REQUEST, &fields.to_vec(), false),
            data(REQUEST, &body, true),
        ];
        peer.0.write_all(&answer.concat()).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        let said = format!("content-length: {length}\r\n");
        assert!(text.contains(&said), "{note}: {text}");
        assert_eq!(text.matches('~').count(), body.len(), "{note}: {text}");
    }
}

/// Requests that are answered with a head and some data, followed at once by a reset.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_break_arrives() {
    const SENT: usize = 5_000;
    let relay = Relay::start().await;
    let (mut peer, address) = Peer::open(&relay, &[]).await;
    let mut stream = REQUEST;
    for is_http2 in [false, true] {
        // The larger body does not fit the first window.
        for size in [0, 1_000, 300_000] {
            for round in 0..100 {
                let what = format!("HTTP/2: {is_http2}, {size} bytes up, round {round}");
                let mut client = match is_http2 {
                    true => h2(relay.data).await,
                    false => h1(relay.data).await,
                };
                let method = if size == 0 { "GET" } else { "POST" };
                let body = full(Bytes::from(vec![1; size]));
                let sent = client.send(request(method, "/", &address, body));
                let breaking = async {
                    peer.until_headers_of(stream).await;
                    peer.send(HEADERS, END_HEADERS, stream, &[0x88]).await;
                    peer.send(DATA, 0, stream, &[1; SENT]).await;
                    let reason = INTERNAL_ERROR.to_be_bytes();
                    peer.send(RST_STREAM, 0, stream, &reason).await;
                };
                let both = async { tokio::join!(sent, breaking).0 };
                let answer = within(harness::tunnel::SOON, both).await;
                let mut body = answer
                    .unwrap_or_else(|error| panic!("{what}: {error}"))
                    .into_body();
                let mut read = 0;
                let ended = loop {
                    match within(harness::tunnel::SOON, body.frame()).await {
                        Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                        ended => break ended,
                    }
                };
                assert!(matches!(ended, Some(Err(_))), "{what}: it ended well");
                assert_eq!(read, SENT, "{what}");
                stream += 2;
            }
        }
    }
}
