//! What placement is told besides the state: coefficients, bounds, and what each node last said.

/// What the leader has heard from a node; not replicated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeView {
    /// How many tasks the node wants to have waiting, besides those it can run at once. Short tasks want more, so that
    /// none needs a round trip; 0 for none.
    pub credits: u32,
    /// Round trip to it in milliseconds.
    pub rtt_ms: f64,
    /// Share of its processors that is busy, 0 to 1 (more when overloaded).
    pub load: f64,
    /// Its pressure guard is on: it takes nothing new.
    pub pressure: bool,
    /// Much of what was sent to it waits on its way: it gets nothing new before that has left.
    pub behind: bool,
    /// Decayed share of runs that it did not lose, 0 to 1.
    pub reliability: f64,
    /// Whether it keeps leases: what may run once only is placed nowhere else.
    pub leases: bool,
}

impl Default for NodeView {
    fn default() -> Self {
        Self {
            credits: 64,
            rtt_ms: 0.0,
            load: 0.0,
            pressure: false,
            behind: false,
            reliability: 1.0,
            leases: true,
        }
    }
}

/// Coefficients of the score; lower scores are better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// For each 100 ms of round trip. Default 1.
    pub rtt: f64,
    /// For all processors busy. Default 1.
    pub load: f64,
    /// For as many tasks waiting as can run at once, counted up to 4 times that. Default 0.5.
    pub queue: f64,
    /// For a node that loses every run. Default 4.
    pub unreliability: f64,
    /// For a node that would still be empty: fills nodes before it opens new ones. Negative spreads. Default 0.5.
    pub pack: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            rtt: 1.0,
            load: 1.0,
            queue: 0.5,
            unreliability: 4.0,
            pack: 0.5,
        }
    }
}

/// Most jobs that one plan places tasks of, unless told otherwise. Whoever sends what was placed has to have room for as many.
pub const JOBS_MAX: usize = 256;

/// Coefficients and bounds of one planning round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Coefficients of the score.
    pub weights: Weights,
    /// Most tasks in one plan. Default 20,000.
    pub tasks_max: u32,
    /// Most sandboxes in one plan. Default 2,000.
    pub sandboxes_max: u32,
    /// Most jobs that one plan places tasks of. Default [`JOBS_MAX`].
    pub jobs_max: usize,
    /// Nodes that are scored for one job or sandbox, of those with room. Default 128.
    pub sample: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            weights: Weights::default(),
            tasks_max: 20_000,
            sandboxes_max: 2_000,
            jobs_max: JOBS_MAX,
            sample: 128,
        }
    }
}
