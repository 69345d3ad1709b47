//! Identifiers. Minted by whoever proposes a thing (never by the core), sortable by creation time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Crockford base 32, lower case: the alphabet of ULIDs (github.com/ulid/spec).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A 128-bit ULID: 48 bits of Unix milliseconds, 80 bits of entropy. Prints as 26 characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(pub u128);

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdError(pub String);

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not an id: expected 26 characters of 0-9 and a-z without i, l, o, u",
            self.0
        )
    }
}

impl std::error::Error for IdError {}

impl Id {
    /// Builds an id from a creation time (Unix milliseconds) and 80 bits of entropy (higher bits are dropped).
    pub fn new(unix_ms: u64, entropy: u128) -> Self {
        Self((u128::from(unix_ms) & 0xffff_ffff_ffff) << 80 | entropy & ((1 << 80) - 1))
    }

    /// Creation time in Unix milliseconds.
    pub fn unix_ms(self) -> u64 {
        u64::try_from(self.0 >> 80).expect("48 bits fit")
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 26];
        for (i, c) in text.iter_mut().enumerate() {
            let shift = 125 - 5 * i;
            let digit = usize::try_from(self.0 >> shift & 31).expect("5 bits fit");
            *c = ALPHABET[digit];
        }
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl FromStr for Id {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        let bad = || IdError(s.chars().take(64).collect());
        if s.len() != 26 {
            return Err(bad());
        }
        let mut value: u128 = 0;
        for (i, c) in s.bytes().enumerate() {
            let digit = ALPHABET.iter().position(|a| *a == c).ok_or_else(bad)?;
            if i == 0 && digit > 7 {
                return Err(bad());
            }
            value = value << 5 | digit as u128;
        }
        Ok(Self(value))
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            s.collect_str(self)
        } else {
            self.0.serialize(s)
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            let text = String::deserialize(d)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            u128::deserialize(d).map(Self)
        }
    }
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Id);

        impl $name {
            /// Builds an id from a creation time (Unix milliseconds) and 80 bits of entropy.
            pub fn new(unix_ms: u64, entropy: u128) -> Self {
                Self(Id::new(unix_ms, entropy))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(s: &str) -> Result<Self, IdError> {
                s.parse().map(Self)
            }
        }
    };
}

typed_id!(
    /// A job or a sweep (a sweep is a job whose tasks are points of a search space).
    JobId
);
typed_id!(
    /// A node, kept in its data directory for life.
    NodeId
);
typed_id!(
    /// A sandbox.
    SandboxId
);
typed_id!(
    /// An API token (its public half; the secret is never stored).
    TokenId
);

/// A node's small number in the replicated state, given at registration and never reused: what task records hold.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NodeNo(pub u32);

/// A fencing number: grows with every change of leader; a write under an older one is refused.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Fence(pub u64);

/// One attempt of one task: what a result is recorded by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskRef {
    /// The job.
    pub job: JobId,
    /// Index of the task in the job, from 0.
    pub index: u32,
    /// Attempt, from 1; counts failures and losses alike, so it never repeats.
    pub attempt: u32,
}

/// What a runtime calls one thing it runs: `[a-z0-9.-]{1,100}`, unique on a node for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// Checks and wraps a text.
    ///
    /// # Errors
    /// When it is empty, longer than 100 bytes, or has a character outside `[a-z0-9.-]`, or starts with a dot.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        let ok = (1..=100).contains(&text.len())
            && !text.starts_with('.')
            && text
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'));
        if ok {
            Ok(Self(text))
        } else {
            Err(IdError(text.chars().take(64).collect()))
        }
    }

    /// The run of one attempt of a task: `t.<job>.<index>.<attempt>`.
    pub fn task(t: TaskRef) -> Self {
        Self(format!("t.{}.{}.{}", t.job, t.index, t.attempt))
    }

    /// The run that is a sandbox: `s.<sandbox>`.
    pub fn sandbox(id: SandboxId) -> Self {
        Self(format!("s.{id}"))
    }

    /// The `n`th exec inside a sandbox: `e.<sandbox>.<n>`.
    pub fn exec(id: SandboxId, exec: &str) -> Result<Self, IdError> {
        Self::new(format!("e.{id}.{exec}"))
    }

    /// The task this run is an attempt of, if it is one.
    pub fn as_task(&self) -> Option<TaskRef> {
        let mut parts = self.0.strip_prefix("t.")?.split('.');
        let task = TaskRef {
            job: parts.next()?.parse().ok()?,
            index: parts.next()?.parse().ok()?,
            attempt: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(task)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_and_reads_back() {
        for raw in [0, 1, u128::MAX, Id::new(1_700_000_000_000, 12345).0] {
            let id = Id(raw);
            assert_eq!(id.to_string().parse::<Id>(), Ok(id));
        }
        assert_eq!(Id::new(1_700_000_000_000, 7).unix_ms(), 1_700_000_000_000);
    }

    #[test]
    fn hostile_ids_are_refused() {
        for text in [
            "",
            "x",
            "8zzzzzzzzzzzzzzzzzzzzzzzzz",
            "0000000000000000000000000I",
            "../../../../../../etc/passwd",
            "ÄÄÄÄÄÄÄÄÄÄÄÄÄ",
        ] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
        for text in ["", "..", "a/b", "A", "a\0", ".hidden"] {
            assert!(RunId::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_task_run_names_its_task() {
        let t = TaskRef {
            job: JobId::new(5, 6),
            index: 7,
            attempt: 8,
        };
        assert_eq!(RunId::task(t).as_task(), Some(t));
        assert_eq!(RunId::sandbox(SandboxId::default()).as_task(), None);
    }
}
