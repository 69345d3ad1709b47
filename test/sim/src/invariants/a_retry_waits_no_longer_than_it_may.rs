//! A task that is to be tried again waits no longer than its job's longest wait, whichever clock the next leader has.

use prism_state::State;
use prism_types::TimeMs;

use super::Held;

/// A leader begins at this time.
pub fn holds(state: &State, now: TimeMs) -> Held {
    for job in state.jobs() {
        let backoff = job.spec().backoff;
        // In the simulation every job spreads its waits by a fifth at most.
        let longest = backoff.max.0 + backoff.max.0 / 5;
        for (index, cell) in job.cells(0) {
            if let Some(due) = cell.due()
                && due.since(now).0 > longest
            {
                return Err(format!(
                    "task {index} of {} is to be tried again in {} s, and its job waits at most {} ms",
                    job.id(),
                    due.since(now).0 / 1000,
                    longest
                ));
            }
        }
    }
    Ok(())
}
