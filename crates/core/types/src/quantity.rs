//! Quantities with their units in the type: millicores, bytes, and the bundle a thing asks for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Processor time as thousandths of one core. Written `500m`, `2`, `0.5`. Sums over thousands of nodes have room in it; what one request may
/// ask for is for whoever reads requests to bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MilliCpu(pub u32);

/// A size in bytes. Written `256Mi`, `1G`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub u64);

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantityError(String);

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for QuantityError {}

impl Bytes {
    /// `n` binary mebibytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
}

impl FromStr for MilliCpu {
    type Err = QuantityError;

    fn from_str(s: &str) -> Result<Self, QuantityError> {
        let bad = || {
            QuantityError(format!(
                "{:?} is not an amount of cpu: expected cores (2, 0.5) or thousandths of a core (500m), up to 4294967 cores",
                short(s)
            ))
        };
        let thousandths = match s.strip_suffix('m') {
            Some(digits) => whole(digits).ok_or_else(bad)?,
            None => fraction(s, 1000).ok_or_else(bad)?,
        };
        u32::try_from(thousandths).map(Self).map_err(|_| bad())
    }
}

impl FromStr for Bytes {
    type Err = QuantityError;

    fn from_str(s: &str) -> Result<Self, QuantityError> {
        let bad = || {
            QuantityError(format!(
                "{:?} is not a size: expected bytes (4096) or a number with Ki, Mi, Gi, Ti, k, M, G or T (256Mi), up to 8 EiB",
                short(s)
            ))
        };
        let split = s
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(s.len());
        let (number, unit) = s.split_at(split);
        let unit: u64 = match unit {
            "" | "B" => 1,
            "k" | "K" | "kB" | "KB" => 1_000,
            "M" | "MB" => 1_000_000,
            "G" | "GB" => 1_000_000_000,
            "T" | "TB" => 1_000_000_000_000,
            "Ki" | "KiB" => 1 << 10,
            "Mi" | "MiB" => 1 << 20,
            "Gi" | "GiB" => 1 << 30,
            "Ti" | "TiB" => 1 << 40,
            _ => return Err(bad()),
        };
        fraction(number, unit)
            .filter(|n| i64::try_from(*n).is_ok())
            .map(Self)
            .ok_or_else(bad)
    }
}

fn short(s: &str) -> String {
    s.chars().take(40).collect()
}

fn whole(s: &str) -> Option<u64> {
    (!s.is_empty() && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse().ok())?
}

/// `s` times `unit`, where `s` may have up to nine decimals; exact, without floating point.
fn fraction(s: &str, unit: u64) -> Option<u64> {
    let (int, frac) = s.split_once('.').map_or((s, None), |(i, f)| (i, Some(f)));
    let base = u128::from(whole(int)?) * u128::from(unit);
    let part = match frac {
        None => 0,
        Some(f) if f.len() > 9 => return None,
        Some(f) => {
            u128::from(whole(f)?) * u128::from(unit) / 10u128.pow(u32::try_from(f.len()).ok()?)
        }
    };
    u64::try_from(base + part).ok()
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{}", self.0 / 1000)
        } else {
            write!(f, "{}m", self.0)
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")] {
            if self.0 >= 1 << shift && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

macro_rules! quantity_serde {
    ($name:ident, $raw:ty, $number:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() {
                    s.collect_str(self)
                } else {
                    self.0.serialize(s)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if !d.is_human_readable() {
                    return <$raw>::deserialize(d).map(Self);
                }
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($number)
                    }
                    fn visit_str<E: serde::de::Error>(self, s: &str) -> Result<$name, E> {
                        s.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<$name, E> {
                        n.to_string().parse().map_err(E::custom)
                    }
                    fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<$name, E> {
                        n.to_string().parse().map_err(E::custom)
                    }
                    fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<$name, E> {
                        n.to_string().parse().map_err(E::custom)
                    }
                }
                d.deserialize_any(Visitor)
            }
        }
    };
}

