//! Where things are in etcd, and the bytes of what Prism writes there.
//!
//! ```text
//! PREFIX head                   what the last entry did: revision, fence, floor (postcard, after a format byte)
//! PREFIX leader                 who leads; under the leader's lease
//! PREFIX keys/KEY               a key of the store: nine bytes (kind, revision), then the value as it is
//! PREFIX parts/ID/N             pieces of what is larger than a request
//! ```

use bytes::Bytes;
use prism_store::{Key, KeyRange, Value};
use serde::{Deserialize, Serialize};

/// The format of `head` and of values; a newer one is refused.
pub(crate) const FORMAT: u8 = 1;
const WHOLE: u8 = 1;
const PARTED: u8 = 2;

/// Names of keys in etcd.
#[derive(Debug)]
pub(crate) struct Layout {
    prefix: Vec<u8>,
    pub(crate) head: Vec<u8>,
    pub(crate) leader: Vec<u8>,
    keys: Vec<u8>,
    parts: Vec<u8>,
}

impl Layout {
    pub(crate) fn new(prefix: &str) -> Self {
        let under = |name: &str| [prefix.as_bytes(), name.as_bytes()].concat();
        Self {
            prefix: prefix.as_bytes().to_vec(),
            head: under("head"),
            leader: under("leader"),
            keys: under("keys/"),
            parts: under("parts/"),
        }
    }

    /// A key of the store.
    pub(crate) fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.keys, key].concat()
    }

    /// The store's key that a key of etcd is, if it is one.
    pub(crate) fn name_of<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        key.strip_prefix(self.keys.as_slice())
    }

    /// One piece.
    pub(crate) fn part(&self, parts: &Parts, nth: u32) -> Vec<u8> {
        [&self.parts_of(parts), format!("{nth:08x}").as_bytes()].concat()
    }

    /// What the pieces of one thing begin with.
    pub(crate) fn parts_of(&self, parts: &Parts) -> Vec<u8> {
        [&self.parts, parts.id().as_bytes(), b"/"].concat()
    }

    /// The id in the name of a piece.
    pub(crate) fn id_of<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        let rest = std::str::from_utf8(key.strip_prefix(self.parts.as_slice())?).ok()?;
        rest.split_once('/').map(|(id, _)| id)
    }

    /// All keys of the store, all pieces, everything: first key and the end of the range.
    pub(crate) fn all_keys(&self) -> (Vec<u8>, Vec<u8>) {
        span(&self.keys)
    }

    pub(crate) fn all_parts(&self) -> (Vec<u8>, Vec<u8>) {
        span(&self.parts)
    }

    pub(crate) fn everything(&self) -> (Vec<u8>, Vec<u8>) {
        span(&self.prefix)
    }
}

/// A prefix as etcd's ranges say it.
pub(crate) fn span(prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let end = KeyRange::prefix(prefix.to_vec()).end;
    // A range to the end of everything ends with a zero byte.
    let end = end.map_or(vec![0], |end| end.to_vec());
    (prefix.to_vec(), end)
}

/// Something in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Parts {
    /// The leadership that wrote it: pieces of older ones that nothing refers to are left-overs.
    pub(crate) fence: u64,
    /// Who wrote it, and its how-manyth.
    pub(crate) stamp: Stamp,
    /// How many pieces.
    pub(crate) count: u32,
    /// Bytes of all.
    pub(crate) bytes: u64,
}

impl Parts {
    pub(crate) fn id(&self) -> String {
        let Stamp { writer, number } = self.stamp;
        format!("{:016x}-{writer:016x}-{number:x}", self.fence)
    }
}

/// Names one thing that one process wrote; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) writer: u64,
    pub(crate) number: u64,
}

/// The last entry. Its key's version in etcd counts the entries, so that no entry is written twice and a reader sees
/// that it has all.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) stamp: Stamp,
    /// The latest revision.
    pub(crate) revision: u64,
    /// The latest fence.
    pub(crate) fence: u64,
    /// Revisions before it were compacted.
    pub(crate) floor: u64,
    /// A commit that is durable but not yet in its keys.
    pub(crate) pending: Option<Stage>,
    pub(crate) what: What,
}

