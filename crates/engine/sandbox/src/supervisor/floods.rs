//! Output without end must not take the supervisor from everybody else: streams that bring much at a time share a part of its time,
//! and rest when that is used up. Their writers wait meanwhile, as for any full pipe.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventFlags};

use super::output::{Flow, Stream};
use super::state::{Supervisor, Token};

/// Of each window, floods have this share.
const WINDOW: Duration = Duration::from_millis(5);
const SHARE: Duration = Duration::from_millis(1);

/// What a stream brings at once that is no flood.
const LITTLE: u64 = 32 << 10;

/// What floods have taken of the present window.
#[derive(Debug, Default)]
pub struct Floods {
    spent: Duration,
    until: Option<Instant>,
    /// Streams that are not read until it is over.
    resting: Vec<(usize, usize)>,
}

impl Floods {
    /// When those that rest are read again.
    pub fn due(&self) -> Option<Instant> {
        self.until.filter(|_| !self.resting.is_empty())
    }

    /// Notes that reading took so long, until now; whether the share is used up.
    fn spend(&mut self, took: Duration, now: Instant) -> bool {
        if self.until.is_none_or(|until| until <= now) && self.resting.is_empty() {
            self.until = Some(now + WINDOW);
            self.spent = Duration::ZERO;
        }
        self.spent += took;
        self.spent >= SHARE
    }
}

impl Supervisor {
    /// Reads a stream, and has it rest if it is a flood whose time is up.
    pub(super) fn read(&mut self, index: usize, n: usize) -> Option<Flow> {
        let since = Instant::now();
        let run = self.runs.get_mut(index).and_then(Option::as_mut)?;
        let stream = run.streams[n].as_mut()?;
        let before = stream.bytes();
        let flow = stream.pump(&mut self.buffer);
        let brought = stream.bytes() - before;
        if brought > LITTLE && flow != Flow::Over {
            let now = Instant::now();
            if self.floods.spend(now - since, now) {
                watch_for(self.epoll.as_fd(), stream, (index, n), EventFlags::empty());
                self.floods.resting.push((index, n));
            }
        }
        Some(flow)
    }

    /// Reads again what has rested.
    pub(super) fn end_rests(&mut self, now: Instant) {
        if self.floods.due().is_none_or(|due| due > now) {
            return;
        }
        for (index, n) in std::mem::take(&mut self.floods.resting) {
            // The run may be over, and another's stream be in its place: that one is watched already.
            let run = self.runs[index].as_ref().filter(|run| run.watched);
            if let Some(stream) = run.and_then(|run| run.streams[n].as_ref()) {
                watch_for(self.epoll.as_fd(), stream, (index, n), EventFlags::IN);
            }
        }
    }
}

fn watch_for(
    epoll: std::os::fd::BorrowedFd<'_>,
    stream: &Stream,
    (index, n): (usize, usize),
    on: EventFlags,
) {
    let data = epoll::EventData::new_u64(Token::Stream(index, n).pack());
    // A failure would be of memory, which a change takes none of.
    let _ = epoll::modify(epoll, stream.fd(), data, on);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_have_their_share_of_each_window() {
        let mut floods = Floods::default();
        let start = Instant::now();
        let ms = Duration::from_millis;
        assert!(!floods.spend(ms(1) / 2, start));
        assert!(floods.spend(ms(1) / 2, start + ms(1)));
        assert_eq!(floods.due(), None, "nobody rests yet");
        floods.resting.push((0, 0));
        assert_eq!(floods.due(), Some(start + WINDOW));
        // Another one, before it is over: its share is used up.
        assert!(floods.spend(ms(0), start + ms(4)));
        floods.resting.clear();
        assert!(!floods.spend(ms(1) / 2, start + WINDOW));
    }
}
