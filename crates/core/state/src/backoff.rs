//! How long a failed task waits: exponential, capped, and spread by a jitter drawn from the job's seed.
//!
//! The same seed, task and attempt give the same wait for ever, so that a replay decides the same.

use prism_spec::Backoff;
use prism_types::Millis;

/// The wait after the `failures`th failure (from 1).
pub(crate) fn wait(b: &Backoff, failures: u32, seed: u64, index: u32, attempt: u32) -> Millis {
    let max = to_f64(b.max.0);
    let mut base = to_f64(b.initial.0).min(max);
    // Multiplied step by step: `powf` may differ between platforms, and at most 100 failures are possible.
    for _ in 1..failures {
        base *= b.factor.max(1.0);
        if base >= max {
            base = max;
            break;
        }
    }
    let draw = mix(seed ^ mix(u64::from(index) << 32 | u64::from(attempt)));
    let unit = to_f64(draw >> 11) / to_f64(1 << 53);
    let spread = 1.0 + b.jitter.clamp(0.0, 1.0) * (2.0 * unit - 1.0);
    to_millis(base * spread)
}

/// No wait is longer than this.
pub(crate) fn longest(b: &Backoff) -> Millis {
    to_millis(to_f64(b.max.0) * (1.0 + b.jitter.clamp(0.0, 1.0)))
}

/// One step of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn to_f64(n: u64) -> f64 {
    n as f64
}

/// Rounds down; out of range saturates, NaN is 0.
fn to_millis(x: f64) -> Millis {
    Millis(x as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Backoff = Backoff {
        initial: Millis(1000),
        factor: 2.0,
        max: Millis(60_000),
        jitter: 0.0,
    };

    #[test]
    fn doubles_up_to_the_cap() {
        let waits: Vec<u64> = (1..=8).map(|n| wait(&PLAIN, n, 1, 2, 3).0).collect();
        assert_eq!(waits, [1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]);
    }

    #[test]
    fn jitter_spreads_within_its_bounds_and_repeats() {
        let b = Backoff {
            jitter: 0.2,
            ..PLAIN
        };
        let waits: Vec<u64> = (0..1000).map(|i| wait(&b, 1, 42, i, 1).0).collect();
        assert!(waits.iter().all(|w| (800..=1200).contains(w)));
        let mean = waits.iter().sum::<u64>() / 1000;
        assert!((980..=1020).contains(&mean), "{mean}");
        assert!(
            waits
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len()
                > 300
        );
        assert_eq!(wait(&b, 3, 7, 8, 9), wait(&b, 3, 7, 8, 9));
        assert_ne!(wait(&b, 3, 7, 8, 9), wait(&b, 3, 8, 8, 9));
    }
}
