//! New namespaces that no process lives in yet, without leaving one's own and without a copy of this process: they are born with
//! helpers in this one's memory, which make raw system calls only, and live on by their descriptors.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use crate::process::{self, SingleThread};
use crate::raw;

/// Bytes of a helper's stack, in units that keep it aligned; it needs less than one kilobyte.
const STACK: usize = 8 * 1024 / 16;

/// What a helper reads and writes.
struct Task {
    parent: i32,
    request: libc::ifreq,
    made: AtomicI32,
}

impl Task {
    fn new() -> io::Result<Self> {
        // SAFETY: ifreq is plain data.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).expect("a low bit");
        Ok(Self {
            parent: i32::try_from(std::process::id()).map_err(io::Error::other)?,
            request,
            made: AtomicI32::new(-libc::ECHILD),
        })
    }
}

/// Makes a helper in this process's memory with the flags of clone. It tells nobody of its end.
///
/// # Safety
/// The stack and the task must live until the helper is over.
unsafe fn helper(
    flags: i32,
    stack: &mut [MaybeUninit<u128>; STACK],
    life: extern "C" fn(*const u8) -> !,
    task: &Task,
) -> io::Result<u32> {
    // SAFETY: clone_args is plain data for which all zeroes means "nothing asked for".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from((libc::CLONE_VM | flags).cast_unsigned());
    args.stack = stack.as_mut_ptr() as u64;
    args.stack_size = std::mem::size_of_val(stack) as u64;
    // SAFETY: the stack is aligned, being of u128; what lives is the caller's promise; `life` makes raw calls on `task` only.
    let pid = unsafe { raw::clone_apart(&args, life, std::ptr::from_ref(task).cast()) };
    raw::failed(pid).map_or_else(
        || u32::try_from(pid).map_err(io::Error::other),
        |error| Err(io::Error::from_raw_os_error(error)),
    )
}

