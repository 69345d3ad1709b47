//! The random numbers of searches. Ours, so that a seed gives the same points on every machine and in every version.
//!
//! SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014) seeds
//! xoshiro256** (D. Blackman, S. Vigna, "Scrambled Linear Pseudorandom Number Generators", TOMS 2021). `ln` and `exp` are
//! ours too: those of the system differ in their last digits between libraries.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finishing step of SplitMix64.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// xoshiro256**.
#[derive(Debug)]
pub(crate) struct Random([u64; 4]);

impl Random {
    /// The stream of one seed and one index.
    pub(crate) fn new(seed: u64, index: u64) -> Self {
        let mut state =
            mix(seed.wrapping_add(GOLDEN)) ^ mix(index.wrapping_add(1).wrapping_mul(GOLDEN));
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(GOLDEN);
            mix(state)
        }))
    }

    pub(crate) fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Evenly from 0 up to, not including, `n` (by the high half of a product; its bias of `n / 2^64` is of no matter
    /// here).
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(n);
        u64::try_from(product >> 64).expect("the high half has 64 bits")
    }

    /// Evenly from 0 up to, not including, 1: 53 bits.
    pub(crate) fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
        let bits = (self.next() >> 11) as f64;
        bits / 9_007_199_254_740_992.0
    }
}

/// The place of `i` in a shuffle of `0..n`, without storing the shuffle: a Feistel network over the next even number of
/// bits, walked until it lands inside.
pub(crate) fn shuffled(i: u64, n: u64, seed: u64) -> u64 {
    let bits = (64 - n.saturating_sub(1).leading_zeros()).max(2);
    let half = bits.div_ceil(2);
    let mask = (1u64 << half) - 1;
    let mut at = i;
    loop {
        let (mut left, mut right) = (at >> half, at & mask);
        for round in 0..6u64 {
            let key = mix(seed ^ mix(round.wrapping_add(1).wrapping_mul(GOLDEN)));
            (left, right) = (right, left ^ mix(right ^ key) & mask);
        }
        at = left << half | right;
        if at < n {
            return at;
        }
    }
}

const LN_2: f64 = std::f64::consts::LN_2;

/// The natural logarithm of a normal number above 0, from basic operations only.
pub(crate) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = i32::try_from(bits >> 52 & 0x7ff).expect("11 bits fit") - 1023;
    let mut m = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
    if m > std::f64::consts::SQRT_2 {
        m /= 2.0;
        exponent += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    for k in (0..14i32).rev() {
        sum = sum * square + 1.0 / f64::from(2 * k + 1);
    }
    f64::from(exponent) * LN_2 + 2.0 * s * sum
}

/// e to the `y`, for results that are normal numbers, from basic operations only.
pub(crate) fn exp(y: f64) -> f64 {
    let k = (y / LN_2).round();
    let r = y - k * LN_2;
    let mut sum = 1.0;
    for i in (1..=18i32).rev() {
        sum = 1.0 + sum * r / f64::from(i);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a whole number within the exponents of f64"
    )]
    let mut power = (k as i64).clamp(-1022, 1023);
    let mut scaled = sum;
    // The largest results need one more doubling than one power of two can hold.
    if power == 1023 {
        scaled *= 2.0;
        power -= 1;
    }
    let biased = u64::try_from(power + 1023).expect("it is not negative");
    scaled * f64::from_bits(biased << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_is_what_it_always_was() {
        let mut random = Random::new(7, 0);
        let first: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(first, GOLDEN_STREAM);
        assert_ne!(Random::new(7, 1).next(), first[0]);
        assert_ne!(Random::new(8, 0).next(), first[0]);
    }

    const GOLDEN_STREAM: [u64; 3] = [
        6_518_265_341_098_969_982,
        2_946_477_934_030_207_231,
        11_122_591_023_857_803_805,
    ];

    #[test]
    fn a_shuffle_takes_each_place_once() {
        for n in [1, 2, 3, 9, 100, 1000] {
            let mut seen: Vec<u64> = (0..n).map(|i| shuffled(i, n, 5)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
        assert_ne!(shuffled(0, 1000, 1), shuffled(0, 1000, 2));
        assert!(shuffled(3, u64::MAX, 1) < u64::MAX);
    }

    #[test]
    fn logarithm_and_power_agree_with_the_system_to_twelve_digits() {
        for x in [1e-300, 1e-5, 0.1, 0.999, 1.0, 1.5, 2.0, 3.7, 1e9, 1e300] {
            assert!(
                (ln(x) - x.ln()).abs() <= 1e-12 * x.ln().abs().max(1e-3),
                "{x}"
            );
            assert!((exp(ln(x)) / x - 1.0).abs() < 1e-11, "{x}");
        }
    }

    #[test]
    fn a_unit_draw_is_from_0_to_1() {
        let mut random = Random::new(1, 1);
        let draws: Vec<f64> = (0..1000).map(|_| random.unit()).collect();
        assert!(draws.iter().all(|d| (0.0..1.0).contains(d)));
        let mean = draws.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }
}
