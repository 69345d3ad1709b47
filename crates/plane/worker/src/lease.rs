//! The node's lease, under which it runs what may run once only: from the moment at which it asked a question that a leader has answered.
//!
//! It says until when such runs may live; whoever runs them ends them then, whatever becomes of this process. Never says who leads.

use prism_runtime::BootMs;
use prism_types::LEASE_KILL;
use rustix::time::{ClockId, clock_gettime};

/// The moment now.
pub(crate) fn boot_now() -> BootMs {
    let now = clock_gettime(ClockId::Boottime);
    BootMs::of(now.tv_sec, now.tv_nsec)
}

/// Until when.
#[derive(Debug, Default)]
pub(crate) struct Lease(Option<BootMs>);

impl Lease {
    /// The question that was sent then is answered. Answers until when runs may live now.
    pub(crate) fn renewed(&mut self, sent: BootMs, now: BootMs) -> BootMs {
        // Nothing was sent in the future.
        let until = BootMs(sent.min(now).0 + LEASE_KILL.0);
        let latest = self.0.map_or(until, |before| before.max(until));
        self.0 = Some(latest);
        latest
    }

    /// Until when a run may live that begins now; `None` if none may begin.
    pub(crate) fn at(&self, now: BootMs) -> Option<BootMs> {
        self.0.filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_from_the_question_and_not_from_the_answer() {
        let mut lease = Lease::default();
        assert_eq!(lease.at(BootMs(0)), None, "nobody has answered yet");
        let until = lease.renewed(BootMs(1_000), BootMs(9_000));
        assert_eq!(until, BootMs(1_000 + LEASE_KILL.0));
        assert_eq!(lease.at(BootMs(until.0 - 1)), Some(until));
        assert_eq!(lease.at(until), None);
    }

    #[test]
    fn a_late_answer_takes_nothing_away_and_a_false_one_gives_nothing() {
        let mut lease = Lease::default();
        let until = lease.renewed(BootMs(5_000), BootMs(5_010));
        assert_eq!(lease.renewed(BootMs(2_000), BootMs(5_020)), until);
        let most = BootMs(6_000 + LEASE_KILL.0);
        assert_eq!(lease.renewed(BootMs(u64::MAX), BootMs(6_000)), most);
    }
}
