//! Hearing that programs have begun. Most have nobody who tells: a program that is over within a moment is told of by its end, and
//! to be woken for its beginning, and for each of its streams that closes, would take longer than the program. So they are looked
//! at a moment later, and their streams are read from then on (until then a pipe holds their output).

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use prism_sys::table::State;

use super::run::Kind;
use super::state::{Supervisor, unwatch};

/// How long after it may begin a program is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(2);

/// Longest time between two looks at one that takes long to begin.
const SELDOM: Duration = Duration::from_millis(100);

impl Supervisor {
    /// When the next one is to be looked at.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let look = |index: &usize| self.runs[*index].as_ref()?.look;
        self.starting.iter().filter_map(look).min()
    }

    /// Whether a run's beginning is news now.
    pub(super) fn is_looked_at(&mut self, index: usize, now: Instant) -> bool {
        self.run(index)
            .is_some_and(|run| run.look.is_none_or(|at| at <= now))
    }

    /// Looks at those that are due.
    pub(super) fn look(&mut self, now: Instant) {
        if self.next_look().is_none_or(|at| at > now) {
            return;
        }
        for index in self.starting.clone() {
            if let Some(run) = self.run(index)
                && run.look.is_some_and(|at| at <= now)
            {
                let waited = now.saturating_duration_since(run.since);
                run.look = Some(now + waited.clamp(LOOK, SELDOM));
                self.look_at(index);
            }
        }
    }

    /// Looks at all.
    pub(super) fn look_at_all(&mut self) {
        for index in self.starting.clone() {
            self.look_at(index);
        }
    }

    /// Looks at one: whether its program has begun by now.
    pub(super) fn look_at(&mut self, index: usize) {
        let Some(run) = self.run(index) else {
            return;
        };
        match run.kind {
            Kind::Plain if run.apart.as_ref().is_some_and(|apart| apart.has_left()) => {
                self.hear_beginning(index);
            }
            Kind::Task => {
                if let State::Running(pid) = self.table[index].state() {
                    self.begin(index, pid);
                }
            }
            Kind::Plain | Kind::Sandbox | Kind::Exec(_) => {}
        }
    }

    /// A plain run's program has begun, or its child has failed (which its end will tell).
    pub(super) fn hear_beginning(&mut self, index: usize) {
        let Some(run) = self.runs.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        if let Some(pipe) = run.beginning.take() {
            unwatch(self.epoll.as_fd(), pipe.as_fd());
        }
        if let Some(why) = run.apart.take().and_then(|apart| apart.failure()) {
            // What comes of it is told by its end.
            run.look = None;
            self.table[index].failed(&why);
        } else if self.table[index].state() == State::Preparing {
            self.begin(index, 0);
        }
    }
}
