//! Runs that may not live beyond a moment unless their daemon moves it. The moment is one of the clock that goes on while the machine
//! sleeps, and so is the timer: whoever is frozen in time is killed when it wakes. That the daemon is stopped or dead changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use prism_runtime::BootMs;
use prism_types::{LEASE_KILL, Millis, RunId, RunReport, StopCause};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

use super::state::{Supervisor, now};

/// The moment now.
fn boot_now() -> BootMs {
    let now = clock_gettime(ClockId::Boottime);
    BootMs::of(now.tv_sec, now.tv_nsec)
}

/// Which runs end when: by run, and in the order of their ends, as the next one is asked for in every round of the loop.
#[derive(Debug, Default)]
struct Ends {
    of: BTreeMap<RunId, BootMs>,
    order: BTreeSet<(BootMs, RunId)>,
}

impl Ends {
    /// A run has an end, in place of the one that it had.
    fn set(&mut self, id: RunId, until: BootMs) {
        self.remove(&id);
        self.order.insert((until, id.clone()));
        self.of.insert(id, until);
    }

    fn remove(&mut self, id: &RunId) {
        if let Some((id, end)) = self.of.remove_entry(id) {
            self.order.remove(&(end, id));
        }
    }

    /// Moves the end of a run that has one; never to an earlier moment.
    fn renew(&mut self, id: &RunId, until: BootMs) {
        if self.of.get(id).is_some_and(|end| *end < until) {
            self.set(id.clone(), until);
        }
    }

    /// Takes out those whose end has come, the earliest first.
    fn take_due(&mut self, now: BootMs) -> Vec<RunId> {
        let mut due = Vec::new();
        while self.next().is_some_and(|end| end <= now)
            && let Some((_, id)) = self.order.pop_first()
        {
            self.of.remove(&id);
            due.push(id);
        }
        due
    }

    fn next(&self) -> Option<BootMs> {
        self.order.first().map(|(end, _)| *end)
    }
}

/// The leases of a supervisor's runs, and the timer that wakes it for the next end.
#[derive(Debug)]
pub struct Leases {
    ends: Ends,
    timer: OwnedFd,
    armed: Option<BootMs>,
}

impl Leases {
    /// None yet.
    ///
    /// # Errors
    /// When the kernel gives no timer.
    pub fn new() -> std::io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self {
            ends: Ends::default(),
            timer: timerfd_create(TimerfdClockId::Boottime, flags)?,
            armed: None,
        })
    }

    /// What is readable when an end has come.
    pub fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// A run has a lease.
    pub fn grant(&mut self, id: RunId, until: BootMs) {
        self.ends.set(id, until);
    }

    /// A run is over.
    pub fn over(&mut self, id: &RunId) {
        self.ends.remove(id);
    }

    /// Sets the timer to the next end.
    pub fn arm(&mut self) {
        let next = self.ends.next();
        if next == self.armed {
            return;
        }
        // All zeros would disarm it.
        let at = next.map_or(0, |at| at.0.max(1));
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Timespec {
            tv_sec: i64::try_from(at / 1_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(at % 1_000 * 1_000_000).unwrap_or_default(),
        };
        let timer = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        match timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &timer) {
            Ok(_) => self.armed = next,
            // No moment that can be said is refused; if one is, it is tried again in the next round.
            Err(e) => super::say(&format!("cannot set the timer of leases: {e}")),
        }
    }
}

/// The report of a run whose lease was over before it began.
pub fn too_late() -> RunReport {
    RunReport {
        cause: StopCause::LeaseExpired,
        ..RunReport::not_started(now(), why())
    }
}

fn why() -> String {
    format!(
        "its node had no answer of a leader for {LEASE_KILL}, and it may run once only, so it was ended before another node begins it; it is tried again, and uses up no retry"
    )
}

impl Supervisor {
    /// Whether what is asked for with this lease may begin; notes the lease.
    pub(super) fn lease(&mut self, id: &RunId, until: BootMs) -> bool {
        let in_time = boot_now() < until;
        if in_time {
            self.leases.grant(id.clone(), until);
        }
        in_time
    }

