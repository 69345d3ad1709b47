//! What all handlers share, the router that the table makes, and which handler serves which operation.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, State};
use axum::http::{Request, Response};
use axum::routing::{MethodFilter, on};
use bytes::Bytes;
use prism_api::{Method, Op, ROUTES, Route};
use prism_control::Control;
use prism_state::{Command, Reply, Subject};
use prism_types::{Outcome, Rejection, TimeMs};
use tokio_util::sync::CancellationToken;

use crate::ask::Ask;
use crate::desk::{self, Desk};
use crate::idempotency::Replays;
use crate::metrics::Metrics;
use crate::refuse::Answered;
use crate::room::Room;
use crate::stream::Streams;
use crate::{
    GatewayConfig, answer, backups, ca, cluster, events, execs, explain, files, gossip_keys,
    health, images, jobs, join_tokens, logs, namespaces, nodes, peers, pipeline, results,
    sandboxes, snapshots, submit, sweeps, tasks, tokens,
};

/// Shared by every request, whoever leads.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) config: GatewayConfig,
    pub(crate) metrics: Metrics,
    pub(crate) replays: Replays,
    pub(crate) openapi: Bytes,
    /// Room for large request bodies, and for small ones.
    pub(crate) bodies: Room,
    pub(crate) small_bodies: Room,
    /// Held while a large submission is read: one at a time.
    pub(crate) reader: tokio::sync::Mutex<()>,
    /// Room for whole answers that are being sent.
    pub(crate) answers: Room,
    /// Answers that are written while they are sent.
    pub(crate) streams: Streams,
    /// The backup that comes in.
    pub(crate) incoming: backups::Incoming,
    pub(crate) address: String,
    pub(crate) started: TimeMs,
}

/// What answers for one leader.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) control: Control,
    common: Arc<Common>,
    /// Ends open streams when the server stops, or leads no more.
    pub(crate) stop: CancellationToken,
}

impl std::ops::Deref for App {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

impl App {
    pub(crate) fn new(control: Control, common: Arc<Common>, stop: CancellationToken) -> Self {
        Self {
            control,
            common,
            stop,
        }
    }
}

impl Common {
    pub(crate) fn new(config: GatewayConfig, address: String) -> Self {
        let document = prism_api::openapi(&config.version);
        Self {
            started: desk::now(),
            openapi: serde_json::to_vec_pretty(&document)
                .unwrap_or_default()
                .into(),
            bodies: Room::new("large request bodies", config.bodies_max, config.room_wait),
            small_bodies: Room::new("request bodies", config.small_bodies_max, config.room_wait),
            reader: tokio::sync::Mutex::default(),
            answers: Room::new("answers", config.answers_max, config.room_wait),
            streams: Streams::default(),
            incoming: backups::Incoming::default(),
            metrics: Metrics::default(),
            replays: Replays::default(),
            config,
            address,
        }
    }
}

/// Where requests come in: from people and programs, or from another server that hands them on.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) desk: Arc<Desk>,
    pub(crate) handed_on: bool,
}

impl App {
    /// Proposes a change for whoever asks: with their key, and with an audit event.
    pub(crate) async fn propose(&self, ask: &Ask, command: Command) -> Result<Reply, Rejection> {
        let (key, origin) = (ask.key.clone(), ask.origin());
        self.control.propose_for(command, key, origin).await
    }

    /// Does a thing on a node for whoever asks, and has an audit event kept unless it was certainly not done.
    pub(crate) async fn on_node<T>(
        &self,
        ask: &Ask,
        subject: Subject,
        work: impl Future<Output = Result<T, Rejection>>,
    ) -> Answered<T> {
        let done = work.await;
        let outcome = match &done {
            Ok(_) => Outcome::Applied,
            Err(why) => why.outcome,
        };
        if outcome != Outcome::NotApplied
            && let Some(origin) = ask.origin()
        {
            self.control
                .note(Command::Note { subject, outcome }, origin)
                .await?;
        }
        Ok(done?)
    }
}

/// A router with exactly the rows of the table.
pub(crate) fn router(entry: Entry) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let filter = match route.method {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Put => MethodFilter::PUT,
            Method::Delete => MethodFilter::DELETE,
        };
        let handler = move |State(entry): State<Entry>, params: Params, request: Request<Body>| {
            pipeline::run(entry, Some(route), params.0, request)
        };
        router = router.route(route.path, on(filter, handler));
    }
    let unknown = move |State(entry): State<Entry>, request: Request<Body>| {
        pipeline::run(entry, None, Ok(Vec::new()), request)
    };
    router
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .with_state(entry)
}

/// Names in the path, decoded; or why they cannot be.
pub(crate) struct Params(pub(crate) Result<Vec<(String, String)>, String>);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Params {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> Result<Self, Self::Rejection> {
        let found = RawPathParams::from_request_parts(parts, state).await;
        Ok(Self(match found {
            Ok(params) => Ok(params
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect()),
            Err(e) => Err(e.to_string()),
        }))
    }
}

