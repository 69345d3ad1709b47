//! What a seed makes: how large the cluster is, what clients do, and which kinds of fault happen at all (a swarm: each is on or
//! off by itself, so that some runs have one kind alone and some have all).

use crate::rng::Rng;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The kinds of fault, each on or off for a whole run.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Kinds { $($(#[doc = $doc])+ pub $name: bool),+ }

        impl Kinds {
            fn draw(rng: &mut Rng) -> Self {
                // Some runs are calm and some have everything.
                let odds = [150, 400, 700][rng.index(3)];
                Self { $($name: rng.permille(odds)),+ }
            }
        }
    };
}

kinds! {
    /// Messages are lost.
    loss,
    /// Messages come twice.
    duplicates,
    /// Messages are late, and overtake each other.
    delays,
    /// Two-way and one-way partitions.
    partitions,
    /// Partitions that come and go.
    flapping,
    /// Sessions break.
    breaks,
    /// Servers crash.
    server_crashes,
    /// All servers crash at once.
    blackouts,
    /// Daemons of workers crash.
    daemon_crashes,
    /// Supervisors of workers die.
    supervisor_deaths,
    /// Machines of workers lose power.
    machine_crashes,
    /// Servers and workers stand still for a while.
    pauses,
    /// The daemon of a worker is stuck for a while, and its connection is not.
    stalls,
    /// Wall clocks jump.
    clocks,
    /// Disks are slow.
    slow_disks,
    /// Syncs fail.
    failing_disks,
    /// Disks are full for a while.
    full_disks,
    /// Servers are replaced by ones with empty disks.
    server_replacements,
    /// Workers are replaced by ones with empty disks.
    worker_replacements,
    /// Leaders are asked to hand over.
    transfers,
    /// A deposed leader does not notice for a while.
    late_notice,
}

/// What a seed makes.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Servers: 1, 3 or 5.
    pub servers: u32,
    /// Workers: 1 to 8.
    pub workers: u32,
    /// Clients: 1 to 4.
    pub clients: u32,
    /// For how long there are faults, virtual milliseconds.
    pub chaos: u64,
    /// Between two faults, on average.
    pub pace: u64,
    /// Which faults.
    pub kinds: Kinds,
    /// Entries after which a server takes a snapshot.
    pub snapshot_every: u64,
    /// Revisions that a store's window holds.
    pub window: usize,
    /// A follower that hears nothing for so long stands for election, at least and at most.
    pub election: (u64, u64),
    /// Messages that may be on their way to a worker.
    pub outbox: usize,
    /// Jobs that clients submit.
    pub jobs: u32,
}

impl Setup {
    /// What a seed makes.
    pub fn draw(rng: &mut Rng) -> Self {
        let jobs = [2, 3, 6, 10_u32][rng.index(4)];
        let clients = [1, 2, 3, 4][rng.index(4)];
        // Each client submits as many.
        let jobs = u32::div_ceil(jobs, clients) * clients;
        // Short where a session's first messages fit all the same.
        let short = jobs <= 6 && rng.permille(850);
        Self {
            servers: [1, 3, 3, 3, 5, 5][rng.index(6)],
            workers: [1, 2, 3, 3, 4, 5, 8][rng.index(7)],
            clients,
            chaos: rng.within(20_000, 70_000),
            pace: rng.within(400, 4_000),
            kinds: Kinds::draw(rng),
            snapshot_every: rng.within(15, 80),
            window: [4, 16, 256][rng.index(3)],
            election: (1_000, [1_100, 2_000][rng.index(2)]),
            outbox: if short { 3 * jobs as usize + 2 } else { 1_024 },
            jobs,
        }
    }
}
