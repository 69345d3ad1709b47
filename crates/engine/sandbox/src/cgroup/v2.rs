//! Cgroups of the second generation: one tree, and processes are cloned straight into their group.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use prism_runtime::{Capability, Limits, Usage};

use super::claim::{self, Claim};
use super::{Driver, Group, Outcome, wanted};

const DIRECTORY: usize = 0;

/// The parent group and the controllers that its groups have.
#[derive(Debug)]
pub struct V2 {
    parent: PathBuf,
    controllers: Vec<String>,
    disks: Vec<String>,
    /// Kept for the driver's life.
    _claim: Claim,
}

impl V2 {
    /// Makes `prism/<instance>` in the tree, or in the part of it that was given to this user, and claims it.
    ///
    /// # Errors
    /// Why memory and pids cannot be limited.
    pub fn prepare(root: &Path, instance: &str) -> Result<Self, String> {
        let (made, claim) = claim::made(|| Self::make_parent(root, instance), |v2| &v2.parent)?;
        Ok(Self {
            _claim: claim,
            ..made
        })
    }

    fn make_parent(root: &Path, instance: &str) -> Result<Self, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let own = own
            .lines()
            .find_map(|l| l.strip_prefix("0::/"))
            .unwrap_or_default();
        let base = if fs::create_dir_all(root.join("prism")).is_ok() {
            root.to_owned()
        } else {
            let base = root.join(own);
            // Controllers are only handed down from a group without processes, so step aside first.
            let aside = base.join("prism-supervisor");
            fs::create_dir_all(&aside)
                .and_then(|()| fs::write(aside.join("cgroup.procs"), "0"))
                .map_err(|e| format!("no part of the cgroup tree may be written: {e}"))?;
            base
        };
        let parent = base.join("prism").join(instance);
        fs::create_dir_all(&parent).map_err(|e| format!("make {}: {e}", parent.display()))?;
        for dir in [&base, &base.join("prism"), &parent] {
            for controller in ["memory", "pids", "cpu", "io", "cpuset"] {
                let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        let controllers = fs::read_to_string(parent.join("cgroup.subtree_control"))
            .map_err(|e| e.to_string())?
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>();
        let driver = Self {
            parent,
            controllers,
            disks: super::disks(),
            _claim: None,
        };
        if driver.has("memory") && driver.has("pids") {
            Ok(driver)
        } else {
            driver.remove_parent();
            Err("the cgroup tree hands down no memory and pids controllers".into())
        }
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }

    fn kills_of(&self, name: &str) -> u64 {
        super::read(&self.parent.join(name).join("memory.events"))
            .and_then(|t| super::field(&t, "oom_kill"))
            .unwrap_or(0)
    }
}

fn write(path: &Path, value: &str) -> Result<(), String> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut f| f.write_all(value.as_bytes()))
        .map_err(|e| format!("write {value:?} to {}: {e}", path.display()))
}

