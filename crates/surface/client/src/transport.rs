//! The connection: sends a request, repeats it where that is safe, reads the answer or the error body.
//!
//! A request is repeated when nothing was sent, when it only reads, or when it carries an idempotency key; never longer than
//! the client's timeout.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prism_api::{ErrorBody, Page};
use prism_types::Outcome;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::tls::{Connector, Security, Verdict, verdict};
use crate::url::Target;
use crate::{ClientError, Result};

/// Largest answer that is read whole.
const ANSWER_MAX: usize = 256 << 20;
/// Longest time between two tries.
const PAUSE_MAX: Duration = Duration::from_millis(800);
/// Longest time that a connection may take.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(5);

type Pool = hyper_util::client::legacy::Client<Connector, Full<Bytes>>;

/// A client of one server. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
    namespace: Option<Arc<str>>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool,
    base: String,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    /// Whether this server has ever answered: a refused connection is then a restart, not a wrong address.
    met: AtomicBool,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Most items.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// Only items with all these labels, `key=value`.
    pub labels: Vec<String>,
    /// Only items of this namespace.
    pub namespace: Option<String>,
    /// Only items in this state.
    pub state: Option<String>,
}

impl ListQuery {
    pub(crate) fn on(&self, path: &str) -> Target {
        self.labels.iter().fold(
            Target::new(path)
                .maybe("limit", self.limit)
                .maybe("cursor", self.cursor.as_ref())
                .maybe("namespace", self.namespace.as_ref())
                .maybe("state", self.state.as_ref()),
            |target, label| target.query("label", label),
        )
    }
}

/// A request before it is sent.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) body: Bytes,
    pub(crate) content_type: Option<&'static str>,
    /// Whether to send an idempotency key (made here unless given).
    pub(crate) key: Option<String>,
    /// Whether doing it twice is the same as once.
    pub(crate) repeatable: bool,
    /// How long the server may think, on top of the client's timeout.
    pub(crate) patience: Duration,
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Call {
    pub(crate) fn get(target: Target) -> Self {
        Self::new(Method::GET, target, Bytes::new(), None)
    }

    /// A change with an idempotency key.
    pub(crate) fn change(method: Method, target: Target) -> Self {
        let mut call = Self::new(method, target, Bytes::new(), None);
        call.key = Some(fresh_key());
        call
    }

    pub(crate) fn post(target: Target) -> Self {
        Self::change(Method::POST, target)
    }

    /// With a JSON body.
    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self> {
        self.body = serde_json::to_vec(body)
            .map_err(|e| ClientError::Protocol {
                address: self.target.as_str().to_owned(),
                why: format!("the request cannot be written as JSON: {e}"),
            })?
            .into();
        self.content_type = Some("application/json");
        Ok(self)
    }

    /// With bytes.
    pub(crate) fn raw(mut self, body: Bytes, content_type: &'static str) -> Self {
        self.body = body;
        self.content_type = Some(content_type);
        self
    }

    pub(crate) fn keyed(mut self, key: Option<String>) -> Self {
        if key.is_some() {
            self.key = key;
        }
        self
    }

    pub(crate) fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn new(
        method: Method,
        target: Target,
        body: Bytes,
        content_type: Option<&'static str>,
    ) -> Self {
        Self {
            method,
            target,
            body,
            content_type,
            key: None,
            repeatable: true,
            patience: Duration::ZERO,
            headers: Vec::new(),
        }
    }
}

