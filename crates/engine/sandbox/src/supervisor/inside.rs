//! Programs in sandboxes that run already: into its cgroup and its namespaces, by a helper that starts it as our child.

use prism_runtime::{Exec, Limits};
use prism_sys::process::{self, Fork};
use prism_types::{Bytes, MilliCpu, RunId, RunReport};

use super::disk::Account;
use super::launch::{Ends, check_program, fresh, streams};
use super::run::{Kind, Phase};
use super::state::{Supervisor, now};
use crate::cgroup::{Driver, Group};
use crate::child::{self, Each};
use crate::maker::{Brought, Work};
use crate::slots::{Slot, group_name};

impl Supervisor {
    /// Takes in a program for a sandbox, which may still be on its way up.
    pub(super) fn accept_exec(&mut self, exec: Exec) {
        if self.early.iter().any(|e| e.id == exec.id) {
            return;
        }
        if self.knows(&exec.id) {
            self.tell_again(&exec.id);
            return;
        }
        let starting = match self.by_id.get(&exec.inside) {
            Some(index) => self.runs[*index]
                .as_ref()
                .is_some_and(|r| r.phase == Phase::Starting),
            None => self.queue.contains(&exec.inside),
        };
        if starting {
            self.early.push(exec);
        } else if let Err(why) = self.exec(&exec) {
            self.refuse(exec.id, exec.logs, RunReport::not_started(now(), why));
        }
    }

    /// Begins the programs that waited for this sandbox (or tells that it is not there).
    pub(super) fn exec_early(&mut self, inside: RunId) {
        let (now_possible, later) = std::mem::take(&mut self.early)
            .into_iter()
            .partition(|e| e.inside == inside);
        self.early = later;
        let now_possible: Vec<Exec> = now_possible;
        now_possible.into_iter().for_each(|e| self.accept_exec(e));
    }

    fn exec(&mut self, exec: &Exec) -> Result<(), String> {
        check_program(&exec.program)?;
        let parent = *self
            .by_id
            .get(&exec.inside)
            .ok_or_else(|| format!("sandbox {} does not run", exec.inside))?;
        let sandbox = self.runs[parent].as_ref().ok_or("the sandbox is gone")?;
        if !matches!(sandbox.kind, Kind::Sandbox | Kind::Task) || sandbox.ending.is_some() {
            return Err(format!("{} is no running sandbox", exec.inside));
        }
        let file = sandbox.account.as_ref().map_or(0, Account::bytes);
        let each = Each::of(&sandbox.limits).with_files_of(file);
        let init = sandbox.pid;
        let driver = self.driver.as_deref();
        let open = sandbox.slot.as_ref().and_then(|slot| slot.group.as_ref());
        let open = open.filter(|group| group.is_open());
        let made = match driver.zip(sandbox.slot.as_ref()) {
            Some((driver, slot)) if open.is_none() => {
                Some(enter_group(driver, slot, &sandbox.limits)?)
            }
            _ => None,
        };
        let grouped = driver.zip(made.as_ref().or(open));
        let kills = grouped.map_or(0, |(d, g)| d.kills(g));
        let refused = grouped.map_or(0, |(d, g)| d.refused(g));
        let index = self.place().ok_or("too many runs are live on this node")?;
        let begun = self.start_inside((index, parent), (init, each), made.as_ref(), exec);
        let (ends, pid) = match begun {
            Ok(begun) => begun,
            Err(e) => {
                self.free.push(index);
                return Err(format!("start a process: {e}"));
            }
        };
        self.keep_group(parent, made);
        if let Some(sandbox) = self.run(parent) {
            sandbox.inner += 1;
        }
        let limits = no_limits(exec.log_bytes);
        let (id, kind) = (exec.id.clone(), Kind::Exec(parent));
        let mut run = fresh(id, kind, ends, &exec.logs, &limits);
        run.kills_before = kills;
        run.refused_before = refused;
        self.adopt(index, run, pid, exec.timeout);
        Ok(())
    }

    /// Makes the streams of a program in a sandbox, and the helper that starts it: by a maker, or by a fork. `made` is the
    /// sandbox's cgroup if this program is its first.
    fn start_inside(
        &mut self,
        (index, parent): (usize, usize),
        inside: (u32, Each),
        made: Option<&Group>,
        exec: &Exec,
    ) -> std::io::Result<(Ends, u32)> {
        let (ends, stdio) = streams(Some(&exec.program), &exec.logs, exec.log_bytes)?;
        let maker = self.free_maker();
        let slot = self.runs[parent].as_ref().and_then(|run| run.slot.as_ref());
        let group = made.or_else(|| slot.and_then(|slot| slot.group.as_ref()));
        let grouped = self.driver.as_deref().zip(group);
        let brought = Brought {
            net: None,
            user: None,
            into: grouped.and_then(|(driver, group)| driver.clone_into(group)),
            joins: grouped.map_or_else(Vec::new, |(driver, group)| driver.joins(group)),
        };
        let work = Work::Exec(inside.0, inside.1, &exec.program);
        if let Some(n) = maker.filter(|n| self.order(*n, index, work, &brought, &stdio)) {
            self.ordered(n, index, &exec.id);
            return Ok((ends, 0));
        }
        // What the child needs is named here: runs are not there after a fork.
        let ctx = self.context(index);
        match process::fork(self.proof, 0, brought.into)? {
            Fork::Parent(pid) => Ok((ends, pid)),
            Fork::Child => child::exec(&ctx, inside, &brought.joins, &exec.program, stdio),
        }
    }

    /// A sandbox's first program made its cgroup.
    fn keep_group(&mut self, sandbox: usize, group: Option<Group>) {
        let slot = self.run(sandbox).and_then(|run| run.slot.as_mut());
        if let (Some(slot), Some(mut group)) = (slot, group)
            && slot.group.is_none()
        {
            group.close();
            slot.group = Some(group);
        }
    }
}

/// The cgroup of a sandbox, open for a program to join; made, with its limits, if this is the first.
fn enter_group(driver: &dyn Driver, slot: &Slot, limits: &Limits) -> Result<Group, String> {
    let name = group_name(slot.index);
    let mut group = driver
        .make(&name)
        .map_err(|e| format!("open the sandbox's cgroup: {e}"))?;
    match &slot.group {
        Some(known) => {
            group.take_limits(known);
            driver
                .open_joins(&mut group)
                .map_err(|e| format!("open the sandbox's cgroup: {e}"))?;
        }
        None => driver.apply(&mut group, limits)?,
    }
    Ok(group)
}

fn no_limits(log_bytes: u64) -> Limits {
    Limits {
        cpu: MilliCpu(0),
        memory: Bytes(0),
        pids: 0,
        nofile: 0,
        io_bytes_per_s: 0,
        timeout: None,
        log_bytes,
    }
}
