//! Calls to an etcd cluster over its JSON gateway: connections that are kept, a bound on calls at once, a deadline for
//! each, the next member when one does not answer, and a login that is renewed. Knows nothing of stores.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::config::{Config, Login};
use crate::error::{Fault, Kind, OpenError};
use crate::http::{self, Address, Connection};
use crate::json;

/// Reads under way at once.
const CALLS: usize = 32;
/// Connections to a member that are kept while idle.
const IDLE: usize = 8;
/// Largest answer that is read whole: a page of the largest values.
const ANSWER: usize = 256 << 20;

/// One member.
#[derive(Debug)]
struct Member {
    address: Address,
    idle: Mutex<Vec<Connection>>,
}

/// A client of one cluster.
#[derive(Debug)]
pub(crate) struct Client {
    members: Vec<Member>,
    /// Which member is asked first: the last that answered.
    first: AtomicUsize,
    /// Calls of which there may be many. Renewals and commits are few, and wait for nobody.
    asking: Semaphore,
    tls: Option<Arc<ClientConfig>>,
    login: Option<Login>,
    token: Mutex<Option<HeaderValue>>,
    /// The cluster's id, once known: an address of another cluster must not be written to.
    cluster: AtomicU64,
    pub(crate) timeout: Duration,
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing here leaves half a change behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    pub(crate) fn new(config: &Config) -> Result<Self, OpenError> {
        let wrong = |what, why: &str| OpenError::Config {
            what,
            why: why.to_owned(),
        };
        let addresses = config.endpoints.iter().map(|url| Address::parse(url));
        let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
        let secure = addresses.iter().filter(|a| a.is_secure()).count();
        if addresses.is_empty() {
            return Err(wrong("the etcd endpoints", "there is none"));
        }
        if secure != 0 && secure != addresses.len() {
            return Err(wrong(
                "the etcd endpoints",
                "some are https and some are not",
            ));
        }
        let tls = match (&config.tls, secure > 0) {
            (Some(tls), true) => Some(http::tls(tls)?),
            (None, false) => None,
            (None, true) => {
                return Err(wrong(
                    "the TLS of etcd",
                    "an https endpoint needs the CA's file",
                ));
            }
            (Some(_), false) => {
                return Err(wrong(
                    "the TLS of etcd",
                    "there are files for it, but the endpoints say http",
                ));
            }
        };
        let member = |address| Member {
            address,
            idle: Mutex::default(),
        };
        Ok(Self {
            members: addresses.into_iter().map(member).collect(),
            first: AtomicUsize::new(0),
            asking: Semaphore::new(CALLS),
            tls,
            login: config.login.clone(),
            token: Mutex::default(),
            cluster: AtomicU64::new(0),
            timeout: config.timeout,
        })
    }

