//! Traffic in the tunnel other than plain requests.
//!
//! gRPC, WebSocket, server-sent events, wide headers; and that nothing on the way can be forged.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use harness::tunnel::{
    self, LocalServer, Machine, Relay, SOON, ask, developer, full, h1, h2, request,
};
use http::HeaderValue;
use http_body_util::BodyExt;
use intercept_tunnel::developer::{Developer, LocalProtocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest};
use tonic::metadata::MetadataValue;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

#[tokio::test]
async fn server_sent_events_pass_at_once() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let machine = Machine::up(relay.control, developer(server.port)).await;
    for mut client in [h1(relay.data).await, h2(relay.data).await] {
        let mut response = client
            .send(request("GET", "/events", &machine.address(), full("")))
            .await
            .unwrap();
        let first = timeout(Duration::from_secs(1), response.body_mut().frame())
            .await
            .expect("at once")
            .unwrap()
            .unwrap();
        assert_eq!(first.into_data().unwrap(), "data: first\n\n");
    }
}

#[tokio::test]
async fn no_mark_of_the_server_passes() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let machine = Machine::up(relay.control, developer(server.port)).await;
    for mut client in [h1(relay.data).await, h2(relay.data).await] {
        let mut sent = request("GET", "/forge", &machine.address(), full(""));
        sent.headers_mut()
            .insert("te", HeaderValue::from_static("trailers"));
        let answer = ask(&mut client, sent).await;
        let ours = |headers: &http::HeaderMap| {
            let mut names: Vec<_> = headers
                .keys()
                .map(|name| name.as_str().to_owned())
                .filter(|name| name.starts_with("x-intercept"))
                .collect();
            names.sort();
            names
        };
        assert_eq!(answer.status.as_u16(), 503);
        assert_eq!(
            ours(&answer.headers),
            ["x-intercept-id", "x-intercept-served-by"]
        );
        assert_eq!(answer.header("x-intercept-served-by"), "orders-bob");
        assert_eq!(ours(&answer.trailers), [""; 0]);
        assert_eq!(answer.trailers["x-kept"], "yes");
    }
    assert_eq!(
        relay
            .metric("injector_relay_requests_total{outcome=\"answered\",reason=\"\"}")
            .await,
        2.0
    );
}

#[tokio::test]
async fn a_thousand_headers_pass_and_more_are_unavailable() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let machine = Machine::up(relay.control, developer(server.port)).await;
    for mut client in [h1(relay.data).await, h2(relay.data).await] {
        for (count, size, status) in [
            (900, 100, 200),
            (1_100, 10, 503),
            (3, 80_000, 200),
            (5, 80_000, 503),
        ] {
            let mut sent = request("GET", "/hello", &machine.address(), full(""));
            for n in 0..count {
                let name: http::HeaderName = format!("x-{n}").parse().unwrap();
                sent.headers_mut()
                    .insert(name, "v".repeat(size).parse().unwrap());
            }
            // Over HTTP/1.1, what is not read ends its connection.
            if !client.is_usable().await {
                client = h1(relay.data).await;
            }
            let answer = ask(&mut client, sent).await;
            assert_eq!(
                answer.status.as_u16(),
                status,
                "{count} of {size}: {:?}",
                answer.headers
            );
            assert_eq!(
                answer.header("x-intercept-unavailable"),
                if status == 503 {
                    "headers-too-large"
                } else {
                    ""
                }
            );
        }
        if !client.is_usable().await {
            client = h1(relay.data).await;
        }
        let wide = ask(
            &mut client,
            request("GET", "/wide/900", &machine.address(), full("")),
        )
        .await;
        assert_eq!(
            (wide.status.as_u16(), wide.headers.len() > 900),
            (200, true)
        );
        let too_wide = ask(
            &mut client,
            request("GET", "/wide/1100", &machine.address(), full("")),
        )
        .await;
        assert_eq!(too_wide.status.as_u16(), 502);
        assert!(
            !too_wide.headers.contains_key("x-intercept-lost"),
            "an answered request must not be repeated: {too_wide:?}"
        );
    }
}

/// gRPC's own health and reflection services: unary, server stream and bidirectional stream.
async fn grpc_server() -> (u16, tonic_health::server::HealthReporter) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("orders", tonic_health::ServingStatus::Serving)
        .await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(health)
        .add_service(reflection);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (port, reporter)
}

