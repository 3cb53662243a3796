//! Requests through a relay and a developer machine, over both protocols.
//!
//! What arrives, what returns, and what must not pass.

use bytes::Bytes;
use harness::tunnel::{self, Client, LocalServer, Machine, Relay, ask, developer, full, request};
use http_body::Frame;

async fn rig() -> (Relay, LocalServer, Machine) {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let machine = Machine::up(relay.control, developer(server.port)).await;
    (relay, server, machine)
}

async fn both(relay: &Relay) -> [(&'static str, Client); 2] {
    [
        ("h1", tunnel::h1(relay.data).await),
        ("h2", tunnel::h2(relay.data).await),
    ]
}

#[tokio::test]
async fn a_request_is_answered_by_the_developers_server() {
    let (relay, _server, mut machine) = rig().await;
    for (protocol, mut client) in both(&relay).await {
        let answer = ask(
            &mut client,
            request("GET", "/hello?a=b", &machine.address(), full("")),
        )
        .await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, "hello"),
            "{protocol}"
        );
        assert_eq!(answer.header("x-intercept-served-by"), "orders-bob");
        let line = machine.line().await;
        assert_eq!(
            (line.method.as_str(), line.path.as_str(), line.status),
            ("GET", "/hello?a=b", Some(200))
        );
    }
}

#[tokio::test]
async fn the_server_sees_the_request_as_it_was() {
    let (relay, _server, machine) = rig().await;
    for (protocol, mut client) in both(&relay).await {
        let mut sent = request("PUT", "/headers?x=%20y", &machine.address(), full("abc"));
        for (name, value) in [
            ("x-intercept-cluster", "intercept|bob"),
            ("x-intercept-id", "mine"),
            ("x-other", "kept"),
            ("te", "trailers"),
        ] {
            sent.headers_mut().append(name, value.parse().unwrap());
        }
        let answer = ask(&mut client, sent).await;
        let mut lines: Vec<_> = answer.text().lines().skip(1).collect();
        lines.sort_unstable();
        assert!(
            answer.text().starts_with("PUT /headers?x=%20y HTTP/1.1\n"),
            "{}",
            answer.text()
        );
        assert_eq!(
            lines,
            [
                "content-length: 3",
                "host: orders.shop",
                "te: trailers",
                "x-intercept-id: mine",
                "x-intercept-via: orders-bob",
                "x-other: kept"
            ],
            "{protocol}"
        );
    }
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    let (relay, _server, machine) = rig().await;
    for (protocol, mut client) in both(&relay).await {
        let (frames, body) = tunnel::channel();
        let mut sent = request("POST", "/echo", &machine.address(), body);
        sent.headers_mut().insert("te", "trailers".parse().unwrap());
        sent.headers_mut()
            .insert("trailer", "x-sum".parse().unwrap());
        let payload = Bytes::from(vec![7; 300_000]);
        let feed = async {
            frames.send(Frame::data(payload.clone())).await.unwrap();
            let trailers = [("x-sum".parse().unwrap(), "42".parse().unwrap())]
                .into_iter()
                .collect();
            frames.send(Frame::trailers(trailers)).await.unwrap();
            drop(frames);
        };
        let (answer, ()) = tokio::join!(ask(&mut client, sent), feed);
        assert_eq!(answer.body, payload, "{protocol}");
        assert_eq!(answer.trailers["x-sum"], "42", "{protocol}");
    }
}