    /// One call. A member that cannot be reached is passed over; one that may have begun to do it is not.
    ///
    /// # Errors
    /// Whether it was certainly not done, or may have been.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Bytes,
    ) -> Result<T, Fault> {
        self.call_within(path, body, self.timeout).await
    }

    /// The same with another limit than the configuration's.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(crate) async fn call_within<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<T, Fault> {
        let deadline = Instant::now() + limit;
        let mut renewed = false;
        loop {
            let answer = self.once(path, body.clone(), deadline).await;
            match answer {
                Err(Fault::Not(Kind::Token, _)) if self.login.is_some() && !renewed => {
                    renewed = true;
                    *held(&self.token) = None;
                }
                Err(fault) => return Err(fault),
                Ok(bytes) => {
                    return serde_json::from_slice(&bytes)
                        .map_err(|e| Fault::Lost(format!("its answer is not understood: {e}")));
                }
            }
        }
    }

    /// A call that may be made again, until it is answered or the time is up.
    ///
    /// # Errors
    /// As [`Client::call`] had at last.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        body: impl Into<Bytes>,
        patience: Duration,
    ) -> Result<T, Fault> {
        let (body, until) = (body.into(), Instant::now() + patience);
        let mut pause = Pause::default();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let place = tokio::time::timeout(left.max(self.timeout), self.asking.acquire()).await;
            let Ok(Ok(place)) = place else {
                let why = "too many reads wait for etcd".to_owned();
                return Err(Fault::Not(Kind::Busy, why));
            };
            let answer = self.call(path, body.clone()).await;
            drop(place);
            match answer {
                Err(fault) if fault.passes() && Instant::now() < until => pause.wait().await,
                other => return other,
            }
        }
    }

    /// Whether an answer comes from the cluster that the others came from.
    fn same_cluster(&self, bytes: &[u8], member: usize) -> Result<(), Fault> {
        let Some(id) = cluster_of(bytes) else {
            return Ok(());
        };
        let order = Ordering::Relaxed;
        let known = self.cluster.compare_exchange(0, id, order, order);
        if known.is_err_and(|known| known != id) {
            self.turn(member);
            return Err(Fault::Lost(format!(
                "{} belongs to another etcd cluster than the other endpoints; correct the endpoints",
                self.members[member].address.url
            )));
        }
        Ok(())
    }

    async fn once(&self, path: &str, body: Bytes, deadline: Instant) -> Result<Bytes, Fault> {
        let response = self.send(path, body, deadline).await?;
        let ok = response.0.status() == StatusCode::OK;
        let status = response.0.status().as_u16();
        let (body, connection, member) = (response.0.into_body(), response.1, response.2);
        let whole = Limited::new(body, ANSWER).collect();
        let left = deadline.saturating_duration_since(Instant::now());
        let bytes = match tokio::time::timeout(left, whole).await {
            Ok(Ok(whole)) => whole.to_bytes(),
            Ok(Err(error)) => {
                self.turn(member);
                return Err(Fault::Lost(format!("its answer broke off: {error}")));
            }
            Err(_) => {
                self.turn(member);
                return Err(Fault::Lost("its answer did not end in time".to_owned()));
            }
        };
        self.keep(member, connection);
        if ok {
            self.same_cluster(&bytes, member)?;
            return Ok(bytes);
        }
        let fault = Fault::of(status, &json::problem(&bytes));
        if fault.passes() && fault.kind() != Some(Kind::Token) {
            self.turn(member);
        }
        Err(fault)
    }

    /// Opens a stream of lines; it has a connection of its own and no end.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(crate) async fn stream(&self, path: &str, body: Bytes) -> Result<Lines, Fault> {
        let deadline = Instant::now() + self.timeout;
        let (response, connection, _) = self.send(path, body, deadline).await?;
        let status = response.status();
        if status != StatusCode::OK {
            let body = Limited::new(response.into_body(), 1 << 16).collect().await;
            let bytes = body.map(|b| b.to_bytes()).unwrap_or_default();
            let fault = Fault::of(status.as_u16(), &json::problem(&bytes));
            if fault.kind() == Some(Kind::Token) {
                *held(&self.token) = None;
            }
            return Err(fault);
        }
        Ok(Lines {
            body: response.into_body(),
            read: Vec::new(),
            searched: 0,
            _connection: connection,
        })
    }

    /// Sends a request to the first member that can be reached; returns when the answer begins.
    async fn send(
        &self,
        path: &str,
        body: Bytes,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Connection, usize), Fault> {
        let token = self.token(deadline).await?;
        self.send_as(path, body, token.as_ref(), deadline).await
    }

    async fn send_as(
        &self,
        path: &str,
        body: Bytes,
        token: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Connection, usize), Fault> {
        let mut tried = Vec::new();
        let mut stale = 0;
        while tried.len() < self.members.len() {
            let nth = self.first.load(Ordering::Relaxed);
            let member = &self.members[nth];
            let mut connection = match self.connection(nth, deadline).await {
                Ok(connection) => connection,
                Err(why) => {
                    tried.push(format!("{}: {why}", member.address.url));
                    self.turn(nth);
                    continue;
                }
            };
            let request = request(&member.address, path, body.clone(), token)?;
            let left = deadline.saturating_duration_since(Instant::now());
            let why = match tokio::time::timeout(left, connection.send_request(request)).await {
                Ok(Ok(response)) => return Ok((response, connection, nth)),
                // A kept connection that the member had closed: nothing went out on it.
                Ok(Err(error)) if error.is_canceled() && stale <= IDLE => {
                    stale += 1;
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} ms", self.timeout.as_millis()),
            };
            self.turn(nth);
            return Err(Fault::Lost(format!("{}: {why}", member.address.url)));
        }
        Err(Fault::Not(Kind::Unreachable, tried.join("; ")))
    }

    async fn connection(&self, nth: usize, deadline: Instant) -> Result<Connection, String> {
        let member = &self.members[nth];
        loop {
            let Some(mut kept) = held(&member.idle).pop() else {
                break;
            };
            if !kept.is_closed() && kept.ready().await.is_ok() {
                return Ok(kept);
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        // A member that is gone must leave time for the others.
        let limit = left / 2;
        http::connect(&member.address, self.tls.as_ref(), limit).await
    }

    fn keep(&self, nth: usize, connection: Connection) {
        let mut idle = held(&self.members[nth].idle);
        if idle.len() < IDLE && !connection.is_closed() {
            idle.push(connection);
        }
    }

    /// Asks the next member first from now on, unless another call has turned from this one already.
    fn turn(&self, from: usize) {
        let next = (from + 1) % self.members.len();
        let order = Ordering::Relaxed;
        let _turned = self.first.compare_exchange(from, next, order, order);
    }

    /// The token of the login, when there is one.
    async fn token(&self, deadline: Instant) -> Result<Option<HeaderValue>, Fault> {
        let Some(login) = &self.login else {
            return Ok(None);
        };
        if let Some(token) = held(&self.token).clone() {
            return Ok(Some(token));
        }
        let body = serde_json::json!({"name": login.user, "password": login.password});
        let body = Bytes::from(body.to_string());
        let sent = self
            .send_as("/v3/auth/authenticate", body, None, deadline)
            .await;
        // A login changes nothing, so whatever was asked for was not done.
        let not = |why: &str| {
            Fault::Not(
                Kind::Unreachable,
                format!("the login was not answered: {why}"),
            )
        };
        let (response, ..) = sent.map_err(|fault| not(fault.why()))?;
        let status = response.status();
        let whole = Limited::new(response.into_body(), 1 << 16).collect();
        let left = deadline.saturating_duration_since(Instant::now());
        let whole = tokio::time::timeout(left, whole).await;
        let bytes = match whole {
            Ok(Ok(whole)) => whole.to_bytes(),
            Ok(Err(error)) => return Err(not(&error.to_string())),
            Err(_) => return Err(not("no answer in time")),
        };
        if status != StatusCode::OK {
            return Err(match Fault::of(status.as_u16(), &json::problem(&bytes)) {
                Fault::Lost(why) => not(&why),
                refused => refused,
            });
        }
        let answer: json::Token =
            serde_json::from_slice(&bytes).map_err(|e| not(&e.to_string()))?;
        let token = HeaderValue::from_str(&answer.token).map_err(|e| not(&e.to_string()))?;
        *held(&self.token) = Some(token.clone());
        Ok(Some(token))
    }
}

fn request(
    to: &Address,
    path: &str,
    body: Bytes,
    token: Option<&HeaderValue>,
) -> Result<Request<Full<Bytes>>, Fault> {
    let method = if body.is_empty() {
        Method::GET
    } else {
        Method::POST
    };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, to.authority())
        .header(CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, token);
    }
    let request = request.body(Full::new(body));
    request.map_err(|e| Fault::Not(Kind::Other, e.to_string()))
}

