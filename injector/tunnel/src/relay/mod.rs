//! The in-cluster end of the tunnels.
//!
//! Accepts matching requests on its data ports, and sends each through the tunnel of its address.
//!
//! Holds no credentials and no state: a relay that restarts remembers nothing.

mod caller;
mod control;
mod exchange;
mod forward;
mod inbound;
mod metrics;
mod outbound;
mod registry;
mod shared;
mod socket;
mod switch;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::pulse::Signal;
use super::settings;
use super::tasks::Tasks;
use caller::Caller;
pub use shared::Options;
use shared::Shared;

/// Runs a relay on these listeners until `shutdown`.
///
/// Then makes developer machines reconnect elsewhere, and lets running requests end.
/// `presence` tells other pods whether a tunnel is up, and nothing else.
///
/// # Errors
/// A listener has no address, which means that it is invalid. Errors of connections are not returned.
pub async fn serve(
    data: Vec<TcpListener>,
    control: TcpListener,
    presence: Option<TcpListener>,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    control.local_addr()?;
    let shared = Arc::new(Shared::new(&options));
    let graceful = Arc::new(GracefulShutdown::new());
    let mut accepting = JoinSet::new();
    for listener in data {
        accepting.spawn(accept(
            listener,
            Arc::clone(&shared),
            Arc::clone(&graceful),
            serve_data,
        ));
    }
    accepting.spawn(accept(
        control,
        Arc::clone(&shared),
        Arc::clone(&graceful),
        serve_control,
    ));
    if let Some(presence) = presence {
        accepting.spawn(accept(
            presence,
            Arc::clone(&shared),
            Arc::clone(&graceful),
            serve_presence,
        ));
    }
    shutdown.await;
    shared.leaving.store(true, Ordering::Relaxed);
    accepting.shutdown().await;
    shared.registry.signal_all(Signal::RelayLeaving);
    // The accept loops, which held the other handles, are gone.
    if let Some(graceful) = Arc::into_inner(graceful) {
        let mut all_answered = pin!(graceful.shutdown());
        let answered = timeout(options.grace, all_answered.as_mut()).await;
        // Each request that still runs gets an error response.
        shared.ended.send_replace(true);
        if answered.is_err() {
            let _ = timeout(settings::LAST_ANSWERS, all_answered).await;
        }
    }
    Ok(())
}

type Serve<F> = fn(TcpStream, SocketAddr, Arc<Shared>, Watcher) -> F;

async fn accept<F>(
    listener: TcpListener,
    shared: Arc<Shared>,
    graceful: Arc<GracefulShutdown>,
    serve: Serve<F>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, peer, Arc::clone(&shared), graceful.watcher()));
            }
            // Out of file descriptors: they come back as connections end, and spinning would not help.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Serves HTTP/1.1 and h2c with prior knowledge on one port. Errors of a connection are ignored.
async fn serve_data(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>, watcher: Watcher) {
    let mut builder = auto::Builder::new(Tasks);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings::DATA_IDLE)
        .auto_date_header(false)
        .max_headers(settings::HEADER_FIELDS_READ)
        .max_buf_size(settings::H1_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .enable_connect_protocol()
        .adaptive_window(false)
        .initial_stream_window_size(settings::DATA_STREAM_WINDOW)
        .initial_connection_window_size(settings::CONNECTION_WINDOW)
        .max_frame_size(settings::FRAME)
        .max_concurrent_streams(settings::STREAMS)
        .max_pending_accept_reset_streams(settings::PENDING_RESETS)
        .max_local_error_reset_streams(None)
        .max_header_list_size(settings::HEADER_LIST_READ)
        .max_send_buf_size(settings::SEND_BUFFER);
    let caller = Caller::at(peer.ip());
    let (socket, connection) = socket::pair(stream);
    let service = {
        let (shared, connection) = (Arc::clone(&shared), Arc::clone(&connection));
        service_fn(move |request| {
            connection.answering();
            forward::handle(
                Arc::clone(&shared),
                Arc::clone(&connection),
                caller,
                request,
            )
        })
    };
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(socket), service);
    tokio::select! {
        () = connection.run(watcher.watch(serving.into_owned())) => {}
        () = connection.abandoned() => {}
        () = connection.head_overdue() => {}
    }
    if let Some(reason) = connection.refused() {
        shared.metrics.count_unavailable(reason);
    }
}

async fn serve_control(stream: TcpStream, _: SocketAddr, shared: Arc<Shared>, watcher: Watcher) {
    // Requests on this port are answered at once.
    drop(watcher);
    let Ok(_unopened) = shared.unopened.try_acquire() else {
        return;
    };
    let service = {
        let shared = Arc::clone(&shared);
        service_fn(move |request| control::handle(Arc::clone(&shared), request))
    };
    // Not the builder for either version, which waits forever for the bytes that distinguish them.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(settings::CONTROL_BUFFER)
        .header_read_timeout(Duration::from_secs(30))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut ended = shared.ended.subscribe();
    tokio::select! {
        _ = connection => {}
        _ = ended.wait_for(|ended| *ended) => {}
    }
}

/// One question for each connection: a peer that is slow, or sends more, holds its place for seconds only.
async fn serve_presence(stream: TcpStream, _: SocketAddr, shared: Arc<Shared>, watcher: Watcher) {
    drop(watcher);
    let Ok(_question) = shared.questions.try_acquire() else {
        return;
    };
    let service = {
        let shared = Arc::clone(&shared);
        service_fn(move |request| control::handle_presence(Arc::clone(&shared), request))
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(settings::QUESTION_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let _ = timeout(settings::QUESTION, connection).await;
}
