//! What a route is: the row of the one table that the router, the authorisation, the OpenAPI document and the tests are made from.

use prism_types::{Noun, Scope, Verb};
use serde::Serialize;
use serde_json::Value;

use crate::{Definitions, Described, Role};

/// HTTP methods that the API uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// Does.
    Post,
    /// Puts a thing where it is named.
    Put,
    /// Removes.
    Delete,
}

impl Method {
    /// As in a request line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone who reaches the port; nothing secret is answered.
    Open,
    /// A token with at least this role.
    Token(Role),
}

/// Whose a route's target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everybody's: a token for some namespaces may do it as well.
    Shared,
    /// A namespace's: for a token, only what is in its namespaces is there.
    Namespaced,
    /// The cluster's as a whole: only a token for all namespaces may.
    Cluster,
}

/// Why a route is closed to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Its role is too small; this one is needed.
    Role(Role),
    /// Its scope leaves the route's noun or verb out.
    Scope,
    /// It is for some namespaces, and the route is about all of them.
    Namespaces,
}

/// What a query parameter may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// A whole number up to the limit.
    Integer(u64),
    /// `true` or `false`; the bare name means `true`.
    Flag,
    /// Any text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// A query parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub kind: ParamKind,
    /// What it does.
    pub doc: &'static str,
}

/// What a body is.
#[derive(Clone, Copy, Debug)]
pub enum Payload {
    /// Nothing.
    Empty,
    /// JSON of a type.
    Json {
        /// Its schema.
        schema: fn(&mut Definitions) -> Value,
        /// A sample of it.
        sample: fn() -> Value,
    },
    /// A job, sweep or sandbox submission as `prism-spec` reads it: the fields of the file that people write, as JSON.
    Spec(&'static str),
    /// One JSON value of a type per line.
    Lines {
        /// Schema of a line.
        schema: fn(&mut Definitions) -> Value,
        /// A sample of a line.
        sample: fn() -> Value,
    },
    /// Server-sent events whose data is JSON of a type; without `follow`, a page of them.
    Events {
        /// Schema of the data.
        schema: fn(&mut Definitions) -> Value,
        /// A sample of the data.
        sample: fn() -> Value,
    },
    /// Bytes as they are.
    Raw,
    /// Text of this type.
    Text(&'static str),
    /// JSON without a fixed form.
    AnyJson,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// What it does; the gateway matches on it.
    pub op: Op,
    /// Method.
    pub method: Method,
    /// Path with `{names}`, from the root of the server.
    pub path: &'static str,
    /// Who may.
    pub access: Access,
    /// What it is about.
    pub noun: Noun,
    /// What it does to that.
    pub verb: Verb,
    /// Whose that is.
    pub reach: Reach,
    /// One sentence.
    pub summary: &'static str,
    /// Query parameters; others are refused.
    pub query: &'static [Param],
    /// Request body.
    pub request: Payload,
    /// Whether the request body may be left out.
    pub request_optional: bool,
    /// Largest request body, bytes.
    pub body_max: usize,
    /// Status of success.
    pub success: u16,
    /// Answer of success.
    pub answer: Payload,
    /// Another form that the answer may have, asked for by a parameter.
    pub or_answer: Option<Payload>,
}

impl Route {
    /// Whether it changes something, and so takes an `Idempotency-Key`.
    pub const fn changes(&self) -> bool {
        !matches!(self.method, Method::Get)
    }

    /// The guard: whether a token with this role and scope may. Which things are there for it is the handler's part, by
    /// [`Scope::sees`].
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, role: Role, scope: &Scope) -> Result<(), Denied> {
        let Access::Token(needed) = self.access else {
            return Ok(());
        };
        if !role.satisfies(needed) {
            return Err(Denied::Role(needed));
        }
        if !scope.allows(self.noun, self.verb) {
            return Err(Denied::Scope);
        }
        if self.reach == Reach::Cluster && !scope.is_everywhere() {
            return Err(Denied::Namespaces);
        }
        Ok(())
    }

    /// Names in its path, in order.
    pub fn path_params(&self) -> impl Iterator<Item = &'static str> {
        self.path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }
}

fn sample_value<T: Described + Serialize>() -> Value {
    serde_json::to_value(T::sample()).unwrap_or(Value::Null)
}

/// JSON of `T`.
pub(crate) const fn json<T: Described + Serialize>() -> Payload {
    Payload::Json {
        schema: T::schema,
        sample: sample_value::<T>,
    }
}

/// Lines of JSON of `T`.
pub(crate) const fn lines<T: Described + Serialize>() -> Payload {
    Payload::Lines {
        schema: T::schema,
        sample: sample_value::<T>,
    }
}

/// Server-sent events with JSON of `T`.
pub(crate) const fn events<T: Described + Serialize>() -> Payload {
    Payload::Events {
        schema: T::schema,
        sample: sample_value::<T>,
    }
}

