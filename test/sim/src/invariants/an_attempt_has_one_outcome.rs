//! A worker tells one outcome of an attempt, however often it tells it and whatever crashes between.

use std::collections::BTreeMap;

use prism_link::TaskOutcome;
use prism_types::{NodeId, TaskRef};

use super::Held;

/// What workers told.
#[derive(Debug, Default)]
pub struct Outcomes(BTreeMap<(NodeId, TaskRef), TaskOutcome>);

impl Outcomes {
    /// A worker tells an outcome.
    pub fn told(&mut self, node: NodeId, outcome: &TaskOutcome) -> Held {
        let known = self
            .0
            .entry((node, outcome.task))
            .or_insert_with(|| outcome.clone());
        match known == outcome {
            true => Ok(()),
            false => Err(format!(
                "attempt {} of task {} of {} was told as ended by {:?}, and now as ended by {:?}",
                outcome.task.attempt,
                outcome.task.index,
                outcome.task.job,
                known.report.cause,
                outcome.report.cause
            )),
        }
    }
}
