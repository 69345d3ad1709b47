//! One layer: verified, unpacked beside the others, and published under its digest.
//!
//! The blob is read once; digest and size are checked on the same bytes that were unpacked, before
//! the layer becomes visible. Called by the image store with its lock held.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use prism_faults::point;

use super::error::{ImageError, Refusal};
use super::limits::Budget;
use super::manifest::{Layer, mismatch};
use super::metadata::Owners;
use super::source::Source;
use super::stream::{Metered, Slice, plain};
use super::unpack::{Rules, Unpacker};

/// Where the layer with this unpacked digest lives.
pub(super) fn directory(store: &Path, diff: &str) -> PathBuf {
    store.join("layers").join(diff).join("fs")
}

/// Makes sure the layer is in the store.
pub(super) fn ensure(
    store: &Path,
    source: &Source,
    layer: &Layer,
    budget: &mut Budget,
) -> Result<(), ImageError> {
    let published = store.join("layers").join(&layer.diff);
    if published.join("fs").is_dir() {
        return Ok(());
    }
    let work = store.join("tmp").join(&layer.diff);
    let made = make(source, layer, &work, budget).and_then(|()| publish(&work, &published));
    if made.is_err() {
        discard(store, &layer.diff);
    }
    made
}

fn make(
    source: &Source,
    layer: &Layer,
    work: &Path,
    budget: &mut Budget,
) -> Result<(), ImageError> {
    let Some(blob) = source.blob(&layer.blob)? else {
        return Err(source.wrong(&layer.blob, "missing"));
    };
    if let Some((_, size)) = &layer.stored
        && blob.size() != *size
    {
        let found = blob.size().to_string();
        return Err(mismatch(
            source,
            &layer.blob,
            "size",
            &found,
            &size.to_string(),
        ));
    }
    let root = work.join("fs");
    let refuse = |error: io::Error| ImageError::store("cannot create", &root, error);
    point!("image.layer.before_unpack")
        .and_then(|()| fs::create_dir_all(&root))
        .map_err(refuse)?;
    let root = OwnedFd::from(File::open(&root).map_err(refuse)?);
    unpack(source, layer, blob, root, budget)
}

fn unpack(
    source: &Source,
    layer: &Layer,
    blob: Slice,
    root: OwnedFd,
    budget: &mut Budget,
) -> Result<(), ImageError> {
    let refuse = |error| ImageError::Archive {
        file: format!("{}: {}", source.label, layer.blob.escape_debug()),
        error,
    };
    let again = blob.clone();
    let stream_max = budget.stream_max();
    let stream = plain(blob, budget.limits, stream_max).map_err(|why| refuse(why.whole()))?;
    let (metered, unpacked) = Metered::new(stream.reader);
    let rules = Rules {
        owners: owners(),
        snapshot: false,
    };
    let done = Unpacker::new(root, rules, budget).run(BufReader::with_capacity(64 << 10, metered));
    if let Err(error) = done {
        // A damaged blob shows as some parse error first; its digest says what really happened.
        check_stored(source, layer, again)?;
        return Err(refuse(error));
    }
    if let Some((digest, size)) = &layer.stored {
        if stream.stored.bytes() != *size {
            let why = "bytes follow the compressed stream".to_owned();
            return Err(refuse(Refusal::Damaged(why).whole()));
        }
        let found = stream.stored.hex();
        if found != *digest {
            return Err(mismatch(source, &layer.blob, "digest", &found, digest));
        }
    }
    let found = unpacked.hex();
    if found != layer.diff {
        return Err(mismatch(
            source,
            &layer.blob,
            "unpacked digest",
            &found,
            &layer.diff,
        ));
    }
    Ok(())
}

/// Reads the blob to its end only for its digest.
fn check_stored(source: &Source, layer: &Layer, blob: Slice) -> Result<(), ImageError> {
    let Some((digest, _)) = &layer.stored else {
        return Ok(());
    };
    let (mut metered, meter) = Metered::new(blob);
    io::copy(&mut metered, &mut io::sink())
        .map_err(|error| source.wrong(&layer.blob, format!("cannot read it: {error}")))?;
    let found = meter.hex();
    if found == *digest {
        return Ok(());
    }
    Err(mismatch(source, &layer.blob, "digest", &found, digest))
}

/// As root the image's own ids, which the isolation maps into the sandbox's range when mounting.
fn owners() -> Owners {
    if rustix::process::geteuid().is_root() {
        Owners::Offset(0)
    } else {
        Owners::Caller
    }
}

fn publish(work: &Path, published: &Path) -> Result<(), ImageError> {
    let refuse = |error: io::Error| ImageError::store("cannot publish", published, error);
    let opened = File::open(work).map_err(refuse)?;
    // The name must never outlive the content in a power cut.
    point!("image.layer.before_sync")
        .and_then(|()| Ok(rustix::fs::syncfs(&opened)?))
        .map_err(refuse)?;
    match point!("image.layer.before_rename").and_then(|()| fs::rename(work, published)) {
        Ok(()) => {}
        Err(_) if published.join("fs").is_dir() => {}
        Err(error) => return Err(refuse(error)),
    }
    match published.parent() {
        Some(layers) => sync_directory(layers)
            .and_then(|()| point!("image.layer.after"))
            .map_err(refuse),
        None => Ok(()),
    }
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn discard(store: &Path, diff: &str) {
    let tmp = store.join("tmp");
    if let Ok(opened) = File::open(&tmp) {
        // What cannot be deleted now is deleted by the next holder of the lock.
        let _ = prism_sys::beneath::remove_tree(&opened, diff.as_ref());
    }
}
