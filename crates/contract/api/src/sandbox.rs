//! Sandboxes on the wire.

use prism_types::{Labels, NodeId, Reason, Resources, SandboxId, SandboxState, TimeMs};

wire! {
    /// A sandbox to make.
    #[request]
    pub struct SandboxCreate {
        /// Its name; unique among the living.
        pub name: Option<String>,
        /// Whose it is; `default` unless said.
        pub namespace: Option<String>,
        /// Root file system: `host` (unless said) or a loaded image.
        pub image: Option<String>,
        /// Snapshot to start from.
        pub snapshot: Option<String>,
        /// What it is given, and limited to.
        pub resources: Option<Resources>,
        /// Most processes and threads.
        pub pids: Option<u32>,
        /// Environment of every exec.
        pub env: Option<Labels>,
        /// Its lease of life, such as `30m`; one hour unless said, `0` for ever.
        pub timeout: Option<String>,
        /// For finding it again.
        pub labels: Option<Labels>,
    }

    /// A sandbox.
    pub struct SandboxView {
        /// Its id.
        pub id: SandboxId,
        /// Its name.
        pub name: Option<String>,
        /// Whose it is.
        pub namespace: String,
        /// Its state.
        pub status: SandboxState,
        /// Root file system.
        pub image: String,
        /// The snapshot it started from.
        pub snapshot: Option<String>,
        /// What it is given.
        pub resources: Resources,
        /// Most processes and threads.
        pub pids: u32,
        /// Id of its node.
        pub node_id: Option<NodeId>,
        /// Name of its node.
        pub node: Option<String>,
        /// Its labels.
        pub labels: Labels,
        /// When it was accepted.
        pub created: TimeMs,
        /// When it started.
        pub started: Option<TimeMs>,
        /// When it was over.
        pub finished: Option<TimeMs>,
        /// When its lease of life ends.
        pub expires: Option<TimeMs>,
        /// Why it is not running.
        pub reason: Option<Reason>,
        /// The same for people.
        pub message: Option<String>,
    }

    /// A new lease of life for a sandbox, counted from now.
    #[request]
    pub struct TimeoutBody {
        /// Such as `30m`; for ever when left out.
        pub timeout: Option<String>,
    }
}

impl SandboxCreate {
    /// A sandbox with every default.
    pub const fn empty() -> Self {
        Self {
            name: None,
            namespace: None,
            image: None,
            snapshot: None,
            resources: None,
            pids: None,
            env: None,
            timeout: None,
            labels: None,
        }
    }
}
