//! The sandboxes and execs of this node: a table that the session loop and the node service share, kept beside on disk so
//! that a restarted daemon knows what it holds (`sandboxes/journal`).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prism_link::{ExecInfo, ExecRequest};
use prism_spec::SandboxSpec;
use prism_types::{RunId, RunReport, SandboxId, TimeMs};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::journal::Journal;

/// What a run id of a sandbox or an exec stands for.
pub(crate) enum Run {
    /// A sandbox.
    Sandbox(SandboxId),
    /// An exec in one.
    Exec(SandboxId, String),
}

/// Reads a run id as a sandbox's or an exec's.
pub(crate) fn parse(id: &RunId) -> Option<Run> {
    if let Some(rest) = id.as_str().strip_prefix("s.") {
        return rest.parse().ok().map(Run::Sandbox);
    }
    let (sandbox, exec) = id.as_str().strip_prefix("e.")?.split_once('.')?;
    Some(Run::Exec(sandbox.parse().ok()?, exec.to_owned()))
}

/// What is kept of an exec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ExecRecord {
    /// What was asked.
    pub(crate) request: ExecRequest,
    /// When it was asked, for the order.
    pub(crate) asked: TimeMs,
    /// Since when it runs.
    pub(crate) started: Option<TimeMs>,
    /// Its report.
    pub(crate) report: Option<RunReport>,
}

impl ExecRecord {
    pub(crate) fn info(&self) -> ExecInfo {
        ExecInfo {
            id: self.request.id.clone(),
            argv: self.request.argv.clone(),
            started: self.started,
            report: self.report.clone(),
        }
    }
}

/// A line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Record {
    /// A sandbox came.
    Sandbox(SandboxId, SandboxSpec),
    /// It is gone, with its execs.
    Gone(SandboxId),
    /// An exec, as it is from here on.
    Exec(SandboxId, ExecRecord),
}

#[derive(Debug)]
struct Sandbox {
    spec: SandboxSpec,
    running: Option<TimeMs>,
    execs: BTreeMap<String, watch::Sender<ExecRecord>>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    journal: Journal,
}

impl Held {
    /// Writes a record down; before it the whole table anew, when the file is mostly of the past.
    fn note(&mut self, record: &Record) -> io::Result<()> {
        if self.journal.is_stale() {
            let mut all = Vec::new();
            for (id, sandbox) in &self.sandboxes {
                all.push(Record::Sandbox(*id, sandbox.spec.clone()));
                let execs = sandbox.execs.values();
                all.extend(execs.map(|e| Record::Exec(*id, e.borrow().clone())));
            }
            self.journal.rewrite(&all)?;
        }
        self.journal.add(record)
    }
}

impl Table {
    /// Reads the table from disk.
    pub(crate) fn load(dir: &Path) -> io::Result<Self> {
        let (journal, records) = Journal::open(&dir.join("journal"))?;
        let mut sandboxes: BTreeMap<SandboxId, Sandbox> = BTreeMap::new();
        for record in records {
            match record {
                Record::Sandbox(id, spec) => {
                    let sandbox = Sandbox {
                        spec,
                        running: None,
                        execs: BTreeMap::new(),
                    };
                    sandboxes.insert(id, sandbox);
                }
                Record::Gone(id) => {
                    sandboxes.remove(&id);
                }
                Record::Exec(id, exec) => {
                    if let Some(sandbox) = sandboxes.get_mut(&id) {
                        let name = exec.request.id.clone();
                        sandbox.execs.insert(name, watch::channel(exec).0);
                    }
                }
            }
        }
        let held = Mutex::new(Held { sandboxes, journal });
        Ok(Self { held })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // A panic while something is written down leaves the table as it was before, which is true.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new sandbox in. Blocking.
    pub(crate) fn add(&self, id: SandboxId, spec: SandboxSpec) -> io::Result<()> {
        let mut held = self.lock();
        if held.sandboxes.contains_key(&id) {
            return Ok(());
        }
        held.note(&Record::Sandbox(id, spec.clone()))?;
        let sandbox = Sandbox {
            spec,
            running: None,
            execs: BTreeMap::new(),
        };
        held.sandboxes.insert(id, sandbox);
        Ok(())
    }

    /// Notes that a sandbox runs.
    pub(crate) fn running(&self, id: SandboxId, since: TimeMs) {
        if let Some(s) = self.lock().sandboxes.get_mut(&id) {
            s.running = Some(since);
        }
    }

    /// Forgets a sandbox and its execs. Blocking.
    pub(crate) fn remove(&self, id: SandboxId) -> io::Result<()> {
        let mut held = self.lock();
        match held.sandboxes.remove(&id) {
            Some(_) => held.note(&Record::Gone(id)),
            None => Ok(()),
        }
    }

    /// The spec of a sandbox, and since when it runs.
    pub(crate) fn get(&self, id: SandboxId) -> Option<(SandboxSpec, Option<TimeMs>)> {
        self.lock()
            .sandboxes
            .get(&id)
            .map(|s| (s.spec.clone(), s.running))
    }

    /// Whether a sandbox is known.
    pub(crate) fn holds(&self, id: SandboxId) -> bool {
        self.lock().sandboxes.contains_key(&id)
    }

    /// Ids of all.
    pub(crate) fn ids(&self) -> Vec<SandboxId> {
        self.lock().sandboxes.keys().copied().collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.lock().sandboxes.len()).unwrap_or(u32::MAX)
    }

