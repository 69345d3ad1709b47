//! Scratch directories that are used again: those of an ended sandbox, emptied, if nothing tells that they were another's.
//!
//! Making and removing directories is dear on ext4 without a journal: for minutes after a removal each new inode is searched for
//! among all those that were removed (`recently_deleted` in the kernel's `fs/ext4/ialloc.c`), so a node that comes and goes through sandboxes
//! becomes slower with each. Renaming costs nothing of the kind. Called by the worker when a sandbox is gone; never on a live one.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags, Timespec, Timestamps};

/// Directories of an upper layer that every sandbox gets, with their modes (see `child::root`).
const KEPT: [(&str, u32); 2] = [("tmp", 0o1777), ("work", 0o755)];
/// A directory that has grown beyond this stays large, and tells the next sandbox so.
const SIZE_MAX: i64 = 4096;
/// Attributes that overlayfs itself leaves on an upper layer.
const OURS: [&str; 6] = [
    "trusted.overlay.impure",
    "trusted.overlay.origin",
    "trusted.overlay.uuid",
    "user.overlay.impure",
    "user.overlay.origin",
    "user.overlay.uuid",
];

/// Makes a scratch directory as a launch of the host's image would find it after one (see `child::root`).
///
/// # Errors
/// The disk's, and that `dir` is there already, which is left as it is.
pub fn fresh(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir)?;
    let layers = ["", "upper", "work"].map(|name| (name.to_owned(), 0o755));
    let inside = KEPT.map(|(name, mode)| (format!("upper/{name}"), mode));
    let make = |(name, mode): (String, u32)| {
        let path = dir.join(&name);
        if !name.is_empty() {
            fs::create_dir(&path)?;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
    };
    let mut all = layers.into_iter().chain(inside);
    all.try_for_each(make).inspect_err(|_| {
        // It holds nothing that could be lost.
        let _left_over = fs::remove_dir_all(dir);
    })
}

/// Empties the scratch directory of an ended sandbox and moves it to `to`; false when it must be removed instead, because
/// something in it cannot be undone.
///
/// # Errors
/// The disk's; the directory must be removed then too.
pub fn recycle(dir: &Path, to: &Path) -> io::Result<bool> {
    let top = open(rustix::fs::CWD, dir)?;
    if names(top.as_fd())?
        .iter()
        .any(|n| n != "upper" && n != "work")
    {
        return Ok(false);
    }
    let work = open(top.as_fd(), Path::new("work"))?;
    for name in names(work.as_fd())? {
        // What the last mount worked in; the next one begins with an empty one.
        let path = dir.join("work").join(name);
        // It is empty as a rule, and only root may look into it.
        fs::remove_dir(&path).or_else(|_| remove(&path))?;
    }
    let upper = open(top.as_fd(), Path::new("upper"))?;
    for name in names(upper.as_fd())? {
        let path = dir.join("upper").join(&name);
        let is_dir = fs::symlink_metadata(&path)?.is_dir();
        if KEPT.iter().any(|(kept, _)| *kept == name) && is_dir {
            for inner in fs::read_dir(&path)? {
                remove(&inner?.path())?;
            }
        } else {
            remove(&path)?;
        }
    }
    let owner = rustix::fs::fstat(&work)?;
    if !is_as_new(&upper, 0o755, &owner)? {
        return Ok(false);
    }
    for (name, mode) in KEPT {
        match open(upper.as_fd(), Path::new(name)) {
            Ok(kept) if is_as_new(&kept, mode, &owner)? => {}
            _ => return Ok(false),
        }
    }
    fs::rename(dir, to)?;
    Ok(true)
}

fn open(at: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, path, flags, Mode::empty())?)
}

