//! What was acknowledged is durable: every job that a client was told of is there, whatever fails later, and one that a client
//! was told is cancelled runs no further.

use std::collections::{BTreeMap, BTreeSet};

use prism_state::State;
use prism_types::JobId;

use super::Held;

/// What clients were told.
#[derive(Debug, Default)]
pub struct Acknowledged {
    jobs: BTreeMap<JobId, u64>,
    cancelled: BTreeSet<JobId>,
}

impl Acknowledged {
    /// A client was told that its job is accepted.
    pub fn accepted(&mut self, job: JobId, at: u64) {
        self.jobs.insert(job, at);
    }

    /// A client was told that its job is cancelled.
    pub fn cancelled(&mut self, job: JobId) {
        self.cancelled.insert(job);
    }

    /// The jobs that clients know.
    pub fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.jobs.keys().copied()
    }

    /// What a new leader loads, or the end of a run shows.
    pub fn holds(&self, state: &State) -> Held {
        for (id, at) in &self.jobs {
            let Some(job) = state.job(*id) else {
                return Err(format!("job {id}, acknowledged at {at} ms, is not there"));
            };
            let over = job.record().state.is_final();
            if self.cancelled.contains(id) && !over && job.record().cancel.is_none() {
                return Err(format!("job {id} was cancelled, and is not any more"));
            }
        }
        Ok(())
    }
}
