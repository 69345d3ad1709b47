//! The points of a search space. Point `i` of a sweep is the same for ever: results are recorded by its index.

use serde_json::Value;

use crate::random::{Random, exp, ln, shuffled};
use crate::sweep::{Dimension, Search, SweepWork};

/// One value for each parameter, in the order of the file.
pub type Point = Vec<(String, Value)>;

impl SweepWork {
    /// The point of an index, or `None` beyond the last.
    pub fn point(&self, index: u32) -> Option<Point> {
        if index >= self.point_count() {
            return None;
        }
        let index = u64::from(index);
        Some(match self.search {
            Search::Grid => self.grid_point(index),
            Search::Random { seed, .. } => match self.finite() {
                // Without repeats, as long as there are points left.
                Some(all) => self.grid_point(shuffled(index % all, all, seed)),
                None => {
                    let mut random = Random::new(seed, index);
                    let draw =
                        |(name, d): &(String, Dimension)| (name.clone(), d.draw(&mut random));
                    self.space.iter().map(draw).collect()
                }
            },
        })
    }

    /// The number of all combinations, if every parameter has a finite number of values and all fit 63 bits.
    fn finite(&self) -> Option<u64> {
        self.space.iter().try_fold(1u64, |n, (_, d)| match d {
            Dimension::Choice(_) | Dimension::Range { .. } => {
                n.checked_mul(d.grid_len()).filter(|n| *n < 1 << 62)
            }
            Dimension::Uniform { .. } | Dimension::LogUniform { .. } => None,
        })
    }

    /// A combination by its number, the last parameter changing fastest.
    fn grid_point(&self, mut index: u64) -> Point {
        let mut point: Point = Vec::with_capacity(self.space.len());
        for (name, dimension) in self.space.iter().rev() {
            let n = dimension.grid_len().max(1);
            point.push((name.clone(), dimension.at(index % n)));
            index /= n;
        }
        point.reverse();
        point
    }
}

impl Dimension {
    /// The value of a place on the grid.
    fn at(&self, i: u64) -> Value {
        match self {
            Self::Choice(values) => {
                let i = usize::try_from(i).unwrap_or(usize::MAX);
                values.get(i).map_or(Value::Null, |v| value_of(v))
            }
            Self::Range { from, step, .. } => {
                let i = i64::try_from(i).unwrap_or(i64::MAX);
                Value::from(from.saturating_add(step.saturating_mul(i)))
            }
            Self::Uniform { low, high, steps } => uniform(*low, *high, part(i, steps.unwrap_or(1))),
            Self::LogUniform { low, high, steps } => {
                log_uniform(*low, *high, part(i, steps.unwrap_or(1)))
            }
        }
    }

    /// A value at random.
    fn draw(&self, random: &mut Random) -> Value {
        match self {
            Self::Choice(_) | Self::Range { .. } => self.at(random.below(self.grid_len().max(1))),
            Self::Uniform { low, high, .. } => uniform(*low, *high, random.unit()),
            Self::LogUniform { low, high, .. } => log_uniform(*low, *high, random.unit()),
        }
    }
}

/// The value of a choice that is kept as JSON text.
pub(crate) fn value_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// How far step `i` of so many is from the first to the last.
fn part(i: u64, steps: u32) -> f64 {
    match steps {
        0 | 1 => 0.0,
        n => f64::from(u32::try_from(i).unwrap_or(u32::MAX)) / f64::from(n - 1),
    }
}

fn uniform(low: f64, high: f64, part: f64) -> Value {
    rounded(low * (1.0 - part) + high * part, low, high)
}

fn log_uniform(low: f64, high: f64, part: f64) -> Value {
    let (from, to) = (ln(low), ln(high));
    rounded(exp(from * (1.0 - part) + to * part), low, high)
}

/// A number of six digits, so that it can be read and typed again; more where the bounds are closer than that.
fn rounded(x: f64, low: f64, high: f64) -> Value {
    let close = high - low < 1e-3 * low.abs().max(high.abs());
    let digits = if close { 14 } else { 5 };
    let short: f64 = format!("{x:.digits$e}").parse().unwrap_or(x);
    // Plus zero makes -0 an ordinary 0.
    Value::from(short.clamp(low, high) + 0.0)
}