    /// Takes an exec in, or finds the one with its id. The flag says whether it is new. Blocking.
    pub(crate) fn add_exec(
        &self,
        id: SandboxId,
        request: &ExecRequest,
        now: TimeMs,
    ) -> io::Result<Option<(bool, watch::Receiver<ExecRecord>)>> {
        let record = ExecRecord {
            request: request.clone(),
            asked: now,
            started: None,
            report: None,
        };
        let mut held = self.lock();
        let Some(sandbox) = held.sandboxes.get(&id) else {
            return Ok(None);
        };
        if let Some(found) = sandbox.execs.get(&request.id) {
            return Ok(Some((false, found.subscribe())));
        }
        held.note(&Record::Exec(id, record.clone()))?;
        let (sender, receiver) = watch::channel(record);
        if let Some(sandbox) = held.sandboxes.get_mut(&id) {
            sandbox.execs.insert(request.id.clone(), sender);
        }
        Ok(Some((true, receiver)))
    }

    /// Watches an exec.
    pub(crate) fn exec(&self, id: SandboxId, exec: &str) -> Option<watch::Receiver<ExecRecord>> {
        self.lock()
            .sandboxes
            .get(&id)?
            .execs
            .get(exec)
            .map(watch::Sender::subscribe)
    }

    /// Every exec of a sandbox, oldest first.
    pub(crate) fn execs(&self, id: SandboxId) -> Option<Vec<ExecRecord>> {
        let mut all: Vec<ExecRecord> = self
            .lock()
            .sandboxes
            .get(&id)?
            .execs
            .values()
            .map(|s| s.borrow().clone())
            .collect();
        all.sort_by_key(|r| (r.asked, r.request.id.clone()));
        Some(all)
    }

    /// Notes that an exec runs.
    pub(crate) fn exec_started(&self, id: SandboxId, exec: &str, at: TimeMs) {
        if let Some(sender) = self
            .lock()
            .sandboxes
            .get(&id)
            .and_then(|s| s.execs.get(exec))
        {
            sender.send_modify(|r| r.started = Some(at));
        }
    }

    /// Notes that an exec is over; its record is on disk when this returns. Blocking. With an error only those who wait for it
    /// know; the runtime, which must not forget it then, tells of it again.
    pub(crate) fn exec_over(&self, id: SandboxId, exec: &str, report: RunReport) -> io::Result<()> {
        let mut held = self.lock();
        let sandbox = held.sandboxes.get(&id);
        let Some(sender) = sandbox.and_then(|s| s.execs.get(exec)) else {
            return Ok(());
        };
        let record = ExecRecord {
            report: Some(report),
            ..sender.borrow().clone()
        };
        let noted = held.note(&Record::Exec(id, record.clone()));
        let sandbox = held.sandboxes.get(&id);
        if let Some(sender) = sandbox.and_then(|s| s.execs.get(exec)) {
            sender.send_replace(record);
        }
        noted
    }
}
