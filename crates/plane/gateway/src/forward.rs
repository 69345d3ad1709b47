//! Hands a request on to the leader as it came, and its answer back. The leader checks who asks and what; nothing is decided here.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use prism_types::{Reason, Rejection};

use crate::desk::Reach;
use crate::refuse::Refusal;

/// How long making a connection to the leader may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Connections to the leader that are kept for the next request.
const KEPT: usize = 32;
/// A body up to this many bytes can be sent twice.
const SMALL: u64 = 64 << 10;

/// Why there is no answer.
pub(crate) enum Lost {
    /// The leader has not got it; here it is again, if it can be sent again.
    Unsent(String, Option<Box<Again>>),
    /// Nobody knows what became of it; here it is again, if sending it again changes nothing more.
    Unknown(String, Option<Box<Again>>),
}

/// A request that can be sent again.
pub(crate) struct Again {
    head: axum::http::request::Parts,
    body: Bytes,
}

impl Again {
    /// Reads a small body, so that the request can be sent again.
    pub(crate) async fn hold(request: Request<Body>) -> Result<Self, Box<Request<Body>>> {
        let length = request.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        let none = !request.headers().contains_key(TRANSFER_ENCODING) && length.is_none();
        if !none && length.is_none_or(|n| n > SMALL) {
            return Err(Box::new(request));
        }
        let (head, body) = request.into_parts();
        match body.collect().await {
            Ok(body) => Ok(Self {
                head,
                body: body.to_bytes(),
            }),
            Err(_) => Err(Box::new(Request::from_parts(head, Body::empty()))),
        }
    }

    /// Whether it may be carried out twice: it only reads, or has a key under which it counts once.
    fn is_harmless(&self) -> bool {
        self.head.method == Method::GET || self.head.headers.contains_key("idempotency-key")
    }

    pub(crate) fn request(&self) -> Request<Body> {
        Request::from_parts(self.head.clone(), Body::from(self.body.clone()))
    }
}

/// The way to the leader.
pub(crate) struct Forwarder {
    reach: Option<Reach>,
    kept: Mutex<Vec<(String, SendRequest<Body>)>>,
}

impl Forwarder {
    pub(crate) fn new(reach: Option<Reach>) -> Self {
        Self {
            reach,
            kept: Mutex::default(),
        }
    }

    /// Sends a request to the leader at an address.
    pub(crate) async fn send(
        &self,
        leader: &str,
        request: Request<Body>,
        again: Option<Box<Again>>,
    ) -> Result<Response<Body>, Lost> {
        let mut connection = match self.connection(leader).await {
            Ok(connection) => connection,
            Err(why) => return Err(Lost::Unsent(why, again)),
        };
        let sent = connection.try_send_request(readied(request, leader)).await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(mut failed) => {
                let unsent = failed.take_message().is_some();
                let why = failed.into_error().to_string();
                return Err(match unsent {
                    true => Lost::Unsent(why, again),
                    false => Lost::Unknown(why, again.filter(|a| a.is_harmless())),
                });
            }
        };
        self.keep(leader, connection);
        let mut answer = answer.map(Body::new);
        strip(answer.headers_mut());
        Ok(answer)
    }

    async fn connection(&self, leader: &str) -> Result<SendRequest<Body>, String> {
        let mut found = None;
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|(to, connection)| to == leader && !connection.is_closed());
            if let Some(at) = kept.iter().position(|(_, c)| c.is_ready()) {
                found = Some(kept.swap_remove(at).1);
            }
        }
        if let Some(found) = found {
            return Ok(found);
        }
        let reach = self.reach.as_ref().ok_or("this server has no way to it")?;
        let made = async {
            let stream = reach(leader.to_owned()).await.map_err(|e| e.to_string())?;
            let made = handshake::<_, Body>(TokioIo::new(stream)).await;
            made.map_err(|e| e.to_string())
        };
        let made = tokio::time::timeout(CONNECT, made).await;
        let (connection, carries) = made.map_err(|_| "it does not answer".to_owned())??;
        tokio::spawn(async move {
            if let Err(error) = carries.await {
                tracing::debug!(%error, "a connection to the leader ended");
            }
        });
        Ok(connection)
    }

    fn keep(&self, leader: &str, connection: SendRequest<Body>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push((leader.to_owned(), connection));
        }
    }
}

fn strip(headers: &mut HeaderMap) {
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

/// The request as it goes on: of its address only path and query, and nothing that is meant for this connection.
fn readied(mut request: Request<Body>, leader: &str) -> Request<Body> {
    strip(request.headers_mut());
    let path = request.uri().path_and_query().cloned();
    let path = path.map_or_else(Uri::default, Uri::from);
    *request.uri_mut() = path;
    *request.version_mut() = axum::http::Version::HTTP_11;
    if let Ok(host) = HeaderValue::from_str(leader) {
        request.headers_mut().insert(HOST, host);
    }
    request
}

/// The answer when the leader was lost.
pub(crate) fn refusal(lost: Lost) -> Refusal {
    match lost {
        Lost::Unsent(why, _) => Refusal::new(
            Reason::NotLeader,
            format!("the leader cannot be reached from this server ({why}); nothing was changed: repeat the request"),
        )
        .retryable(),
        Lost::Unknown(why, _) => Rejection::unknown(
            Reason::NotLeader,
            format!(
                "the leader was lost before it answered ({why}); the request may or may not have been carried out: repeat it with the same idempotency key"
            ),
        )
        .into(),
    }
}
