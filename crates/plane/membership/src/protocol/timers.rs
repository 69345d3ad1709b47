//! What is due when, on a clock that stands still while this node is held up.
//!
//! A process that was stopped, or got no processor, finds all its timers due at once when it goes on, and its questions unanswered: it
//! would accuse every member that it had asked. So a timer that is found late moves the clock back by as much: every round goes on
//! where it was, with the time that it had left. (The idea is Lifeguard's, arxiv.org/abs/1707.00788: who is slow doubts itself first.)

use std::collections::BTreeMap;
use std::time::Duration;

use foca::Timer;

use crate::protocol::peer::Peer;

/// More than the detector ever has at once; further ones are dropped, and it begins anew at the next change of members.
const MOST: usize = 8192;

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    /// Of the failure detector.
    Swim(Timer<Peer>),
    /// Compare profiles with one member.
    Sync,
    /// Look for those that are not reached.
    Seek,
    /// Forget those that are long gone.
    Sweep,
}

#[derive(Debug)]
pub(crate) struct Timers {
    due: BTreeMap<(Duration, u8, u64), Job>,
    /// Time that this node was held up for, in all.
    held: Duration,
    tolerance: Duration,
    token: u8,
    count: u64,
}

impl Timers {
    /// `tolerance`: lateness that is taken for normal.
    pub(crate) fn new(tolerance: Duration) -> Self {
        Self {
            due: BTreeMap::new(),
            held: Duration::ZERO,
            tolerance,
            token: 0,
            count: 0,
        }
    }

    pub(crate) fn add(&mut self, now: Duration, after: Duration, job: Job) {
        if let Job::Swim(timer) = &job {
            let Some(token) = token(timer) else {
                // Those that are gone are forgotten by the sweep.
                return;
            };
            if token != self.token {
                self.token = token;
                // Of an earlier life of the detector: it would ignore them.
                self.due
                    .retain(|_, job| !matches!(job, Job::Swim(t) if self::token(t) != Some(token)));
            }
        }
        if self.due.len() >= MOST {
            return;
        }
        self.count += 1;
        let at = now.saturating_sub(self.held) + after;
        self.due.insert((at, order(&job), self.count), job);
    }

    /// When the next is due.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.due.keys().next().map(|(at, ..)| *at + self.held)
    }

    /// Moves the clock back if this node was held up; whether it was.
    pub(crate) fn notice(&mut self, now: Duration) -> bool {
        let late = self
            .next()
            .map_or(Duration::ZERO, |at| now.saturating_sub(at));
        let held = late > self.tolerance;
        if held {
            self.held += late;
        }
        held
    }

    /// The next that is due, if one is.
    pub(crate) fn take(&mut self, now: Duration) -> Option<Job> {
        let first = self.due.first_entry()?;
        if first.key().0 + self.held > now {
            return None;
        }
        Some(first.remove())
    }

    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }
}

/// The detector's own number of its life.
fn token(timer: &Timer<Peer>) -> Option<u8> {
    match timer {
        Timer::ProbeRandomMember(token)
        | Timer::SendIndirectProbe { token, .. }
        | Timer::ChangeSuspectToDown { token, .. }
        | Timer::PeriodicAnnounce(token)
        | Timer::PeriodicAnnounceDown(token)
        | Timer::PeriodicGossip(token) => Some(*token),
        Timer::RemoveDown(_) => None,
    }
}

/// Of those due at once, a probe's second step comes before the next probe.
fn order(job: &Job) -> u8 {
    match job {
        Job::Swim(Timer::SendIndirectProbe { .. }) => 0,
        Job::Swim(Timer::ProbeRandomMember(_)) => 1,
        Job::Swim(Timer::ChangeSuspectToDown { .. }) => 2,
        _ => 3,
    }
}
