//! A namespace as a register: it is there or not, and its quota holds a number. Each change is a command in the store's log; each read is
//! answered by the leader.

use std::fmt;

use crate::linear::Model;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// It is to hold this, whether it was there or not.
    Put(u32),
    /// It is to be made, and to hold this; refused when it is there.
    Create(u32),
    /// It is to hold this; refused when it is not there.
    Set(u32),
    /// It is to go; refused when it is not there.
    Remove,
    /// What it holds; refused when it is not there.
    Get,
}

/// What is known of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// It holds this.
    Holds(u32),
    /// It was refused, because it is there, or because it is not.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// A call: what was asked for, and answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// What was asked for.
    pub ask: Ask,
    /// What is known of the answer.
    pub answer: Answer,
}

impl Ask {
    /// Its kind, for counting.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Put(_) => "put",
            Self::Create(_) => "create",
            Self::Set(_) => "set",
            Self::Remove => "remove",
            Self::Get => "get",
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} -> {:?}", self.ask, self.answer)
    }
}

/// The register.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register;

impl Model for Register {
    type State = Option<u32>;
    type Call = Call;

    fn start(&self) -> Option<u32> {
        None
    }

    fn step(&self, state: &Option<u32>, call: &Call) -> Option<Option<u32>> {
        // What it does by itself, and whether that is a refusal.
        let (next, refused) = match (call.ask, *state) {
            (Ask::Put(v), _) | (Ask::Create(v), None) | (Ask::Set(v), Some(_)) => (Some(v), false),
            (Ask::Create(_), Some(_)) => (*state, true),
            (Ask::Remove, Some(_)) => (None, false),
            (Ask::Set(_) | Ask::Remove | Ask::Get, None) => (None, true),
            (Ask::Get, Some(_)) => (*state, false),
        };
        let possible = match call.answer {
            Answer::Done => !refused,
            Answer::Holds(v) => call.ask == Ask::Get && *state == Some(v),
            Answer::Refused => refused,
            Answer::Unknown => true,
        };
        possible.then_some(next)
    }
}
