//! Slots: what a sandbox needs from the kernel and can be used again by the next one (a cgroup, a network namespace, a user
//! namespace with ids of its own). One slot serves one live run; it goes back to the pool when everything in it is dead.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use prism_runtime::Limits;
use prism_sys::process::SingleThread;
use prism_sys::{creds, namespaces};

use crate::cgroup::{Driver, Group};

/// Ids that one slot owns.
const IDS: u32 = 65_536;

/// First id of slot 0; below it are the host's users and the usual sub-id ranges.
const FIRST_ID: u32 = 0x1000_0000;

/// Slots that fit between [`FIRST_ID`] and the end of 32 bits.
const WINDOW: u32 = 60_000;

/// Most slots that one supervisor uses.
pub const MAX_SLOTS: u32 = 20_000;

/// Most slots that are prepared ahead while nothing happens, and kept when nothing uses them. A node that was asked for a sandbox
/// prepares so many: they come in bursts, and the first is to be as quick as the next.
const MAX_POOLED: usize = 64;

/// Fewest slots that are prepared ahead, and how many for each run that was ever live beside others. Each has nine descriptors, which
/// every plain program's start copies and closes.
const WARM: usize = 8;
const WARM_EACH: usize = 2;

/// One slot.
#[derive(Debug)]
pub struct Slot {
    /// Its number among this supervisor's.
    pub index: u32,
    /// The id outside that is 0 inside; 0 when ids are the same inside and outside.
    pub base: u32,
    /// Its cgroup.
    pub group: Option<Group>,
    /// Its network namespace, with loopback only.
    pub net: Option<OwnedFd>,
    /// Its user namespace.
    pub user: Option<OwnedFd>,
    /// Whether its descriptors were given up while its run lives on.
    parked: bool,
}

impl Slot {
    /// Gives up the descriptors; the run keeps everything alive by itself. For runs that may be many or long.
    pub fn park(&mut self) {
        self.net = None;
        self.user = None;
        if let Some(group) = &mut self.group {
            group.close();
        }
        self.parked = true;
    }
}

/// What a run needs of its slot.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Namespaces; only plain runs do without.
    pub namespaces: bool,
    /// A cgroup. A sandbox gets along without until its first program: nothing but our own code runs in it, and the kernel's cost
    /// of a memory cgroup grows with the number of file systems and the other way round.
    pub group: bool,
}

impl Needs {
    /// How many slots are worth preparing ahead once there is a run with these needs beside others.
    fn worth_ahead(self, live: usize) -> usize {
        let sandbox = self.namespaces && !self.group;
        if sandbox {
            MAX_POOLED
        } else {
            (WARM_EACH * live).min(MAX_POOLED)
        }
    }
}

/// The name of a slot's cgroup.
pub fn group_name(index: u32) -> String {
    format!("s{index}")
}

/// The pool.
pub struct Slots {
    proof: SingleThread,
    offset: u32,
    mapped: bool,
    free: Vec<Slot>,
    next: u32,
    returned: BTreeSet<u32>,
    /// Slots in use.
    live: usize,
    /// How many are worth preparing ahead, by what was ever in use at once.
    warm: usize,
    /// Slots of plain runs whose processes are being killed.
    draining: Vec<Slot>,
}

impl Slots {
    /// `mapped`: whether every slot gets ids of its own (root), or all share the one of the user. `seed` spreads the ids of several
    /// supervisors on one host.
    pub fn new(proof: SingleThread, mapped: bool, seed: u32) -> Self {
        Self {
            proof,
            offset: seed % WINDOW,
            mapped,
            free: Vec::new(),
            next: 0,
            returned: BTreeSet::new(),
            live: 0,
            warm: WARM,
            draining: Vec::new(),
        }
    }

