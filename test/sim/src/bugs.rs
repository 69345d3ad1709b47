//! Faults planted on purpose, to show that the simulation finds them. They live in the simulated shells only.

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// A planted fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug { $($(#[doc = $doc])+ $name),+ }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

bugs! {
    /// The leader answers before its commit is durable.
    AckBeforeCommit = "ack-before-commit",
    /// The log says that it is on disk when it is not.
    SkipFsync = "skip-fsync",
    /// The state machine carries out writes under any fence.
    FenceNotChecked = "fence-not-checked",
    /// A heartbeat renews the node's lease whatever session it came in.
    OldHeartbeatRenews = "old-heartbeat-renews",
    /// A result that is delivered again is written down again.
    RecordedTwice = "recorded-twice",
    /// A client repeats a request without its key.
    RetryWithoutKey = "retry-without-key",
    /// The end of a run is told before it is in the journal.
    ReportedBeforeJournal = "reported-before-journal",
    /// A restarted worker says that it has a result, and never tells it.
    WorkerForgets = "worker-forgets",
    /// How far the log is applied is written apart from what that gave.
    AppliedApart = "applied-apart",
    /// A vote is not written down.
    VoteNotPersisted = "vote-not-persisted",
    /// A server with data bootstraps a cluster when it starts.
    BootstrapOverData = "bootstrap-over-data",
    /// A worker that comes back keeps running what was given to others.
    SupersededNotStopped = "superseded-not-stopped",
    /// The result of an old attempt is taken for the present one.
    LateResultRecorded = "late-result-recorded",
    /// A worker adds the lanes that a new session tells it to those that it has.
    CapacityTwice = "capacity-counted-twice",
    /// A snapshot does not hold the fence.
    SnapshotLosesFence = "snapshot-loses-fence",
    /// A stop is sent once, and not again in the next session.
    CancelLost = "cancel-lost",
    /// A leader answers reads without asking whether it still leads.
    StaleRead = "stale-read",
    /// A heartbeat makes a node healthy whose work was given away, in the same session.
    OfflineKeepsSession = "offline-keeps-session",
    /// The session of a worker that does not keep up ends, and its connection does not.
    FullKeepsConnection = "full-keeps-connection",
    /// A new leader's clock starts at its wall clock, whatever the state says.
    ClockBehind = "clock-behind",
    /// A follower appends without looking at the entry before.
    LogNotMatched = "log-not-matched",
    /// A watch that fell behind goes on as if nothing were missing.
    WatchSkips = "watch-skips",
    /// A new leader does not load the idempotency keys.
    KeysNotLoaded = "keys-not-loaded",
    /// A supervisor lets a run live beyond its lease.
    LeaseOutlived = "lease-outlived",
    /// A node is given up, and what may run once only begun elsewhere, before its lease is over.
    LeaseNotAwaited = "lease-not-awaited",
    /// A leader takes what a worker holds for what it should hold, whatever their sums are.
    DifferenceMissed = "difference-missed",
    /// A failed sync is tried again instead of ending the server.
    SyncRetried = "sync-retried",
}

impl std::str::FromStr for Bug {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let found = Self::ALL.iter().find(|b| b.name() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|b| b.name()).collect();
            anyhow::anyhow!("no bug {text:?}: expected one of {}", names.join(", "))
        })
    }
}
