//! Connections of developers into a real mesh: whom policies see, what can be reached and what never, and what is seen of a connection that fails.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use harness::app::App;
use harness::cluster::{Cluster, Plan, SYSTEM, Stage};
use harness::command::Process;
use harness::intercept::Developer;
use harness::wait;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long policies may take until all sidecars have them.
const POLICY: Duration = Duration::from_secs(60);
/// How long a connection that fails may take to end.
const ENDS: Duration = Duration::from_secs(30);

/// `injector forward` of a developer, and where it leads.
struct Forward {
    process: Process,
    ports: Vec<(String, SocketAddr)>,
}

impl Forward {
    async fn start(developer: &Developer, destinations: &[String]) -> Self {
        let words: Vec<&str> = destinations.iter().map(String::as_str).collect();
        let command = developer.command(&[&["forward"], &words[..]].concat());
        let process = Process::start("forward", developer.home(), command);
        Self::of(process, destinations).await
    }

    async fn of(mut process: Process, destinations: &[String]) -> Self {
        let mut ports = Vec::new();
        for destination in destinations {
            let end = format!(" leads to {destination} in the cluster");
            let port = process
                .wait_output_with("says where it leads", |output| {
                    let line = output.lines().find_map(|line| line.strip_suffix(&*end))?;
                    line.rsplit(' ').next()?.parse().ok()
                })
                .await;
            ports.push((destination.clone(), port));
        }
        Self { process, ports }
    }

    fn port(&self, destination: &str) -> SocketAddr {
        let mut ports = self.ports.iter();
        let found = ports.find(|(known, _)| known == destination);
        found.expect("it is forwarded").1
    }

    /// The status and the whole answer of a request with this authority; what is seen instead where there is none.
    async fn get(&self, destination: &str, authority: &str) -> String {
        seen(self.port(destination), &request(authority)).await
    }

    async fn end(mut self) {
        self.process.signal(Signal::INT);
        assert_eq!(self.process.wait().await.code(), Some(0));
    }
}

fn request(authority: &str) -> String {
    format!("GET /who HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n")
}

/// What a program sees that connects there and sends this: `refused`, `reset`, `closed`, `silent`, or the answer.
async fn seen(address: SocketAddr, request: &str) -> String {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    match timeout(ENDS, asked).await {
        Err(_) => "silent".to_owned(),
        Ok(Ok(answer)) if answer.is_empty() => "closed".to_owned(),
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            "refused".to_owned()
        }
        Ok(Err(_)) => "reset".to_owned(),
    }
}

/// One replica, with a second port of the Service at which relays take requests of theirs, and a port for which the mesh takes it for bytes.
async fn stage(name: &str) -> Stage {
    Plan::new(name)
        .replicas(1)
        .port("http-data", 8080, 8080, "app")
        .listening(9100, "app")
        .start()
        .await
}

/// `injector install --outbound` in the namespace, as an administrator.
fn open(stage: &Stage, flags: &[&str]) -> String {
    let install = ["install", "-n", &stage.namespace, "--outbound"];
    let words = [&install[..], flags].concat();
    stage.cluster().injector(&words)
}

/// Binds the Role of this name to a user, as the pages say.
fn bind(stage: &Stage, user: &str, role: &str) {
    let (role_flag, user_flag) = (format!("--role={role}"), format!("--user={user}"));
    let name = format!("{user}-{role}");
    stage.run(&["create", "rolebinding", &name, &role_flag, &user_flag]);
}

/// An example of the page for operators, by its kind.
fn example(kind: &str) -> Value {
    let page = include_str!("../docs/operators.md");
    let section = page
        .split("## Connections into the cluster")
        .nth(1)
        .expect("the section");
    let mut blocks = section.split("```yaml\n").skip(1);
    let block = blocks.find(|block| block.contains(&format!("kind: {kind}\n")));
    let block = block
        .and_then(|block| block.split("```").next())
        .expect("an example");
    serde_saphyr::from_str(block).expect("YAML")
}

/// Only these service accounts of the namespace reach `orders`: the example of the page, for this namespace and workload.
fn admit(stage: &Stage, accounts: &[&str]) {
    let mut policy = example("AuthorizationPolicy");
    let principals = &mut policy["spec"]["rules"][0]["from"][0]["source"]["principals"];
    let given = "cluster.local/ns/shop/sa/injector-outbound";
    assert!(
        principals
            .as_array()
            .expect("a list")
            .iter()
            .any(|it| it == given)
    );
    let named = |account: &&str| format!("cluster.local/ns/{}/sa/{account}", stage.namespace);
    *principals = accounts.iter().map(named).collect();
    policy["spec"]["selector"]["matchLabels"] = json!({"app": "orders"});
    stage.apply(policy);
}

