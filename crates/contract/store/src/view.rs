//! Reads of a table: one key or a range, now or as it was at a revision. Never changes anything. Called by
//! `SharedTable` and by engines that write snapshots.

use std::cmp::Ordering;
use std::collections::btree_map;
use std::iter::Peekable;
use std::ops::Bound;

use crate::table::{Older, Slot, Table};
use crate::{Item, Key, KeyRange, Page, Revision, StoreError};

impl Table {
    /// Reads a key, now or as it was at a revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] or [`StoreError::Ahead`].
    pub fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<Item>, StoreError> {
        let at = at.unwrap_or(self.revision());
        self.check(at)?;
        let older = self.older.get(key).map(Vec::as_slice);
        let Some((name, _)) = self.map.get_key_value(key) else {
            let name = Key::from(key);
            return Ok(version(&name, None, older, at));
        };
        Ok(version(name, self.map.get(key), older, at))
    }

    /// Reads at most `limit` items of a range in order, now or as it was at a revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] or [`StoreError::Ahead`].
    pub fn range(
        &self,
        range: &KeyRange,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let at = at.unwrap_or(self.revision());
        self.check(at)?;
        let mut page = Page {
            items: Vec::new(),
            revision: at,
            more: false,
        };
        if range.end.as_ref().is_some_and(|end| *end <= range.start) {
            return Ok(page);
        }
        let end = match &range.end {
            Some(end) => Bound::Excluded(end.as_bytes()),
            None => Bound::Unbounded,
        };
        let bounds = (Bound::Included(range.start.as_bytes()), end);
        let now = self.map.range::<[u8], _>(bounds).peekable();
        // The current state needs no look at what was replaced.
        let older = if at == self.revision() {
            self.older
                .range::<[u8], _>((Bound::Excluded(&[][..]), Bound::Included(&[][..])))
        } else {
            self.older.range::<[u8], _>(bounds)
        };
        let merge = Merge {
            now,
            older: older.peekable(),
        };
        for (key, slot, older) in merge {
            let Some(item) = version(key, slot, older, at) else {
                continue;
            };
            if page.items.len() == limit {
                page.more = true;
                break;
            }
            page.items.push(item);
        }
        Ok(page)
    }
}

/// The version of a key that a revision shows.
fn version(key: &Key, now: Option<&Slot>, older: Option<&[Older]>, at: Revision) -> Option<Item> {
    let item = |value: &crate::Value, revision| Item {
        key: key.clone(),
        value: value.clone(),
        revision: Revision(revision),
    };
    if let Some(slot) = now.filter(|slot| slot.revision <= at.0) {
        return Some(item(&slot.value, slot.revision));
    }
    let shown = older?.iter().rev().find(|o| o.revision <= at.0)?;
    shown
        .value
        .as_ref()
        .map(|value| item(value, shown.revision))
}

/// Walks the current and the replaced versions side by side, key by key.
struct Merge<'a> {
    now: Peekable<btree_map::Range<'a, Key, Slot>>,
    older: Peekable<btree_map::Range<'a, Key, Vec<Older>>>,
}

impl<'a> Iterator for Merge<'a> {
    type Item = (&'a Key, Option<&'a Slot>, Option<&'a [Older]>);

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.now.peek(), self.older.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let now = order.is_le().then(|| self.now.next()).flatten();
        let older = order.is_ge().then(|| self.older.next()).flatten();
        let key = now.map(|(k, _)| k).or(older.map(|(k, _)| k))?;
        Some((key, now.map(|(_, s)| s), older.map(|(_, o)| o.as_slice())))
    }
}