fn with_address(
    address: &str,
) -> impl FnMut(tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> + Clone + use<> {
    let address: MetadataValue<_> = address.parse().unwrap();
    move |mut request| {
        request
            .metadata_mut()
            .insert("x-intercept-address", address.clone());
        Ok(request)
    }
}

async fn grpc_channel(data: SocketAddr) -> tonic::transport::Channel {
    tonic::transport::Endpoint::from_shared(format!("http://{data}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

#[tokio::test]
async fn grpc_passes_unary_streaming_and_both_ways_with_its_trailers() {
    let relay = Relay::start().await;
    for protocol in [LocalProtocol::Auto, LocalProtocol::Http2] {
        let (port, reporter) = grpc_server().await;
        let mut offered: Developer = developer(port);
        offered.local.protocol = protocol;
        let machine = Machine::up(relay.control, offered).await;
        let channel = grpc_channel(relay.data).await;

        let mut health =
            HealthClient::with_interceptor(channel.clone(), with_address(&machine.address()));
        let ask = |service: &str| HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = health.check(ask("orders")).await.unwrap();
        assert_eq!(
            answer.metadata().get("x-intercept-served-by").unwrap(),
            "orders-bob"
        );
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
        assert_eq!(
            health.check(ask("nobody")).await.unwrap_err().code(),
            tonic::Code::NotFound
        );

        let mut watching = health.watch(ask("orders")).await.unwrap().into_inner();
        assert_eq!(
            watching.message().await.unwrap().unwrap().status(),
            ServingStatus::Serving
        );
        reporter
            .set_service_status("orders", tonic_health::ServingStatus::NotServing)
            .await;
        let next = timeout(SOON, watching.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(next.status(), ServingStatus::NotServing);

        let mut reflection =
            ServerReflectionClient::with_interceptor(channel, with_address(&machine.address()));
        let (questions, rx) = tokio::sync::mpsc::channel(1);
        let mut answers = reflection
            .server_reflection_info(tokio_stream::wrappers::ReceiverStream::new(rx))
            .await
            .unwrap()
            .into_inner();
        for _ in 0..3 {
            let question = MessageRequest::ListServices(String::new());
            questions
                .send(ServerReflectionRequest {
                    host: String::new(),
                    message_request: Some(question),
                })
                .await
                .unwrap();
            let answer = timeout(SOON, answers.message())
                .await
                .expect("an answer before the next question")
                .unwrap()
                .unwrap();
            assert!(answer.message_response.is_some());
        }
        drop(questions);
        assert!(
            timeout(SOON, answers.message())
                .await
                .unwrap()
                .unwrap()
                .is_none()
        );
    }
}

/// A WebSocket server that echoes messages, closes on request, and offers a subprotocol.
#[expect(clippy::result_large_err, reason = "tungstenite's own callback type")]
async fn websocket_server() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let callback =
                    |request: &tungstenite::handshake::server::Request,
                     mut response: tungstenite::handshake::server::Response| {
                        assert_eq!(request.uri(), "/chat?room=1");
                        response
                            .headers_mut()
                            .insert("sec-websocket-protocol", HeaderValue::from_static("chat"));
                        Ok(response)
                    };
                let mut socket = tokio_tungstenite::accept_hdr_async(stream, callback)
                    .await
                    .unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() || message.is_binary() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
        }
    });
    port
}

async fn talk<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    socket: &mut tokio_tungstenite::WebSocketStream<S>,
) {
    let large = vec![9; 1 << 20];
    for message in [Message::text("hello"), Message::binary(large)] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(
            timeout(SOON, socket.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap(),
            message
        );
    }
    socket.close(None).await.unwrap();
    assert!(matches!(
        timeout(SOON, socket.next()).await.unwrap(),
        Some(Ok(Message::Close(_)))
    ));
}

#[tokio::test]
async fn a_websocket_passes_from_an_http1_upgrade() {
    let relay = Relay::start().await;
    let mut machine = Machine::up(relay.control, developer(websocket_server().await)).await;
    let mut sent = "ws://orders.shop/chat?room=1"
        .into_client_request()
        .unwrap();
    sent.headers_mut()
        .insert("x-intercept-address", machine.address().parse().unwrap());
    sent.headers_mut()
        .insert("sec-websocket-protocol", HeaderValue::from_static("chat"));
    let stream = TcpStream::connect(relay.data).await.unwrap();
    let (mut socket, response) = tokio_tungstenite::client_async(sent, stream).await.unwrap();
    assert_eq!(response.status().as_u16(), 101);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    assert_eq!(response.headers()["x-intercept-served-by"], "orders-bob");
    let line = machine.line().await;
    assert_eq!(
        (line.method.as_str(), line.path.as_str(), line.status),
        ("GET", "/chat?room=1", Some(101))
    );
    talk(&mut socket).await;
}