fn names(dir: impl AsFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            // No name of ours is without meaning as text; others only have to be told apart from ours.
            names.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    Ok(names)
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// Whether a directory's owner, mode, size and attributes are those of a new one; its times become so.
fn is_as_new(dir: &OwnedFd, mode: u32, owner: &rustix::fs::Stat) -> io::Result<bool> {
    let stat = rustix::fs::fstat(dir)?;
    let plain = FileType::from_raw_mode(stat.st_mode).is_dir()
        && stat.st_mode & 0o7777 == mode
        && (stat.st_uid, stat.st_gid) == (owner.st_uid, owner.st_gid)
        && stat.st_size <= SIZE_MAX;
    if !plain || !only_our_attributes(dir)? {
        return Ok(false);
    }
    // Not every file system has flags; one without cannot have had them set.
    if rustix::fs::ioctl_getflags(dir).is_ok_and(|flags| {
        let usual = rustix::fs::IFlags::from_bits_retain(0x0008_0000 | 0x1000);
        !(flags - usual).is_empty()
    }) {
        return Ok(false);
    }
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    rustix::fs::futimens(dir, &times)?;
    Ok(true)
}

fn only_our_attributes(dir: &OwnedFd) -> io::Result<bool> {
    let mut list = vec![0u8; 1024];
    let length = match rustix::fs::flistxattr(dir, &mut list[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(rustix::io::Errno::RANGE) => return Ok(false),
        Err(e) => return Err(e.into()),
    };
    for name in list[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let Some(ours) = OURS.iter().find(|ours| ours.as_bytes() == name) else {
            return Ok(false);
        };
        rustix::fs::fremovexattr(dir, *ours)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::PathBuf;

    /// What a sandbox leaves that wrote nothing.
    fn ended(at: &Path) -> PathBuf {
        let dir = at.join("s.1");
        for (name, mode) in [
            ("", 0o755),
            ("upper", 0o755),
            ("work", 0o755),
            ("work/work", 0o000),
            ("upper/tmp", 0o1777),
            ("upper/work", 0o755),
        ] {
            fs::create_dir(dir.join(name)).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        dir
    }

    fn tree(dir: &Path) -> Vec<(String, u32)> {
        let mut all = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            all.push((name.clone(), entry.metadata().unwrap().mode() & 0o7777));
            if entry.file_type().unwrap().is_dir() {
                let inner = tree(&entry.path());
                all.extend(inner.into_iter().map(|(n, m)| (format!("{name}/{n}"), m)));
            }
        }
        all.sort();
        all
    }

    fn as_new() -> Vec<(String, u32)> {
        let all = [
            ("upper", 0o755),
            ("upper/tmp", 0o1777),
            ("upper/work", 0o755),
            ("work", 0o755),
        ];
        all.map(|(name, mode)| (name.to_owned(), mode)).to_vec()
    }

    #[test]
    fn one_made_ahead_is_as_new_and_takes_no_place_that_is_taken() {
        let at = tempfile::tempdir().unwrap();
        let dir = at.path().join("1");
        fresh(&dir).unwrap();
        assert_eq!(tree(&dir), as_new());
        fs::write(dir.join("upper/work/mine"), "x").unwrap();
        assert!(fresh(&dir).is_err());
        assert!(dir.join("upper/work/mine").exists());
    }

    #[test]
    fn files_of_all_kinds_are_gone_and_the_directories_are_as_new() {
        let at = tempfile::tempdir().unwrap();
        let dir = ended(at.path());
        let outside = at.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        symlink(&outside, dir.join("upper/tmp/link")).unwrap();
        symlink(&outside, dir.join("upper/link")).unwrap();
        fs::write(dir.join("upper/work/secret"), "x").unwrap();
        fs::create_dir_all(dir.join("upper/etc/deep/er")).unwrap();
        fs::write(dir.join("upper/etc/deep/er/file"), "x").unwrap();
        let to = at.path().join("free");
        assert!(recycle(&dir, &to).unwrap());
        assert!(!dir.exists());
        assert_eq!(tree(&to), as_new());
        assert!(outside.join("kept").exists(), "no link was followed");
    }

    type Mark = fn(&Path);

    #[test]
    fn what_tells_of_its_last_user_is_not_used_again() {
        let marks: [(&str, Mark); 7] = [
            ("mode", |d| {
                fs::set_permissions(d.join("upper"), fs::Permissions::from_mode(0o700)).unwrap();
            }),
            ("mode of /tmp", |d| {
                fs::set_permissions(d.join("upper/tmp"), fs::Permissions::from_mode(0o777))
                    .unwrap();
            }),
            ("attribute", |d| {
                let work = open(rustix::fs::CWD, &d.join("upper/work")).unwrap();
                let none = rustix::fs::XattrFlags::empty();
                rustix::fs::fsetxattr(work, "user.mark", b"1", none).unwrap();
            }),
            ("a file in place of /tmp", |d| {
                fs::remove_dir(d.join("upper/tmp")).unwrap();
                fs::write(d.join("upper/tmp"), "x").unwrap();
            }),
            ("no /work", |d| {
                fs::remove_dir(d.join("upper/work")).unwrap()
            }),
            ("a large directory", |d| {
                for n in 0..200 {
                    fs::write(d.join(format!("upper/work/{n:0200}")), "").unwrap();
                }
                let size = fs::metadata(d.join("upper/work")).unwrap().len();
                if size <= SIZE_MAX as u64 {
                    // A file system whose directories do not stay large tells nothing by their size.
                    fs::remove_dir_all(d.join("upper/work")).unwrap();
                }
            }),
            ("more than a sandbox has", |d| {
                fs::write(d.join("more"), "x").unwrap()
            }),
        ];
        for (mark, make) in marks {
            let at = tempfile::tempdir().unwrap();
            let dir = ended(at.path());
            make(&dir);
            let to = at.path().join("free");
            assert!(!recycle(&dir, &to).unwrap_or(false), "{mark}");
            assert!(!to.exists(), "{mark}");
        }
    }
}
