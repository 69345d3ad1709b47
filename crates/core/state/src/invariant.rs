//! What must hold in every state; for tests and simulation.

use std::collections::BTreeMap;

use prism_spec::JobSpec;
use prism_types::{JobState, Name, NodeId, Resources, TaskState};

use crate::{Job, State, Usage};

impl State {
    /// Checks every invariant that one state can show.
    ///
    /// # Errors
    /// What does not hold, and where.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.check_usage()?;
        let mut granted: BTreeMap<NodeId, Resources> = BTreeMap::new();
        for job in self.jobs.values() {
            self.check_job(job)?;
            for (no, lanes) in &job.lanes {
                let Some(id) = self.node_id(*no) else {
                    return Err(format!("{}: lanes on an unknown node", job.id()));
                };
                let sum = granted.entry(id).or_default();
                *sum = sum.plus(&job.spec.resources, *lanes);
            }
        }
        for sandbox in self.sandboxes.values().filter(|s| !s.state.is_final()) {
            if let Some(node) = sandbox.node {
                let sum = granted.entry(node).or_default();
                *sum = sum.plus(&sandbox.spec.resources, 1);
            }
        }
        for (id, node) in &self.nodes {
            let sum = granted.remove(id).unwrap_or_default();
            if sum != node.reserved {
                return Err(format!(
                    "{id}: granted {sum:?}, indexed {:?}",
                    node.reserved
                ));
            }
            if !sum.fits(&node.record.capacity) {
                return Err(format!(
                    "{id}: granted {sum:?} of {:?}",
                    node.record.capacity
                ));
            }
        }
        match granted.first_key_value() {
            Some((id, _)) => Err(format!("{id}: a grant on an unknown node")),
            None => Ok(()),
        }
    }

    /// Counted anew, the usage of every namespace is what the index says.
    fn check_usage(&self) -> Result<(), String> {
        let mut counted: BTreeMap<Name, Usage> = BTreeMap::new();
        for job in self.jobs.values() {
            let usage = counted.entry(job.spec.namespace.clone()).or_default();
            usage.jobs += u32::from(!job.record.state.is_final());
            usage.instances += job.lanes_total;
            usage.resources = usage.resources.plus(&job.spec.resources, job.lanes_total);
        }
        for sandbox in self.sandboxes.values().filter(|s| !s.state.is_final()) {
            let usage = counted.entry(sandbox.spec.namespace.clone()).or_default();
            usage.sandboxes += 1;
            let placed = sandbox.node.is_some_and(|id| self.nodes.contains_key(&id));
            let lanes = u32::from(placed);
            usage.resources = usage.resources.plus(&sandbox.spec.resources, lanes);
        }
        counted.retain(|_, usage| *usage != Usage::default());
        if counted != self.index.usage {
            return Err(format!(
                "in use {counted:?}, indexed {:?}",
                self.index.usage
            ));
        }
        Ok(())
    }

    fn check_job(&self, job: &Job) -> Result<(), String> {
        let id = job.id();
        let fail = |what: &str| Err(format!("{id}: {what}"));
        let mut counts = crate::Counts::default();
        for (_, cell) in job.cells(0) {
            counts.0[cell.state as usize] += 1;
            if u32::from(cell.failures) > job.spec.retries + 1 {
                return fail("a task failed more often than allowed");
            }
            if u32::from(cell.losses) > JobSpec::LOSSES_MAX + 1 {
                return fail("a task was lost more often than allowed");
            }
        }
        if counts != job.counts || counts.total() != job.record.tasks {
            return fail("its counts do not add up");
        }
        let over = counts.finished() == job.record.tasks;
        if job.record.state.is_final() != over {
            return fail("it is over exactly when all its tasks are: does not hold");
        }
        let completed = counts.of(TaskState::Completed) == job.record.tasks;
        if (job.record.state == JobState::Completed) != completed {
            return fail("it completed exactly when all its tasks did: does not hold");
        }
        if over != job.record.finished.is_some() {
            return fail("it has an end exactly when it is over: does not hold");
        }
        if job.lanes.values().sum::<u32>() != job.lanes_total
            || job.lanes_total > job.spec.concurrency.unwrap_or(u32::MAX)
        {
            return fail("its lanes do not add up or exceed its concurrency");
        }
        for (no, lanes) in &job.lanes {
            if *lanes > job.placed_on(*no) {
                return fail("it has more lanes on a node than tasks");
            }
        }
        let queued = self
            .index
            .queue
            .contains(&(std::cmp::Reverse(job.spec.priority), id));
        if queued != (job.is_open() && job.ready_len() > 0) {
            return fail("it is in the queue exactly when it has work to place: does not hold");
        }
        Ok(())
    }
}
