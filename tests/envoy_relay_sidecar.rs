//! The relay's sidecar in a real Envoy with its rendered settings.
//!
//! Its responses in place of the relay's, and the caller's identity.
//! Needs no filter and no release binary.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use harness::app::App;
use harness::binaries::{self, ENVOY};
use harness::client::{Answer, Ask, Client};
use harness::envoy::{Envoy, Start};
use harness::grpc::Grpc;
use harness::origin::Origin;
use harness::ports::Port;
use harness::tunnel::{self, Machine, Relay};
use harness::wait;
use intercept_manifest::facts::Protocol;
use intercept_manifest::istio::install::cluster_objects;
use intercept_manifest::istio::{example, workload_objects};
use intercept_tunnel::developer::Developer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// A body that no single read can take.
const BODY: usize = 64 * 1024;
/// Nearly all of it; over HTTP/2 Envoy may not send more before a window update.
const NEARLY_ALL: usize = 60_000;

/// The settings of one patch as rendered by the installer.
///
/// The patches are of the connection manager, of the route configuration, and of the relay's cluster.
fn rendered(patch: usize) -> Value {
    let objects = cluster_objects(&example::install()).expect("the example's facts");
    let filters: Vec<Value> = objects
        .iter()
        .map(|object| object.value().clone())
        .filter(|object| object["kind"] == "EnvoyFilter")
        .collect();
    assert_eq!(filters.len(), 1, "one EnvoyFilter in the cluster part");
    filters[0]["spec"]["configPatches"][patch]["patch"]["value"].clone()
}

