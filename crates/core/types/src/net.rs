//! Ranges of addresses, for rules about who may come from where.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A range of IPv4 or IPv6 addresses: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpRange {
    first: IpAddr,
    bits: u8,
}

/// Why a text is not a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpRangeError {
    text: String,
    why: &'static str,
}

impl fmt::Display for IpRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, why } = self;
        write!(
            f,
            "{text:?} is no range of addresses: {why}; write 10.0.0.0/8, fd00::/8 or one address"
        )
    }
}

impl std::error::Error for IpRangeError {}

/// As an IPv6 address says it if an IPv4 one is mapped into it, since a listener for both sees those.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// The address with only its first bits.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(u32::from(32 - bits)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - bits)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

impl IpRange {
    /// Whether an address is in it. An IPv4 address that is mapped into IPv6 counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = plain(address);
        address.is_ipv4() == self.first.is_ipv4() && masked(address, self.bits) == self.first
    }
}

impl FromStr for IpRange {
    type Err = IpRangeError;

    fn from_str(text: &str) -> Result<Self, IpRangeError> {
        let bad = |why| IpRangeError {
            text: text.chars().take(80).collect(),
            why,
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().map_err(|_| bad("that is no address"))?;
        if plain(first) != first {
            return Err(bad("it is an IPv4 address written as IPv6"));
        }
        let most = if first.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            // No sign, no leading zero: one range has one text.
            Some(text) => text
                .parse()
                .ok()
                .filter(|bits: &u8| *bits <= most && bits.to_string() == text)
                .ok_or_else(|| bad("what follows the / is not a number of bits"))?,
        };
        if masked(first, bits) != first {
            return Err(bad("the address has bits beyond the range"));
        }
        Ok(Self { first, bits })
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

impl Serialize for IpRange {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IpRange {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> IpRange {
        text.parse().unwrap()
    }

    proptest! {
        #[test]
        fn a_range_has_exactly_the_addresses_with_its_first_bits(at: u32, bits in 0_u8..=32, other: u32) {
            let range = IpRange { first: masked(Ipv4Addr::from_bits(at).into(), bits), bits };
            prop_assert_eq!(range.to_string().parse(), Ok(range));
            let same = bits == 0 || (at ^ other) >> (32 - bits) == 0;
            let other = Ipv4Addr::from_bits(other);
            prop_assert_eq!(range.contains(other.into()), same);
            prop_assert_eq!(range.contains(other.to_ipv6_mapped().into()), same);
        }

        #[test]
        fn the_same_in_ipv6(at: u128, bits in 0_u8..=128, other: u128) {
            let first = Ipv6Addr::from_bits(at);
            prop_assume!(first.to_ipv4_mapped().is_none());
            let range = IpRange { first: masked(first.into(), bits), bits };
            let same = bits == 0 || (at ^ other) >> (128 - bits) == 0;
            let other = Ipv6Addr::from_bits(other);
            prop_assume!(other.to_ipv4_mapped().is_none());
            prop_assert_eq!(range.contains(other.into()), same);
        }

        #[test]
        fn no_text_breaks_the_reader(text: String) {
            let _ = text.parse::<IpRange>();
        }
    }

    #[test]
    fn one_address_is_a_range_and_families_are_apart() {
        assert!(range("10.1.2.3").contains("10.1.2.3".parse().unwrap()));
        assert!(!range("10.1.2.3").contains("10.1.2.4".parse().unwrap()));
        assert!(!range("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(!range("::/0").contains("127.0.0.1".parse().unwrap()));
        assert!(!range("::/0").contains("::ffff:127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/8/8",
            "10.0.0.0/8 ",
            " 10.0.0.0/8",
            "10.0.0.1/8",
            "10.0.0/8",
            "010.0.0.0/8",
            "256.0.0.0/8",
            "::/129",
            "fd00::1/8",
            "fe80::1%eth0",
            "::ffff:10.0.0.0/104",
            "::ffff:10.0.0.1",
            "example.com",
            "10.0.0.0/255.0.0.0",
        ] {
            assert!(bad.parse::<IpRange>().is_err(), "{bad:?}");
        }
    }
}
