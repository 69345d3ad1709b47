//! The table of routes: method, path, role, parameters, bodies. The router, the role checks, the OpenAPI document, the
//! authorisation matrix test and the metrics' labels all come from it.

use crate::route::{Access, Method, Op, Param, ParamKind, Payload, Route, events, json, lines};
use crate::{
    BODY_MAX, BODY_MAX_LARGE, ClusterInfo, ClusterResources, EventView, ExecBody, ExecEvent,
    ExecView, ExplainView, FileList, HealthView, ImageLoad, ImageView, JobView, LIMIT_MAX,
    MemberView, NodeHealth, NodeResources, NodeView, Page, Role, SandboxView, SignalBody,
    SnapshotView, SweepSummary, SweepView, TaskView, TimeoutBody, TokenCreate, TokenCreated,
    TokenView, TtySize, Written,
};

const fn param(name: &'static str, kind: ParamKind, doc: &'static str) -> Param {
    Param { name, kind, doc }
}

const LIMIT: Param = param(
    "limit",
    ParamKind::Integer(LIMIT_MAX as u64),
    "most items in the answer",
);
const CURSOR: Param = param(
    "cursor",
    ParamKind::Text,
    "`next` of the page before; opaque",
);
const LABEL: Param = param(
    "label",
    ParamKind::Text,
    "only items with this label, `key=value`; may be repeated",
);
const NAMESPACE: Param = param("namespace", ParamKind::Text, "only items of this namespace");
const FOLLOW: Param = param(
    "follow",
    ParamKind::Flag,
    "keep the answer open until nothing more can come",
);
const PATH: Param = param(
    "path",
    ParamKind::Text,
    "path in the sandbox; relative ones are beneath its working directory",
);
const OFFSET: Param = param(
    "offset",
    ParamKind::Integer(u64::MAX),
    "byte to start from; negative is not allowed",
);
const STREAM: Param = param(
    "stream",
    ParamKind::Choice(&["stdout", "stderr"]),
    "which output; standard output unless said",
);
const TASK_STATE: Param = param(
    "state",
    ParamKind::Choice(&[
        "QUEUED",
        "ASSIGNED",
        "RUNNING",
        "COMPLETED",
        "FAILED",
        "RETRYING",
        "CANCELLED",
    ]),
    "only tasks in this state",
);
const JOB_STATE: Param = param(
    "state",
    ParamKind::Choice(&[
        "QUEUED",
        "RUNNING",
        "COMPLETED",
        "FAILED",
        "PARTIALLY_COMPLETED",
        "CANCELLED",
    ]),
    "only those in this state",
);
const LIST: &[Param] = &[LIMIT, CURSOR, LABEL, NAMESPACE];
const LIST_JOBS: &[Param] = &[
    LIMIT,
    CURSOR,
    LABEL,
    NAMESPACE,
    JOB_STATE,
    param("name", ParamKind::Text, "only those with this name"),
];

const fn row(
    method: Method,
    op: Op,
    path: &'static str,
    tag: &'static str,
    summary: &'static str,
) -> Route {
    let role = match method {
        Method::Get => Role::Viewer,
        Method::Post | Method::Put | Method::Delete => Role::Submitter,
    };
    Route {
        op,
        method,
        path,
        access: Access::Token(role),
        summary,
        tag,
        query: &[],
        request: Payload::Empty,
        request_optional: false,
        body_max: BODY_MAX,
        success: 200,
        answer: Payload::Empty,
        or_answer: None,
    }
}

const fn get(op: Op, path: &'static str, tag: &'static str, summary: &'static str) -> Route {
    row(Method::Get, op, path, tag, summary)
}

const fn post(op: Op, path: &'static str, tag: &'static str, summary: &'static str) -> Route {
    row(Method::Post, op, path, tag, summary)
}

impl Route {
    const fn open(mut self) -> Self {
        self.access = Access::Open;
        self
    }

    const fn role(mut self, role: Role) -> Self {
        self.access = Access::Token(role);
        self
    }

    const fn query(mut self, query: &'static [Param]) -> Self {
        self.query = query;
        self
    }

