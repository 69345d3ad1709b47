//! Watches the output of running beams for the metric that their sweep's rule looks at.

use std::collections::BTreeMap;
use std::path::PathBuf;

use prism_link::{Stream, TaskMetric};
use prism_spec::MetricScanner;
use prism_types::TaskRef;

use crate::logs;

/// Bytes read of one task in one round.
const ROUND: usize = 256 << 10;

struct Watched {
    dir: PathBuf,
    offset: u64,
    scanner: MetricScanner,
}

/// The tasks that are watched.
#[derive(Default)]
pub(crate) struct Watcher(BTreeMap<TaskRef, Watched>);

impl Watcher {
    /// Watches a task from its first byte.
    pub(crate) fn add(&mut self, task: TaskRef, dir: PathBuf, metric: &str) {
        self.0.insert(
            task,
            Watched {
                dir,
                offset: 0,
                scanner: MetricScanner::new(metric),
            },
        );
    }

    /// Stops watching a task.
    pub(crate) fn remove(&mut self, task: TaskRef) {
        self.0.remove(&task);
    }

    /// Whether nothing is watched.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads what is new. Blocking, bounded per task.
    pub(crate) fn round(&mut self) -> Vec<TaskMetric> {
        let mut found = Vec::new();
        for (task, w) in &mut self.0 {
            let chunk = match logs::read(&w.dir, Stream::Stdout, w.offset, ROUND) {
                Ok(chunk) => chunk,
                Err(e) => {
                    tracing::warn!(?task, error = %e, "could not read a beam's output for its metric; trying again");
                    continue;
                }
            };
            w.offset = chunk.offset + chunk.data.len() as u64;
            for metric in w.scanner.feed(&chunk.data) {
                found.push(TaskMetric {
                    task: *task,
                    step: metric.step,
                    value: metric.value,
                    line: metric.line,
                });
            }
        }
        found
    }
}
