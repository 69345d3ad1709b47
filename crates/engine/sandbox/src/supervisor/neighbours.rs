//! Keeping a run that is always at its processor limit out of its neighbours' way.
//!
//! A quota says how long a run computes, not where: one with many threads and a quota of one processor is on all of them for a part
//! of the time, and whoever wakes up then waits for a tick of the kernel's scheduler. So a run that is seen to be stopped by its
//! quota again and again is held on as many processors as its limit needs, each of which is promised to no more held runs than it
//! can serve; the others are free for those who compute now and then. Who is not always busy is held nowhere, since that would make
//! two runs share one processor beside an idle one. (Netflix's titus-isolate moves containers by predicted use, for the same reason.)

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use prism_sys::process::{self, Fork};

use super::run::Kind;
use super::state::Supervisor;
use crate::cgroup::{self, Turns};

/// When a run is first looked at, after a program begins in it.
const FIRST: Duration = Duration::from_millis(100);

/// Between two looks at a run that is held, and the longest between two at one that is not.
const HELD: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(2);

/// What is known of a run's turns on the processors.
#[derive(Debug, Default)]
pub struct Crowding {
    /// When to look next; never while no program runs in it.
    next: Option<Instant>,
    wait: Duration,
    /// What was found last, and when.
    last: Option<(Turns, Instant)>,
    /// Where it is held, as places.
    held: Option<Vec<usize>>,
}

/// What the supervisor keeps for all.
#[derive(Debug, Default)]
pub struct Neighbours {
    places: Places,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Children that move processes, and the groups they do it for.
    movers: HashMap<u32, String>,
}

impl Neighbours {
    /// With the processors that this process may use.
    pub fn new() -> Self {
        let may = rustix::thread::sched_getaffinity(None).ok();
        let most = rustix::thread::CpuSet::MAX_CPU;
        let cpus = (0..most).filter(|cpu| may.as_ref().is_some_and(|may| may.is_set(*cpu)));
        Self {
            places: Places::new(cpus.collect()),
            ..Self::default()
        }
    }

    /// When there is something to look at.
    pub fn due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }
}

/// What is promised of each processor to runs that are held on it.
#[derive(Debug, Default)]
struct Places {
    cpus: Vec<usize>,
    taken: Vec<u64>,
}

impl Places {
    fn new(cpus: Vec<usize>) -> Self {
        let taken = vec![0; cpus.len()];
        Self { cpus, taken }
    }

    /// How many processors a limit in thousandths needs, and what it takes of each.
    fn need(milli: u64) -> (usize, u64) {
        let cpus = milli.div_ceil(1_000).max(1);
        let share = milli.div_ceil(cpus);
        (usize::try_from(cpus).unwrap_or(usize::MAX), share)
    }

    /// Whether there is any other processor for its neighbours.
    fn leaves_any(&self, milli: u64) -> bool {
        Self::need(milli).0 < self.cpus.len()
    }

    /// Places for a limit where there is room for it: the least taken, of these the last, as the first processors are those that
    /// most devices interrupt.
    fn take(&mut self, milli: u64) -> Option<Vec<usize>> {
        let (cpus, share) = Self::need(milli);
        if !self.leaves_any(milli) {
            return None;
        }
        let mut order: Vec<usize> = (0..self.cpus.len()).collect();
        order.sort_by_key(|place| (self.taken[*place], Reverse(*place)));
        order.truncate(cpus);
        if order.iter().any(|place| self.taken[*place] + share > 1_000) {
            return None;
        }
        order.sort_unstable();
        for place in &order {
            self.taken[*place] += share;
        }
        Some(order)
    }

    fn give_back(&mut self, held: &[usize], milli: u64) {
        let (_, share) = Self::need(milli);
        for place in held {
            self.taken[*place] = self.taken[*place].saturating_sub(share);
        }
    }

    fn cpus(&self, held: &[usize]) -> Vec<usize> {
        held.iter().map(|place| self.cpus[*place]).collect()
    }
}

/// What becomes of a run that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Its quota stopped it in half of its turns or more, and it had turns all the time.
    Crowds,
    /// It did nothing for half of the time or more.
    Rests,
    Neither,
}

