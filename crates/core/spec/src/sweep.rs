//! A sweep: a search space, runners, an objective, early stopping and an aggregate.

use serde::{Deserialize, Serialize};

use crate::FileSpec;

/// The work of a sweep. Beam `i` is point `i / runners` run by runner `i % runners`; the aggregate, if any, is the last task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepWork {
    /// What runs each point; at least one. A sweep with a plain `script:` or `command:` has one, named `main`.
    pub runners: Vec<Runner>,
    /// The space, in the order of the file. Empty: one point without parameters.
    pub space: Vec<(String, Dimension)>,
    /// How points are taken from it.
    pub search: Search,
    /// What is best.
    pub objective: Option<Objective>,
    /// When to give a beam up.
    pub early_stop: Option<EarlyStop>,
    /// What runs over all results at the end.
    pub aggregate: Option<Aggregate>,
}

/// One way to work on a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    /// Its name, unique in the sweep.
    pub name: String,
    /// Program and arguments, with `{parameter}` placeholders.
    pub command: Vec<String>,
    /// Files only for this runner.
    pub files: Vec<FileSpec>,
}

/// One parameter's values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Dimension {
    /// One of these JSON scalars, each kept as its JSON text.
    Choice(Vec<String>),
    /// Whole numbers from the first to the second, both included, by a step.
    Range {
        /// Lowest.
        from: i64,
        /// Highest.
        to: i64,
        /// Step, at least 1.
        step: i64,
    },
    /// Any number between; a grid takes `steps` of them evenly spaced.
    Uniform {
        /// Lowest.
        low: f64,
        /// Highest.
        high: f64,
        /// Points on a grid; `None`: no grid over it.
        steps: Option<u32>,
    },
    /// Any number between, evenly in the logarithm.
    LogUniform {
        /// Lowest, above 0.
        low: f64,
        /// Highest.
        high: f64,
        /// Points on a grid; `None`: no grid over it.
        steps: Option<u32>,
    },
}

/// How points are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Search {
    /// Every combination, the last parameter changing fastest.
    Grid,
    /// So many points at random, the same for the same seed for ever.
    Random {
        /// How many.
        points: u32,
        /// Seed.
        seed: u64,
    },
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// More is better.
    Maximize,
    /// Less is better.
    Minimize,
}

/// A field of the result, and which way is better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objective {
    /// Which way.
    pub direction: Direction,
    /// Field of the beam's JSON result.
    pub metric: String,
}

/// When to give a beam up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EarlyStop {
    /// Successive halving.
    Halving(Halving),
}

/// Asynchronous successive halving, the stopping variant (Li et al., "A System for Massively Parallel Hyperparameter
/// Tuning", MLSys 2020). Rung `k` (of `rounds`) is reached with the `first * factor^k`-th JSON line that has the metric;
/// a beam that is not in the best `1/factor` of those that have reached the rung is stopped, once `factor` have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halving {
    /// Field of the JSON lines that the script prints while it runs.
    pub metric: String,
    /// Which way is better (the objective's, unless said otherwise).
    pub direction: Direction,
    /// Number of rungs.
    pub rounds: u32,
    /// Which part goes on, 2 to 16.
    pub factor: u32,
    /// Metric lines before the first rung, at least 1.
    pub first: u32,
}

/// A command that runs in a sandbox of its own over all results (`results.json` in its working directory).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Files only for it.
    pub files: Vec<FileSpec>,
}

impl SweepWork {
    /// Number of points.
    pub fn point_count(&self) -> u32 {
        match self.search {
            Search::Random { points, .. } => points,
            Search::Grid => {
                let all = self
                    .space
                    .iter()
                    .fold(1u64, |n, (_, d)| n.saturating_mul(d.grid_len()));
                u32::try_from(all).unwrap_or(u32::MAX)
            }
        }
    }

    /// Number of beams: points times runners.
    pub fn beam_count(&self) -> u32 {
        let runners = u32::try_from(self.runners.len()).unwrap_or(u32::MAX);
        self.point_count().saturating_mul(runners)
    }

    /// Index of the aggregate's task, if there is one.
    pub fn aggregate_index(&self) -> Option<u32> {
        self.aggregate.as_ref().map(|_| self.beam_count())
    }
}

impl Dimension {
    /// Number of values that a grid takes of it.
    pub fn grid_len(&self) -> u64 {
        match self {
            Self::Choice(values) => values.len() as u64,
            Self::Range { from, to, step } => {
                let span = i128::from(*to) - i128::from(*from);
                u64::try_from(span / i128::from(*step).max(1) + 1).unwrap_or(0)
            }
            Self::Uniform { steps, .. } | Self::LogUniform { steps, .. } => {
                u64::from(steps.unwrap_or(0))
            }
        }
    }
}
