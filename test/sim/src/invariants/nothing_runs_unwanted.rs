//! No ghosts: some time after everything was healed a worker runs only what the leader wants it to run, and what it does not want
//! is gone within 20 s.

use std::collections::BTreeMap;

use prism_types::{NodeId, TaskRef};

use super::Held;

/// For so long a run may be there that nobody wants, virtual milliseconds.
const GONE_WITHIN: u64 = 20_000;

/// Runs that nobody wants, and since when.
#[derive(Debug, Default)]
pub struct Ghosts(BTreeMap<(NodeId, TaskRef), u64>);

impl Ghosts {
    /// These run now, and nobody wants them.
    pub fn seen(&mut self, now: u64, unwanted: impl Iterator<Item = (NodeId, TaskRef)>) -> Held {
        let before = std::mem::take(&mut self.0);
        for ghost in unwanted {
            let since = before.get(&ghost).copied().unwrap_or(now);
            self.0.insert(ghost, since);
            if now > since + GONE_WITHIN {
                let (node, task) = ghost;
                return Err(format!(
                    "node {node} runs attempt {} of task {} of {}, which nobody has wanted for {} s",
                    task.attempt,
                    task.index,
                    task.job,
                    (now - since) / 1000
                ));
            }
        }
        Ok(())
    }
}
