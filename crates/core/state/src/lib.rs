//! The replicated state machine: commands come in, changes and actions come out.
//!
//! [`decide`] is a pure function of the state, a command and the time; [`State::apply`] is the only thing that changes the
//! state; [`encode_batch`] and [`State::load`] turn changes into keys and values and back. Nothing here does I/O, reads a
//! clock or draws a random number. The control loop (the single writer) calls `decide` and `apply`; everyone else reads views.

#![forbid(unsafe_code)]

mod apply;
mod audit;
mod backoff;
mod block;
mod cell;
mod change;
mod codec;
mod command;
mod decide;
mod fit;
mod invariant;
mod job;
mod key;
mod load;
mod member;
mod namespace;
mod node;
mod old;
mod ranges;
mod record;
mod rotation;
mod sight;
mod state;
mod sweep;
mod view;

pub use audit::{AUDIT_PREFIX, Actor, Audit, AuditCheck, Broken, Checked, Origin, audit_digest};
pub use block::{BLOCK, Block};
pub use cell::Cell;
pub use change::{Action, Change, Changes, Reply};
pub use codec::{
    Corrupt, KeyValue, decode_blob, decode_event, decode_meta, decode_results, encode_batch,
};
pub use command::{
    Command, IdempotencyKey, Join, METRIC_LINE_MAX, Metric, Placement, Plan, Proposal, RESULT_MAX,
    Registration, STDERR_TAIL_MAX, SandboxStatus, ServerSeen, Submission, TaskResult,
};
pub use decide::{
    BACKUP_PREFIXES, BackupOf, KEY_LEN_MAX, KEY_MEMORY, KEYS_MAX, RESTORED_FIRST, Restored,
    answered, decide, is_restorable, propose, restore,
};
pub use fit::misfit;
pub use job::Job;
pub use key::{blob_key, event_key, events_prefix, job_results_prefix, meta_key, results_prefix};
pub use member::{
    DeniedRecord, GossipRecord, JoinTokenRecord, MemberRecord, MemberRole, ServerRecord, Whom,
};
pub use namespace::{NamespaceRecord, Quota, Room, Usage};
pub use node::Node;
pub use ranges::Ranges;
pub use record::{
    BeamRecord, Best, Counts, Drain, EventRecord, JobRecord, KeyRecord, MetaRecord, NodeFacts,
    NodeRecord, OutputRef, Phase, ResultRecord, Role, SandboxRecord, Subject, SweepRecord,
    TokenRecord,
};
pub use rotation::{ROTATION_MAX, RootRecord, RotationRecord};
pub use sight::Sight;
pub use state::State;
pub use sweep::Sweep;
pub use view::{Desired, DesiredJob, DesiredSandbox, DesiredTask, TaskView};
