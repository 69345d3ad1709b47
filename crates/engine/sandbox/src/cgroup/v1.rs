//! Cgroups of the first generation: a tree per controller. A process joins the ones that matter for it.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use prism_runtime::{Capability, Limits, Usage};

use crate::procfs;

use super::claim::{self, Claim};
use super::{Applied, Driver, Group, Outcome, wanted};

/// Order of a group's open files.
const MEMORY_JOIN: usize = 0;
const PIDS_JOIN: usize = 1;
const PEAK: usize = 2;
const OOM: usize = 3;
const REFUSED: usize = 4;
const PRESENT: usize = 5;

/// Through this file a thread moves itself without stopping the forks and exits of the whole host, as `cgroup.procs` does for a
/// grace period of the kernel; those that join here have one thread.
const JOIN: &str = "tasks";

/// How often the processes of a group are looked for that are to be held.
const HOLD_ROUNDS: usize = 8;

/// The controllers' parent groups; memory and pids are the least that is any use.
#[derive(Debug)]
pub struct V1 {
    memory: PathBuf,
    pids: PathBuf,
    cpu: Option<PathBuf>,
    io: Option<PathBuf>,
    cpuset: Option<PathBuf>,
    swap: bool,
    disks: Vec<String>,
    /// Kept for the driver's life.
    _claim: Claim,
}

impl V1 {
    /// Makes `prism/<instance>` in each tree, and claims it.
    ///
    /// # Errors
    /// Why memory and pids cannot be limited.
    pub fn prepare(mounts: &[(PathBuf, String)], instance: &str) -> Result<Self, String> {
        let (made, claim) = claim::made(|| Self::make_trees(mounts, instance), |v1| &v1.memory)?;
        Ok(Self {
            _claim: claim,
            ..made
        })
    }

    fn make_trees(mounts: &[(PathBuf, String)], instance: &str) -> Result<Self, String> {
        let tree = |controller: &str| -> Result<PathBuf, String> {
            let (at, _) = mounts
                .iter()
                .find(|(_, options)| options.split(',').any(|o| o == controller))
                .ok_or_else(|| format!("no cgroup controller {controller:?} is mounted"))?;
            let dir = at.join("prism").join(instance);
            fs::create_dir_all(&dir).map_err(|e| format!("make {}: {e}", dir.display()))?;
            Ok(dir)
        };
        let memory = tree("memory")?;
        Ok(Self {
            pids: tree("pids")?,
            cpu: tree("cpu").ok(),
            io: tree("blkio").ok(),
            cpuset: tree("cpuset").ok().filter(|dir| open_set(dir)),
            swap: memory.join("memory.memsw.limit_in_bytes").exists(),
            memory,
            disks: super::disks(),
            _claim: None,
        })
    }

    /// Another instance's, in the same trees.
    fn of(&self, instance: &str) -> Self {
        let renamed = |tree: &PathBuf| tree.with_file_name(instance);
        Self {
            memory: renamed(&self.memory),
            pids: renamed(&self.pids),
            cpu: self.cpu.as_ref().map(renamed),
            io: self.io.as_ref().map(renamed),
            cpuset: self.cpuset.as_ref().map(renamed),
            swap: self.swap,
            disks: Vec::new(),
            _claim: None,
        }
    }

