//! What the runtime tells.

use std::collections::BTreeSet;

use prism_link::{SandboxStatus, ToControl};
use prism_runtime::RunEvent;
use prism_types::{RunId, RunReport, StopCause, TaskRef, TimeMs};

use super::Worker;
use crate::launch;
use crate::sandboxes::{Run, parse};

impl Worker {
    pub(super) fn on_events(&mut self, batch: Vec<RunEvent>) {
        self.on_batch(batch);
        while let Ok(more) = self.events.try_recv() {
            self.on_batch(more);
        }
    }

    fn on_batch(&mut self, batch: Vec<RunEvent>) {
        for event in batch {
            match event {
                RunEvent::Started { id, at, .. } => match id.as_task() {
                    Some(task) => {
                        self.reports.task_started(task, at);
                        self.watch_metrics(task);
                    }
                    None => self.on_sandbox_started(&id, at),
                },
                RunEvent::Exited { id, report } => match id.as_task() {
                    Some(task) => {
                        if self.queue.over(task) {
                            let spec = self.jobs.get(&task.job).cloned();
                            self.reports.task_over(task, report, spec);
                        } else if !self.reports.knows(task) {
                            self.unexpected.insert(task);
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
                RunEvent::Restarted => self.on_restarted(),
            }
        }
    }

    /// The supervisor died and was replaced. The new one tells of what had begun; what was only handed to the old one is lost too.
    fn on_restarted(&mut self) {
        tracing::warn!("the supervisor died and was replaced; what it ran is reported lost");
        if self.blind {
            self.greet_again();
        }
        let known: BTreeSet<RunId> = match self.shared.runtime.observe() {
            Ok(observed) => observed.into_iter().map(|o| o.id).collect(),
            Err(e) => {
                // It dies again and again: the next one asks again.
                tracing::warn!(error = %e, "the new supervisor does not say what it knows");
                return;
            }
        };
        let lost = || RunReport {
            cause: StopCause::Lost,
            ..RunReport::not_started(super::now(), "its supervisor died before it began")
        };
        let tasks: Vec<TaskRef> = self.queue.running().collect();
        for task in tasks {
            if !known.contains(&RunId::task(task)) && self.queue.over(task) {
                let spec = self.jobs.get(&task.job).cloned();
                self.reports.task_over(task, lost(), spec);
            }
        }
        for id in self.shared.table.ids() {
            if !known.contains(&RunId::sandbox(id)) {
                let status = SandboxStatus::Exited(lost());
                self.reports.push(ToControl::Sandbox { id, status });
                self.reports.sandbox_gone(id, lost());
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
