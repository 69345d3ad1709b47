//! Which processors a process is on. A program may use all that its supervisor was given, also while those who start it keep to
//! some of them.

use std::io;
use std::sync::OnceLock;

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

use crate::table::Entry;

/// Words of the kernel's mask: for as many processors as the C library's type has.
const WORDS: usize = CpuSet::MAX_CPU / 64;

static ALL: OnceLock<[u64; WORDS]> = OnceLock::new();

/// The processors that this thread may use, in order.
#[must_use]
pub fn mine() -> Vec<usize> {
    let may = sched_getaffinity(None);
    let is = |cpu: &usize| may.as_ref().is_ok_and(|may| may.is_set(*cpu));
    (0..CpuSet::MAX_CPU).filter(is).collect()
}

/// Has a thread (or a process with one) keep to these.
///
/// # Errors
/// The kernel's: it is gone, or it is not ours, or it may use none of them.
pub fn keep_to(thread: u32, cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU) {
        set.set(*cpu);
    }
    let pid = Pid::from_raw(thread.cast_signed());
    sched_setaffinity(pid, &set).map_err(Into::into)
}

/// Has all threads of this process keep to these, and with them those that they will make.
pub fn all_keep_to(cpus: &[usize]) {
    // A thread that is made meanwhile by one that was not reached yet is found in the second round.
    for _ in 0..2 {
        for entry in std::fs::read_dir("/proc/self/task").into_iter().flatten() {
            let name = entry.map(|entry| entry.file_name());
            let thread = name.ok().and_then(|name| name.to_str()?.parse().ok());
            if let Some(thread) = thread {
                // It may be gone.
                let _ = keep_to(thread, cpus);
            }
        }
    }
}

/// Notes the processors that programs may use: those of this process, now and in its forks.
pub fn programs_may_use_mine() {
    let mut words = [0; WORDS];
    for cpu in mine() {
        words[cpu / 64] |= 1 << (cpu % 64);
    }
    let _first = ALL.set(words);
}

/// The mask for a program, if those who start it keep to fewer processors: its size in bytes and its address. Neither allocates
/// nor locks.
pub(crate) fn for_program(entry: &Entry) -> Option<(usize, usize)> {
    let all = ALL.get().filter(|_| entry.is_born_narrow())?;
    Some((std::mem::size_of_val(all), all.as_ptr() as usize))
}
