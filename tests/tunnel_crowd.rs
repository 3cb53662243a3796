//! A relay with as many tunnels as a workload may have intercepts, all in this process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::tunnel::{
    LocalServer, Machine, Relay, ask, developer, full, h2, repeat, request, within,
};
use http_body_util::BodyExt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;

/// The limit of intercepts per workload; one relay must be able to serve all of them.
const TUNNELS: usize = 1_000;
/// More than the smallest window, in each direction.
const BODY: u64 = 256 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tunnels_are_open_on_one_relay_and_every_one_of_them_carries_requests() {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let began = Instant::now();
    let mut opening = JoinSet::new();
    let at_once = Arc::new(tokio::sync::Semaphore::new(32));
    for _ in 0..TUNNELS {
        let (control, port, at_once) = (relay.control, server.port, Arc::clone(&at_once));
        opening.spawn(async move {
            let _turn = at_once.acquire_owned().await;
            Machine::up(control, developer(port)).await
        });
    }
    let machines = within(Duration::from_secs(120), opening.join_all()).await;
    println!("opened in {:?}", began.elapsed());
    let mut client = h2(relay.data).await;
    within(Duration::from_secs(120), async {
        for machine in &machines {
            let sent = request("GET", "/hello", &machine.address(), full(""));
            assert_eq!(ask(&mut client, sent).await.text(), "hello");
        }
        // Every 111th machine carries bodies as well.
        for machine in machines.iter().step_by(111) {
            let sent = request("POST", "/echo", &machine.address(), repeat(b'e', BODY));
            let answer = client.send(sent).await.unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.len() as u64, BODY);
            assert!(body.iter().all(|byte| *byte == b'e'));
        }
    })
    .await;
    println!("asked all of them after {:?}", began.elapsed());
    assert_eq!(relay.metric("injector_relay_tunnels").await, TUNNELS as f64);
}
