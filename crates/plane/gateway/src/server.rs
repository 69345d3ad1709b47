//! The listener: accepts connections within a bound, cuts slow clients off, drains at the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use prism_identity::Shown;
use prism_store::BoxFuture;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::GatewayConfig;
use crate::app::{Common, Entry, router};
use crate::connections::{self, Connections, Place};
use crate::desk::{Desk, Ground, Pipe};
use crate::patient::Patient;
use crate::tls::{self, Face};

/// Largest head of a request, bytes.
const HEAD_MAX: usize = 32 << 10;
/// Most headers.
const HEADERS_MAX: usize = 100;
/// Pause after `accept` failed for want of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The API of a server.
#[derive(Clone, Debug)]
pub struct Gateway {
    desk: Arc<Desk>,
    shutdown: CancellationToken,
}

impl Gateway {
    /// The API of a server that is reached at this address.
    pub fn new(
        address: SocketAddr,
        ground: Ground,
        config: GatewayConfig,
        shutdown: CancellationToken,
    ) -> Self {
        let scheme = if config.tls { "https" } else { "http" };
        let common = Common::new(config, format!("{scheme}://{address}"));
        let desk = Arc::new(Desk::new(common, ground, shutdown.clone()));
        Self { desk, shutdown }
    }

    /// Answers requests that another server hands on, until the stream ends. Who asks is checked for each of them, as everywhere.
    pub async fn answer(&self, stream: impl Pipe + 'static) {
        let entry = Entry {
            desk: self.desk.clone(),
            handed_on: true,
        };
        let service = TowerToHyperService::new(router(entry));
        let http = http(&self.desk.common.config);
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%error, "a connection of another server ended");
            },
            () = self.shutdown.cancelled() => {}
        }
    }
}

fn http(config: &GatewayConfig) -> hyper::server::conn::http1::Builder {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(true);
    http
}

/// Serves the API on `listener`, which is on loopback, until its end is asked for; then lets open requests end for a moment.
///
/// # Errors
/// When the listener is not on loopback (there it takes TLS: [`serve_tls`]), or its address cannot be read.
pub fn serve(listener: TcpListener, gateway: Gateway) -> BoxFuture<'static, io::Result<()>> {
    Box::pin(async move {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            return Err(refuse_open(address));
        }
        run(listener, gateway, None).await;
        Ok(())
    })
}

/// The same with TLS, on any address.
pub fn serve_tls(listener: TcpListener, gateway: Gateway, face: Face) -> BoxFuture<'static, ()> {
    Box::pin(run(listener, gateway, Some(face)))
}

async fn run(listener: TcpListener, gateway: Gateway, face: Option<Face>) {
    let (config, shutdown) = (&gateway.desk.common.config, gateway.shutdown.clone());
    let drain = config.drain;
    let connections = Connections::new(config.connections_max);
    let service = router(Entry {
        desk: gateway.desk.clone(),
        handed_on: false,
    });
    let graceful = GracefulShutdown::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
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
        let guest = Guest {
            gateway: gateway.clone(),
            service: service.clone(),
            peer,
            place,
        };
        tokio::spawn(guest.received(tuned(stream), face.clone(), graceful.watcher()));
    }
    if tokio::time::timeout(drain, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::info!("open requests were cut off at the end");
    }
}

/// A connection that was accepted.
struct Guest {
    gateway: Gateway,
    service: Router,
    peer: SocketAddr,
    place: Arc<Place>,
}

impl Guest {
    /// Serves it until its end, after it has shaken hands if that is asked for.
    async fn received(self, stream: TcpStream, face: Option<Face>, watcher: Watcher) {
        let common = &self.gateway.desk.common;
        let patience = common.config.write_timeout;
        let Some(face) = face else {
            let stream = Patient::new(stream, patience);
            return self.served(TokioIo::new(stream), None, watcher).await;
        };
        let terms = (&common.metrics, patience);
        let shaken = tokio::select! {
            shaken = tls::shake(stream, self.peer, &face, terms) => shaken,
            () = self.place.given_away() => return common.metrics.refused("too_many"),
            () = self.gateway.shutdown.cancelled() => return,
        };
        if let Some(shaken) = shaken {
            let stream = TokioIo::new(shaken.stream);
            self.served(stream, shaken.client, watcher).await;
        }
    }

    async fn served<S>(self, stream: S, client: Option<Arc<Shown>>, watcher: Watcher)
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (service, taken) = (self.service.clone(), self.place.clone());
        let (peer, asked) = (self.peer, Arc::new(AtomicBool::new(false)));
        let asks = asked.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            asks.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(Peer(peer));
            if let Some(client) = &client {
                request.extensions_mut().insert(client.clone());
            }
            answered(service.clone(), taken.clone(), request)
        });
        let http = http(&self.gateway.desk.common.config);
        let connection = watcher.watch(http.serve_connection(stream, service));
        tokio::select! {
            ended = connection => if let Err(why) = ended {
                self.gateway.desk.common.metrics.cut(peer, &why, asked.load(Ordering::Relaxed));
            },
            () = self.place.given_away() => tracing::debug!("an idle connection gave way to another"),
        }
    }
}

/// Where a request's connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(SocketAddr);

impl Peer {
    /// As text, for logs and audit events.
    pub(crate) fn of<B>(request: &Request<B>) -> String {
        let peer = request.extensions().get::<Self>();
        peer.map_or_else(|| "unknown".to_owned(), |peer| peer.0.to_string())
    }
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
            "the API will not be served on {address} without TLS, for that is off loopback; nothing was started. \
             Serve it on 127.0.0.1:{port}, or with TLS"
        ),
    )
}
