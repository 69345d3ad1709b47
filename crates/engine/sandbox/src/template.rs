//! What every sandbox shares: a small read-only root, the host's `/usr`, a `/dev`. Made once by the supervisor in a mount
//! namespace that holds nothing else, and of which each sandbox gets a copy: the host's tree is not in a sandbox's mount
//! namespace at any time, nothing of the template is visible on the host, and it is gone with the supervisor.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use prism_sys::mounts;
use prism_sys::process::{self, Fork, SingleThread};

/// The prepared parts. In the namespace's root are `b` (where scratch space is mounted), `dev`, `empty`, `l` (layers), `m` (the
/// merged root), `skel`, the host's directories, and for a normal user `proc`.
#[derive(Debug)]
pub struct Template {
    /// The mount namespace.
    pub namespace: OwnedFd,
    /// Directories of the host that are mounted (read-only) at the same name in a `host` root, such as `usr`.
    pub host_dirs: Vec<&'static str>,
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
    /// Makes it. `at` is a directory to mount on meanwhile; `user` is whether this is the supervisor of a normal user.
    ///
    /// # Errors
    /// What failed, and why.
    pub fn make(proof: SingleThread, at: &Path, user: bool) -> Result<Self, String> {
        fs::create_dir_all(at).map_err(|e| format!("make {}: {e}", at.display()))?;
        let (mut from, mut to) = io::pipe().map_err(|e| e.to_string())?;
        // A namespace needs a process to be born with; it lives on by its descriptor.
        match process::fork(proof, 0, None).map_err(|e| format!("fork: {e}"))? {
            Fork::Child => {
                process::die_with_parent();
                let made = std::panic::catch_unwind(|| furnish(proof, at, user));
                let said = match made {
                    Ok(Ok(())) => "ok".to_owned(),
                    Ok(Err(why)) => why,
                    Err(_) => "internal error: a panic".to_owned(),
                };
                let _ = to.write_all(said.as_bytes());
                drop(to);
                process::reap_for_ever()
            }
            Fork::Parent(pid) => {
                drop(to);
                let mut said = String::new();
                let _ = from.read_to_string(&mut said);
                let opened = fs::File::open(format!("/proc/{pid}/ns/mnt"));
                let _ = process::kill(pid.cast_signed(), libc::SIGKILL);
                let _ = process::reap(Some(pid), true);
                if said != "ok" {
                    return Err(format!("prepare the template of sandboxes: {said}"));
                }
                let masked = MASKED.iter().filter_map(|name| {
                    let meta = fs::metadata(Path::new("/proc").join(name)).ok()?;
                    Some((*name, meta.is_dir()))
                });
                Ok(Self {
                    namespace: opened
                        .map_err(|e| format!("open the template's namespace: {e}"))?
                        .into(),
                    host_dirs: host_dirs(),
                    masked: masked.collect(),
                })
            }
        }
    }
}

/// Makes the namespace and what is in it, and leaves everything else behind.
fn furnish(proof: SingleThread, at: &Path, user: bool) -> Result<(), String> {
    let err = |what: &str, e: io::Error| format!("{what}: {e}");
    process::unshare(proof, libc::CLONE_NEWNS).map_err(|e| err("make a mount namespace", e))?;
    let options = "size=64m,nr_inodes=20k,mode=755";
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    mounts::mount("tmpfs", at, "tmpfs", flags, options).map_err(|e| err("mount a tmpfs", e))?;
    for sub in ["b", "dev", "empty", "l", "m", "skel"] {
        fs::create_dir(at.join(sub)).map_err(|e| err("make a directory", e))?;
    }
    for layer in 0..MAX_LAYERS {
        let dir = at.join("l").join(layer.to_string());
        fs::create_dir(dir).map_err(|e| err("make a directory", e))?;
    }
    seal(&at.join("empty")).map_err(|e| err("seal a directory", e))?;
    skeleton(&at.join("skel")).map_err(|e| err("prepare the root skeleton", e))?;
    devices(&at.join("dev")).map_err(|e| err("prepare /dev", e))?;
    for name in host_dirs() {
        let host = Path::new("/").join(name);
        share(&host, &at.join(name)).map_err(|e| err(&format!("share /{name}"), e))?;
    }
    if user {
        // Who is not root of the host may mount a /proc only where one is seen already. Sandboxes drop this one.
        let shown = at.join("proc");
        fs::create_dir(&shown)
            .and_then(|()| mounts::clone_tree(Path::new("/proc"), true))
            .and_then(|tree| mounts::attach(tree.as_fd(), &shown))
            .map_err(|e| err("show /proc", e))?;
    }
    std::env::set_current_dir(at)
        .and_then(|()| mounts::pivot_here())
        .and_then(|()| mounts::unmount_here())
        .map_err(|e| err("leave the host's root", e))
}

/// `usr`, and what this host does not keep in it.
fn host_dirs() -> Vec<&'static str> {
    let is_dir = |name: &&str| {
        let host = Path::new("/").join(name);
        fs::symlink_metadata(host).is_ok_and(|m| m.is_dir())
    };
    let all = std::iter::once(&"usr").chain(SYSTEM_DIRS).copied();
    all.filter(is_dir).collect()
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
    if mknodat(
        CWD,
        &at,
        FileType::CharacterDevice,
        mode,
        makedev(major, minor),
    )
    .is_ok()
    {
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
        "dev",
        "etc",
        "home",
        "media",
        "mnt",
        "opt",
        "proc",
        "root",
        "run",
        "run/shm",
        "srv",
        "sys",
        "tmp",
        "usr",
        "var",
        "var/cache",
        "var/lib",
        "var/log",
        "var/tmp",
        "work",
        "etc/ssl",
        "etc/ssl/certs",
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
    etc(&root.join("etc"))
}

/// What programs need of `/etc` to start, to name users and to check certificates; never accounts or keys of the host.
fn etc(etc: &Path) -> io::Result<()> {
    for (name, text) in [
        (
            "passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        ),
        ("group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
        ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("resolv.conf", ""),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n",
        ),
    ] {
        fs::write(etc.join(name), text)?;
        fs::set_permissions(etc.join(name), fs::Permissions::from_mode(0o644))?;
    }
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
