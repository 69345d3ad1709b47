//! A set of task numbers kept as disjoint, non-touching ranges.
//!
//! The ready queue of a fresh job of a million tasks is one range. Every operation costs the logarithm of the number of
//! ranges. Used by the indexes of a job; never stored.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of `u32`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// Start to end (exclusive).
    map: BTreeMap<u32, u32>,
    len: u32,
}

impl Ranges {
    /// The set of one range.
    pub fn of(range: Range<u32>) -> Self {
        let mut set = Self::default();
        if !range.is_empty() {
            set.len = range.end - range.start;
            set.map.insert(range.start, range.end);
        }
        set
    }

    /// How many numbers are in it.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `n` is in it.
    pub fn contains(&self, n: u32) -> bool {
        self.map
            .range(..=n)
            .next_back()
            .is_some_and(|(_, end)| n < *end)
    }

    /// Its ranges in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        self.map.iter().map(|(start, end)| *start..*end)
    }

    /// Its numbers in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges().flatten()
    }

    /// Puts `n` in; nothing happens if it is there.
    pub fn insert(&mut self, n: u32) {
        let before = self.map.range(..=n).next_back().map(|(s, e)| (*s, *e));
        if before.is_some_and(|(_, end)| n < end) {
            return;
        }
        self.len += 1;
        let next = n.checked_add(1);
        let end = next
            .and_then(|next| self.map.remove(&next))
            .unwrap_or(n.saturating_add(1));
        match before {
            Some((start, touching)) if touching == n => self.map.insert(start, end),
            _ => self.map.insert(n, end),
        };
    }

    /// Takes `n` out; nothing happens if it is not there.
    pub fn remove(&mut self, n: u32) {
        let Some((start, end)) = self.map.range(..=n).next_back().map(|(s, e)| (*s, *e)) else {
            return;
        };
        if n >= end {
            return;
        }
        self.len -= 1;
        if start == n {
            self.map.remove(&start);
        } else {
            self.map.insert(start, n);
        }
        if n + 1 < end {
            self.map.insert(n + 1, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn agrees_with_a_plain_set() {
        let mut plain: BTreeSet<u32> = (0..50).collect();
        let mut ranges = Ranges::of(0..50);
        let mut x = 12345u32;
        for _ in 0..2000 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let n = (x >> 16) % 60;
            if x & 0x8000 == 0 {
                ranges.insert(n);
                plain.insert(n);
            } else {
                ranges.remove(n);
                plain.remove(&n);
            }
            assert_eq!(ranges.contains(n), plain.contains(&n));
        }
        assert_eq!(
            ranges.iter().collect::<Vec<_>>(),
            plain.iter().copied().collect::<Vec<_>>()
        );
        assert_eq!(ranges.len() as usize, plain.len());
        let touching = ranges
            .ranges()
            .zip(ranges.ranges().skip(1))
            .any(|(a, b)| a.end >= b.start);
        assert!(!touching);
    }
}
