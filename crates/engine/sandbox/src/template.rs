//! What every sandbox shares: a small read-only root, the host's `/usr`, a `/dev`. Made once by the supervisor, in a mount
//! namespace of its own, so nothing of it is ever visible on the host or outlives the supervisor.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use prism_sys::mounts;

/// The prepared parts. Children find them at the same places in their copy of the mount namespace.
#[derive(Debug)]
pub struct Template {
    /// The directory that everything is in; children start in it.
    pub dir: PathBuf,
    /// Directories of the host that are mounted (read-only) at the same name in a `host` root, such as `usr`.
    pub host_dirs: Vec<String>,
    /// Masked in `/proc`: (name, whether it is a directory).
    pub masked: Vec<(&'static str, bool)>,
}

/// Most read-only layers that one root may have.
pub const MAX_LAYERS: usize = 128;

/// Directories that may be links into `/usr` or directories of their own, by the host's age.
const SYSTEM_DIRS: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Runc's list, and more that tells of the host.
const MASKED: &[&str] = &[
    "acpi",
    "asound",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];

const DEVICES: &[(&str, u32)] = &[
    ("null", 3),
    ("zero", 5),
    ("full", 7),
    ("random", 8),
    ("urandom", 9),
];

impl Template {
    /// Makes everything beneath `dir`, which becomes a file system in memory.
    ///
    /// # Errors
    /// What failed, and why.
    pub fn make(dir: &Path) -> Result<Self, String> {
        let err = |what: &str, e: io::Error| format!("{what} in {}: {e}", dir.display());
        fs::create_dir_all(dir).map_err(|e| err("make the template directory", e))?;
        mounts::mount(
            "tmpfs",
            dir,
            "tmpfs",
            libc::MS_NOSUID | libc::MS_NODEV,
            "size=64m,nr_inodes=20k,mode=755",
        )
        .map_err(|e| err("mount a file system in memory", e))?;
        for sub in ["b", "dev", "empty", "l", "m", "skel"] {
            fs::create_dir(dir.join(sub)).map_err(|e| err("make a directory", e))?;
        }
        for layer in 0..MAX_LAYERS {
            fs::create_dir(dir.join("l").join(layer.to_string()))
                .map_err(|e| err("make a directory", e))?;
        }
        seal(&dir.join("empty")).map_err(|e| err("seal a directory", e))?;
        skeleton(&dir.join("skel")).map_err(|e| err("prepare the root skeleton", e))?;
        devices(&dir.join("dev")).map_err(|e| err("prepare /dev", e))?;
        let mut host_dirs = Vec::new();
        for name in std::iter::once(&"usr").chain(SYSTEM_DIRS) {
            let host = Path::new("/").join(name);
            if !fs::symlink_metadata(&host).is_ok_and(|m| m.is_dir()) {
                continue;
            }
            share(&host, &dir.join(name)).map_err(|e| err(&format!("share /{name}"), e))?;
            host_dirs.push((*name).to_owned());
        }
        let masked = MASKED
            .iter()
            .filter_map(|name| {
                let meta = fs::metadata(Path::new("/proc").join(name)).ok()?;
                Some((*name, meta.is_dir()))
            })
            .collect();
        Ok(Self {
            dir: dir.to_owned(),
            host_dirs,
            masked,
        })
    }
}

fn share(host: &Path, at: &Path) -> io::Result<()> {
    fs::create_dir(at)?;
    let tree = mounts::clone_tree(host, true)?;
    mounts::restrict(tree.as_fd(), true, None)?;
    mounts::attach(tree.as_fd(), at)
}

/// Mounts a directory read-only over itself: what is mounted from it later is read-only too.
fn seal(dir: &Path) -> io::Result<()> {
    let tree = mounts::clone_tree(dir, false)?;
    mounts::restrict(tree.as_fd(), true, None)?;
    mounts::attach(tree.as_fd(), dir)
}

fn devices(dev: &Path) -> io::Result<()> {
    mounts::mount(
        "tmpfs",
        dev,
        "tmpfs",
        libc::MS_NOSUID | libc::MS_NOEXEC,
        "size=64k,nr_inodes=64,mode=755",
    )?;
    for (name, minor) in DEVICES.iter().chain(&[("tty", 0)]) {
        let major = if *name == "tty" { 5 } else { 1 };
        device(dev, name, major, *minor)?;
    }
    fs::create_dir(dev.join("pts"))?;
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
        ("shm", "/run/shm"),
    ] {
        symlink(target, dev.join(link))?;
    }
    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | libc::MS_NOSUID;
    mounts::mount("none", dev, "none", flags | libc::MS_NOEXEC, "")
}

