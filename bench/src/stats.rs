//! Small arithmetic on measurements.

use std::time::Duration;

/// Rounds to three decimals, which is more than any measurement here is worth.
pub fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

/// `n` things in a time, per second.
pub fn per_s(n: u64, time: Duration) -> f64 {
    round(n as f64 / time.as_secs_f64().max(1e-9))
}

/// The value below which a share `q` of the samples lies, in milliseconds. 0 without samples.
pub fn percentile_ms(samples: &mut [Duration], q: f64) -> f64 {
    samples.sort_unstable();
    let rank = (q * samples.len() as f64).ceil() as usize;
    let at = rank.saturating_sub(1).min(samples.len().saturating_sub(1));
    samples
        .get(at)
        .map_or(0.0, |d| round(d.as_secs_f64() * 1000.0))
}

/// The middle one of some times.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Runs asynchronous work to its end on threads of its own.
///
/// # Errors
/// The work's, or that no threads can be made.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_samples() {
        let mut samples: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert!((percentile_ms(&mut samples, 0.5) - 50.0).abs() < 1e-9);
        assert!((percentile_ms(&mut samples, 0.99) - 99.0).abs() < 1e-9);
        assert!(percentile_ms(&mut [], 0.5).abs() < 1e-9);
    }
}