fn extended_connect(path: &str, address: &str) -> http::Request<tunnel::Body> {
    let mut sent = request("CONNECT", "/", address, full(""));
    *sent.uri_mut() = format!("http://orders.shop{path}").parse().unwrap();
    sent.headers_mut()
        .insert("sec-websocket-version", HeaderValue::from_static("13"));
    sent.extensions_mut()
        .insert(hyper::ext::Protocol::from_static("websocket"));
    sent
}

#[tokio::test]
async fn a_websocket_passes_from_an_http2_extended_connect() {
    let relay = Relay::start().await;
    let machine = Machine::up(relay.control, developer(websocket_server().await)).await;
    let mut client = h2(relay.data).await;
    // The first response brings the relay's settings, including extended CONNECT.
    ask(&mut client, request("GET", "/", "x", full(""))).await;
    let response = client
        .send(extended_connect("/chat?room=1", &machine.address()))
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 200, "{response:?}");
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    let upgraded = hyper_util::rt::TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(
        upgraded,
        tungstenite::protocol::Role::Client,
        None,
    )
    .await;
    talk(&mut socket).await;
}

#[tokio::test]
async fn a_server_that_does_not_switch_answers_with_its_own_status() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let machine = Machine::up(relay.control, developer(server.port)).await;
    for status in [200, 204, 404, 503] {
        let mut sent = request(
            "GET",
            &format!("/status/{status}"),
            &machine.address(),
            full(""),
        );
        for (name, value) in [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ] {
            sent.headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        let answer = ask(&mut h1(relay.data).await, sent).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.text(), if status == 204 { "" } else { "that" });
        assert!(
            !answer.headers.contains_key("x-intercept")
                && !answer.headers.contains_key("x-intercept-unavailable"),
            "{answer:?}"
        );
    }
    let mut client = h2(relay.data).await;
    ask(&mut client, request("GET", "/", "x", full(""))).await;
    for (given, seen) in [(200, 502), (404, 404)] {
        let answer = ask(
            &mut client,
            extended_connect(&format!("/status/{given}"), &machine.address()),
        )
        .await;
        assert_eq!(answer.status.as_u16(), seen, "{answer:?}");
        assert!(
            !answer.headers.contains_key("x-intercept-lost"),
            "{answer:?}"
        );
    }
}

/// A server that switches and then sends bytes: the end of one direction must not cut the other.
#[tokio::test]
async fn either_side_of_a_switched_connection_may_end_first() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let relay = Relay::start().await;
    let machine = Machine::up(relay.control, developer(port)).await;
    for server_first in [false, true] {
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await.unwrap();
            end_in_turn(stream, server_first).await
        };
        let client = async {
            let mut stream = TcpStream::connect(relay.data).await.unwrap();
            let head = format!(
                "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nx-intercept-address: {}\r\n\r\n",
                machine.address()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let head = read_head(&mut stream).await;
            assert!(head.starts_with("HTTP/1.1 101"), "{head}");
            end_in_turn(stream, !server_first).await
        };
        let (at_server, at_client) = timeout(SOON, async { tokio::join!(server, client) })
            .await
            .expect("no direction hangs");
        let expected = if server_first {
            ("second", "first")
        } else {
            ("first", "second")
        };
        assert_eq!((at_server.as_str(), at_client.as_str()), expected);
    }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Sends "first" and reads, or reads and sends "second", each ending its direction.
async fn end_in_turn(mut stream: TcpStream, first: bool) -> String {
    let mut heard = String::new();
    if first {
        stream.write_all(b"first").await.unwrap();
        stream.shutdown().await.unwrap();
        stream.read_to_string(&mut heard).await.unwrap();
    } else {
        stream.read_to_string(&mut heard).await.unwrap();
        stream.write_all(b"second").await.unwrap();
        stream.shutdown().await.unwrap();
    }
    heard
}
