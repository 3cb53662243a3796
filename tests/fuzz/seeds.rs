//! Seeds for random changes: valid and nearly valid input for each reachable port.
//!
//! They consist of pieces that a change can move.
//! Each finding becomes another seed.

use harness::fidelity::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, data, frame, headers, opening,
};

/// A line of HTTP/1.1, a frame of HTTP/2, or other bytes that belong together.
#[derive(Clone, Debug)]
pub struct Piece {
    pub bytes: Vec<u8>,
    pub is_frame: bool,
}

/// Stages sent one after the other; the sender waits for input before each one but the first.
pub type Stages = Vec<Vec<Piece>>;

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const PADDED: u8 = 8;

/// Splits a text into lines, with the line breaks of HTTP/1.1.
fn lines(text: &str) -> Vec<Piece> {
    let lines = text.split_inclusive('\n');
    let lines = lines.map(|line| Piece {
        bytes: line.replace('\n', "\r\n").into_bytes(),
        is_frame: false,
    });
    lines.collect()
}

/// Splits bytes into frames.
fn frames(mut bytes: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    while let [a, b, c, ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (one, rest) = bytes.split_at(9 + length);
        pieces.push(Piece {
            bytes: one.to_owned(),
            is_frame: true,
        });
        bytes = rest;
    }
    pieces
}

fn head(stream: u32, fields: &[(&str, &str)], ends: bool) -> Vec<u8> {
    let fields = fields
        .iter()
        .map(|(name, value)| (name.as_bytes().to_owned(), value.as_bytes().to_owned()));
    headers(stream, &fields.collect::<Vec<_>>(), ends)
}

/// The start of an HTTP/2 client's connection.
fn client(then: Vec<Vec<u8>>) -> Vec<Piece> {
    let preface = Piece {
        bytes: PREFACE.to_owned(),
        is_frame: false,
    };
    let rest = frames(&[opening(), then.concat()].concat());
    std::iter::once(preface).chain(rest).collect()
}

/// Requests for a data port; `@` is replaced by the line with the address.
const REQUESTS: &[&str] = &[
    "GET /hello HTTP/1.1\nhost: a\n@\n\n",
    "GET /hello HTTP/1.1\nhost: a\n\n",
    "GET /hello HTTP/1.1\nhost: a\n@\n@\nx-intercept-address: 0\n\n",
    "GET /hello HTTP/1.0\n@\nconnection: keep-alive\n\n",
    "HEAD /hello HTTP/1.1\nhost: a\n@\n\n",
    "OPTIONS * HTTP/1.1\nhost: a\n@\n\n",
    "CONNECT a:1 HTTP/1.1\nhost: a:1\n@\n\n",
    "GET http://b/headers?q=\"{}\" HTTP/1.1\nhost: a\n@\n\n",
    "GET /headers HTTP/1.1\nhost: a\n@\nconnection: x-intercept-address, te, close\nte: trailers\nkeep-alive: 5\n\n",
    "GET /headers HTTP/1.1\nhost: a\n@\nx-intercept-peer: spiffe://a\nx-forwarded-client-cert: URI=b;x=\"\\\"\";By=c,URI=spiffe://a\nx-intercept-via: orders-bob\nx-intercept-cluster: c\n\n",
    "POST /echo HTTP/1.1\nhost: a\n@\ncontent-length: 5\n\nhello",
    "POST /echo HTTP/1.1\nhost: a\n@\ntransfer-encoding: chunked\ntrailer: x-a\n\n5;e=\"1\"\nhello\n0\nx-a: 1\n\n",
    "POST /sink HTTP/1.1\nhost: a\n@\nexpect: 100-continue\ncontent-length: 5\n\nhello",
    "POST /early HTTP/1.1\nhost: a\n@\ncontent-length: 300000\n\nhello",
    "POST /echo HTTP/1.1\nhost: a\n@\ncontent-type: application/grpc\nte: trailers\ncontent-length: 10\n\n\0\0\0\0\u{5}hello",
    "GET /hello HTTP/1.1\nhost: a\n@\n\nPOST /sink HTTP/1.1\nhost: a\n@\ncontent-length: 5\n\nhelloGET /headers HTTP/1.1\nhost: a\n@\n\n",
    "GET /hello HTTP/1.1\nhost: a\n@\nconnection: upgrade\nupgrade: websocket\nsec-websocket-version: 13\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\n\n",
    "GET /hello HTTP/1.1\nhost: a\n@\nconnection: upgrade, http2-settings\nupgrade: h2c\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\n\n",
    "GET /big/100000 HTTP/1.1\nhost: a\n@\n\n",
    "GET /events HTTP/1.1\nhost: a\n@\n\n",
    "GET /hang HTTP/1.1\nhost: a\n@\n\n",
    "GET /forge HTTP/1.1\nhost: a\n@\n\n",
];