/// The id of the cluster at the beginning of an answer.
fn cluster_of(answer: &[u8]) -> Option<u64> {
    let begin = std::str::from_utf8(&answer[..answer.len().min(200)]).ok()?;
    let names = ["\"cluster_id\":\"", "\"clusterId\":\""];
    let at = names
        .iter()
        .find_map(|name| Some(begin.find(name)? + name.len()))?;
    begin[at..].split('"').next()?.parse().ok()
}

/// Longer and longer pauses between tries.
#[derive(Debug)]
pub(crate) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(Duration::from_millis(20))
    }
}

impl Pause {
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_millis(500));
    }
}

/// A stream of JSON, one value on each line.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    read: Vec<u8>,
    /// Bytes of it that hold no end of a line.
    searched: usize,
    _connection: Connection,
}

impl Lines {
    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// Why the stream broke.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, String> {
        loop {
            let end = self.read[self.searched..].iter().position(|b| *b == b'\n');
            if let Some(end) = end {
                let line: Vec<u8> = self.read.drain(..=self.searched + end).collect();
                self.searched = 0;
                let value = serde_json::from_slice(&line).map_err(|e| e.to_string())?;
                return Ok(Some(value));
            }
            self.searched = self.read.len();
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.read.extend_from_slice(data);
                    }
                }
            }
            if self.read.len() > ANSWER {
                return Err("a line of the stream is too long".to_owned());
            }
        }
    }
}
