//! How a row of the table is written: what most rows have in common comes from the method and the noun, and the rest is said.

use prism_types::{Noun, Verb};

use crate::route::{Access, Method, Op, Param, ParamKind, Payload, Reach, Route};
use crate::{BODY_MAX, BODY_MAX_LARGE, LIMIT_MAX, Role};

pub(crate) const fn param(name: &'static str, kind: ParamKind, doc: &'static str) -> Param {
    Param { name, kind, doc }
}

pub(crate) const LIMIT: Param = param(
    "limit",
    ParamKind::Integer(LIMIT_MAX as u64),
    "most items in the answer",
);
pub(crate) const CURSOR: Param = param(
    "cursor",
    ParamKind::Text,
    "`next` of the page before; opaque",
);
pub(crate) const LABEL: Param = param(
    "label",
    ParamKind::Text,
    "only items with this label, `key=value`; may be repeated",
);
pub(crate) const NAMESPACE: Param =
    param("namespace", ParamKind::Text, "only items of this namespace");
/// Ids say themselves what they mean.
pub(crate) const WITHIN: Param = param(
    "namespace",
    ParamKind::Text,
    "look a name up in this namespace",
);
pub(crate) const FOLLOW: Param = param(
    "follow",
    ParamKind::Flag,
    "keep the answer open until nothing more can come",
);
pub(crate) const PATH: Param = param(
    "path",
    ParamKind::Text,
    "path in the sandbox; relative ones are beneath its working directory",
);
pub(crate) const OFFSET: Param = param(
    "offset",
    ParamKind::Integer(u64::MAX),
    "byte to start from; negative is not allowed",
);
pub(crate) const STREAM: Param = param(
    "stream",
    ParamKind::Choice(&["stdout", "stderr"]),
    "which output; standard output unless said",
);
pub(crate) const TASK_STATE: Param = param(
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
pub(crate) const JOB_STATE: Param = param(
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
pub(crate) const LIST: &[Param] = &[LIMIT, CURSOR, LABEL, NAMESPACE];
pub(crate) const LIST_JOBS: &[Param] = &[
    LIMIT,
    CURSOR,
    LABEL,
    NAMESPACE,
    JOB_STATE,
    param("name", ParamKind::Text, "only those with this name"),
];

pub(crate) const fn row(
    method: Method,
    op: Op,
    path: &'static str,
    noun: Noun,
    summary: &'static str,
) -> Route {
    let one = names_one(path);
    let (role, verb) = match method {
        Method::Get => (Role::Viewer, Verb::Read),
        Method::Post if !one => (Role::Submitter, Verb::Create),
        Method::Post | Method::Put => (Role::Submitter, Verb::Change),
        Method::Delete => (Role::Submitter, Verb::Delete),
    };
    let (reach, query): (_, &[Param]) = match noun {
        Noun::Jobs | Noun::Sweeps | Noun::Sandboxes | Noun::Explain if one => {
            (Reach::Namespaced, &[WITHIN])
        }
        Noun::Jobs | Noun::Sweeps | Noun::Sandboxes | Noun::Explain => (Reach::Namespaced, &[]),
        Noun::Tokens | Noun::Events | Noun::Namespaces => (Reach::Namespaced, &[]),
        Noun::Members | Noun::JoinTokens => (Reach::Cluster, &[]),
        Noun::Server | Noun::Cluster | Noun::Nodes | Noun::Images => match method {
            Method::Get => (Reach::Shared, &[]),
            Method::Post | Method::Put | Method::Delete => (Reach::Cluster, &[]),
        },
    };
    Route {
        op,
        method,
        path,
        access: Access::Token(role),
        noun,
        verb,
        reach,
        summary,
        query,
        request: Payload::Empty,
        request_optional: false,
        body_max: BODY_MAX,
        success: 200,
        answer: Payload::Empty,
        or_answer: None,
    }
}

/// Whether a path names one thing.
const fn names_one(path: &str) -> bool {
    let bytes = path.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] == b'{' {
            return true;
        }
        i += 1;
    }
    false
}

pub(crate) const fn get(op: Op, path: &'static str, noun: Noun, summary: &'static str) -> Route {
    row(Method::Get, op, path, noun, summary)
}

pub(crate) const fn post(op: Op, path: &'static str, noun: Noun, summary: &'static str) -> Route {
    row(Method::Post, op, path, noun, summary)
}

impl Route {
    pub(crate) const fn open(mut self) -> Self {
        self.access = Access::Open;
        self
    }

    pub(crate) const fn role(mut self, role: Role) -> Self {
        self.access = Access::Token(role);
        self
    }

    pub(crate) const fn verb(mut self, verb: Verb) -> Self {
        self.verb = verb;
        self
    }

    pub(crate) const fn everywhere(mut self) -> Self {
        self.reach = Reach::Cluster;
        self
    }

    pub(crate) const fn query(mut self, query: &'static [Param]) -> Self {
        self.query = query;
        self
    }

    pub(crate) const fn takes(mut self, request: Payload) -> Self {
        self.request = request;
        self
    }

    pub(crate) const fn optional(mut self) -> Self {
        self.request_optional = true;
        self
    }

    pub(crate) const fn large(mut self) -> Self {
        self.body_max = BODY_MAX_LARGE;
        self
    }

    pub(crate) const fn answers(mut self, answer: Payload) -> Self {
        self.answer = answer;
        self
    }

    pub(crate) const fn or(mut self, answer: Payload) -> Self {
        self.or_answer = Some(answer);
        self
    }

    pub(crate) const fn created(mut self) -> Self {
        self.success = 201;
        self
    }
}
