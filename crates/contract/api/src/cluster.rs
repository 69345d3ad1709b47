//! Cluster and nodes on the wire.

use prism_types::{Labels, Name, NodeId, NodeState, Resources, TimeMs};

use crate::TaskCounts;

words! {
    /// What the servers' gossip says of one: a hint.
    pub enum GossipState {
        /// It answers.
        Alive = "alive",
        /// It did not answer, and may yet.
        Suspect = "suspect",
        /// It is not heard of any more.
        Failed = "failed",
        /// It said that it goes.
        Left = "left",
    }
}

wire! {
    /// Nodes by state.
    pub struct NodeCounts {
        /// All that are known.
        pub total: u32,
        /// Their lease is fresh.
        pub healthy: u32,
        /// Their lease is late.
        pub suspect: u32,
        /// Their lease ran out.
        pub offline: u32,
        /// Take no new work by request.
        pub cordoned: u32,
    }

    /// A node that does not answer.
    pub struct MissingNode {
        /// Its id.
        pub id: NodeId,
        /// Its name.
        pub name: String,
        /// `SUSPECT`: late; `OFFLINE`: given up, and its work given to others.
        pub state: NodeState,
        /// When it was found to be so.
        pub since: TimeMs,
        /// When it was last heard of; `null` if not since this server leads.
        pub last_heartbeat: Option<TimeMs>,
    }

    /// The cluster in one answer.
    pub struct ClusterInfo {
        /// Name of the server that answers.
        pub name: String,
        /// Prism's version on it.
        pub version: String,
        /// Name of the leading server.
        pub leader: Option<String>,
        /// Number of servers.
        pub servers: u32,
        /// Nodes by state.
        pub nodes: NodeCounts,
        /// The nodes that do not answer, by name.
        #[serde(default)]
        pub missing: Vec<MissingNode>,
        /// Jobs that are not over, sweeps included.
        pub jobs_active: u32,
        /// All jobs that are known, sweeps included.
        pub jobs_total: u32,
        /// Tasks of the jobs that are not over.
        pub tasks: TaskCounts,
        /// Sandboxes that are not over.
        pub sandboxes: u32,
        /// Capacity of the nodes that are not offline.
        pub capacity: Resources,
        /// What of it is given away.
        pub allocated: Resources,
        /// Revision of the store.
        pub revision: u64,
        /// When this server started.
        pub started: TimeMs,
        /// The server's clock.
        pub now: TimeMs,
    }

    /// A server of the cluster.
    pub struct MemberView {
        /// Its name.
        pub name: String,
        /// Where its API is.
        pub address: String,
        /// Whether it leads.
        pub leader: bool,
        /// Prism's version on it.
        pub version: String,
        /// When it started.
        pub started: TimeMs,
    }

    /// A server, as the configuration of the cluster's state has it.
    pub struct PeerView {
        /// Its number there.
        pub number: u64,
        /// The node.
        pub id: Option<NodeId>,
        /// Its name.
        pub name: Option<Name>,
        /// Where the other servers and the workers reach it.
        pub address: String,
        /// Whether it leads.
        pub leader: bool,
        /// Whether it votes; one that does not is still learning.
        pub voter: bool,
        /// Entries that it does not have yet; `null` when it was not heard of since this leader leads.
        pub behind: Option<u64>,
        /// How long ago it was heard of, milliseconds; `null` when it was not since this leader leads.
        pub heard_ms: Option<u64>,
        /// What gossip says of it: a hint; `null` when it says nothing.
        pub gossip: Option<GossipState>,
        /// How long it takes to answer the leader's probes, microseconds; `null` when that is not known, and of the leader.
        pub round_trip_us: Option<u64>,
        /// Why it is not taken out of the cluster by rule, if it is gone; `null` while it is there.
        pub stays: Option<String>,
    }

    /// A key for gossip to give to all servers.
    #[request]
    pub struct GossipKeyInstall {
        /// The key as `pk1.KEY.CHECK`; a new one is made when left out.
        pub key: Option<String>,
    }

    /// The keys that the servers' gossip is sealed with, by their names.
    pub struct GossipKeysView {
        /// Grows by one with each change.
        pub revision: u64,
        /// The keys; the first one seals.
        pub keys: Vec<GossipKeyView>,
        /// Each server with the keys that it has said to have.
        pub servers: Vec<GossipHolderView>,
    }

    /// A key, without its secret.
    pub struct GossipKeyView {
        /// Its name.
        pub id: String,
        /// Whether it is the one that seals.
        pub primary: bool,
        /// How many servers have said that they have it.
        pub have: u32,
    }

    /// A server, and which keys it has.
    pub struct GossipHolderView {
        /// The node.
        pub id: NodeId,
        /// Its name.
        pub name: Option<Name>,
        /// The names of its keys, the one that it seals with first; `null` when it did not answer.
        pub keys: Option<Vec<String>>,
    }

    /// What became of a piece of a backup, and of the whole after its last one.
    pub struct RestoreView {
        /// Bytes that have come so far.
        pub received: u64,
        /// Whether it was the last piece, and the backup is restored.
        pub restored: bool,
        /// The cluster that it was a backup of.
        pub cluster: Option<String>,
        /// The revision of that cluster's state.
        pub revision: Option<u64>,
        /// Jobs, sweeps included.
        pub jobs: Option<u32>,
        /// Tasks that were on nodes, and are tried again.
        pub retried: Option<u32>,
        /// Sandboxes that ran, and are over.
        pub ended: Option<u32>,
        /// Events.
        pub events: Option<u32>,
    }

    /// What the nodes have and what is given away.
    pub struct ClusterResources {
        /// Capacity of the nodes that are not offline.
        pub capacity: Resources,
        /// What of it is given away.
        pub allocated: Resources,
        /// The rest.
        pub free: Resources,
        /// Each node, with what it measured last.
        pub nodes: Vec<NodeResources>,
        /// Those of them that do not answer, by name. Nobody waits for them.
        #[serde(default)]
        pub missing: Vec<MissingNode>,
    }

    /// What a node is.
    pub struct NodeFactsView {
        /// Operating system.
        pub os: String,
        /// Kernel release.
        pub kernel: String,
        /// Machine architecture.
        pub arch: String,
        /// Logical processors.
        pub cpus: u32,
        /// Physical memory, bytes.
        pub memory_bytes: u64,
        /// Size of the file system of its data, bytes.
        pub disk_bytes: u64,
        /// Prism's version on it.
        pub version: String,
        /// Host name.
        pub hostname: String,
        /// Whether sandboxes work and what is missing, one line each.
        pub sandbox: Vec<String>,
        /// Whether plain, unisolated tasks are allowed.
        pub allow_plain: bool,
    }

    /// What a node measures; `null` where its host does not tell.
    pub struct NodeReadings {
        /// Busy share of all processors, 0 to 1.
        pub cpu: Option<f64>,
        /// Load averages over 1, 5 and 15 minutes.
        pub load: Option<[f64; 3]>,
        /// Memory in use, bytes.
        pub memory_used: Option<u64>,
        /// Physical memory, bytes.
        pub memory_total: Option<u64>,
        /// Disk in use, bytes.
        pub disk_used: Option<u64>,
        /// Size of the disk, bytes.
        pub disk_total: Option<u64>,
        /// Tasks that run now.
        pub running: u32,
        /// Tasks in the node's own queue.
        pub waiting: u32,
        /// Sandboxes that live now.
        pub sandboxes: u32,
        /// Whether the pressure guard refuses new work.
        pub pressure: bool,
    }

    /// How far a node is emptied.
    pub struct DrainView {
        /// `waiting`: what has started may end by itself; `stopping`: past the deadline; `done`: nothing is left.
        pub phase: String,
        /// Asked for.
        pub since: TimeMs,
        /// When what still runs is stopped; `null`: never.
        pub deadline: Option<TimeMs>,
        /// Tasks that are still there.
        pub tasks: u32,
        /// Sandboxes that are still there.
        pub sandboxes: u32,
    }

    /// How a node is to be emptied.
    #[request]
    pub struct DrainBody {
        /// How long what runs may go on, such as `10m`, `0` for not at all, or `none` for until it ends by itself; 1 h when left out.
        pub deadline: Option<String>,
    }

    /// A node.
    pub struct NodeView {
        /// Its id.
        pub id: NodeId,
        /// Its name.
        pub name: String,
        /// By its lease.
        pub state: NodeState,
        /// Whether it takes no new work by request.
        pub cordoned: bool,
        /// How far it is emptied; `null` when nobody asked for that.
        pub drain: Option<DrainView>,
        /// Its labels.
        pub labels: Labels,
        /// What it offers.
        pub capacity: Resources,
        /// What of it is given away.
        pub allocated: Resources,
        /// What it is; `null` while it is not connected.
        pub facts: Option<NodeFactsView>,
        /// What it measures; `null` while it is not connected.
        pub readings: Option<NodeReadings>,
        /// Round trip between it and the server that leads, milliseconds; `null` for the leader's own node, and until it was measured.
        pub rtt_ms: Option<f64>,
        /// When it was last heard of; `null` if not since this server started.
        pub last_heartbeat: Option<TimeMs>,
        /// When its session began; `null` while it is not connected.
        pub connected: Option<TimeMs>,
    }

    /// What a node has and what is given away.
    pub struct NodeResources {
        /// Its id.
        pub id: NodeId,
        /// Its name.
        pub name: String,
        /// What it offers.
        pub capacity: Resources,
        /// What of it is given away.
        pub allocated: Resources,
        /// The rest.
        pub free: Resources,
        /// What it measures; `null` while it is not connected.
        pub readings: Option<NodeReadings>,
    }

    /// Whether a node can take work, and why not.
    pub struct NodeHealth {
        /// Its id.
        pub id: NodeId,
        /// Its name.
        pub name: String,
        /// By its lease.
        pub state: NodeState,
        /// Whether it takes new work.
        pub ready: bool,
        /// Why not, one sentence each.
        pub reasons: Vec<String>,
        /// When it was last heard of.
        pub last_heartbeat: Option<TimeMs>,
    }
}
