//! Which datagrams were received already: for each start of each sender the highest counter and a bitmap below it, as IPsec does it
//! (RFC 4303, appendix A2). Only what opened well gets in here, so a stranger grows nothing.

use std::collections::BTreeMap;

use crate::protocol::refusal::Refusal;
use crate::protocol::seal::Boot;

/// How far a datagram may be behind the newest of its sender.
pub const WINDOW: u64 = 1024;

const WORDS: usize = WINDOW as usize / 64;

/// Of all senders, at most as many as it was made for.
#[derive(Debug)]
pub struct Windows {
    senders: BTreeMap<Boot, Window>,
    most: usize,
    uses: u64,
}

#[derive(Debug)]
struct Window {
    highest: u64,
    seen: [u64; WORDS],
    /// When it was used last, in datagrams.
    used: u64,
}

impl Windows {
    /// For at most so many senders; beyond, the one that was silent for longest is forgotten. A datagram of a forgotten one is judged
    /// by the start of the node that it names.
    pub fn new(most: usize) -> Self {
        Self {
            senders: BTreeMap::new(),
            most: most.max(1),
            uses: 0,
        }
    }

    /// How many senders are remembered.
    pub fn len(&self) -> usize {
        self.senders.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// Takes note of a datagram whose seal is good.
    ///
    /// # Errors
    /// When it was seen before, or is too old to tell.
    pub fn accept(&mut self, boot: Boot, counter: u64) -> Result<(), Refusal> {
        self.uses += 1;
        if !self.senders.contains_key(&boot) && self.senders.len() >= self.most {
            let oldest = self.senders.iter().min_by_key(|(_, w)| w.used);
            if let Some(boot) = oldest.map(|(b, _)| *b) {
                self.senders.remove(&boot);
            }
        }
        let window = self.senders.entry(boot).or_insert(Window {
            highest: 0,
            seen: [0; WORDS],
            used: 0,
        });
        window.used = self.uses;
        window.accept(counter)
    }
}

impl Window {
    fn accept(&mut self, counter: u64) -> Result<(), Refusal> {
        // Counters begin at 1.
        if counter == 0 || self.highest.saturating_sub(counter) >= WINDOW {
            return Err(Refusal::Replayed);
        }
        if counter > self.highest {
            let fresh = (counter - self.highest).min(WINDOW);
            for n in 0..fresh {
                self.set(counter - n, false);
            }
            self.highest = counter;
        } else if self.get(counter) {
            return Err(Refusal::Replayed);
        }
        self.set(counter, true);
        Ok(())
    }

    fn place(counter: u64) -> (usize, u64) {
        let at = counter % WINDOW;
        let word = usize::try_from(at / 64).expect("a word of the window");
        (word, 1 << (at % 64))
    }

    fn get(&self, counter: u64) -> bool {
        let (word, bit) = Self::place(counter);
        self.seen[word] & bit != 0
    }

    fn set(&mut self, counter: u64, to: bool) {
        let (word, bit) = Self::place(counter);
        if to {
            self.seen[word] |= bit;
        } else {
            self.seen[word] &= !bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_counter_is_taken_once_and_recent_ones_always(
            counters in proptest::collection::vec(1u64..4000, 1..400),
        ) {
            let mut windows = Windows::new(4);
            let mut seen = BTreeSet::new();
            let mut highest = 0;
            for counter in counters {
                let taken = windows.accept(Boot([1; 16]), counter).is_ok();
                let recent = counter + WINDOW > highest;
                prop_assert_eq!(taken, recent && !seen.contains(&counter));
                if taken {
                    seen.insert(counter);
                    highest = highest.max(counter);
                }
            }
        }
    }

    #[test]
    fn the_ends_of_the_counters_do_no_harm() {
        let mut windows = Windows::new(4);
        let boot = Boot([1; 16]);
        assert!(windows.accept(boot, 0).is_err());
        assert!(windows.accept(boot, u64::MAX).is_ok());
        assert!(windows.accept(boot, u64::MAX).is_err());
        assert!(windows.accept(boot, 1).is_err());
        assert!(windows.accept(boot, u64::MAX - WINDOW + 1).is_ok());
        assert!(windows.accept(boot, u64::MAX - WINDOW).is_err());
    }

    #[test]
    fn senders_have_a_bound_and_the_silent_one_goes_first() {
        let mut windows = Windows::new(3);
        for n in 0..3 {
            windows.accept(Boot([n; 16]), 1).unwrap();
        }
        windows.accept(Boot([0; 16]), 2).unwrap();
        windows.accept(Boot([9; 16]), 1).unwrap();
        assert_eq!(windows.len(), 3);
        assert!(windows.accept(Boot([0; 16]), 2).is_err());
        assert!(!windows.senders.contains_key(&Boot([1; 16])));
    }
}