/// A bootstrap in which `to` stands for Istio's own cluster of the relay.
fn bootstrap(listen: SocketAddr, relay: SocketAddr, mut to: Value) -> Value {
    to["name"] = json!("relay");
    to["type"] = json!("STATIC");
    to["load_assignment"] = json!({"cluster_name": "relay", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(relay)}}]}]});
    let mut manager = rendered(0)["typed_config"].take();
    manager["stat_prefix"] = json!("inbound");
    manager["route_config"] = json!({"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/forbidden"}, "direct_response": {"status": 403}},
        {"match": {"prefix": "/"}, "route": {"cluster": "relay", "timeout": "0s"}},
    ]}]});
    manager["http_filters"] = json!([{"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]);
    json!({
        "admin": {"address": address(([127, 0, 0, 1], 0).into())},
        "layered_runtime": {"layers": [{"name": "admin", "admin_layer": {}}]},
        "static_resources": {
            "listeners": [{
                "name": "inbound",
                "address": address(listen),
                "enable_reuse_port": true,
                "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
            }],
            "clusters": [to],
        },
    })
}

fn address(of: SocketAddr) -> Value {
    json!({"socket_address": {"address": of.ip().to_string(), "port_value": of.port()}})
}

/// A sidecar in front of a server at `relay`.
struct Sidecar {
    envoy: Envoy,
    port: Port,
    _dir: tempfile::TempDir,
}

impl Sidecar {
    async fn before(relay: SocketAddr, is_h2: bool) -> Self {
        let protocol = if is_h2 {
            "http2_protocol_options"
        } else {
            "http_protocol_options"
        };
        let options = json!({
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {protocol: {}},
        });
        Self::patched(
            relay,
            json!({"typed_extension_protocol_options": {HTTP_OPTIONS: options}}),
        )
        .await
    }

    /// The same with a patched upstream cluster.
    async fn patched(relay: SocketAddr, to: Value) -> Self {
        let (dir, port) = (tempfile::tempdir().expect("a directory"), Port::reserve());
        let start = Start {
            program: vec![binaries::envoy(ENVOY)],
            concurrency: 1,
            deadline: wait::DEADLINE,
        };
        let envoy = Envoy::start(&start, &bootstrap(port.addr(), relay, to), dir.path()).await;
        Self {
            envoy,
            port,
            _dir: dir,
        }
    }

    fn addr(&self) -> SocketAddr {
        self.port.addr()
    }
}

/// A relay that accepts a connection, reads at least this much of a request, and disappears.
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
            // Safe methods have no body: the mark sends them to the in-cluster version.
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
        // Envoy does not treat it as gRPC: no trailers-only response, so no 400 either.
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

#[tokio::test(flavor = "multi_thread")]
async fn end_of_a_client_overtakes_unread_bytes() {
    // More than the kernel takes for a relay that does not read, and less than it takes from the sidecar.
    const UNREAD: usize = 1 << 20;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let sidecar = Sidecar::patched(listener.local_addr().expect("an address"), rendered(2)).await;
    let mut client = TcpStream::connect(sidecar.addr()).await.expect("Envoy");
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
        2 * UNREAD
    );
    client.write_all(head.as_bytes()).await.expect("room");
    client.write_all(&vec![b'u'; UNREAD]).await.expect("room");
    let (relay, _) = listener.accept().await.expect("the sidecar");
    assert!(
        timeout(Duration::from_secs(1), client.read_u8())
            .await
            .is_err()
    );
    drop(client);
    // A reader that waits for this alone sees only the end.
    let ended = timeout(Duration::from_secs(2), relay.ready(Interest::PRIORITY)).await;
    assert!(ended.expect("an end").expect("a socket").is_read_closed());
}

/// Calls through both sidecars, the workload's and the relay's, on a port without a protocol.
#[tokio::test(flavor = "multi_thread")]
async fn grpc_passes_on_auto_ports() {
    let (relay, server) = (Relay::start().await, App::start("server").await);
    let machine = Machine::up(relay.control, tunnel::developer(server.port())).await;
    let sidecar = Sidecar::patched(relay.data, rendered(2)).await;
    let workload = Sidecar::patched(sidecar.addr(), outbound(Protocol::Auto)).await;
    let address = machine.address();
    let header = ("x-intercept-address", address.as_str());
    let answered = Grpc::new(workload.addr(), &[header]).unary().await;
    assert_eq!(answered.expect("trailers"), "server");
    let answer = Client::h1(workload.addr()).get("/", &[header]).await;
    assert_eq!(answer.by(), "server", "{answer:?}");
}

/// Istio's own cluster of a relay with the gate's patches.
fn outbound(protocol: Protocol) -> Value {
    let mut workload = example::workload();
    workload.ports[0].protocol = protocol;
    let (mesh, plugin) = (example::install().mesh, example::plugin());
    let objects = workload_objects(&mesh, &workload, &plugin).expect("the example's facts");
    let patches = objects.iter().filter_map(|object| {
        let object = object.value();
        object.pointer("/spec/configPatches")?.as_array()
    });
    let mut patches = patches.flatten();
    let patch = patches.find(|patch| patch["match"]["context"] == "SIDECAR_OUTBOUND");
    patch.expect("a patch")["patch"]["value"].clone()
}

const ORDERS: &str = "spiffe://cluster.local/ns/shop/sa/orders";
const OTHER: &str = "spiffe://cluster.local/ns/shop/sa/other";

/// Creates a self-signed certificate for an identity.
fn certificate(dir: &Path, name: &str, identity: &str, subject: &str) -> (String, String) {
    let path = |end: &str| dir.join(format!("{name}.{end}")).display().to_string();
    let (key, certificate) = (path("key"), path("crt"));
    let output = std::process::Command::new(binaries::tool("openssl", "openssl"))
        .args(["req", "-x509", "-nodes", "-newkey", "ec", "-days", "2"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-keyout", &key, "-out", &certificate])
        .args(["-subj", subject])
        .args(["-addext", &format!("subjectAltName=URI:{identity}")])
        .output()
        .expect("openssl runs");
    assert!(output.status.success(), "{output:?}");
    (key, certificate)
}

/// Two workloads and a relay's sidecar in one Envoy.
///
/// Each workload has a listener whose requests reach the sidecar with its certificate and with unchanged headers; a third one reaches it without a certificate.
struct Callers {
    _envoy: Envoy,
    orders: Port,
    other: Port,
    nobody: Port,
    _dir: tempfile::TempDir,
}

impl Callers {
    async fn of(relay: SocketAddr, is_patched: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // One subject that needs escaping, and Istio's own, which is empty.
        let certificates = [
            ("orders", ORDERS, r#"/O=a "quoted", name;/CN=b\\\\c"#),
            ("other", OTHER, "/"),
        ]
        .map(|(name, identity, subject)| certificate(dir.path(), name, identity, subject));
        let [orders, other, nobody, inbound, plain] = std::array::from_fn(|_| Port::reserve());
        let own = |(key, certificate): &(String, String)| json!([{"private_key": {"filename": key}, "certificate_chain": {"filename": certificate}}]);
        let authorities: String = certificates
            .iter()
            .map(|(_, certificate)| std::fs::read_to_string(certificate).expect("it was made"))
            .collect();
        let sidecar = json!({"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "common_tls_context": {
                "tls_certificates": own(&certificates[0]),
                "validation_context": {"trusted_ca": {"inline_string": authorities}},
            },
        }});
        let client = |certificate| {
            json!({"name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {"tls_certificates": own(certificate)},
            }})
        };
        let as_sent = json!({"forward_client_cert_details": "ALWAYS_FORWARD_ONLY"});
        let as_istio = json!({
            "forward_client_cert_details": "APPEND_FORWARD",
            "set_current_client_cert_details": {"subject": true, "dns": true, "uri": true},
        });
        let patch = if is_patched { rendered(1) } else { json!({}) };
        let mut relay_cluster = cluster("relay", relay, None);
        // As istiod does: `inbound|PORT||` connects from 127.0.0.6.
        relay_cluster["upstream_bind_config"] =
            json!({"source_address": {"address": "127.0.0.6", "port_value": 0}});
        let bootstrap = json!({
            "admin": {"address": address(([127, 0, 0, 1], 0).into())},
            "static_resources": {
                "listeners": [
                    listener(orders.addr(), "as-orders", &as_sent, &json!({}), None),
                    listener(other.addr(), "as-other", &as_sent, &json!({}), None),
                    listener(nobody.addr(), "as-nobody", &as_sent, &json!({}), None),
                    listener(inbound.addr(), "relay", &as_istio, &patch, Some(sidecar)),
                    listener(plain.addr(), "relay", &as_istio, &patch, None),
                ],
                "clusters": [
                    cluster("as-orders", inbound.addr(), Some(client(&certificates[0]))),
                    cluster("as-other", inbound.addr(), Some(client(&certificates[1]))),
                    cluster("as-nobody", plain.addr(), None),
                    relay_cluster,
                ],
            },
        });
        let start = Start {
            program: vec![binaries::envoy(ENVOY)],
            concurrency: 1,
            deadline: wait::DEADLINE,
        };
        let envoy = Envoy::start(&start, &bootstrap, dir.path()).await;
        Self {
            _envoy: envoy,
            orders,
            other,
            nobody,
            _dir: dir,
        }
    }
}

fn listener(
    of: SocketAddr,
    to: &str,
    manager: &Value,
    routes: &Value,
    tls: Option<Value>,
) -> Value {
    let mut manager = manager.clone();
    let mut routes = routes.clone();
    routes["virtual_hosts"] = json!([{"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": to, "timeout": "0s"}},
    ]}]);
    manager["@type"] = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager".into();
    manager["stat_prefix"] = to.into();
    manager["route_config"] = routes;
    manager["http_filters"] = json!([{"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]);
    let mut chain = json!({"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]});
    if let Some(tls) = tls {
        chain["transport_socket"] = tls;
    }
    json!({"name": of.to_string(), "address": address(of), "enable_reuse_port": true, "filter_chains": [chain]})
}

fn cluster(name: &str, to: SocketAddr, tls: Option<Value>) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(to)}}]}]},
    });
    if let Some(tls) = tls {
        cluster["transport_socket"] = tls;
    }
    cluster
}

