//! Making, joining and reaping processes. Called by the supervisor only; it never runs in a process with threads.

use std::ffi::{CString, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

use crate::table::Entry;
use crate::{check, check_long, processors};

/// Proof that this process had one thread when it was made. Forking without exec is sound only then.
#[derive(Clone, Copy, Debug)]
pub struct SingleThread(());

impl SingleThread {
    /// For tests that know what they do.
    #[cfg(test)]
    pub(crate) fn unproven() -> Self {
        Self(())
    }

    /// Counts the threads of this process.
    ///
    /// # Errors
    /// When there is more than one, or `/proc` cannot be read.
    pub fn prove() -> io::Result<Self> {
        let threads = std::fs::read_dir("/proc/self/task")?.count();
        if threads == 1 {
            Ok(Self(()))
        } else {
            Err(io::Error::other(format!(
                "{threads} threads run, forking needs exactly one"
            )))
        }
    }
}

/// libc's constant of this name overflows.
pub(crate) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, with the number of the new one.
    Parent(u32),
}

/// Forks with the namespace flags `flags` (`CLONE_NEW*`), on cgroup v2 straight into `cgroup`.
///
/// # Errors
/// The kernel's, such as EPERM for namespaces or EAGAIN at a process limit.
pub fn fork(_proof: SingleThread, flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    // SAFETY: clone_args is plain data for which all zeroes means "nothing asked for".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM and no stack, so this is a plain fork; `_proof` says that no other thread holds a lock that the
    // child could need, so the child may go on in Rust and allocate.
    let pid = check_long(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            std::mem::size_of::<libc::clone_args>(),
        )
    })?;
    Ok(u32::try_from(pid)
        .ok()
        .filter(|pid| *pid != 0)
        .map_or(Fork::Child, Fork::Parent))
}

/// What a program needs to be started with [`spawn`]. Everything is allocated beforehand.
#[derive(Debug)]
pub struct Plan {
    paths: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    /// Make the program a child of this process's parent.
    pub sibling: bool,
    /// Make terminal 0 the controlling one.
    pub terminal: bool,
    /// Die with the parent.
    pub die_with_parent: bool,
    /// The record of the run, which tells whether to leave the processors that those who start it keep to.
    pub entry: Option<&'static Entry>,
}

impl Plan {
    /// `paths` are tried in order.
    ///
    /// # Errors
    /// When a text holds a NUL byte.
    pub fn new(paths: &[String], argv: &[String], env: &[(String, String)]) -> io::Result<Self> {
        let text = |s: &String| CString::new(s.as_str()).map_err(io::Error::from);
        Ok(Self {
            paths: paths.iter().map(text).collect::<Result<_, _>>()?,
            argv: argv.iter().map(text).collect::<Result<_, _>>()?,
            env: env
                .iter()
                .map(|(k, v)| CString::new(format!("{k}={v}")).map_err(io::Error::from))
                .collect::<Result<_, _>>()?,
            sibling: false,
            terminal: false,
            die_with_parent: false,
            entry: None,
        })
    }

    /// Its paths, arguments and environment as the kernel wants them: each ends with a null, for as long as the plan lives.
    pub(crate) fn pointers(&self) -> [Vec<*const libc::c_char>; 3] {
        [&self.paths, &self.argv, &self.env].map(|texts| {
            texts
                .iter()
                .map(|t| t.as_ptr())
                .chain(std::iter::once(std::ptr::null()))
                .collect()
        })
    }

    /// Bytes of its arguments and environment.
    pub fn bytes(&self) -> usize {
        let texts = self.argv.iter().chain(&self.env);
        texts.map(|t| t.as_bytes_with_nul().len() + 8).sum()
    }
}

struct Exec<'a> {
    paths: &'a [*const libc::c_char],
    argv: *const *const libc::c_char,
    env: *const *const libc::c_char,
    plan: &'a Plan,
    error: i32,
}

