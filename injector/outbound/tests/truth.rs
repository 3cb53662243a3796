//! Answers to a dial: the destination's own error, or the operator's refusal.

mod support;

use std::time::Duration;

use intercept_outbound::{Destination, DialError, Policy};
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn each_outcome_has_its_word() {
    let (silent, _held) = silent().await;
    let mut cluster = Cluster::start(Setup {
        services: vec![
            service("echo", echo().await),
            service("refusing", refusing().await),
            service("silent", silent),
            service("nowhere", "255.255.255.255:80".parse().unwrap()),
        ],
        dial: Duration::from_millis(800),
        ..Setup::default()
    })
    .await;
    let client = cluster.client();
    let table = [
        ("refusing", DialError::Refused),
        ("silent", DialError::Timeout),
        ("nowhere", DialError::Unreachable),
        ("unknown", DialError::Unknown),
        ("localhost", DialError::Denied),
    ];
    for (name, expected) in table {
        assert_eq!(dial(&client, name).await.err(), Some(expected), "{name}");
        let record = cluster.record().await;
        assert_eq!(record.outcome, expected.as_str(), "{record:?}");
        assert_eq!(record.destination, format!("{name}:80"));
    }
    let mut connection = dial(&client, "echo").await.unwrap();
    assert_eq!(exchange(&mut connection, b"hello").await.unwrap(), b"hello");
    drop(connection);
    let record = cluster.record().await;
    assert_eq!((record.outcome, record.sent, record.received), ("ok", 5, 5));
    assert_eq!(record.intercept, "orders-bob");
    assert_eq!(record.address, Some("192.0.2.1:80".parse().unwrap()));
}

/// A rule that allows everything does not open what is never dialled.
#[tokio::test(flavor = "multi_thread")]
async fn never_list_holds_whatever_is_allowed() {
    let target = echo().await;
    let mut cluster = Cluster::start(Setup {
        policy: Policy {
            allowed: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
            never: vec![
                "198.51.100.0/24".parse().unwrap(),
                "203.0.113.7:8080".parse().unwrap(),
            ],
            ranges: Vec::new(),
        },
        ..Setup::default()
    })
    .await;
    let client = cluster.client();
    let port = target.port();
    let hosts = [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "168.63.129.16",
        "[::1]",
        "[::]",
        "[fe80::1]",
        "[ff02::1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::1]",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "198.51.100.9",
        "localhost",
    ];
    let mut tried = 0;
    for host in hosts {
        let destination: Destination = format!("{host}:{port}").parse().expect(host);
        let outcome = soon(client.dial(&destination)).await;
        assert_eq!(outcome.err(), Some(DialError::Denied), "{host}");
        let reason = cluster.record().await.reason.unwrap();
        assert!(reason.contains("never dialled"), "{host}: {reason}");
        tried += 1;
    }
    let destination = "203.0.113.7:8080".parse().unwrap();
    assert_eq!(
        soon(client.dial(&destination)).await.err(),
        Some(DialError::Denied)
    );
    assert_eq!(tried, hosts.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_rule_allows_is_denied() {
    let cluster = Cluster::start(Setup::default()).await;
    let (client, mut events) = cluster.developer(SECRET);
    let destination = "192.0.2.200:80".parse().unwrap();
    assert_eq!(
        soon(client.dial(&destination)).await.err(),
        Some(DialError::Denied)
    );
    let denied = soon(async {
        loop {
            if let Some(intercept_outbound::client::Event::Denied { reason, .. }) =
                events.recv().await
            {
                return reason;
            }
        }
    });
    assert_eq!(denied.await, "no --to rule allows 192.0.2.200:80");
}
