//! Audit: who changed what, from where, as events that are chained, so that one that was altered or taken out is found.
//!
//! Each audit event carries the SHA-256 of the stored bytes of the one before; the last one's is in `meta`. It is made in the
//! same commit as the change. Never holds a secret: operations, ids and names only.

use std::sync::Arc;

use prism_types::{Name, Outcome, TokenId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::codec::{Corrupt, decode_event};
use crate::{Command, MetaRecord, State, Subject, Whom};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    /// Whoever holds a token.
    Token {
        /// Its public half.
        id: TokenId,
        /// Its name.
        name: Arc<str>,
    },
    /// Whoever has a certificate, by its name.
    Certificate(Arc<str>),
}

/// Where a change comes from: kept with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Who.
    pub actor: Actor,
    /// The operation, such as `job_submit`.
    pub op: Arc<str>,
    /// Remote address.
    pub from: Arc<str>,
    /// Id of the request, as in the server's log.
    pub request_id: Arc<str>,
}

/// The part of an event that makes it an audit event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Who, how and from where.
    pub origin: Origin,
    /// Whether it was carried out: `applied` or `unknown`. What was refused is not kept.
    pub outcome: Outcome,
    /// SHA-256 of the stored bytes of the audit event before; zeros for the first.
    pub prev: [u8; 32],
}

/// What an audit event's kind begins with.
pub const AUDIT_PREFIX: &str = "audit.";

/// The digest by which the next audit event names a stored one.
pub fn audit_digest(stored: &[u8]) -> [u8; 32] {
    Sha256::digest(stored).into()
}

/// What a look at the whole chain found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Audit events that were looked at.
    pub events: u64,
    /// Numbers of the first and the last of them.
    pub range: Option<(u64, u64)>,
    /// Digest of the last one: keep it elsewhere to find out later whether the whole log was replaced.
    pub head: [u8; 32],
    /// The first thing that does not hold.
    pub broken: Option<Broken>,
}

/// Where the chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Number of the event.
    pub seq: u64,
    /// In what way, for people.
    pub why: String,
}

/// Looks at stored events, one after the other and in order, oldest first.
#[derive(Clone, Debug)]
pub struct AuditCheck {
    meta: MetaRecord,
    found: Checked,
    next: u64,
}

impl AuditCheck {
    /// Begins, with what `meta` says of the log.
    pub fn new(meta: MetaRecord) -> Self {
        Self {
            next: meta.events_first,
            meta,
            found: Checked::default(),
        }
    }

    /// Takes the next stored event.
    ///
    /// # Errors
    /// When it cannot be read at all.
    pub fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Corrupt> {
        let event = decode_event(key, value)?;
        if event.seq != self.next || key != crate::event_key(event.seq).as_bytes() {
            self.broken(event.seq, "events before it are missing");
        }
        self.next = event.seq + 1;
        let Some(audit) = &event.audit else {
            return Ok(());
        };
        // What came before the first one kept was removed with age.
        if self.found.events > 0 && audit.prev != self.found.head {
            self.broken(
                event.seq,
                "it does not follow from the audit event before it: one of them was altered",
            );
        }
        let first = self.found.range.map_or(event.seq, |(first, _)| first);
        self.found.range = Some((first, event.seq));
        self.found.events += 1;
        self.found.head = audit_digest(value);
        Ok(())
    }

    fn broken(&mut self, seq: u64, why: &str) {
        let why = why.to_owned();
        self.found.broken.get_or_insert(Broken { seq, why });
    }

    /// What was found, held against what `meta` says of the end.
    pub fn finish(mut self) -> Checked {
        if self.next != self.meta.events_next {
            self.broken(self.next, "events at the end are missing");
        }
        if self.found.events > 0 && self.found.head != self.meta.audit_head {
            let last = self.found.range.map_or(0, |(_, last)| last);
            self.broken(last, "it is not the last audit event that was written");
        }
        self.found
    }
}

/// What a command is about and in which namespace, for its audit event.
pub(crate) fn about(state: &State, command: &Command) -> (Subject, Option<Name>) {
    let job = |id| {
        let job = state.job(id);
        (Subject::Job(id), job.map(|j| j.spec().namespace.clone()))
    };
    let sandbox = |id| {
        let record = state.sandbox(id);
        let namespace = record.map(|s| s.spec.namespace.clone());
        (Subject::Sandbox(id), namespace)
    };
    match command {
        Command::SubmitJob(s) => (Subject::Job(s.id), Some(s.spec.namespace.clone())),
        Command::CancelJob { id }
        | Command::PauseJob { id }
        | Command::ResumeJob { id }
        | Command::RetryJob { id } => job(*id),
        Command::CreateSandbox { id, spec } => {
            (Subject::Sandbox(*id), Some(spec.namespace.clone()))
        }
        Command::DeleteSandbox { id } | Command::SetSandboxTimeout { id, .. } => sandbox(*id),
        Command::Cordon { id, .. }
        | Command::Drain { id, .. }
        | Command::RemoveNode { id }
        | Command::RemoveMember { id } => (Subject::Node(*id), None),
        Command::CreateToken { id, .. }
        | Command::RevokeToken { id }
        | Command::RevokeJoinToken { id } => (Subject::Token(*id), None),
        Command::CreateJoinToken(new) => (Subject::Token(new.id), None),
        Command::PutNamespace { name, .. } | Command::RemoveNamespace { name } => {
            (Subject::Namespace(name.clone()), Some(name.clone()))
        }
        Command::Deny { whom, .. } | Command::Allow { whom } => match whom {
            Whom::Node(id) => (Subject::Node(*id), None),
            Whom::Certificate(_) => (Subject::Cluster, None),
        },
        Command::NoteServer { id, .. } | Command::RetireServer { id, .. } => {
            (Subject::Node(*id), None)
        }
        Command::Note { subject, .. } => match subject {
            Subject::Sandbox(id) => sandbox(*id),
            Subject::Job(id) => job(*id),
            other => (other.clone(), None),
        },
        // Not asked for through the API.
        _ => (Subject::Cluster, None),
    }
}