async fn wait_status(forward: &Forward, destination: &str, status: &str) -> String {
    let start = format!("HTTP/1.1 {status}");
    wait::within(POLICY, &start, async || {
        let answer = forward.get(destination, "orders").await;
        answer.starts_with(&start).then_some(answer)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_see_the_identity_of_the_pod() {
    let stage = stage("outbound").await;
    let alice = stage.developer("alice");
    let ran = alice.run(&["forward", "orders:80"]);
    let text = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(text.contains("not open in namespace"), "{text}");
    open(&stage, &["--outbound-as", "orders"]);

    // No role, no connection.
    let ran = alice.run(&["forward", "orders:80"]);
    let text = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(
        text.contains("you may not get pods/portforward injector-outbound-0"),
        "{text}"
    );
    bind(&stage, "alice", "injector-outbound");
    stage.apply(service("raw", "orders", "tcp", 9100));
    let destination = ["orders:80".to_owned()];
    let both = ["orders:80".to_owned(), "raw:80".to_owned()];
    let forward = Forward::start(&alice, &both).await;
    wait_status(&forward, "orders:80", "200").await;
    wait_status(&forward, "raw:80", "200").await;
    let mut network = example("NetworkPolicy");
    network["spec"]["podSelector"]["matchLabels"] = json!({"app": "orders"});
    stage.apply(network);
    admit(&stage, &["caller"]);
    let refused = wait_status(&forward, "orders:80", "403").await;
    assert!(refused.contains("RBAC: access denied"), "{refused}");
    let raw = forward.get("raw:80", "raw").await;
    println!("refused by policy: over HTTP 403, else {raw}");
    assert!(["closed", "reset"].contains(&&*raw), "{raw}");
    admit(&stage, &["caller", "injector-outbound"]);
    wait_status(&forward, "orders:80", "200").await;

    // As the workload, where that role is bound too; `forward` does not know for which workload it is.
    admit(&stage, &["orders"]);
    wait_status(&forward, "orders:80", "403").await;
    forward.end().await;
    let server = App::start("server").await;
    let with = ["--http-header=Coder=Alice", "--forward", "orders:80"];
    for (role, status) in [(None, "403"), (Some("injector-outbound-orders"), "200")] {
        if let Some(role) = role {
            bind(&stage, "alice", role);
        }
        let intercept = alice.intercept(&server, &with).await;
        let forward = Forward::of(intercept.process, &destination).await;
        wait_status(&forward, "orders:80", status).await;
        forward.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_namespaces_are_reached_where_allowed() {
    let (stage, other) = tokio::join!(
        stage("reaching"),
        Plan::new("beyond").replicas(1).bare().start()
    );
    open(&stage, &[]);
    let bob = stage.developer("bob");
    let beyond = format!("orders.{}:80", other.namespace);
    let destinations = [
        "orders:80".to_owned(),
        "orders:8080".to_owned(),
        beyond.clone(),
    ];
    let mut forward = Forward::start(&bob, &destinations).await;
    wait_status(&forward, "orders:80", "200").await;
    assert_eq!(forward.get(&beyond, "orders").await, "reset");
    let warning = format!("warning: {beyond}: refused in the cluster: no --to rule allows ");
    forward.process.wait_output(&warning).await;

    // Nor by a connection that is allowed: a sidecar routes by the Host header, to what it knows.
    let full = format!("orders.{}.svc.cluster.local", other.namespace);
    for authority in [&beyond, &full, &format!("orders.{}", other.namespace)] {
        let answer = forward.get("orders:80", authority).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{authority}: {answer}");
    }
    let relay = format!("injector-relay-0.{SYSTEM}.svc.cluster.local:8080");
    let answer = forward.get("orders:8080", &relay).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    forward.end().await;

    let to = format!("{}/orders:80", other.namespace);
    open(&stage, &["--outbound-to", &to]);
    let forward = Forward::start(&bob, &destinations).await;
    wait_status(&forward, &beyond, "200").await;
    forward.end().await;
    // That Service alone.
    other.apply(service("beside", "orders", "http", 8080));
    let beside = format!("beside.{}:80", other.namespace);
    let mut forward = Forward::start(&bob, std::slice::from_ref(&beside)).await;
    assert_eq!(forward.get(&beside, "a").await, "reset");
    let warning = format!("warning: {beside}: refused in the cluster: no --to rule allows ");
    forward.process.wait_output(&warning).await;
    forward.end().await;
}

fn address_of(object: &Value, pointer: &str) -> IpAddr {
    let text = object.pointer(pointer).and_then(Value::as_str);
    text.expect("an address").parse().expect("an address")
}

/// All that must never be dialled, and what is said of it.
fn never(cluster: &Cluster, stage: &Stage) -> Vec<(String, &'static str)> {
    let kubectl = &cluster.kubectl;
    let node = address_of(
        &kubectl.get(&["nodes"]),
        "/items/0/status/addresses/0/address",
    );
    let endpoints = kubectl.get(&["-n", "default", "endpointslices"]);
    let api = address_of(&endpoints, "/items/0/endpoints/0/addresses/0");
    let api_port = endpoints["items"][0]["ports"][0]["port"]
        .as_u64()
        .expect("a port");
    let kubernetes = cluster.service_address("default", "kubernetes", 443);
    let relay = cluster.service_address(SYSTEM, "injector-relay-0", 8080);
    let istiod = cluster.service_address("istio-system", "istiod", 15012);
    let relay_pod = cluster.relays()[0].1;
    let own = stage.get(&["pod", "injector-outbound-0"]);
    let own = address_of(&own, "/status/podIP");
    let (rule, flag) = ("no --to rule allows", "is never dialled: --never");
    vec![
        ("kubernetes.default.svc.cluster.local:443".to_owned(), flag),
        (kubernetes.to_string(), flag),
        (format!("{api}:{api_port}"), rule),
        (format!("injector-relay-0.{SYSTEM}:8080"), flag),
        (format!("injector-relay-0.{SYSTEM}:8081"), flag),
        (format!("injector-relay-0.{SYSTEM}:7073"), flag),
        (relay.to_string(), flag),
        (format!("{relay_pod}:8080"), flag),
        (format!("{relay_pod}:7070"), flag),
        ("istiod.istio-system:15012".to_owned(), flag),
        (istiod.to_string(), flag),
        ("localhost:15000".to_owned(), "is never dialled: loopback"),
        ("127.0.0.1:15001".to_owned(), "is never dialled: loopback"),
        ("[::1]:15000".to_owned(), "is never dialled: loopback"),
        (
            "169.254.169.254:80".to_owned(),
            "is never dialled: link-local",
        ),
        (
            format!("{own}:15006"),
            "an address of the outbound relay itself",
        ),
        (format!("{node}:10250"), rule),
        (format!("{node}:6443"), rule),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_mesh_itself_is_dialled() {
    let stage = stage("never").await;
    open(&stage, &[]);
    let bob = stage.developer("bob");
    let never = never(stage.cluster(), &stage);
    let destinations: Vec<String> = never.iter().map(|(it, _)| it.clone()).collect();
    let mut forward = Forward::start(&bob, &destinations).await;
    for (destination, why) in &never {
        assert_eq!(
            forward.get(destination, "a").await,
            "reset",
            "{destination}"
        );
        let start = format!("warning: {destination}: refused in the cluster: ");
        let line = forward
            .process
            .wait_output_with("says why", |output| {
                let line = output.lines().find(|line| line.starts_with(&start));
                line.map(str::to_owned)
            })
            .await;
        assert!(line.contains(why), "{line}");
    }
    forward.end().await;
    // One line of audit for each.
    let audit = stage.run(&["logs", "injector-outbound-0", "-c", "outbound"]);
    let denied = audit.matches(r#""outcome":"denied""#).count();
    assert!(denied >= never.len(), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_secret_is_refused() {
    let stage = stage("secret").await;
    open(&stage, &[]);
    let _ = stage.developer("bob");
    let kubeconfig = stage.kubeconfig("bob");
    let mut command =
        std::process::Command::new(harness::binaries::tool("kubectl", "kubernetes-client"));
    command.arg("--kubeconfig").arg(&kubeconfig).args([
        "port-forward",
        "pod/injector-outbound-0",
        ":7072",
    ]);
    let mut process = Process::start("port-forward", stage.dir(), command);
    let address: SocketAddr = process
        .wait_output_with("forwards", |output| {
            let line = output
                .lines()
                .find_map(|line| line.strip_prefix("Forwarding from "))?;
            line.split(' ').next()?.parse().ok()
        })
        .await;
    let hello = |secret: &str| {
        format!(
            "GET /outbound HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: intercept-h2-out\r\nx-intercept-outbound-version: 1\r\n\
             x-intercept-tunnel-secret: {secret}\r\nx-intercept-tunnel-name: a\r\nx-intercept-tunnel-instance: b\r\n\r\n"
        )
    };
    let answer = wait::within(POLICY, "the relays answer", async || {
        let answer = head(address, &hello(&"ab".repeat(32))).await;
        (!answer.starts_with("HTTP/1.1 503")).then_some(answer)
    })
    .await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    process.kill();
    // Nor does any pod of the mesh learn from a relay whether a tunnel is up.
    let relay = stage
        .cluster()
        .service_address(SYSTEM, "injector-relay-0", 7073);
    let path = format!("/tunnels/{}", "0".repeat(32));
    let question = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let endpoint = stage.door_to(relay, "relay");
    let mut stream = endpoint.open().await.expect("the tcp_proxy");
    stream.write_all(question.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let _ = timeout(ENDS, stream.read_to_end(&mut answer))
        .await
        .expect("it ends");
    assert_eq!(String::from_utf8_lossy(&answer), "");
}

/// What is answered first.
async fn head(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("forwarded");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = vec![0; 4_096];
    let length = timeout(ENDS, stream.read(&mut answer)).await;
    let length = length.expect("an answer").unwrap_or(0);
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// A Service that leads to this port of the `orders` pods, or to none where the label is another one.
fn service(name: &str, app: &str, protocol: &str, target: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": app}, "ports": [{"name": "p", "port": 80, "targetPort": target, "appProtocol": protocol}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_connections_look_as_pods_see_them() {
    let stage = stage("failing").await;
    stage.apply_all([
        service("tcp-silent", "orders", "tcp", 9),
        service("http-silent", "orders", "http", 10),
        service("tcp-nobody", "nobody", "tcp", 9),
        service("http-nobody", "nobody", "http", 9),
    ]);
    open(&stage, &[]);
    let bob = stage.developer("bob");
    let names = ["tcp-silent", "http-silent", "tcp-nobody", "http-nobody"];
    let mut destinations: Vec<String> = names.iter().map(|name| format!("{name}:80")).collect();
    destinations.push("orders:81".to_owned());
    destinations.push("missing:80".to_owned());
    destinations.push("orders:80".to_owned());
    let forward = Forward::start(&bob, &destinations).await;
    wait_status(&forward, "orders:80", "200").await;
    for name in names {
        let address = stage.cluster().service_address(&stage.namespace, name, 80);
        let pod = of_pod(&stage, address, name).await;
        let own = forward.get(&format!("{name}:80"), name).await;
        println!(
            "{name}: a pod sees {}, the forward {}",
            first_line(&pod),
            first_line(&own)
        );
        match name.starts_with("http") {
            true => assert_eq!(first_line(&own), "HTTP/1.1 503 Service Unavailable"),
            false => assert!(["closed", "reset"].contains(&&*own), "{name}: {own}"),
        }
        assert_eq!(pod.starts_with("HTTP"), own.starts_with("HTTP"), "{name}");
    }
    // A port that the Service does not have, and a name that there is none of.
    let port = forward.get("orders:81", "orders").await;
    println!("orders:81: the forward {}", first_line(&port));
    assert!(["closed", "reset"].contains(&&*port), "{port}");
    assert_eq!(forward.get("missing:80", "missing").await, "reset");
    let audit = stage.run(&["logs", "injector-outbound-0", "-c", "outbound"]);
    assert!(audit.contains(r#""outcome":"unknown""#), "{audit}");
    forward.end().await;
}

/// What the caller's pod sees, which has a sidecar too.
async fn of_pod(stage: &Stage, address: SocketAddr, name: &str) -> String {
    let mut stream = stage
        .door_to(address, name)
        .open()
        .await
        .expect("the tcp_proxy");
    let mut answer = Vec::new();
    let _ = stream.write_all(request(name).as_bytes()).await;
    match timeout(ENDS, stream.read_to_end(&mut answer)).await {
        Err(_) => "silent".to_owned(),
        Ok(_) if answer.is_empty() => "closed".to_owned(),
        Ok(_) => String::from_utf8_lossy(&answer).into_owned(),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_follows_forward_and_nothing_is_left() {
    let stage = stage("rewritten").await;
    let before = parts(&stage);
    open(&stage, &["--outbound-as", "orders"]);
    assert_eq!(parts(&stage).len(), before.len() + 9);
    let (bob, server) = (stage.developer("bob"), App::start("server").await);
    let port = server.port().to_string();
    let line = [
        "intercept",
        "orders",
        "--port",
        &port,
        "--http-header=Coder=Bob",
        "--forward",
        "orders:80",
        "--",
        "sh",
        "-c",
        "echo host=$ORDERS_SERVICE_HOST port=$ORDERS_SERVICE_PORT; sleep 1",
    ];
    let output = bob.run(&line);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let address = stage.service_address(80).ip();
    let note = format!("ORDERS_SERVICE_HOST: {address} is 127.0.0.1 here");
    assert!(said.contains(&note), "{said}");
    assert!(printed.contains("host=127.0.0.1 port="), "{printed}");

    let doctor = bob.run(&["doctor", "-o", "json"]);
    let checks: Vec<Value> = serde_json::from_slice(&doctor.stdout).expect("JSON");
    let outbound = checks.iter().filter(|check| {
        check["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("outbound"))
    });
    let outbound: Vec<&Value> = outbound.collect();
    assert_eq!(outbound.len(), 10, "{outbound:?}");
    assert!(
        outbound.iter().all(|check| check["outcome"] == "pass"),
        "{outbound:?}"
    );

    let uninstall = ["uninstall", "-n", &stage.namespace, "--outbound"];
    stage.cluster().injector(&uninstall);
    assert_eq!(parts(&stage), before);
    let ran = bob.run(&["forward", "orders:80"]);
    let text = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(text.contains("not open in namespace"), "{text}");
}

/// Answers each request with what the Service `raw` answers, asked by name.
const ASKING: &str = "
import http.server, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'asked: ' + urllib.request.urlopen('http://raw/who', timeout=20).read()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(('127.0.0.1', 3000), Handler).serve_forever()
";

/// The program behind `--` answers an intercepted request by a question of its own to the cluster.
#[tokio::test(flavor = "multi_thread")]
async fn command_asks_the_cluster_by_name() {
    let stage = stage("asking").await;
    stage.apply(service("raw", "orders", "tcp", 9100));
    open(&stage, &[]);
    let bob = stage.developer("bob");
    let line = [
        "intercept",
        "orders",
        "--port=3000:http",
        "--http-header=Coder=Bob",
        "--outbound=namespace",
        "--publish=off",
        "--",
        "python3",
        "-c",
        ASKING,
    ];
    let intercept = bob.start(bob.command(&line)).await;
    let web = stage.h1();
    wait::within(POLICY, "the program answers", async || {
        let answer = web.get("/who", &[("coder", "Bob")]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        text.starts_with("asked: ").then_some(text)
    })
    .await;
    let other = web.get("/who", &[]).await;
    assert_eq!(other.by(), "app", "{other:?}");
    let exec = ["exec", "orders-bob", "--", "curl", "-sS", "http://raw/who"];
    let ran = bob.run(&exec);
    assert!(ran.status.success(), "{ran:?}");
    let denied = [
        "exec",
        "orders-bob",
        "--",
        "curl",
        "-sS",
        "https://kubernetes.default.svc/",
    ];
    let ran = bob.run(&denied);
    assert_eq!(ran.status.code(), Some(7), "{ran:?}");
    // Python's own, after Ctrl-C.
    assert_eq!(intercept.leave().await.code(), Some(130));
    assert!(stage.intercepts().is_empty());
}

/// Everything of connections in the namespace, and beside the relays for it.
fn parts(stage: &Stage) -> Vec<String> {
    let kinds = "statefulsets,services,roles,sidecars,networkpolicies,serviceaccounts";
    let own = stage.run(&[
        "get",
        kinds,
        "-l",
        "app.kubernetes.io/name=injector-outbound",
        "-o",
        "name",
    ]);
    let beside = ["-n", SYSTEM, "get", "authorizationpolicies", "-o", "name"];
    let beside = stage.cluster().kubectl.must(&beside);
    let of_namespace = beside
        .lines()
        .filter(|line| line.ends_with(&*stage.namespace));
    own.lines().chain(of_namespace).map(str::to_owned).collect()
}
