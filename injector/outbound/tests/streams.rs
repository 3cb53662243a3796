//! Bytes, ends and resets of connections, as both sides see them.

mod support;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use intercept_outbound::Forward;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

async fn cluster_of(target: std::net::SocketAddr) -> Cluster {
    Cluster::start(Setup {
        services: vec![service("it", target)],
        ..Setup::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn half_close_passes_both_ways() {
    let (listener, target) = listener().await;
    let cluster = cluster_of(target).await;
    let client = cluster.client();
    let mut connection = dial(&client, "it").await.unwrap();
    let (mut peer, _) = soon(listener.accept()).await.unwrap();
    connection.write_all(b"question").await.unwrap();
    connection.shutdown().await.unwrap();
    let mut text = String::new();
    soon(peer.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "question");
    peer.write_all(b"answer").await.unwrap();
    drop(peer);
    text.clear();
    soon(connection.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_may_close_its_half_first() {
    let (listener, target) = listener().await;
    let cluster = cluster_of(target).await;
    let client = cluster.client();
    let mut connection = dial(&client, "it").await.unwrap();
    let (mut peer, _) = soon(listener.accept()).await.unwrap();
    peer.shutdown().await.unwrap();
    assert_eq!(soon(connection.read(&mut [0])).await.unwrap(), 0);
    connection.write_all(b"still").await.unwrap();
    connection.shutdown().await.unwrap();
    let mut text = String::new();
    soon(peer.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "still");
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_of_the_destination_arrives_as_one() {
    let (listener, target) = listener().await;
    let mut cluster = cluster_of(target).await;
    let client = cluster.client();
    let mut connection = dial(&client, "it").await.unwrap();
    let (peer, _) = soon(listener.accept()).await.unwrap();
    crash(peer);
    let error = soon(connection.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(cluster.record().await.reason.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_overtakes_no_data() {
    const LENGTH: usize = 100_000;
    let (listener, target) = listener().await;
    let cluster = cluster_of(target).await;
    let client = cluster.client();
    for round in 0..50 {
        let mut connection = dial(&client, "it").await.unwrap();
        let (mut peer, _) = soon(listener.accept()).await.unwrap();
        peer.write_all(&[7; LENGTH]).await.unwrap();
        // Else it is this machine's TCP that throws data away.
        soon(drained(&peer)).await;
        crash(peer);
        let mut received = Vec::new();
        let _ = soon(connection.read_to_end(&mut received)).await;
        assert_eq!(received.len(), LENGTH, "round {round}");
    }
}

/// Until the peer's kernel has acknowledged and its program has read everything, as far as this side can see.
async fn drained(peer: &TcpStream) {
    let inode_port = peer.local_addr().unwrap().port();
    loop {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let is_empty = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_ours = |address: &str| address.ends_with(&format!(":{inode_port:04X}"));
            let is_one =
                fields.len() > 4 && fields[3] == "01" && (is_ours(fields[1]) || is_ours(fields[2]));
            !is_one || fields[4] == "00000000:00000000"
        };
        if table.lines().all(is_empty) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_connection_resets_the_destination() {
    let (listener, target) = listener().await;
    let cluster = cluster_of(target).await;
    let client = cluster.client();
    let connection = dial(&client, "it").await.unwrap();
    let (mut peer, _) = soon(listener.accept()).await.unwrap();
    drop(connection);
    let error = soon(peer.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn forward_passes_resets_and_refusals() {
    let (listener, target) = listener().await;
    let cluster = Cluster::start(Setup {
        services: vec![service("it", target), service("refusing", refusing().await)],
        ..Setup::default()
    })
    .await;
    let client = cluster.client();
    let forward =
        |name: &'static str| async move { Forward::bind(0, named(name, 80)).await.unwrap() };
    let (good, bad) = (forward("it").await, forward("refusing").await);
    let (good_at, bad_at) = (good.address(), bad.address());
    tokio::spawn(good.run(client.clone()));
    tokio::spawn(bad.run(client));

    let mut refused = TcpStream::connect(bad_at).await.unwrap();
    let error = soon(refused.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let mut program = TcpStream::connect(good_at).await.unwrap();
    let (mut peer, _) = soon(listener.accept()).await.unwrap();
    program.write_all(b"x").await.unwrap();
    assert_eq!(soon(peer.read_u8()).await.unwrap(), b'x');
    crash(program);
    let error = soon(peer.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let mut program = TcpStream::connect(good_at).await.unwrap();
    let (peer, _) = soon(listener.accept()).await.unwrap();
    crash(peer);
    let error = soon(program.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn thousand_connections_at_once() {
    let cluster = cluster_of(echo().await).await;
    let client = cluster.client();
    let started = Instant::now();
    let mut all = JoinSet::new();
    for number in 0..1_000 {
        let client = client.clone();
        all.spawn(async move {
            let mut connection = dial(&client, "it").await.unwrap();
            let text = format!("number {number}");
            let answer = soon(exchange(&mut connection, text.as_bytes()))
                .await
                .unwrap();
            assert_eq!(answer, text.as_bytes());
        });
    }
    assert_eq!(all.join_all().await.len(), 1_000);
    println!("1000 connections, one echo each: {:?}", started.elapsed());
}

/// Each holds a full window of the developer's.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_readers_hold_up_no_other() {
    let (endless, target) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = endless.accept().await {
            tokio::spawn(async move { while stream.write_all(&[0; 65_536]).await.is_ok() {} });
        }
    });
    let cluster = Cluster::start(Setup {
        services: vec![service("endless", target), service("echo", echo().await)],
        ..Setup::default()
    })
    .await;
    let client = cluster.client();
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut connection = dial(&client, "endless").await.unwrap();
        soon(connection.read_u8()).await.unwrap();
        stalled.push(connection);
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let started = Instant::now();
        let mut connection = dial(&client, "echo").await.unwrap();
        assert_eq!(soon(exchange(&mut connection, b"x")).await.unwrap(), b"x");
        slowest = slowest.max(started.elapsed());
    }
    println!("beside 20 stalled readers a new connection took at most {slowest:?}");
    drop(stalled);
}

/// Destinations that read nothing hold their own windows only.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_writers_hold_up_no_other() {
    let (deaf, target) = listener().await;
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = deaf.accept().await {
            held.push(stream);
        }
    });
    let cluster = Cluster::start(Setup {
        services: vec![service("deaf", target), service("echo", echo().await)],
        ..Setup::default()
    })
    .await;
    let client = cluster.client();
    let mut writers = JoinSet::new();
    for _ in 0..20 {
        let mut connection = dial(&client, "deaf").await.unwrap();
        writers.spawn(async move { while connection.write_all(&[0; 65_536]).await.is_ok() {} });
    }
    for _ in 0..20 {
        let mut connection = dial(&client, "echo").await.unwrap();
        assert_eq!(soon(exchange(&mut connection, b"x")).await.unwrap(), b"x");
    }
    writers.abort_all();
}

/// h2 counts small frames that wait: a slow destination must not cost the connection.
#[tokio::test(flavor = "multi_thread")]
async fn many_small_frames_are_harmless() {
    let (listener, target) = listener().await;
    let cluster = cluster_of(target).await;
    let (client, mut events) = cluster.developer(SECRET);
    let mut connection = dial(&client, "it").await.unwrap();
    let (mut peer, _) = soon(listener.accept()).await.unwrap();
    let count = 200_000;
    soon(async {
        for _ in 0..count {
            connection.write_all(b"x").await.unwrap();
        }
        connection.shutdown().await.unwrap();
    })
    .await;
    let mut received = Vec::new();
    soon(peer.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received.len(), count);
    assert_eq!(
        events.try_recv().ok(),
        Some(intercept_outbound::client::Event::Up)
    );
    assert!(events.try_recv().is_err(), "the connection was lost");
}
