//! Which children have ended. Asking the kernel for any of them costs by their number, and ten thousand idle sandboxes are as many
//! children that do not end: so with many of them, those are asked about that may end now, and all only now and then.

use std::time::{Duration, Instant};

use prism_sys::process;

use super::state::Supervisor;

/// With this many children or fewer, any is asked for.
const FEW: usize = 256;

/// How soon all are looked at when a child has ended among many: an idle sandbox's first process may have been killed by somebody.
const ALL_AGAIN: Duration = Duration::from_millis(100);

/// A record of the signal descriptor, and where in it the child's number is (`signalfd_siginfo`, `ssi_pid`).
const RECORD: usize = 128;
const CHILD: std::ops::Range<usize> = 12..16;

impl Supervisor {
    /// Takes every child that has ended.
    pub(super) fn reap(&mut self) {
        let told = self.read_signals();
        // What children told before they ended comes first.
        if !self.starting.is_empty() || !self.in_lanes.is_empty() {
            self.hear_children();
        }
        if self.by_pid.len() + self.helpers.len() <= FEW {
            self.reap_any();
        } else {
            let may_end: Vec<u32> = told.into_iter().chain(self.busy.iter().copied()).collect();
            for pid in may_end {
                if let Ok(Some(ended)) = process::reap(Some(pid), false) {
                    self.busy.remove(&pid);
                    self.on_exit(ended);
                }
            }
            let soon = Instant::now() + ALL_AGAIN;
            self.reap_all_at.get_or_insert(soon);
        }
        if self.helpers.is_empty() {
            self.stray.clear();
        }
    }

    /// Looks at all children, if that is due.
    pub(super) fn reap_all(&mut self, now: Instant) {
        if self.reap_all_at.is_some_and(|at| at <= now) {
            self.reap_all_at = None;
            self.reap_any();
        }
    }

    fn reap_any(&mut self) {
        while let Ok(Some(ended)) = process::reap(None, false) {
            self.busy.remove(&ended.pid);
            self.on_exit(ended);
        }
    }

    /// The children that signals tell of: at least one if any has ended, but not all, as signals are joined.
    fn read_signals(&self) -> Vec<u32> {
        let mut told = Vec::new();
        let mut records = [0; RECORD * 8];
        while let Ok(n) = rustix::io::read(&self.signals, &mut records) {
            for record in records[..n].chunks_exact(RECORD) {
                if let Some(Ok(pid)) = record.get(CHILD).map(<[u8; 4]>::try_from) {
                    told.push(u32::from_ne_bytes(pid));
                }
            }
            if n < records.len() {
                break;
            }
        }
        told
    }
}
