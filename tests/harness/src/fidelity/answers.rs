//! Responses of every form that applications send, including invalid ones.

use super::case::{Case, Kind, Part, Sent, Step, fields};
use super::message::Fields;

/// All responses, for clients of both versions.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for case in http1_answers() {
        cases.push(case.clone());
        cases.push(case.clone().on(Kind::Auto));
        if let Some(case) = asked_in_http2(&case) {
            cases.push(case);
        }
    }
    for case in http2_answers() {
        cases.push(case.clone());
        cases.push(case.clone().on(Kind::Grpc));
        cases.push(Case {
            sent: Sent::Http1(vec![Step::Send(get("GET"))]),
            ..case
        });
    }
    cases
}

/// Responses with a complete body, with and without a close of the connection.
const PLAIN: &[(&str, &str)] = &[
    (
        "content-length",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "content-length 0",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "content-length with zeros",
        "HTTP/1.1 200 OK\r\ncontent-length: 005\r\n\r\nhello",
    ),
    (
        "content-length twice",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "content-length as a list",
        "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello",
    ),
    (
        "two lengths",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    ),
    (
        "a length that is none",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
    ),
    (
        "chunked",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "chunked, nothing",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked with extensions",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0;c\r\n\r\n",
    ),
    (
        "chunked with trailers",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\nX-Sum: 2\r\n\r\n",
    ),
    (
        "chunked in upper case",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "chunked and content-length",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "gzip, chunked",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    ("204", "HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n"),
    (
        "204 with a length",
        "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "205",
        "HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n",
    ),
    ("304", "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n"),
    (
        "304 with a length",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: W/\"a\"\r\n\r\n",
    ),
    (
        "304 with chunked",
        "HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n",
    ),
    (
        "206",
        "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-4/9\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "301",
        "HTTP/1.1 301 Moved Permanently\r\nlocation: /a?b=\"c\"#d\r\ncontent-length: 0\r\n\r\n",
    ),
    ("299", "HTTP/1.1 299 Odd\r\ncontent-length: 0\r\n\r\n"),
    (
        "418",
        "HTTP/1.1 418 I'm a teapot\r\ncontent-length: 0\r\n\r\n",
    ),
    ("599", "HTTP/1.1 599 \r\ncontent-length: 0\r\n\r\n"),
    ("600", "HTTP/1.1 600 Odd\r\ncontent-length: 0\r\n\r\n"),
    ("999", "HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n"),
    ("099", "HTTP/1.1 099 Odd\r\ncontent-length: 0\r\n\r\n"),
    ("20", "HTTP/1.1 20 Odd\r\ncontent-length: 0\r\n\r\n"),
    ("2000", "HTTP/1.1 2000 Odd\r\ncontent-length: 0\r\n\r\n"),
    (
        "500",
        "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops",
    ),
    (
        "502",
        "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\noops",
    ),
    (
        "503",
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 4\r\n\r\noops",
    ),
    (
        "504",
        "HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 4\r\n\r\noops",
    ),
    ("425", "HTTP/1.1 425 Too Early\r\ncontent-length: 0\r\n\r\n"),
    (
        "429",
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
    ),
    ("no reason", "HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n"),
    (
        "an empty reason",
        "HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "a reason of its own",
        "HTTP/1.1 200 Fine, thanks\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "a reason beyond ASCII",
        "HTTP/1.1 200 Ü\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "HTTP/1.0 with a length",
        "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "HTTP/1.0 with keep-alive",
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "HTTP/1.2",
        "HTTP/1.2 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "HTTP/2.0 in words",
        "HTTP/2.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "http in lower case",
        "http/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ),
    ("garbage", "hello\r\n\r\n"),
    (
        "an empty line first",
        "\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "line feeds only",
        "HTTP/1.1 200 OK\ncontent-length: 5\nx-a: 1\n\nhello",
    ),
    (
        "a folded line",
        "HTTP/1.1 200 OK\r\nx-folded: one\r\n two\r\n\tthree\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "a folded first line of fields",
        "HTTP/1.1 200 OK\r\n x-folded: one\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "a space before the colon",
        "HTTP/1.1 200 OK\r\nx-space : 1\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "no colon",
        "HTTP/1.1 200 OK\r\nx-nothing\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "no name",
        "HTTP/1.1 200 OK\r\n: nothing\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "a name that is no token",
        "HTTP/1.1 200 OK\r\nx(a): 1\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "a name with every token character",
        "HTTP/1.1 200 OK\r\nx-!#$%&'*+-.^_`|~09: 1\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "mixed case of names",
        "HTTP/1.1 200 OK\r\nX-Upper: 1\r\nx-lower: 2\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "set-cookie several times",
        "HTTP/1.1 200 OK\r\nset-cookie: a=1; path=/, b\r\nset-cookie: b=2; expires=Wed, 09 Jun 2032 10:18:14 GMT\r\nset-cookie: a=3\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "duplicates in order",
        "HTTP/1.1 200 OK\r\nx-b: 1\r\nx-a: 2\r\nx-b: 3\r\nx-a: 4\r\nx-b: 1\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "empty values",
        "HTTP/1.1 200 OK\r\nx-empty:\r\nx-blank: \r\nx-tab:\t\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "white space around values",
        "HTTP/1.1 200 OK\r\nx-a:  two \r\nx-b:\tone\t\r\nx-c:none\r\nx-d: in  side\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "fields that proxies write",
        "HTTP/1.1 200 OK\r\nserver: mine\r\ndate: yesterday\r\nvia: 1.1 me\r\nx-powered-by: y\r\nage: 3\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "fields of Envoy's",
        "HTTP/1.1 200 OK\r\nx-envoy-upstream-service-time: mine\r\nx-envoy-decorator-operation: y\r\nx-envoy-overloaded: true\r\nx-envoy-immediate-health-check-fail: true\r\nx-envoy-attempt-count: 5\r\nx-envoy-upstream-canary: true\r\nx-envoy-degraded: true\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "envoy's rate limit",
        "HTTP/1.1 429 Too Many\r\nx-envoy-ratelimited: true\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "connection: close",
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "connection: keep-alive",
        "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nkeep-alive: timeout=5\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "connection with an option",
        "HTTP/1.1 200 OK\r\nconnection: x-hop\r\nx-hop: 1\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "proxy-connection",
        "HTTP/1.1 200 OK\r\nproxy-connection: keep-alive\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "upgrade offered",
        "HTTP/1.1 426 Upgrade Required\r\nupgrade: foo/2\r\nconnection: upgrade\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "te and trailer",
        "HTTP/1.1 200 OK\r\nte: trailers\r\ntrailer: x-sum\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "http2-settings",
        "HTTP/1.1 200 OK\r\nhttp2-settings: AAMAAABkAAQAAP__\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "authentication",
        "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"a\", Bearer\r\nwww-authenticate: Negotiate\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "proxy authentication",
        "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "alt-svc",
        "HTTP/1.1 200 OK\r\nalt-svc: h3=\":443\"\r\nstrict-transport-security: max-age=1\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "the type of gRPC",
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 5\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "marks of ours",
        "HTTP/1.1 200 OK\r\nx-intercept: forged\r\nx-intercept-served-by: forged\r\nx-intercept-error: forged\r\nx-intercept-status: 404\r\nx-intercept-switched: x\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "the mark of an unavailable side",
        "HTTP/1.1 503 Forged\r\nx-intercept-unavailable: forged\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "the mark of a lost request",
        "HTTP/1.1 502 Forged\r\nx-intercept-lost: forged\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "names that begin like ours",
        "HTTP/1.1 200 OK\r\nx-intercept-dev: bob\r\nx-intercept-id: mine\r\nx-intercepted: yes\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "a body behind its end",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello, world",
    ),
    (
        "100 first",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "102 first",
        "HTTP/1.1 102 Processing\r\nx-a: 1\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "103 first",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\nlink: </b>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "103 twice",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </b>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "199 first",
        "HTTP/1.1 199 Odd\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "101 that nobody asked for",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello.",
    ),
];

/// Responses that end with the connection.
const UNTIL_CLOSE: &[(&str, &str)] = &[
    ("until close", "HTTP/1.1 200 OK\r\nx-a: 1\r\n\r\nhello"),
    ("until close, nothing", "HTTP/1.1 200 OK\r\nx-a: 1\r\n\r\n"),
    (
        "until close, announced",
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello",
    ),
    ("until close, 404", "HTTP/1.1 404 Not Found\r\n\r\nhello"),
    ("HTTP/1.0 until close", "HTTP/1.0 200 OK\r\n\r\nhello"),
    (
        "identity until close",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\nhello",
    ),
    (
        "gzip until close",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello",
    ),
    (
        "a length, then close",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "chunked, then close",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
];

/// Responses that break off, by a close or by a reset.
const BROKEN: &[(&str, &str)] = &[
    ("nothing", ""),
    ("half a first line", "HTTP/1.1 20"),
    ("half a head", "HTTP/1.1 200 OK\r\nx-a: 1\r\nx-"),
    (
        "an interim only",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
    ),
    (
        "a head with a length",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
    ),
    (
        "a head of chunks",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    ),
    (
        "a body cut short",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",
    ),
    (
        "a cut chunk",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhello",
    ),
    (
        "chunks without an end",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ),
    (
        "a wrong chunk",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n",
    ),
    (
        "cut trailers",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n",
    ),
];

fn get(method: &str) -> Vec<u8> {
    format!("{method} /answer HTTP/1.1\r\n{{case}}\r\nhost: orders\r\n\r\n").into_bytes()
}

fn post(length: usize) -> Vec<u8> {
    let head = format!(
        "POST /answer HTTP/1.1\r\n{{case}}\r\nhost: orders\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.into_bytes(), vec![b'x'; length]].concat()
}

fn send(bytes: impl AsRef<[u8]>) -> Step {
    Step::Send(bytes.as_ref().to_vec())
}

fn http1_answers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, answer) in PLAIN {
        cases.push(Case::http1(format!("answer: {name}"), get("GET")).answered(answer));
    }
    for (name, answer) in &PLAIN[..2] {
        cases.push(Case::http1(format!("answer to a POST: {name}"), post(5)).answered(answer));
    }
    for (name, answer) in UNTIL_CLOSE {
        cases.push(Case::http1(format!("answer: {name}"), get("GET")).answered_until_close(answer));
    }
    for (name, answer) in BROKEN {
        for (method, request) in [("GET", get("GET")), ("POST", post(5))] {
            for (how, end) in [("closed", Step::Close), ("reset", Step::Reset)] {
                let name = format!("answer broken off to a {method}: {name}, {how}");
                let steps = vec![Step::ReadBody, send(answer), end];
                cases.push(Case::http1(name, request.clone()).served(steps));
            }
        }
    }
    for (name, answer) in [
        ("a length", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
        (
            "a length of 0",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        ("nothing", "HTTP/1.1 200 OK\r\nx-a: 1\r\n\r\n"),
        ("204", "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "304",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
        ),
        ("404", "HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\n"),
    ] {
        cases.push(Case::http1(format!("answer to HEAD: {name}"), get("HEAD")).answered(answer));
    }
    for byte in (0..=u8::MAX).filter(|byte| *byte != b'\n' && *byte != b'\r') {
        let answer = [
            b"HTTP/1.1 200 OK\r\nx-v: a",
            &[byte][..],
            b"b\r\ncontent-length: 0\r\n\r\n",
        ]
        .concat();
        cases.push(
            Case::http1(format!("answer: byte {byte:#04x} in a value"), get("GET"))
                .answered(answer),
        );
    }
    for (lines, size) in [(90, 500), (300, 10), (95, 2_000), (1_500, 10), (20, 20_000)] {
        let fields: String = (0..lines)
            .map(|n| format!("x-{n}: {}\r\n", "v".repeat(size)))
            .collect();
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n");
        cases.push(
            Case::http1(format!("answer: {lines} lines of {size} bytes"), get("GET"))
                .answered(answer),
        );
    }
    for length in [100_000usize, 3_000_000] {
        let body: Vec<u8> = (0..length)
            .map(|at| u8::try_from(at % 251).expect("small"))
            .collect();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        let answer = [head.as_bytes(), &body].concat();
        cases.push(Case::http1(format!("answer: {length} bytes"), get("GET")).answered(answer));
    }
    cases.extend(early_answers());
    cases.extend(pieces());
    cases
}

/// Responses before the body was read. The comparison ignores how much of the body had arrived.
fn early_answers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (status, length) in [
        ("413 Content Too Large", 5),
        ("401 Unauthorized", 70_000),
        ("403 Forbidden", 600_000),
        ("413 Content Too Large", 3_000_000),
    ] {
        for (name, close, end) in [
            ("read afterwards", "", Step::ReadBody),
            ("then closed", "connection: close\r\n", Step::Close),
        ] {
            let answer = format!("HTTP/1.1 {status}\r\n{close}content-length: 5\r\n\r\nlarge");
            let name = format!("early answer {status} to {length} bytes, {name}");
            let case = Case::http1(name, post(length)).served(vec![send(answer), end]);
            cases.push(Case {
                is_early: true,
                ..case
            });
        }
    }
    cases
}

/// Responses in several writes, so that heads and bodies are split.
fn pieces() -> Vec<Case> {
    let answers = [
        (
            "byte by byte",
            "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 5\r\n\r\nhello"
                .bytes()
                .map(|byte| vec![byte])
                .collect::<Vec<_>>(),
        ),
        (
            "head and body apart",
            ["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "hello"]
                .map(Vec::from)
                .to_vec(),
        ),
        (
            "chunks apart",
            [
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                "5\r\nhel",
                "lo\r\n",
                "0\r\n",
                "x-sum: 1\r\n\r\n",
            ]
            .map(Vec::from)
            .to_vec(),
        ),
    ];
    answers
        .into_iter()
        .map(|(name, pieces)| {
            let pieces = pieces.into_iter().map(Step::Send);
            let steps = std::iter::once(Step::ReadBody).chain(pieces).collect();
            Case::http1(format!("answer: {name}"), get("GET")).served(steps)
        })
        .collect()
}

/// The same response to an HTTP/2 client.
fn asked_in_http2(case: &Case) -> Option<Case> {
    let Sent::Http1(steps) = &case.sent else {
        return None;
    };
    let [Step::Send(request)] = &steps[..] else {
        return None;
    };
    let method = request.split(|byte| *byte == b' ').next()?;
    let method = std::str::from_utf8(method).ok()?;
    let length = request
        .iter()
        .rev()
        .take_while(|byte| **byte == b'x')
        .count();
    // A longer one would need flow control.
    if length > 60_000 {
        return None;
    }
    let mut parts = vec![Part::Head(head(method), length == 0)];
    if length > 0 {
        parts.push(Part::Data(vec![b'x'; length], true));
    }
    let sent = Sent::Http2(parts);
    Some(Case {
        sent,
        ..case.clone()
    })
}

fn head(method: &str) -> Fields {
    fields(&[
        (":method", method),
        (":scheme", "http"),
        (":authority", "orders"),
        (":path", "/answer"),
    ])
}

fn http2_answers() -> Vec<Case> {
    let status = |code: &str, more: &[(&str, &str)]| {
        let mut all = fields(&[(":status", code)]);
        all.extend(fields(more));
        all
    };
    let data = |text: &str, ends| Part::Data(text.as_bytes().to_vec(), ends);
    let mut scripts: Vec<(String, Vec<Part>)> = Vec::new();
    let mut push = |name: &str, parts: Vec<Part>| scripts.push((name.to_owned(), parts));
    push("a head only", vec![Part::Head(status("200", &[]), true)]);
    push(
        "a head and empty DATA",
        vec![Part::Head(status("200", &[]), false), data("", true)],
    );
    push(
        "a body",
        vec![Part::Head(status("200", &[]), false), data("hello", true)],
    );
    push(
        "a body and empty DATA",
        vec![
            Part::Head(status("200", &[]), false),
            data("hello", false),
            data("", true),
        ],
    );
    push(
        "a length",
        vec![
            Part::Head(status("200", &[("content-length", "5")]), false),
            data("hello", true),
        ],
    );
    push(
        "a length that says less",
        vec![
            Part::Head(status("200", &[("content-length", "2")]), false),
            data("hello", true),
        ],
    );
    push(
        "a length that says more",
        vec![
            Part::Head(status("200", &[("content-length", "9")]), false),
            data("hello", true),
        ],
    );
    push(
        "a length of 0",
        vec![Part::Head(status("200", &[("content-length", "0")]), true)],
    );
    push(
        "trailers",
        vec![
            Part::Head(status("200", &[]), false),
            data("hello", false),
            Part::Head(
                fields(&[("x-sum", "1"), ("x-more", "2"), ("x-sum", "3")]),
                true,
            ),
        ],
    );
    push(
        "trailers without a body",
        vec![
            Part::Head(status("200", &[]), false),
            Part::Head(fields(&[("x-sum", "1")]), true),
        ],
    );
    push(
        "trailers of ours",
        vec![
            Part::Head(status("200", &[]), false),
            data("hello", false),
            Part::Head(
                fields(&[("x-intercept-lost", "1"), ("x-intercept-dev", "2")]),
                true,
            ),
        ],
    );
    for (name, more) in [
        ("gRPC", &[("content-type", "application/grpc")][..]),
        (
            "gRPC with a type",
            &[("content-type", "application/grpc+proto")],
        ),
    ] {
        push(
            name,
            vec![
                Part::Head(status("200", more), false),
                Part::Data(b"\0\0\0\0\x02ok".to_vec(), false),
                Part::Head(fields(&[("grpc-status", "0"), ("grpc-message", "")]), true),
            ],
        );
        for code in ["0", "5", "13", "14"] {
            let trailers = fields(&[
                ("grpc-status", code),
                ("grpc-message", "a%20b"),
                ("grpc-status-details-bin", "AA=="),
            ]);
            let only = [status("200", more), trailers.clone()].concat();
            push(
                &format!("{name}, trailers only, {code}"),
                vec![Part::Head(only, true)],
            );
            push(
                &format!("{name}, head and trailers, {code}"),
                vec![
                    Part::Head(status("200", more), false),
                    Part::Head(trailers, true),
                ],
            );
        }
    }
    for code in [
        "204", "205", "299", "304", "418", "500", "503", "599", "600", "999", "20", "abc",
    ] {
        push(
            &format!("status {code}"),
            vec![Part::Head(status(code, &[]), true)],
        );
    }
    push(
        "304 with a length",
        vec![Part::Head(status("304", &[("content-length", "5")]), true)],
    );
    for code in ["100", "102", "103"] {
        push(
            &format!("{code} first"),
            vec![
                Part::Head(status(code, &[("link", "</a>")]), false),
                Part::Head(status("200", &[]), false),
                data("hello", true),
            ],
        );
    }
    push(
        "set-cookie several times",
        vec![Part::Head(
            status(
                "200",
                &[
                    ("set-cookie", "a=1"),
                    ("x-a", "1"),
                    ("set-cookie", "b=2"),
                    ("set-cookie", "a=3"),
                ],
            ),
            true,
        )],
    );
    push(
        "duplicates in order",
        vec![Part::Head(
            status(
                "200",
                &[("x-b", "1"), ("x-a", "2"), ("x-b", "3"), ("x-a", "4")],
            ),
            true,
        )],
    );
    push(
        "empty values",
        vec![Part::Head(
            status("200", &[("x-empty", ""), ("x-a", "1")]),
            true,
        )],
    );
    push(
        "bytes beyond ASCII",
        vec![Part::Head(status("200", &[("x-a", "ü日本")]), true)],
    );
    push(
        "fields that proxies write",
        vec![Part::Head(
            status(
                "200",
                &[("server", "mine"), ("date", "yesterday"), ("via", "1.1 me")],
            ),
            true,
        )],
    );
    push(
        "marks of ours",
        vec![Part::Head(
            status(
                "200",
                &[
                    ("x-intercept", "forged"),
                    ("x-intercept-served-by", "forged"),
                    ("x-intercept-error", "forged"),
                ],
            ),
            true,
        )],
    );
    push(
        "an upper-case name",
        vec![Part::Head(status("200", &[("X-Upper", "1")]), true)],
    );
    push(
        "connection-specific fields",
        vec![Part::Head(status("200", &[("connection", "close")]), true)],
    );
    push("no status", vec![Part::Head(fields(&[("x-a", "1")]), true)]);
    for code in [0u32, 1, 2, 7, 8, 11] {
        push(
            &format!("reset {code} before a head"),
            vec![Part::Reset(code)],
        );
        push(
            &format!("reset {code} behind a head"),
            vec![Part::Head(status("200", &[]), false), Part::Reset(code)],
        );
        push(
            &format!("reset {code} in a body"),
            vec![
                Part::Head(status("200", &[]), false),
                data("hello", false),
                Part::Reset(code),
            ],
        );
    }
    let asked: Vec<Case> = scripts
        .iter()
        .flat_map(|(name, script)| {
            let script: Vec<Part> = std::iter::once(Part::ReadBody)
                .chain(script.clone())
                .collect();
            let get = Case::http2(
                format!("answer: {name}"),
                vec![Part::Head(head("GET"), true)],
            );
            let body = vec![
                Part::Head(head("POST"), false),
                Part::Data(b"hello".to_vec(), true),
            ];
            let post = Case::http2(format!("answer to a POST: {name}"), body);
            // For some of them Envoy closes the whole connection.
            let is_alone = ["status", "specific", "upper-case", "a length that", "304"]
                .iter()
                .any(|text| name.contains(text));
            [get, post].map(|case| {
                let case = case.served_http2(script.clone());
                if is_alone { case.alone() } else { case }
            })
        })
        .collect();
    asked
}
