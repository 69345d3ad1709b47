//! From `supervise <dir>` on the command line to a process that owns the directory and is ready for its first daemon.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prism_faults::point;
use prism_sys::process::{self, Fork, SingleThread};
use prism_sys::{creds, mounts, stdio};

use crate::slots;

/// The word on the command line.
pub const COMMAND: &str = "supervise";

/// What the command line says.
#[derive(Debug)]
pub struct Arguments {
    /// The directory that is supervised.
    pub dir: PathBuf,
    /// How long to stay without a daemon and without runs.
    pub idle: Duration,
    /// Where to tell that it is ready, in the second stage.
    ready: Option<RawFd>,
    /// The real user and group, where this is root of a user namespace of ours.
    pub user: Option<(u32, u32)>,
}

impl Arguments {
    /// Reads what follows [`COMMAND`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let usage = || format!("usage: {COMMAND} <directory> [idle-milliseconds]");
        let dir = args.next().ok_or_else(usage)?;
        let idle = args.next().map_or(Ok(30_000), |ms| ms.parse());
        let ready = args.next().and_then(|fd| fd.parse().ok());
        let number = |text: Option<String>| text.and_then(|t| t.parse().ok());
        let user = number(args.next()).zip(number(args.next()));
        Ok(Self {
            dir: dir.into(),
            idle: Duration::from_millis(idle.map_err(|_| usage())?),
            ready,
            user,
        })
    }
}

/// Tells whoever started this that it is ready, or why not.
pub struct Ready(File);

impl Ready {
    /// Ready.
    pub fn well(mut self) {
        let _ = self.0.write_all(b"ok");
    }

    /// Not, and why; this process ends.
    pub fn fail(mut self, why: &str) -> ! {
        let _ = self.0.write_all(why.as_bytes());
        process::exit(1)
    }
}

/// First stage: forks away from whoever called, enters namespaces of its own, and comes out as the supervisor. The caller's
/// process ends with 0 when the supervisor is ready, or with 1 after saying why not.
pub fn detach(args: &Arguments) -> Result<(SingleThread, Ready), String> {
    let proof = SingleThread::prove().map_err(|e| e.to_string())?;
    if let (Some(fd), Some(_)) = (args.ready, args.user) {
        // Second stage of a normal user's supervisor.
        let ready = inherit(fd)?;
        super::heir::appoint(proof)?;
        return Ok((proof, Ready(ready)));
    }
    let (mut from, to) = io::pipe().map_err(|e| e.to_string())?;
    match process::fork(proof, 0, None).map_err(|e| format!("fork: {e}"))? {
        Fork::Parent(_) => {
            drop(to);
            let mut said = String::new();
            let _ = from.read_to_string(&mut said);
            if said == "ok" {
                process::exit(0);
            }
            if said.is_empty() {
                "the supervisor died while it started".clone_into(&mut said);
            }
            Err(said)
        }
        Fork::Child => {
            drop(from);
            let to = File::from(OwnedFd::from(to));
            match leave(proof, args, &to) {
                Ok(()) => Ok((proof, Ready(to))),
                Err(why) => Ready(to).fail(&why),
            }
        }
    }
}

fn inherit(fd: RawFd) -> Result<File, String> {
    let mut path = PathBuf::from("/proc/self/fd");
    path.push(fd.to_string());
    let ready = File::options()
        .write(true)
        .open(path)
        .map_err(|e| format!("inherit the readiness pipe: {e}"))?;
    // The reader waits for the last copy to close, and only the new one is closed at the right time.
    let fd = fd.unsigned_abs();
    stdio::close_range(fd, fd).map_err(|e| format!("close the readiness pipe: {e}"))?;
    Ok(ready)
}

