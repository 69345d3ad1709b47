//! The states that people see. Their names are fixed: clients match on them.

use serde::{Deserialize, Serialize};

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every state, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name that clients see.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

states! {
    /// A task: `QUEUED -> ASSIGNED -> RUNNING -> COMPLETED | FAILED | RETRYING (-> QUEUED) | CANCELLED`.
    TaskState {
        /// Waits for a place.
        Queued = "QUEUED",
        /// Given to a node, not started there yet.
        Assigned = "ASSIGNED",
        /// Runs.
        Running = "RUNNING",
        /// Ended well; its one result is recorded.
        Completed = "COMPLETED",
        /// Ended badly and will not be tried again; its one result is recorded.
        Failed = "FAILED",
        /// Failed or was lost, and waits to be tried again.
        Retrying = "RETRYING",
        /// Ended by request before it finished.
        Cancelled = "CANCELLED",
    }
}

impl TaskState {
    /// Whether nothing will change it any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

states! {
    /// A job or sweep.
    JobState {
        /// No task has been placed yet, or it waits for other jobs.
        Queued = "QUEUED",
        /// Some task has been placed.
        Running = "RUNNING",
        /// Every task completed.
        Completed = "COMPLETED",
        /// It failed: no task completed, or more failed than `max_failures` allows.
        Failed = "FAILED",
        /// It ended with some tasks completed and some not.
        PartiallyCompleted = "PARTIALLY_COMPLETED",
        /// Ended by request.
        Cancelled = "CANCELLED",
    }
}

impl JobState {
    /// Whether nothing will change it any more.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

states! {
    /// A node, by its lease.
    NodeState {
        /// Its lease is fresh.
        Healthy = "HEALTHY",
        /// Its lease is late; nothing new is placed on it.
        Suspect = "SUSPECT",
        /// Its lease ran out; its tasks run elsewhere.
        Offline = "OFFLINE",
    }
}

states! {
    /// A sandbox.
    SandboxState {
        /// Waits for a place.
        Pending = "PENDING",
        /// Placed, being started.
        Starting = "STARTING",
        /// Runs and takes execs.
        Running = "RUNNING",
        /// Being removed.
        Stopping = "STOPPING",
        /// Gone, by request or at the end of its lease of life.
        Stopped = "STOPPED",
        /// Could not start, or died; the reason says why.
        Failed = "FAILED",
    }
}

impl SandboxState {
    /// Whether nothing will change it any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }
}
