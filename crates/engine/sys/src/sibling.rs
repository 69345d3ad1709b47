//! A process beside this one (a child of its parent) that works in this one's memory until it becomes a program or ends, while this
//! one waits: what a fork copies, and what its copies cost at their end, is a third of what preparing a sandbox would take.
//!
//! Unlike `vfork`, it may run any code of ours, for nobody else runs in this memory meanwhile. It is as dangerous to this process
//! as a function call that may be cut off anywhere: if it is killed on its way, what it was changing is half changed. So the
//! process that waits is one that does nothing else, and ends when that has happened.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use crate::first::{self, TAG};
use crate::process::{CLONE_INTO_CGROUP, SingleThread};
use crate::raw;
use crate::table::Entry;

/// Bytes of the stack that it runs on; those are used that it needs.
const STACK: usize = 1 << 20;

/// The stack, used again for each.
#[derive(Debug)]
pub struct Stack(NonNull<u8>);

impl Stack {
    /// Sets the memory aside.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                STACK,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(at.cast())
            .map(Self)
            .ok_or_else(|| io::Error::other("a mapping at zero"))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the whole mapping of `new`, which nobody uses any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), STACK) };
    }
}

/// What the new process becomes after its work: the program behind a descriptor, with its tag; see [`first::become_it`].
#[derive(Clone, Copy, Debug)]
pub struct Then {
    /// Number of the descriptor.
    pub program: u32,
    /// For a waiting one.
    pub tag: [u8; TAG],
}

/// How a new process left this one's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It became its program, or has told why it could not and ended.
    Orderly,
    /// It was killed on its way: nothing of this memory can be trusted any more but what the caller has not shared with it.
    Cut,
}

struct Life<F> {
    work: Option<F>,
    entry: &'static Entry,
    proof: SingleThread,
    orderly: bool,
}

/// Makes a child of this process's parent, with the namespace flags `flags`, that runs `work` and then becomes what it says
/// or ends, or tells `entry` why it cannot and ends. Its number is put into `entry` before it runs. What `work` owns is dropped there, so it
/// must be nothing that this process's descriptors hang on. Waits until it has left this process's memory.
///
/// # Errors
/// When no process could be made.
pub fn begin<F: FnOnce() -> Result<Option<Then>, String>>(
    proof: SingleThread,
    (flags, into): (u64, Option<BorrowedFd<'_>>),
    stack: &mut Stack,
    entry: &'static Entry,
    work: F,
) -> io::Result<Left> {
    // SAFETY: clone_args is plain data for which all zeroes means "nothing asked for".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    let own = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID;
    args.flags = flags | u64::from(own.cast_unsigned());
    args.parent_tid = entry.made_at().as_ptr() as u64;
    args.stack = stack.0.as_ptr() as u64;
    args.stack_size = STACK as u64;
    if let Some(fd) = into {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd().cast_unsigned().into();
    }
    let mut life = ManuallyDrop::new(Life {
        work: Some(work),
        entry,
        proof,
        orderly: false,
    });
    let life: *mut Life<F> = &raw mut *life;
    // SAFETY: the stack is page-aligned and is this call's alone (`&mut`); `life` lives in this frame, which stands still
    // (CLONE_VFORK) for as long as the new process shares this memory, and there is no other thread (`proof`).
    let made = unsafe { raw::clone_apart(&args, live::<F>, life.cast_const().cast()) };
    if let Some(error) = raw::failed(made) {
        // SAFETY: there is no other process; it is dropped once. After a success `work` was taken, or is not to be trusted.
        unsafe { std::ptr::drop_in_place(life) };
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: the new process has let go of it; the read is volatile because that one wrote it behind the compiler's back.
    let orderly = unsafe { std::ptr::read_volatile(&raw const (*life).orderly) };
    Ok(if orderly { Left::Orderly } else { Left::Cut })
}

extern "C" fn live<F: FnOnce() -> Result<Option<Then>, String>>(arg: *const u8) -> ! {
    // SAFETY: `begin` passes a pointer to its own Life and stands still meanwhile, so this is the only reference.
    let life = unsafe { &mut *arg.cast_mut().cast::<Life<F>>() };
    let work = life.work.take();
    let done = catch_unwind(AssertUnwindSafe(|| work.map(|work| work())));
    let why = match done {
        Ok(Some(Ok(None))) => {
            life.orderly = true;
            raw::exit(0)
        }
        Ok(Some(Ok(Some(then)))) => {
            life.orderly = true;
            let error = first::become_it(life.proof, then.program, then.tag);
            life.orderly = false;
            format!("become the first process of a sandbox: {error}")
        }
        Ok(Some(Err(why))) => why,
        Ok(None) => String::new(),
        Err(_) => "internal error: a panic while preparing the sandbox".to_owned(),
    };
    life.entry.failed(&why);
    drop(why);
    life.orderly = true;
    raw::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{self, Fork};
    use crate::table::{self, State};

    /// Forks a process that makes a sibling with `work` and ends with 0 if it left orderly; answers the entry's state then. The
    /// thread that forks is one of several, so what runs in the fork is kept small; the proof is given by the test.
    fn sibling(work: impl FnOnce() -> Result<Option<Then>, String>) -> (Option<i32>, State) {
        let proof = process::SingleThread::unproven();
        let entry = &table::map(1).unwrap()[0];
        match process::fork(proof, 0, None).unwrap() {
            Fork::Child => {
                let mut stack = Stack::new().unwrap();
                let left = begin(proof, (0, None), &mut stack, entry, work);
                process::exit(i32::from(!matches!(left, Ok(Left::Orderly))));
            }
            Fork::Parent(pid) => {
                let maker = process::reap(Some(pid), true).unwrap().unwrap();
                let made = entry.made();
                assert!(made != 0 && made != pid);
                // A child of this process, not of the one that made it.
                let _ = process::reap(Some(made), true).unwrap().unwrap();
                let code = libc::WIFEXITED(maker.status).then(|| libc::WEXITSTATUS(maker.status));
                (code, entry.state())
            }
        }
    }

    #[test]
    fn what_it_could_not_do_is_told_by_it() {
        let (code, state) = sibling(|| Err("no".to_owned()));
        assert_eq!((code, state), (Some(0), State::Failed("no".to_owned())));
    }

    #[test]
    fn one_that_has_done_its_work_ends() {
        let (code, state) = sibling(|| Ok(None));
        assert_eq!((code, state), (Some(0), State::Preparing));
    }

    #[test]
    fn one_that_cannot_become_its_program_says_so() {
        let (code, state) = sibling(|| {
            Ok(Some(Then {
                program: 9_999,
                tag: [0; TAG],
            }))
        });
        assert_eq!(code, Some(0));
        assert!(matches!(state, State::Failed(why) if why.contains("first process")));
    }

    #[test]
    fn one_that_is_killed_on_its_way_is_noticed() {
        let (code, state) = sibling(|| {
            let me = i32::try_from(std::process::id()).unwrap();
            process::kill(me, libc::SIGKILL).unwrap();
            Err(String::new())
        });
        assert_eq!((code, state), (Some(1), State::Preparing));
    }
}
