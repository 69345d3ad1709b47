//! Time as a value: the core is told what time it is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A moment: Unix time in milliseconds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TimeMs(pub u64);

/// A length of time in milliseconds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl TimeMs {
    /// The moment `d` later.
    #[must_use]
    pub fn after(self, d: Millis) -> Self {
        Self(self.0.saturating_add(d.0))
    }

    /// Time passed since `earlier`; zero if the clock went backwards.
    pub fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0;
        match ms {
            0..1_000 => write!(f, "{ms}ms"),
            1_000..60_000 if ms.is_multiple_of(1000) => write!(f, "{}s", ms / 1000),
            1_000..60_000 => write!(f, "{}.{}s", ms / 1000, ms % 1000 / 100),
            60_000..3_600_000 => write!(f, "{}m{:02}s", ms / 60_000, ms / 1000 % 60),
            _ => write!(f, "{}h{:02}m", ms / 3_600_000, ms / 60_000 % 60),
        }
    }
}

/// Reads `1500ms`, `90s`, `5m`, `1h`, `2d`, or a bare number of seconds.
///
/// # Errors
/// When the text has another form or is longer than 10 years.
pub fn parse_duration(s: &str) -> Result<Millis, String> {
    let bad = || {
        format!(
            "{:?} is not a duration: expected a number with ms, s, m, h or d, such as 90s or 5m",
            s.chars().take(40).collect::<String>()
        )
    };
    let split = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let (digits, unit) = s.split_at(split);
    let unit: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    let n: u64 = digits.parse().map_err(|_| bad())?;
    n.checked_mul(unit)
        .filter(|ms| *ms <= 315_360_000_000)
        .map(Millis)
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        assert_eq!(parse_duration("5m"), Ok(Millis(300_000)));
        assert_eq!(parse_duration("1500ms"), Ok(Millis(1500)));
        assert_eq!(parse_duration("3"), Ok(Millis(3000)));
        for bad in [
            "",
            "m",
            "-1s",
            "1.5s",
            "1w",
            "99999999999999999999s",
            "400000d",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(Millis(61_000).to_string(), "1m01s");
    }
}
