//! Requests with one idempotency key get one answer and happen once.

use std::collections::BTreeMap;

use prism_state::State;
use prism_types::JobId;

use super::Held;

/// Which answers keys had. In the simulation the name of a job says which request it is of.
#[derive(Debug, Default)]
pub struct Keys(BTreeMap<u64, JobId>);

impl Keys {
    /// A request was answered with this job; true the first time.
    pub fn answered(&mut self, request: u64, job: JobId) -> Result<bool, String> {
        match self.0.insert(request, job) {
            None => Ok(true),
            Some(other) if other == job => Ok(false),
            Some(other) => Err(format!(
                "request {request} was answered with job {other}, and then with job {job}"
            )),
        }
    }

    /// No request made two jobs.
    pub fn holds(&self, state: &State) -> Held {
        let mut seen = BTreeMap::new();
        for job in state.jobs() {
            if let Some(other) = seen.insert(job.spec().name.as_str(), job.id()) {
                return Err(format!(
                    "jobs {other} and {} are of one request, {}",
                    job.id(),
                    job.spec().name
                ));
            }
        }
        Ok(())
    }
}
