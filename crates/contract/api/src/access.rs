//! Tokens, events, images, health and explanations on the wire.

use prism_types::{Name, Noun, Outcome, Reason, TimeMs, TokenId, Verb};
use serde_json::Value;

words! {
    /// What a token may do; each role may do what the ones before it may.
    pub enum Role {
        /// Look.
        Viewer = "viewer",
        /// Run jobs, sweeps and sandboxes.
        Submitter = "submitter",
        /// Run the machines: nodes, images.
        Operator = "operator",
        /// Hand out tokens.
        Admin = "admin",
    }
}

wire! {
    /// A token to make.
    #[request]
    pub struct TokenCreate {
        /// What it is for.
        pub name: String,
        /// What it may do.
        pub role: Role,
        /// Only in these namespaces; in all when left out.
        pub namespaces: Option<Vec<Name>>,
        /// Only to these things; to all when left out.
        pub resources: Option<Vec<Noun>>,
        /// Only so; in every way that the role allows when left out.
        pub verbs: Option<Vec<Verb>>,
        /// How long it is good, such as `90d`; for ever when left out.
        pub expires_in: Option<String>,
    }

    /// A token, without its secret.
    pub struct TokenView {
        /// Its id.
        pub id: TokenId,
        /// What it is for.
        pub name: String,
        /// What it may do.
        pub role: Role,
        /// Only in these namespaces; `null`: in all.
        pub namespaces: Option<Vec<Name>>,
        /// Only to these things; `null`: to all.
        pub resources: Option<Vec<Noun>>,
        /// Only so; `null`: in every way that the role allows.
        pub verbs: Option<Vec<Verb>>,
        /// When it was made.
        pub created: TimeMs,
        /// Until when it is good; `null`: for ever.
        pub expires: Option<TimeMs>,
    }

    /// A new token; the only time that its text is shown.
    pub struct TokenCreated {
        /// Its id.
        pub id: TokenId,
        /// The text to send as `Authorization: Bearer`; kept nowhere. `null` when this answers a repeated request.
        pub token: Option<String>,
        /// What it is for.
        pub name: String,
        /// What it may do.
        pub role: Role,
        /// Only in these namespaces; `null`: in all.
        pub namespaces: Option<Vec<Name>>,
        /// Only to these things; `null`: to all.
        pub resources: Option<Vec<Noun>>,
        /// Only so; `null`: in every way that the role allows.
        pub verbs: Option<Vec<Verb>>,
        /// Until when it is good; `null`: for ever.
        pub expires: Option<TimeMs>,
    }

    /// Something that happened.
    pub struct EventView {
        /// Its number; grows without end. Pass it as `since` to go on after it.
        pub seq: u64,
        /// When.
        pub at: TimeMs,
        /// What, such as `job.completed`.
        pub kind: String,
        /// To what: an id.
        pub subject: String,
        /// For people.
        pub message: String,
        /// Why, if it went wrong.
        pub reason: Option<Reason>,
        /// In which namespace, if it belongs to one.
        pub namespace: Option<Name>,
        /// Who did it, of an audit event.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub audit: Option<AuditView>,
    }

    /// Who changed something through the API, and from where.
    pub struct AuditView {
        /// Id of the token, if it was one.
        pub token: Option<TokenId>,
        /// Name of the token or of the certificate.
        pub actor: String,
        /// What was asked for, as in the table of routes.
        pub op: String,
        /// Remote address.
        pub from: String,
        /// Id of the request, as in the server's log.
        pub request_id: String,
        /// Whether it was carried out; what was refused is not kept.
        pub outcome: Outcome,
        /// SHA-256 of the audit event before, as it is stored, in hexadecimal digits.
        pub prev: String,
    }

    /// What a look through all audit events found.
    pub struct AuditCheck {
        /// Whether each follows from the one before, and none is missing.
        pub ok: bool,
        /// How many there are; the oldest are removed with age.
        pub events: u64,
        /// Number of the first.
        pub first: Option<u64>,
        /// Number of the last.
        pub last: Option<u64>,
        /// SHA-256 of the last; keep it elsewhere to know later that the log was not replaced as a whole.
        pub head: String,
        /// Number of the event at which it breaks.
        pub broken_at: Option<u64>,
        /// In what way.
        pub why: Option<String>,
    }

    /// An image to load from the file system of a node's host.
    #[request]
    pub struct ImageLoad {
        /// An OCI archive or layout directory, absolute.
        pub path: String,
        /// What to call it; as the archive says unless said.
        pub name: Option<String>,
        /// Which node, by name or id; all that are connected unless said.
        pub node: Option<String>,
    }

    /// An image on the nodes.
    pub struct ImageView {
        /// Its name.
        pub name: String,
        /// Nodes that have it.
        pub nodes: Vec<String>,
    }

    /// Whether this server lives and is ready.
    pub struct HealthView {
        /// It answers.
        pub live: bool,
        /// It can take work.
        pub ready: bool,
        /// Why it is not ready, one sentence each.
        pub reasons: Vec<String>,
        /// Prism's version.
        pub version: String,
    }

    /// Why a thing is as it is.
    pub struct ExplainView {
        /// What was asked about.
        pub subject: String,
        /// `job`, `task`, `sandbox`, `node` or `code`.
        pub kind: String,
        /// Its state.
        pub status: String,
        /// One sentence: why.
        pub summary: String,
        /// What to do next; may be empty.
        pub advice: String,
        /// Each node and why it can or cannot take it.
        pub candidates: Vec<CandidateView>,
        /// More, depending on the kind; an object.
        pub details: Value,
    }

    /// A node as a place for something.
    pub struct CandidateView {
        /// Its name.
        pub node: String,
        /// Whether it can take it now.
        pub fits: bool,
        /// Its score, lower is better.
        pub score: Option<f64>,
        /// Why not, with the numbers.
        pub reason: Option<String>,
    }
}

impl Role {
    /// Whether it may do what `needed` may.
    pub fn satisfies(self, needed: Self) -> bool {
        self >= needed
    }
}
