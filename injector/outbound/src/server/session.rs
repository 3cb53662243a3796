//! One developer's connection: HTTP/2 until it ends, or until their intercept has.

use std::sync::Arc;
use std::time::Duration;

use h2::server::{Builder, Connection};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::gate::Admitted;
use super::handle::{Visit, handle};
use super::shared::{Leaving, Shared};
use crate::chunk::Chunk;
use crate::hello::Hello;
use crate::settings;
use crate::silence::Silence;

/// How long HTTP/2's own handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves one connection to its end.
pub(super) async fn run<T>(io: T, hello: Hello, admitted: Admitted, shared: Arc<Shared>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let developer = shared.developers.enter(&admitted.key);
    let _counted = shared.metrics.developer();
    let io = Silence::new(io, shared.tempo.silence);
    let handshake = timeout(HANDSHAKE, builder().handshake::<_, Chunk>(io)).await;
    if let Ok(Ok(connection)) = handshake {
        let visit = Arc::new(Visit {
            intercept: admitted.intercept,
            instance: hello.instance.clone(),
            shared,
            developer,
        });
        serve(connection, &hello, visit).await;
    }
}

async fn serve<T>(mut connection: Connection<T, Chunk>, hello: &Hello, visit: Arc<Visit>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut leaving = visit.shared.leaving.subscribe();
    let mut cut_off = visit.shared.leaving.subscribe();
    let ended = ended(hello, &visit);
    tokio::pin!(ended);
    let mut has_left = false;
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            request = connection.accept() => match request {
                Some(Ok((request, respond))) => {
                    streams.spawn(handle(Arc::clone(&visit), request, respond));
                }
                Some(Err(_)) | None => return streams.detach_all(),
            },
            Some(_) = streams.join_next() => {}
            () = &mut ended, if !has_left => {
                has_left = true;
                connection.abrupt_shutdown(h2::Reason::NO_ERROR);
            }
            _ = leaving.wait_for(|leaving| *leaving >= Leaving::Gently), if !has_left => {
                has_left = true;
                connection.graceful_shutdown();
            }
            // Their streams break, and each writes its record.
            _ = cut_off.wait_for(|leaving| *leaving == Leaving::Now) => return streams.detach_all(),
        }
    }
}

/// Ready once the intercept has been away for too long.
async fn ended(hello: &Hello, visit: &Visit) {
    let shared = &visit.shared;
    let mut last_seen = Instant::now();
    let mut questions = interval_at(last_seen + shared.recheck, shared.recheck);
    questions.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        questions.tick().await;
        match shared.gate.admit(hello).await {
            Ok(_) => last_seen = Instant::now(),
            Err(rejection) if !rejection.retry => return,
            Err(_) if last_seen.elapsed() >= shared.absence => return,
            Err(_) => {}
        }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(settings::CLUSTER_STREAM_WINDOW)
        .initial_connection_window_size(settings::CLUSTER_CONNECTION_WINDOW)
        .max_concurrent_streams(settings::STREAMS)
        .max_frame_size(settings::FRAME)
        .max_header_list_size(settings::HEADER_LIST)
        .max_send_buffer_size(settings::SEND_BUFFER)
        .max_pending_accept_reset_streams(settings::PENDING_RESETS)
        .max_local_error_reset_streams(None);
    builder
}