/// Seeds for a data port of the relay, with a tunnel that is up.
pub fn data_port(address: &str) -> Vec<Stages> {
    let line = format!("x-intercept-address: {address}");
    let mut seeds: Vec<Stages> = REQUESTS
        .iter()
        .map(|text| vec![lines(&text.replace('@', &line))])
        .collect();
    let fields = |method: &'static str, path: &'static str| {
        [
            (":method", method),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", path),
            ("x-intercept-address", address),
        ]
    };
    let ask = |stream, method, path, ends| head(stream, &fields(method, path), ends);
    let trailers = head(1, &[("x-a", "1"), ("grpc-status", "0")], true);
    let more =
        |path, more: &[(&str, &str)]| head(1, &[&fields("POST", path)[..], more].concat(), false);
    let list = ask(1, "GET", "/hello", true);
    let (first, rest) = list[9..].split_at(20);
    let wide: Vec<_> = std::iter::repeat_n(("x-wide", "1"), 1_100).collect();
    for then in [
        vec![ask(1, "GET", "/hello", true)],
        vec![
            ask(1, "POST", "/echo", false),
            data(1, b"one", false),
            data(1, b"", false),
            data(1, b"two", false),
            trailers.clone(),
        ],
        vec![
            more(
                "/echo",
                &[("content-type", "application/grpc"), ("te", "trailers")],
            ),
            data(1, b"\0\0\0\0\x05hello", true),
        ],
        vec![
            more(
                "/sink",
                &[("expect", "100-continue"), ("content-length", "5")],
            ),
            data(1, b"hello", true),
        ],
        vec![
            more("/early", &[("content-length", "300000")]),
            data(1, &[b'u'; 40_000], false),
        ],
        vec![more("/headers", &wide)],
        vec![
            frame(HEADERS, END_STREAM, 1, first),
            frame(CONTINUATION, END_HEADERS, 1, rest),
        ],
        vec![
            frame(
                HEADERS,
                END_STREAM | END_HEADERS | PADDED,
                1,
                &[&[3], &list[9..], &[0; 3]].concat(),
            ),
            frame(DATA, PADDED, 1, &[9, 0]),
        ],
        vec![
            head(
                1,
                &[
                    &[(":protocol", "websocket"), (":method", "CONNECT")][..],
                    &fields("", "/hello")[1..],
                ]
                .concat(),
                false,
            ),
            data(1, b"\x81\x01a", false),
        ],
        vec![
            head(
                1,
                &[
                    (":method", "CONNECT"),
                    (":authority", "a:1"),
                    ("x-intercept-address", address),
                ],
                false,
            ),
            data(1, b"a", true),
        ],
        vec![
            ask(1, "GET", "/hang", true),
            frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]),
            ask(3, "GET", "/hello", true),
            frame(RST_STREAM, 0, 3, &[0; 4]),
            ask(5, "GET", "/hello", true),
        ],
        vec![
            ask(1, "GET", "/big/100000", true),
            frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]),
        ],
        vec![
            frame(PING, 0, 0, b"12345678"),
            frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9]),
            ask(1, "GET", "/events", true),
            frame(0xfb, 0, 0, b""),
            frame(GOAWAY, 0, 0, &[0; 8]),
        ],
        vec![
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]),
            ask(1, "GET", "/forge", true),
        ],
    ] {
        seeds.push(vec![client(then)]);
    }
    seeds
}

