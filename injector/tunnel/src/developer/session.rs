//! One tunnel on the developer's end, from open to graceful close. Knows nothing of reconnects.

use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::HeaderValue;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::hold::Held;
use super::pool::Pool;
use super::serve::handle;
use super::serving::Serving;
use super::{Dial, Event, Local, UnderWay};
use crate::beat::Frames;
use crate::liveness::Liveness;
use crate::memory::Memory;
use crate::pulse::Signal;
use crate::tasks::Tasks;
use crate::{Tempo, settings, with_causes};

/// State that all tunnels of one developer machine share.
pub(super) struct Station {
    pub(super) local: Local,
    pub(super) dial: Dial,
    pub(super) name: HeaderValue,
    pub(super) leaving: Arc<AtomicBool>,
    pub(super) reports_requests: bool,
    pub(super) under_way: UnderWay,
    pub(super) tempo: Tempo,
    pub(super) events: mpsc::Sender<Event>,
}

/// A tunnel served by its own task.
pub(super) struct Session {
    /// the relay → us: signals about this tunnel.
    signals: mpsc::Receiver<Signal>,
    /// the serving task → us: why the tunnel ended.
    ended: oneshot::Receiver<String>,
    leave: oneshot::Sender<()>,
}

/// An event of one tunnel.
pub(super) enum News {
    Signal(Signal),
    Ended(String),
}

impl Session {
    /// Serves an opened stream on a task in `serving`.
    pub(super) fn start(upgraded: Upgraded, station: &Station, serving: &mut JoinSet<()>) -> Self {
        let (signals_tx, signals) = mpsc::channel(4);
        let (ended_tx, ended) = oneshot::channel();
        let (leave, leave_rx) = oneshot::channel();
        let requests = Arc::new(Serving {
            local: station.local,
            dial: station.dial.clone(),
            name: station.name.clone(),
            held: Held::default(),
            pool: Pool::default(),
            share: Memory::new(settings::DEVELOPER_MEMORY).share(),
            leaving: Arc::clone(&station.leaving),
            reports_requests: station.reports_requests,
            under_way: station.under_way.clone(),
            events: station.events.clone(),
            signals: signals_tx,
            pulse: Mutex::default(),
        });
        let tempo = station.tempo;
        serving.spawn(async move {
            // The receiver is gone if the tunnel was left on purpose.
            let _ = ended_tx.send(serve(upgraded, tempo, requests, leave_rx).await);
        });
        Self {
            signals,
            ended,
            leave,
        }
    }

    /// Waits for the next event of the tunnel.
    pub(super) async fn news(&mut self) -> News {
        tokio::select! {
            biased;
            Some(signal) = self.signals.recv() => News::Signal(signal),
            ended = &mut self.ended => News::Ended(ended.unwrap_or_else(|_| "the tunnel ended".to_owned())),
        }
    }

    /// Accepts no new requests; the tunnel closes once the running ones have ended.
    pub(super) fn leave(self) {
        drop(self.leave);
    }
}

async fn serve(
    upgraded: Upgraded,
    tempo: Tempo,
    requests: Arc<Serving>,
    leave: oneshot::Receiver<()>,
) -> String {
    let io = TokioIo::new(Liveness::new(
        TokioIo::new(upgraded),
        Frames::of_server(),
        tempo,
        (),
    ));
    let service = {
        let requests = Arc::clone(&requests);
        service_fn(move |request| handle(Arc::clone(&requests), request))
    };
    let mut connection = pin!(server().serve_connection(io, service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        // By a call, or by dropping the handle: a session without one must not serve on.
        _ = leave => {
            requests.pulse.lock().unwrap_or_else(PoisonError::into_inner).take();
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    match result {
        Ok(()) => "the relay closed the tunnel".to_owned(),
        Err(error) => with_causes(&error),
    }
}

fn server() -> hyper::server::conn::http2::Builder<Tasks> {
    let mut builder = hyper::server::conn::http2::Builder::new(Tasks);
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .adaptive_window(false)
        .initial_connection_window_size(settings::CONNECTION_WINDOW)
        .initial_stream_window_size(settings::STREAM_WINDOW)
        .max_frame_size(settings::FRAME)
        .max_concurrent_streams(settings::STREAMS)
        .max_pending_accept_reset_streams(settings::PENDING_RESETS)
        .max_header_list_size(settings::HEADER_LIST_READ)
        .max_local_error_reset_streams(None)
        .max_send_buf_size(settings::SEND_BUFFER);
    builder
}