fn judge(before: Turns, now: Turns, elapsed: Duration, period: Duration) -> Verdict {
    let periods = now.periods.saturating_sub(before.periods);
    let stopped = now.stopped.saturating_sub(before.stopped);
    let all = elapsed.as_micros() / period.as_micros().max(1);
    if u128::from(periods) * 2 < all {
        Verdict::Rests
    } else if stopped * 2 >= periods && periods > 0 {
        Verdict::Crowds
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
        let can = milli > 0 && self.neighbours.places.leaves_any(milli);
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
        while self.neighbours.due().is_some_and(|at| at <= now) {
            let Some(Reverse((at, index))) = self.neighbours.due.pop() else {
                return;
            };
            let this = self.run(index).filter(|run| run.crowding.next == Some(at));
            if this.is_some() {
                self.look_at_turns_of(index, now);
            }
        }
    }

    fn look_at_turns_of(&mut self, index: usize, now: Instant) {
        let (Some(run), Some(driver)) = (self.runs[index].as_mut(), self.driver.as_deref()) else {
            return;
        };
        let crowding = &mut run.crowding;
        crowding.next = None;
        let group = run.slot.as_ref().and_then(|slot| slot.group.as_ref());
        let name = group.map(|group| group.name.clone());
        let Some((name, turns)) = name.and_then(|name| driver.turns(&name).map(|t| (name, t)))
        else {
            return;
        };
        let milli = u64::from(run.limits.cpu.0);
        let verdict = crowding.last.map_or(Verdict::Neither, |(before, at)| {
            judge(before, turns, now - at, cgroup::period(milli))
        });
        let first = crowding.last.replace((turns, now)).is_none();
        let idle = run.kind == Kind::Sandbox && run.inner == 0;
        match verdict {
            Verdict::Crowds if crowding.held.is_none() => {
                crowding.held = self.neighbours.places.take(milli);
            }
            Verdict::Rests => self.let_go(index),
            Verdict::Crowds | Verdict::Neither => {}
        }
        if idle {
            self.let_go(index);
            return;
        }
        let Some(run) = self.runs[index].as_mut() else {
            return;
        };
        run.crowding.wait = match &run.crowding.held {
            Some(_) => HELD,
            None if first => FIRST,
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
        if self.neighbours.movers.values().any(|other| *other == name) || driver.is_held(&name, cpus)
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
        let is_it = |run: &crate::supervisor::run::Run| {
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
    pub(super) fn give_place_back(&mut self, run: &mut super::run::Run) {
        let Some(held) = run.crowding.held.take() else {
            return;
        };
        let milli = u64::from(run.limits.cpu.0);
        self.neighbours.places.give_back(&held, milli);
        let group = run.slot.as_ref().and_then(|slot| slot.group.as_ref());
        if let (Some(driver), Some(group)) = (self.driver.as_deref(), group) {
            driver.let_go(&group.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(periods: u64, stopped: u64) -> Turns {
        Turns { periods, stopped }
    }

    #[test]
    fn who_is_stopped_again_and_again_crowds() {
        let judge = |periods, stopped| {
            let (elapsed, period) = (Duration::from_millis(100), Duration::from_millis(10));
            judge(turns(7, 3), turns(7 + periods, 3 + stopped), elapsed, period)
        };
        assert_eq!(judge(10, 10), Verdict::Crowds);
        assert_eq!(judge(10, 5), Verdict::Crowds);
        assert_eq!(judge(5, 5), Verdict::Crowds);
        assert_eq!(judge(10, 4), Verdict::Neither);
        assert_eq!(judge(4, 4), Verdict::Rests);
        assert_eq!(judge(0, 0), Verdict::Rests);
    }

    #[test]
    fn held_runs_get_places_of_their_own_while_there_are_any() {
        let mut places = Places::new(vec![0, 1, 4, 5]);
        let first = places.take(1_000).unwrap();
        assert_eq!(places.cpus(&first), [5]);
        let wide = places.take(1_500).unwrap();
        assert_eq!(places.cpus(&wide), [1, 4]);
        let small = places.take(300).unwrap();
        assert_eq!(places.cpus(&small), [0]);
        // 700 are left of processor 0, 250 of 1 and of 4.
        assert_eq!(places.take(1_000), None);
        assert_eq!(places.take(700).map(|p| places.cpus(&p)), Some(vec![0]));
        assert_eq!(places.take(250).map(|p| places.cpus(&p)), Some(vec![4]));
        places.give_back(&wide, 1_500);
        assert_eq!(places.take(1_000).map(|p| places.cpus(&p)), Some(vec![1]));
    }

    #[test]
    fn what_takes_all_processors_is_not_held() {
        let mut places = Places::new(vec![0, 1]);
        assert!(places.leaves_any(1_000));
        for milli in [1_001, 2_000, 64_000, u64::from(u32::MAX)] {
            assert_eq!(places.take(milli), None);
        }
        assert_eq!(Places::new(vec![0]).take(1), None);
        assert_eq!(Places::default().take(1), None);
    }
}
