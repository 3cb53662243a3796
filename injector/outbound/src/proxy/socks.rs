//! The SOCKS5 side of the proxy (RFC 1928): CONNECT, by user and password (RFC 1929).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::shared::{GREETING, SOCKS5, Shared, USER};
use crate::dial::{Destination, DialError};

/// The version of the negotiation by user and password.
const PASSWORD_VERSION: u8 = 1;
const BY_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;

const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// What a client is told of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Succeeded = 0,
    Failed = 1,
    NotAllowed = 2,
    HostUnreachable = 4,
    Refused = 5,
    TimedOut = 6,
    CommandNotSupported = 7,
    AddressNotSupported = 8,
}

/// Serves one connection to its end.
pub(super) async fn serve(mut stream: TcpStream, shared: &Shared) {
    let asked = timeout(GREETING, greet(&mut stream, &shared.password.0)).await;
    let Ok(Ok(asked)) = asked else { return };
    let connected = match asked {
        Ok(destination) => shared.route.connect(&destination).await.map_err(reply),
        Err(reply) => Err(reply),
    };
    match connected {
        Ok(upstream) => {
            if answer(&mut stream, Reply::Succeeded).await.is_ok() {
                upstream.transfer(stream, &[]).await;
            }
        }
        Err(reply) => {
            let _ = answer(&mut stream, reply).await;
        }
    }
}

/// What the client asks for, or why it is refused. An error is one that broke off, or is not let in.
async fn greet(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    password: &str,
) -> io::Result<Result<Destination, Reply>> {
    let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
    let _version = stream.read_u8().await?;
    let methods = bytes(stream).await?;
    if !methods.contains(&BY_PASSWORD) {
        stream.write_all(&[SOCKS5, NO_METHOD]).await?;
        return Err(refused());
    }
    stream.write_all(&[SOCKS5, BY_PASSWORD]).await?;
    let version = stream.read_u8().await?;
    let (user, given) = (bytes(stream).await?, bytes(stream).await?);
    let is_admitted = user == USER.as_bytes() && given == password.as_bytes();
    let status = u8::from(!is_admitted);
    stream.write_all(&[PASSWORD_VERSION, status]).await?;
    match is_admitted && version == PASSWORD_VERSION {
        true => request(stream).await,
        false => Err(refused()),
    }
}

async fn request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Destination, Reply>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [_version, command, _reserved, kind] = head;
    let host = match kind {
        IPV4 => Ipv4Addr::from(stream.read_u32().await?).to_string(),
        IPV6 => format!("[{}]", Ipv6Addr::from(stream.read_u128().await?)),
        NAME => String::from_utf8_lossy(&bytes(stream).await?).into_owned(),
        _ => return Ok(Err(Reply::AddressNotSupported)),
    };
    let port = stream.read_u16().await?;
    if command != CONNECT {
        return Ok(Err(Reply::CommandNotSupported));
    }
    let destination = format!("{host}:{port}").parse();
    Ok(destination.map_err(|_| Reply::Failed))
}

/// A byte with their number, and so many bytes.
async fn bytes(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u8().await?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// The address of the connection is not said: no program uses it.
async fn answer(stream: &mut (impl AsyncWrite + Unpin), reply: Reply) -> io::Result<()> {
    let (address, port) = ([0; 4], [0; 2]);
    let message = [&[SOCKS5, reply as u8, 0, IPV4][..], &address, &port].concat();
    stream.write_all(&message).await
}

fn reply(error: DialError) -> Reply {
    match error {
        DialError::Refused => Reply::Refused,
        DialError::Unreachable | DialError::Unknown => Reply::HostUnreachable,
        DialError::Timeout => Reply::TimedOut,
        DialError::Denied => Reply::NotAllowed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client of these bytes asks for, and what it is told before.
    async fn greeted(sent: &[u8]) -> (io::Result<Result<Destination, Reply>>, Vec<u8>) {
        let (mut client, mut server) = tokio::io::duplex(1024);
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let asked = greet(&mut server, "secret").await;
        drop(server);
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        (asked, told)
    }

    fn hello(password: &[u8], request: &[u8]) -> Vec<u8> {
        let user = [&[1, 8][..], b"injector"].concat();
        let password = [&[password.len() as u8][..], password].concat();
        [&[5, 2, 0, 2][..], &user, &password, request].concat()
    }

    #[tokio::test]
    async fn destinations_are_names_and_addresses() {
        let name = [&[5, 1, 0, 3, 5][..], b"Redis", &[0x18, 0xeb]].concat();
        let v4 = [5, 1, 0, 1, 10, 0, 0, 1, 0, 80];
        let v6 = [&[5, 1, 0, 4][..], &[0; 15], &[1, 0, 80]].concat();
        for (request, expected) in [
            (&name[..], "redis:6379"),
            (&v4, "10.0.0.1:80"),
            (&v6, "[::1]:80"),
        ] {
            let (asked, told) = greeted(&hello(b"secret", request)).await;
            assert_eq!(asked.unwrap().unwrap().to_string(), expected);
            assert_eq!(told, [5, 2, 1, 0]);
        }
    }

    #[tokio::test]
    async fn only_the_password_lets_in() {
        let request = [5, 1, 0, 1, 10, 0, 0, 1, 0, 80];
        let (asked, told) = greeted(&hello(b"guess", &request)).await;
        assert!(asked.is_err());
        assert_eq!(told, [5, 2, 1, 1]);
        let (asked, told) = greeted(&[5, 1, 0]).await;
        assert!(asked.is_err());
        assert_eq!(told, [5, 0xff]);
    }

    #[tokio::test]
    async fn other_requests_are_refused() {
        let listen = [5, 2, 0, 1, 10, 0, 0, 1, 0, 80];
        let (asked, _) = greeted(&hello(b"secret", &listen)).await;
        assert_eq!(asked.unwrap(), Err(Reply::CommandNotSupported));
        let (asked, _) = greeted(&hello(b"secret", &[5, 1, 0, 9])).await;
        assert_eq!(asked.unwrap(), Err(Reply::AddressNotSupported));
        let nothing = [5, 1, 0, 3, 0, 0, 80];
        let (asked, _) = greeted(&hello(b"secret", &nothing)).await;
        assert_eq!(asked.unwrap(), Err(Reply::Failed));
    }
}
