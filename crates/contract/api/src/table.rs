//! The table of routes: method, path, what it is about, who may, parameters, bodies. The router, the guard, the OpenAPI
//! document, the authorisation matrix test and the metrics' labels all come from it.

use prism_types::{Noun, Verb};

use crate::route::{Method, Op, ParamKind, Payload, Route, events, json, lines};
use crate::row::{
    CURSOR, FOLLOW, LABEL, LIMIT, LIST, LIST_JOBS, NAMESPACE, OFFSET, PATH, STREAM, TASK_STATE,
    WITHIN, get, param, post, row,
};
use crate::{
    AuditCheck, CaAllow, CaDeny, CaIssue, CaIssued, CaRotate, CaView, ClusterInfo,
    ClusterResources, DrainBody, EventView, ExecBody, ExecEvent, ExecView, ExplainView, FileList,
    GossipKeyInstall, GossipKeysView, HealthView, ImageLoad, ImageView, JobView, JoinTokenCreate,
    JoinTokenCreated, JoinTokenView, MemberView, NamespaceView, NodeHealth, NodeResources,
    NodeView, Page, PeerView, Quota, RestoreView, Role, SandboxView, SignalBody, SnapshotView,
    SweepSummary, SweepView, TaskView, TimeoutBody, TokenCreate, TokenCreated, TokenView, TtySize,
    Written,
};

