//! Where on the disk directories come to lie.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

/// Has each directory that is made in `dir` from now on lie in a part of the disk of its own, where the file system knows of such a
/// thing (ext4: the block groups of Orlov's allocator, `T` of chattr).
///
/// Without a journal, ext4 looks for each new inode among all that were removed in the last minutes from the same part. What comes
/// and goes as sandboxes do would all lie in one.
pub(crate) fn each_apart(dir: &Path) -> io::Result<()> {
    let dir = File::open(dir)?;
    let set = ioctl_getflags(&dir).and_then(|flags| ioctl_setflags(&dir, flags | IFlags::TOPDIR));
    // It is only about speed, and most file systems have no such flag.
    if let Err(e) = set {
        tracing::debug!(error = %e, "this file system places directories as it likes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `EXT4_SUPER_MAGIC`.
    const EXT4: rustix::fs::FsWord = 0xEF53;

    #[test]
    fn what_is_made_in_a_directory_lies_apart_where_the_file_system_can() {
        for at in [std::env::temp_dir(), "/dev/shm".into()] {
            let dir = tempfile::tempdir_in(&at).unwrap();
            each_apart(dir.path()).unwrap();
            let kind = rustix::fs::statfs(dir.path()).unwrap().f_type;
            let flags = ioctl_getflags(File::open(dir.path()).unwrap());
            let set = flags.is_ok_and(|flags| flags.contains(IFlags::TOPDIR));
            assert!(set || kind != EXT4, "{}", at.display());
            // What is made there is as everything else.
            let inner = dir.path().join("inner");
            std::fs::create_dir(&inner).unwrap();
            let inner = ioctl_getflags(File::open(inner).unwrap());
            assert!(!inner.is_ok_and(|flags| flags.contains(IFlags::TOPDIR)));
        }
        assert!(each_apart(Path::new("/none/at/all")).is_err());
    }
}
