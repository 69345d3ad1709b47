//! How a session begins: what this node is and holds, and what the control plane says to that.

use std::collections::BTreeSet;

use prism_link::resume::{Holdings, Nonce, Sum, Told};
use prism_link::{Hello, Holding, Resume, SandboxStatus, ToControl};
use prism_types::{SandboxId, TaskRef};

use super::Worker;
use crate::facts;

/// A nonce that nobody knew before.
fn nonce() -> Nonce {
    let mut nonce = Nonce::default();
    let n = rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty());
    assert_eq!(n, Ok(nonce.len()), "the kernel gives random bytes");
    nonce
}

impl Worker {
    /// What is said first: a sum of what is held, if the control plane can make use of one, or all of it.
    pub(super) fn opening(&mut self, resumes: bool) -> ToControl {
        self.told = None;
        let mut hello = self.hello();
        if !resumes {
            return ToControl::Hello(Box::new(hello));
        }
        let tasks = std::mem::take(&mut hello.tasks);
        let known = std::mem::take(&mut hello.sandboxes);
        let mut sandboxes: Vec<(SandboxId, Option<SandboxStatus>)> =
            known.into_iter().map(|(id, how)| (id, Some(how))).collect();
        // What is still being started is in no account of the runtime yet.
        let named: BTreeSet<SandboxId> = sandboxes.iter().map(|(id, _)| *id).collect();
        let ids = self.shared.table.ids().into_iter();
        sandboxes.extend(ids.filter(|id| !named.contains(id)).map(|id| (id, None)));
        // One whose files could not be written is to come again.
        let jobs = self.jobs.keys();
        let jobs = jobs.filter(|job| !self.unwritten.contains_key(job));
        let jobs = jobs.map(|job| (*job, self.queue.lanes(*job)));
        let holdings = Holdings {
            tasks,
            sandboxes,
            jobs: jobs.collect(),
        };
        let told = Told::new(nonce(), holdings);
        let summary = told.summary();
        self.told = Some(told);
        ToControl::Resume(Box::new(Resume { hello, summary }))
    }

    /// The control plane sees something else: it is told what is held where that differs.
    pub(super) fn on_compare(&mut self, sums: &[Sum]) -> Result<(), String> {
        let told = self.told.as_ref();
        let told = told.ok_or("a comparison of nothing, or of what is settled")?;
        let answer = told.answer(sums).map_err(|why| why.to_string())?;
        self.reports.answer(ToControl::Held(Box::new(answer)));
        Ok(())
    }

    /// What was held as the session began is wanted, but for this. What came to be held otherwise since then is not: the control
    /// plane does not know of it.
    pub(super) fn on_unwanted(
        &mut self,
        tasks: &[TaskRef],
        sandboxes: &[SandboxId],
    ) -> Result<(), String> {
        let told = self.told.take();
        let told = told.ok_or("it says what is unwanted of nothing, or once more")?;
        let (tasks, sandboxes) = told.keep(tasks, sandboxes);
        self.on_desired(&tasks, &sandboxes);
        Ok(())
    }

    /// What is held, from the runtime's own account.
    fn hello(&mut self) -> Hello {
        let observed = self.shared.runtime.observe().unwrap_or_else(|e| {
            tracing::warn!(error = %e, "the runtime does not say what runs; reporting nothing");
            Vec::new()
        });
        let mut tasks: Vec<(TaskRef, Holding)> = self
            .queue
            .waiting()
            .map(|t| (t, Holding::Waiting))
            .collect();
        let mut sandboxes = Vec::new();
        for o in observed {
            if let Some(task) = o.id.as_task() {
                match o.exited {
                    Some(report) => {
                        tasks.push((task, Holding::Over));
                        self.reports.task_over(task, report, None);
                    }
                    None => {
                        tasks.push((task, Holding::Running(o.started)));
                        self.queue.adopt(task);
                        self.live().insert(task);
                    }
                }
            } else if let Some(found) = self.observed_sandbox(&o) {
                sandboxes.push(found);
            }
        }
        self.greeting(tasks, sandboxes)
    }

    /// Tells the control plane anew what this node is and can do.
    pub(super) fn greet_again(&mut self) {
        let hello = self.greeting(Vec::new(), Vec::new());
        self.reports.push(ToControl::Hello(Box::new(hello)));
    }

    fn greeting(
        &mut self,
        tasks: Vec<(TaskRef, Holding)>,
        sandboxes: Vec<(prism_types::SandboxId, SandboxStatus)>,
    ) -> Hello {
        let config = &self.shared.config;
        let capabilities = self.shared.runtime.capabilities();
        self.blind = capabilities.iter().all(|c| !c.works);
        let mut facts = facts::facts(&config.data_dir, &capabilities, config.allow_plain);
        facts.images = self.shared.files.images().unwrap_or_default();
        Hello {
            node: config.node,
            name: config.name.clone(),
            labels: config.labels.clone(),
            capacity: config
                .capacity
                .unwrap_or_else(|| facts::capacity(&config.data_dir)),
            facts,
            tasks,
            sandboxes,
        }
    }

    fn observed_sandbox(
        &self,
        o: &prism_runtime::Observed,
    ) -> Option<(prism_types::SandboxId, SandboxStatus)> {
        match (crate::sandboxes::parse(&o.id)?, &o.exited) {
            (crate::sandboxes::Run::Sandbox(id), None) => {
                self.shared.table.running(id, o.started);
                Some((id, SandboxStatus::Running(o.started)))
            }
            (crate::sandboxes::Run::Sandbox(id), Some(report)) => {
                self.reports.sandbox_gone(id, report.clone());
                Some((id, SandboxStatus::Exited(report.clone())))
            }
            (crate::sandboxes::Run::Exec(id, exec), None) => {
                self.shared.table.exec_started(id, &exec, o.started);
                None
            }
            (crate::sandboxes::Run::Exec(id, exec), Some(report)) => {
                self.reports.exec_over(id, exec, report.clone());
                None
            }
        }
    }
}