/// Makes a device node, or where that is forbidden mounts the host's own over a file, after checking that it is what it should be.
fn device(dev: &Path, name: &str, major: u32, minor: u32) -> io::Result<()> {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    use std::os::unix::fs::MetadataExt;
    let at = dev.join(name);
    let mode = Mode::from_raw_mode(0o666);
    if mknodat(CWD, &at, FileType::CharacterDevice, mode, makedev(major, minor)).is_ok() {
        fs::set_permissions(&at, fs::Permissions::from_mode(0o666))?;
        // A namespace may accept the node and still refuse to open it.
        if name == "tty" || fs::File::open(&at).is_ok() {
            return Ok(());
        }
        fs::remove_file(&at)?;
    }
    fs::write(&at, "")?;
    let host = Path::new("/dev").join(name);
    let found = fs::symlink_metadata(&host)?;
    if found.rdev() != makedev(major, minor) {
        return Err(io::Error::other(format!(
            "{} is not device {major}:{minor}",
            host.display()
        )));
    }
    let tree = mounts::clone_tree(&host, false)?;
    mounts::attach(tree.as_fd(), &at)
}

fn skeleton(root: &Path) -> io::Result<()> {
    for dir in [
        "dev", "etc", "home", "media", "mnt", "opt", "proc", "root", "run", "run/shm", "srv",
        "sys", "tmp", "usr", "var", "var/cache", "var/lib", "var/log", "var/tmp", "work",
        "etc/ssl", "etc/ssl/certs",
    ] {
        fs::create_dir(root.join(dir))?;
        let mode = match dir {
            "tmp" | "var/tmp" | "run/shm" => 0o1777,
            "root" => 0o700,
            _ => 0o755,
        };
        fs::set_permissions(root.join(dir), fs::Permissions::from_mode(mode))?;
    }
    symlink("/run", root.join("var/run"))?;
    // The root of it is what a sandbox's `/` looks like.
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    for name in SYSTEM_DIRS {
        let host = Path::new("/").join(name);
        match fs::symlink_metadata(&host) {
            Ok(m) if m.is_symlink() => symlink(fs::read_link(&host)?, root.join(name))?,
            Ok(m) if m.is_dir() => fs::create_dir(root.join(name))?,
            _ => {}
        }
    }
    let etc = root.join("etc");
    for (name, text) in [
        (
            "passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        ),
        ("group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
        ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("resolv.conf", ""),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ] {
        fs::write(etc.join(name), text)?;
        fs::set_permissions(etc.join(name), fs::Permissions::from_mode(0o644))?;
    }
    // Only what programs need to start and to check certificates; never accounts or keys of the host.
    for name in [
        "ld.so.cache",
        "ld.so.conf",
        "localtime",
        "mime.types",
        "services",
        "protocols",
        "ssl/openssl.cnf",
        "ssl/certs/ca-certificates.crt",
    ] {
        copy_if_there(&Path::new("/etc").join(name), &etc.join(name));
    }
    fs::create_dir(etc.join("alternatives"))?;
    fs::set_permissions(etc.join("alternatives"), fs::Permissions::from_mode(0o755))?;
    if let Ok(links) = fs::read_dir("/etc/alternatives") {
        for link in links.flatten().take(4_000) {
            if let Ok(target) = fs::read_link(link.path()) {
                symlink(target, etc.join("alternatives").join(link.file_name()))?;
            }
        }
    }
    Ok(())
}

/// A host without the file, or one that does not let us read it, gives a sandbox without it.
fn copy_if_there(from: &Path, to: &Path) {
    const LIMIT: u64 = 4 << 20;
    let small = fs::metadata(from).is_ok_and(|m| m.is_file() && m.len() <= LIMIT);
    if small && let Ok(content) = fs::read(from) {
        let written = fs::write(to, content)
            .and_then(|()| fs::set_permissions(to, fs::Permissions::from_mode(0o644)));
        if written.is_err() {
            let _ = fs::remove_file(to);
        }
    }
}
