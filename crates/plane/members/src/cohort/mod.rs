//! Servers that found a cluster together: those that have a common token ask each other who is there, and when as many as are expected
//! see each other, exactly one of them founds the cluster and the others join it.
//!
//! **Why only one can found.** Each server promises itself to one set of servers at a time, and keeps that on disk before it tells
//! anybody. The one with the smallest id of a set may found it, and does so only after every other server of the set has said, since
//! that one asked, that it is promised to this very set. Two sets that have a server in common can't both be promised whole. Sets that
//! have none in common could each be founded; but every server named to any of a set has to answer and to be of it, so whoever names
//! each other never founds twice, and whoever hears of a cluster never founds at all.
//!
//! **Why it comes to an end.** A promise is bound to an epoch of its founder, a number that grows whenever that server gives a promise
//! up or makes one to another's set. Whoever hears of a greater one is free: what it was promised to can't be founded any more. So the
//! founder of a set that does not come about gives it up, and the others follow. When the founder itself is lost, nobody can know
//! whether it has founded; then people decide.

mod decide;
mod talk;

pub use decide::{Kept, Promise, Round, Step, Wait, decide};
pub use talk::{Cohort, Heard};
pub(crate) use talk::{answer, face};

use std::collections::BTreeSet;

use prism_identity::ClusterId;
use prism_types::{Name, NodeId};
use serde::{Deserialize, Serialize};

/// Most servers that found a cluster together.
pub const MOST: usize = 7;

/// What a server says of itself to others that have the common token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// It belongs to no cluster.
    Waits(Box<Waits>),
    /// It does.
    Belongs(Belongs),
}

/// A server that belongs to no cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// Which.
    pub id: NodeId,
    /// A number that is drawn at each start: two processes of one id show by it.
    pub boot: u64,
    /// Its name.
    pub name: Name,
    /// Where the others reach it, `HOST:PORT`.
    pub address: String,
    /// How many servers it expects, itself among them.
    pub expect: u16,
    /// See [`crate::cohort`].
    pub epoch: u64,
    /// What it is promised to.
    pub promise: Option<Promise>,
    /// Whom it saw when it looked last, itself among them.
    pub view: BTreeSet<NodeId>,
    /// Whether everybody whom it was told of answered then.
    pub whole: bool,
    /// Whom it was told of, `HOST:PORT`.
    pub told: Vec<String>,
}

/// A server of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belongs {
    /// Its cluster.
    pub cluster: ClusterId,
    /// The digest of the key of the cluster's root.
    pub pin: [u8; 32],
    /// Where members come to this server.
    pub address: String,
}