    fn trees(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.memory, &self.pids]
            .into_iter()
            .chain(self.cpu.iter())
            .chain(self.io.iter())
            .chain(self.cpuset.iter())
    }

    /// Directories of a group that are made and joined only where there is a limit, since each join costs and they are rarely
    /// asked for.
    fn wanted_trees(&self, group: &Group) -> impl Iterator<Item = PathBuf> {
        let (cpu, io) = group.applied.map_or((0, 0), |a| (a.0, a.3));
        let cpu = self.cpu.as_ref().filter(|_| cpu > 0);
        let io = self.io.as_ref().filter(|_| io > 0);
        let name = group.name.clone();
        let dirs: Vec<PathBuf> = cpu.into_iter().chain(io).map(|t| t.join(&name)).collect();
        dirs.into_iter()
    }

    /// A group's processes that are not in its set of processors.
    fn outside(&self, name: &str, set: &Path) -> Vec<i32> {
        let within: HashSet<i32> = super::read_processes(&set.join("cgroup.procs"))
            .into_iter()
            .collect();
        let mut all = self.processes(name);
        all.retain(|pid| !within.contains(pid));
        all
    }

    fn set_memory(&self, dir: &Path, bytes: u64) -> Result<(), String> {
        let value = if bytes == 0 {
            "-1".to_owned()
        } else {
            bytes.to_string()
        };
        let ram = dir.join("memory.limit_in_bytes");
        let both = dir.join("memory.memsw.limit_in_bytes");
        if !self.swap {
            write(&dir.join("memory.swappiness"), "0")?;
            return write(&ram, &value);
        }
        // The kernel wants memory <= memory+swap at every step: which goes first depends on the direction.
        if write(&ram, &value).is_ok() {
            return write(&both, &value);
        }
        write(&both, &value)?;
        write(&ram, &value)
    }

    fn set_cpu(&self, name: &str, milli: u64) -> Result<(), String> {
        let Some(cpu) = &self.cpu else {
            return Err("this host has no cgroup controller \"cpu\"".into());
        };
        let dir = cpu.join(name);
        make_dir(&dir).map_err(|e| format!("make {}: {e}", dir.display()))?;
        let (quota, period) = super::quota(milli);
        write(&dir.join("cpu.cfs_period_us"), &period.to_string())?;
        write(&dir.join("cpu.cfs_quota_us"), &quota.to_string())
    }

    fn set_io(&self, name: &str, bytes: u64) -> Result<(), String> {
        let Some(io) = &self.io else {
            return Err("this host has no cgroup controller \"blkio\"".into());
        };
        let dir = io.join(name);
        make_dir(&dir).map_err(|e| format!("make {}: {e}", dir.display()))?;
        for disk in &self.disks {
            for file in [
                "blkio.throttle.read_bps_device",
                "blkio.throttle.write_bps_device",
            ] {
                write(&dir.join(file), &format!("{disk} {bytes}"))?;
            }
        }
        Ok(())
    }

    fn write_limits(&self, name: &str, old: Option<Applied>, new: Applied) -> Result<(), String> {
        let (cpu, memory, pids, io) = new;
        if old.is_none_or(|o| o.1 != memory) && (old.is_some() || memory != 0) {
            self.set_memory(&self.memory.join(name), memory)?;
        }
        if old.is_none_or(|o| o.2 != pids) {
            // One more for the sandbox's own first process, one for a helper on its way in.
            let max = if pids == 0 {
                "max".to_owned()
            } else {
                (u64::from(pids) + 2).to_string()
            };
            write(&self.pids.join(name).join("pids.max"), &max)?;
        }
        if cpu != 0 && old.is_none_or(|o| o.0 != cpu) {
            self.set_cpu(name, cpu)?;
        }
        if io != 0 && old.is_none_or(|o| o.3 != io) {
            self.set_io(name, io)?;
        }
        Ok(())
    }
}

/// Gives a new set of processors, and the one above it, all that those above have; until then nothing can be in it. Says whether it
/// has any.
fn open_set(dir: &Path) -> bool {
    let above = dir.parent().into_iter();
    above.chain([dir]).all(|dir| {
        ["cpuset.cpus", "cpuset.mems"].iter().all(|file| {
            let from = dir.parent().and_then(|up| super::read(&up.join(file)));
            let has = |text: String| !text.trim().is_empty();
            super::read(&dir.join(file)).is_some_and(has)
                || from.is_some_and(|value| write(&dir.join(file), value.trim()).is_ok())
        })
    })
}

fn write(path: &Path, value: &str) -> Result<(), String> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut f| f.write_all(value.as_bytes()))
        .map_err(|e| format!("write {value:?} to {}: {e}", path.display()))
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

fn read_at_start(file: BorrowedFd<'_>) -> Option<String> {
    let mut buffer = [0u8; 512];
    let n = rustix::io::pread(file, &mut buffer, 0).ok()?;
    String::from_utf8(buffer[..n].to_vec()).ok()
}

fn open(path: &Path, write: bool) -> io::Result<OwnedFd> {
    fs::OpenOptions::new()
        .read(true)
        .write(write)
        .open(path)
        .map(OwnedFd::from)
}

