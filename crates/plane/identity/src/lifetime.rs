//! How long certificates live, and when they are renewed.

/// From when until when a certificate is good, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Not good before.
    pub from: i64,
    /// Not good after.
    pub until: i64,
}

/// A clock that is this much behind the issuer's (seconds) still takes a certificate that was just made.
pub(crate) const SLACK: i64 = 5 * 60;

impl Lifetime {
    /// One of `seconds` that begins now, and a little earlier for clocks that are behind.
    pub fn of(now: i64, seconds: i64) -> Self {
        Self {
            from: now.saturating_sub(SLACK),
            until: now.saturating_add(seconds),
        }
    }

    /// A node's: a day.
    pub fn day(now: i64) -> Self {
        Self::of(now, 24 * 3600)
    }

    /// An issuer's: a year.
    pub fn year(now: i64) -> Self {
        Self::of(now, 365 * 24 * 3600)
    }

    /// A root's: ten years.
    pub fn decade(now: i64) -> Self {
        Self::of(now, 3653 * 24 * 3600)
    }
}

/// When a certificate is to be renewed: between 0.45 and 0.55 of its life, so that nodes which began together do not ask together.
/// `jitter` is any number; the same gives the same time.
pub fn renew_at(life: Lifetime, jitter: u32) -> i64 {
    let length = i128::from(life.until) - i128::from(life.from);
    let tenth = length / 10;
    let earlier = length * 45 / 100;
    let spread = tenth * i128::from(jitter) / i128::from(u32::MAX);
    let at = i128::from(life.from) + earlier + spread;
    i64::try_from(at).unwrap_or(life.from)
}

/// How long after a renewal has failed it is tried again, in seconds: a minute, sooner when little of the life is left, and not at once
/// when none is.
pub fn again_in(life: Lifetime, now: i64) -> u64 {
    match u64::try_from(life.until.saturating_sub(now)) {
        Ok(left @ 1..) => (left / 10).clamp(1, 60),
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn renewal_is_around_the_middle_of_any_life(from in any::<i64>(), length in 0_i64..1 << 40, jitter: u32) {
            let life = Lifetime { from, until: from.saturating_add(length) };
            let at = renew_at(life, jitter);
            let length = life.until - life.from;
            prop_assert!(at >= life.from + length / 100 * 45 - 100);
            prop_assert!(at <= life.from.saturating_add(length / 100 * 55 + 100));
            prop_assert!(at <= life.until);
        }
    }

    #[test]
    fn a_renewal_that_failed_is_tried_again_in_time() {
        let day = Lifetime::day(1_000_000);
        let again = |left: i64| again_in(day, day.until - left);
        assert_eq!((again(12 * 3600), again(600), again(599)), (60, 60, 59));
        assert_eq!((again(15), again(1)), (1, 1));
        assert_eq!((again(0), again(-1), again(i64::MIN / 2)), (10, 10, 10));
    }

    #[test]
    fn a_day_is_renewed_after_half_a_day() {
        let life = Lifetime::day(1_000_000);
        let (early, late) = (renew_at(life, 0), renew_at(life, u32::MAX));
        assert!(early > 1_000_000 + 10 * 3600 && late < 1_000_000 + 14 * 3600 && early < late);
    }
}