    /// A slot for a run with these limits.
    ///
    /// # Errors
    /// What could not be made, and why.
    pub fn take(
        &mut self,
        driver: Option<&dyn Driver>,
        limits: &Limits,
        needs: Needs,
    ) -> Result<Slot, String> {
        let mut slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.make(driver, needs.group)?,
        };
        let mut ready = self.prepare(&mut slot, driver, limits, needs);
        let left = slot.group.as_ref().map_or(0, Group::held);
        if ready.is_ok() && limits.memory.0 != 0 && left > limits.memory.0 / 2 {
            // An earlier run has left files in memory, outside of its sandbox: they are not to be this one's.
            self.discard(slot, driver);
            slot = self.make(driver, needs.group)?;
            ready = self.prepare(&mut slot, driver, limits, needs);
        }
        match ready {
            Ok(()) => {
                self.live += 1;
                self.warm = self.warm.max(needs.worth_ahead(self.live));
                Ok(slot)
            }
            Err(e) => {
                self.discard(slot, driver);
                Err(e)
            }
        }
    }

    fn make(&mut self, driver: Option<&dyn Driver>, group: bool) -> Result<Slot, String> {
        let index = match self.returned.pop_first() {
            Some(index) => index,
            None if self.next < MAX_SLOTS => {
                self.next += 1;
                self.next - 1
            }
            None => return Err(format!("{MAX_SLOTS} runs are live on this node already")),
        };
        let wanted = driver.filter(|_| group);
        let group = match wanted.map(|d| d.make(&group_name(index))).transpose() {
            Ok(group) => group,
            Err(e) => {
                self.returned.insert(index);
                return Err(format!("make a cgroup: {e}"));
            }
        };
        let base = if self.mapped {
            FIRST_ID + (self.offset + index) % WINDOW * IDS
        } else {
            0
        };
        Ok(Slot {
            index,
            base,
            group,
            net: None,
            user: None,
            parked: false,
        })
    }

    fn prepare(
        &self,
        slot: &mut Slot,
        driver: Option<&dyn Driver>,
        limits: &Limits,
        needs: Needs,
    ) -> Result<(), String> {
        if let (Some(driver), true) = (driver, needs.group) {
            if slot.group.is_none() {
                let made = driver.make(&group_name(slot.index));
                slot.group = Some(made.map_err(|e| format!("make a cgroup: {e}"))?);
            }
            if let Some(group) = &mut slot.group {
                driver.apply(group, limits)?;
            }
        } else if let (Some(driver), Some(group)) = (driver, &mut slot.group) {
            driver.apply(group, limits)?;
        }
        if needs.namespaces && (slot.net.is_none() || slot.user.is_none()) {
            let (net, user) = self
                .make_namespaces(slot.base)
                .map_err(|e| format!("make namespaces: {e}"))?;
            slot.net = Some(net);
            slot.user = Some(user);
        }
        Ok(())
    }

    /// A network namespace and a user namespace. The first is not the second's: nobody in the second has any power over it.
    pub(crate) fn make_namespaces(&self, base: u32) -> io::Result<(OwnedFd, OwnedFd)> {
        let net = namespaces::network(self.proof)?;
        let user = namespaces::users(self.proof, |pid| map_child(pid, base, self.mapped))?;
        Ok((net, user))
    }

    /// Whether preparing a slot ahead would help.
    pub fn is_cold(&self) -> bool {
        self.free.len() < self.warm
    }

    /// Prepares one slot ahead.
    pub fn warm(&mut self, driver: Option<&dyn Driver>) {
        if self.is_cold()
            && let Ok(mut slot) = self.make(driver, true)
        {
            if let Ok((net, user)) = self.make_namespaces(slot.base) {
                slot.net = Some(net);
                slot.user = Some(user);
            }
            self.free.insert(0, slot);
        }
    }

    /// Takes a slot back whose run is over and whose processes are all dead.
    pub fn give_back(&mut self, slot: Slot, driver: Option<&dyn Driver>) {
        self.live = self.live.saturating_sub(1);
        let mut slot = slot;
        if self.free.len() < MAX_POOLED && reopen(&mut slot, driver) {
            self.free.push(slot);
        } else {
            self.discard(slot, driver);
        }
    }

    /// Takes a slot back whose processes may still be dying; [`Slots::drain`] finishes it.
    pub fn give_back_dying(&mut self, slot: Slot) {
        self.draining.push(slot);
    }

    /// Kills on in slots that were given back dying; true while there are some.
    pub fn drain(&mut self, driver: Option<&dyn Driver>) -> bool {
        for slot in std::mem::take(&mut self.draining) {
            let dead = match (driver, &slot.group) {
                (Some(driver), Some(group)) => driver.is_empty(group) || driver.kill(&group.name),
                _ => true,
            };
            if dead {
                self.give_back(slot, driver);
            } else {
                self.draining.push(slot);
            }
        }
        !self.draining.is_empty()
    }

    fn discard(&mut self, slot: Slot, driver: Option<&dyn Driver>) {
        if let (Some(driver), Some(group)) = (driver, &slot.group) {
            driver.remove(&group.name);
        }
        self.returned.insert(slot.index);
    }

    /// Removes the pooled slots' groups, for a shutdown.
    pub fn clear(&mut self, driver: Option<&dyn Driver>) {
        for slot in std::mem::take(&mut self.free) {
            self.discard(slot, driver);
        }
    }
}

