//! Which processors are promised to runs that are held on them ([`super::neighbours`]), and which are left.

use std::cmp::Reverse;

/// What is promised of each processor to runs that are held on it.
#[derive(Debug, Default)]
pub struct Places {
    /// The processors, in order.
    pub all: Vec<usize>,
    taken: Vec<u64>,
}

impl Places {
    /// All of these, none of them promised.
    pub fn new(cpus: Vec<usize>) -> Self {
        let taken = vec![0; cpus.len()];
        Self { all: cpus, taken }
    }

    /// How many processors a limit in thousandths needs, and what it takes of each.
    fn need(milli: u64) -> (usize, u64) {
        let cpus = milli.div_ceil(1_000).max(1);
        let share = milli.div_ceil(cpus);
        (usize::try_from(cpus).unwrap_or(usize::MAX), share)
    }

    /// Whether there is any other processor for its neighbours.
    pub fn leaves_any(&self, milli: u64) -> bool {
        Self::need(milli).0 < self.all.len()
    }

    /// Places for a limit where there is room for it: the least taken, of these the last, as the first processors are those that
    /// most devices interrupt.
    pub fn take(&mut self, milli: u64) -> Option<Vec<usize>> {
        let (cpus, share) = Self::need(milli);
        if !self.leaves_any(milli) {
            return None;
        }
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        order.sort_by_key(|place| (self.taken[*place], Reverse(*place)));
        order.truncate(cpus);
        if order.iter().any(|place| self.taken[*place] + share > 1_000) {
            return None;
        }
        order.sort_unstable();
        for place in &order {
            self.taken[*place] += share;
        }
        Some(order)
    }

    /// Takes back what [`Places::take`] gave for a limit.
    pub fn give_back(&mut self, held: &[usize], milli: u64) {
        let (_, share) = Self::need(milli);
        for place in held {
            self.taken[*place] = self.taken[*place].saturating_sub(share);
        }
    }

    /// The processors that are not mostly promised, if these are at least half of all and not all.
    pub fn rest(&self) -> Option<Vec<usize>> {
        let all = self.all.iter().zip(&self.taken);
        let rest = all.filter(|(_, taken)| **taken < 500).map(|(cpu, _)| *cpu);
        let rest: Vec<usize> = rest.collect();
        (rest.len() < self.all.len() && rest.len() * 2 >= self.all.len()).then_some(rest)
    }

    /// The processors of some places.
    pub fn cpus(&self, held: &[usize]) -> Vec<usize> {
        held.iter().map(|place| self.all[*place]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_runs_get_places_of_their_own_while_there_are_any() {
        let mut places = Places::new(vec![0, 1, 4, 5]);
        let first = places.take(1_000).unwrap();
        assert_eq!(places.cpus(&first), [5]);
        let wide = places.take(1_500).unwrap();
        assert_eq!(places.cpus(&wide), [1, 4]);
        let small = places.take(300).unwrap();
        assert_eq!(places.cpus(&small), [0]);
        // 700 are left of processor 0, 250 of 1 and of 4.
        assert_eq!(places.take(1_000), None);
        assert_eq!(places.take(700).map(|p| places.cpus(&p)), Some(vec![0]));
        assert_eq!(places.take(250).map(|p| places.cpus(&p)), Some(vec![4]));
        places.give_back(&wide, 1_500);
        assert_eq!(places.take(1_000).map(|p| places.cpus(&p)), Some(vec![1]));
    }

    #[test]
    fn the_rest_is_what_is_not_promised() {
        let mut places = Places::new(vec![0, 1, 2, 3]);
        assert_eq!(places.rest(), None);
        let small = places.take(300).unwrap();
        assert_eq!(places.rest(), None, "most of it is free");
        let first = places.take(1_000).unwrap();
        assert_eq!(places.rest(), Some(vec![0, 1, 3]));
        places.take(500).unwrap();
        assert_eq!(places.rest(), Some(vec![0, 3]));
        places.take(1_000).unwrap();
        assert_eq!(places.rest(), None, "one is too few for us");
        places.give_back(&first, 1_000);
        places.give_back(&small, 300);
        assert_eq!(places.rest(), Some(vec![2, 3]));
    }

    #[test]
    fn what_takes_all_processors_is_not_held() {
        let mut places = Places::new(vec![0, 1]);
        assert!(places.leaves_any(1_000));
        for milli in [1_001, 2_000, 64_000, u64::from(u32::MAX)] {
            assert_eq!(places.take(milli), None);
        }
        assert_eq!(Places::new(vec![0]).take(1), None);
        assert_eq!(Places::default().take(1), None);
    }
}
