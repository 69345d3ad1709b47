//! What the runtime tells.

use std::collections::BTreeMap;

use prism_link::{SandboxStatus, ToControl};
use prism_runtime::RunEvent;
use prism_types::{RunId, TaskRef, TimeMs};

use super::Worker;
use crate::launch;
use crate::sandboxes::{Run, parse};

impl Worker {
    pub(super) fn on_events(&mut self, batch: Vec<RunEvent>) {
        let mut started: BTreeMap<TaskRef, TimeMs> = BTreeMap::new();
        self.on_batch(batch, &mut started);
        while let Ok(more) = self.events.try_recv() {
            self.on_batch(more, &mut started);
        }
        if !started.is_empty() {
            self.reports
                .push(ToControl::Started(started.into_iter().collect()));
        }
    }

    fn on_batch(&mut self, batch: Vec<RunEvent>, started: &mut BTreeMap<TaskRef, TimeMs>) {
        for event in batch {
            match event {
                RunEvent::Started { id, at, .. } => match id.as_task() {
                    Some(task) => {
                        started.insert(task, at);
                        self.watch_metrics(task);
                    }
                    None => self.on_sandbox_started(&id, at),
                },
                RunEvent::Exited { id, report } => match id.as_task() {
                    Some(task) => {
                        // What started and ended between two looks is only told as ended.
                        started.remove(&task);
                        if self.queue.over(task) {
                            let spec = self.jobs.get(&task.job).cloned();
                            self.reports.task_over(task, report, spec);
                        } else if !self.reports.knows(task) {
                            self.reports.task_over(task, report, None);
                        }
                    }
                    None => match parse(&id) {
                        Some(Run::Sandbox(sandbox)) => {
                            self.reports.push(ToControl::Sandbox {
                                id: sandbox,
                                status: SandboxStatus::Exited(report.clone()),
                            });
                            self.reports.sandbox_gone(sandbox, report);
                        }
                        Some(Run::Exec(sandbox, exec)) => {
                            self.reports.exec_over(sandbox, exec, report)
                        }
                        None => {
                            tracing::warn!(%id, "the runtime told of a run that nobody asked for")
                        }
                    },
                },
                RunEvent::Restarted => {
                    tracing::warn!(
                        "the supervisor died and was replaced; what it ran is reported lost"
                    );
                }
            }
        }
    }

    fn on_sandbox_started(&mut self, id: &RunId, at: TimeMs) {
        match parse(id) {
            Some(Run::Sandbox(sandbox)) => {
                self.shared.table.running(sandbox, at);
                let status = SandboxStatus::Running(at);
                self.reports.push(ToControl::Sandbox {
                    id: sandbox,
                    status,
                });
            }
            Some(Run::Exec(sandbox, exec)) => self.shared.table.exec_started(sandbox, &exec, at),
            None => tracing::warn!(%id, "the runtime told of a run that nobody asked for"),
        }
    }

    /// Watches a task's output if its sweep stops beams early.
    pub(super) fn watch_metrics(&mut self, task: TaskRef) {
        let Some(sweep) = self.jobs.get(&task.job).and_then(|spec| spec.sweep()) else {
            return;
        };
        let Some(prism_spec::EarlyStop::Halving(rule)) = &sweep.early_stop else {
            return;
        };
        if sweep.aggregate_index() != Some(task.index) {
            let dir = launch::task_logs(&self.shared.config.data_dir, task);
            self.reports.watch(task, dir, &rule.metric);
        }
    }
}