extern "C" fn exec_child(arg: *mut c_void) -> libc::c_int {
    // SAFETY: `spawn` passes a pointer to its own Exec and is suspended (CLONE_VFORK) until this process execs or exits, so
    // the reference is unique and alive.
    let exec = unsafe { &mut *arg.cast::<Exec<'_>>() };
    // SAFETY: no memory is passed; every descriptor here is a copy that only this process has.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    exec.error = become_program(exec);
    // SAFETY: never returns, touches no memory.
    unsafe { libc::_exit(127) }
}

/// Turns this process into the program, or says why that failed. Makes only async-signal-safe calls.
fn become_program(exec: &Exec<'_>) -> i32 {
    // SAFETY: system calls on memory that was prepared and outlives them; no allocation, no locks, no unwinding.
    unsafe {
        libc::setsid();
        if exec.plan.terminal {
            libc::ioctl(0, libc::TIOCSCTTY, 0);
        }
        if exec.plan.die_with_parent {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        }
        // What our own processes ignore; nothing else was ever changed.
        if let Some((size, mask)) = exec.plan.entry.and_then(processors::for_program) {
            libc::syscall(libc::SYS_sched_setaffinity, 0, size, mask);
        }
        for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGINT, libc::SIGCHLD] {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        let mut failure = libc::ENOENT;
        for path in exec.paths {
            libc::execve(*path, exec.argv, exec.env);
            let error = *libc::__errno_location();
            // Like a shell: a file that may not be run is remembered, but a later directory may hold one that may.
            if error != libc::ENOENT && error != libc::ENOTDIR {
                failure = error;
                if error != libc::EACCES {
                    break;
                }
            }
        }
        failure
    }
}

/// Hands the texts of a plan to `then` as the kernel wants them.
fn with_exec<T>(plan: &Plan, then: impl FnOnce(&mut Exec<'_>) -> T) -> T {
    let [paths, argv, env] = plan.pointers();
    then(&mut Exec {
        paths: &paths[..plan.paths.len()],
        argv: argv.as_ptr(),
        env: env.as_ptr(),
        plan,
        error: 0,
    })
}

/// Turns this process into the program of `plan`, with its descriptors as they are (those marked close-on-exec excepted).
/// Returns only to say why that failed.
pub fn exec(_proof: SingleThread, plan: &Plan) -> io::Error {
    io::Error::from_raw_os_error(with_exec(plan, |exec| become_program(exec)))
}

/// Size of the stack on which a program is started, in units that keep it aligned; system calls need little.
const STACK: usize = 16 * 1024 / 16;

/// Starts the program of `plan` with this process's descriptors 0 to 2, directory, credentials and namespaces, and returns its
/// number once it runs (after the exec).
///
/// # Errors
/// Why the exec failed, or why no process could be made.
pub fn spawn(_proof: SingleThread, plan: &Plan) -> io::Result<u32> {
    // Not zeroed: each page that is touched is a fault of this process, which was just forked.
    let mut stack = Box::new([MaybeUninit::<u128>::uninit(); STACK]);
    let mut flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    if plan.sibling {
        flags |= libc::CLONE_PARENT;
    }
    let (pid, error) = with_exec(plan, |exec| {
        let exec: *mut Exec<'_> = exec;
        // SAFETY: the stack is ours, aligned to 16, and outlives the child's use of it, because CLONE_VFORK suspends this (only)
        // thread until the child has exec'd or exited; `exec_child` touches nothing but `exec`.
        let pid = unsafe {
            let top = stack.as_mut_ptr().add(stack.len());
            libc::clone(exec_child, top.cast(), flags, exec.cast())
        };
        // SAFETY: `exec` is alive; the read is volatile because another process wrote it behind the compiler's back.
        let error = unsafe { std::ptr::read_volatile(&raw const (*exec).error) };
        (check(pid), error)
    });
    let pid = pid?;
    if error == 0 {
        return Ok(u32::try_from(pid).expect("a process number is positive"));
    }
    if !plan.sibling {
        // SAFETY: no memory is passed; reaps the child that failed.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    }
    Err(io::Error::from_raw_os_error(error))
}

/// A child that ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Its number.
    pub pid: u32,
    /// The raw wait status.
    pub status: i32,
    /// Processor time of it and its reaped children, microseconds.
    pub cpu_us: u64,
    /// Largest resident size among them, bytes.
    pub peak: u64,
}

/// Reaps one child that has ended: any (`None`) or a given one. With `block`, waits for it. `None` when there is none.
///
/// # Errors
/// The kernel's, except for having no children, which is `None` too.
pub fn reap(which: Option<u32>, block: bool) -> io::Result<Option<Ended>> {
    let pid = match which {
        Some(pid) => i32::try_from(pid).map_err(io::Error::other)?,
        None => -1,
    };
    let mut flags = if block { 0 } else { libc::WNOHANG };
    if which.is_some() {
        // One that was made quietly too.
        flags |= libc::__WALL;
    }
    let mut status = 0;
    // SAFETY: rusage is plain data.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live locals.
        match check(unsafe { libc::wait4(pid, &raw mut status, flags, &raw mut usage) }) {
            Ok(0) => return Ok(None),
            Ok(pid) => {
                return Ok(Some(Ended {
                    pid: u32::try_from(pid).expect("a process number is positive"),
                    status,
                    cpu_us: micros(usage.ru_utime) + micros(usage.ru_stime),
                    peak: u64::try_from(usage.ru_maxrss).unwrap_or_default() * 1024,
                }));
            }
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
            Err(e) if e.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
}

/// Waits for one child of any kind and reaps it; sleeps without children too. What pid 1 of a sandbox does for ever.
pub fn reap_for_ever() -> ! {
    // SAFETY: a sigset_t is plain data; the calls below touch only locals.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe {
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    loop {
        let mut signal = 0;
        // SAFETY: as above.
        unsafe { libc::sigwait(&raw const set, &raw mut signal) };
        while matches!(reap(None, false), Ok(Some(_))) {}
    }
}

/// Ends this process without running destructors or exit handlers.
pub fn exit(code: i32) -> ! {
    // SAFETY: never returns, touches no memory.
    unsafe { libc::_exit(code) }
}

/// Sends a signal to a process, or to a process group when `pid` is negative.
///
/// # Errors
/// ESRCH when there is none, EINVAL for a number that is no signal.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// A descriptor for the process `pid`, which must be a child that was not reaped yet if the number is to be trusted.
///
/// # Errors
/// ESRCH when there is none.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = check_long(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Enters the namespaces `kinds` (`CLONE_NEW*`) behind `fd` (a namespace file or a pidfd).
///
/// # Errors
/// EPERM or EINVAL, as the kernel sees fit.
pub fn join(_proof: SingleThread, fd: BorrowedFd<'_>, kinds: i32) -> io::Result<()> {
    // SAFETY: no memory is passed; the process has one thread, so no other thread is left behind in the old namespaces.
    check(unsafe { libc::setns(fd.as_raw_fd(), kinds) }).map(drop)
}

/// Leaves the namespaces `kinds` (`CLONE_NEW*`) for new ones.
///
/// # Errors
/// EPERM, or ENOSPC at the kernel's limit of namespaces.
pub fn unshare(_proof: SingleThread, kinds: i32) -> io::Result<()> {
    // SAFETY: no memory is passed; one thread only, so nothing is unshared from under another.
    check(unsafe { libc::unshare(kinds) }).map(drop)
}

/// This process as its forks know it: a descriptor that tells them whether it lives.
static FORKING: OnceLock<OwnedFd> = OnceLock::new();

/// Lets what this process forks know whether it lives; see [`die_with_parent`].
///
/// # Errors
/// The kernel's.
pub fn will_fork() -> io::Result<()> {
    let me = pidfd(std::process::id())?;
    let _set_before = FORKING.set(me);
    Ok(())
}

/// The descriptor by which forks know whether this process lives; they must keep it open.
pub fn lifeline() -> Option<BorrowedFd<'static>> {
    FORKING.get().map(AsFd::as_fd)
}

/// Asks for SIGKILL when the parent ends, and ends at once if it has ended already: whoever was killed right after a fork would
/// otherwise leave a child with all it had open, its lock among it.
pub fn die_with_parent() {
    // SAFETY: no memory is passed.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    if let Some(parent) = FORKING.get() {
        let mut look = libc::pollfd {
            fd: parent.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one live record.
        let seen = unsafe { libc::poll(&raw mut look, 1, 0) };
        if seen > 0 && look.revents & libc::POLLIN != 0 {
            exit(1);
        }
    }
}

/// From now on, whoever descends from this process and loses its parent becomes its child. Kept across an exec, not inherited.
pub fn adopt_orphans() {
    // SAFETY: no memory is passed.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// Sets whether others may trace this process and read its `/proc` entries.
pub fn set_dumpable(on: bool) {
    // SAFETY: no memory is passed.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, i32::from(on), 0, 0, 0) };
}

/// Ignores a signal from now on.
pub fn ignore(signal: i32) {
    // SAFETY: SIG_IGN is a valid disposition; no handler of ours is involved.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Replaces the session keyring by a new, empty one.
///
/// # Errors
/// ENOSYS where the kernel has no keyrings, EDQUOT at the user's limit.
pub fn new_session_keyring() -> io::Result<()> {
    let anonymous: *const libc::c_char = std::ptr::null();
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING (1) takes a null name for an anonymous keyring.
    check_long(unsafe { libc::syscall(libc::SYS_keyctl, 1, anonymous) }).map(drop)
}

/// A descriptor that is readable when a child has ended. Blocks SIGCHLD in this process.
///
/// # Errors
/// The kernel's.
pub fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: a sigset_t is plain data; the calls touch only locals.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let fd = check(unsafe {
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    })?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Processor time (microseconds) and largest resident size (bytes) of all children of this process that were reaped.
pub fn children_usage() -> (u64, u64) {
    // SAFETY: rusage is plain data.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a live local.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    (
        micros(usage.ru_utime) + micros(usage.ru_stime),
        u64::try_from(usage.ru_maxrss).unwrap_or_default() * 1024,
    )
}

fn micros(t: libc::timeval) -> u64 {
    u64::try_from(t.tv_sec * 1_000_000 + t.tv_usec).unwrap_or_default()
}
