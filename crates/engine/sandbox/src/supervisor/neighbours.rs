//! Keeping a run that is always at its processor limit out of its neighbours' way.
//!
//! A quota says how long a run computes, not where: one with a quota of one processor is now on this one and now on that, one with
//! many threads on all of them for a part of the time, and whoever wakes up there waits for a tick of the kernel's scheduler. So a
//! run that is seen to use its limit up is held on as many processors as it needs, each of which is promised to no more held runs
//! than it can serve; the others are free for those who compute now and then, and the daemon, the supervisor and whoever starts
//! programs keep to them. Who is not always busy is held nowhere, since that would make two runs share one processor beside an idle
//! one. (Netflix's titus-isolate moves containers by predicted use, for the same reason.)

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use prism_sys::process::{self, Fork};
use prism_sys::processors;
use prism_sys::table::Entry;

use super::places::Places;
use super::run::{Kind, Run};
use super::state::Supervisor;
use crate::cgroup::Driver;
use crate::wire::Reply;

/// When a run is first looked at, after a program begins in it.
const FIRST: Duration = Duration::from_millis(50);

/// Between two looks at a run that is held, and the longest between two at one that is not.
const HELD: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(2);

/// Looking takes at most one in this many parts of a processor's time, and so many looks are one round: with thousands of runs
/// in which programs do nothing, each is looked at more seldom.
const SHARE: u32 = 100;
const ROUND: usize = 64;

/// What is known of a run's turns on the processors.
#[derive(Debug, Default)]
pub struct Crowding {
    /// When to look next; never while no program runs in it.
    next: Option<Instant>,
    wait: Duration,
    /// The processor time that it had taken when it was looked at last.
    last: Option<(Duration, Instant)>,
    /// Where it is held, as places.
    held: Option<Vec<usize>>,
}

/// What the supervisor keeps for all.
#[derive(Debug, Default)]
pub struct Neighbours {
    places: Places,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    /// When the next round of looks may begin.
    rested: Option<Instant>,
    /// Children that move processes, and the groups they do it for.
    movers: HashMap<u32, String>,
    /// What we keep to ourselves, if not to all.
    kept_to: Option<Vec<usize>>,
}

impl Neighbours {
    /// With the processors that this process may use.
    pub fn new() -> Self {
        processors::programs_may_use_mine();
        Self {
            places: Places::new(processors::mine()),
            ..Self::default()
        }
    }

    /// When there is something to look at.
    pub fn due(&self) -> Option<Instant> {
        let first = self.due.peek().map(|Reverse((at, _))| *at);
        first.map(|at| self.rested.map_or(at, |rested| at.max(rested)))
    }
}

/// What a run was found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It computes for three quarters of its limit or more.
    Crowds,
    /// For less than two fifths.
    Rests,
    Neither,
}

fn judge(used: Duration, elapsed: Duration, milli: u64) -> Verdict {
    // In parts of the limit, hundredfold.
    let share = used.as_micros() * 100_000;
    let most = elapsed.as_micros() * u128::from(milli);
    if share >= 75 * most {
        Verdict::Crowds
    } else if share < 40 * most {
        Verdict::Rests
    } else {
        Verdict::Neither
    }
}

impl Supervisor {
    /// A program begins in a run (or in its sandbox): looks at it soon, if it has a limit.
    pub(super) fn watch_turns(&mut self, index: usize) {
        let Some(run) = self.runs.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let milli = u64::from(run.limits.cpu.0);
        let can_hold = self.driver.as_deref().is_some_and(Driver::can_hold);
        let can = can_hold && milli > 0 && self.neighbours.places.leaves_any(milli);
        if can && run.crowding.next.is_none() && run.slot.is_some() {
            let at = Instant::now() + FIRST;
            run.crowding.next = Some(at);
            run.crowding.wait = FIRST;
            run.crowding.last = None;
            self.neighbours.due.push(Reverse((at, index)));
        }
    }

    /// Looks at those that are due.
    pub(super) fn look_at_turns(&mut self, now: Instant) {
        if self.neighbours.due().is_none_or(|at| at > now) {
            return;
        }
        let mut looks = 0;
        while let Some(Reverse((at, index))) = self.neighbours.due.pop() {
            if at > now || looks == ROUND {
                self.neighbours.due.push(Reverse((at, index)));
                break;
            }
            let this = self.run(index).filter(|run| run.crowding.next == Some(at));
            if this.is_some() {
                self.look_at_turns_of(index, now);
                looks += 1;
            }
        }
        self.neighbours.rested = (looks > 0).then(|| now + now.elapsed() * SHARE);
    }

