//! Connections of developers into the cluster: what an operator installs for them, and who may have them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::programs::ADMIN;
use super::rbac;
use super::server::Server;
use super::stage::Stage;
use super::support::{BINARY, Ran, Running};

const INSTALL: &str = "install --relay-image registry.example.com/injector:1 --no-wait";

#[track_caller]
fn done(server: &Server, words: &str) -> String {
    let ran = server.injector(ADMIN, words);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.stdout
}

#[track_caller]
fn refused(server: &Server, words: &str, expected: &str) {
    let ran = server.injector(ADMIN, words);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains(expected), "{expected}{ran:?}");
}

/// The cluster part, and the namespace with the account `orders`.
fn installed(namespace: &str) -> Server {
    let server = Server::bare();
    done(&server, INSTALL);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "orders", "namespace": namespace}});
    server.apply_all(&Server::namespace_objects(namespace));
    server.apply(&account);
    server
}

/// Everything of ours for connections, wherever it is.
fn parts(server: &Server) -> Vec<String> {
    let kinds = "statefulsets,services,roles,sidecars,networkpolicies,serviceaccounts,authorizationpolicies";
    let label = "app.kubernetes.io/name=injector-outbound";
    let text = server.must(&["get", kinds, "-A", "-l", label, "-o", "name"], None);
    text.lines().map(str::to_owned).collect()
}

fn args(server: &Server, set: &str) -> Vec<String> {
    let set = server.get("shop", "statefulset", set);
    let args = &set["spec"]["template"]["spec"]["containers"][0]["args"];
    serde_json::from_value(args.clone()).expect("texts")
}

#[test]
fn flags_are_kept_and_everything_is_removed() {
    let server = installed("shop");
    let flags = "-n shop --no-wait --outbound";
    let all = format!("install {flags} --outbound-to data/postgres:5432 --outbound-as orders");
    let dry = done(&server, &format!("{all} --dry-run -o name"));
    assert_eq!(parts(&server), [""; 0]);
    let text = done(&server, &all);
    let mut applied: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("created"))
        .map(str::trim)
        .collect();
    let mut printed: Vec<&str> = dry.lines().collect();
    applied.sort_unstable();
    printed.sort_unstable();
    assert_eq!(printed, applied);
    assert_eq!(parts(&server).len(), 9, "{text}");
    assert!(
        text.contains("--role=injector-outbound, --role=injector-outbound-orders"),
        "{text}"
    );
    let set = server.get("shop", "statefulset", "injector-outbound-orders");
    let spec = &set["spec"]["template"]["spec"];
    assert_eq!(spec["serviceAccountName"], "orders");
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(
        spec["containers"][0]["image"],
        "registry.example.com/injector:1"
    );

    // What was said once need not be said again.
    let again = done(&server, &format!("install {flags}"));
    let is_unchanged =
        |line: &&str| line.starts_with("unchanged") || line.is_empty() || line.starts_with("note");
    assert!(again.lines().all(|line| is_unchanged(&line)), "{again}");
    // Nor in a change of the cluster part.
    let more = done(&server, "install --no-wait --replicas 3");
    assert!(
        more.contains("changed    StatefulSet shop/injector-outbound\n"),
        "{more}"
    );
    let words = args(&server, "injector-outbound");
    let has = |word: &str| words.iter().any(|it| it == word);
    assert!(
        has("injector-relay-2.injector-system.svc.cluster.local.:7073"),
        "{words:?}"
    );
    assert!(has("postgres.data.svc.cluster.local.:5432"), "{words:?}");

    // A list that is given replaces the other one; the service account's pod goes with it.
    let own = format!("install {flags} --outbound-to shop --outbound-as injector-outbound");
    let dry = server.injector(ADMIN, &format!("{own} --dry-run"));
    let note = "note: StatefulSet shop/injector-outbound-orders: would be removed\n";
    assert!(dry.stderr.contains(note), "{dry:?}");
    let text = done(&server, &own);
    for gone in ["StatefulSet", "Role"] {
        let line = format!("removed    {gone} shop/injector-outbound-orders\n");
        assert!(text.contains(&line), "{line}{text}");
    }
    assert!(
        !args(&server, "injector-outbound")
            .iter()
            .any(|word| word.contains("postgres"))
    );

    let text = done(&server, "uninstall -n shop --outbound");
    assert!(
        text.contains("removed  AuthorizationPolicy injector-system/injector-outbound-shop\n"),
        "{text}"
    );
    assert_eq!(parts(&server), [""; 0]);
    assert!(
        server
            .object("injector-system", "statefulset", "injector-relay")
            .is_some()
    );
    let text = done(&server, "uninstall -n shop --outbound");
    assert_eq!(
        text,
        "developers do not connect into the cluster from shop\n"
    );

    // With all the rest, too.
    done(&server, &all);
    done(&server, "uninstall");
    assert_eq!(parts(&server), [""; 0]);
}

