//! The cluster's end: takes connections of developers that prove a live intercept, and dials for them what the operator allows.

mod audit;
mod developers;
mod dialer;
mod gate;
mod handle;
mod metrics;
mod session;
mod shared;

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use self::audit::DialRecord;
pub use self::developers::Limits;
pub use self::gate::{Admitted, Admitting, Gate};
pub use self::shared::Options;
use self::shared::{Leaving, Shared};
use crate::hello::{self, Hello, Rejection};

/// The read buffer of such a one. A hello has less than 1 KiB.
const BUFFER: usize = 16 * 1024;
/// How long its head may take.
const HEAD: Duration = Duration::from_secs(10);

/// Takes developers on this listener until `shutdown` is ready, then lets what runs end.
///
/// # Errors
/// Where the configuration cannot be written down. A connection that fails is only that.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let grace = options.grace;
    let shared = Arc::new(Shared::new(options)?);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    connections.spawn(greet(stream, Arc::clone(&shared)));
                }
                // Out of file descriptors: they come back as connections end.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
    drop(listener);
    shared.leaving.send_replace(Leaving::Gently);
    let mut all_ended = pin!(async { while connections.join_next().await.is_some() {} });
    if timeout(grace, all_ended.as_mut()).await.is_err() {
        shared.leaving.send_replace(Leaving::Now);
        all_ended.await;
    }
    Ok(())
}

/// One connection from its first byte. HTTP/1.1 until it is upgraded.
async fn greet(stream: TcpStream, shared: Arc<Shared>) {
    let Ok(unopened) = shared.unopened.try_acquire() else {
        return;
    };
    let (opened_tx, mut opened_rx) = mpsc::channel::<Opened>(1);
    let service = {
        let shared = Arc::clone(&shared);
        service_fn(move |request| answer(Arc::clone(&shared), opened_tx.clone(), request))
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(BUFFER)
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut leaving = shared.leaving.subscribe();
    tokio::select! {
        _ = connection => {}
        _ = leaving.wait_for(|leaving| *leaving >= Leaving::Gently) => return,
    }
    drop(unopened);
    if let Ok((hello, admitted, upgrade)) = opened_rx.try_recv()
        && let Ok(upgraded) = upgrade.await
    {
        session::run(TokioIo::new(upgraded), hello, admitted, shared).await;
    }
}

type Opened = (Hello, Admitted, OnUpgrade);

async fn answer(
    shared: Arc<Shared>,
    opened: mpsc::Sender<Opened>,
    mut request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET {
        return Ok(status(StatusCode::METHOD_NOT_ALLOWED));
    }
    Ok(match request.uri().path() {
        hello::PATH => match admit(&shared, &request).await {
            Ok((hello, admitted)) => {
                let upgrade = hyper::upgrade::on(&mut request);
                let _ = opened.try_send((hello, admitted, upgrade));
                hello::welcome()
            }
            Err(rejection) => {
                shared.metrics.count_rejection();
                rejection.response()
            }
        },
        "/healthz" => Response::new(Full::from("ok\n")),
        "/metrics" => {
            let mut response = Response::new(Full::from(shared.metrics.text()));
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            response
        }
        _ => status(StatusCode::NOT_FOUND),
    })
}

async fn admit(
    shared: &Shared,
    request: &Request<Incoming>,
) -> Result<(Hello, Admitted), Rejection> {
    let hello = Hello::read(request.headers())?;
    let admitted = shared.gate.admit(&hello).await?;
    shared.developers.check(&admitted.key)?;
    Ok((hello, admitted))
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
