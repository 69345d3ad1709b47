//! Starting a program without copying this process: the new one shares its memory until the exec, as with vfork, but this one
//! does not wait for it. A fork's copy of the page tables, and the faults after it, are a third of what a short program costs.
//!
//! The new process runs on a stack of its own and makes raw system calls only: thread-local storage (`errno`, the allocator) is
//! this process's. The kernel clears a word of it when it lets go of the shared memory, at the exec or at its end.

use std::ffi::c_char;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use crate::creds::Resource;
use crate::process::{CLONE_INTO_CGROUP, Plan, SingleThread};
use crate::processors;
use crate::raw;
use crate::table::Entry;

/// Bytes of the stack, in units that keep it aligned. The new process needs less than one kilobyte.
const STACK: usize = 8 * 1024 / 16;

/// Groups that one process joins at most.
const JOINS: usize = 4;

/// What the new process does before its program.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Control group files to write itself into.
    pub joins: Vec<BorrowedFd<'a>>,
    /// A cgroup v2 directory to be born in.
    pub into: Option<BorrowedFd<'a>>,
    /// Limits, each both soft and hard, but never above the hard limit that this process has.
    pub limits: Vec<(Resource, u64)>,
    /// Its working directory.
    pub directory: BorrowedFd<'a>,
    /// Its streams 0 to 2; none of them may be one of this process's own 0 to 2.
    pub streams: [BorrowedFd<'a>; 3],
    /// Its file mode creation mask.
    pub umask: u32,
}

/// What the new process was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// Joining a control group.
    Join = 1,
    /// Setting a limit.
    Limit = 2,
    /// Entering the working directory.
    Directory = 3,
    /// Placing its streams.
    Streams = 4,
    /// The exec.
    Exec = 5,
}

impl Step {
    const ALL: [Self; 5] = [
        Self::Join,
        Self::Limit,
        Self::Directory,
        Self::Streams,
        Self::Exec,
    ];
}

/// What the new process reads and writes. At a fixed address for as long as it does.
struct Inner {
    /// Not zero while the new process shares this memory; cleared by the kernel.
    alive: AtomicU32,
    failed: AtomicU32,
    errno: AtomicI32,
    parent: i32,
    joins: [i32; JOINS],
    limits: Vec<(u32, [u64; 2])>,
    directory: i32,
    streams: [i32; 3],
    umask: u32,
    entry: &'static Entry,
    paths: Vec<*const c_char>,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    _texts: Plan,
    stack: Box<[MaybeUninit<u128>; STACK]>,
}

/// A program on its way. To be kept until it has begun or is over; dropped earlier, its memory is not given back.
pub struct Start(Option<Box<Inner>>);

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Start").field(&self.failure()).finish()
    }
}

impl Start {
    /// Starts a process that joins, limits itself and places its streams as `setup` says, waits for [`Entry::release`] if
    /// `entry` holds it, and becomes the program of `plan`; dies with this process. Answers its number. All other descriptors
    /// of this process must be close-on-exec. `plan.terminal` and `plan.sibling` are not for this way.
    ///
    /// # Errors
    /// The kernel's, when no process could be made; EINVAL for streams below 3 or too many groups.
    pub fn begin(
        _proof: SingleThread,
        plan: Plan,
        setup: &Setup<'_>,
        entry: &'static Entry,
    ) -> io::Result<(Self, u32)> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let mut joins = [-1; JOINS];
        if setup.joins.len() > JOINS || setup.streams.iter().any(|fd| fd.as_raw_fd() < 3) {
            return Err(invalid());
        }
        for (at, fd) in joins.iter_mut().zip(&setup.joins) {
            *at = fd.as_raw_fd();
        }
        let [mut paths, argv, env] = plan.pointers();
        paths.pop();
        let inner = Box::new(Inner {
            alive: AtomicU32::new(1),
            failed: AtomicU32::new(0),
            errno: AtomicI32::new(0),
            parent: i32::try_from(std::process::id()).map_err(io::Error::other)?,
            joins,
            limits: setup
                .limits
                .iter()
                .map(|(resource, value)| {
                    let (which, value) = resource.fitted(*value)?;
                    Ok((which, [value; 2]))
                })
                .collect::<io::Result<_>>()?,
            directory: setup.directory.as_raw_fd(),
            streams: setup.streams.map(|fd| fd.as_raw_fd()),
            umask: setup.umask,
            entry,
            paths,
            argv,
            env,
            _texts: plan,
            stack: Box::new([MaybeUninit::uninit(); STACK]),
        });
        let mut this = Self(Some(inner));
        match this.clone_child(setup.into) {
            Ok(pid) => Ok((this, pid)),
            Err(e) => {
                if let Some(inner) = &this.0 {
                    inner.alive.store(0, Ordering::Release);
                }
                Err(e)
            }
        }
    }

    fn clone_child(&mut self, into: Option<BorrowedFd<'_>>) -> io::Result<u32> {
        let inner = self.0.as_mut().expect("it was just put there");
        // SAFETY: clone_args is plain data for which all zeroes means "nothing asked for".
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = (libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID) as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        args.child_tid = inner.alive.as_ptr() as u64;
        args.stack = inner.stack.as_mut_ptr() as u64;
        args.stack_size = std::mem::size_of_val(&*inner.stack) as u64;
        if let Some(fd) = into {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = fd.as_raw_fd() as u64;
        }
        // SAFETY: the stack and everything behind `inner` are at fixed addresses and live until the kernel has cleared `alive`
        // (see Drop); `child` makes raw system calls on that memory only, so it disturbs nothing of this process's, which has
        // one thread (`_proof` of `begin`) that goes on meanwhile without touching any of it but atomics.
        let pid = unsafe { raw::clone_apart(&args, child, (&raw const **inner).cast()) };
        u32::try_from(pid).map_err(|_| {
            let errno = i32::try_from(-pid).unwrap_or(libc::EIO);
            io::Error::from_raw_os_error(errno)
        })
    }

    /// Whether the new process has left this one's memory: its program has begun, or it is over.
    pub fn has_left(&self) -> bool {
        let alive = |inner: &Inner| inner.alive.load(Ordering::Acquire) != 0;
        !self.0.as_deref().is_some_and(alive)
    }

    /// What went wrong in the new process, if it failed before its program began.
    pub fn failure(&self) -> Option<(Step, io::Error)> {
        let inner = self.0.as_ref()?;
        let failed = inner.failed.load(Ordering::Acquire);
        let step = Step::ALL.into_iter().find(|step| *step as u32 == failed)?;
        let errno = inner.errno.load(Ordering::Relaxed);
        Some((step, io::Error::from_raw_os_error(errno)))
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        if !self.has_left()
            && let Some(inner) = self.0.take()
        {
            // Still read by the new process: better lost than used again.
            std::mem::forget(inner);
        }
    }
}

