//! Rules about names, decided on addresses: with a resolver of the tests' own, over UDP and TCP.

mod support;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use intercept_outbound::{Client, Destination, DialError, Policy, ResolvConf};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// Addresses by full name.
#[derive(Clone, Default)]
struct Zone(Arc<Mutex<HashMap<String, Vec<Ipv4Addr>>>>);

impl Zone {
    fn set(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.0
            .lock()
            .unwrap()
            .insert(format!("{name}.cluster.test"), addresses);
    }

    fn answer(&self, question: &[u8], most: usize) -> Vec<u8> {
        let question = Packet::parse(question).unwrap();
        let asked = question.questions[0].clone();
        let mut reply = Packet::new_reply(question.id());
        match self.0.lock().unwrap().get(&asked.qname.to_string()) {
            None => *reply.rcode_mut() = RCODE::NameError,
            Some(addresses) if asked.qtype == QTYPE::TYPE(TYPE::A) => {
                if addresses.len() > most {
                    reply.set_flags(PacketFlag::TRUNCATION);
                }
                for ip in addresses.iter().take(most) {
                    let record = ResourceRecord::new(
                        asked.qname.clone(),
                        CLASS::IN,
                        30,
                        RData::A((*ip).into()),
                    );
                    reply.answers.push(record);
                }
            }
            Some(_) => {}
        }
        reply.questions.push(asked);
        reply.build_bytes_vec().unwrap()
    }

    /// At most ten addresses by UDP.
    async fn serve(&self) -> SocketAddr {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let zone = self.clone();
        tokio::spawn(async move {
            let mut message = [0; 4_096];
            while let Ok((length, from)) = udp.recv_from(&mut message).await {
                let _ = udp
                    .send_to(&zone.answer(&message[..length], 10), from)
                    .await;
            }
        });
        let zone = self.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let length = stream.read_u16().await.unwrap();
                let mut message = vec![0; length.into()];
                stream.read_exact(&mut message).await.unwrap();
                let answer = zone.answer(&message, usize::MAX);
                stream.write_u16(answer.len() as u16).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        address
    }
}

async fn cluster(zone: &Zone, servers: Vec<SocketAddr>, policy: Policy) -> Cluster {
    let mut all = servers;
    all.push(zone.serve().await);
    Cluster::start(Setup {
        conf: ResolvConf {
            servers: all,
            search: vec![
                "shop.svc.cluster.test".to_owned(),
                "svc.cluster.test".to_owned(),
            ],
            ndots: 5,
        },
        policy,
        // Nothing answers at the addresses of these tests.
        dial: Duration::from_secs(2),
        ..Setup::default()
    })
    .await
}

fn allowing(rules: &[&str]) -> Policy {
    Policy {
        allowed: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
        ..Policy::default()
    }
}

async fn is_denied(client: &Client, destination: &str) -> bool {
    let destination: Destination = destination.parse().unwrap();
    match soon(client.dial(&destination)).await {
        Err(DialError::Denied) => true,
        Err(DialError::Unknown) => panic!("{destination}: unknown"),
        _ => false,
    }
}

/// A question for type A.
fn question(name: &str) -> Bytes {
    let mut packet = Packet::new_query(7);
    let name = simple_dns::Name::new(name).unwrap();
    let class = simple_dns::QCLASS::CLASS(CLASS::IN);
    let asked = simple_dns::Question::new(name, QTYPE::TYPE(TYPE::A), class, false);
    packet.questions.push(asked);
    packet.build_bytes_vec().unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn domain_rule_covers_its_names_only() {
    let zone = Zone::default();
    zone.set("a.shop.svc", &["198.51.100.5"]);
    zone.set("b.other.svc", &["198.51.100.6"]);
    zone.set("rebound.shop.svc", &["127.0.0.1"]);
    let policy = allowing(&["*.shop.svc.cluster.test:80"]);
    let cluster = cluster(&zone, vec![], policy).await;
    let client = cluster.client();
    for (destination, denied) in [
        ("a:80", false),
        ("a.shop:80", false),
        ("a.shop.svc.cluster.test:80", false),
        ("a:81", true),
        ("b.other:80", true),
        ("rebound:80", true),
        ("198.51.100.6:80", true),
    ] {
        assert_eq!(
            is_denied(&client, destination).await,
            denied,
            "{destination}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn address_is_allowed_while_its_name_has_it() {
    let zone = Zone::default();
    zone.set("c.shop.svc", &["198.51.100.7"]);
    let policy = allowing(&["*.shop.svc.cluster.test"]);
    let cluster = cluster(&zone, vec![], policy).await;
    let client = cluster.client();
    assert!(
        is_denied(&client, "198.51.100.7:80").await,
        "its name was never asked for"
    );
    let answer = soon(client.dns(question("c.shop.svc.cluster.test")))
        .await
        .unwrap();
    assert_eq!(Packet::parse(&answer).unwrap().id(), 7);
    assert!(
        !is_denied(&client, "198.51.100.7:80").await,
        "its name was asked for"
    );
    zone.set("c.shop.svc", &["198.51.100.8"]);
    soon(async { while !is_denied(&client, "198.51.100.7:80").await {} }).await;
    assert!(
        is_denied(&client, "198.51.100.7:80").await,
        "another pod's now"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn named_rules_follow_the_name() {
    let zone = Zone::default();
    zone.set("a.shop.svc", &["198.51.100.5"]);
    zone.set("relay.system.svc", &["198.51.100.9"]);
    let policy = Policy {
        never: vec!["relay.system.svc.cluster.test".parse().unwrap()],
        ranges: vec!["198.51.100.0/24".parse().unwrap()],
        ..allowing(&["a.shop.svc.cluster.test:80", "198.51.100.9", "203.0.113.1"])
    };
    let cluster = cluster(&zone, vec![], policy).await;
    let client = cluster.client();
    for (destination, denied) in [
        ("198.51.100.5:80", false),
        ("198.51.100.5:81", true),
        ("198.51.100.9:80", true),
        ("203.0.113.1:80", true),
    ] {
        assert_eq!(
            is_denied(&client, destination).await,
            denied,
            "{destination}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_answers_come_by_tcp() {
    let zone = Zone::default();
    let all: Vec<String> = (1..=40)
        .map(|number| format!("198.51.100.{number}"))
        .collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    zone.set("many.shop.svc", &all);
    let cluster = cluster(&zone, vec![], Policy::default()).await;
    let client = cluster.client();
    let answer = soon(client.dns(question("many.shop.svc.cluster.test")))
        .await
        .unwrap();
    assert_eq!(Packet::parse(&answer).unwrap().answers.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_resolver_is_passed_over() {
    let zone = Zone::default();
    zone.set("a.shop.svc", &["198.51.100.5"]);
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let servers = vec![silent.local_addr().unwrap()];
    let cluster = cluster(&zone, servers, Policy::default()).await;
    let client = cluster.client();
    let answer = soon(client.dns(question("a.shop.svc.cluster.test")))
        .await
        .unwrap();
    assert_eq!(Packet::parse(&answer).unwrap().answers.len(), 1);
}