#[test]
fn upgrade_leaves_a_namespace_being_deleted() {
    let server = installed("shop");
    done(&server, "install -n shop --no-wait --outbound");
    server.must(&["delete", "namespace", "shop", "--wait=false"], None);
    // As the namespace's controller does, and nothing can be created there again.
    let account = [
        "-n",
        "shop",
        "delete",
        "serviceaccount",
        "injector-outbound",
    ];
    server.must(&account, None);
    let text = done(&server, "install --no-wait --replicas 3");
    let note = "shop is being deleted: its connections are left";
    assert!(text.contains(note), "{text}");
}

#[test]
fn what_cannot_work_is_refused() {
    let server = installed("shop");
    let install = "install -n shop --no-wait --outbound";
    refused(
        &server,
        &format!("{install} --outbound-as nobody"),
        "--outbound-as nobody: service account not found in shop",
    );
    refused(
        &server,
        &format!("{install} --outbound-to injector-system/injector-relay-0:8080"),
        "relays and istiod are never reached",
    );
    refused(
        &server,
        "install -n injector-system --no-wait --outbound",
        "relays and istiod are never reached",
    );
    refused(
        &server,
        &format!("{install} --outbound-to data:5432"),
        "expected NAMESPACE, NAMESPACE/SERVICE or NAMESPACE/SERVICE:PORT",
    );
    let old = r#"[{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": ["relay"]}]"#;
    let patch = [
        "-n",
        "injector-system",
        "patch",
        "statefulset",
        "injector-relay",
        "--type=json",
        "-p",
        old,
    ];
    server.must(&patch, None);
    refused(&server, install, "do not say yet whether a tunnel is up");
    assert_eq!(parts(&server), [""; 0]);
}

/// Something of the cluster that answers with what it is sent.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = stream.try_clone()?;
                std::io::copy(&mut reader, &mut &stream)
            });
        }
    });
    address
}

fn is_echoed(port: u16) -> bool {
    let stream = TcpStream::connect(("127.0.0.1", port));
    let echoed = stream.and_then(|mut stream| {
        stream.write_all(b"hello")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    });
    echoed.is_ok_and(|answer| &answer == b"hello")
}

/// The port of this machine that leads to postgres.
fn port_of(said: &str) -> u16 {
    let end = " leads to postgres:5432 in the cluster";
    let line = said.lines().find_map(|line| line.strip_suffix(end));
    let address = line.and_then(|line| line.rsplit(' ').next());
    let address: SocketAddr = address.expect("a line").parse().expect("an address");
    address.port()
}

/// `injector outbound` in the place of its pod, which the operator installed; `postgres` is on this machine.
fn start_outbound(stage: &Stage, set: &str, postgres: SocketAddr) -> Running {
    let mut command = Command::new(BINARY);
    command
        .env_clear()
        .args(["outbound", "--listen", "127.0.0.1:0"])
        .stdin(Stdio::null());
    for relay in stage.server.presence() {
        command.args(["--relay", &relay.to_string()]);
    }
    command.args(["--service", &format!("postgres:5432={postgres}")]);
    let running = Running::new(&mut command);
    running.says("developer machines on ");
    let said = running.stderr();
    let address = said
        .lines()
        .find_map(|line| line.strip_prefix("developer machines on "));
    let address: SocketAddr = address.expect("a line").parse().expect("an address");
    let pod = format!("{set}-0");
    stage.server.pods.put(&stage.namespace, &pod, 7072, address);
    let containers = json!([{"name": "outbound", "image": "x"}, {"name": "istio-proxy", "image": "istio/proxyv2:1.31.0"}]);
    let labels = json!({"app.kubernetes.io/name": "injector-outbound"});
    let pods = [Server::pod(&stage.namespace, &pod, &labels, &containers)];
    stage.server.apply_all(&pods);
    stage.server.run_pods(&pods);
    let ready = json!({"status": {"replicas": 1, "readyReplicas": 1}});
    stage
        .server
        .status(Some(&stage.namespace), "statefulset", set, &ready);
    running
}

