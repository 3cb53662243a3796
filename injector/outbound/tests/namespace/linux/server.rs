//! What programs connect to: a server on a free port of the loopback, whose clients say by their first byte what they want.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

/// A page, for programs that speak HTTP.
pub const PAGE: &str = "from the cluster";

const BUFFER: usize = 64 * 1024;

/// Listens at the same port of both families, in the background, for as long as the process lives. Returns the port.
pub fn start() -> u16 {
    let (listeners, port) = bind();
    for listener in listeners {
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream));
            }
        });
    }
    let udp = [
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port)),
        UdpSocket::bind((Ipv6Addr::LOCALHOST, port)),
    ];
    for socket in udp.into_iter().flatten() {
        thread::spawn(move || echo(&socket));
    }
    port
}

/// A port at which nothing listens in either family.
pub fn closed_port() -> u16 {
    let (listeners, port) = bind();
    drop(listeners);
    port
}

/// A port that is free in both families.
fn bind() -> ([TcpListener; 2], u16) {
    loop {
        let ipv4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = ipv4.local_addr().expect("an address").port();
        if let Ok(ipv6) = TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
            return ([ipv4, ipv6], port);
        }
    }
}

fn echo(socket: &UdpSocket) {
    let mut buffer = [0; BUFFER];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(&buffer[..length], from);
    }
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    stream.read_exact(&mut first)?;
    match first[0] {
        b'e' => io::copy(&mut stream.try_clone()?, &mut stream).map(drop),
        b'd' => download(stream),
        b'u' => {
            let length = count(&mut stream)?;
            stream.write_all(&length.to_be_bytes())
        }
        b'h' => {
            let length = count(&mut stream)?;
            stream.write_all(format!("{length} bytes, then the end").as_bytes())
        }
        // Answers and resets without having read what was sent.
        b'r' => {
            stream.write_all(b"answer")?;
            thread::sleep(Duration::from_millis(100));
            Ok(set_socket_linger(&stream, Some(Duration::ZERO))?)
        }
        // Tells of the client's reset.
        b'w' => {
            let second = TcpStream::connect((Ipv4Addr::LOCALHOST, read_u16(&mut stream)?))?;
            let outcome = count(&mut stream).map_err(|error| error.kind());
            write!(&second, "{outcome:?}")
        }
        _ => {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request)?;
            let length = PAGE.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{PAGE}"
            )
        }
    }
}

fn read_u16(stream: &mut TcpStream) -> io::Result<u16> {
    let mut port = [0; 2];
    stream.read_exact(&mut port)?;
    Ok(u16::from_be_bytes(port))
}

fn download(mut stream: TcpStream) -> io::Result<()> {
    let mut length = [0; 8];
    stream.read_exact(&mut length)?;
    let mut left = u64::from_be_bytes(length);
    let buffer = [0; BUFFER];
    while left > 0 {
        let piece = left.min(BUFFER as u64) as usize;
        stream.write_all(&buffer[..piece])?;
        left -= piece as u64;
    }
    Ok(())
}

fn count(stream: &mut TcpStream) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut length = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(length),
            piece => length += piece as u64,
        }
    }
}
