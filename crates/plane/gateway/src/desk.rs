//! What outlives a leader. At each request it is asked who leads: this server answers itself, or hands the request on to the one that
//! does, or says that nobody does. A reader who says so gets what this server knows, marked as perhaps no longer true.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response};
use prism_control::{Control, Seat, Seats};
use prism_store::{BoxFuture, Store};
use prism_types::{Reason, TimeMs};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::app::{App, Common};
use crate::config::StoreTrouble;
use crate::forward::Forwarder;
use crate::refuse::{Answered, Refusal};

/// How long a request waits for somebody to lead.
const ELECTION: Duration = Duration::from_secs(5);
/// How old what a server knows without leading may be, before it is read anew.
const STALE: Duration = Duration::from_secs(1);

/// A stream to another server.
pub trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// Makes a stream for requests to the server at an address.
pub type Reach =
    Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Box<dyn Pipe>>> + Send + Sync>;

/// What the gateway stands on.
#[derive(Clone)]
pub struct Ground {
    /// Who leads.
    pub seats: Seats,
    /// What this server knows.
    pub store: Arc<dyn Store>,
    /// The way to the leader, if there may be another.
    pub reach: Option<Reach>,
}

impl std::fmt::Debug for Ground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ground")
            .field("seats", &self.seats)
            .finish_non_exhaustive()
    }
}

impl Ground {
    /// For a server that leads for ever.
    pub fn alone(control: Control) -> Self {
        Self {
            store: control.store().clone(),
            seats: Seats::fixed(control),
            reach: None,
        }
    }
}

/// Who answers a request.
pub(crate) enum Place {
    Here(Arc<App>),
    There(String),
}

/// See the module.
pub(crate) struct Desk {
    pub(crate) common: Arc<Common>,
    pub(crate) ground: Ground,
    pub(crate) forwarder: Forwarder,
    stop: CancellationToken,
    current: Mutex<Option<(Control, Arc<App>)>>,
    stale: tokio::sync::Mutex<Option<(Instant, Arc<App>)>>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk {
    pub(crate) fn new(common: Common, ground: Ground, stop: CancellationToken) -> Self {
        Self {
            common: Arc::new(common),
            forwarder: Forwarder::new(ground.reach.clone()),
            ground,
            stop,
            current: Mutex::default(),
            stale: tokio::sync::Mutex::default(),
        }
    }

    /// What answers for a leader; its streams end when it leads no more.
    fn app(&self, control: Control) -> Arc<App> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, app)) = &*current
            && of.is(&control)
        {
            return app.clone();
        }
        let stop = self.stop.child_token();
        let app = Arc::new(App::new(control.clone(), self.common.clone(), stop.clone()));
        *current = Some((control.clone(), app.clone()));
        let (seats, all) = (self.ground.seats.clone(), self.stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = seats.over(&control) => stop.cancel(),
                () = all.cancelled() => {}
            }
        });
        app
    }

    /// Who answers; waits for an election that is held now.
    pub(crate) async fn place(&self) -> Answered<Place> {
        let mut seats = self.ground.seats.clone();
        let settled = async {
            loop {
                match seats.look() {
                    Seat::Here(control) => return Place::Here(self.app(control)),
                    Seat::There(address) => return Place::There(address),
                    Seat::Nowhere => seats.changed().await,
                }
            }
        };
        // Of what has no room left it is known that it takes longer.
        let wait = match self.trouble() {
            Some(StoreTrouble::Full(_)) => Duration::ZERO,
            _ => ELECTION,
        };
        let settled = tokio::time::timeout(wait, settled).await;
        settled.map_err(|_| self.nobody())
    }

    /// Why nobody can lead, if what keeps the state says so.
    fn trouble(&self) -> Option<StoreTrouble> {
        self.common.config.store.as_ref()?.read().trouble
    }

    /// No server leads, and why.
    pub(crate) fn nobody(&self) -> Refusal {
        match self.trouble() {
            None => nobody(),
            Some(StoreTrouble::Away(why)) => Refusal::new(
                Reason::NotLeader,
                format!("no server leads the cluster now: {why}. What runs goes on. To read what this one knows, add ?stale=true"),
            )
            .retryable(),
            Some(StoreTrouble::Full(why)) => {
                Refusal::new(Reason::Pressure, format!("{why}. What runs goes on"))
                    .with_status(507)
                    .retryable()
            }
        }
    }

    /// Whether this server leads now.
    pub(crate) fn leads(&self) -> bool {
        matches!(self.ground.seats.now(), Seat::Here(_))
    }

    /// What this server knows without leading.
    pub(crate) async fn known(&self) -> Answered<Arc<App>> {
        let mut stale = self.stale.lock().await;
        if let Some((read, app)) = &*stale
            && read.elapsed() < STALE
        {
            return Ok(app.clone());
        }
        let control = prism_control::frozen(self.ground.store.clone()).await;
        let control = control.map_err(|why| Refusal::new(Reason::Internal, why.to_string()))?;
        let app = App::new(control, self.common.clone(), self.stop.child_token());
        let app = Arc::new(app);
        *stale = Some((Instant::now(), app.clone()));
        Ok(app)
    }

    /// Marks an answer that may no longer be true, and says how old it is.
    pub(crate) async fn marked(&self, mut response: Response<Body>) -> Response<Body> {
        let read = self.stale.lock().await.as_ref().map(|(read, _)| *read);
        let age = read.map_or(0, |read| read.elapsed().as_millis());
        let revision = self.ground.store.status().revision;
        let mark = format!("age_ms={age}; revision={revision}");
        if let Ok(value) = HeaderValue::from_str(&mark) {
            response.headers_mut().insert("x-prism-stale", value);
        }
        response
    }
}

/// No server leads.
fn nobody() -> Refusal {
    Refusal::new(
        Reason::NotLeader,
        "no server leads the cluster now: too few of the servers can reach each other; nothing was changed, what runs goes on. \
         Start the servers that are down; to read what this one knows, add ?stale=true",
    )
    .retryable()
}

/// Whether a reader is content with what this server knows.
pub(crate) fn content(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    request.method() == axum::http::Method::GET && query.split('&').any(|pair| pair == "stale=true")
}

/// The same request without the word that it is content with what this server knows.
pub(crate) fn without_stale(mut request: Request<Body>) -> Request<Body> {
    let mut parts = request.uri().clone().into_parts();
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default();
    let rest: Vec<&str> = query.split('&').filter(|p| *p != "stale=true").collect();
    let text = if rest.is_empty() {
        path
    } else {
        format!("{path}?{}", rest.join("&"))
    };
    parts.path_and_query = text.parse().ok();
    if let Ok(uri) = axum::http::Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

/// The time by this server's clock, which need not be the leader's.
pub(crate) fn now() -> TimeMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    TimeMs(u64::try_from(ms).unwrap_or(u64::MAX))
}
