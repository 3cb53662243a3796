//! Bodies far larger than any buffer.
//!
//! The whole tunnel runs in this process, so the peak of its resident memory (`VmHWM`) limits all of it.
//! One test per process, or the peak could be another test's.

use std::sync::atomic::Ordering;
use std::time::Duration;

use harness::tunnel::{
    Client, LocalServer, Machine, Relay, ask, developer, eventually, full, h1, h2, repeat, request,
    within,
};
use http_body_util::BodyExt;

const GIB: u64 = 1 << 30;

/// The peak of this process's resident memory, in bytes (proc(5)).
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

async fn download(client: &mut Client, address: &str, size: u64) -> u64 {
    let mut body = client
        .send(request("GET", &format!("/big/{size}"), address, full("")))
        .await
        .unwrap()
        .into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().into_data().unwrap().len() as u64;
    }
    read
}

#[tokio::test]
async fn a_gibibyte_passes_each_way_and_stalled_readers_pin_only_their_windows() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let machine = Machine::up(relay.control, developer(server.port)).await;
    let address = machine.address();
    within(Duration::from_secs(300), async {
        assert_eq!(
            download(&mut h1(relay.data).await, &address, GIB).await,
            GIB
        );
        assert_eq!(
            download(&mut h2(relay.data).await, &address, GIB).await,
            GIB
        );
        for mut client in [h1(relay.data).await, h2(relay.data).await] {
            let response = client
                .send(request("POST", "/sink", &address, repeat(b'u', GIB)))
                .await
                .unwrap();
            assert_eq!(
                response.into_body().collect().await.unwrap().to_bytes(),
                GIB.to_string()
            );
        }
    })
    .await;
    let streamed = peak();
    println!("peak after streaming: {} MiB", streamed >> 20);
    assert!(
        streamed < 64 << 20,
        "4 GiB passed with a peak of {} MiB",
        streamed >> 20
    );

    // Twelve readers that stall, then one that does not.
    let mut stalled = Vec::new();
    for _ in 0..12 {
        let mut client = h1(relay.data).await;
        let response = client
            .send(request("GET", &format!("/big/{GIB}"), &address, full("")))
            .await
            .unwrap();
        stalled.push((client, response));
    }
    let bytes = "injector_relay_tunnel_bytes_total{direction=\"from_developer\"}";
    let mut before = 0.0;
    eventually("their windows are full", async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = relay.metric(bytes).await;
        std::mem::replace(&mut before, now) + 4096.0 > now
    })
    .await;
    assert_eq!(
        ask(
            &mut h2(relay.data).await,
            request("GET", "/hello", &address, full(""))
        )
        .await
        .text(),
        "hello"
    );
    assert_eq!(server.open.load(Ordering::SeqCst), 12);
    let pinned = peak();
    println!("peak with stalled readers: {} MiB", pinned >> 20);
    assert!(
        pinned < 160 << 20,
        "twelve stalled readers pin {} MiB",
        pinned >> 20
    );
}
