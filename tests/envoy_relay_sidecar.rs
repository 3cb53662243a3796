//! What a relay's own sidecar says in the relay's stead, with the settings that are rendered for it, in a real Envoy in front of a relay that breaks off.
//! Needs no module and no release binary.

use std::net::SocketAddr;

use harness::binaries::{self, ENVOY};
use harness::client::{Answer, Ask, Client};
use harness::envoy::{Envoy, Start};
use harness::grpc::Grpc;
use harness::ports::Port;
use harness::wait;
use injector::manifest::istio::example;
use injector::manifest::istio::install::cluster_objects;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

/// A body that no single read takes.
const BODY: usize = 64 * 1024;
/// Nearly all of it; over HTTP/2 Envoy may not send more of it unasked.
const NEARLY_ALL: usize = 60_000;

/// The connection manager's settings as the installer renders them.
fn rendered() -> Value {
    let objects = cluster_objects(&example::install()).expect("the example's facts");
    let filters: Vec<Value> = objects
        .iter()
        .map(|object| object.value().clone())
        .filter(|object| object["kind"] == "EnvoyFilter")
        .collect();
    assert_eq!(filters.len(), 1, "one EnvoyFilter in the cluster part");
    filters[0]["spec"]["configPatches"][0]["patch"]["value"]["typed_config"].clone()
}

fn bootstrap(listen: SocketAddr, relay: SocketAddr, is_h2: bool) -> Value {
    let mut manager = rendered();
    manager["stat_prefix"] = json!("inbound");
    manager["route_config"] = json!({"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": "relay", "timeout": "0s"}},
    ]}]});
    manager["http_filters"] = json!([{"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]);
    let protocol = if is_h2 {
        "http2_protocol_options"
    } else {
        "http_protocol_options"
    };
    json!({
        "admin": {"address": address(([127, 0, 0, 1], 0).into())},
        "static_resources": {
            "listeners": [{
                "name": "inbound",
                "address": address(listen),
                "enable_reuse_port": true,
                "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
            }],
            "clusters": [{
                "name": "relay",
                "type": "STATIC",
                "load_assignment": {"cluster_name": "relay", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(relay)}}]}]},
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {protocol: {}},
                }},
            }],
        },
    })
}

fn address(of: SocketAddr) -> Value {
    json!({"socket_address": {"address": of.ip().to_string(), "port_value": of.port()}})
}

/// A sidecar in front of what listens at `relay`.
struct Sidecar {
    _envoy: Envoy,
    port: Port,
    _dir: tempfile::TempDir,
}

impl Sidecar {
    async fn before(relay: SocketAddr, is_h2: bool) -> Self {
        let (dir, port) = (tempfile::tempdir().expect("a directory"), Port::reserve());
        let start = Start {
            program: vec![binaries::envoy(ENVOY)],
            concurrency: 1,
            deadline: wait::DEADLINE,
        };
        let envoy = Envoy::start(&start, &bootstrap(port.addr(), relay, is_h2), dir.path()).await;
        Self {
            _envoy: envoy,
            port,
            _dir: dir,
        }
    }

    fn addr(&self) -> SocketAddr {
        self.port.addr()
    }
}

/// A relay that takes a connection, reads at least so much of a request, and is gone.
async fn breaks_after(bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut buffer, mut read) = (vec![0; 4096], 0);
                while read < bytes {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(more) => read += more,
                    }
                }
            });
        }
    });
    addr
}

fn assert_lost(answer: &Answer, what: &str) {
    assert_eq!(
        answer.header("x-intercept-lost"),
        Some("relay-sidecar"),
        "{what}: {answer:?}"
    );
    assert_eq!(answer.header("x-intercept-unavailable"), None, "{what}");
    let reason = answer.header("x-intercept-error").unwrap_or_default();
    assert!(reason.contains("relay"), "{what}: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_when_the_relay_breaks_is_a_502_with_its_reason() {
    for (is_h2, length, read) in [
        (false, 0, 1),
        (false, BODY, 1),
        (false, BODY, NEARLY_ALL),
        (true, 0, 100),
        (true, BODY, 100),
        (true, BODY, NEARLY_ALL),
    ] {
        let sidecar = Sidecar::before(breaks_after(read).await, is_h2).await;
        for client in [Client::h1(sidecar.addr()), Client::h2c(sidecar.addr())] {
            // Without a body there are safe methods too: the mark sends them to the in-cluster version.
            let methods: &[&str] = if length == 0 {
                &["GET", "HEAD", "OPTIONS", "DELETE"]
            } else {
                &["POST", "PUT"]
            };
            for method in methods {
                let ask = Ask::post("/", length).method(method.parse().expect("a method"));
                let what = format!("{method} h2={is_h2} {length} {read}");
                let answer = client.must(ask).await;
                assert_eq!(answer.status, 502, "{what}: {answer:?}");
                assert_lost(&answer, &what);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_call_under_way_when_the_relay_breaks_ends_with_internal_and_is_not_repeated() {
    for (is_h2, length, read) in [
        (true, 10, 100),
        (true, BODY, 100),
        (true, BODY, NEARLY_ALL),
        (false, 10, 1),
    ] {
        let sidecar = Sidecar::before(breaks_after(read).await, is_h2).await;
        let client = Client::h2c(sidecar.addr());
        for kind in ["application/grpc", "application/grpc+proto"] {
            let ask = Ask::post("/orders.Orders/Take", length).header("content-type", kind);
            let what = format!("{kind} h2={is_h2} {length} {read}");
            let answer = client.must(ask).await;
            assert_eq!(answer.status, 200, "{what}: {answer:?}");
            assert_eq!(
                answer.header("grpc-status"),
                Some("13"),
                "{what}: {answer:?}"
            );
            assert!(
                answer.body.is_empty() && answer.trailers.is_none(),
                "{what}"
            );
            assert_lost(&answer, &what);
        }
        // Not gRPC for Envoy: no trailers-only answer, so no 400 either.
        let ask = Ask::post("/", length).header("content-type", "application/grpc-web");
        assert_eq!(client.must(ask).await.status, 502);
    }
    let sidecar = Sidecar::before(breaks_after(100).await, true).await;
    let status = Grpc::new(sidecar.addr(), &[]).unary().await;
    assert_eq!(
        status.expect_err("the relay broke").code() as i32,
        13,
        "INTERNAL"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_reached_the_relay_is_unavailable_for_every_method() {
    let nobody = Port::reserve();
    let sidecar = Sidecar::before(nobody.addr(), false).await;
    let client = Client::h2c(sidecar.addr());
    for (kind, status) in [("text/plain", 503), ("application/grpc", 200)] {
        let ask = Ask::post("/", BODY).header("content-type", kind);
        let answer = client.must(ask).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(
            answer.header("x-intercept-unavailable"),
            Some("relay-sidecar")
        );
        assert_eq!(answer.header("x-intercept-lost"), None);
        assert_eq!(answer.header("x-intercept-error"), None);
    }
}