impl Driver for V1 {
    fn make(&self, name: &str) -> io::Result<Group> {
        let memory = self.memory.join(name);
        make_dir(&memory)?;
        make_dir(&self.pids.join(name))?;
        let files = vec![
            open(&memory.join(JOIN), true)?,
            open(&self.pids.join(name).join(JOIN), true)?,
            open(&memory.join("memory.max_usage_in_bytes"), true)?,
            open(&memory.join("memory.oom_control"), false)?,
            open(&self.pids.join(name).join("pids.events"), false)?,
            open(&self.pids.join(name).join("pids.current"), false)?,
        ];
        Ok(Group {
            name: name.to_owned(),
            files,
            joins: Vec::new(),
            applied: None,
            held: 0,
            kills_before: 0,
            refused_before: 0,
        })
    }

    fn apply(&self, group: &mut Group, limits: &Limits) -> Result<(), String> {
        let new = wanted(limits);
        if group.applied != Some(new) {
            let old = group.applied.take();
            self.write_limits(&group.name, old, new)?;
            group.applied = Some(new);
            self.open_joins(group)
                .map_err(|e| format!("open cgroup {}: {e}", group.name))?;
        }
        if let Some(peak) = group.files.get(PEAK) {
            // Reset, it is what is charged now.
            let _ = rustix::io::pwrite(peak, b"0", 0);
            group.held = read_at_start(peak.as_fd())
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0);
        }
        group.kills_before = self.kills(group);
        group.refused_before = self.refused(group);
        Ok(())
    }

    fn clone_into<'a>(&self, _group: &'a Group) -> Option<BorrowedFd<'a>> {
        None
    }

    fn joins<'a>(&self, group: &'a Group) -> Vec<BorrowedFd<'a>> {
        let always = [MEMORY_JOIN, PIDS_JOIN];
        let always = always.iter().filter_map(|i| group.files.get(*i));
        always.chain(&group.joins).map(AsFd::as_fd).collect()
    }

    fn open_joins(&self, group: &mut Group) -> io::Result<()> {
        let dirs = self.wanted_trees(group);
        group.joins = dirs
            .map(|dir| open(&dir.join(JOIN), true))
            .collect::<io::Result<_>>()?;
        Ok(())
    }

    fn kills(&self, group: &Group) -> u64 {
        let text = match group.files.get(OOM) {
            Some(file) => read_at_start(file.as_fd()),
            None => super::read(&self.memory.join(&group.name).join("memory.oom_control")),
        };
        text.and_then(|t| super::field(&t, "oom_kill")).unwrap_or(0)
    }

    fn refused(&self, group: &Group) -> u64 {
        let text = match group.files.get(REFUSED) {
            Some(file) => read_at_start(file.as_fd()),
            None => super::read(&self.pids.join(&group.name).join("pids.events")),
        };
        text.and_then(|t| super::field(&t, "max")).unwrap_or(0)
    }

    fn outcome(&self, group: &Group) -> Outcome {
        let peak = match group.files.get(PEAK) {
            Some(file) => read_at_start(file.as_fd()).and_then(|t| t.trim().parse().ok()),
            None => super::read_number(
                &self
                    .memory
                    .join(&group.name)
                    .join("memory.max_usage_in_bytes"),
            ),
        };
        Outcome {
            peak,
            out_of_memory: self.kills(group) > group.kills_before,
            pids_refused: self.refused(group).saturating_sub(group.refused_before),
        }
    }

    fn usage(&self, name: &str) -> Usage {
        let pids = super::read_number(&self.pids.join(name).join("pids.current")).unwrap_or(0);
        Usage {
            cpu_us: 0,
            memory: super::read_number(&self.memory.join(name).join("memory.usage_in_bytes"))
                .unwrap_or(0),
            pids: u32::try_from(pids).unwrap_or(u32::MAX),
        }
    }

    fn can_hold(&self) -> bool {
        self.cpu.is_some() && self.cpuset.is_some()
    }

    fn used(&self, name: &str) -> Option<Duration> {
        let dir = self.cpu.as_ref()?.join(name);
        if let Some(ns) = super::read_number(&dir.join("cpuacct.usage")) {
            return Some(Duration::from_nanos(ns));
        }
        // The two controllers are not mounted together.
        let each = self.processes(name).into_iter();
        let each = each.map(|pid| procfs::usage(pid.cast_unsigned()).0);
        Some(Duration::from_micros(each.sum()))
    }

    fn hold(&self, name: &str, cpus: &[usize]) -> io::Result<()> {
        let Some(set) = &self.cpuset else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let dir = set.join(name);
        make_dir(&dir)?;
        let mems = fs::read_to_string(set.join("cpuset.mems"))?;
        fs::write(dir.join("cpuset.mems"), mems.trim())?;
        fs::write(dir.join("cpuset.cpus"), super::list(cpus))?;
        // Children are born where their parents are; what is forked while the list is read is found in the next round.
        for _ in 0..HOLD_ROUNDS {
            let outside = self.outside(name, &dir);
            if outside.is_empty() {
                break;
            }
            for pid in outside {
                // It may be gone.
                let _ = fs::write(dir.join("cgroup.procs"), pid.to_string());
            }
        }
        Ok(())
    }

    fn is_held(&self, name: &str, cpus: &[usize]) -> bool {
        let Some(dir) = self.cpuset.as_ref().map(|set| set.join(name)) else {
            return true;
        };
        let set = super::read(&dir.join("cpuset.cpus"));
        set.is_some_and(|set| set.trim() == super::list(cpus))
            && self.outside(name, &dir).is_empty()
    }

    fn let_go(&self, name: &str) {
        let Some(set) = &self.cpuset else {
            return;
        };
        let dir = set.join(name);
        // With nothing left in it, it can go.
        if fs::remove_dir(&dir).is_err()
            && let Some(all) = super::read(&set.join("cpuset.cpus"))
        {
            let _ = fs::write(dir.join("cpuset.cpus"), all.trim());
        }
    }

    fn processes(&self, name: &str) -> Vec<i32> {
        super::read_processes(&self.pids.join(name).join("cgroup.procs"))
    }

    fn is_empty(&self, group: &Group) -> bool {
        group
            .files
            .get(PRESENT)
            .and_then(|file| read_at_start(file.as_fd()))
            .is_some_and(|text| text.trim() == "0")
    }

    fn kill(&self, name: &str) -> bool {
        // A process that forks while the list is read is caught in the next round.
        for _ in 0..50 {
            let mut found = self.processes(name);
            found.extend(super::read_processes(
                &self.memory.join(name).join("cgroup.procs"),
            ));
            if found.is_empty() {
                return true;
            }
            super::kill_all(&found);
        }
        false
    }

    fn remove(&self, name: &str) {
        for tree in self.trees() {
            let _ = fs::remove_dir(tree.join(name));
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .trees()
            .flat_map(|tree| super::subdirectories(tree))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn parent(&self) -> &Path {
        &self.memory
    }

    fn others(&self) -> Vec<Box<dyn Driver>> {
        let names = super::instances_beside(&self.memory).into_iter();
        names
            .map(|name| Box::new(self.of(&name)) as Box<dyn Driver>)
            .collect()
    }

    fn remove_parent(&self) {
        // The one that is claimed goes last, so that what is left of an instance can be claimed.
        let mut trees: Vec<&PathBuf> = self.trees().collect();
        trees.reverse();
        for tree in trees {
            let _ = fs::remove_dir(tree);
        }
    }

    fn capabilities(&self) -> Vec<Capability> {
        let none = PathBuf::new();
        let line = |name: &str, at: Option<&PathBuf>, lost: &str| {
            super::capability(name, at.unwrap_or(&none), at.is_some(), lost)
        };
        vec![
            line("memory", Some(&self.memory), ""),
            line("pids", Some(&self.pids), ""),
            line(
                "cpu",
                self.cpu.as_ref(),
                "runs with a cpu limit are refused; mount the cpu controller",
            ),
            line("cpuset", self.cpuset.as_ref(), super::NO_SETS),
            line(
                "io",
                self.io.as_ref(),
                "runs with an io limit are refused; mount the blkio controller",
            ),
        ]
    }
}
