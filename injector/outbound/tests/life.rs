//! Who is let in, and what happens when either end goes away.

mod support;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use bytes::Bytes;
use intercept_outbound::client::Event;
use intercept_outbound::server::Limits;
use intercept_outbound::{DialError, Tempo};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn with_echo(limits: Limits) -> Cluster {
    Cluster::start(Setup {
        services: vec![service("echo", echo().await)],
        limits,
        ..Setup::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_secret_is_refused_with_a_text() {
    let cluster = with_echo(Limits::default()).await;
    let (client, mut events) = cluster.developer("foreign");
    let event = soon(events.recv()).await.unwrap();
    assert!(
        matches!(&event, Event::Away { reason, .. } if reason == "no such intercept"),
        "{event:?}"
    );
    assert_eq!(
        dial(&client, "echo").await.err(),
        Some(DialError::Unreachable)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_intercept_loses_its_connections() {
    let cluster = with_echo(Limits::default()).await;
    let (client, mut events) = cluster.developer(SECRET);
    let mut connection = dial(&client, "echo").await.unwrap();
    assert_eq!(soon(events.recv()).await, Some(Event::Up));
    cluster.secrets.remove(SECRET);
    let error = soon(connection.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(matches!(
        soon(events.recv()).await,
        Some(Event::Away { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_are_bounded() {
    let mut cluster = with_echo(Limits {
        connections: 2,
        ..Limits::default()
    })
    .await;
    let client = cluster.client();
    let held = [
        dial(&client, "echo").await.unwrap(),
        dial(&client, "echo").await.unwrap(),
    ];
    assert_eq!(dial(&client, "echo").await.err(), Some(DialError::Denied));
    let reason = cluster.record().await.reason.unwrap();
    assert!(
        reason.starts_with("2 connections are open already"),
        "{reason}"
    );
    drop(held);
    cluster.record().await;
    cluster.record().await;
    assert!(dial(&client, "echo").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connection_resets_and_new_dials_wait() {
    let target = echo().await;
    let setup = || Setup {
        services: vec![service("echo", target)],
        ..Setup::default()
    };
    let mut cluster = Cluster::start(setup()).await;
    let address = cluster.address;
    let client = cluster.client();
    let mut connection = dial(&client, "echo").await.unwrap();
    cluster.stop();
    let error = soon(connection.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let waiting = tokio::spawn(async move { dial(&client, "echo").await.map(drop) });
    let listener = soon(async {
        loop {
            if let Ok(listener) = TcpListener::bind(address).await {
                return listener;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let _again = Cluster::start_on(listener, setup());
    assert_eq!(soon(waiting).await.unwrap(), Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn dials_wait_no_longer_than_five_seconds() {
    let (client, _events) = developer_at(refusing().await, SECRET, Tempo::default());
    let started = Instant::now();
    assert_eq!(
        dial(&client, "echo").await.err(),
        Some(DialError::Unreachable)
    );
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_secs(5) && waited < Duration::from_secs(15),
        "{waited:?}"
    );
}

/// A line that takes bytes and passes none on, from some moment.
#[tokio::test(flavor = "multi_thread")]
async fn frozen_line_is_noticed_at_both_ends() {
    let (destination, target) = listener().await;
    let cluster = Cluster::start(Setup {
        services: vec![service("it", target)],
        tempo: quick(),
        ..Setup::default()
    })
    .await;
    let (line, line_at) = listener().await;
    let (freeze, frozen) = tokio::sync::watch::channel(false);
    let address = cluster.address;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = line.accept().await {
            let mut frozen = frozen.clone();
            if *frozen.borrow() {
                // Taken, and never answered.
                std::mem::forget(near);
                continue;
            }
            tokio::spawn(async move {
                let mut far = TcpStream::connect(address).await.unwrap();
                let is_frozen = async {
                    let _ = frozen.wait_for(|frozen| *frozen).await;
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                    () = is_frozen => {}
                }
                std::future::pending::<()>().await;
            });
        }
    });
    let (client, mut events) = developer_at(line_at, SECRET, quick());
    let mut connection = dial(&client, "it").await.unwrap();
    let (mut peer, _) = soon(destination.accept()).await.unwrap();
    assert_eq!(soon(events.recv()).await, Some(Event::Up));
    freeze.send_replace(true);
    let here = soon(connection.read(&mut [0])).await.unwrap_err();
    assert_eq!(here.kind(), ErrorKind::ConnectionReset);
    let there = soon(peer.read(&mut [0])).await.unwrap_err();
    assert_eq!(there.kind(), ErrorKind::ConnectionReset);
}

fn quick() -> Tempo {
    Tempo {
        beat: Duration::from_millis(50),
        silence: Duration::from_millis(1_000),
    }
}

/// As many as the beats of two days: h2 counts what a peer sends, and must count none of these.
#[tokio::test(flavor = "multi_thread")]
async fn hundred_thousand_requests_cost_nothing() {
    let cluster = with_echo(Limits {
        dials_per_second: 1_000_000,
        ..Limits::default()
    })
    .await;
    let (client, mut events) = cluster.developer(SECRET);
    let mut held = dial(&client, "echo").await.unwrap();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let client = client.clone();
        all.spawn(async move {
            for _ in 0..1_000 {
                client.dns(Bytes::from_static(QUESTION)).await.unwrap();
            }
        });
    }
    all.join_all().await;
    assert_eq!(soon(exchange(&mut held, b"x")).await.unwrap(), b"x");
    assert_eq!(events.try_recv().ok(), Some(Event::Up));
    assert!(events.try_recv().is_err(), "the connection was lost");
}

/// For `echo`, type A.
const QUESTION: &[u8] = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x04echo\0\0\x01\0\x01";

#[tokio::test(flavor = "multi_thread")]
async fn configuration_arrives() {
    let cluster = with_echo(Limits::default()).await;
    let config = soon(cluster.client().config()).await.unwrap();
    assert_eq!((config.domain.as_str(), config.ndots), ("cluster.test", 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_and_health_are_on_the_listener() {
    let mut cluster = with_echo(Limits::default()).await;
    let client = cluster.client();
    assert_eq!(
        dial(&client, "nobody").await.err(),
        Some(DialError::Unknown)
    );
    cluster.record().await;
    let text = get(cluster.address, "/metrics").await;
    assert!(
        text.contains("injector_outbound_dials_total{outcome=\"unknown\"} 1"),
        "{text}"
    );
    assert!(get(cluster.address, "/healthz").await.ends_with("ok\n"));
    let refused = get(cluster.address, "/outbound").await;
    assert!(refused.starts_with("HTTP/1.1 426"), "{refused}");
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    soon(stream.read_to_string(&mut text)).await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn services_have_names_in_dns() {
    let cluster = with_echo(Limits::default()).await;
    let client = cluster.client();
    // A question for `echo`, type A.
    let question = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x04echo\0\0\x01\0\x01";
    let answer = soon(client.dns(Bytes::from_static(question)))
        .await
        .unwrap();
    assert_eq!(answer[..2], question[..2]);
    assert!(
        answer.windows(4).any(|bytes| bytes == [192, 0, 2, 1]),
        "{answer:?}"
    );
    let other = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x05other\0\0\x01\0\x01";
    let answer = soon(client.dns(Bytes::from_static(other))).await.unwrap();
    assert_eq!(answer[3] & 15, 3, "no such name");
}
