//! A table of small records that a supervisor shares with the processes it forks: how they tell what became of them without a
//! pipe each. Only code of ours maps it; a program that is exec'd loses it.

use std::io;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};

use rustix::thread::futex;

/// Bytes of a failure text that are kept.
pub const TEXT: usize = 208;

/// One record. All zeroes is its state before use.
#[repr(C)]
#[derive(Debug)]
pub struct Entry {
    state: AtomicU32,
    status: AtomicI32,
    pid: AtomicU32,
    length: AtomicU32,
    hold: AtomicU32,
    made: AtomicU32,
    narrow: AtomicU32,
    cpu_us: AtomicU64,
    peak: AtomicU64,
    text: [AtomicU8; TEXT],
}

/// How far a process came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Still preparing.
    Preparing,
    /// Its program runs; the number is as the process that told it sees it (0 for none).
    Running(u32),
    /// Its program ended with this raw wait status.
    Ended {
        /// Raw wait status.
        status: i32,
        /// Processor time in microseconds.
        cpu_us: u64,
        /// Largest resident size, bytes.
        peak: u64,
    },
    /// It could not be started, and why.
    Failed(String),
}

impl Entry {
    /// Makes the record new.
    pub fn reset(&self) {
        self.length.store(0, Ordering::Release);
        self.hold.store(0, Ordering::Release);
        self.made.store(0, Ordering::Release);
        self.narrow.store(0, Ordering::Release);
        self.state.store(0, Ordering::Release);
        self.pid.store(0, Ordering::Release);
    }

    /// Makes the process wait before its program, in [`Entry::await_release`], until [`Entry::release`]. To be said before it is
    /// made.
    pub fn hold(&self) {
        self.hold.store(1, Ordering::Release);
    }

    /// Lets it begin its program.
    pub fn release(&self) {
        self.hold.store(0, Ordering::Release);
        let shared = futex::Flags::empty();
        // There is one waiter at most; a failure would be of the address.
        let _woken = futex::wake(&self.hold, shared, 1);
    }

    /// Waits until it may begin its program.
    pub fn await_release(&self) {
        while self.hold.load(Ordering::Acquire) == 1 {
            // Woken, or a signal, or released in between: looked at again.
            let _again = futex::wait(&self.hold, futex::Flags::empty(), 1, None);
        }
    }

    /// Says that those who start the program keep to fewer processors than it may use. To be said before they do.
    pub fn born_narrow(&self) {
        self.narrow.store(1, Ordering::Release);
    }

    /// Whether they do.
    pub(crate) fn is_born_narrow(&self) -> bool {
        self.narrow.load(Ordering::Acquire) != 0
    }

    /// The number of the process that was made for this record by [`crate::sibling`], as whoever made it sees it; 0 before.
    pub fn made(&self) -> u32 {
        self.made.load(Ordering::Acquire)
    }

    /// Where that number is put.
    pub(crate) fn made_at(&self) -> &AtomicU32 {
        &self.made
    }

    /// 1 while it is held; a futex.
    pub(crate) fn held(&self) -> &AtomicU32 {
        &self.hold
    }

    /// Tells that the program runs.
    pub fn running(&self, pid: u32) {
        self.pid.store(pid, Ordering::Release);
        self.state.store(1, Ordering::Release);
    }

    /// Tells how the program ended.
    pub fn ended(&self, status: i32, cpu_us: u64, peak: u64) {
        self.status.store(status, Ordering::Relaxed);
        self.cpu_us.store(cpu_us, Ordering::Relaxed);
        self.peak.store(peak, Ordering::Relaxed);
        self.state.store(2, Ordering::Release);
    }

    /// Tells why nothing was started; the text is cut to what fits.
    pub fn failed(&self, why: &str) {
        self.note(why);
        self.state.store(3, Ordering::Release);
    }

    /// Leaves a text for [`Entry::text`], cut to what fits; to be done before telling an end.
    pub fn note(&self, why: &str) {
        let bytes = &why.as_bytes()[..why.len().min(TEXT)];
        for (to, from) in self.text.iter().zip(bytes) {
            to.store(*from, Ordering::Relaxed);
        }
        let length = u32::try_from(bytes.len()).unwrap_or(0);
        self.length.store(length, Ordering::Relaxed);
    }

    /// The text that was left, if one was.
    pub fn text(&self) -> String {
        let length = self.length.load(Ordering::Relaxed) as usize;
        let bytes: Vec<u8> = self
            .text
            .iter()
            .take(length)
            .map(|b| b.load(Ordering::Relaxed))
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The number that was told with [`Entry::running`]; stays after the end.
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::Acquire)
    }

    /// Reads the record.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Preparing,
            1 => State::Running(self.pid.load(Ordering::Acquire)),
            2 => State::Ended {
                status: self.status.load(Ordering::Relaxed),
                cpu_us: self.cpu_us.load(Ordering::Relaxed),
                peak: self.peak.load(Ordering::Relaxed),
            },
            _ => State::Failed(self.text()),
        }
    }
}

/// Maps `count` records for the life of this process. Memory is taken only for those that are used.
///
/// # Errors
/// The kernel's.
pub fn map(count: usize) -> io::Result<&'static [Entry]> {
    let bytes = count * std::mem::size_of::<Entry>();
    // SAFETY: an anonymous mapping at an address of the kernel's choice.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is page-aligned, holds `count` records, is never unmapped, and all zeroes is a valid Entry; every
    // field is atomic, so sharing it between processes is no data race.
    Ok(unsafe { std::slice::from_raw_parts(at.cast(), count) })
}
