//! Requests of every form that clients send: targets, methods, framings, fields.

use super::case::{Case, Kind, Part, Sent, Step, fields};
use super::message::Fields;

/// All forms, on every kind of port.
pub fn cases() -> Vec<Case> {
    let http1 = shapes_http1();
    let http2 = shapes_http2();
    let http1 = [Kind::Http, Kind::Http2, Kind::Auto]
        .into_iter()
        .flat_map(|kind| http1.iter().map(move |case| case.clone().on(kind)))
        // In HTTP/2 a 200 means a switch, and nothing else could express it.
        .filter(|case| case.kind != Kind::Http2 || !case.name.contains("answered 200"));
    let http2 = Kind::ALL
        .into_iter()
        .flat_map(|kind| http2.iter().map(move |case| case.clone().on(kind)));
    http1.chain(http2).collect()
}

const TARGETS: &[&str] = &[
    "/",
    "/a/b?c=d",
    "//",
    "//double//slash",
    "/a/./b/../c",
    "/..",
    "/a/",
    "/%2e%2e/%2F",
    "/%",
    "/%zz",
    "/a%20b",
    "/%00",
    "/a+b",
    "/a;p=1/b;q",
    "/a?",
    "/?",
    "/??",
    "/a?b?c",
    "/a?b=c&b=d&&",
    "/a#fragment",
    "/a?b#fragment",
    "/#",
    "/search?filter={\"a\":1}",
    "/a\"b",
    "/\"",
    "/a?\"",
    "/<x>",
    "/a?<x>",
    "/{x}",
    "/a?{x}",
    "/a|b",
    "/a?b|c",
    "/a\\b",
    "/a?b\\c",
    "/a^b",
    "/a?b^c",
    "/a`b",
    "/a?b`c",
    "/[x]",
    "/a?x[]=1&y[a]=2",
    "/~user",
    "/a*b",
    "/a,b",
    "/a@b",
    "/a:b",
    "/a'b",
    "/(a)",
    "/a!$&=b",
    "/ü",
    "/a?q=ü",
    "/日本?q=日本",
    "/%C3%BC",
    "*",
    "a/b",
    "?x",
    "",
    "http://orders/absolute",
    "http://orders/absolute?x=1#y",
    "http://other:8080/absolute",
    "http://orders",
    "http://orders?x",
    "http://user@orders/absolute",
    "HTTP://orders/absolute",
    "https://orders/absolute",
    "ftp://orders/absolute",
    "http://orders/a\"b",
    "http://[::1]:80/a",
    "orders:80",
    "/a?b=http://c/d?e",
];

const METHODS: &[&str] = &[
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "PROPFIND",
    "MKCOL",
    "REPORT",
    "QUERY",
    "PURGE",
    "M-SEARCH",
    "get",
    "Custom",
    "X_!#$%&'*+.^`|~1",
];

