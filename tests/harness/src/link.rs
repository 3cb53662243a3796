//! A simulated long-distance link with delay, and with loss and retransmission as in TCP.
//!
//! This kernel has no netem.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// The properties of one direction of a link.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The one-way delay.
    pub delay: Duration,
    /// The fraction of lost pieces.
    pub loss: f64,
    /// Bytes per second. The queue holds at most half a second's worth.
    pub rate: usize,
}

impl Weather {
    /// The extra delay of a lost piece.
    ///
    /// The next piece, half a second later, is acknowledged first, and with each further loss the timeout doubles.
    fn retransmission(&self, random: &mut StdRng) -> Duration {
        let mut late = Duration::ZERO;
        let mut wait = Duration::from_millis(500) + 2 * self.delay;
        while random.random_bool(self.loss) {
            late += wait;
            wait *= 2;
        }
        late
    }
}

/// The address that leads to `target` over such a link.
pub async fn link(target: SocketAddr, weather: Weather) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut seed = 0;
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let Ok(far) = TcpStream::connect(target).await else {
                continue;
            };
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let ((near_read, near_write), (far_read, far_write)) =
                (near.into_split(), far.into_split());
            for (read, write) in [(near_read, far_write), (far_read, near_write)] {
                seed += 1;
                tokio::spawn(pass(read, write, weather, seed));
            }
        }
    });
    address
}

async fn pass(mut from: OwnedReadHalf, to: OwnedWriteHalf, weather: Weather, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let queue = weather.rate / 1_400 / 2;
    let (pieces, arriving) = mpsc::channel(queue.max(1));
    tokio::spawn(deliver(arriving, to));
    let (mut piece, mut arrival, mut sent) = (vec![0; 1_400], Instant::now(), Instant::now());
    while let Ok(size @ 1..) = from.read(&mut piece).await {
        let on_the_wire = Duration::from_secs_f64(size as f64 / weather.rate as f64);
        sent = sent.max(Instant::now()) + on_the_wire;
        // In order: no piece overtakes one that is retransmitted.
        arrival = arrival.max(sent + weather.delay + weather.retransmission(&mut random));
        if pieces
            .send((arrival, piece[..size].to_vec()))
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn deliver(mut arriving: mpsc::Receiver<(Instant, Vec<u8>)>, mut to: OwnedWriteHalf) {
    while let Some((arrival, piece)) = arriving.recv().await {
        sleep_until(arrival).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
