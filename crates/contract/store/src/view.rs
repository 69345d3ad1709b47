//! Reads of a table: one key or a range, now or as it was at a revision. Never changes anything. Called by
//! `SharedTable` and by engines that write snapshots.

use std::ops::Bound;

use crate::table::{Table, Version};
use crate::{Item, Key, KeyRange, Page, Revision, StoreError};

impl Table {
    /// Reads a key, now or as it was at a revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] or [`StoreError::Ahead`].
    pub fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<Item>, StoreError> {
        let at = at.unwrap_or(self.revision());
        self.check(at)?;
        let found = self.map.get_key_value(key);
        Ok(found.and_then(|(name, latest)| self.item(name, latest, at)))
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
        for (key, latest) in self.map.range::<[u8], _>(bounds) {
            let Some(item) = self.item(key, latest, at) else {
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

    /// A key as a revision shows it.
    fn item(&self, key: &Key, latest: &Version, at: Revision) -> Option<Item> {
        let (value, revision) = self.shown(key, latest, at)?;
        Some(Item {
            key: key.clone(),
            value: value.clone(),
            revision,
        })
    }
}