fn openapi(app: &App) -> Response<Body> {
    answer::of("application/json", app.openapi.clone())
}

/// Runs the handler of an operation.
pub(crate) async fn dispatch(app: &Arc<App>, route: &Route, ask: Ask) -> Answered<Response<Body>> {
    match route.op {
        Op::Health => health::get(app, &ask).await,
        Op::Metrics => health::metrics(app).await,
        Op::OpenApi | Op::OpenApiVersioned => Ok(openapi(app)),
        Op::ClusterGet => cluster::get(app, &ask).await,
        Op::ClusterMembers => cluster::members(app, &ask).await,
        Op::PeerList | Op::PeerRemove => peers::serve(app, route.op, ask).await,
        Op::KeyList => gossip_keys::list(app).await,
        Op::KeyInstall | Op::KeyUse | Op::KeyRemove => gossip_keys::act(app, route.op, ask).await,
        Op::ClusterResources => cluster::resources(app).await,
        Op::ClusterBackup | Op::ClusterRestore => backups::act(app, &ask).await,
        Op::NodeList => nodes::list(app, &ask).await,
        Op::NodeGet => nodes::get(app, &ask).await,
        Op::NodeResources => nodes::resources(app, &ask).await,
        Op::NodeHealth => nodes::health(app, &ask).await,
        Op::NodeDrain => nodes::drain(app, ask).await,
        Op::NodeCordon | Op::NodeUncordon => nodes::cordon(app, route.op, ask).await,
        Op::NodeRemove => nodes::remove(app, ask).await,
        Op::JobSubmit => submit::job(app, ask).await,
        Op::JobList => jobs::list(app, &ask).await,
        Op::JobGet => jobs::get(app, &ask).await,
        Op::JobTasks => tasks::list(app, &ask).await,
        Op::JobResults => results::stream(app, &ask).await,
        Op::JobLogs => logs::job(app, &ask).await,
        Op::JobCancel | Op::JobRetry | Op::JobPause | Op::JobResume => jobs::act(app, ask).await,
        Op::SweepSubmit => submit::sweep(app, ask).await,
        Op::SweepList => sweeps::list(app, &ask).await,
        Op::SweepGet => sweeps::get(app, &ask).await,
        Op::SweepResults => sweeps::results(app, &ask).await,
        Op::SweepCancel | Op::SweepPause | Op::SweepResume => sweeps::act(app, ask).await,
        Op::SandboxCreate => submit::sandbox(app, ask).await,
        Op::SandboxList => sandboxes::list(app, &ask).await,
        Op::SandboxGet => sandboxes::get(app, &ask).await,
        Op::SandboxDelete => sandboxes::delete(app, ask).await,
        Op::SandboxTimeout => sandboxes::timeout(app, ask).await,
        Op::SandboxLogs => logs::sandbox(app, &ask).await,
        Op::ExecStart => execs::start(app, ask).await,
        Op::ExecList => execs::list(app, &ask).await,
        Op::ExecGet => execs::get(app, &ask).await,
        Op::ExecOutput => logs::exec(app, &ask).await,
        Op::ExecInput => execs::input(app, ask).await,
        Op::ExecSignal => execs::signal(app, &ask).await,
        Op::ExecResize => execs::resize(app, &ask).await,
        Op::SandboxSignal => execs::signal_all(app, &ask).await,
        Op::FileGet => files::get(app, &ask).await,
        Op::FilePut => files::put(app, ask).await,
        Op::FileDelete => files::delete(app, &ask).await,
        Op::SnapshotList => snapshots::list(app, &ask).await,
        Op::SnapshotCreate => snapshots::create(app, ask).await,
        Op::TokenCreate => tokens::create(app, ask).await,
        Op::TokenList => tokens::list(app, &ask).await,
        Op::TokenRevoke => tokens::revoke(app, ask).await,
        Op::NamespaceList => namespaces::list(app, &ask).await,
        Op::NamespaceGet => namespaces::get(app, &ask).await,
        Op::NamespacePut => namespaces::put(app, ask).await,
        Op::NamespaceRemove => namespaces::remove(app, ask).await,
        Op::CaGet => ca::get(app).await,
        Op::CaDeny | Op::CaAllow | Op::CaIssue | Op::CaRotate => ca::act(app, ask).await,
        Op::JoinTokenCreate => join_tokens::create(app, ask).await,
        Op::JoinTokenList => join_tokens::list(app, &ask).await,
        Op::JoinTokenRevoke => join_tokens::revoke(app, ask).await,
        Op::EventList => events::list(app, &ask).await,
        Op::EventVerify => events::verify(app).await,
        Op::Explain => explain::get(app, &ask).await,
        Op::ImageLoad => images::load(app, &ask).await,
        Op::ImageList => images::list(app, &ask).await,
    }
}