/// A new idempotency key: 128 random bits as hexadecimal digits.
pub(crate) fn fresh_key() -> String {
    let mut bytes = [0u8; 16];
    // The system's generator does not fail once it is seeded; should it, the key is only less unusual.
    if getrandom::fill(&mut bytes).is_err() {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        bytes = now.as_nanos().to_be_bytes();
    }
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// How one try ended without an answer.
struct Broken {
    sent: bool,
    why: String,
    verdict: Option<Verdict>,
}

impl Client {
    /// A client for `base`, such as `http://127.0.0.1:8008`, that waits `timeout` for each answer (or for its start, when it
    /// is a stream).
    ///
    /// # Errors
    /// When the address or the token has a form that cannot be sent.
    pub fn new(base: &str, token: Option<&str>, timeout: Duration) -> Result<Self> {
        Self::secured(base, token, timeout, &Security::default())
    }

    /// The same for a `base` that may begin with `https://`.
    ///
    /// # Errors
    /// As of [`Client::new`], or when it is not known how that server proves who it is.
    pub fn secured(
        base: &str,
        token: Option<&str>,
        timeout: Duration,
        security: &Security,
    ) -> Result<Self> {
        let base = base.trim_end_matches('/').to_owned();
        let wrong = |why: &str| ClientError::Address {
            address: base.clone(),
            why: why.to_owned(),
        };
        let uri: Uri = base.parse().map_err(|e| wrong(&format!("{e}")))?;
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => {
                let config = security.config().map_err(|why| wrong(&why))?;
                Some(Arc::new(config))
            }
            _ => return Err(wrong("it begins with neither http:// nor https://")),
        };
        if uri.authority().is_none() || uri.path().len() > 1 {
            return Err(wrong("it has no host, or a path"));
        }
        let authorization = token
            .map(|token| {
                let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                    .map_err(|_| wrong("the token has characters that cannot be sent"))?;
                value.set_sensitive(true);
                Ok(value)
            })
            .transpose()?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_MAX));
        let pool = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(8)
            .build(Connector::new(connector, tls));
        Ok(Self {
            namespace: None,
            inner: Arc::new(Inner {
                pool,
                base,
                authorization,
                timeout,
                met: AtomicBool::new(false),
            }),
        })
    }

    /// The server's address, as given.
    pub fn address(&self) -> &str {
        &self.inner.base
    }

    /// Sends a call and reads its JSON answer.
    pub(crate) async fn answer<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        let bytes = self.bytes(call).await?;
        serde_json::from_slice(&bytes)
            .map_err(|e| self.protocol(format!("its answer cannot be read: {e}")))
    }

    /// Sends a call whose answer has no body.
    pub(crate) async fn done(&self, call: Call) -> Result<()> {
        self.bytes(call).await.map(drop)
    }

    /// Sends a call and reads its answer whole.
    pub(crate) async fn bytes(&self, call: Call) -> Result<Bytes> {
        let key = call.key.clone();
        let patience = self.inner.timeout + call.patience;
        let response = self.send(call).await?;
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect();
        match tokio::time::timeout(patience, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(e)) => Err(self.lost(key, e.to_string())),
            Err(_) => Err(self.lost(key, "time ran out".to_owned())),
        }
    }

    /// The same client, which looks names of jobs, sweeps and sandboxes up in this namespace. Ids say themselves what they mean.
    #[must_use]
    pub fn within(mut self, namespace: Option<&str>) -> Self {
        self.namespace = namespace.map(Into::into);
        self
    }

    /// Sends a call until it is answered, with success or an error body.
    pub(crate) async fn send(&self, mut call: Call) -> Result<Response<Incoming>> {
        if let Some(namespace) = &self.namespace {
            call.target = call.target.within(namespace);
        }
        let deadline = Instant::now() + self.inner.timeout + call.patience;
        let mut pause = Duration::from_millis(20);
        // Why it is not known what became of an earlier try: then no later one says that nothing was done.
        let mut open: Option<String> = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let tried = tokio::time::timeout(left, self.tried(&call)).await;
            let (error, again) = match tried {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(ended)) => ended,
                Err(_) => (
                    self.lost(call.key.clone(), "time ran out".to_owned()),
                    false,
                ),
            };
            let unknown = call.key.is_some() && error.outcome() == Outcome::Unknown;
            let error = match &open {
                Some(why) => self.after_unknown(error, &call, why),
                None => error,
            };
            if !again || Instant::now() + pause >= deadline {
                return Err(error);
            }
            if unknown {
                open.get_or_insert_with(|| match &error {
                    ClientError::Lost { why, .. } => why.clone(),
                    other => other.to_string(),
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One try: an answer that is a success, or what it was instead and whether to try again.
    async fn tried(
        &self,
        call: &Call,
    ) -> std::result::Result<Response<Incoming>, (ClientError, bool)> {
        match self.attempt(call).await {
            Ok(response) if response.status().is_success() => Ok(response),
            Ok(response) => Err(self.refusal(response).await),
            Err(Broken {
                verdict: Some(verdict),
                ..
            }) => Err((self.mistrust(verdict), false)),
            Err(broken) if broken.sent => {
                Err((self.lost(call.key.clone(), broken.why), call.repeatable))
            }
            Err(broken) => Err((
                self.unreachable(broken.why),
                self.inner.met.load(Ordering::Relaxed),
            )),
        }
    }

    /// What a try says of itself is not what became of all of them: one before it may still be, or may have been, carried out.
    fn after_unknown(&self, error: ClientError, call: &Call, why: &str) -> ClientError {
        match error {
            ClientError::Api { status, mut body } if body.outcome == Outcome::NotApplied => {
                body.outcome = Outcome::Unknown;
                body.message = format!(
                    "{}; but an earlier try of the same request may have been carried out ({why})",
                    body.message
                );
                ClientError::Api { status, body }
            }
            error if error.outcome() == Outcome::NotApplied => {
                self.lost(call.key.clone(), why.to_owned())
            }
            error => error,
        }
    }

    async fn attempt(&self, call: &Call) -> std::result::Result<Response<Incoming>, Broken> {
        let uri = format!("{}{}", self.inner.base, call.target.as_str());
        let mut request = Request::builder().method(&call.method).uri(uri);
        if let Some(authorization) = &self.inner.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(kind) = call.content_type {
            request = request.header(CONTENT_TYPE, kind);
        }
        if let Some(key) = &call.key {
            request = request.header("idempotency-key", key);
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let request = request
            .body(Full::new(call.body.clone()))
            .map_err(|e| Broken {
                sent: false,
                why: e.to_string(),
                verdict: None,
            })?;
        match self.inner.pool.request(request).await {
            Ok(response) => {
                self.inner.met.store(true, Ordering::Relaxed);
                Ok(response)
            }
            Err(e) => Err(Broken {
                sent: !e.is_connect(),
                why: root_cause(&e),
                verdict: verdict(&e),
            }),
        }
    }

    /// Reads an error body; also whether to try again.
    async fn refusal(&self, response: Response<Incoming>) -> (ClientError, bool) {
        let status = response.status().as_u16();
        let body = match Limited::new(response.into_body(), 1 << 20).collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) => return (self.lost(None, e.to_string()), false),
        };
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => {
                let again = body.retryable
                    && matches!(status, 429 | 503)
                    && body.outcome != Outcome::Applied;
                let body = Box::new(body);
                (ClientError::Api { status, body }, again)
            }
            Err(_) => (
                self.protocol(format!("status {status} without an error body")),
                false,
            ),
        }
    }

    pub(crate) fn lost(&self, key: Option<String>, why: String) -> ClientError {
        ClientError::Lost {
            address: self.inner.base.clone(),
            why,
            key,
        }
    }

    fn mistrust(&self, verdict: Verdict) -> ClientError {
        let address = self.inner.base.clone();
        match verdict {
            Verdict::NotTheServer(why) => ClientError::NotTheServer { address, why },
            Verdict::NotTheClient(why) => ClientError::NotTheClient { address, why },
        }
    }

    fn unreachable(&self, why: String) -> ClientError {
        ClientError::Unreachable {
            address: self.inner.base.clone(),
            why,
        }
    }

    pub(crate) fn protocol(&self, why: String) -> ClientError {
        ClientError::Protocol {
            address: self.inner.base.clone(),
            why,
        }
    }

    /// Reads every page of a list.
    pub(crate) async fn every<T, F>(&self, mut query: ListQuery, page: F) -> Result<Vec<T>>
    where
        F: AsyncFn(&ListQuery) -> Result<Page<T>>,
    {
        query.limit = query.limit.or(Some(prism_api::LIMIT_MAX));
        let mut all = Vec::new();
        loop {
            let mut got = page(&query).await?;
            all.append(&mut got.items);
            match got.next {
                Some(next) => query.cursor = Some(next),
                None => return Ok(all),
            }
        }
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
