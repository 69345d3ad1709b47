//! The sandboxes and execs of this node: a table that the session loop and the node service share, kept beside on disk so
//! that a restarted daemon knows what it holds (`sandboxes/<id>/spec.json`, `sandboxes/<id>/exec-<exec>.json`).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use prism_link::{ExecInfo, ExecRequest};
use prism_spec::SandboxSpec;
use prism_types::{RunId, RunReport, SandboxId, TimeMs};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

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

#[derive(Debug)]
struct Sandbox {
    spec: SandboxSpec,
    running: Option<TimeMs>,
    execs: BTreeMap<String, watch::Sender<ExecRecord>>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    dir: PathBuf,
    sandboxes: Mutex<BTreeMap<SandboxId, Sandbox>>,
}

impl Table {
    /// Reads the table from disk. A directory whose spec cannot be read is left out (and removed as a leftover).
    pub(crate) fn load(dir: &Path) -> io::Result<Self> {
        let mut sandboxes = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let id = path
                .file_name()
                .and_then(|n| n.to_str())
                .and_then(|n| n.parse().ok());
            let (Some(id), Some(spec)) = (id, read_json(&path.join("spec.json"))) else {
                continue;
            };
            let mut execs = BTreeMap::new();
            for file in fs::read_dir(&path)? {
                if let Some(record) = read_json::<ExecRecord>(&file?.path()) {
                    execs.insert(record.request.id.clone(), watch::channel(record).0);
                }
            }
            sandboxes.insert(
                id,
                Sandbox {
                    spec,
                    running: None,
                    execs,
                },
            );
        }
        Ok(Self {
            dir: dir.to_owned(),
            sandboxes: Mutex::new(sandboxes),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SandboxId, Sandbox>> {
        self.sandboxes
            .lock()
            .expect("no holder of this lock panics")
    }

    /// Takes a new sandbox in. Blocking.
    pub(crate) fn add(&self, id: SandboxId, spec: SandboxSpec) -> io::Result<()> {
        let dir = self.dir.join(id.to_string());
        fs::create_dir_all(&dir)?;
        write_json(&dir.join("spec.json"), &spec)?;
        self.lock().entry(id).or_insert(Sandbox {
            spec,
            running: None,
            execs: BTreeMap::new(),
        });
        Ok(())
    }

    /// Notes that a sandbox runs.
    pub(crate) fn running(&self, id: SandboxId, since: TimeMs) {
        if let Some(s) = self.lock().get_mut(&id) {
            s.running = Some(since);
        }
    }

    /// Forgets a sandbox and its execs. Blocking.
    pub(crate) fn remove(&self, id: SandboxId) -> io::Result<()> {
        self.lock().remove(&id);
        match fs::remove_dir_all(self.dir.join(id.to_string())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// The spec of a sandbox, and since when it runs.
    pub(crate) fn get(&self, id: SandboxId) -> Option<(SandboxSpec, Option<TimeMs>)> {
        self.lock().get(&id).map(|s| (s.spec.clone(), s.running))
    }

    /// Whether a sandbox is known.
    pub(crate) fn holds(&self, id: SandboxId) -> bool {
        self.lock().contains_key(&id)
    }

    /// Ids of all.
    pub(crate) fn ids(&self) -> Vec<SandboxId> {
        self.lock().keys().copied().collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.lock().len()).unwrap_or(u32::MAX)
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
        let receiver = {
            let mut all = self.lock();
            let Some(sandbox) = all.get_mut(&id) else {
                return Ok(None);
            };
            if let Some(found) = sandbox.execs.get(&request.id) {
                return Ok(Some((false, found.subscribe())));
            }
            let (sender, receiver) = watch::channel(record.clone());
            sandbox.execs.insert(request.id.clone(), sender);
            receiver
        };
        write_json(&self.exec_file(id, &request.id), &record)?;
        Ok(Some((true, receiver)))
    }

    /// Watches an exec.
    pub(crate) fn exec(&self, id: SandboxId, exec: &str) -> Option<watch::Receiver<ExecRecord>> {
        self.lock()
            .get(&id)?
            .execs
            .get(exec)
            .map(watch::Sender::subscribe)
    }

    /// Every exec of a sandbox, oldest first.
    pub(crate) fn execs(&self, id: SandboxId) -> Option<Vec<ExecRecord>> {
        let mut all: Vec<ExecRecord> = self
            .lock()
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
        if let Some(sender) = self.lock().get(&id).and_then(|s| s.execs.get(exec)) {
            sender.send_modify(|r| r.started = Some(at));
        }
    }

    /// Notes that an exec is over; its record is on disk when this returns. Blocking.
    pub(crate) fn exec_over(&self, id: SandboxId, exec: &str, report: RunReport) -> io::Result<()> {
        let record = {
            let all = self.lock();
            let Some(sender) = all.get(&id).and_then(|s| s.execs.get(exec)) else {
                return Ok(());
            };
            ExecRecord {
                report: Some(report),
                ..sender.borrow().clone()
            }
        };
        write_json(&self.exec_file(id, exec), &record)?;
        if let Some(sender) = self.lock().get(&id).and_then(|s| s.execs.get(exec)) {
            sender.send_replace(record);
        }
        Ok(())
    }

    fn exec_file(&self, id: SandboxId, exec: &str) -> PathBuf {
        self.dir
            .join(id.to_string())
            .join(format!("exec-{exec}.json"))
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Replaces a file whole. It must survive the daemon, not the machine: what it describes does not either.
fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, serde_json::to_vec(value)?)?;
    fs::rename(temporary, path)
}