    /// Moves the ends of runs that are not being ended.
    pub(super) fn renew(&mut self, ids: &[RunId], until: BootMs) {
        for id in ids {
            let index = self.by_id.get(id).copied();
            let ending = index.and_then(|i| self.run(i)?.ending);
            if ending.is_none() {
                self.leases.ends.renew(id, until);
            }
        }
    }

    /// Ends what is at the end of its lease.
    pub(super) fn end_leases(&mut self) {
        let _all_are_looked_at = rustix::io::read(self.leases.timer(), &mut [0_u8; 8]);
        // Fired, it is set no more.
        self.leases.armed = None;
        for id in self.leases.ends.take_due(boot_now()) {
            for launch in self.queue.take_out(std::slice::from_ref(&id)) {
                self.refuse(launch.id, launch.logs, too_late());
            }
            self.release();
            let Some(index) = self.by_id.get(&id).copied() else {
                continue;
            };
            if let Some(run) = self.run(index)
                && run.ending.is_none()
            {
                run.trouble = Some(why());
            }
            self.end(index, StopCause::LeaseExpired, Millis(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> RunId {
        RunId::new(format!("r{n}")).unwrap()
    }

    #[test]
    fn an_end_is_moved_forward_only_and_comes_once() {
        let mut ends = Ends::default();
        ends.set(id(1), BootMs(10));
        ends.set(id(2), BootMs(20));
        ends.renew(&id(1), BootMs(5));
        assert_eq!(ends.next(), Some(BootMs(10)));
        ends.renew(&id(1), BootMs(30));
        ends.renew(&id(3), BootMs(1));
        assert_eq!(
            ends.next(),
            Some(BootMs(20)),
            "one without a lease gets none"
        );
        assert!(ends.take_due(BootMs(19)).is_empty());
        assert_eq!(ends.take_due(BootMs(20)), [id(2)]);
        assert!(ends.take_due(BootMs(29)).is_empty());
        assert_eq!(ends.take_due(BootMs(40)), [id(1)]);
        assert_eq!(ends.next(), None);
    }

    /// Whatever is done to them, in any order, they are as a plain map of runs to ends is.
    #[test]
    fn the_order_of_ends_is_that_of_a_plain_map() {
        let mut seed = 1_u64;
        let mut draw = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let (mut ends, mut plain) = (Ends::default(), BTreeMap::new());
        for _ in 0..20_000 {
            let run = id(u32::try_from(draw(20)).unwrap());
            let at = BootMs(draw(100));
            match draw(4) {
                0 => {
                    ends.set(run.clone(), at);
                    plain.insert(run, at);
                }
                1 => {
                    ends.renew(&run, at);
                    plain.entry(run).and_modify(|end| *end = at.max(*end));
                }
                2 => {
                    ends.remove(&run);
                    plain.remove(&run);
                }
                _ => {
                    let now = BootMs(draw(30));
                    let mut due: Vec<_> = plain.extract_if(.., |_, end| *end <= now).collect();
                    due.sort_by_key(|(run, end)| (*end, run.clone()));
                    let due: Vec<RunId> = due.into_iter().map(|(run, _)| run).collect();
                    assert_eq!(ends.take_due(now), due);
                }
            }
            assert_eq!(ends.next(), plain.values().min().copied());
            assert_eq!(ends.of, plain);
            assert_eq!(ends.order.len(), plain.len());
        }
    }

    #[test]
    fn the_timer_fires_at_an_end_that_is_past() {
        let mut leases = Leases::new().unwrap();
        let mut count = [0; 8];
        assert!(rustix::io::read(leases.timer(), &mut count).is_err());
        leases.grant(id(1), BootMs(boot_now().0.saturating_sub(1)));
        leases.arm();
        assert!(rustix::io::read(leases.timer(), &mut count).is_ok());
        leases.over(&id(1));
        leases.arm();
        assert!(rustix::io::read(leases.timer(), &mut count).is_err());
    }
}
