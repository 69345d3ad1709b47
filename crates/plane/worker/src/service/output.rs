//! Reading what tasks and commands write, and waiting for more of it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use prism_link::{Chunk, LogOf, NodeError, Stream};
use prism_types::{Reason, Rejection, RunId};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Service, disk_error, not_found};
use crate::sandboxes::ExecRecord;
use crate::{launch, logs};

/// First and longest pause between two looks for new output; the end of a command interrupts it.
const LOOK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// What every other reader that looks often adds to the pause, so that looking costs the node the same with many.
const LOOK_EACH: Duration = Duration::from_micros(250);

/// Where output is kept, its length when nothing will be added, and what tells that this has changed.
struct LogSource {
    dir: PathBuf,
    over: Option<u64>,
    ended: Option<watch::Receiver<ExecRecord>>,
}

/// How many readers look often: those that do not wait for long yet.
#[derive(Debug, Default)]
pub(super) struct Readers(AtomicU32);

impl Readers {
    /// One more, until what is returned is dropped; how many did before it.
    fn one_more(&self) -> (Hurries<'_>, u32) {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        (Hurries(self), before)
    }
}

struct Hurries<'a>(&'a Readers);

impl Drop for Hurries<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Service {
    fn log_source(&self, of: &LogOf, stream: Stream) -> Result<LogSource, NodeError> {
        let data_dir = &self.shared.config.data_dir;
        match of {
            LogOf::Task(task) => {
                let live = self
                    .shared
                    .live
                    .lock()
                    .expect("no holder of this lock panics")
                    .contains(task);
                Ok(LogSource {
                    dir: launch::task_logs(data_dir, *task),
                    over: (!live).then_some(u64::MAX),
                    ended: None,
                })
            }
            LogOf::Exec(sandbox, exec) => {
                RunId::exec(*sandbox, exec)
                    .map_err(|e| Rejection::new(Reason::Invalid, e.to_string()))?;
                let dir = launch::exec_logs(data_dir, *sandbox, exec);
                let ended = self.shared.table.exec(*sandbox, exec);
                let over = match &ended {
                    Some(record) => record.borrow().report.as_ref().map(|report| match stream {
                        Stream::Stdout => report.stdout_bytes,
                        Stream::Stderr => report.stderr_bytes,
                    }),
                    None if dir.exists() => Some(u64::MAX),
                    None => {
                        return Err(not_found(format!("sandbox {sandbox} has no exec {exec:?}")));
                    }
                };
                Ok(LogSource { dir, over, ended })
            }
        }
    }

    pub(super) async fn read_output(
        &self,
        of: LogOf,
        stream: Stream,
        offset: u64,
        max: usize,
        wait: Option<Duration>,
    ) -> Result<Chunk, NodeError> {
        let deadline = wait.map(|w| Instant::now() + w);
        let mut pause = LOOK.0;
        loop {
            // First whether it is over, then what there is: the other way round the last bytes could be missed.
            let LogSource { dir, over, ended } = self.log_source(&of, stream)?;
            if over.is_some_and(|length| length != u64::MAX && offset >= length) {
                return Ok(Chunk {
                    offset,
                    end: true,
                    ..Chunk::default()
                });
            }
            let read = move || logs::read(&dir, stream, offset, max);
            let mut chunk = tokio::task::spawn_blocking(read)
                .await
                .map_err(|e| {
                    Rejection::new(Reason::Internal, format!("reading output failed: {e}"))
                })?
                .map_err(|e| disk_error("read the output", &e))?;
            let next = chunk.offset + chunk.data.len() as u64;
            chunk.end = match over {
                Some(u64::MAX) => chunk.data.len() < max,
                Some(length) => next >= length,
                None => false,
            };
            if !chunk.data.is_empty() || chunk.end || deadline.is_none_or(|d| Instant::now() >= d) {
                return Ok(chunk);
            }
            let hurries = (pause < LOOK.1).then(|| self.readers.one_more());
            let before = hurries.as_ref().map_or(0, |(_, before)| *before);
            let look = pause.max((LOOK_EACH * before).min(LOOK.1));
            match ended {
                Some(mut ended) => {
                    let _no_news = tokio::time::timeout(look, ended.changed()).await;
                }
                None => tokio::time::sleep(look).await,
            }
            pause = (pause * 2).min(LOOK.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_counts_until_it_waits_no_more() {
        let readers = Readers::default();
        let (one, before) = readers.one_more();
        assert_eq!(before, 0);
        let (two, before) = readers.one_more();
        assert_eq!(before, 1);
        drop(one);
        assert_eq!(readers.one_more().1, 1);
        drop(two);
        assert_eq!(readers.one_more().1, 0);
    }
}