/// Seeds for the control port of the relay.
///
/// Questions, and tunnels of this secret from a malicious machine. The last stage answers a request.
pub fn control_port(secret: &str, address: &str, version: u32) -> Vec<Stages> {
    let open = format!(
        "GET /tunnel HTTP/1.1\nhost: relay\nconnection: upgrade\nupgrade: intercept-h2\nx-intercept-tunnel-version: {version}\nx-intercept-tunnel-secret: {secret}\nx-intercept-tunnel-name: by-hand\nx-intercept-tunnel-instance: 1\nx-intercept-tunnel-identity: spiffe://a\nx-intercept-tunnel-replace: yes\n\n"
    );
    let anyone = open.replace("x-intercept-tunnel-identity: spiffe://a\n", "");
    let mut seeds = vec![vec![lines(&open)]];
    for path in [
        "/healthz",
        "/metrics",
        "/tunnels/x",
        &format!("/tunnels/{address}"),
    ] {
        seeds.push(vec![lines(&format!(
            "GET {path} HTTP/1.1\nhost: relay\n\n"
        ))]);
        seeds.push(vec![lines(&format!(
            "POST {path} HTTP/1.1\nhost: relay\ncontent-length: 5\n\nhello"
        ))]);
    }
    // A machine that answers the pulse on stream 1, and then the request on stream 3.
    let settings = [
        frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
        frame(SETTINGS, ACK, 0, &[]),
    ];
    let up = [settings.concat(), head(1, &[(":status", "200")], false)].concat();
    let answer = |fields: &[(&str, &str)], ends| {
        head(3, &[&[(":status", "200")][..], fields].concat(), ends)
    };
    let whole = [answer(&[], false), data(3, b"hello", true)].concat();
    for then in [
        whole.clone(),
        [
            answer(&[("x-intercept", "length=5")], false),
            data(3, b"hello", false),
            head(3, &[("x-intercept-lost", "x"), ("x-a", "1")], true),
        ]
        .concat(),
        [
            answer(
                &[("x-intercept", "length=9"), ("content-length", "5")],
                false,
            ),
            data(3, b"hello", true),
        ]
        .concat(),
        [
            answer(
                &[
                    ("x-intercept", "held=7"),
                    ("x-intercept", "switched=websocket"),
                    ("x-intercept-served-by", "orders-bob"),
                ],
                false,
            ),
            data(3, b"hello", false),
        ]
        .concat(),
        [
            head(3, &[(":status", "100")], false),
            head(
                3,
                &[(":status", "503"), ("x-intercept-unavailable", "busy")],
                true,
            ),
        ]
        .concat(),
        [
            head(
                3,
                &[
                    (":status", "502"),
                    ("x-intercept-error", "x\ty"),
                    ("x-intercept-lost", ""),
                ],
                false,
            ),
            frame(RST_STREAM, 0, 3, &[0, 0, 0, 2]),
        ]
        .concat(),
        [
            whole.clone(),
            data(3, b"again", true),
            frame(RST_STREAM, 0, 3, &[0; 4]),
            frame(RST_STREAM, 0, 99, &[0; 4]),
        ]
        .concat(),
        frame(RST_STREAM, 0, 3, &[0, 0, 0, 7]),
        frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]),
        [
            frame(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]),
            whole.clone(),
        ]
        .concat(),
        [data(1, b"x", true), whole.clone()].concat(),
        [
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]),
            whole.clone(),
        ]
        .concat(),
        [
            frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]),
            frame(PING, 0, 0, b"12345678"),
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        ]
        .concat(),
    ] {
        seeds.push(vec![lines(&anyone), frames(&up), frames(&then)]);
    }
    seeds
}

