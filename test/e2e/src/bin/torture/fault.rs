//! What can go wrong in an epoch.

use rustix::io::Errno;

use prism_e2e::chaos::{Daemon, Shim};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9` of `prismd`.
    KillPrismd,
    /// `kill -9` of its supervisor.
    KillSupervisor,
    /// Both.
    KillBoth,
    /// `kill -9` of `prismctl run`.
    KillRun,
    /// A sync of the store's log fails.
    SyncFails,
    /// A write to the store's log fails.
    WriteFails,
    /// The supervisor's journal finds no room.
    JournalFull,
    /// Every sync takes a while.
    SlowDisk,
    /// The wall clock is an hour ahead.
    ClockAhead,
    /// The wall clock is an hour behind.
    ClockBehind,
    /// None; only control by people: cancel, pause, resume.
    None,
}

impl Fault {
    /// All kinds.
    pub const ALL: &[Self] = &[
        Self::KillPrismd,
        Self::KillSupervisor,
        Self::KillBoth,
        Self::KillRun,
        Self::SyncFails,
        Self::WriteFails,
        Self::JournalFull,
        Self::SlowDisk,
        Self::ClockAhead,
        Self::ClockBehind,
        Self::None,
    ];

    /// Its name in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillPrismd => "prismd",
            Self::KillSupervisor => "supervisor",
            Self::KillBoth => "both",
            Self::KillRun => "prismctl_run",
            Self::SyncFails => "sync_fails",
            Self::WriteFails => "write_fails",
            Self::JournalFull => "journal_full",
            Self::SlowDisk => "slow_disk",
            Self::ClockAhead => "clock_ahead",
            Self::ClockBehind => "clock_behind",
            Self::None => "none",
        }
    }

    /// Whether something is killed.
    pub fn is_kill(self) -> bool {
        matches!(
            self,
            Self::KillPrismd | Self::KillSupervisor | Self::KillBoth | Self::KillRun
        )
    }

    /// Whether sandboxes may be lost by it.
    pub fn ends_sandboxes(self) -> bool {
        matches!(self, Self::KillSupervisor | Self::KillBoth)
    }

    /// Whether `prismd` ends by itself because of it.
    pub fn ends_prismd(self) -> bool {
        matches!(self, Self::SyncFails | Self::WriteFails)
    }

    /// Tells the shim of it.
    pub fn begin(self, shim: &Shim, daemon: &Daemon, after: u32) {
        const HOUR_MS: i64 = 3_600_000;
        let log = daemon.data().join("store/log");
        match self {
            Self::SyncFails => shim.fail("sync", &log, Errno::IO, after),
            Self::WriteFails => shim.fail("write", &log, Errno::IO, after),
            Self::JournalFull => {
                let journal = daemon.data().join("supervisor/journal");
                shim.fail("write", &journal, Errno::NOSPC, 0);
            }
            Self::SlowDisk => shim.slow("sync", &log, 100),
            Self::ClockAhead => shim.clock(HOUR_MS),
            Self::ClockBehind => shim.clock(-HOUR_MS),
            Self::KillPrismd
            | Self::KillSupervisor
            | Self::KillBoth
            | Self::KillRun
            | Self::None => {}
        }
    }
}