/// Opens the cgroup of a slot again, if it was parked; its namespaces are gone. To make and remove a cgroup costs the kernel by the
/// number of file systems, which is that of the sandboxes that live. Says whether the slot can be used.
fn reopen(slot: &mut Slot, driver: Option<&dyn Driver>) -> bool {
    if !slot.parked {
        return true;
    }
    let Some((driver, known)) = driver.zip(slot.group.as_ref()) else {
        return false;
    };
    let Ok(mut group) = driver.make(&known.name) else {
        return false;
    };
    group.take_limits(known);
    if driver.open_joins(&mut group).is_err() {
        return false;
    }
    slot.group = Some(group);
    slot.parked = false;
    true
}

/// Gives a new user namespace its ids: a range of its own, or the supervisor's own as root.
fn map_child(pid: u32, base: u32, mapped: bool) -> io::Result<()> {
    let map = if mapped {
        format!("0 {base} {IDS}\n")
    } else {
        "0 0 1\n".to_owned()
    };
    if !mapped {
        fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    }
    fs::write(format!("/proc/{pid}/uid_map"), &map)?;
    fs::write(format!("/proc/{pid}/gid_map"), &map)
}

/// Maps root of the parent namespace to `uid` and `gid` in this new one.
///
/// # Errors
/// The kernel's.
pub fn map_self(uid: u32, gid: u32) -> io::Result<()> {
    map_own(uid, 0, gid, 0)
}

/// Maps one outer user and group into this new user namespace.
///
/// # Errors
/// The kernel's.
pub fn map_own(uid: u32, outer_uid: u32, gid: u32, outer_gid: u32) -> io::Result<()> {
    // Needed before a group may be mapped without privilege; already so where an outer namespace forbade it.
    let _ = fs::write("/proc/self/setgroups", "deny");
    fs::write("/proc/self/uid_map", format!("{uid} {outer_uid} 1\n"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {outer_gid} 1\n"))
}

/// The user and group that this process really is.
pub fn own_ids() -> (u32, u32) {
    (creds::uid(), creds::gid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_have_slots_made_ahead_and_tasks_have_as_many_as_they_were_at_once() {
        let needs = |namespaces, group| Needs { namespaces, group };
        let (sandbox, task, plain) = (needs(true, false), needs(true, true), needs(false, true));
        assert_eq!(sandbox.worth_ahead(1), MAX_POOLED);
        for each in [task, plain] {
            assert_eq!(each.worth_ahead(3), 3 * WARM_EACH);
            assert_eq!(each.worth_ahead(10_000), MAX_POOLED);
        }
    }
}
