//! The listener: accepts connections within a bound, cuts slow clients off, drains at the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use prism_control::Control;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::GatewayConfig;
use crate::app::{App, router};
use crate::connections::{self, Connections, Place};
use crate::patient::Patient;

/// Largest head of a request, bytes.
const HEAD_MAX: usize = 32 << 10;
/// Most headers.
const HEADERS_MAX: usize = 100;
/// Pause after `accept` failed for want of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the API on `listener` until `shutdown`; then lets open requests end for a moment.
///
/// # Errors
/// When the listener is not on loopback (this version has no TLS), or its address cannot be read.
pub async fn serve(
    listener: TcpListener,
    control: Control,
    config: GatewayConfig,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        return Err(refuse_open(address));
    }
    let (drain, patience) = (config.drain, config.write_timeout);
    let connections = Connections::new(config.connections_max);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(true);
    let app = Arc::new(App::new(
        control,
        config,
        format!("http://{address}"),
        shutdown.clone(),
    ));
    let service = router(app);
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    tracing::warn!(error = %e, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let place = tokio::select! {
            () = shutdown.cancelled() => break,
            place = connections.enter() => place,
        };
        let stream = TokioIo::new(Patient::new(tuned(stream), patience));
        let (service, taken) = (service.clone(), place.clone());
        let service = service_fn(move |request| answered(service.clone(), taken.clone(), request));
        let connection = graceful.watch(http.serve_connection(stream, service));
        tokio::spawn(end_of(connection, place));
    }
    if tokio::time::timeout(drain, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::info!("open requests were cut off at the end");
    }
    Ok(())
}

/// Answers a request; its connection is busy until the last byte of the answer.
async fn answered(
    router: Router,
    place: Arc<Place>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let busy = place.busy();
    let answer = TowerToHyperService::new(router).call(request).await?;
    Ok(answer.map(|body| connections::holding(body, busy)))
}

async fn end_of<E: std::fmt::Display>(
    connection: impl Future<Output = Result<(), E>>,
    place: Arc<Place>,
) {
    tokio::select! {
        ended = connection => if let Err(e) = ended {
            tracing::debug!(error = %e, "connection ended");
        },
        () = place.given_away() => tracing::debug!("an idle connection gave way to another"),
    }
}

fn tuned(stream: TcpStream) -> TcpStream {
    // Without it a small answer may wait for the acknowledgement of the one before; failing is harmless.
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(error = %e, "TCP_NODELAY");
    }
    stream
}

fn refuse_open(address: SocketAddr) -> io::Error {
    let port = address.port();
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "the API will not be served on {address}: off loopback it needs TLS, which comes with clusters. \
             Nothing was started. Serve it on 127.0.0.1:{port} and reach it through a tunnel: \
             ssh -L {port}:127.0.0.1:{port} HOST"
        ),
    )
}
