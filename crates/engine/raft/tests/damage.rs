//! Damages every file of a store in many places: it opens with everything that was acknowledged, or it is refused with
//! the file and the offset named. It never shows anything else.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};

use prism_raft::{Config, OpenError, open};
use prism_store::{Batch, Item, KeyRange, Revision, Store};

fn config(dir: &Path) -> Config {
    let mut config = Config::new(dir);
    config.segment_bytes = 8 * 1024;
    config.log_bytes = 24 * 1024;
    config
}

/// What a store holds.
#[derive(Debug, PartialEq)]
struct Content {
    revision: Revision,
    items: Vec<Item>,
}

async fn content(dir: &Path) -> Result<Content, OpenError> {
    let store = open(config(dir)).await?;
    let page = store
        .range(KeyRange::all(), None, usize::MAX)
        .await
        .unwrap();
    store.close().await;
    Ok(Content {
        revision: page.revision,
        items: page.items,
    })
}

/// Makes a store with a snapshot and several segments.
async fn make(dir: &Path, writes: usize) -> Content {
    let store = open(config(dir)).await.unwrap();
    let fence = store.lead().await.unwrap().fence;
    for n in 0..writes {
        let batch = Batch::new()
            .put(format!("k/{}", n % 40), vec![n as u8; 100 + n % 300])
            .put("last", n.to_string());
        store.commit(fence, batch).await.unwrap();
    }
    store.close().await;
    drop(store);
    content(dir).await.unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = ["format", "vote", "tail", "snapshot"]
        .map(PathBuf::from)
        .into();
    let mut segments: Vec<PathBuf> = fs::read_dir(dir.join("log"))
        .unwrap()
        .map(|entry| Path::new("log").join(entry.unwrap().file_name()))
        .collect();
    segments.sort();
    files.extend(segments);
    files
}

/// Opens a damaged copy, and checks that it is whole or refused by name; says whether it was refused.
async fn whole_or_refused(dir: &Path, file: &Path, whole: &Content, what: &str) -> bool {
    match content(dir).await {
        Ok(found) => {
            assert!(
                found == *whole,
                "{what} of {} changed what is read",
                file.display()
            );
            false
        }
        Err(error) => {
            let said = error.to_string();
            let named = said.contains(&*file.to_string_lossy());
            assert!(
                named,
                "{what} of {} was refused with: {said}",
                file.display()
            );
            let placed = said.contains("offset") || matches!(error, OpenError::Newer { .. });
            assert!(
                placed,
                "{what} of {} was refused with: {said}",
                file.display()
            );
            true
        }
    }
}