/// Leaves the caller's session, descriptors and mount namespace.
fn leave(proof: SingleThread, args: &Arguments, ready: &File) -> Result<(), String> {
    rustix::process::setsid().map_err(|e| format!("start a session: {e}"))?;
    close_others(ready).map_err(|e| format!("close inherited descriptors: {e}"))?;
    std::env::set_current_dir("/").map_err(|e| e.to_string())?;
    let (uid, gid) = slots::own_ids();
    if uid == 0 && process::unshare(proof, libc::CLONE_NEWNS).is_ok() {
        return Ok(());
    }
    process::unshare(proof, libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
        .map_err(|e| format!("make a user namespace: {e}; see `prismctl doctor`"))?;
    slots::map_own(0, uid, 0, gid).map_err(|e| format!("map the own user: {e}"))?;
    // Anew, so that the kernel ties this program's memory to the new namespace: its owner may then look into sandboxes.
    let fd = ready.as_raw_fd();
    rustix::io::fcntl_setfd(ready, rustix::io::FdFlags::empty()).map_err(|e| e.to_string())?;
    let error = std::process::Command::new("/proc/self/exe")
        .arg(COMMAND)
        .arg(&args.dir)
        .args([args.idle.as_millis().to_string(), fd.to_string()])
        .args([uid.to_string(), gid.to_string()])
        .exec();
    Err(format!("start again inside the user namespace: {error}"))
}

fn close_others(keep: &File) -> io::Result<()> {
    let keep = keep.as_raw_fd().unsigned_abs();
    if keep > 3 {
        stdio::close_range(3, keep - 1)?;
    }
    stdio::close_range(keep + 1, u32::MAX)
}

/// What a supervisor holds of its directory.
#[derive(Debug)]
pub struct Home {
    /// The directory.
    pub dir: PathBuf,
    /// Where daemons connect.
    pub listener: UnixListener,
    /// Held for life: says that the directory is taken.
    _lock: File,
}

/// Takes the directory, waiting for a supervisor that is just dying. `None` when a living one has it.
///
/// # Errors
/// What failed.
pub fn settle(args: &Arguments) -> Result<Option<Home>, String> {
    let err = |what: &str, e: io::Error| format!("{what} {}: {e}", args.dir.display());
    point!("sup.home.before_make")
        .and_then(|()| {
            let mut dir = fs::DirBuilder::new();
            dir.recursive(true).mode(0o700).create(&args.dir)
        })
        .map_err(|e| err("make", e))?;
    let dir = fs::canonicalize(&args.dir).map_err(|e| err("find", e))?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(|e| err("protect", e))?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(dir.join("supervisor.lock"))
        .map_err(|e| err("open the lock in", e))?;
    if !take(&lock, &dir) {
        return Ok(None);
    }
    point!("sup.home.after_lock").map_err(|e| err("lock", e))?;
    let socket = dir.join("supervisor.sock");
    let _ = fs::remove_file(&socket);
    // A socket's path must be short; through a descriptor it always is.
    let handle = File::open(&dir).map_err(|e| err("open", e))?;
    let short = format!("/proc/self/fd/{}/supervisor.sock", handle.as_raw_fd());
    let listener = UnixListener::bind(short).map_err(|e| err("listen in", e))?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))
        .map_err(|e| err("protect the socket in", e))?;
    listener
        .set_nonblocking(true)
        .map_err(|e| err("prepare the socket in", e))?;
    Ok(Some(Home {
        dir,
        listener,
        _lock: lock,
    }))
}

/// The lock belongs to a process, not to a descriptor, so no child keeps it. A holder that answers is alive.
fn take(lock: &File, dir: &Path) -> bool {
    use rustix::fs::{FlockOperation, fcntl_lock};
    for _ in 0..500 {
        if fcntl_lock(lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return true;
        }
        if crate::client::dial(dir).is_ok() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Own settings that last: signals, limits, standard streams, keyring, mounts that do not reach the host.
///
/// # Errors
/// What failed.
pub fn compose(dir: &Path) -> Result<(), String> {
    for signal in [libc::SIGPIPE, libc::SIGINT, libc::SIGHUP] {
        process::ignore(signal);
    }
    creds::umask(0o077);
    // Neither is needed to go on: fewer descriptors mean fewer runs, and programs may not use keyrings anyway.
    let _ = creds::raise_open_files();
    let _ = process::new_session_keyring();
    let slave = libc::MS_REC | libc::MS_SLAVE;
    mounts::mount("none", Path::new("/"), "none", slave, "")
        .map_err(|e| format!("keep mounts from reaching the host: {e}"))?;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|e| format!("open /dev/null: {e}"))?;
    let log = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(dir.join("supervisor.log"))
        .map_err(|e| format!("open the supervisor's log: {e}"))?;
    for (number, file) in [(0, &null), (1, &null), (2, &log)] {
        stdio::place(file.as_fd(), number).map_err(|e| format!("place a stream: {e}"))?;
    }
    Ok(())
}

/// A short name for a directory, the same each time: names its cgroups.
pub fn instance(dir: &Path) -> (String, u32) {
    use std::os::unix::ffi::OsStrExt;
    let hash = dir
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
            (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    let seed = u32::try_from(hash >> 40).expect("24 bits fit");
    (format!("{hash:016x}"), seed)
}
