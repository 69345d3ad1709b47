//! A task that is over has exactly one result that counts, and it is what a worker really produced in that attempt.

use std::collections::BTreeMap;

use prism_state::{State, decode_results, job_results_prefix};
use prism_store::{KeyRange, Table};
use prism_types::{NodeId, RunReport, StopCause, TaskRef, TaskState};

use super::Held;

/// What ran: which worker ran which attempt, how it ended and what it printed.
#[derive(Debug, Default)]
pub struct Runs(BTreeMap<(NodeId, TaskRef), Vec<Ended>>);

/// How a run ended, and what it printed.
type Ended = (RunReport, Option<String>);

impl Runs {
    /// A run ended.
    pub fn ended(&mut self, node: NodeId, task: TaskRef, report: &RunReport, result: Option<&str>) {
        let all = self.0.entry((node, task)).or_default();
        all.push((report.clone(), result.map(str::to_owned)));
    }

    /// Every task of every job has as many results as it should, each from a run.
    pub fn holds(&self, state: &State, table: &Table) -> Held {
        for job in state.jobs() {
            let prefix = KeyRange::prefix(job_results_prefix(job.id()));
            let page = table.range(&prefix, None, usize::MAX);
            let page = page.map_err(|e| e.to_string())?;
            let mut counted: BTreeMap<u32, u32> = BTreeMap::new();
            for item in &page.items {
                let records = decode_results(&item.key, &item.value).map_err(|e| e.to_string())?;
                for record in records {
                    let Some(view) = state.task(job.id(), record.index) else {
                        return Err(format!("{}: a result of no task", job.id()));
                    };
                    if !record.is_current(&view) {
                        continue;
                    }
                    *counted.entry(record.index).or_default() += 1;
                    let task = TaskRef {
                        job: job.id(),
                        index: record.index,
                        attempt: record.attempt,
                    };
                    let node = state.node_id(record.node);
                    self.is_real(node, task, &record.report, record.result.as_deref())?;
                }
            }
            for (index, cell) in job.cells(0) {
                let results = counted.get(&index).copied().unwrap_or(0);
                let right = match cell.state {
                    TaskState::Completed | TaskState::Failed => results == 1,
                    TaskState::Cancelled => results <= 1,
                    _ => results == 0,
                };
                if !right {
                    let state = cell.state;
                    let id = job.id();
                    return Err(format!(
                        "{id}: task {index} is {state} with {results} results"
                    ));
                }
            }
        }
        Ok(())
    }

    fn is_real(
        &self,
        node: Option<NodeId>,
        task: TaskRef,
        report: &RunReport,
        result: Option<&str>,
    ) -> Held {
        let own = matches!(
            report.cause,
            StopCause::Lost | StopCause::Requested | StopCause::StartFailed
        );
        if own && result.is_none() {
            return Ok(());
        }
        let runs = node.and_then(|node| self.0.get(&(node, task)));
        let found = runs
            .into_iter()
            .flatten()
            .any(|(ran, said)| ran == report && said.as_deref() == result);
        match found {
            true => Ok(()),
            false => Err(format!(
                "the result of task {} of {} in attempt {} is not what its node produced in that attempt",
                task.index, task.job, task.attempt
            )),
        }
    }
}
