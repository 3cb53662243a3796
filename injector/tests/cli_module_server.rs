//! What hostile clients can make `injector module-server` keep in memory, as the kernel counts it.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What all of them together may take. The Deployment's limit is 64 MiB.
const MEMORY_LIMIT: u64 = 16 << 20;

/// Attackers, an address each, and the connections of each.
const PEERS: u8 = 5;
const CONNECTIONS: usize = 60;

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(module: &std::path::Path) -> Self {
        let mut child = Command::new(support::BINARY)
            .args(["module-server", "--listen", "127.0.0.1:0", "--file"])
            .arg(module)
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stderr.take().expect("piped"))
            .read_line(&mut line)
            .expect("its address");
        let address = line
            .strip_prefix("http://")
            .and_then(|rest| rest.split('/').next());
        let address = address.and_then(|text| text.parse().ok()).expect(&line);
        Self { child, address }
    }

    /// The most that was ever resident, in bytes.
    fn peak(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kilobytes
            .and_then(|text| text.trim().parse::<u64>().ok())
            .expect("a number")
            * 1_024
    }

    fn fetch(&self) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("set");
        let request = b"GET /filter.wasm HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("read");
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// From an address of its own, with a head that never ends: as much of it as is taken.
async fn unfinished(server: SocketAddr, peer: u8) -> Option<tokio::net::TcpStream> {
    use tokio::io::AsyncWriteExt;
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    let from = Ipv4Addr::new(127, 0, 1, peer);
    socket.bind((from, 0).into()).expect("bound");
    let mut stream = socket.connect(server).await.ok()?;
    let line = format!("x: {}\r\n", "a".repeat(8_000));
    let head = format!("GET /filter.wasm HTTP/1.1\r\n{}", line.repeat(48));
    let sending = stream.write_all(head.as_bytes());
    let _ = tokio::time::timeout(Duration::from_secs(2), sending).await;
    Some(stream)
}

#[test]
fn unfinished_heads_take_little_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = folder.path().join("filter.wasm");
    let mut bytes = b"\0asm".to_vec();
    bytes.resize(1 << 20, 7);
    fs::write(&module, &bytes).expect("written");
    let server = Server::start(&module);
    assert!(server.fetch().ends_with(&bytes));
    let before = server.peak();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let attack = async {
        let mut attempts = tokio::task::JoinSet::new();
        for peer in 1..=PEERS {
            for _ in 0..CONNECTIONS {
                attempts.spawn(unfinished(server.address, peer));
            }
        }
        attempts.join_all().await
    };
    let held = runtime.block_on(attack);
    assert_eq!(
        held.iter().flatten().count(),
        usize::from(PEERS) * CONNECTIONS
    );
    assert!(
        server.fetch().ends_with(&bytes),
        "others are served meanwhile"
    );
    let taken = server.peak() - before;
    println!("{} kB for {} connections", taken / 1_024, held.len());
    assert!(taken < MEMORY_LIMIT, "{} kB", taken / 1_024);
}