/// Named header lines to send after `host`.
const LINES: &[(&str, &[&str])] = &[
    (
        "duplicates in order",
        &["x-b: 1", "x-a: 2", "x-b: 3", "x-a: 4", "x-b: 1"],
    ),
    (
        "mixed case of names",
        &["X-Upper: 1", "x-lower: 2", "X-lOWER: 3"],
    ),
    (
        "empty values",
        &["x-empty:", "x-blank: ", "x-tab:\t", "x-last: 1"],
    ),
    (
        "white space around values",
        &["x-a:  two ", "x-b:\tone\t", "x-c:none", "x-d: in  side"],
    ),
    (
        "a name with every token character",
        &["x-!#$%&'*+-.^_`|~09: 1"],
    ),
    ("an underscore in a name", &["x_under_score: 1"]),
    ("bytes beyond ASCII", &["x-a: ü", "x-b: 日本"]),
    (
        "list members",
        &["accept: text/html, */*;q=0.8", "accept: application/json"],
    ),
    ("one line of cookies", &["cookie: a=1; b=2; c=\"3\""]),
    (
        "several lines of cookies",
        &["cookie: a=1", "cookie: b=2", "cookie: c=3"],
    ),
    ("a cookie with odd separators", &["cookie: a=1;b=2;; c=3 ;"]),
    (
        "authorization",
        &[
            "authorization: Basic dTpw",
            "proxy-authorization: Basic dTpw",
        ],
    ),
    (
        "connection: keep-alive",
        &["connection: keep-alive", "keep-alive: timeout=5"],
    ),
    ("connection: close", &["connection: close"]),
    (
        "connection with an option",
        &["connection: x-hop", "x-hop: 1", "x-stay: 1"],
    ),
    (
        "connection with two lines",
        &[
            "connection: x-hop",
            "connection: close, x-two",
            "x-hop: 1",
            "x-two: 2",
        ],
    ),
    (
        "connection that lists ordinary fields",
        &[
            "connection: accept, authorization",
            "accept: a/b",
            "authorization: x",
        ],
    ),
    ("proxy-connection", &["proxy-connection: keep-alive"]),
    ("te: trailers", &["te: trailers"]),
    ("te: gzip", &["te: gzip"]),
    (
        "te with connection",
        &["te: trailers, deflate;q=0.5", "connection: te"],
    ),
    ("trailer without a body", &["trailer: x-sum"]),
    (
        "x-request-id",
        &["x-request-id: mine", "x-correlation-id: too"],
    ),
    (
        "x-forwarded fields",
        &[
            "x-forwarded-for: 10.0.0.1, 10.0.0.2",
            "x-forwarded-proto: https",
            "x-forwarded-host: shop",
            "x-forwarded-port: 443",
            "x-real-ip: 10.0.0.1",
        ],
    ),
    (
        "x-forwarded-for twice",
        &["x-forwarded-for: 10.0.0.1", "x-forwarded-for: 10.0.0.2"],
    ),
    (
        "forwarded",
        &[
            "forwarded: for=1.2.3.4;proto=https;by=\"[::1]\"",
            "via: 1.1 a",
            "via: 1.1 b",
        ],
    ),
    (
        "x-forwarded-client-cert",
        &[
            "x-forwarded-client-cert: By=spiffe://a/ns/b/sa/c;Hash=00;Subject=\"CN=x,O=\\\"y\";URI=spiffe://a/ns/d/sa/e",
        ],
    ),
    (
        "x-forwarded-client-cert twice",
        &[
            "x-forwarded-client-cert: By=a;URI=b,By=c;URI=d",
            "x-forwarded-client-cert: By=e;URI=f",
        ],
    ),
    (
        "x-forwarded-client-cert with an open quote",
        &["x-forwarded-client-cert: URI=a;x=\""],
    ),
    (
        "envoy's timeouts",
        &["x-envoy-upstream-rq-timeout-ms: 15000"],
    ),
    (
        "envoy's time per try",
        &["x-envoy-upstream-rq-per-try-timeout-ms: 15000"],
    ),
    (
        "envoy's expected timeout",
        &["x-envoy-expected-rq-timeout-ms: 15000"],
    ),
    (
        "envoy's retries",
        &["x-envoy-retry-on: 5xx", "x-envoy-max-retries: 2"],
    ),
    (
        "envoy's other retries",
        &[
            "x-envoy-retry-grpc-on: cancelled",
            "x-envoy-retriable-status-codes: 500",
            "x-envoy-retriable-header-names: x-again",
        ],
    ),
    (
        "envoy's hedging",
        &["x-envoy-hedge-on-per-try-timeout: true"],
    ),
    (
        "envoy's attempts",
        &[
            "x-envoy-attempt-count: 7",
            "x-envoy-internal: true",
            "x-envoy-original-path: /x",
            "x-envoy-decorator-operation: x",
        ],
    ),
    (
        "envoy's other fields",
        &[
            "x-envoy-external-address: 1.2.3.4",
            "x-envoy-downstream-service-cluster: a",
            "x-envoy-peer-metadata: b",
            "x-envoy-force-trace: 1",
            "x-envoy-ip-tags: t",
            "x-envoy-upstream-alt-stat-name: s",
        ],
    ),
    (
        "trace context",
        &[
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "tracestate: a=1,b=2",
            "baggage: a=1;p",
            "baggage: b=2",
            "b3: 0",
            "x-b3-traceid: 1",
            "x-ot-span-context: 2",
        ],
    ),
    ("gRPC", &["content-type: application/grpc", "te: trailers"]),
    ("grpc-timeout without gRPC", &["grpc-timeout: 5S"]),
    (
        "a body's fields without a body",
        &[
            "content-type: text/plain",
            "content-encoding: gzip",
            "content-language: de",
        ],
    ),
    (
        "conditions",
        &[
            "if-match: \"a\"",
            "if-none-match: W/\"b\", \"c\"",
            "if-modified-since: x",
            "range: bytes=0-1,5-",
            "if-range: \"a\"",
        ],
    ),
    (
        "cache and pragma",
        &[
            "cache-control: no-cache",
            "cache-control: max-age=0",
            "pragma: no-cache",
        ],
    ),
    (
        "date and user agent",
        &[
            "date: yesterday",
            "user-agent: a (b; c) d/1",
            "referer: http://x/?\"y\"",
            "origin: null",
            "from: a@b",
            "max-forwards: 3",
            "upgrade-insecure-requests: 1",
            "dnt: 1",
            "sec-fetch-mode: cors",
        ],
    ),
    (
        "no user agent, odd accept-encoding",
        &["accept-encoding:", "accept-language: de;q=0.1,*"],
    ),
    ("http2-settings", &["http2-settings: AAMAAABkAAQAAP__"]),
    ("priority", &["priority: u=1, i"]),
    (
        "the way of a request",
        &["x-intercept-via: ann", "x-intercept-via: eve"],
    ),
    (
        "routing headers of ours",
        &[
            "x-intercept-address: 0123",
            "x-intercept-cluster: intercept|x",
        ],
    ),
    (
        "the marks of ours",
        &[
            "x-intercept-unavailable: x",
            "x-intercept-lost: y",
            "x-intercept-error: z",
        ],
    ),
    (
        "the tunnel's own fields",
        &[
            "x-intercept-held: 1",
            "x-intercept-internal: hold",
            "x-intercept-switched: 1",
            "x-intercept-status: 404",
        ],
    ),
    (
        "the marks of answers",
        &["x-intercept: a", "x-intercept-served-by: b"],
    ),
    (
        "names that begin like ours",
        &[
            "x-intercept-id: mine",
            "x-intercept-dev: bob",
            "x-intercepted: yes",
            "x-interceptor: no",
            "x-intercept_: 1",
        ],
    ),
    (
        "content-length twice",
        &["content-length: 0", "content-length: 0"],
    ),
    ("content-length as a list", &["content-length: 0, 0"]),
    ("content-length with a sign", &["content-length: +0"]),
    ("content-length that is none", &["content-length: x"]),
    ("expect of something else", &["expect: something"]),
    ("a second host", &["host: other"]),
    ("a folded line", &["x-folded: one\r\n two\r\n\tthree"]),
    ("a line without a colon", &["x-no-colon"]),
    ("a line with a space before the colon", &["x-space : 1"]),
    ("a line that begins with a colon", &[": 1"]),
    ("a pseudo-header", &[":path: /forged"]),
    ("a bare line feed", &["x-a: 1\nx-b: 2"]),
    ("a bare carriage return", &["x-a: 1\rx-b: 2"]),
];