fn or_max(value: u64) -> String {
    if value == 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

impl Driver for V2 {
    fn make(&self, name: &str) -> io::Result<Group> {
        let dir = self.parent.join(name);
        match fs::create_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        Ok(Group {
            name: name.to_owned(),
            files: vec![OwnedFd::from(fs::File::open(&dir)?)],
            joins: Vec::new(),
            applied: None,
            held: 0,
            kills_before: 0,
            refused_before: 0,
        })
    }

    fn apply(&self, group: &mut Group, limits: &Limits) -> Result<(), String> {
        let new = wanted(limits);
        let (cpu, memory, pids, io) = new;
        if group.applied != Some(new) {
            group.applied = None;
            let dir = self.parent.join(&group.name);
            write(&dir.join("memory.max"), &or_max(memory))?;
            for (file, value) in [("memory.swap.max", "0"), ("memory.oom.group", "0")] {
                if dir.join(file).exists() {
                    write(&dir.join(file), value)?;
                }
            }
            let pids = if pids == 0 { 0 } else { u64::from(pids) + 2 };
            write(&dir.join("pids.max"), &or_max(pids))?;
            if self.has("cpu") {
                let (quota, period) = match cpu {
                    0 => (0, 100_000),
                    cpu => super::quota(cpu),
                };
                write(&dir.join("cpu.max"), &format!("{} {period}", or_max(quota)))?;
            } else if cpu != 0 {
                return Err("this host hands down no cgroup controller \"cpu\"".into());
            }
            if io != 0 && !self.has("io") {
                return Err("this host hands down no cgroup controller \"io\"".into());
            }
            for disk in self.disks.iter().filter(|_| self.has("io")) {
                let bps = or_max(io);
                write(
                    &dir.join("io.max"),
                    &format!("{disk} rbps={bps} wbps={bps}"),
                )?;
            }
            group.applied = Some(new);
        }
        let current = self.parent.join(&group.name).join("memory.current");
        group.held = super::read_number(&current).unwrap_or(0);
        group.kills_before = self.kills_of(&group.name);
        group.refused_before = self.refused(group);
        Ok(())
    }

    fn clone_into<'a>(&self, group: &'a Group) -> Option<BorrowedFd<'a>> {
        group.files.get(DIRECTORY).map(AsFd::as_fd)
    }

    fn joins<'a>(&self, _group: &'a Group) -> Vec<BorrowedFd<'a>> {
        Vec::new()
    }

    fn open_joins(&self, _group: &mut Group) -> io::Result<()> {
        Ok(())
    }

    fn kills(&self, group: &Group) -> u64 {
        self.kills_of(&group.name)
    }

    fn refused(&self, group: &Group) -> u64 {
        let events = self.parent.join(&group.name).join("pids.events");
        let text = super::read(&events).unwrap_or_default();
        super::field(&text, "max").unwrap_or(0)
    }

    fn outcome(&self, group: &Group) -> Outcome {
        Outcome {
            // The kernel's peak is of the group's whole life; a pooled group lives through many runs, so the caller's own
            // count of the run is used instead.
            peak: None,
            out_of_memory: self.kills_of(&group.name) > group.kills_before,
            pids_refused: self.refused(group).saturating_sub(group.refused_before),
        }
    }

    fn usage(&self, name: &str) -> Usage {
        let dir = self.parent.join(name);
        let pids = super::read_number(&dir.join("pids.current")).unwrap_or(0);
        Usage {
            cpu_us: 0,
            memory: super::read_number(&dir.join("memory.current")).unwrap_or(0),
            pids: u32::try_from(pids).unwrap_or(u32::MAX),
        }
    }

    fn can_hold(&self) -> bool {
        self.has("cpu") && self.has("cpuset")
    }

    fn used(&self, name: &str) -> Option<Duration> {
        let counted = super::read(&self.parent.join(name).join("cpu.stat"))?;
        super::field(&counted, "usage_usec").map(Duration::from_micros)
    }

    fn hold(&self, name: &str, cpus: &[usize]) -> io::Result<()> {
        fs::write(
            self.parent.join(name).join("cpuset.cpus"),
            super::list(cpus),
        )
    }

    fn is_held(&self, name: &str, cpus: &[usize]) -> bool {
        let set = super::read(&self.parent.join(name).join("cpuset.cpus"));
        set.is_some_and(|set| set.trim() == super::list(cpus))
    }

    fn let_go(&self, name: &str) {
        // Empty, it is as if it had never been written.
        let _ = fs::write(self.parent.join(name).join("cpuset.cpus"), "\n");
    }

    fn processes(&self, name: &str) -> Vec<i32> {
        super::read_processes(&self.parent.join(name).join("cgroup.procs"))
    }

    fn is_empty(&self, group: &Group) -> bool {
        super::read_number(&self.parent.join(&group.name).join("pids.current")) == Some(0)
    }

    fn kill(&self, name: &str) -> bool {
        let dir = self.parent.join(name);
        for _ in 0..50 {
            let found = self.processes(name);
            if found.is_empty() {
                return true;
            }
            if fs::write(dir.join("cgroup.kill"), "1").is_err() {
                super::kill_all(&found);
            }
        }
        false
    }

    fn remove(&self, name: &str) {
        let _ = fs::remove_dir(self.parent.join(name));
    }

    fn names(&self) -> Vec<String> {
        super::subdirectories(&self.parent)
    }

    fn parent(&self) -> &Path {
        &self.parent
    }

    fn others(&self) -> Vec<Box<dyn Driver>> {
        let of = |instance: String| Self {
            parent: self.parent.with_file_name(instance),
            controllers: self.controllers.clone(),
            disks: Vec::new(),
            _claim: None,
        };
        let names = super::instances_beside(&self.parent).into_iter();
        names
            .map(|name| Box::new(of(name)) as Box<dyn Driver>)
            .collect()
    }

    fn remove_parent(&self) {
        let _ = fs::remove_dir(&self.parent);
    }

    fn capabilities(&self) -> Vec<Capability> {
        ["memory", "pids", "cpu", "io", "cpuset"]
            .iter()
            .map(|c| {
                let lost = match *c {
                    "cpuset" => super::NO_SETS.to_owned(),
                    c => format!("runs with a limit of {c} are refused; hand the controller down"),
                };
                super::capability(c, &self.parent, self.has(c), &lost)
            })
            .collect()
    }
}