    const fn takes(mut self, request: Payload) -> Self {
        self.request = request;
        self
    }

    const fn optional(mut self) -> Self {
        self.request_optional = true;
        self
    }

    const fn large(mut self) -> Self {
        self.body_max = BODY_MAX_LARGE;
        self
    }

    const fn answers(mut self, answer: Payload) -> Self {
        self.answer = answer;
        self
    }

    const fn or(mut self, answer: Payload) -> Self {
        self.or_answer = Some(answer);
        self
    }

    const fn created(mut self) -> Self {
        self.success = 201;
        self
    }
}

/// Every route there is.
pub const ROUTES: &[Route] = &[
    get(
        Op::Health,
        "/health",
        "server",
        "whether the server lives and is ready; 503 when it is not ready",
    )
    .open()
    .query(&[param(
        "always",
        ParamKind::Flag,
        "answer 200 even when it is not ready",
    )])
    .answers(json::<HealthView>()),
    get(Op::Metrics, "/metrics", "server", "figures for Prometheus")
        .open()
        .answers(Payload::Text("text/plain")),
    get(Op::OpenApi, "/openapi.json", "server", "this document")
        .open()
        .answers(Payload::AnyJson),
    get(
        Op::OpenApiVersioned,
        "/api/v1/openapi.json",
        "server",
        "this document",
    )
    .open()
    .answers(Payload::AnyJson),
    get(
        Op::ClusterGet,
        "/api/v1/cluster",
        "cluster",
        "the cluster in one answer",
    )
    .answers(json::<ClusterInfo>()),
    get(
        Op::ClusterMembers,
        "/api/v1/cluster/members",
        "cluster",
        "its servers",
    )
    .query(LIST)
    .answers(json::<Page<MemberView>>()),
    get(
        Op::ClusterResources,
        "/api/v1/cluster/resources",
        "cluster",
        "what the nodes have and what is given away",
    )
    .answers(json::<ClusterResources>()),
    get(Op::NodeList, "/api/v1/nodes", "nodes", "nodes, by name")
        .query(LIST)
        .answers(json::<Page<NodeView>>()),
    get(
        Op::NodeGet,
        "/api/v1/nodes/{id}",
        "nodes",
        "a node, by id or name",
    )
    .answers(json::<NodeView>()),
    get(
        Op::NodeResources,
        "/api/v1/nodes/{id}/resources",
        "nodes",
        "what a node has and what is given away",
    )
    .answers(json::<NodeResources>()),
    get(
        Op::NodeHealth,
        "/api/v1/nodes/{id}/health",
        "nodes",
        "whether a node can take work, and why not",
    )
    .answers(json::<NodeHealth>()),
    post(
        Op::NodeCordon,
        "/api/v1/nodes/{id}/cordon",
        "nodes",
        "place nothing new on a node",
    )
    .role(Role::Operator)
    .answers(json::<NodeView>()),
    post(
        Op::NodeUncordon,
        "/api/v1/nodes/{id}/uncordon",
        "nodes",
        "place work on a node again",
    )
    .role(Role::Operator)
    .answers(json::<NodeView>()),
    post(Op::JobSubmit, "/api/v1/jobs", "jobs", "submit a job")
        .large()
        .takes(Payload::Spec("job"))
        .created()
        .answers(json::<JobView>()),
    get(
        Op::JobList,
        "/api/v1/jobs",
        "jobs",
        "jobs and sweeps, newest first",
    )
    .query(LIST_JOBS)
    .answers(json::<Page<JobView>>()),
    get(
        Op::JobGet,
        "/api/v1/jobs/{id}",
        "jobs",
        "a job, by id, or the newest of a name",
    )
    .answers(json::<JobView>()),
    get(
        Op::JobTasks,
        "/api/v1/jobs/{id}/tasks",
        "jobs",
        "its tasks, by index",
    )
    .query(&[LIMIT, CURSOR, TASK_STATE])
    .answers(json::<Page<TaskView>>()),
    get(
        Op::JobResults,
        "/api/v1/jobs/{id}/results",
        "jobs",
        "its recorded results, one line each, by index",
    )
    .query(&[TASK_STATE, FOLLOW])
    .answers(lines::<TaskView>()),
    get(
        Op::JobLogs,
        "/api/v1/jobs/{id}/logs",
        "jobs",
        "the output of a task",
    )
    .query(&[
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
    post(Op::JobCancel, "/api/v1/jobs/{id}/cancel", "jobs", "end it").answers(json::<JobView>()),
    post(
        Op::JobRetry,
        "/api/v1/jobs/{id}/retry",
        "jobs",
        "run its failed and cancelled tasks again",
    )
    .answers(json::<JobView>()),
    post(
        Op::JobPause,
        "/api/v1/jobs/{id}/pause",
        "jobs",
        "place nothing new of it; what runs goes on",
    )
    .answers(json::<JobView>()),
    post(
        Op::JobResume,
        "/api/v1/jobs/{id}/resume",
        "jobs",
        "go on after a pause",
    )
    .answers(json::<JobView>()),
    post(
        Op::SweepSubmit,
        "/api/v1/sweeps",
        "sweeps",
        "submit a sweep",
    )
    .large()
    .takes(Payload::Spec("sweep"))
    .created()
    .answers(json::<SweepView>()),
    get(
        Op::SweepList,
        "/api/v1/sweeps",
        "sweeps",
        "sweeps, newest first",
    )
    .query(LIST_JOBS)
    .answers(json::<Page<SweepSummary>>()),
    get(
        Op::SweepGet,
        "/api/v1/sweeps/{id}",
        "sweeps",
        "a sweep with all its beams, by id, or the newest of a name",
    )
    .answers(json::<SweepView>()),
    get(
        Op::SweepResults,
        "/api/v1/sweeps/{id}/results",
        "sweeps",
        "its finished beams as a table",
    )
    .query(&[param(
        "format",
        ParamKind::Choice(&["json", "csv"]),
        "JSON unless said",
    )])
    .answers(json::<Vec<crate::BeamView>>())
    .or(Payload::Text("text/csv")),
    post(
        Op::SweepCancel,
        "/api/v1/sweeps/{id}/cancel",
        "sweeps",
        "end it",
    )
    .answers(json::<SweepView>()),
    post(
        Op::SweepPause,
        "/api/v1/sweeps/{id}/pause",
        "sweeps",
        "place nothing new of it; what runs goes on",
    )
    .answers(json::<SweepView>()),
    post(
        Op::SweepResume,
        "/api/v1/sweeps/{id}/resume",
        "sweeps",
        "go on after a pause",
    )
    .answers(json::<SweepView>()),
    post(
        Op::SandboxCreate,
        "/api/v1/sandboxes",
        "sandboxes",
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
        "sandboxes",
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
        "sandboxes",
        "a sandbox, by id or name",
    )
    .answers(json::<SandboxView>()),
    row(
        Method::Delete,
        Op::SandboxDelete,
        "/api/v1/sandboxes/{id}",
        "sandboxes",
        "end it and remove its files",
    )
    .answers(json::<SandboxView>()),
    post(
        Op::SandboxTimeout,
        "/api/v1/sandboxes/{id}/timeout",
        "sandboxes",
        "give it a new lease of life",
    )
    .takes(json::<TimeoutBody>())
    .answers(json::<SandboxView>()),
    get(
        Op::SandboxLogs,
        "/api/v1/sandboxes/{id}/logs",
        "sandboxes",
        "the output of its last exec, or of one",
    )
    .query(&[
        param("exec", ParamKind::Text, "which exec"),
        STREAM,
        OFFSET,
        FOLLOW,
    ])
    .answers(Payload::Raw),
    post(
        Op::ExecStart,
        "/api/v1/sandboxes/{id}/exec",
        "sandboxes",
        "run a program in it",
    )
    .query(&[param(
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
        "sandboxes",
        "what was run in it, oldest first",
    )
    .query(&[LIMIT, CURSOR])
    .answers(json::<Page<ExecView>>()),
    get(
        Op::ExecGet,
        "/api/v1/sandboxes/{id}/execs/{exec}",
        "sandboxes",
        "an exec",
    )
    .query(&[param(
        "wait",
        ParamKind::Integer(600),
        "wait up to so many seconds for its end",
    )])
    .answers(json::<ExecView>()),
    get(
        Op::ExecOutput,
        "/api/v1/sandboxes/{id}/execs/{exec}/output",
        "sandboxes",
        "its output",
    )
    .query(&[STREAM, OFFSET, FOLLOW])
    .answers(Payload::Raw),
    post(
        Op::ExecInput,
        "/api/v1/sandboxes/{id}/execs/{exec}/input",
        "sandboxes",
        "feed its standard input",
    )
    .query(&[param("eof", ParamKind::Flag, "close it afterwards")])
    .takes(Payload::Raw)
    .optional(),
    post(
        Op::ExecSignal,
        "/api/v1/sandboxes/{id}/execs/{exec}/signal",
        "sandboxes",
        "send it a signal",
    )
    .takes(json::<SignalBody>()),
    post(
        Op::ExecResize,
        "/api/v1/sandboxes/{id}/execs/{exec}/resize",
        "sandboxes",
        "change the size of its terminal",
    )
    .takes(json::<TtySize>()),
    post(
        Op::SandboxSignal,
        "/api/v1/sandboxes/{id}/signal",
        "sandboxes",
        "send a signal to every exec that runs in it",
    )
    .takes(json::<SignalBody>()),
    get(
        Op::FileGet,
        "/api/v1/sandboxes/{id}/files",
        "sandboxes",
        "a file as it is, a listing, or what a path is",
    )
    .role(Role::Submitter)
    .query(&[
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
        "sandboxes",
        "replace a file, or make a directory",
    )
    .large()
    .query(&[
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
        "sandboxes",
        "remove a file, or a directory with all in it",
    )
    .query(&[PATH]),
    get(
        Op::SnapshotList,
        "/api/v1/sandboxes/{id}/snapshots",
        "sandboxes",
        "saved file systems of it",
    )
    .query(&[LIMIT, CURSOR])
    .answers(json::<Page<SnapshotView>>()),
    post(
        Op::SnapshotCreate,
        "/api/v1/sandboxes/{id}/snapshots",
        "sandboxes",
        "save its file system",
    )
    .created()
    .answers(json::<SnapshotView>()),
    post(Op::TokenCreate, "/api/v1/tokens", "tokens", "make a token")
        .role(Role::Admin)
        .takes(json::<TokenCreate>())
        .created()
        .answers(json::<TokenCreated>()),
    get(
        Op::TokenList,
        "/api/v1/tokens",
        "tokens",
        "tokens, oldest first, without their secrets",
    )
    .role(Role::Admin)
    .query(&[LIMIT, CURSOR])
    .answers(json::<Page<TokenView>>()),
    row(
        Method::Delete,
        Op::TokenRevoke,
        "/api/v1/tokens/{id}",
        "tokens",
        "revoke a token",
    )
    .role(Role::Admin),
    get(
        Op::EventList,
        "/api/v1/events",
        "events",
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
            "follow",
            ParamKind::Flag,
            "server-sent events, the number as id; `Last-Event-ID` is honoured",
        ),
    ])
    .answers(json::<Page<EventView>>())
    .or(events::<EventView>()),
    get(
        Op::Explain,
        "/api/v1/explain/{id}",
        "explain",
        "why a job, task (JOB.INDEX), sandbox or node is as it is",
    )
    .answers(json::<ExplainView>()),
    post(
        Op::ImageLoad,
        "/api/v1/images",
        "images",
        "load an image from the file system of a node's host",
    )
    .role(Role::Operator)
    .takes(json::<ImageLoad>())
    .created()
    .answers(json::<ImageView>()),
    get(
        Op::ImageList,
        "/api/v1/images",
        "images",
        "images on the nodes that are connected",
    )
    .query(&[LIMIT, CURSOR])
    .answers(json::<Page<ImageView>>()),
];