const HOSTS: &[&str] = &[
    "orders",
    "Orders.Shop",
    "orders:80",
    "orders:8080",
    "127.0.0.1",
    "127.0.0.1:1",
    "[::1]",
    "[::1]:8080",
    "",
    "orders.",
    "or_ders",
    "user@orders",
    "orders/a",
    "a b",
    "orders:",
    "orders:x",
    "ü",
    "a,b",
    "\"orders\"",
    "{a}",
    "orders-shadow",
];

/// Framings of a body: name, header lines, and the bytes after the head.
const BODIES: &[(&str, &str, &str)] = &[
    ("content-length", "content-length: 5", "hello"),
    ("content-length 0", "content-length: 0", ""),
    ("content-length with zeros", "content-length: 0005", "hello"),
    (
        "chunked",
        "transfer-encoding: chunked",
        "5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "chunked, several",
        "transfer-encoding: chunked",
        "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
    ),
    (
        "chunked, nothing",
        "transfer-encoding: chunked",
        "0\r\n\r\n",
    ),
    (
        "chunked with an extension",
        "transfer-encoding: chunked",
        "5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n",
    ),
    (
        "chunked with trailers",
        "transfer-encoding: chunked\r\ntrailer: x-sum, x-more",
        "5\r\nhello\r\n0\r\nx-sum: 1\r\nX-More: 2\r\nx-sum: 3\r\n\r\n",
    ),
    (
        "chunked with trailers and te",
        "te: trailers\r\ntransfer-encoding: chunked",
        "5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n",
    ),
    (
        "chunked in upper case",
        "Transfer-Encoding: Chunked",
        "5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "gzip, chunked",
        "transfer-encoding: gzip, chunked",
        "5\r\nhello\r\n0\r\n\r\n",
    ),
    ("identity", "transfer-encoding: identity", ""),
    (
        "chunked and content-length",
        "content-length: 5\r\ntransfer-encoding: chunked",
        "5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "chunked twice",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a type",
        "content-type: text/plain; charset=\"x\"\r\ncontent-length: 5",
        "hello",
    ),
    (
        "two lengths",
        "content-length: 5\r\ncontent-length: 6",
        "hello!",
    ),
];

