//! Whether a history is linearizable: whether each call can be given a moment between its begin and its end so that, in the order of
//! those moments, every answer is the one that a single object would have given.
//!
//! The search is that of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993) as Lowe made it fast ("Testing for
//! linearizability", 2017): calls that are given their moment are lifted out of a list of begins and ends, and what was tried once, the
//! set of calls and the state after them, is not tried again. A call of which nobody knows what became of it has no end: it may count at
//! any later moment, or never.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// What one object does.
pub trait Model {
    /// What it holds.
    type State: Clone + Eq + Hash + Debug;
    /// A call with its answer.
    type Call: Debug;

    /// What it holds at first.
    fn start(&self) -> Self::State;

    /// What it holds after a call, if it can have given that answer.
    fn step(&self, state: &Self::State, call: &Self::Call) -> Option<Self::State>;
}

/// A call between two moments, in nanoseconds of one clock that never goes back.
#[derive(Clone, Debug)]
pub struct Span<C> {
    /// What was asked for, and answered.
    pub call: C,
    /// When it began.
    pub from: u64,
    /// When its answer was there; `None` when it is not known whether it counted.
    pub to: Option<u64>,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none. At most so many calls can be put in order, and then this one, by its place in the history, has no place.
    Not {
        /// Calls of the longest order.
        placed: usize,
        /// The first that ended and found no place then.
        stuck: usize,
    },
    /// The search was given up after so many steps.
    Undecided,
}

/// A begin or an end in the list.
#[derive(Clone, Copy)]
struct Entry {
    call: usize,
    /// The place of its end; `None` when this is one.
    end: Option<usize>,
    before: usize,
    after: usize,
}

/// The head of the list, and what stands behind its last.
const HEAD: usize = 0;
const NONE: usize = usize::MAX;

/// Begins and ends in order of time; calls can be lifted out and put back.
struct List(Vec<Entry>);

impl List {
    fn new<C>(history: &[Span<C>]) -> Self {
        let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(history.len() * 2);
        for (at, span) in history.iter().enumerate() {
            moments.push((span.from, false, at));
            // A begin at the very moment of an end is before it: that forbids less.
            moments.push((span.to.unwrap_or(u64::MAX), true, at));
        }
        moments.sort_unstable();
        let mut entries = vec![Entry {
            call: NONE,
            end: None,
            before: NONE,
            after: NONE,
        }];
        let mut begins = vec![NONE; history.len()];
        for (_, is_end, call) in moments {
            let at = entries.len();
            entries[at - 1].after = at;
            entries.push(Entry {
                call,
                end: None,
                before: at - 1,
                after: NONE,
            });
            if is_end {
                entries[begins[call]].end = Some(at);
            } else {
                begins[call] = at;
            }
        }
        Self(entries)
    }

    fn first(&self) -> usize {
        self.0[HEAD].after
    }

    fn take(&mut self, at: usize) {
        let Entry { before, after, .. } = self.0[at];
        self.0[before].after = after;
        if after != NONE {
            self.0[after].before = before;
        }
    }

    fn put_back(&mut self, at: usize) {
        let Entry { before, after, .. } = self.0[at];
        self.0[before].after = at;
        if after != NONE {
            self.0[after].before = at;
        }
    }

    /// Lifts a call out, begin and end.
    fn lift(&mut self, begin: usize) {
        self.take(begin);
        if let Some(end) = self.0[begin].end {
            self.take(end);
        }
    }

    fn unlift(&mut self, begin: usize) {
        if let Some(end) = self.0[begin].end {
            self.put_back(end);
        }
        self.put_back(begin);
    }
}

/// A set of calls.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, at: usize, on: bool) {
        let bit = 1 << (at % 64);
        match on {
            true => self.0[at / 64] |= bit,
            false => self.0[at / 64] &= !bit,
        }
    }
}

/// Searches for an order, with at most so many steps.
pub fn check<M: Model>(model: &M, history: &[Span<M::Call>], steps: u64) -> Verdict {
    let mut list = List::new(history);
    let mut placed = Bits(vec![0; history.len().div_ceil(64)]);
    let mut seen = HashSet::new();
    let mut done: Vec<(usize, M::State)> = Vec::new();
    let mut state = model.start();
    let mut at = list.first();
    // Calls with an end that have no moment yet: when there are none, the rest may never have counted.
    let mut owed = history.iter().filter(|s| s.to.is_some()).count();
    let mut longest = (0, NONE);
    let mut left = steps;
    while owed > 0 {
        left -= 1;
        if left == 0 {
            return Verdict::Undecided;
        }
        let Entry {
            call, end, after, ..
        } = list.0[at];
        let ends = usize::from(history[call].to.is_some());
        if end.is_some() {
            let next = model.step(&state, &history[call].call);
            placed.set(call, true);
            match next.filter(|next| seen.insert((placed.clone(), next.clone()))) {
                Some(next) => {
                    done.push((at, std::mem::replace(&mut state, next)));
                    list.lift(at);
                    owed -= ends;
                    at = list.first();
                }
                None => {
                    placed.set(call, false);
                    at = after;
                }
            }
            continue;
        }
        if done.len() >= longest.0 || longest.1 == NONE {
            longest = (done.len(), call);
        }
        // This call is over, so nothing after it may come before it: what was placed last was wrong.
        let Some((begin, before)) = done.pop() else {
            return Verdict::Not {
                placed: longest.0,
                stuck: longest.1,
            };
        };
        state = before;
        let call = list.0[begin].call;
        placed.set(call, false);
        owed += usize::from(history[call].to.is_some());
        list.unlift(begin);
        at = list.0[begin].after;
    }
    Verdict::Linearizable
}
