//! A copy of the cluster's state at one revision, while writes go on.

use std::io::Write;

use prism_backup::{Head, Summary, Writer};
use prism_state::BACKUP_PREFIXES;
use prism_store::{KeyRange, SnapshotPin, StoreError};
use prism_types::{Reason, Rejection};

use crate::Control;

/// Items read at once.
const PAGE: usize = 256;

fn unread(why: &StoreError) -> Rejection {
    let why = format!("the state cannot be read for a backup: {why}; repeat it");
    Rejection::retryable(Reason::NotLeader, why)
}

impl Control {
    /// Writes a backup to a sink that takes it as fast as a disk: what is replaced meanwhile stays in memory until it is done. Nothing in
    /// it lets anybody in: tokens, join tokens, members and keys are left out.
    ///
    /// # Errors
    /// When the sink does not take it, or this server leads no more.
    pub async fn backup<W>(&self, sink: W, version: &str) -> Result<(Summary, W), Rejection>
    where
        W: Write + Send + 'static,
    {
        let (ms, cluster) = (self.now().0, self.read(|s| s.cluster()).await);
        let cluster = cluster.ok_or_else(|| {
            Rejection::retryable(Reason::NotLeader, "the cluster has no id yet; repeat it")
        })?;
        let pin = self.shared.store.snapshot().map_err(|why| unread(&why))?;
        // What was pinned is the truth: another server may lead by now.
        self.confirm().await?;
        let head = Head {
            cluster: cluster.to_string(),
            revision: pin.revision.0,
            made_ms: ms,
            prism: version.to_owned(),
        };
        let written = tokio::task::spawn_blocking(move || copy(&pin, sink, head));
        written.await.unwrap_or_else(|_| {
            let why = "a defect ended the backup; nothing was changed";
            Err(Rejection::new(Reason::Internal, why))
        })
    }
}

fn copy<W: Write>(pin: &SnapshotPin, sink: W, head: Head) -> Result<(Summary, W), Rejection> {
    let unwritten = |why: std::io::Error| {
        let why = format!("the backup cannot be written: {why}; nothing was changed");
        Rejection::retryable(Reason::Pressure, why)
    };
    let mut writer = Writer::new(sink, head).map_err(unwritten)?;
    for prefix in BACKUP_PREFIXES {
        let mut range = KeyRange::prefix(*prefix);
        loop {
            let page = pin.range(&range, PAGE).map_err(|why| unread(&why))?;
            if let Some(last) = page.items.last() {
                range = range.after(&last.key);
            }
            for item in &page.items {
                writer.put(&item.key, &item.value).map_err(unwritten)?;
            }
            if !page.more {
                break;
            }
        }
    }
    writer.finish().map_err(unwritten)
}