/// A network namespace with nothing but its loopback, which is up. It belongs to this process's user namespace.
///
/// # Errors
/// EPERM without the power, or the kernel's limits.
pub fn network(_proof: SingleThread) -> io::Result<OwnedFd> {
    let task = Task::new()?;
    let mut stack = Box::new([MaybeUninit::uninit(); STACK]);
    let flags = libc::CLONE_VFORK | libc::CLONE_FILES;
    // SAFETY: this process stands still (CLONE_VFORK) until the helper is over, so `stack` and `task` outlive it.
    let pid = unsafe { helper(flags, &mut stack, make_network, &task) }?;
    process::reap(Some(pid), true)?;
    match task.made.load(Ordering::Acquire) {
        error @ ..0 => Err(io::Error::from_raw_os_error(-error)),
        // SAFETY: the helper, which shared this process's descriptors, opened it for this.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

extern "C" fn make_network(task: *const u8) -> ! {
    use raw::{call, failed};
    // SAFETY: `network` passes its Task and waits.
    let task = unsafe { &*task.cast::<Task>() };
    let steps = || -> Result<isize, i32> {
        let done = |answer: isize| failed(answer).map_or(Ok(answer), Err);
        let flags = libc::CLONE_NEWNET.cast_unsigned() as usize;
        let kind = (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC).cast_unsigned() as usize;
        let up = &raw const task.request as usize;
        let path = c"/proc/thread-self/ns/net".as_ptr() as usize;
        let at = libc::AT_FDCWD as usize;
        let open = (libc::O_RDONLY | libc::O_CLOEXEC).cast_unsigned() as usize;
        // SAFETY: all that is passed is static or in `task`, with the sizes that the kernel's interface names.
        unsafe {
            done(call(libc::SYS_unshare, [flags, 0, 0, 0, 0]))?;
            let family = libc::AF_INET.cast_unsigned() as usize;
            let socket = done(call(libc::SYS_socket, [family, kind, 0, 0, 0]))?.cast_unsigned();
            let flag = call(
                libc::SYS_ioctl,
                [socket, libc::SIOCSIFFLAGS as usize, up, 0, 0],
            );
            call(libc::SYS_close, [socket, 0, 0, 0, 0]);
            done(flag)?;
            done(call(libc::SYS_openat, [at, path, open, 0, 0]))
        }
    };
    let made = steps().map_or_else(|e| -e, |fd| i32::try_from(fd).unwrap_or(-libc::EMFILE));
    task.made.store(made, Ordering::Release);
    raw::exit(0)
}

/// A user namespace, after `map` has given its ids to the process of this number, which is its only one meanwhile.
///
/// # Errors
/// That of `map`, or the kernel's.
pub fn users(_proof: SingleThread, map: impl FnOnce(u32) -> io::Result<()>) -> io::Result<OwnedFd> {
    let task = Task::new()?;
    let mut stack = Box::new([MaybeUninit::uninit(); STACK]);
    let flags = libc::CLONE_NEWUSER | libc::CLONE_FILES;
    // SAFETY: `End` ends the helper and waits for that before `stack` and `task` go, also if `map` panics.
    let pid = unsafe { helper(flags, &mut stack, stay, &task) }?;
    let end = End(pid);
    map(pid)?;
    let made = std::fs::File::open(format!("/proc/{pid}/ns/user"))?;
    drop(end);
    Ok(made.into())
}

/// A helper that is to end.
struct End(u32);

impl Drop for End {
    fn drop(&mut self) {
        let _gone = process::kill(self.0.cast_signed(), libc::SIGKILL);
        let _gone = process::reap(Some(self.0), true);
    }
}

/// Does nothing until it is killed, and dies with the process that made it.
extern "C" fn stay(task: *const u8) -> ! {
    use raw::call;
    // SAFETY: `users` passes its Task, which lives until this process is over; no other memory is passed.
    unsafe {
        let parent = (*task.cast::<Task>()).parent;
        let die = [
            libc::PR_SET_PDEATHSIG as usize,
            libc::SIGKILL as usize,
            0,
            0,
            0,
        ];
        call(libc::SYS_prctl, die);
        while call(libc::SYS_getppid, [0; 5]) == parent as isize {
            call(libc::SYS_ppoll, [0; 5]);
        }
    }
    raw::exit(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Fork;
    use std::os::fd::AsFd;

    fn link(fd: &OwnedFd) -> String {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        std::fs::read_link(path).unwrap().display().to_string()
    }

    /// Needs the power to make them, which a plain user may not have.
    fn allowed<T>(made: io::Result<T>) -> Option<T> {
        match made {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => None,
            made => Some(made.unwrap()),
        }
    }

    #[test]
    fn a_network_of_its_own_has_a_loopback_that_is_up() {
        let proof = SingleThread::unproven();
        let Some(net) = allowed(network(proof)) else {
            return;
        };
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        assert!(link(&net).starts_with("net:["));
        assert_ne!(link(&net), own.display().to_string());
        // A listener on its loopback can be reached there.
        match process::fork(proof, 0, None).unwrap() {
            Fork::Child => {
                let reached =
                    process::join(proof, net.as_fd(), libc::CLONE_NEWNET).is_ok_and(|()| {
                        std::net::TcpListener::bind("127.0.0.1:0")
                            .and_then(|l| std::net::TcpStream::connect(l.local_addr()?))
                            .is_ok()
                    });
                process::exit(i32::from(!reached));
            }
            Fork::Parent(pid) => {
                let ended = process::reap(Some(pid), true).unwrap().unwrap();
                assert_eq!(ended.status, 0);
            }
        }
    }

    #[test]
    fn users_of_their_own_have_the_ids_they_were_given() {
        let proof = SingleThread::unproven();
        let mut helper = 0;
        let made = users(proof, |pid| {
            helper = pid;
            std::fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
            let me = crate::creds::uid();
            std::fs::write(format!("/proc/{pid}/uid_map"), format!("7 {me} 1\n"))
        });
        let Some(users) = allowed(made) else {
            return;
        };
        assert!(link(&users).starts_with("user:["));
        assert!(!std::path::Path::new(&format!("/proc/{helper}")).exists());
    }

    #[test]
    fn a_map_that_fails_leaves_nobody_behind() {
        let proof = SingleThread::unproven();
        let mut helper = 0;
        let made = users(proof, |pid| {
            helper = pid;
            Err(io::Error::other("no"))
        });
        if allowed(made.map_err(|e| {
            assert!(helper == 0 || e.to_string() == "no");
            io::Error::from(io::ErrorKind::PermissionDenied)
        }))
        .is_none()
            && helper != 0
        {
            assert!(!std::path::Path::new(&format!("/proc/{helper}")).exists());
        }
    }
}
