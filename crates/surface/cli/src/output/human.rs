//! Numbers, sizes and times as people read them.

use prism_types::{Millis, TimeMs};

/// `950 B`, `1.5 KiB`, `23 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut scale = 1024u64;
    while unit + 1 < UNITS.len() && bytes / scale >= 1024 {
        scale = scale.saturating_mul(1024);
        unit += 1;
    }
    let tenths = u128::from(bytes) * 10 / u128::from(scale);
    if tenths < 100 {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        format!("{} {}", tenths / 10, UNITS[unit])
    }
}

/// How long ago: `3s`, `5m`, `2h`, `4d`; `now` for less than a second or a moment ahead of our clock.
pub fn age(then: TimeMs, now: TimeMs) -> String {
    let s = now.since(then).0 / 1000;
    match s {
        0 => "now".to_owned(),
        1..120 => format!("{s}s"),
        120..7_200 => format!("{}m", s / 60),
        7_200..172_800 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

/// A length of time: `850ms`, `4.2s`, `3m10s`, `2h05m`.
pub fn duration(d: Millis) -> String {
    d.to_string()
}

/// `2026-03-01 12:30:05Z`.
pub fn moment(at: TimeMs) -> String {
    let seconds = at.0 / 1000;
    let (year, month, day) = civil(seconds / 86_400);
    let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}Z")
}

/// Days since 1970 as year, month and day (the shifted-March method).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let of_era = z % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A share from 0 to 1 as `37%`.
pub fn percent(share: f64) -> String {
    format!("{:.0}%", share.clamp(0.0, 9.99) * 100.0)
}

/// A number in at most four significant digits, as results are compared by eye: `0.9667`, `123.5`, `1.2e-7`.
pub fn number(x: f64) -> String {
    if x == 0.0 || (1e-4..1e6).contains(&x.abs()) {
        let whole_digits = if x.abs() < 1.0 {
            0
        } else {
            x.abs().log10().floor() as usize + 1
        };
        let leading_zeros = if x != 0.0 && x.abs() < 0.1 {
            (-x.abs().log10()).floor() as usize
        } else {
            0
        };
        let decimals = 4usize.saturating_sub(whole_digits) + leading_zeros;
        let fixed = format!("{x:.decimals$}");
        if fixed.contains('.') {
            fixed.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            fixed
        }
    } else {
        format!("{x:.3e}")
    }
}

/// `1 task`, `2 tasks`.
pub fn plural(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (n, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (256 << 20, "256 MiB"),
            (23 << 30, "23 GiB"),
            (u64::MAX, "15 EiB"),
        ] {
            assert_eq!(size(n), shown);
        }
    }

    #[test]
    fn times() {
        let now = TimeMs(1_000_000_000);
        for (back, shown) in [
            (0, "now"),
            (59_000, "59s"),
            (300_000, "5m"),
            (7_200_000, "2h"),
            (259_200_000, "3d"),
        ] {
            assert_eq!(age(TimeMs(now.0 - back), now), shown);
        }
        assert_eq!(age(TimeMs(now.0 + 5000), now), "now");
        assert_eq!(moment(TimeMs(0)), "1970-01-01 00:00:00Z");
        assert_eq!(moment(TimeMs(1_709_210_096_000)), "2024-02-29 12:34:56Z");
        assert_eq!(moment(TimeMs(1_767_225_599_000)), "2025-12-31 23:59:59Z");
    }

    #[test]
    fn numbers() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(plural(1, "task"), "1 task");
        assert_eq!(plural(1000, "task"), "1,000 tasks");
        for (x, shown) in [
            (0.0, "0"),
            (0.966_67, "0.9667"),
            (0.03, "0.03"),
            (0.001_234_56, "0.001235"),
            (123.456, "123.5"),
            (64.0, "64"),
            (-2.5, "-2.5"),
            (123_456.0, "123456"),
            (1.5e-9, "1.500e-9"),
        ] {
            assert_eq!(number(x), shown);
        }
        assert_eq!(percent(0.374), "37%");
    }
}
