//! What a server does next, as a function of what it has kept and of what it heard when it asked everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use prism_identity::ClusterId;
use prism_types::{Name, NodeId};
use serde::{Deserialize, Serialize};

use super::{Belongs, Waits};

/// To which set of servers one is promised, and in which epoch of its founder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The servers; the one with the smallest id founds.
    pub set: BTreeSet<NodeId>,
    /// The founder's epoch.
    pub epoch: u64,
}

impl Promise {
    fn founder(&self) -> Option<NodeId> {
        self.set.first().copied()
    }
}

/// What a server keeps on disk, before it tells anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Grows when a promise is given up, or made to a set that another founds.
    pub epoch: u64,
    /// What it is promised to.
    pub promise: Option<Promise>,
    /// Where the others of that set were: one of them may have founded since.
    #[serde(default)]
    pub peers: Vec<String>,
    /// Whether it founds: from then on nothing else is decided.
    pub founds: bool,
}

/// What came of asking everybody once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Others that belong to no cluster.
    pub waits: BTreeMap<NodeId, Waits>,
    /// Servers of a cluster that have the common token.
    pub belongs: Vec<Belongs>,
    /// Servers of a cluster that do not, and where.
    pub strangers: Vec<(String, ClusterId)>,
    /// Who did not answer, and why.
    pub silent: Vec<(String, String)>,
    /// A server of which there are two processes.
    pub twice: Option<NodeId>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask again.
    Wait(Wait),
    /// Keep this promise.
    Promise(Promise),
    /// Give the promise up.
    Release,
    /// Found the cluster.
    Found,
    /// Join this one.
    Join(Belongs),
    /// There is a cluster that this server can't join by itself.
    Stop(Wait),
}

/// Why it has to wait, or can't go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Somebody whom it was told of does not answer: there may be a cluster.
    Silent(String, String),
    /// Too few.
    Few(usize, usize),
    /// Too many.
    Many(usize, usize),
    /// Another expects another number.
    Expects(Name, u16),
    /// Two have the same name.
    SameName(Name),
    /// There are two processes of one server.
    Twice(NodeId),
    /// Another does not see the same servers yet.
    Differs(Name),
    /// Promises of others are still missing.
    Promises(Vec<Name>),
    /// The founder has the word.
    Founder(NodeId, bool),
    /// A server of a cluster without the common token.
    Stranger(String, ClusterId),
    /// Servers of more than one cluster.
    Clusters(ClusterId, ClusterId),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(at, why) => write!(
                f,
                "{at} was named and does not answer ({why}); it may belong to a cluster, so none is founded before it does"
            ),
            Self::Few(are, expected) => {
                write!(f, "{are} of {expected} servers that are expected are here")
            }
            Self::Many(are, expected) => write!(
                f,
                "{are} servers with this token are here, and {expected} are expected; stop those that are too many"
            ),
            Self::Expects(name, other) => {
                write!(
                    f,
                    "{name} expects {other} servers; start all with the same --bootstrap-expect"
                )
            }
            Self::SameName(name) => {
                write!(f, "two servers are named {name}; give each its own --name")
            }
            Self::Twice(id) => write!(
                f,
                "two processes say that they are server {id}; a copied data directory must not be started: stop one, and empty its directory"
            ),
            Self::Differs(name) => write!(f, "{name} does not see the same servers yet"),
            Self::Promises(names) => {
                let names: Vec<&str> = names.iter().map(Name::as_str).collect();
                write!(f, "{} have to agree yet", names.join(" and "))
            }
            Self::Founder(id, true) => write!(f, "server {id} is about to found the cluster"),
            Self::Founder(id, false) => write!(
                f,
                "server {id} was to found the cluster and does not answer; if it is lost for good and has founded none, start all again with empty directories"
            ),
            Self::Stranger(at, cluster) => write!(
                f,
                "{at} is a server of cluster {cluster} already and was started without the common token, so no other cluster is founded"
            ),
            Self::Clusters(a, b) => write!(
                f,
                "the servers that were named are of two clusters, {a} and {b}; name those of one"
            ),
        }
    }
}

