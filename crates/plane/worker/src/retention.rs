//! What is removed from the node's directories: scratch of tasks that are gone, files of jobs nobody holds, old logs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use prism_faults::point;
use prism_types::Bytes;

/// Removes every entry of `dir` whose name is not in `keep`. Leftovers of a crash are found by their names alone.
pub(crate) fn keep_only(dir: &Path, keep: &BTreeSet<String>) -> io::Result<u32> {
    let mut removed = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| keep.contains(name))
        {
            continue;
        }
        let is_dir = entry.file_type()?.is_dir();
        let outcome = point!("worker.leftovers.before_remove").and_then(|()| {
            if is_dir {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            }
        });
        match outcome {
            Ok(()) => removed += 1,
            Err(e) => {
                tracing::warn!(path = %entry.path().display(), error = %e, "could not remove a leftover; trying again at the next start")
            }
        }
    }
    Ok(removed)
}

/// Removes whole directories under `dir` (one per job or sandbox), oldest first, until all together are at most `total`.
/// Directories whose name is in `live` stay.
pub(crate) fn trim_logs(dir: &Path, total: Bytes, live: &BTreeSet<String>) -> io::Result<u64> {
    let mut found: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let size = size_of(&entry.path())?;
        sum += size;
        if !entry
            .file_name()
            .to_str()
            .is_some_and(|name| live.contains(name))
        {
            let changed = entry
                .metadata()?
                .modified()
                .unwrap_or(SystemTime::UNIX_EPOCH);
            found.push((changed, entry.path(), size));
        }
    }
    found.sort();
    let mut freed = 0;
    for (_, path, size) in found {
        if sum <= total.0 {
            break;
        }
        fs::remove_dir_all(&path)?;
        sum -= size;
        freed += size;
    }
    Ok(freed)
}

fn size_of(path: &Path) -> io::Result<u64> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Ok(meta.len());
    }
    let mut sum = 0;
    for entry in fs::read_dir(path)? {
        match entry.and_then(|e| size_of(&e.path())) {
            Ok(n) => sum += n,
            // Segments are dropped by rotation while this counts.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_and_the_living_stay() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("stdout.0"), vec![0; 1000]).unwrap();
        }
        let live: BTreeSet<String> = ["a".to_owned()].into();
        assert_eq!(trim_logs(dir.path(), Bytes(2500), &live).unwrap(), 1000);
        assert!(dir.path().join("a").exists());
        assert_eq!(keep_only(dir.path(), &live).unwrap(), 1);
        assert!(dir.path().join("a").exists() && !dir.path().join("c").exists());
    }
}
