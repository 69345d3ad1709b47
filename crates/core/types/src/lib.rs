//! Words that every crate shares: ids, quantities, names, time as a value, states and reasons.
//!
//! Nothing here decides, computes or touches the world; a type moves in only at its second user.

#![forbid(unsafe_code)]

mod fault;
mod id;
mod lease;
mod name;
mod net;
mod quantity;
mod reason;
mod report;
mod scope;
mod states;
mod time;

pub use fault::{Fault, codes};
pub use id::{Fence, Id, IdError, JobId, NodeId, NodeNo, RunId, SandboxId, TaskRef, TokenId};
pub use lease::{LEASE, LEASE_GRACE, LEASE_KILL, LEASE_MARGIN, LEASE_WAIT};
pub use name::{Name, NameError, nearest};
pub use net::{IpRange, IpRangeError};
pub use quantity::{Bytes, MilliCpu, QuantityError, Resources};
pub use reason::{Outcome, Reason, Rejection};
pub use report::{ExitStatus, RunReport, StopCause};
pub use scope::{Noun, Scope, Verb};
pub use states::{JobState, NodeState, SandboxState, TaskState};
pub use time::{Millis, TimeMs, parse_duration};

/// String labels on nodes, jobs and sandboxes, in stable order.
pub type Labels = std::collections::BTreeMap<String, String>;