fn request(method: &str, target: &str, lines: &str, body: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\n{{case}}\r\nhost: orders\r\n{lines}\r\n{body}")
        .into_bytes()
}

/// A case with the response "ok", without a body for HEAD.
fn ask(name: String, method: &str, request: impl AsRef<[u8]>) -> Case {
    head_aware(Case::http1(name, request), method)
}

fn head_aware(case: Case, method: &str) -> Case {
    if method != "HEAD" {
        return case;
    }
    let answer = fields(&[(":status", "200"), ("content-length", "2")]);
    case.answered("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        .served_http2(vec![Part::ReadBody, Part::Head(answer, true)])
}

fn shapes_http1() -> Vec<Case> {
    let mut cases = Vec::new();
    for target in TARGETS {
        cases.push(ask(
            format!("target {target:?}"),
            "GET",
            request("GET", target, "", ""),
        ));
    }
    for target in ["*", "/", "/*"] {
        cases.push(ask(
            format!("OPTIONS {target}"),
            "OPTIONS",
            request("OPTIONS", target, "", ""),
        ));
    }
    for target in ["orders:443", "/a", "[::1]:443"] {
        cases.push(ask(
            format!("CONNECT {target}"),
            "CONNECT",
            request("CONNECT", target, "", ""),
        ));
    }
    for length in [1_000, 8_000, 30_000, 60_000] {
        let target = format!("/{}?{}", "p".repeat(length / 2), "q".repeat(length / 2));
        cases.push(ask(
            format!("a target of {length} bytes"),
            "GET",
            request("GET", &target, "", ""),
        ));
    }
    for method in METHODS {
        cases.push(ask(
            format!("method {method}"),
            method,
            request(method, "/m", "", ""),
        ));
        for (name, line, body) in &BODIES[..6] {
            let lines = format!("{line}\r\n");
            let name = format!("method {method}, {name}");
            cases.push(ask(name, method, request(method, "/m", &lines, body)));
        }
    }
    for method in ["POST", "GET"] {
        for (name, line, body) in BODIES {
            let lines = format!("{line}\r\n");
            let name = format!("{method} of a body: {name}");
            cases.push(ask(name, method, request(method, "/b", &lines, body)));
        }
    }
    for (name, lines) in LINES {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        cases.push(ask(
            format!("lines: {name}"),
            "GET",
            request("GET", "/l", &lines, ""),
        ));
        let body = format!("content-length: 5\r\n{lines}");
        cases.push(ask(
            format!("lines of a POST: {name}"),
            "POST",
            request("POST", "/l", &body, "hello"),
        ));
    }
    for host in HOSTS {
        let request = format!("GET /h HTTP/1.1\r\n{{case}}\r\nhost: {host}\r\n\r\n");
        cases.push(Case::http1(format!("host {host:?}"), request));
    }
    cases.extend(heads_http1());
    cases.extend(bodies_http1());
    cases.extend(connections_http1());
    cases
}

/// Heads with an unusual first line or order.
fn heads_http1() -> Vec<Case> {
    let large: String = (0..90)
        .map(|n| format!("x-{n}: {}\r\n", "v".repeat(500)))
        .collect();
    let many: String = (0..95).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let too_many: String = (0..200).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let too_large = format!("x-large: {}\r\n", "v".repeat(100_000));
    [
        ("no host", "GET / HTTP/1.1\r\n{case}\r\n\r\n".to_owned()),
        (
            "host last",
            "GET / HTTP/1.1\r\nx-a: 1\r\n{case}\r\nx-b: 2\r\nhost: orders\r\n\r\n".to_owned(),
        ),
        (
            "HTTP/1.0",
            "GET / HTTP/1.0\r\n{case}\r\nhost: orders\r\n\r\n".to_owned(),
        ),
        (
            "HTTP/1.0 without a host",
            "GET / HTTP/1.0\r\n{case}\r\n\r\n".to_owned(),
        ),
        (
            "HTTP/1.0 with keep-alive",
            "GET / HTTP/1.0\r\n{case}\r\nhost: orders\r\nconnection: keep-alive\r\n\r\n".to_owned(),
        ),
        ("HTTP/0.9", "GET /\r\n{case}\r\n\r\n".to_owned()),
        (
            "HTTP/1.2",
            "GET / HTTP/1.2\r\n{case}\r\nhost: orders\r\n\r\n".to_owned(),
        ),
        (
            "HTTP/2.0 in words",
            "GET / HTTP/2.0\r\n{case}\r\nhost: orders\r\n\r\n".to_owned(),
        ),
        (
            "http/1.1 in lower case",
            "GET / http/1.1\r\n{case}\r\nhost: orders\r\n\r\n".to_owned(),
        ),
        (
            "two spaces",
            "GET  / HTTP/1.1\r\n{case}\r\nhost: orders\r\n\r\n".to_owned(),
        ),
        (
            "a space in the target",
            "GET /a b HTTP/1.1\r\n{case}\r\nhost: orders\r\n\r\n".to_owned(),
        ),
        (
            "an empty line first",
            "\r\nGET / HTTP/1.1\r\n{case}\r\nhost: orders\r\n\r\n".to_owned(),
        ),
        (
            "line feeds only",
            "GET / HTTP/1.1\n{case}\nhost: orders\n\n".to_owned(),
        ),
        (
            "45 KiB of lines",
            format!("GET / HTTP/1.1\r\n{{case}}\r\nhost: orders\r\n{large}\r\n"),
        ),
        (
            "95 lines",
            format!("GET / HTTP/1.1\r\n{{case}}\r\nhost: orders\r\n{many}\r\n"),
        ),
        (
            "200 lines",
            format!("GET / HTTP/1.1\r\n{{case}}\r\nhost: orders\r\n{too_many}\r\n"),
        ),
        (
            "100 kB in a line",
            format!("GET / HTTP/1.1\r\n{{case}}\r\nhost: orders\r\n{too_large}\r\n"),
        ),
        ("TLS", "\u{16}\u{3}\u{1}\u{0}\u{5}hello\r\n\r\n".to_owned()),
    ]
    .into_iter()
    .map(|(name, request)| Case::http1(format!("head: {name}"), request))
    .collect()
}

/// Large, delayed and missing bodies.
fn bodies_http1() -> Vec<Case> {
    let mut cases = Vec::new();
    for length in [1usize, 65_535, 65_536, 300_000, 1_500_000] {
        let body: Vec<u8> = (0..length)
            .map(|at| u8::try_from(at % 251).expect("small"))
            .collect();
        let head = request(
            "POST",
            "/large",
            &format!("content-length: {length}\r\n"),
            "",
        );
        let name = format!("a body of {length} bytes");
        cases.push(Case::http1(&name, [&head[..], &body].concat()));
        let head = request("POST", "/large", "transfer-encoding: chunked\r\n", "");
        let chunks = body.chunks(10_007).flat_map(|chunk| {
            [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()
        });
        let chunks: Vec<u8> = chunks.collect();
        let all = [&head[..], &chunks, b"0\r\n\r\n"].concat();
        cases.push(Case::http1(format!("{name} in chunks"), all));
    }
    for (framing, body) in [
        ("content-length: 5", "hello"),
        ("transfer-encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
    ] {
        for method in ["POST", "PUT", "GET", "HEAD", "DELETE"] {
            let head = request(
                method,
                "/continue",
                &format!("expect: 100-continue\r\n{framing}\r\n"),
                "",
            );
            let steps = vec![
                Step::Send(head),
                Step::AwaitHead,
                Step::Send(body.as_bytes().to_vec()),
            ];
            let case = head_aware(
                Case::http1(format!("{method} expects a 100, {framing}"), ""),
                method,
            );
            cases.push(Case {
                sent: Sent::Http1(steps),
                ..case
            });
        }
    }
    let steps = ["5\r\nhel", "lo\r", "\n0\r\n", "x-sum: 1\r\n", "\r\n"];
    let mut sent = vec![Step::Send(request(
        "POST",
        "/slow",
        "transfer-encoding: chunked\r\n",
        "",
    ))];
    sent.extend(steps.map(|step| Step::Send(step.as_bytes().to_vec())));
    let case = Case::http1("a body in pieces", "");
    cases.push(Case {
        sent: Sent::Http1(sent),
        ..case
    });
    cases
}

/// Several requests on a connection, and connections that switch protocols.
fn connections_http1() -> Vec<Case> {
    let mut cases = Vec::new();
    let get = request("GET", "/one", "", "");
    let post = request("POST", "/two", "content-length: 5\r\n", "hello");
    let chunked = request(
        "PUT",
        "/three",
        "transfer-encoding: chunked\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
    );
    for (name, requests) in [
        ("two GETs", vec![&get, &get]),
        ("GET and POST", vec![&get, &post]),
        ("POST, PUT and GET", vec![&post, &chunked, &get]),
    ] {
        let answers = requests.len();
        let all: Vec<u8> = requests.into_iter().flatten().copied().collect();
        let case = Case::http1(format!("pipelined: {name}"), all);
        cases.push(Case { answers, ..case });
    }
    let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nx-more: 1\r\n\r\n";
    let switched = vec![Step::Send(switch.as_bytes().to_vec()), Step::Echo];
    let switched_http2 = vec![
        Part::Head(fields(&[(":status", "200"), ("x-more", "1")]), false),
        Part::Echo,
    ];
    for (name, lines) in [
        ("websocket", "connection: Upgrade\r\nupgrade: websocket\r\n"),
        (
            "WebSocket, keep-alive",
            "connection: keep-alive, upgrade\r\nupgrade: WebSocket\r\n",
        ),
        (
            "websocket with a protocol",
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-protocol: a, b\r\nsec-websocket-extensions: permessage-deflate; x=1\r\norigin: http://a\r\ncookie: a=b; c=d\r\n",
        ),
    ] {
        let head = request("GET", "/socket?a=b", &format!("{lines}{key}"), "");
        let steps = vec![
            Step::Send(head),
            Step::AwaitHead,
            Step::Send(b"hello.".to_vec()),
        ];
        let case = Case::http1(format!("upgrade: {name}"), "")
            .served(switched.clone())
            .served_http2(switched_http2.clone());
        cases.push(Case {
            sent: Sent::Http1(steps.clone()),
            ..case.clone()
        });
        for status in [
            "200 OK",
            "403 Forbidden",
            "426 Upgrade Required",
            "503 Service Unavailable",
        ] {
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nx-more: 1\r\n\r\nno");
            let code = &status[..3];
            let declined = Case::http1(format!("upgrade: {name}, answered {status}"), "")
                .answered(answer)
                .served_http2(vec![
                    Part::Head(
                        fields(&[(":status", code), ("content-length", "2"), ("x-more", "1")]),
                        false,
                    ),
                    Part::Data(b"no".to_vec(), true),
                ]);
            cases.push(Case {
                sent: Sent::Http1(vec![steps[0].clone()]),
                ..declined
            });
        }
    }
    for (name, lines) in [
        (
            "h2c",
            "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
        ),
        (
            "something else",
            "connection: upgrade\r\nupgrade: foo/2\r\n",
        ),
        ("TLS/1.0", "connection: upgrade\r\nupgrade: TLS/1.0\r\n"),
        ("without connection", "upgrade: websocket\r\n"),
        ("without a protocol", "connection: upgrade\r\n"),
        (
            "several protocols",
            "connection: upgrade\r\nupgrade: foo, websocket\r\n",
        ),
    ] {
        let head = request("GET", "/socket", &format!("{lines}{key}"), "");
        cases.push(Case::http1(format!("upgrade: {name}"), head));
    }
    cases
}

fn head(method: &str, path: &str, more: &[(&str, &str)]) -> Fields {
    let mut all = fields(&[
        (":method", method),
        (":scheme", "http"),
        (":authority", "orders"),
        (":path", path),
    ]);
    all.extend(fields(more));
    all
}

fn shapes_http2() -> Vec<Case> {
    let mut cases = Vec::new();
    for target in TARGETS {
        let parts = vec![Part::Head(head("GET", target, &[]), true)];
        cases.push(Case::http2(format!("target {target:?}"), parts));
    }
    for length in [8_000, 30_000, 60_000] {
        let target = format!("/{}?{}", "p".repeat(length / 2), "q".repeat(length / 2));
        let parts = vec![Part::Head(head("GET", &target, &[]), true)];
        cases.push(Case::http2(format!("a target of {length} bytes"), parts));
    }
    for method in METHODS.iter().chain(&["CONNECT"]) {
        for (name, more, body) in [
            ("nothing", &[][..], &[][..]),
            ("empty DATA", &[], &[(&b""[..], true)]),
            ("a body", &[], &[(b"hello", true)]),
            (
                "a body and its length",
                &[("content-length", "5")],
                &[(b"hello", true)],
            ),
            ("a length of 0", &[("content-length", "0")], &[]),
            (
                "a body and empty DATA",
                &[],
                &[(b"hello", false), (b"", true)],
            ),
        ] {
            let mut parts = vec![Part::Head(head(method, "/m", more), body.is_empty())];
            parts.extend(
                body.iter()
                    .map(|(body, ends)| Part::Data(body.to_vec(), *ends)),
            );
            let name = format!("method {method}, {name}");
            cases.push(head_aware(Case::http2(name, parts), method));
        }
    }
    for (name, lines) in LINES {
        let pairs = lines.iter().filter_map(|line| line.split_once(':'));
        let pairs = pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        let pairs: Vec<(String, String)> = pairs.collect();
        let pairs: Vec<(&str, &str)> = pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let parts = vec![Part::Head(head("GET", "/l", &pairs), true)];
        cases.push(Case::http2(format!("fields: {name}"), parts));
        let parts = vec![
            Part::Head(head("POST", "/l", &pairs), false),
            Part::Data(b"hello".to_vec(), true),
        ];
        cases.push(Case::http2(format!("fields of a POST: {name}"), parts));
    }
    for host in HOSTS {
        let mut fields = head("GET", "/h", &[]);
        fields[2].1 = host.as_bytes().to_vec();
        cases.push(Case::http2(
            format!("authority {host:?}"),
            vec![Part::Head(fields, true)],
        ));
    }
    cases.extend(heads_http2());
    cases.extend(bodies_http2());
    cases
}

fn heads_http2() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut push = |name: &str, fields: Fields| {
        cases.push(Case::http2(
            format!("head: {name}"),
            vec![Part::Head(fields, true)],
        ));
    };
    let mut fields_of = head("GET", "/", &[]);
    fields_of.remove(2);
    push("no authority", fields_of.clone());
    fields_of.extend(fields(&[("host", "orders")]));
    push("host in place of authority", fields_of);
    push(
        "host and authority",
        head("GET", "/", &[("host", "orders")]),
    );
    push(
        "another host than authority",
        head("GET", "/", &[("host", "other")]),
    );
    for scheme in ["https", "HTTP", "ftp", ""] {
        let mut fields = head("GET", "/", &[]);
        fields[1].1 = scheme.as_bytes().to_vec();
        push(&format!("scheme {scheme:?}"), fields);
    }
    for missing in 0..4 {
        let mut fields = head("GET", "/", &[]);
        let (name, _) = fields.remove(missing);
        push(
            &format!("without {}", String::from_utf8_lossy(&name)),
            fields,
        );
    }
    push("pseudo-headers in another order", {
        let mut fields = head("GET", "/", &[("x-a", "1")]);
        fields[..4].reverse();
        fields
    });
    push("a second :path", head("GET", "/", &[(":path", "/other")]));
    push(
        "an unknown pseudo-header",
        head("GET", "/", &[(":unknown", "x")]),
    );
    push(
        ":protocol without CONNECT",
        head("GET", "/", &[(":protocol", "websocket")]),
    );
    push(
        "cookie crumbs",
        head(
            "GET",
            "/",
            &[
                ("cookie", "a=1"),
                ("x-a", "1"),
                ("cookie", "b=2"),
                ("cookie", "c=3; d=4"),
            ],
        ),
    );
    push(
        "connection-specific fields",
        head("GET", "/", &[("connection", "close")]),
    );
    push(
        "transfer-encoding",
        head("GET", "/", &[("transfer-encoding", "chunked")]),
    );
    push("upper-case name", head("GET", "/", &[("X-Upper", "1")]));
    let values: Vec<(String, String)> = (0..90)
        .map(|n| (format!("x-{n}"), "v".repeat(500)))
        .collect();
    let pairs: Vec<(&str, &str)> = values
        .iter()
        .map(|(name, value)| (&name[..], &value[..]))
        .collect();
    push("45 KiB of fields", head("GET", "/", &pairs));
    let values: Vec<(String, String)> = (0..200)
        .map(|n| (format!("x-{n}"), n.to_string()))
        .collect();
    let pairs: Vec<(&str, &str)> = values
        .iter()
        .map(|(name, value)| (&name[..], &value[..]))
        .collect();
    push("200 fields", head("GET", "/", &pairs));
    cases
}

fn bodies_http2() -> Vec<Case> {
    let mut cases = Vec::new();
    let trailers = fields(&[("x-sum", "1"), ("x-more", "2"), ("x-sum", "3")]);
    for (name, method, body) in [
        ("trailers behind a body", "POST", Some(&b"hello"[..])),
        ("trailers behind empty DATA", "POST", Some(b"")),
        ("trailers without a body", "POST", None),
        ("trailers of a GET", "GET", Some(b"hello")),
        ("trailers of a GET without a body", "GET", None),
    ] {
        for te in [&[][..], &[("te", "trailers")]] {
            let mut parts = vec![Part::Head(head(method, "/t", te), false)];
            parts.extend(body.map(|body| Part::Data(body.to_vec(), false)));
            parts.push(Part::Head(trailers.clone(), true));
            let te = if te.is_empty() { "" } else { ", te" };
            cases.push(Case::http2(format!("{name}{te}"), parts));
        }
    }
    for names in [
        "x-intercept-lost",
        "x-intercept-dev",
        "content-length",
        "host",
        "te",
        ":path",
        "connection",
    ] {
        let parts = vec![
            Part::Head(head("POST", "/t", &[]), false),
            Part::Data(b"hello".to_vec(), false),
            Part::Head(fields(&[(names, "1")]), true),
        ];
        let case = Case::http2(format!("a trailer named {names}"), parts);
        // Envoy rejects these itself, once it has forwarded the head.
        let is_refused = ["content-length", ":path", "te", "connection"].contains(&names);
        cases.push(if is_refused { case.cut() } else { case });
    }
    for length in [1usize, 16_384, 50_000] {
        let parts = vec![
            Part::Head(head("PUT", "/large", &[]), false),
            Part::Data(vec![b'x'; length], true),
        ];
        cases.push(Case::http2(format!("a body of {length} bytes"), parts));
    }
    for (name, more) in [("more", "9"), ("less", "2"), ("nothing of use", "x")] {
        let parts = vec![
            Part::Head(head("PUT", "/wrong", &[("content-length", more)]), false),
            Part::Data(b"hello".to_vec(), true),
        ];
        cases.push(Case::http2(format!("a length that says {name}"), parts).cut());
    }
    for method in ["POST", "GET"] {
        let parts = vec![
            Part::Head(
                head(
                    method,
                    "/continue",
                    &[("expect", "100-continue"), ("content-length", "5")],
                ),
                false,
            ),
            Part::AwaitHead,
            Part::Data(b"hello".to_vec(), true),
        ];
        cases.push(Case::http2(format!("{method} expects a 100"), parts));
    }
    for (protocol, more) in [
        ("websocket", &[][..]),
        (
            "websocket",
            &[("sec-websocket-protocol", "a, b"), ("cookie", "a=b")],
        ),
        ("foo", &[]),
    ] {
        let mut fields_of = head("CONNECT", "/socket?a=b", &[]);
        fields_of.extend(fields(&[(":protocol", protocol)]));
        fields_of.extend(fields(&[
            ("sec-websocket-version", "13"),
            ("origin", "http://a"),
        ]));
        fields_of.extend(fields(more));
        let parts = vec![
            Part::Head(fields_of, false),
            Part::AwaitHead,
            Part::Data(b"hello.".to_vec(), true),
        ];
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nx-more: 1\r\n\r\n";
        let name = format!("extended CONNECT to {protocol}, {} more", more.len());
        let case = Case::http2(&name, parts.clone())
            .served(vec![Step::Send(switch.as_bytes().to_vec()), Step::Echo])
            .served_http2(vec![
                Part::Head(fields(&[(":status", "200"), ("x-more", "1")]), false),
                Part::Echo,
            ]);
        cases.push(case);
        for status in ["403", "503"] {
            let declined = Case::http2(format!("{name}, answered {status}"), parts[..1].to_vec())
                .answered(format!(
                    "HTTP/1.1 {status} No\r\ncontent-length: 2\r\nx-more: 1\r\n\r\nno"
                ))
                .served_http2(vec![
                    Part::Head(
                        fields(&[
                            (":status", status),
                            ("content-length", "2"),
                            ("x-more", "1"),
                        ]),
                        false,
                    ),
                    Part::Data(b"no".to_vec(), true),
                ]);
            cases.push(declined);
        }
    }
    cases
}
