//! Keeps the developer's end connected: one connection after the other, with waits in between that grow.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::connect::Connect;
use super::event::Event;
use super::open;
use super::state::{AbortOnDrop, Live, State};
use crate::chunk::Chunk;
use crate::config::ClusterConfig;
use crate::hello::{Hello, Rejection};
use crate::settings::{self, Tempo};
use crate::silence::Silence;
use crate::words::{BEAT_PATH, CONFIG_PATH};

/// From connecting to the other end's configuration. A port-forward needs several round trips.
const OPENING: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// A connection that lived this long was a good one: the next attempt begins quickly again.
const SETTLED: Duration = Duration::from_secs(5);
/// The largest configuration that is read, in bytes.
const CONFIG: usize = 256 * 1024;

enum Failed {
    ForNow(String),
    ForGood(Rejection),
}

/// Connects until it is dropped, or refused for good.
pub(super) async fn keep(
    hello: Hello,
    connect: Connect,
    tempo: Tempo,
    states: watch::Sender<State>,
    events: mpsc::Sender<Event>,
) {
    let mut retry = FIRST_RETRY;
    loop {
        let opened = timeout(OPENING, open(&hello, &connect, tempo)).await;
        let opened = opened.unwrap_or_else(|_| Err(Failed::ForNow("no answer".to_owned())));
        let reason = match opened {
            Ok((live, connection)) => {
                states.send_replace(State::Up(live.clone()));
                let _ = events.try_send(Event::Up);
                let since = Instant::now();
                let reason = stay(live, connection, tempo).await;
                states.send_replace(State::Away);
                if since.elapsed() >= SETTLED {
                    retry = FIRST_RETRY;
                }
                reason
            }
            Err(Failed::ForNow(reason)) => reason,
            Err(Failed::ForGood(rejection)) => {
                states.send_replace(State::Rejected);
                let _ = events.send(Event::Rejected(rejection)).await;
                return;
            }
        };
        // Never as long as another machine that lost its connection at the same moment.
        let retry_in = retry.mul_f64(rand::random_range(0.5..1.0));
        retry = (retry * 2).min(LAST_RETRY);
        let _ = events.try_send(Event::Away { reason, retry_in });
        sleep(retry_in).await;
    }
}

/// The HTTP/2 connection, run by a task of its own: what runs on one that takes no more streams goes on.
type Driven = AbortOnDrop<Result<(), h2::Error>>;

async fn open(hello: &Hello, connect: &Connect, tempo: Tempo) -> Result<(Live, Driven), Failed> {
    let stream = connect().await.map_err(Failed::for_now)?;
    let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(Failed::for_now)?;
    let upgrading = AbortOnDrop(tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    }));
    let request = hello.request().map_err(Failed::for_now)?;
    let response = sender
        .send_request(request)
        .await
        .map_err(Failed::for_now)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let rejection = Rejection::read(response).await;
        return Err(match rejection.retry {
            true => Failed::ForNow(rejection.reason),
            false => Failed::ForGood(rejection),
        });
    }
    let upgraded = hyper::upgrade::on(response)
        .await
        .map_err(Failed::for_now)?;
    drop(upgrading);
    let (requests, driven) = handshake(upgraded, tempo).await?;
    let config = config(requests.clone()).await?;
    let config = Arc::new(config);
    Ok((Live { requests, config }, driven))
}

async fn handshake(
    upgraded: Upgraded,
    tempo: Tempo,
) -> Result<(SendRequest<Chunk>, Driven), Failed> {
    let io = Silence::new(TokioIo::new(upgraded), tempo.silence);
    let (requests, connection) = Builder::new()
        .initial_window_size(settings::DEVELOPER_STREAM_WINDOW)
        .initial_connection_window_size(settings::DEVELOPER_CONNECTION_WINDOW)
        .initial_max_send_streams(settings::STREAMS as usize)
        .max_frame_size(settings::FRAME)
        .max_header_list_size(settings::HEADER_LIST)
        .max_send_buffer_size(settings::SEND_BUFFER)
        .max_pending_accept_reset_streams(settings::PENDING_RESETS)
        .max_local_error_reset_streams(None)
        .enable_push(false)
        .handshake::<_, Chunk>(io)
        .await
        .map_err(Failed::for_now)?;
    Ok((requests, AbortOnDrop(tokio::spawn(connection))))
}

async fn config(requests: SendRequest<Chunk>) -> Result<ClusterConfig, Failed> {
    let request = get(CONFIG_PATH)?;
    let (response, _stream) = open::request(requests, request, None)
        .await
        .map_err(Failed::for_now)?;
    let body = open::body(response.into_body(), CONFIG).await;
    let body = body.ok_or_else(|| Failed::ForNow("the configuration broke off".to_owned()))?;
    serde_json::from_slice(&body).map_err(Failed::for_now)
}

fn get(path: &str) -> Result<Request<()>, Failed> {
    let uri = format!("http://outbound{path}");
    Request::get(uri).body(()).map_err(Failed::for_now)
}

/// Until the connection takes no more streams; what runs on it ends by itself.
async fn stay(live: Live, mut connection: Driven, tempo: Tempo) -> String {
    tokio::select! {
        ended = &mut connection.0 => match ended {
            Ok(Ok(())) => "the other end closed the connection".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        },
        () = beat(live.requests, tempo.beat) => {
            // Dropped, it would end; what runs on it goes on.
            tokio::spawn(async move {
                let mut connection = connection;
                let _ = (&mut connection.0).await;
            });
            "the other end is leaving".to_owned()
        }
    }
}

/// Asks something again and again, until no request can be made any more: the other end is leaving, or all streams have had their number.
async fn beat(requests: SendRequest<Chunk>, every: Duration) {
    let mut beats = interval(every);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let Ok(request) = get(BEAT_PATH) else { return };
        let Ok(mut ready) = requests.clone().ready().await else {
            return;
        };
        match ready.send_request(request, true) {
            Ok((response, _)) => drop(tokio::spawn(response)),
            Err(_) => return,
        }
    }
}

impl Failed {
    fn for_now(error: impl std::fmt::Display) -> Self {
        Self::ForNow(error.to_string())
    }
}