fn found(ran: &Ran) -> Vec<String> {
    let checks: Vec<Value> = serde_json::from_str(&ran.stdout).expect("JSON");
    let checks = checks.iter().filter(|check| {
        check["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("outbound"))
    });
    checks
        .map(|check| format!("{} {}", check["id"], check["outcome"]).replace('"', ""))
        .collect()
}

#[test]
fn role_decides_who_connects() {
    let stage = Stage::new("reach");
    let forward = ["forward", "postgres:5432"];
    let none = stage.run("bob", &forward);
    assert_eq!(none.code, Some(1), "{none:?}");
    let text = "error: outbound connections: not open in namespace reach\n\nhint: an administrator opens them: injector install -n reach --outbound\n";
    assert!(none.stderr.contains(text), "{none:?}");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "orders", "namespace": "reach"}});
    stage.server.apply(&account);
    done(
        &stage.server,
        "install -n reach --outbound --outbound-as orders --no-wait",
    );
    let _outbound = start_outbound(&stage, "injector-outbound", echo());

    // bob may look into replicas of the test's own accord; alice is a developer and no more.
    let ran = stage.run("alice", &forward);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let text =
        "outbound connections: you may not get pods/portforward injector-outbound-0 in reach";
    let hint =
        "kubectl -n reach create rolebinding injector-outbound --role=injector-outbound --user=YOU";
    assert!(
        ran.stderr.contains(text) && ran.stderr.contains(hint),
        "{ran:?}"
    );
    let with = ["--http-header=Coder=Alice", "--forward", "postgres:5432"];
    let intercept = [&["intercept", "orders", "--port=1"][..], &with].concat();
    let ran = stage.run("alice", &intercept);
    assert!(ran.code == Some(1) && ran.stderr.contains(text), "{ran:?}");
    assert_eq!(stage.intercepts(), [""; 0]);
    let doctor = stage.run("alice", &["doctor", "-o", "json"]);
    assert!(
        found(&doctor).contains(&"outbound-right warn".to_owned()),
        "{doctor:?}"
    );

    stage.bind("alice", "Role", "injector-outbound");
    let forwarding = stage.start("alice", &forward);
    forwarding.says(" leads to postgres:5432 in the cluster");
    assert!(
        is_echoed(port_of(&forwarding.stderr())),
        "{}",
        forwarding.stderr()
    );
    forwarding.signal(Signal::INT);
    assert_eq!(forwarding.end().code, Some(0));
    let intercepting = stage.start("alice", &intercept);
    intercepting.is_live();
    assert!(
        is_echoed(port_of(&intercepting.stderr())),
        "{}",
        intercepting.stderr()
    );
    intercepting.signal(Signal::INT);
    assert_eq!(intercepting.end().code, Some(0));
    let doctor = stage.run("alice", &["doctor", "-o", "json"]);
    let own = [
        "outbound pass",
        "outbound-sidecar pass",
        "outbound-version pass",
        "outbound-relays pass",
        "outbound-right pass",
    ];
    assert_eq!(found(&doctor)[..5], own, "{doctor:?}");
    // Nothing else than that pod.
    let refused = stage.run("mallory", &forward);
    assert!(
        refused
            .stderr
            .contains("you may not get statefulsets injector-outbound in reach"),
        "{refused:?}"
    );
}

#[test]
fn workload_account_comes_first_where_it_may() {
    let stage = Stage::with_app("reach-as", json!({}));
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "reach-as"}});
    stage.server.apply(&account);
    done(
        &stage.server,
        "install -n reach-as --outbound --outbound-as default --no-wait",
    );
    let (own, other) = ("injector-outbound", "injector-outbound-default");
    let outbounds = [own, other].map(|set| start_outbound(&stage, set, echo()));
    stage
        .server
        .apply_all(&[rbac::binding("reach-as", "alice", "Role", own)]);
    let reached = |user: &str| {
        let arguments = [
            "intercept",
            "orders",
            "--port=1",
            "--http-header=Coder=Al",
            "--forward",
            "postgres:5432",
        ];
        let running = stage.start(user, &arguments);
        running.is_live();
        assert!(
            is_echoed(port_of(&running.stderr())),
            "{}",
            running.stderr()
        );
        running.signal(Signal::INT);
        assert_eq!(running.end().code, Some(0));
        outbounds.each_ref().map(|it| it.stdout().lines().count())
    };
    assert_eq!(reached("alice"), [1, 0]);
    stage.bind("alice", "Role", other);
    assert_eq!(reached("alice"), [1, 1]);
}