/// A relay with one tunnel that only [`ORDERS`] may use, to a server that records requests.
async fn guarded() -> (Relay, Machine, Origin) {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let relay = Relay::start().await;
    let offered = Developer {
        identity: Some(ORDERS.to_owned()),
        ..tunnel::developer(origin.port)
    };
    let machine = Machine::up(relay.control, offered).await;
    (relay, machine, origin)
}

/// Headers with which a client would pose as another one.
fn forgeries() -> Vec<(&'static str, String)> {
    let certificate = "x-forwarded-client-cert";
    [
        format!("URI={ORDERS}"),
        format!("URI={ORDERS};x=\""),
        format!("URI={ORDERS};Subject=\"\\"),
        format!("By=a;URI={ORDERS},x=\"a,\";b=\""),
        format!("URI={ORDERS},"),
    ]
    .into_iter()
    .map(|value| (certificate, value))
    .chain([("x-intercept-peer", ORDERS.to_owned())])
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_header_makes_another_caller() {
    let (relay, machine, origin) = guarded().await;
    let callers = Callers::of(relay.data, true).await;
    for (name, value) in forgeries() {
        for port in [&callers.other, &callers.nobody] {
            let client = Client::h1(port.addr());
            let address = machine.address();
            let answer = client
                .get("/", &[("x-intercept-address", &address), (name, &value)])
                .await;
            let mark = answer.header("x-intercept-unavailable");
            assert_eq!(mark, Some("identity"), "{name}: {value}: {answer:?}");
        }
    }
    assert_eq!(origin.received(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_see_the_certificate_header_as_the_pod_does() {
    let (relay, machine, origin) = guarded().await;
    let callers = Callers::of(relay.data, true).await;
    let client = Client::h1(callers.orders.addr());
    let address = machine.address();
    let (mut expected, forged) = (Vec::new(), forgeries());
    for (name, value) in &forged {
        let answer = client
            .get("/", &[("x-intercept-address", &address), (name, value)])
            .await;
        assert_eq!(answer.status, 200, "{name}: {value}: {answer:?}");
        let is_certificate = *name == "x-forwarded-client-cert";
        expected.push(is_certificate.then(|| value.to_lowercase()));
    }
    let arrived = async || origin.received().len() == forged.len();
    wait::until("all requests", arrived).await;
    let received = origin.received();
    let seen: Vec<_> = received
        .iter()
        .map(|request| request.header("x-forwarded-client-cert").map(str::to_owned))
        .collect();
    assert_eq!(seen, expected);
    for request in &received {
        assert_eq!(request.header("x-intercept-peer"), None, "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_route_patch_nobody_has_an_identity() {
    let (relay, machine, origin) = guarded().await;
    let callers = Callers::of(relay.data, false).await;
    let answer = Client::h1(callers.orders.addr())
        .get("/", &[("x-intercept-address", &machine.address())])
        .await;
    let mark = answer.header("x-intercept-unavailable");
    assert_eq!(mark, Some("identity"), "{answer:?}");
    assert_eq!(origin.received(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn runtime_key_changes_no_lost_request() {
    for (kind, status) in [("text/plain", 502), ("application/grpc", 200)] {
        let sidecar = Sidecar::before(breaks_after(1).await, false).await;
        let modify = "/runtime_modify?injector.none=503";
        let modified = Client::h1(sidecar.envoy.admin())
            .must(Ask::post(modify, 0))
            .await;
        assert_eq!(modified.status, 200, "{modified:?}");
        let ask = Ask::post("/", 10).header("content-type", kind);
        let answer = Client::h2c(sidecar.addr()).must(ask).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_lost(&answer, kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_that_the_sidecar_refuses_is_unavailable() {
    let sidecar = Sidecar::before(breaks_after(1).await, false).await;
    let client = Client::h1(sidecar.addr());
    let large = Ask::get("/").header("x-large", "a".repeat(200 * 1024));
    for (ask, status) in [(Ask::get("/forbidden"), 403), (large, 431)] {
        let answer = client.must(ask).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(
            answer.header("x-intercept-unavailable"),
            Some("relay-sidecar"),
            "{answer:?}"
        );
        assert_eq!(answer.header("x-intercept-lost"), None, "{answer:?}");
    }
}