/// Seeds for a developer machine: responses of a fake or malicious relay.
pub fn developer() -> Vec<Stages> {
    let welcome = "HTTP/1.1 101 Switching Protocols\nconnection: upgrade\nupgrade: intercept-h2\nx-intercept-relay-version: 9\n\n";
    let mut seeds: Vec<Stages> = [
        "HTTP/1.1 503 Service Unavailable\nx-intercept-retry: yes\ncontent-length: 5\n\nfull\n",
        "HTTP/1.1 507 Insufficient Storage\nx-intercept-retry: yes\ntransfer-encoding: chunked\n\n5\nfull\n\n0\n\n",
        "HTTP/1.1 409 Conflict\nx-intercept-retry: no\nconnection: close\n\ntaken \u{1b}[31m",
        "HTTP/1.1 302 Found\nlocation: /\n\n",
        "HTTP/1.1 200 OK\ncontent-length: 9999999999\n\nhello",
        "HTTP/1.1 100 Continue\n\nHTTP/1.1 101 Switching Protocols\nconnection: upgrade\nupgrade: other\n\n",
    ]
    .iter()
    .map(|text| vec![lines(text)])
    .collect();
    let ask = |stream, authority, method, path, more: &[(&str, &str)], ends| {
        let fields = [
            (":method", method),
            (":scheme", "http"),
            (":authority", authority),
            (":path", path),
        ];
        head(stream, &[&fields[..], more].concat(), ends)
    };
    let up = [
        ask(1, "pulse", "GET", "/", &[], false),
        data(1, b"U", false),
    ];
    let get = |authority| ask(3, authority, "GET", "/hello", &[("host", "a")], true);
    let post =
        |authority, path, more: &[(&str, &str)]| ask(3, authority, "POST", path, more, false);
    for then in [
        get("tunnel"),
        [
            get("hold"),
            ask(5, "held-0", "GET", "/hello", &[], true),
            ask(7, "held-99", "GET", "/hello", &[], true),
        ]
        .concat(),
        [get("nobody"), ask(5, "", "GET", "/hello", &[], true)].concat(),
        [
            post("tunnel-chunked", "/echo", &[("trailer", "x-a")]),
            data(3, b"hello", false),
            head(3, &[("x-a", "1")], true),
        ]
        .concat(),
        [
            post("tunnel", "/echo", &[("content-length", "9")]),
            data(3, b"hello", true),
        ]
        .concat(),
        [
            post(
                "tunnel",
                "/echo",
                &[("content-type", "application/grpc"), ("te", "trailers")],
            ),
            data(3, b"\0\0\0\0\x05hello", true),
        ]
        .concat(),
        [
            post("switch", "/hello", &[("upgrade", "websocket")]),
            data(3, b"\x81\x01a", false),
        ]
        .concat(),
        [
            post("tunnel", "/early", &[]),
            data(3, &[b'u'; 40_000], false),
            frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]),
        ]
        .concat(),
        [
            ask(3, "tunnel", "GET", "/hang", &[], true),
            frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]),
            ask(5, "tunnel", "GET", "/events", &[], true),
        ]
        .concat(),
        [
            ask(3, "tunnel", "GET", "/big/100000", &[], true),
            frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
            frame(WINDOW_UPDATE, 0, 3, &[0, 0, 0, 1]),
        ]
        .concat(),
        [
            ask(3, "pulse", "GET", "/", &[], false),
            data(3, b"ULRx", false),
            data(1, b"L", false),
        ]
        .concat(),
        data(1, b"R", true),
        [
            frame(GOAWAY, 0, 0, &[0; 8]),
            frame(PING, 0, 0, b"12345678"),
            get("tunnel"),
        ]
        .concat(),
    ] {
        seeds.push(vec![lines(welcome), client(up.to_vec()), frames(&then)]);
    }
    seeds
}