/// Every route there is.
pub const ROUTES: &[Route] = &[
    get(
        Op::Health,
        "/health",
        Noun::Server,
        "whether the server lives and is ready; 503 when it is not ready",
    )
    .open()
    .query(&[param(
        "always",
        ParamKind::Flag,
        "answer 200 even when it is not ready",
    )])
    .answers(json::<HealthView>()),
    get(Op::Metrics, "/metrics", Noun::Server, "figures for Prometheus")
        .open()
        .answers(Payload::Text("text/plain")),
    get(Op::OpenApi, "/openapi.json", Noun::Server, "this document")
        .open()
        .answers(Payload::AnyJson),
    get(
        Op::OpenApiVersioned,
        "/api/v1/openapi.json",
        Noun::Server,
        "this document",
    )
    .open()
    .answers(Payload::AnyJson),
    get(
        Op::ClusterGet,
        "/api/v1/cluster",
        Noun::Cluster,
        "the cluster in one answer",
    )
    .answers(json::<ClusterInfo>()),
    get(
        Op::ClusterMembers,
        "/api/v1/cluster/members",
        Noun::Cluster,
        "its servers",
    )
    .query(LIST)
    .answers(json::<Page<MemberView>>()),
    get(
        Op::PeerList,
        "/api/v1/cluster/peers",
        Noun::Cluster,
        "its servers, as the configuration of its state has them",
    )
    .query(LIST)
    .answers(json::<Page<PeerView>>()),
    row(
        Method::Delete,
        Op::PeerRemove,
        "/api/v1/cluster/peers/{id}",
        Noun::Cluster,
        "take a server out of the cluster for good, by id, name or number",
    )
    .role(Role::Admin),
    get(
        Op::KeyList,
        "/api/v1/cluster/keys",
        Noun::Cluster,
        "the names of the keys that the servers' gossip is sealed with, and which server has which",
    )
    .role(Role::Admin)
    .everywhere()
    .answers(json::<GossipKeysView>()),
    post(
        Op::KeyInstall,
        "/api/v1/cluster/keys",
        Noun::Cluster,
        "give all servers another key for gossip, which seals nothing yet",
    )
    .role(Role::Admin)
    .takes(json::<GossipKeyInstall>())
    .created()
    .answers(json::<GossipKeysView>()),
    post(
        Op::KeyUse,
        "/api/v1/cluster/keys/{id}/use",
        Noun::Cluster,
        "let all servers seal their gossip with a key that all have",
    )
    .role(Role::Admin)
    .answers(json::<GossipKeysView>()),
    row(
        Method::Delete,
        Op::KeyRemove,
        "/api/v1/cluster/keys/{id}",
        Noun::Cluster,
        "let all servers forget a key for gossip that none seals with",
    )
    .role(Role::Admin),
    get(
        Op::ClusterResources,
        "/api/v1/cluster/resources",
        Noun::Cluster,
        "what the nodes have and what is given away",
    )
    .answers(json::<ClusterResources>()),
    post(
        Op::ClusterBackup,
        "/api/v1/cluster/backup",
        Noun::Cluster,
        "a copy of the cluster's state at one revision, as a file",
    )
    .verb(Verb::Read)
    .role(Role::Admin)
    .answers(Payload::Raw),
    post(
        Op::ClusterRestore,
        "/api/v1/cluster/restore",
        Noun::Cluster,
        "restore a backup into this cluster, which is new and has nothing in it; the file as a whole, or piece by piece",
    )
    .role(Role::Admin)
    .large()
    .query(&[
        OFFSET,
        param("more", ParamKind::Flag, "another piece of the file follows"),
    ])
    .takes(Payload::Raw)
    .answers(json::<RestoreView>()),
    get(Op::NodeList, "/api/v1/nodes", Noun::Nodes, "nodes, by name")
        .query(LIST)
        .answers(json::<Page<NodeView>>()),
    get(
        Op::NodeGet,
        "/api/v1/nodes/{id}",
        Noun::Nodes,
        "a node, by id or name",
    )
    .answers(json::<NodeView>()),
    get(
        Op::NodeResources,
        "/api/v1/nodes/{id}/resources",
        Noun::Nodes,
        "what a node has and what is given away",
    )
    .answers(json::<NodeResources>()),
    get(
        Op::NodeHealth,
        "/api/v1/nodes/{id}/health",
        Noun::Nodes,
        "whether a node can take work, and why not",
    )
    .answers(json::<NodeHealth>()),
    post(
        Op::NodeDrain,
        "/api/v1/nodes/{id}/drain",
        Noun::Nodes,
        "empty a node: nothing new comes, what runs may go on for a while, then it is run elsewhere",
    )
    .role(Role::Operator)
    .takes(json::<DrainBody>())
    .answers(json::<NodeView>()),
    post(
        Op::NodeCordon,
        "/api/v1/nodes/{id}/cordon",
        Noun::Nodes,
        "place nothing new on a node",
    )
    .role(Role::Operator)
    .answers(json::<NodeView>()),
    post(
        Op::NodeUncordon,
        "/api/v1/nodes/{id}/uncordon",
        Noun::Nodes,
        "place work on a node again",
    )
    .role(Role::Operator)
    .answers(json::<NodeView>()),
    row(
        Method::Delete,
        Op::NodeRemove,
        "/api/v1/nodes/{id}",
        Noun::Nodes,
        "forget a node that has no work, and keep it out if it had joined",
    )
    .role(Role::Admin),
    post(Op::JobSubmit, "/api/v1/jobs", Noun::Jobs, "submit a job")
        .large()
        .takes(Payload::Spec("job"))
        .created()
        .answers(json::<JobView>()),
    get(
        Op::JobList,
        "/api/v1/jobs",
        Noun::Jobs,
        "jobs and sweeps, newest first",
    )
    .query(LIST_JOBS)
    .answers(json::<Page<JobView>>()),
    get(
        Op::JobGet,
        "/api/v1/jobs/{id}",
        Noun::Jobs,
        "a job, by id, or the newest of a name",
    )
    .answers(json::<JobView>()),
    get(
        Op::JobTasks,
        "/api/v1/jobs/{id}/tasks",
        Noun::Jobs,
        "its tasks, by index",
    )
    .query(&[WITHIN, LIMIT, CURSOR, TASK_STATE])
    .answers(json::<Page<TaskView>>()),
    get(
        Op::JobResults,
        "/api/v1/jobs/{id}/results",
        Noun::Jobs,
        "its recorded results, one line each, by index",
    )
    .query(&[WITHIN, TASK_STATE, FOLLOW])
    .answers(lines::<TaskView>()),
    get(
        Op::JobLogs,
        "/api/v1/jobs/{id}/logs",
        Noun::Jobs,
        "the output of a task",
    )
    .query(&[WITHIN,
        param(
            "task",
            ParamKind::Integer(u32::MAX as u64),
            "index of the task; 0 unless said",
        ),
        param(
            "attempt",
            ParamKind::Integer(u32::MAX as u64),
            "which attempt; the last unless said",
        ),
        STREAM,
        OFFSET,
        FOLLOW,
    ])
    .answers(Payload::Raw),
    post(Op::JobCancel, "/api/v1/jobs/{id}/cancel", Noun::Jobs, "end it").answers(json::<JobView>()),
    post(
        Op::JobRetry,
        "/api/v1/jobs/{id}/retry",
        Noun::Jobs,
        "run its failed and cancelled tasks again",
    )
    .answers(json::<JobView>()),
    post(
        Op::JobPause,
        "/api/v1/jobs/{id}/pause",
        Noun::Jobs,
        "place nothing new of it; what runs goes on",
    )
    .answers(json::<JobView>()),
    post(
        Op::JobResume,
        "/api/v1/jobs/{id}/resume",
        Noun::Jobs,
        "go on after a pause",
    )
    .answers(json::<JobView>()),
    post(
        Op::SweepSubmit,
        "/api/v1/sweeps",
        Noun::Sweeps,
        "submit a sweep",
    )
    .large()
    .takes(Payload::Spec("sweep"))
    .created()
    .answers(json::<SweepView>()),
    get(
        Op::SweepList,
        "/api/v1/sweeps",
        Noun::Sweeps,
        "sweeps, newest first",
    )
    .query(LIST_JOBS)
    .answers(json::<Page<SweepSummary>>()),
    get(
        Op::SweepGet,
        "/api/v1/sweeps/{id}",
        Noun::Sweeps,
        "a sweep with all its beams, by id, or the newest of a name",
    )
    .answers(json::<SweepView>()),
    get(
        Op::SweepResults,
        "/api/v1/sweeps/{id}/results",
        Noun::Sweeps,
        "its finished beams as a table",
    )
    .query(&[WITHIN, param(
        "format",
        ParamKind::Choice(&["json", "csv"]),
        "JSON unless said",
    )])
    .answers(json::<Vec<crate::BeamView>>())
    .or(Payload::Text("text/csv")),
    post(
        Op::SweepCancel,
        "/api/v1/sweeps/{id}/cancel",
        Noun::Sweeps,
        "end it",
    )
    .answers(json::<SweepView>()),
    post(
        Op::SweepPause,
        "/api/v1/sweeps/{id}/pause",
        Noun::Sweeps,
        "place nothing new of it; what runs goes on",
    )
    .answers(json::<SweepView>()),
    post(
        Op::SweepResume,
        "/api/v1/sweeps/{id}/resume",
        Noun::Sweeps,
        "go on after a pause",
    )
    .answers(json::<SweepView>()),
    post(
        Op::SandboxCreate,
        "/api/v1/sandboxes",
        Noun::Sandboxes,
        "make a sandbox; answers when it runs or has failed",
    )
    .query(&[param(
        "wait",
        ParamKind::Flag,
        "`false` answers as soon as it is accepted",
    )])
    .takes(Payload::Spec("sandbox"))
    .optional()
    .created()
    .answers(json::<SandboxView>()),
    get(
        Op::SandboxList,
        "/api/v1/sandboxes",
        Noun::Sandboxes,
        "sandboxes, newest first",
    )
    .query(&[
        LIMIT,
        CURSOR,
        LABEL,
        NAMESPACE,
        param("all", ParamKind::Flag, "those that are over as well"),
    ])
    .answers(json::<Page<SandboxView>>()),
    get(
        Op::SandboxGet,
        "/api/v1/sandboxes/{id}",
        Noun::Sandboxes,
        "a sandbox, by id or name",
    )
    .answers(json::<SandboxView>()),
    row(
        Method::Delete,
        Op::SandboxDelete,
        "/api/v1/sandboxes/{id}",
        Noun::Sandboxes,
        "end it and remove its files",
    )
    .answers(json::<SandboxView>()),
    post(
        Op::SandboxTimeout,
        "/api/v1/sandboxes/{id}/timeout",
        Noun::Sandboxes,
        "give it a new lease of life",
    )
    .takes(json::<TimeoutBody>())
    .answers(json::<SandboxView>()),
    get(
        Op::SandboxLogs,
        "/api/v1/sandboxes/{id}/logs",
        Noun::Sandboxes,
        "the output of its last exec, or of one",
    )
    .query(&[WITHIN,
        param("exec", ParamKind::Text, "which exec"),
        STREAM,
        OFFSET,
        FOLLOW,
    ])
    .answers(Payload::Raw),
    post(
        Op::ExecStart,
        "/api/v1/sandboxes/{id}/exec",
        Noun::Sandboxes,
        "run a program in it",
    )
    .query(&[WITHIN, param(
        "stream",
        ParamKind::Flag,
        "answer with the output as it comes, one JSON event per line, and the exit at the end",
    )])
    .takes(json::<ExecBody>())
    .answers(json::<ExecView>())
    .or(lines::<ExecEvent>()),
    get(
        Op::ExecList,
        "/api/v1/sandboxes/{id}/execs",
        Noun::Sandboxes,
        "what was run in it, oldest first",
    )
    .query(&[WITHIN, LIMIT, CURSOR])
    .answers(json::<Page<ExecView>>()),
    get(
        Op::ExecGet,
        "/api/v1/sandboxes/{id}/execs/{exec}",
        Noun::Sandboxes,
        "an exec",
    )
    .query(&[WITHIN, param(
        "wait",
        ParamKind::Integer(600),
        "wait up to so many seconds for its end",
    )])
    .answers(json::<ExecView>()),
    get(
        Op::ExecOutput,
        "/api/v1/sandboxes/{id}/execs/{exec}/output",
        Noun::Sandboxes,
        "its output",
    )
    .query(&[WITHIN, STREAM, OFFSET, FOLLOW])
    .answers(Payload::Raw),
    post(
        Op::ExecInput,
        "/api/v1/sandboxes/{id}/execs/{exec}/input",
        Noun::Sandboxes,
        "feed its standard input",
    )
    .query(&[WITHIN, param("eof", ParamKind::Flag, "close it afterwards")])
    .takes(Payload::Raw)
    .optional(),
    post(
        Op::ExecSignal,
        "/api/v1/sandboxes/{id}/execs/{exec}/signal",
        Noun::Sandboxes,
        "send it a signal",
    )
    .takes(json::<SignalBody>()),
    post(
        Op::ExecResize,
        "/api/v1/sandboxes/{id}/execs/{exec}/resize",
        Noun::Sandboxes,
        "change the size of its terminal",
    )
    .takes(json::<TtySize>()),
    post(
        Op::SandboxSignal,
        "/api/v1/sandboxes/{id}/signal",
        Noun::Sandboxes,
        "send a signal to every exec that runs in it",
    )
    .takes(json::<SignalBody>()),
    get(
        Op::FileGet,
        "/api/v1/sandboxes/{id}/files",
        Noun::Sandboxes,
        "a file as it is, a listing, or what a path is",
    )
    .role(Role::Submitter)
    .query(&[WITHIN,
        PATH,
        param("list", ParamKind::Flag, "entries of a directory"),
        param(
            "stat",
            ParamKind::Flag,
            "what the path is, as a listing of one",
        ),
        OFFSET,
    ])
    .answers(Payload::Raw)
    .or(json::<FileList>()),
    row(
        Method::Put,
        Op::FilePut,
        "/api/v1/sandboxes/{id}/files",
        Noun::Sandboxes,
        "replace a file, or make a directory",
    )
    .large()
    .query(&[WITHIN,
        PATH,
        param("mkdir", ParamKind::Flag, "make a directory and its parents"),
        param(
            "mode",
            ParamKind::Text,
            "permission bits in octal; 644 unless said",
        ),
    ])
    .takes(Payload::Raw)
    .optional()
    .answers(json::<Written>()),
    row(
        Method::Delete,
        Op::FileDelete,
        "/api/v1/sandboxes/{id}/files",
        Noun::Sandboxes,
        "remove a file, or a directory with all in it",
    )
    .verb(Verb::Change)
    .query(&[WITHIN, PATH]),
    get(
        Op::SnapshotList,
        "/api/v1/sandboxes/{id}/snapshots",
        Noun::Sandboxes,
        "saved file systems of it",
    )
    .query(&[WITHIN, LIMIT, CURSOR])
    .answers(json::<Page<SnapshotView>>()),
    post(
        Op::SnapshotCreate,
        "/api/v1/sandboxes/{id}/snapshots",
        Noun::Sandboxes,
        "save its file system",
    )
    .created()
    .answers(json::<SnapshotView>()),
    post(Op::TokenCreate, "/api/v1/tokens", Noun::Tokens, "make a token")
        .role(Role::Admin)
        .takes(json::<TokenCreate>())
        .created()
        .answers(json::<TokenCreated>()),
    get(
        Op::TokenList,
        "/api/v1/tokens",
        Noun::Tokens,
        "tokens, oldest first, without their secrets",
    )
    .role(Role::Admin)
    .query(&[LIMIT, CURSOR])
    .answers(json::<Page<TokenView>>()),
    row(
        Method::Delete,
        Op::TokenRevoke,
        "/api/v1/tokens/{id}",
        Noun::Tokens,
        "revoke a token",
    )
    .role(Role::Admin),
    get(
        Op::NamespaceList,
        "/api/v1/namespaces",
        Noun::Namespaces,
        "namespaces by name, with quota and usage",
    )
    .query(&[LIMIT, CURSOR])
    .answers(json::<Page<NamespaceView>>()),
    get(
        Op::NamespaceGet,
        "/api/v1/namespaces/{name}",
        Noun::Namespaces,
        "a namespace with its quota and what of it is in use",
    )
    .answers(json::<NamespaceView>()),
    row(
        Method::Put,
        Op::NamespacePut,
        "/api/v1/namespaces/{name}",
        Noun::Namespaces,
        "make a namespace, or replace its quota",
    )
    .role(Role::Admin)
    .everywhere()
    .query(&[param(
        "new",
        ParamKind::Flag,
        "`true`: only if there is none of that name; `false`: only if there is one",
    )])
    .takes(json::<Quota>())
    .optional()
    .answers(json::<NamespaceView>()),
    row(
        Method::Delete,
        Op::NamespaceRemove,
        "/api/v1/namespaces/{name}",
        Noun::Namespaces,
        "forget a namespace in which nothing lives",
    )
    .role(Role::Admin)
    .everywhere(),
    get(
        Op::CaGet,
        "/api/v1/ca",
        Noun::Members,
        "who belongs to the cluster, and who is kept out",
    )
    .role(Role::Admin)
    .answers(json::<CaView>()),
    post(
        Op::CaDeny,
        "/api/v1/ca/deny",
        Noun::Members,
        "keep a node or a certificate out, and close its connections",
    )
    .verb(Verb::Change)
    .role(Role::Admin)
    .takes(json::<CaDeny>())
    .answers(json::<CaView>()),
    post(
        Op::CaAllow,
        "/api/v1/ca/allow",
        Noun::Members,
        "let a node or a certificate come again",
    )
    .verb(Verb::Change)
    .role(Role::Admin)
    .takes(json::<CaAllow>())
    .answers(json::<CaView>()),
    post(
        Op::CaIssue,
        "/api/v1/ca/certificates",
        Noun::Tokens,
        "make a client certificate, which stands for a new token",
    )
    .role(Role::Admin)
    .takes(json::<CaIssue>())
    .created()
    .answers(json::<CaIssued>()),
    post(
        Op::CaRotate,
        "/api/v1/ca/rotate",
        Noun::Members,
        "change the root of the cluster, or end such a change",
    )
    .verb(Verb::Change)
    .role(Role::Admin)
    .takes(json::<CaRotate>())
    .optional()
    .answers(json::<CaView>()),
    post(
        Op::JoinTokenCreate,
        "/api/v1/join-tokens",
        Noun::JoinTokens,
        "make a token with which machines join as workers",
    )
    .role(Role::Admin)
    .takes(json::<JoinTokenCreate>())
    .created()
    .answers(json::<JoinTokenCreated>()),
    get(
        Op::JoinTokenList,
        "/api/v1/join-tokens",
        Noun::JoinTokens,
        "join tokens, oldest first, without their secrets",
    )
    .role(Role::Admin)
    .query(&[LIMIT, CURSOR])
    .answers(json::<Page<JoinTokenView>>()),
    row(
        Method::Delete,
        Op::JoinTokenRevoke,
        "/api/v1/join-tokens/{id}",
        Noun::JoinTokens,
        "revoke a join token",
    )
    .role(Role::Admin),
    get(
        Op::EventList,
        "/api/v1/events",
        Noun::Events,
        "what happened, oldest first",
    )
    .query(&[
        param(
            "since",
            ParamKind::Integer(u64::MAX),
            "only events after this number",
        ),
        LIMIT,
        CURSOR,
        param("subject", ParamKind::Text, "only events about this id"),
        param(
            "kind",
            ParamKind::Text,
            "only events of this kind, such as `job.completed`, or of this family, such as `job`; `audit` for administrators",
        ),
        NAMESPACE,
        param(
            "follow",
            ParamKind::Flag,
            "server-sent events, the number as id; `Last-Event-ID` is honoured",
        ),
    ])
    .answers(json::<Page<EventView>>())
    .or(events::<EventView>()),
    get(
        Op::EventVerify,
        "/api/v1/events/verify",
        Noun::Events,
        "look through the stored events, and whether any audit event was altered or taken out",
    )
    .role(Role::Admin)
    .everywhere()
    .answers(json::<AuditCheck>()),
    get(
        Op::Explain,
        "/api/v1/explain/{id}",
        Noun::Explain,
        "why a job, task (JOB.INDEX), sandbox or node is as it is",
    )
    .answers(json::<ExplainView>()),
    post(
        Op::ImageLoad,
        "/api/v1/images",
        Noun::Images,
        "load an image from the file system of a node's host",
    )
    .role(Role::Operator)
    .takes(json::<ImageLoad>())
    .created()
    .answers(json::<ImageView>()),
    get(
        Op::ImageList,
        "/api/v1/images",
        Noun::Images,
        "images on the nodes that are connected",
    )
    .query(&[LIMIT, CURSOR])
    .answers(json::<Page<ImageView>>()),
];
