//! Reads the state from etcd as it was at one of its revisions: at a start, and when a watch cannot go on from where it was.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use prism_store::{Key, Revision, Table, Value, Window};
use prism_types::Fence;

use crate::client::Client;
use crate::error::{Fault, Kind, OpenError};
use crate::json::{self, Found, Pair};
use crate::layout::{Change, FORMAT, Head, Layout, Parts, Stage, To, span, stored};
use crate::mirror::Position;

/// Longest time that one read is tried.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a page to aim at, and keys of the first page and of any.
const PAGE_BYTES: usize = 4 << 20;
const FIRST: usize = 64;
const MOST: usize = 4096;
/// How often a read begins anew because etcd's history was dropped under it.
const TRIES: u32 = 5;

/// Why the state cannot be read.
#[derive(Debug)]
pub(crate) enum LoadError {
    Fault(Fault),
    Open(OpenError),
}

impl From<Fault> for LoadError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<LoadError> for OpenError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Fault(fault) => fault.into(),
            LoadError::Open(error) => error,
        }
    }
}

fn foreign(key: &[u8], why: impl Into<String>) -> LoadError {
    LoadError::Open(OpenError::Foreign {
        key: key.escape_ascii().to_string(),
        why: why.into(),
    })
}

/// Reads `head`, which a key of etcd must hold.
pub(crate) fn head_of(pair: &Pair) -> Result<Head, LoadError> {
    Head::decode(&pair.value).map_err(|wrong| match wrong {
        Err(why) => foreign(&pair.key, why),
        Ok(found) => LoadError::Open(OpenError::Newer {
            key: pair.key.escape_ascii().to_string(),
            found,
            known: FORMAT,
        }),
    })
}

/// Reads one key as it is now, linearizably, and the revision of etcd that shows it.
pub(crate) async fn one(client: &Client, key: &[u8]) -> Result<(i64, Option<Pair>), Fault> {
    let body = json::range(&(key.to_vec(), Vec::new()), 0, 0, false);
    let found: Found = client.ask("/v3/kv/range", body, PATIENCE).await?;
    Ok((found.header.revision, found.kvs.into_iter().next()))
}

/// Reads everything.
pub(crate) async fn state(
    client: &Client,
    layout: &Layout,
    window: Window,
) -> Result<(Table, Position), LoadError> {
    let mut tries = 0;
    loop {
        match at_once(client, layout, window).await {
            Err(LoadError::Fault(fault))
                if fault.kind() == Some(Kind::Compacted) && tries < TRIES =>
            {
                tries += 1
            }
            other => return other,
        }
    }
}

async fn at_once(
    client: &Client,
    layout: &Layout,
    window: Window,
) -> Result<(Table, Position), LoadError> {
    let (etcd, head) = one(client, &layout.head).await?;
    let mut position = Position {
        etcd,
        ..Position::default()
    };
    if let Some(pair) = &head {
        position.version = pair.version;
        position.head = head_of(pair)?;
    }
    let now = &position.head;
    let mut table = Table::restored(window, Revision(now.revision), Fence(now.fence));
    let mut items = std::collections::BTreeMap::new();
    let (mut from, end) = layout.all_keys();
    let mut limit = FIRST;
    loop {
        let body = json::range(&(from, end.clone()), etcd, limit, false);
        let page: Found = client.ask("/v3/kv/range", body, PATIENCE).await?;
        let bytes: usize = page.kvs.iter().map(|pair| pair.value.len() + 64).sum();
        let Some(last) = page.kvs.last() else { break };
        from = [&last.key[..], &[0]].concat();
        limit = (PAGE_BYTES * page.kvs.len() / bytes).clamp(1, MOST);
        for pair in page.kvs {
            let name = layout.name_of(&pair.key).unwrap_or_default();
            let found = stored(&pair.value).map_err(|why| foreign(&pair.key, why))?;
            items.insert(Key::from(name), (found.revision, found.to));
        }
        if !page.more {
            break;
        }
    }
    if let Some(stage) = &position.head.pending {
        for change in staged(client, layout, stage, etcd).await? {
            match change.to {
                To::Gone => items.remove(&change.key),
                to => items.insert(change.key, (stage.revision, to)),
            };
        }
    }
    for (key, (revision, to)) in items {
        let value = match to {
            To::Value(value) => value,
            To::Parts(parts) => {
                position.parted.insert(key.clone(), parts);
                gather(client, layout, &parts, etcd).await?
            }
            To::Gone => continue,
        };
        table.load(key, value, Revision(revision));
    }
    Ok((table, position))
}

/// Reads what lies in pieces, as it was at a revision of etcd.
pub(crate) async fn gather(
    client: &Client,
    layout: &Layout,
    parts: &Parts,
    etcd: i64,
) -> Result<Value, LoadError> {
    let name = layout.parts_of(parts);
    let (mut from, end) = span(&name);
    let size = usize::try_from(parts.bytes).unwrap_or(0);
    let mut whole = BytesMut::with_capacity(size);
    let mut count = 0;
    loop {
        let body = json::range(&(from, end.clone()), etcd, 4, false);
        let page: Found = client.ask("/v3/kv/range", body, PATIENCE).await?;
        let Some(last) = page.kvs.last() else { break };
        from = [&last.key[..], &[0]].concat();
        for pair in &page.kvs {
            count += 1;
            whole.extend_from_slice(&pair.value);
        }
        if !page.more {
            break;
        }
    }
    if count != parts.count || whole.len() != size {
        let why = format!("{count} of {} pieces are there", parts.count);
        return Err(foreign(&name, why));
    }
    Ok(whole.freeze())
}

/// Reads the changes of a stage.
pub(crate) async fn staged(
    client: &Client,
    layout: &Layout,
    stage: &Stage,
    etcd: i64,
) -> Result<Vec<Change>, LoadError> {
    let bytes: Bytes = gather(client, layout, &stage.parts, etcd).await?;
    postcard::from_bytes(&bytes).map_err(|e| foreign(&layout.parts_of(&stage.parts), e.to_string()))
}