quantity_serde!(MilliCpu, u32, "an amount of cpu such as 2, 0.5 or 500m");
quantity_serde!(Bytes, u64, "a size such as 256Mi, 1G or 4096");

/// What one task, sandbox or node has or asks for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// Processor time.
    pub cpu: MilliCpu,
    /// Memory, without swap.
    pub memory: Bytes,
    /// Disk for its own files; 0 means that its files live in (and count as) memory.
    pub disk: Bytes,
}

impl Resources {
    /// Whether `self` fits into `room` in every dimension.
    pub fn fits(&self, room: &Self) -> bool {
        self.cpu <= room.cpu && self.memory <= room.memory && self.disk <= room.disk
    }

    /// `self + other * n`, saturating.
    #[must_use]
    pub fn plus(&self, other: &Self, n: u32) -> Self {
        Self {
            cpu: MilliCpu(self.cpu.0.saturating_add(other.cpu.0.saturating_mul(n))),
            memory: Bytes(
                self.memory
                    .0
                    .saturating_add(other.memory.0.saturating_mul(u64::from(n))),
            ),
            disk: Bytes(
                self.disk
                    .0
                    .saturating_add(other.disk.0.saturating_mul(u64::from(n))),
            ),
        }
    }

    /// `self - other * n`, never below zero.
    #[must_use]
    pub fn minus(&self, other: &Self, n: u32) -> Self {
        Self {
            cpu: MilliCpu(self.cpu.0.saturating_sub(other.cpu.0.saturating_mul(n))),
            memory: Bytes(
                self.memory
                    .0
                    .saturating_sub(other.memory.0.saturating_mul(u64::from(n))),
            ),
            disk: Bytes(
                self.disk
                    .0
                    .saturating_sub(other.disk.0.saturating_mul(u64::from(n))),
            ),
        }
    }

    /// How many times `self` fits into `room`, at most `limit`.
    pub fn times_in(&self, room: &Self, limit: u32) -> u32 {
        let each = |need: u64, have: u64| have.checked_div(need).unwrap_or(u64::MAX);
        let n = each(u64::from(self.cpu.0), u64::from(room.cpu.0))
            .min(each(self.memory.0, room.memory.0))
            .min(each(self.disk.0, room.disk.0));
        u32::try_from(n).unwrap_or(u32::MAX).min(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_and_print() {
        assert_eq!("500m".parse(), Ok(MilliCpu(500)));
        assert_eq!("0.5".parse(), Ok(MilliCpu(500)));
        assert_eq!(
            "2".parse::<MilliCpu>().map(|c| c.to_string()),
            Ok("2".into())
        );
        // What ten thousand nodes of 256 cores have together.
        let all = MilliCpu(2_560_000_000);
        assert_eq!(all.to_string().parse(), Ok(all));
        assert!("4294968".parse::<MilliCpu>().is_err());
        assert_eq!("256Mi".parse(), Ok(Bytes::mib(256)));
        assert_eq!("1.5Gi".parse(), Ok(Bytes::mib(1536)));
        assert_eq!(Bytes::mib(256).to_string(), "256Mi");
    }

    #[test]
    fn hostile_quantities_are_refused() {
        for bad in [
            "",
            "-1",
            "1e9",
            "m",
            "NaN",
            "999999999999999999999",
            "1.0000000000000",
            "0x10",
            "١",
        ] {
            assert!(bad.parse::<MilliCpu>().is_err(), "{bad}");
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
        assert!("16777216Ti".parse::<Bytes>().is_err());
    }

    #[test]
    fn room_is_counted_in_every_dimension() {
        let need = Resources {
            cpu: MilliCpu(500),
            memory: Bytes::mib(256),
            disk: Bytes(0),
        };
        let room = Resources {
            cpu: MilliCpu(2000),
            memory: Bytes::mib(600),
            disk: Bytes(0),
        };
        assert_eq!(need.times_in(&room, 99), 2);
        assert!(need.fits(&room));
        assert_eq!(room.minus(&need, 2).memory, Bytes::mib(88));
    }
}
