//! What is done about a full disk: wait. A step that found no room has changed nothing that counts, so it is taken again until
//! there is some; whoever asks meanwhile is told that the disk is full. Never used for a sync.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How soon the disk is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Whether there is room.
#[derive(Debug, Default)]
pub(crate) struct Room {
    full: AtomicBool,
    closing: AtomicBool,
}

impl Room {
    /// Whether something waits for room now.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// From now on nothing waits any more.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Takes a step that begins anew each time, as often as the disk is full.
    pub(crate) fn wait<T>(
        &self,
        path: &Path,
        mut step: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            let done = step();
            let full = done.as_ref().err().is_some_and(|e| {
                matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
            });
            if !full || self.closing.load(Ordering::Relaxed) {
                if self.full.swap(false, Ordering::Relaxed) {
                    tracing::info!(file = %path.display(), "there is room on the disk again");
                }
                return done;
            }
            if !self.full.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    file = %path.display(),
                    "the disk is full: the store waits for room; nothing is lost, and what runs goes on"
                );
            }
            std::thread::sleep(AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_waited_for_and_other_errors_are_not() {
        let room = Room::default();
        let mut tries = 0;
        let answer = room.wait(Path::new("f"), || {
            tries += 1;
            assert_eq!(room.is_full(), tries > 1);
            if tries < 3 {
                Err(ErrorKind::StorageFull.into())
            } else {
                Ok(tries)
            }
        });
        assert_eq!(answer.unwrap(), 3);
        assert!(!room.is_full());
        let answer = room.wait(Path::new("f"), || {
            Err::<(), _>(ErrorKind::BrokenPipe.into())
        });
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::BrokenPipe);
        room.close();
        let answer = room.wait(Path::new("f"), || {
            Err::<(), _>(ErrorKind::StorageFull.into())
        });
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