macro_rules! ops {
    ($($(#[doc = $doc:literal])* $op:ident),+ $(,)?) => {
        /// Everything the API can do. A route without a row in the table cannot exist, and neither can a row that is not served:
        /// the gateway matches on this without a catch-all.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Op { $($(#[doc = $doc])* $op),+ }

        impl Op {
            /// Every operation.
            pub const ALL: &[Self] = &[$(Self::$op),+];

            /// Its name, as in the OpenAPI document.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$op => stringify!($op)),+ }
            }
        }
    };
}

ops! {
    /// `GET /health`
    Health,
    /// `GET /metrics`
    Metrics,
    /// `GET /openapi.json`
    OpenApi,
    /// `GET /api/v1/openapi.json`
    OpenApiVersioned,
    /// `GET /cluster`
    ClusterGet,
    /// `GET /cluster/members`
    ClusterMembers,
    /// `GET /cluster/peers`
    PeerList,
    /// `DELETE /cluster/peers/{id}`
    PeerRemove,
    /// `GET /cluster/keys`
    KeyList,
    /// `POST /cluster/keys`
    KeyInstall,
    /// `POST /cluster/keys/{id}/use`
    KeyUse,
    /// `DELETE /cluster/keys/{id}`
    KeyRemove,
    /// `GET /cluster/resources`
    ClusterResources,
    /// `POST /cluster/backup`
    ClusterBackup,
    /// `POST /cluster/restore`
    ClusterRestore,
    /// `GET /nodes`
    NodeList,
    /// `GET /nodes/{id}`
    NodeGet,
    /// `GET /nodes/{id}/resources`
    NodeResources,
    /// `GET /nodes/{id}/health`
    NodeHealth,
    /// `POST /nodes/{id}/drain`
    NodeDrain,
    /// `POST /nodes/{id}/cordon`
    NodeCordon,
    /// `POST /nodes/{id}/uncordon`
    NodeUncordon,
    /// `DELETE /nodes/{id}`
    NodeRemove,
    /// `POST /jobs`
    JobSubmit,
    /// `GET /jobs`
    JobList,
    /// `GET /jobs/{id}`
    JobGet,
    /// `GET /jobs/{id}/tasks`
    JobTasks,
    /// `GET /jobs/{id}/results`
    JobResults,
    /// `GET /jobs/{id}/logs`
    JobLogs,
    /// `POST /jobs/{id}/cancel`
    JobCancel,
    /// `POST /jobs/{id}/retry`
    JobRetry,
    /// `POST /jobs/{id}/pause`
    JobPause,
    /// `POST /jobs/{id}/resume`
    JobResume,
    /// `POST /sweeps`
    SweepSubmit,
    /// `GET /sweeps`
    SweepList,
    /// `GET /sweeps/{id}`
    SweepGet,
    /// `GET /sweeps/{id}/results`
    SweepResults,
    /// `POST /sweeps/{id}/cancel`
    SweepCancel,
    /// `POST /sweeps/{id}/pause`
    SweepPause,
    /// `POST /sweeps/{id}/resume`
    SweepResume,
    /// `POST /sandboxes`
    SandboxCreate,
    /// `GET /sandboxes`
    SandboxList,
    /// `GET /sandboxes/{id}`
    SandboxGet,
    /// `DELETE /sandboxes/{id}`
    SandboxDelete,
    /// `POST /sandboxes/{id}/timeout`
    SandboxTimeout,
    /// `GET /sandboxes/{id}/logs`
    SandboxLogs,
    /// `POST /sandboxes/{id}/exec`
    ExecStart,
    /// `GET /sandboxes/{id}/execs`
    ExecList,
    /// `GET /sandboxes/{id}/execs/{exec}`
    ExecGet,
    /// `GET /sandboxes/{id}/execs/{exec}/output`
    ExecOutput,
    /// `POST /sandboxes/{id}/execs/{exec}/input`
    ExecInput,
    /// `POST /sandboxes/{id}/execs/{exec}/signal`
    ExecSignal,
    /// `POST /sandboxes/{id}/execs/{exec}/resize`
    ExecResize,
    /// `POST /sandboxes/{id}/signal`
    SandboxSignal,
    /// `GET /sandboxes/{id}/files`
    FileGet,
    /// `PUT /sandboxes/{id}/files`
    FilePut,
    /// `DELETE /sandboxes/{id}/files`
    FileDelete,
    /// `GET /sandboxes/{id}/snapshots`
    SnapshotList,
    /// `POST /sandboxes/{id}/snapshots`
    SnapshotCreate,
    /// `POST /tokens`
    TokenCreate,
    /// `GET /tokens`
    TokenList,
    /// `DELETE /tokens/{id}`
    TokenRevoke,
    /// `GET /namespaces`
    NamespaceList,
    /// `GET /namespaces/{name}`
    NamespaceGet,
    /// `PUT /namespaces/{name}`
    NamespacePut,
    /// `DELETE /namespaces/{name}`
    NamespaceRemove,
    /// `GET /ca`
    CaGet,
    /// `POST /ca/deny`
    CaDeny,
    /// `POST /ca/allow`
    CaAllow,
    /// `POST /ca/certificates`
    CaIssue,
    /// `POST /ca/rotate`
    CaRotate,
    /// `POST /join-tokens`
    JoinTokenCreate,
    /// `GET /join-tokens`
    JoinTokenList,
    /// `DELETE /join-tokens/{id}`
    JoinTokenRevoke,
    /// `GET /events`
    EventList,
    /// `GET /events/verify`
    EventVerify,
    /// `GET /explain/{id}`
    Explain,
    /// `POST /images`
    ImageLoad,
    /// `GET /images`
    ImageList,
}