/// Offsets spread over a file, with its first and last ones.
fn spread(len: usize, count: usize) -> Vec<usize> {
    let mut offsets: Vec<usize> = (0..count).map(|n| n * len / count + n % 7).collect();
    offsets.extend([0, 1, len.saturating_sub(1)]);
    offsets.retain(|offset| *offset < len);
    offsets.sort_unstable();
    offsets.dedup();
    offsets
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_are_refused_or_harmless() {
    let origin = tempfile::tempdir().unwrap();
    let whole = make(origin.path(), 150).await;
    let mut refused = 0;
    let mut tried = 0;
    for file in files(origin.path()) {
        let bytes = fs::read(origin.path().join(&file)).unwrap();
        for offset in spread(bytes.len(), 40) {
            let dir = tempfile::tempdir().unwrap();
            copy(origin.path(), dir.path());
            let mut damaged = bytes.clone();
            damaged[offset] ^= 1 << (offset % 8);
            fs::write(dir.path().join(&file), damaged).unwrap();
            let what = format!("a flipped bit at {offset}");
            refused += usize::from(whole_or_refused(dir.path(), &file, &whole, &what).await);
            tried += 1;
        }
    }
    assert!(
        refused * 2 > tried,
        "only {refused} of {tried} were noticed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_and_missing_files_are_refused_or_harmless() {
    let origin = tempfile::tempdir().unwrap();
    let whole = make(origin.path(), 150).await;
    for file in files(origin.path()) {
        let len = fs::metadata(origin.path().join(&file)).unwrap().len();
        let mut refused = 0;
        for keep in spread(usize::try_from(len).unwrap(), 30) {
            let dir = tempfile::tempdir().unwrap();
            copy(origin.path(), dir.path());
            let opened = fs::OpenOptions::new()
                .write(true)
                .open(dir.path().join(&file))
                .unwrap();
            opened.set_len(keep as u64).unwrap();
            let what = format!("the cut at {keep}");
            refused += usize::from(whole_or_refused(dir.path(), &file, &whole, &what).await);
        }
        assert!(refused > 0, "no cut of {} was noticed", file.display());

        let dir = tempfile::tempdir().unwrap();
        copy(origin.path(), dir.path());
        fs::remove_file(dir.path().join(&file)).unwrap();
        let error = content(dir.path())
            .await
            .expect_err("a missing file is refused")
            .to_string();
        // Without a snapshot it is the log that shows that something is missing.
        let named = error.contains(&*file.to_string_lossy()) || error.contains("after entry");
        assert!(named, "without {}: {error}", file.display());
    }
}

/// The end of what was written to the last segment.
fn end_of_log(dir: &Path) -> (PathBuf, u64) {
    let tail = fs::read(dir.join("tail")).unwrap();
    let number = |at: usize| u64::from_le_bytes(tail[at..at + 8].try_into().unwrap());
    let segment = format!("{:020}.seg", number(0));
    (dir.join("log").join(segment), number(8))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unfinished_write_is_cut_off() {
    let origin = tempfile::tempdir().unwrap();
    let whole = make(origin.path(), 30).await;
    let (segment, end) = end_of_log(origin.path());
    let segment = segment.strip_prefix(origin.path()).unwrap();
    let bytes = fs::read(origin.path().join(segment)).unwrap();
    let end = usize::try_from(end).unwrap();
    // Half of an entry, as a kill in the middle of a write leaves it, then garbage of several kinds.
    for (len, fill) in [
        (1, 0xff),
        (20, 0x01),
        (64, 0xaa),
        (3000, 0x42),
        (200_000, 0x07),
    ] {
        let dir = tempfile::tempdir().unwrap();
        copy(origin.path(), dir.path());
        let mut torn = bytes[..end].to_vec();
        torn.extend(std::iter::repeat_n(fill, len));
        fs::write(dir.path().join(segment), torn).unwrap();
        assert_eq!(content(dir.path()).await.unwrap(), whole);
        assert_eq!(
            content(dir.path()).await.unwrap(),
            whole,
            "and a second time"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_shows_even_when_the_tail_is_old() {
    // After a power loss the noted tail may be an old one. Entries prove each other durable then.
    let origin = tempfile::tempdir().unwrap();
    let store = open(config(origin.path())).await.unwrap();
    let fence = store.lead().await.unwrap().fence;
    let old = fs::read(origin.path().join("tail")).unwrap();
    for n in 0..10 {
        let batch = Batch::new().put(format!("k/{n}"), vec![n; 200]);
        store.commit(fence, batch).await.unwrap();
    }
    store.close().await;
    let (segment, end) = end_of_log(origin.path());
    let (_, start) = (0, u64::from_le_bytes(old[8..16].try_into().unwrap()));
    fs::write(origin.path().join("tail"), &old).unwrap();
    let name = segment.strip_prefix(origin.path()).unwrap().to_owned();
    let bytes = fs::read(&segment).unwrap();
    let frame = (end - start) / 10;
    for offset in (start..end).step_by(17) {
        let dir = tempfile::tempdir().unwrap();
        copy(origin.path(), dir.path());
        let mut damaged = bytes.clone();
        damaged[usize::try_from(offset).unwrap()] ^= 0x10;
        fs::write(dir.path().join(&name), damaged).unwrap();
        match content(dir.path()).await {
            // Only the last write may pass for a torn one.
            Ok(found) => assert!(
                found.revision.0 == 10 || offset >= end - frame,
                "at {offset}"
            ),
            Err(error) => assert!(
                error.to_string().contains(&*name.to_string_lossy()),
                "{error}"
            ),
        }
    }
}
