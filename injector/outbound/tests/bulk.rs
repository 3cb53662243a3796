//! Throughput through both ends, against TCP alone.

mod support;

use std::time::{Duration, Instant};

use intercept_outbound::Forward;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MIB: usize = 1 << 20;
/// For each round and direction.
const LENGTH: usize = if cfg!(debug_assertions) {
    64 * MIB
} else {
    512 * MIB
};
const ROUNDS: usize = 3;

/// Interleaved, so that what else runs on this machine slows both.
#[tokio::test(flavor = "multi_thread")]
async fn bulk_keeps_a_fair_part_of_direct() {
    let (listener, target) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    let cluster = Cluster::start(Setup {
        services: vec![service("bulk", target)],
        ..Setup::default()
    })
    .await;
    let forward = Forward::bind(0, named("bulk", 80)).await.unwrap();
    let through = forward.address();
    tokio::spawn(forward.run(cluster.client()));
    for down in [true, false] {
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let direct = transfer(target, down).await;
            let outbound = transfer(through, down).await;
            ratios.push(direct.as_secs_f64() / outbound.as_secs_f64());
            let rate = |time: Duration| LENGTH as f64 / MIB as f64 / time.as_secs_f64();
            println!(
                "{}: direct {:.0} MiB/s, outbound {:.0} MiB/s",
                if down { "down" } else { "up" },
                rate(direct),
                rate(outbound)
            );
        }
        ratios.sort_by(f64::total_cmp);
        println!("ratio {:.2}", ratios[ROUNDS / 2]);
        assert!(ratios[ROUNDS / 2] > 0.02, "{ratios:?}");
    }
}

/// `d` asks for bytes, `u` announces some.
async fn serve(mut stream: TcpStream) {
    let piece = vec![0; 64 * 1024];
    match stream.read_u8().await {
        Ok(b'd') => {
            for _ in 0..LENGTH / piece.len() {
                stream.write_all(&piece).await.unwrap();
            }
        }
        _ => {
            read(&mut stream, LENGTH).await;
            stream.write_u8(1).await.unwrap();
        }
    }
}

async fn transfer(at: std::net::SocketAddr, down: bool) -> Duration {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let started = Instant::now();
    if down {
        stream.write_u8(b'd').await.unwrap();
        read(&mut stream, LENGTH).await;
    } else {
        stream.write_u8(b'u').await.unwrap();
        let piece = vec![0; 64 * 1024];
        for _ in 0..LENGTH / piece.len() {
            stream.write_all(&piece).await.unwrap();
        }
        stream.read_u8().await.unwrap();
    }
    started.elapsed()
}

async fn read(stream: &mut TcpStream, mut left: usize) {
    let mut buffer = vec![0; 256 * 1024];
    while left > 0 {
        left -= stream.read(&mut buffer).await.unwrap();
    }
}