    fn look_at_turns_of(&mut self, index: usize, now: Instant) {
        let (Some(run), Some(driver)) = (self.runs[index].as_mut(), self.driver.as_deref()) else {
            return;
        };
        let crowding = &mut run.crowding;
        crowding.next = None;
        let group = run.slot.as_ref().and_then(|slot| slot.group.as_ref());
        let Some(name) = group.map(|group| group.name.clone()) else {
            return;
        };
        let milli = u64::from(run.limits.cpu.0);
        let Some(used) = driver.used(&name) else {
            return;
        };
        let last = crowding.last.replace((used, now));
        let idle = run.kind == Kind::Sandbox && run.inner == 0;
        let verdict = match last {
            _ if idle => Verdict::Rests,
            Some((before, at)) => judge(used.saturating_sub(before), now - at, milli),
            None => Verdict::Neither,
        };
        match verdict {
            Verdict::Crowds if crowding.held.is_none() => {
                crowding.held = self.neighbours.places.take(milli);
                self.keep_to_the_rest();
            }
            Verdict::Rests => self.let_go(index),
            Verdict::Crowds | Verdict::Neither => {}
        }
        let Some(run) = self.runs[index].as_mut().filter(|_| !idle) else {
            return;
        };
        run.crowding.wait = match &run.crowding.held {
            Some(_) => HELD,
            None if last.is_none() => FIRST,
            None => (run.crowding.wait * 2).min(LATER),
        };
        let at = now + run.crowding.wait;
        run.crowding.next = Some(at);
        self.neighbours.due.push(Reverse((at, index)));
        if let Some(held) = &run.crowding.held {
            let cpus = self.neighbours.places.cpus(held);
            self.hold(name, &cpus);
        }
    }

    /// Moves a group's processes, by a child: the kernel has whoever does it wait.
    fn hold(&mut self, name: String, cpus: &[usize]) {
        let Some(driver) = self.driver.as_deref() else {
            return;
        };
        if self.neighbours.movers.values().any(|other| *other == name)
            || driver.is_held(&name, cpus)
        {
            return;
        }
        match process::fork(self.proof, 0, None) {
            Ok(Fork::Child) => {
                process::die_with_parent();
                let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    driver.hold(&name, cpus)
                }));
                process::exit(i32::from(!matches!(held, Ok(Ok(())))))
            }
            Ok(Fork::Parent(pid)) => {
                self.busy.insert(pid);
                self.neighbours.movers.insert(pid, name);
            }
            // No process to be had just now; the next look tries again.
            Err(_) => {}
        }
    }

    /// Whether a child that ended was one that moves processes.
    pub(super) fn mover_ended(&mut self, pid: u32) -> bool {
        let Some(name) = self.neighbours.movers.remove(&pid) else {
            return false;
        };
        let is_it = |run: &Run| {
            let group = run.slot.as_ref().and_then(|slot| slot.group.as_ref());
            run.crowding.held.is_some() && group.is_some_and(|group| group.name == name)
        };
        if !self.runs.iter().flatten().any(is_it)
            && let Some(driver) = self.driver.as_deref()
        {
            driver.let_go(&name);
        }
        true
    }

    /// Lets a run be on any processor again.
    fn let_go(&mut self, index: usize) {
        if let Some(mut run) = self.runs[index].take() {
            self.give_place_back(&mut run);
            self.runs[index] = Some(run);
        }
    }

    /// The same for one that is over.
    pub(super) fn give_place_back(&mut self, run: &mut Run) {
        let Some(held) = run.crowding.held.take() else {
            return;
        };
        let milli = u64::from(run.limits.cpu.0);
        self.neighbours.places.give_back(&held, milli);
        let group = run.slot.as_ref().and_then(|slot| slot.group.as_ref());
        if let (Some(driver), Some(group)) = (self.driver.as_deref(), group) {
            driver.let_go(&group.name);
        }
        self.keep_to_the_rest();
    }

    /// Has this process, the makers and the daemons keep to the processors that are left, if that changes. Programs are told apart
    /// from them when they begin.
    fn keep_to_the_rest(&mut self) {
        let rest = self.neighbours.places.rest();
        if rest == self.neighbours.kept_to {
            return;
        }
        let all = &self.neighbours.places.all;
        let to = rest.clone().unwrap_or_else(|| all.clone());
        self.neighbours.kept_to = rest;
        if self.is_narrow() {
            // Whoever is made from now on knows it, and so do those that are on their way.
            self.table[..self.runs.len()]
                .iter()
                .for_each(Entry::born_narrow);
        }
        for pid in self.maker_pids().chain([std::process::id()]) {
            // One that ends just now needs no place.
            let _ = processors::keep_to(pid, &to);
        }
        let told = Reply::KeepTo(to);
        for n in 0..self.peers.len() {
            let peer = self.peers[n].as_mut().filter(|peer| peer.is_greeted());
            if peer.is_some_and(|peer| peer.send(&told).is_err()) {
                self.drop_peer(n);
            }
        }
    }

    /// Whether the processes of Prism keep to some of the processors.
    pub(super) fn is_narrow(&self) -> bool {
        self.neighbours.kept_to.is_some()
    }

    /// What a daemon that has just come is told.
    pub(super) fn to_keep_to(&self) -> Option<Reply> {
        self.neighbours.kept_to.clone().map(Reply::KeepTo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_most_of_its_limit_crowds() {
        let judge = |used, milli| {
            let elapsed = Duration::from_millis(100);
            judge(Duration::from_millis(used), elapsed, milli)
        };
        assert_eq!(judge(100, 1_000), Verdict::Crowds);
        assert_eq!(judge(75, 1_000), Verdict::Crowds);
        assert_eq!(judge(74, 1_000), Verdict::Neither);
        assert_eq!(judge(40, 1_000), Verdict::Neither);
        assert_eq!(judge(39, 1_000), Verdict::Rests);
        assert_eq!(judge(39, 500), Verdict::Crowds);
        assert_eq!(judge(100, 4_000), Verdict::Rests);
        assert_eq!(judge(0, 1), Verdict::Rests);
    }
}