/// The life of the new process until its program. No allocation, no thread-local storage, no panic: raw calls on prepared memory.
extern "C" fn child(arg: *const u8) -> ! {
    // SAFETY: `clone_child` passes a pointer to an Inner that lives for as long as this process shares its memory.
    let inner = unsafe { &*arg.cast::<Inner>() };
    let (step, errno) = prepare(inner);
    inner.errno.store(errno, Ordering::Relaxed);
    inner.failed.store(step as u32, Ordering::Release);
    raw::exit(127)
}

/// Answers only if something failed.
fn prepare(inner: &Inner) -> (Step, i32) {
    use raw::{call, failed};
    /// Close-on-exec instead of closing (`CLOSE_RANGE_CLOEXEC`).
    const MARK: usize = 4;
    let at = |fd: i32| fd.cast_unsigned() as usize;
    // SAFETY: every pointer is to memory that outlives the calls (statics of this function, or of `inner`), with the sizes that
    // the kernel's interface names; descriptors are this process's own copies.
    unsafe {
        call(
            libc::SYS_prctl,
            [
                libc::PR_SET_PDEATHSIG as usize,
                libc::SIGKILL as usize,
                0,
                0,
                0,
            ],
        );
        if call(libc::SYS_getppid, [0; 5]) != inner.parent as isize {
            raw::exit(127);
        }
        for fd in inner.joins.iter().filter(|fd| **fd >= 0) {
            if let Some(e) = failed(call(
                libc::SYS_write,
                [at(*fd), c"0".as_ptr() as usize, 1, 0, 0],
            )) {
                return (Step::Join, e);
            }
        }
        for (resource, pair) in &inner.limits {
            let new = pair.as_ptr() as usize;
            if let Some(e) = failed(call(
                libc::SYS_prlimit64,
                [0, *resource as usize, new, 0, 0],
            )) {
                return (Step::Limit, e);
            }
        }
        call(libc::SYS_umask, [inner.umask as usize, 0, 0, 0, 0]);
        if let Some(e) = failed(call(libc::SYS_fchdir, [at(inner.directory), 0, 0, 0, 0])) {
            return (Step::Directory, e);
        }
        for (number, fd) in inner.streams.iter().enumerate() {
            if let Some(e) = failed(call(libc::SYS_dup3, [at(*fd), number, 0, 0, 0])) {
                return (Step::Streams, e);
            }
        }
        call(libc::SYS_close_range, [3, u32::MAX as usize, MARK, 0, 0]);
    }
    (Step::Exec, become_program(inner))
}

/// Waits for its time and becomes the program; answers only why it could not.
fn become_program(inner: &Inner) -> i32 {
    use raw::{call, failed};
    static NO_ACTION: [u64; 4] = [0; 4];
    static NO_SIGNALS: u64 = 0;
    // SAFETY: as in `prepare`; `held` is a word of a mapping that all processes here share.
    unsafe {
        let hold = inner.entry.held();
        while hold.load(Ordering::Acquire) == 1 {
            let wait = libc::FUTEX_WAIT as usize;
            call(libc::SYS_futex, [hold.as_ptr() as usize, wait, 1, 0, 0]);
        }
        // No session of its own: where the kernel groups sessions for its scheduler, such a group is made and freed each time.
        // Without a terminal, a process group does the same.
        call(libc::SYS_setpgid, [0; 5]);
        if let Some((size, mask)) = processors::for_program(inner.entry) {
            call(libc::SYS_sched_setaffinity, [0, size, mask, 0, 0]);
        }
        for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGINT, libc::SIGCHLD] {
            let action = (&raw const NO_ACTION) as usize;
            call(libc::SYS_rt_sigaction, [signal as usize, action, 0, 8, 0]);
        }
        let mask = (&raw const NO_SIGNALS) as usize;
        call(
            libc::SYS_rt_sigprocmask,
            [libc::SIG_SETMASK as usize, mask, 0, 8, 0],
        );
        let mut failure = libc::ENOENT;
        for path in &inner.paths {
            let (argv, env) = (inner.argv.as_ptr() as usize, inner.env.as_ptr() as usize);
            let error =
                failed(call(libc::SYS_execve, [*path as usize, argv, env, 0, 0])).unwrap_or(0);
            // As in `process::become_program`.
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
