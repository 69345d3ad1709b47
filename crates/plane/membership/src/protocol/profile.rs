//! What a member says about itself beyond what the failure detector needs: carried with a version, the newest wins.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use prism_types::{Name, NodeId};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::protocol::peer::{MAX_INCARNATION, unfit};

/// Why what a node says about itself is not carried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Too many tags.
    #[error("{0} tags; at most {max} are carried", max = Tags::MAX_ENTRIES)]
    TooManyTags(usize),
    /// Tags that are too long together.
    #[error("tags of {0} bytes together; at most {max} are carried", max = Tags::MAX_BYTES)]
    TagsTooLong(usize),
    /// A tag that has no name, or control characters.
    #[error("the tag {0:?} has no name, or a control character in it")]
    Tag(String),
    /// Too many addresses or one that nothing can be sent to.
    #[error("at most {max} addresses are carried, and each must be one to send to", max = Who::MAX_ADDRESSES)]
    Addresses,
    /// Too many roles, or too long ones.
    #[error("at most {max} roles of {length} characters are carried", max = Who::MAX_ROLES, length = Who::MAX_ROLE)]
    Roles,
    /// An incarnation or version out of range.
    #[error("an incarnation or version is out of range")]
    Number,
}

/// Small facts about a node, for people and for placement hints. Nothing is decided by them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(BTreeMap<String, String>);

impl Tags {
    /// Most of them.
    pub const MAX_ENTRIES: usize = 64;
    /// Longest they may be together: names and values, in bytes.
    pub const MAX_BYTES: usize = 512;

    /// Checks and wraps.
    ///
    /// # Errors
    /// When there are too many, or they are too long, or one has no name or a control character in it.
    pub fn new(tags: BTreeMap<String, String>) -> Result<Self, ProfileError> {
        if tags.len() > Self::MAX_ENTRIES {
            return Err(ProfileError::TooManyTags(tags.len()));
        }
        let bytes: usize = tags.iter().map(|(k, v)| k.len() + v.len()).sum();
        if bytes > Self::MAX_BYTES {
            return Err(ProfileError::TagsTooLong(bytes));
        }
        let bad = |(k, v): &(&String, &String)| {
            k.is_empty() || k.chars().chain(v.chars()).any(char::is_control)
        };
        match tags.iter().find(bad) {
            Some((name, _)) => Err(ProfileError::Tag(name.escape_debug().collect())),
            None => Ok(Self(tags)),
        }
    }

    /// The value of one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }
}

impl Serialize for Tags {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.0.iter())
    }
}

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let list: Vec<(String, String)> = few::<_, _, { Self::MAX_ENTRIES }>(d)?;
        let count = list.len();
        let tags: BTreeMap<String, String> = list.into_iter().collect();
        if tags.len() != count {
            return Err(serde::de::Error::custom("a tag is named twice"));
        }
        Self::new(tags).map_err(serde::de::Error::custom)
    }
}

/// Who a node is, as far as gossip tells. The Raft configuration and certificates are the truth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Its id, kept in its data directory for life.
    pub id: NodeId,
    /// Its name.
    pub name: Name,
    /// Where else it listens, besides gossip.
    #[serde(deserialize_with = "addresses")]
    pub addresses: Vec<SocketAddr>,
    /// Its number in the Raft configuration, or 0.
    pub raft: u64,
    /// What it is for: `server`, `worker`.
    #[serde(deserialize_with = "roles")]
    pub roles: Vec<Name>,
}

impl Who {
    /// Most addresses.
    pub const MAX_ADDRESSES: usize = 4;
    /// Most roles.
    pub const MAX_ROLES: usize = 4;
    /// Longest role, in bytes.
    pub const MAX_ROLE: usize = 16;

    /// Whether it can be carried.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), ProfileError> {
        let many = self.addresses.len() > Self::MAX_ADDRESSES;
        if many || self.addresses.iter().any(|a| unfit(*a).is_some()) {
            return Err(ProfileError::Addresses);
        }
        let long = |r: &Name| r.as_str().len() > Self::MAX_ROLE;
        if self.roles.len() > Self::MAX_ROLES || self.roles.iter().any(long) {
            return Err(ProfileError::Roles);
        }
        Ok(())
    }
}

/// What a member says about itself, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Who.
    pub who: Who,
    /// The incarnation that says so.
    pub incarnation: u64,
    /// Grows with each change within an incarnation.
    pub version: u64,
    /// Whether it has left on purpose.
    pub left: bool,
    /// Its tags.
    pub tags: Tags,
}

impl Profile {
    /// Which of two is newer: the greater.
    pub fn age(&self) -> (u64, u64) {
        (self.incarnation, self.version)
    }

    /// Whether it can be carried.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), ProfileError> {
        if self.incarnation >= MAX_INCARNATION || self.version >= MAX_INCARNATION {
            return Err(ProfileError::Number);
        }
        self.who.check()
    }
}

fn addresses<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<SocketAddr>, D::Error> {
    few::<_, _, { Who::MAX_ADDRESSES }>(d)
}

fn roles<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Name>, D::Error> {
    few::<_, _, { Who::MAX_ROLES }>(d)
}

/// A list of at most N: a count that promises more is refused before anything is allocated for it.
pub(crate) fn few<'de, T, D, const N: usize>(d: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Few<T, const N: usize>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Few<T, N> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {N} items")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let count = items.size_hint().unwrap_or(0);
            if count > N {
                return Err(serde::de::Error::invalid_length(count, &self));
            }
            let mut list = Vec::with_capacity(count);
            while let Some(item) = items.next_element()? {
                if list.len() == N {
                    return Err(serde::de::Error::invalid_length(N + 1, &self));
                }
                list.push(item);
            }
            Ok(list)
        }
    }

    d.deserialize_seq(Few::<T, N>(std::marker::PhantomData))
}
