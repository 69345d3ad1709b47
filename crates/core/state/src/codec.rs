//! Changes to bytes and back: one version byte, then the record in postcard.
//!
//! Called by the control loop for each batch, by `load` at an election, and by readers of results, events and blobs. Damaged
//! bytes are an error that names the key, never a panic.

use std::collections::BTreeMap;
use std::fmt;

use prism_spec::{FirstSpec, JobSpec};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::old::Renewed;
use crate::{Change, EventRecord, MetaRecord, ResultRecord, key};

/// A key and its new value; `None` deletes it.
pub type KeyValue = (Vec<u8>, Option<Vec<u8>>);

/// Version of values whose form has never changed.
const VERSION: u8 = 1;
/// Version of values in their second form.
const SECOND: u8 = 2;

/// A value in the store is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// Where.
    pub key: String,
    /// In what way.
    pub why: String,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the stored value of {} cannot be read: {}; nothing was changed; restore the data directory from a backup, or use the prismd version that wrote it",
            self.key, self.why
        )
    }
}

impl std::error::Error for Corrupt {}

pub(crate) fn corrupt(key: &[u8], why: impl fmt::Display) -> Corrupt {
    let key: String = String::from_utf8_lossy(key).chars().take(300).collect();
    Corrupt {
        key,
        why: why.to_string(),
    }
}

fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    pack_as(VERSION, value)
}

/// A record in its second form.
pub(crate) fn pack_renewed<T: Renewed>(value: &T) -> Vec<u8> {
    pack_as(SECOND, value)
}

/// A spec: as earlier versions read it, which do not know the last field, unless that says something.
fn pack_spec(spec: &JobSpec) -> Vec<u8> {
    let mut bytes = pack_renewed(spec);
    if FirstSpec::cut(spec, &mut bytes) {
        bytes[0] = VERSION;
    }
    bytes
}

fn pack_as<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    let start = Vec::from([version]);
    postcard::to_extend(value, start)
        .expect("records have no type that postcard refuses, and a vector grows")
}

pub(crate) fn unpack<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, Corrupt> {
    read(key, body_of(key, value)?)
}

/// A record in its second form or its first.
pub(crate) fn unpack_renewed<T: Renewed>(key: &[u8], value: &[u8]) -> Result<T, Corrupt> {
    match value.split_first() {
        Some((&SECOND, body)) => read(key, body),
        _ => read::<T::First>(key, body_of(key, value)?).map(Into::into),
    }
}

fn read<T: DeserializeOwned>(key: &[u8], body: &[u8]) -> Result<T, Corrupt> {
    match postcard::take_from_bytes(body) {
        Ok((record, [])) => Ok(record),
        Ok((_, rest)) => Err(corrupt(key, format!("{} bytes too many", rest.len()))),
        Err(e) => Err(corrupt(key, e)),
    }
}

fn body_of<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], Corrupt> {
    match value.split_first() {
        Some((&VERSION, body)) => Ok(body),
        Some((other, _)) => Err(corrupt(key, format!("version {other} is not known here"))),
        None => Err(corrupt(key, "it is empty")),
    }
}

/// Reads a value under [`crate::results_prefix`].
///
/// # Errors
/// When the bytes are damaged or of another version.
pub fn decode_results(key: &[u8], value: &[u8]) -> Result<Vec<ResultRecord>, Corrupt> {
    unpack(key, value)
}

/// Reads a value under [`crate::events_prefix`].
///
/// # Errors
/// When the bytes are damaged or of another version.
pub fn decode_event(key: &[u8], value: &[u8]) -> Result<EventRecord, Corrupt> {
    unpack_renewed(key, value)
}

/// Reads the value of [`crate::meta_key`].
///
/// # Errors
/// When the bytes are damaged or of another version.
pub fn decode_meta(key: &[u8], value: &[u8]) -> Result<MetaRecord, Corrupt> {
    unpack_renewed(key, value)
}

/// Reads the value of a [`crate::blob_key`]: the content itself.
///
/// # Errors
/// When the value is empty or of another version.
pub fn decode_blob<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], Corrupt> {
    body_of(key, value)
}

