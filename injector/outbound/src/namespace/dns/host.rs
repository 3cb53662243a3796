//! The host's resolvers, read again for each query: a VPN or another network changes them at any time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use tokio::time::timeout;

use super::transport::Transport;
use crate::namespace::address::DNS_PORT;
use crate::resolve::transport::{by_tcp, by_udp};

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// How long each of them has: less than the five seconds after which most programs ask again.
const PATIENCE: Duration = Duration::from_secs(4);

/// Asks the host's resolvers, one after another.
pub async fn resolve(query: &[u8], transport: Transport) -> io::Result<Vec<u8>> {
    // Where there is no file, libc asks this machine.
    let text = tokio::fs::read_to_string(RESOLV_CONF).await;
    ask_in_turn(&servers(&text.unwrap_or_default()), query, transport).await
}

async fn ask_in_turn(
    servers: &[SocketAddr],
    query: &[u8],
    transport: Transport,
) -> io::Result<Vec<u8>> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for server in servers {
        let answer = async {
            match transport {
                Transport::Udp => by_udp(*server, query, |_| true).await,
                Transport::Tcp => by_tcp(*server, query).await,
            }
        };
        match timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = error,
            Err(elapsed) => last = elapsed.into(),
        }
    }
    Err(last)
}

/// The resolvers that the text of a resolv.conf names.
fn servers(text: &str) -> Vec<SocketAddr> {
    let named: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            words.next().filter(|word| *word == "nameserver")?;
            server(words.next()?)
        })
        .collect();
    match named.is_empty() {
        true => vec![(Ipv4Addr::LOCALHOST, DNS_PORT).into()],
        false => named,
    }
}

/// An address; a link-local one with its interface, as in `fe80::1%eth0`.
fn server(word: &str) -> Option<SocketAddr> {
    match word.split_once('%') {
        None => Some((word.parse::<IpAddr>().ok()?, DNS_PORT).into()),
        Some((address, interface)) => {
            let address: Ipv6Addr = address.parse().ok()?;
            let index = if_nametoindex(interface).ok()?;
            Some(SocketAddrV6::new(address, DNS_PORT, 0, index).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;

    #[test]
    fn servers_of_a_file() {
        let text = "# nameserver 9.9.9.9\nsearch corp\nnameserver 10.0.0.2\n nameserver\tfd00::2 \nnameserver x\nnameserver fe80::1%lo\n";
        let index = if_nametoindex("lo").unwrap();
        let expected = [
            "10.0.0.2:53".to_owned(),
            "[fd00::2]:53".to_owned(),
            format!("[fe80::1%{index}]:53"),
        ];
        let found: Vec<_> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
        assert_eq!(servers(""), ["127.0.0.1:53".parse().unwrap()]);
    }

    #[tokio::test]
    async fn second_server_answers_for_first() {
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let first = closed.local_addr().unwrap();
        drop(closed);
        let second = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = [first, second.local_addr().unwrap()];
        let serve = tokio::spawn(async move {
            let mut query = [0; 16];
            let (length, from) = second.recv_from(&mut query).await.unwrap();
            second.send_to(b"xxforged", from).await.unwrap();
            second.send_to(&query[..length], from).await.unwrap();
        });
        let answer = ask_in_turn(&servers, b"\x01\x02query", Transport::Udp).await;
        assert_eq!(answer.unwrap(), b"\x01\x02query");
        serve.await.unwrap();
    }
}