impl Kept {
    /// What is kept after a step of this server, which followed from this round.
    pub fn after(&self, me: NodeId, step: &Step, round: &Round) -> Self {
        let mut next = self.clone();
        match step {
            Step::Promise(promise) => {
                if promise.founder() != Some(me) {
                    next.epoch += 1;
                }
                next.promise = Some(promise.clone());
                next.peers = round.waits.values().map(|w| w.address.clone()).collect();
            }
            Step::Release => {
                next.epoch += 1;
                next.promise = None;
            }
            Step::Found => next.founds = true,
            Step::Wait(_) | Step::Join(_) | Step::Stop(_) => {}
        }
        next
    }
}

/// What to do next. `me` is what this server says of itself, with what it has kept; `stalled` says that its promise is old and has not
/// come about.
pub fn decide(me: &Waits, kept: &Kept, round: &Round, stalled: bool) -> Step {
    if kept.founds {
        return Step::Found;
    }
    if let Some(first) = round.belongs.first() {
        let other = round.belongs.iter().find(|b| b.cluster != first.cluster);
        return match other {
            None => Step::Join(first.clone()),
            Some(other) => Step::Stop(Wait::Clusters(first.cluster, other.cluster)),
        };
    }
    if let Some((at, cluster)) = round.strangers.first() {
        return Step::Stop(Wait::Stranger(at.clone(), *cluster));
    }
    let Some(promise) = &kept.promise else {
        return match agreed(me, round) {
            Ok(set) => promised(me, kept, round, set),
            Err(why) => Step::Wait(why),
        };
    };
    let Some(founder) = promise.founder() else {
        return Step::Release;
    };
    if founder != me.id {
        return match round.waits.get(&founder) {
            Some(founder) if founder.epoch > promise.epoch => Step::Release,
            heard => Step::Wait(Wait::Founder(founder, heard.is_some())),
        };
    }
    let lacks = |id: &NodeId| {
        let said = round.waits.get(id);
        *id != me.id && said.is_none_or(|w| w.promise.as_ref() != Some(promise))
    };
    let lacking: Vec<NodeId> = promise.set.iter().copied().filter(lacks).collect();
    match agreed(me, round) {
        Ok(set) if set == promise.set && promise.epoch == kept.epoch && lacking.is_empty() => {
            Step::Found
        }
        _ if stalled => Step::Release,
        Ok(set) if set == promise.set => {
            let names = lacking.iter().filter_map(|id| round.waits.get(id));
            Step::Wait(Wait::Promises(names.map(|w| w.name.clone()).collect()))
        }
        Ok(_) => Step::Wait(Wait::Promises(Vec::new())),
        Err(why) => Step::Wait(why),
    }
}

/// The promise to a set on which all agree, unless its founder is promised elsewhere.
fn promised(me: &Waits, kept: &Kept, round: &Round, set: BTreeSet<NodeId>) -> Step {
    let Some(founder) = set.first().copied() else {
        return Step::Wait(Wait::Few(0, usize::from(me.expect)));
    };
    let (epoch, elsewhere) = match round.waits.get(&founder) {
        _ if founder == me.id => (kept.epoch, false),
        Some(w) => (w.epoch, w.promise.as_ref().is_some_and(|p| p.set != set)),
        None => return Step::Wait(Wait::Founder(founder, false)),
    };
    if elsewhere {
        return Step::Wait(Wait::Founder(founder, true));
    }
    Step::Promise(Promise { set, epoch })
}

/// The servers, if all that are expected see each other and nobody else, and everybody who was named answered.
fn agreed(me: &Waits, round: &Round) -> Result<BTreeSet<NodeId>, Wait> {
    if let Some(id) = round.twice {
        return Err(Wait::Twice(id));
    }
    let expected = usize::from(me.expect);
    let others = || round.waits.values();
    let mut set: BTreeSet<NodeId> = others().map(|w| w.id).collect();
    set.insert(me.id);
    if let Some(other) = others().find(|w| w.expect != me.expect) {
        return Err(Wait::Expects(other.name.clone(), other.expect));
    }
    if set.len() > expected {
        return Err(Wait::Many(set.len(), expected));
    }
    if let Some((at, why)) = round.silent.first() {
        return Err(Wait::Silent(at.clone(), why.clone()));
    }
    if set.len() < expected {
        return Err(Wait::Few(set.len(), expected));
    }
    let mut names: BTreeSet<&Name> = BTreeSet::from([&me.name]);
    if let Some(same) = others().find(|w| !names.insert(&w.name)) {
        return Err(Wait::SameName(same.name.clone()));
    }
    match others().find(|w| !w.whole || w.view != set) {
        Some(other) => Err(Wait::Differs(other.name.clone())),
        None => Ok(set),
    }
}
