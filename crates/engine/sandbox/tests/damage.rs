//! Damages what the engine keeps of images and sandboxes in many places: it is read as it was written, or refused with the file
//! named. It is never read as something else.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

mod kit;

use std::fs;
use std::path::{Path, PathBuf};

use kit::{LayerOf, Layout, Tar};
use prism_sandbox::image::{ImageStore, Limits};
use prism_sandbox::snapshot::{restore, snapshot};

/// Offsets spread over a file, with its first and last ones.
fn spread(len: usize, count: usize) -> Vec<usize> {
    let mut offsets: Vec<usize> = (0..count).map(|n| n * len / count).collect();
    offsets.extend([1, len.saturating_sub(1)]);
    offsets.sort_unstable();
    offsets.dedup();
    offsets
}

/// The bytes with one bit flipped, and cut, at each of many places.
fn damaged(bytes: &[u8], count: usize) -> impl Iterator<Item = (String, Vec<u8>)> {
    spread(bytes.len(), count).into_iter().flat_map(|at| {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        let cut = bytes[..at].to_vec();
        [
            (format!("flipped at {at}"), flipped),
            (format!("cut at {at}"), cut),
        ]
    })
}

#[test]
fn a_damaged_record_of_an_image_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let layer = LayerOf::plain(Tar::new().dir("bin").file("bin/sh", b"#!").end());
    let layout = dir.path().join("layout");
    Layout::of(&[layer], Some("one:1")).write(&layout);
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    let whole = store.load(&layout, Some("one:1")).unwrap();
    let record = fs::read_dir(dir.path().join("store/images")).unwrap();
    let record = record.map(|e| e.unwrap().path()).next().unwrap();
    let bytes = fs::read(&record).unwrap();
    let (mut tried, mut refused) = (0, 0);
    for (what, bytes) in damaged(&bytes, 50) {
        fs::write(&record, bytes).unwrap();
        tried += 1;
        match store.resolve("one:1") {
            Ok(found) => assert_eq!(found, whole, "{what}"),
            Err(e) => {
                let said = format!("{e}: {:?}", std::error::Error::source(&e));
                assert!(said.contains(&*record.to_string_lossy()), "{what}: {said}");
                assert!(said.contains("is damaged at byte"), "{what}: {said}");
                refused += 1;
            }
        }
    }
    assert!(refused * 10 > tried * 9, "{refused} of {tried}");
}

/// Every file with its content.
fn content(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_owned();
                found.push((name, fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_damaged_snapshot_is_refused_by_name_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let upper = dir.path().join("upper");
    fs::create_dir_all(upper.join("work/deep")).unwrap();
    for n in 0..40_u32 {
        let text: Vec<u8> = (0..n * 97)
            .map(|i| (i.wrapping_mul(n) >> 3) as u8)
            .collect();
        fs::write(upper.join(format!("work/deep/{n}")), text).unwrap();
    }
    let archive = dir.path().join("saved.tar.zst");
    snapshot(&upper, &archive, None, Limits::SNAPSHOT).unwrap();
    let whole = content(&upper);
    let bytes = fs::read(&archive).unwrap();
    let target = dir.path().join("target");
    let (mut tried, mut refused) = (0, 0);
    for (what, bytes) in damaged(&bytes, 60) {
        fs::write(&archive, bytes).unwrap();
        tried += 1;
        match restore(&archive, &target, None, Limits::SNAPSHOT) {
            Ok(_) => {
                assert_eq!(content(&target), whole, "{what}");
                fs::remove_dir_all(&target).unwrap();
            }
            Err(e) => {
                let said = e.to_string();
                assert!(said.contains(&*archive.to_string_lossy()), "{what}: {said}");
                assert!(!target.exists(), "{what}");
                refused += 1;
            }
        }
    }
    assert!(refused * 10 > tried * 9, "{refused} of {tried}");
}
