//! When everything is healed, everything ends: jobs are over, clients are answered, nothing runs that should not, nothing is
//! left in the workers' tables.

use super::Held;

/// What is not at its end yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Jobs that are not over.
    pub jobs: usize,
    /// Requests without an answer.
    pub requests: usize,
    /// Processes that run.
    pub running: usize,
    /// Ended runs that are still remembered, and tasks that wait on workers.
    pub remembered: usize,
    /// Workers without a session, or whose node takes nothing.
    pub strangers: usize,
    /// Living servers that have not applied all that was committed.
    pub behind: usize,
}

impl Left {
    /// Whether all is at its end.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// After the time that convergence may take.
    /// `first` says how the first unfinished job stands.
    pub fn holds(&self, waited: u64, first: &str) -> Held {
        match self.is_nothing() {
            true => Ok(()),
            false => Err(format!(
                "{} s after everything was healed there are left {self:?}{first}",
                waited / 1000
            )),
        }
    }
}