impl Change {
    /// Its keys with their new values; `None` deletes.
    pub fn encode(&self) -> Vec<KeyValue> {
        let put = |key: String, value: Vec<u8>| vec![(key.into_bytes(), Some(value))];
        let delete = |key: String| vec![(key.into_bytes(), None)];
        match self {
            Self::Meta(r) => put(key::META.to_owned(), pack_renewed(r)),
            Self::Node(r) => put(key::node(r.id), pack_renewed(&**r)),
            Self::NodeRemoved(id) => delete(key::node(*id)),
            Self::JobAdded(r, spec) => vec![
                (key::job(r.id).into_bytes(), Some(pack(r))),
                (key::spec(r.id).into_bytes(), Some(pack_spec(spec))),
            ],
            Self::Job(r) => put(key::job(r.id), pack(r)),
            Self::Block { job, number, block } => {
                put(key::block(*job, *number), pack(&block.to_stored()))
            }
            Self::Lanes {
                job,
                node,
                lanes: 0,
            } => delete(key::lanes(*job, *node)),
            Self::Lanes { job, node, lanes } => put(key::lanes(*job, *node), pack(lanes)),
            Self::Results {
                job,
                block,
                seq,
                records,
            } => put(key::results(*job, *block, *seq), pack(records)),
            Self::Sweep(id, r) => put(key::sweep(*id), pack(r)),
            Self::Beam(id, beam, r) => put(key::beam(*id, *beam), pack(r)),
            Self::Sandbox(r) => put(key::sandbox(r.id), pack(r)),
            Self::SandboxRemoved(id) => delete(key::sandbox(*id)),
            Self::Token(r) => put(key::token(r.id), pack_renewed(r)),
            Self::TokenRemoved(id) => delete(key::token(*id)),
            Self::Namespace(r) => put(key::namespace(&r.name), pack(r)),
            Self::NamespaceRemoved(name) => delete(key::namespace(name)),
            Self::JoinToken(r) => put(key::join_token(r.id), pack(r)),
            Self::JoinTokenRemoved(id) => delete(key::join_token(*id)),
            Self::Member(r) => put(key::member(r.id), pack(r)),
            Self::MemberRemoved(id) => delete(key::member(*id)),
            Self::Server(r) => put(key::server(r.id), pack(r)),
            Self::Denied(r) => put(key::denied(r.whom), pack(r)),
            Self::DeniedRemoved(whom) => delete(key::denied(*whom)),
            Self::Rotation(r) => put(key::ROTATION.to_owned(), pack(r)),
            Self::Gossip(r) => put(key::GOSSIP.to_owned(), pack(r)),
            Self::Key(k, r) => put(key::idempotency(k), pack(r)),
            Self::KeyRemoved(k) => delete(key::idempotency(k)),
            Self::Event(r) => put(key::event_key(r.seq), pack_renewed(r)),
            Self::EventsRemoved(from, to) => (*from..*to)
                .map(|seq| (key::event_key(seq).into_bytes(), None))
                .collect(),
            Self::Blob(sha, content) => {
                let mut value = Vec::with_capacity(1 + content.len());
                value.push(VERSION);
                value.extend_from_slice(content);
                put(key::blob_key(sha), value)
            }
        }
    }

    /// What identifies the record that this replaces, if a later change in a batch may replace it again.
    fn replaces(&self) -> Option<String> {
        match self {
            Self::Meta(_) => Some(key::META.to_owned()),
            Self::Rotation(_) => Some(key::ROTATION.to_owned()),
            Self::Node(r) => Some(key::node(r.id)),
            Self::Job(r) => Some(key::job(r.id)),
            Self::Block { job, number, .. } => Some(key::block(*job, *number)),
            Self::Lanes { job, node, .. } => Some(key::lanes(*job, *node)),
            Self::Sweep(id, _) => Some(key::sweep(*id)),
            Self::Beam(id, beam, _) => Some(key::beam(*id, *beam)),
            _ => None,
        }
    }
}

/// The keys and values of many decisions in order, each key once with its last value: what one commit of the store takes.
/// Records that are replaced again within the batch are not encoded twice.
pub fn encode_batch<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Vec<KeyValue> {
    let changes: Vec<&Change> = changes.into_iter().collect();
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    for (i, change) in changes.iter().enumerate() {
        if let Some(key) = change.replaces() {
            last.insert(key, i);
        }
    }
    let mut out: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
    for (i, change) in changes.iter().enumerate() {
        let superseded = change
            .replaces()
            .is_some_and(|key| last.get(&key).is_some_and(|l| *l != i));
        if !superseded {
            out.extend(change.encode());
        }
    }
    out.into_iter().collect()
}
