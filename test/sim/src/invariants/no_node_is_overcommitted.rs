//! What runs on a node never exceeds its capacity. What was told to stop does not count: it is on its way out.

use prism_types::{Resources, TaskRef};

use super::Held;

/// A run starts beside others.
pub fn starts<'a>(
    capacity: &Resources,
    running: impl Iterator<Item = (&'a TaskRef, &'a Resources)> + Clone,
) -> Held {
    let sum = running
        .clone()
        .fold(Resources::default(), |sum, (_, r)| sum.plus(r, 1));
    if sum.fits(capacity) {
        return Ok(());
    }
    let all = running.map(|(t, r)| format!("{}/{}/{} with {}", t.job, t.index, t.attempt, r.cpu.0));
    Err(format!(
        "{} millicores and {} MiB run on a node of {} and {}: {}",
        sum.cpu.0,
        sum.memory.0 >> 20,
        capacity.cpu.0,
        capacity.memory.0 >> 20,
        all.collect::<Vec<_>>().join(", ")
    ))
}