/// What an entry did.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum What {
    /// Nothing that a reader must know: a step of bringing a stage into its keys.
    #[default]
    Step,
    /// So many commits, up to the entry's revision. The puts are the keys' events, whose values say their revision;
    /// these are the changes without such an event: removals, and what a later commit of the entry replaced.
    Commits(u32, Vec<Hidden>),
    /// The commit that is `pending` now.
    Staged,
    /// A leadership.
    Granted,
    /// The floor.
    Compacted,
}

/// A change that the keys' events do not show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hidden {
    pub(crate) revision: u64,
    pub(crate) key: Key,
    pub(crate) value: Option<Value>,
}

/// A commit too large for one transaction: in pieces first, then in its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stage {
    pub(crate) parts: Parts,
    pub(crate) revision: u64,
    /// Changes that are in their keys already.
    pub(crate) done: u64,
}

/// One change of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) to: To,
}

/// What becomes of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum To {
    Value(Value),
    Parts(Parts),
    Gone,
}

impl Head {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let body = postcard::to_extend(self, vec![FORMAT]);
        body.expect("a vector takes all that is written to it")
    }

    /// # Errors
    /// The format, when it is a newer one, or what is wrong.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Result<u8, String>> {
        match bytes.split_first() {
            Some((&FORMAT, body)) => postcard::from_bytes(body).map_err(|e| Err(e.to_string())),
            Some((&format, _)) if format > FORMAT => Err(Ok(format)),
            _ => Err(Err("it has no known format".to_owned())),
        }
    }
}

/// What lies at a key of the store: its revision, and its value or where that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) revision: u64,
    pub(crate) to: To,
}

/// The bytes before a whole value.
pub(crate) fn before_value(revision: u64) -> [u8; 9] {
    let mut head = [WHOLE; 9];
    head[1..].copy_from_slice(&revision.to_le_bytes());
    head
}

/// The bytes of a value in pieces.
pub(crate) fn parted_value(revision: u64, parts: &Parts) -> Vec<u8> {
    let mut head = before_value(revision);
    head[0] = PARTED;
    postcard::to_extend(parts, head.to_vec()).expect("a vector takes all that is written to it")
}

/// Reads what lies at a key of the store.
pub(crate) fn stored(bytes: &Bytes) -> Result<Stored, String> {
    let (Some(kind), Some(revision)) = (bytes.first(), bytes.get(1..9)) else {
        return Err("it is too short".to_owned());
    };
    let revision = u64::from_le_bytes(revision.try_into().expect("it is eight bytes"));
    let rest = bytes.slice(9..);
    let to = match *kind {
        WHOLE => To::Value(rest),
        PARTED => To::Parts(postcard::from_bytes(&rest).map_err(|e| e.to_string())?),
        other => return Err(format!("it is of kind {other}")),
    };
    Ok(Stored { revision, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let parts = Parts {
            fence: 3,
            stamp: Stamp {
                writer: 7,
                number: 9,
            },
            count: 2,
            bytes: 5,
        };
        let hidden = Hidden {
            revision: 8,
            key: "a".into(),
            value: None,
        };
        let head = Head {
            revision: 9,
            what: What::Commits(2, vec![hidden]),
            ..Head::default()
        };
        assert_eq!(Head::decode(&head.encode()), Ok(head));
        assert_eq!(Head::decode(&[FORMAT + 1, 0]), Err(Ok(FORMAT + 1)));
        let found = stored(&parted_value(4, &parts).into()).unwrap();
        assert_eq!((found.revision, found.to), (4, To::Parts(parts)));
        let whole = [before_value(6).as_slice(), b"value"].concat();
        let found = stored(&whole.into()).unwrap();
        assert_eq!((found.revision, found.to), (6, To::Value("value".into())));
        assert!(stored(&Bytes::from_static(b"plain value")).is_err());
        let layout = Layout::new("/p/");
        assert_eq!(
            layout.id_of(&layout.part(&parts, 1)),
            Some(parts.id().as_str())
        );
        assert_eq!(layout.name_of(&layout.key(b"a/b")), Some(&b"a/b"[..]));
    }
}
