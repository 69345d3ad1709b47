//! What is spoken over HTTP: the wire types, the one table of routes with their roles, and the OpenAPI document made of both.
//!
//! Data only: it knows nothing of the state, never serves and never calls. Callers: the gateway (answers), the client (asks).

#![forbid(unsafe_code)]

mod schema;
mod submission;
#[macro_use]
mod wire;
mod access;
mod cluster;
mod error;
mod exec;
mod files;
mod job;
mod join;
mod namespace;
mod openapi;
mod route;
mod row;
mod sandbox;
mod sweep;
mod table;

pub use access::{
    AuditCheck, AuditView, CandidateView, EventView, ExplainView, HealthView, ImageLoad, ImageView,
    Role, TokenCreate, TokenCreated, TokenView,
};
pub use cluster::{
    ClusterInfo, ClusterResources, DrainBody, DrainView, GossipHolderView, GossipKeyInstall,
    GossipKeyView, GossipKeysView, GossipState, MemberView, MissingNode, NodeCounts, NodeFactsView,
    NodeHealth, NodeReadings, NodeResources, NodeView, PeerView, RestoreView,
};
pub use error::{ErrorBody, status_of};
pub use exec::{ExecBody, ExecEvent, ExecView, ExitView, SignalBody, TtySize};
pub use files::{FileEntryView, FileList, FileType, SnapshotView, Stream, Written};
pub use job::{JobKind, JobView, TaskCounts, TaskView};
pub use join::{
    CaAllow, CaDeny, CaIssue, CaIssued, CaRotate, CaView, DeniedView, JoinTokenCreate,
    JoinTokenCreated, JoinTokenView, JoinedView, MemberRole, RotationView,
};
pub use namespace::{NamespaceView, Quota, QuotaView, UsageView};
pub use openapi::openapi;
pub use route::{Access, Denied, Method, Op, Param, ParamKind, Payload, Reach, Route};
pub use sandbox::{SandboxCreate, SandboxView, TimeoutBody};
pub use schema::{Definitions, Described, Page};
pub use sweep::{
    AggregateView, BeamStatus, BeamView, BestBeam, ObjectiveView, PendingBeam, RunnerOutput,
    SweepSummary, SweepView,
};
pub use table::ROUTES;

/// Where every versioned route lives.
pub const PREFIX: &str = "/api/v1";
/// Largest body of an ordinary request, bytes.
pub const BODY_MAX: usize = 1 << 20;
/// Largest body of a submission or of a file, bytes.
pub const BODY_MAX_LARGE: usize = 24 << 20;
/// Longest idempotency key, bytes.
pub const KEY_MAX: usize = 128;
/// Most items in one answer of a list.
pub const LIMIT_MAX: u32 = 1000;
/// Items in one answer of a list when nothing is asked.
pub const LIMIT_DEFAULT: u32 = 100;
