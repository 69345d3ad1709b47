//! Programs of a sandbox's first process, of two hundred bytes each and made here. One collects what others leave to it, and
//! nothing else; the other waits for the one program of a task and tells how it ended.
//!
//! What a process of ours would keep instead (pages of our code, mapped once more by every sandbox) costs memory, and the kernel
//! time: whatever it does with a page it does for each process that maps it.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};

use crate::check_long;
use crate::process::SingleThread;

/// Lines of assembly, with the numbers of the system calls that they make.
macro_rules! programs {
    ($($line:literal,)*) => {
        std::arch::global_asm!(
            $($line,)*
            prctl = const libc::SYS_prctl,
            wait_signal = const libc::SYS_rt_sigtimedwait,
            wait_child = const libc::SYS_wait4,
            usage = const libc::SYS_getrusage,
            statfs = const libc::SYS_statfs,
            write = const libc::SYS_write,
            exit = const libc::SYS_exit_group,
        );
    };
}

// Both say that nobody may look into them, that they die with their parent, and their name.
//
// The idle one waits for a child's end (SIGCHLD, which whoever starts it has blocked), collects all that have ended, and waits
// again.
//
// The waiting one collects children until number 2 is over, which is the first that it started; then it writes a record to
// descriptor 3 (see `Record`): its second argument's first 16 bytes, the wait status, what the children used, and what is free in
// its root. It ends with 1 if there is no number 2.
#[cfg(target_arch = "x86_64")]
programs!(
    ".macro prism_first_introduce",
    "mov edi, 4",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, {prctl}",
    "syscall",
    "mov edi, 1",
    "mov esi, 9",
    "mov eax, {prctl}",
    "syscall",
    "mov edi, 15",
    "lea rsi, [rip + 5f]",
    "mov eax, {prctl}",
    "syscall",
    ".endm",
    ".pushsection .rodata.prism_first,\"a\",@progbits",
    ".balign 16",
    ".hidden prism_idle_code",
    ".globl prism_idle_code",
    "prism_idle_code:",
    "prism_first_introduce",
    "2:",
    "lea rdi, [rip + 4f]",
    "xor esi, esi",
    "xor edx, edx",
    "mov r10d, 8",
    "mov eax, {wait_signal}",
    "syscall",
    "3:",
    "mov rdi, -1",
    "xor esi, esi",
    "mov edx, 1",
    "xor r10d, r10d",
    "mov eax, {wait_child}",
    "syscall",
    "test rax, rax",
    "jg 3b",
    "jmp 2b",
    ".balign 8",
    "4: .quad 0x10000",
    "5: .asciz \"prism-init\"",
    ".hidden prism_idle_end",
    ".globl prism_idle_end",
    "prism_idle_end:",
    ".balign 16",
    ".hidden prism_waiting_code",
    ".globl prism_waiting_code",
    "prism_waiting_code:",
    "mov rbx, [rsp + 16]",
    "sub rsp, 288",
    "prism_first_introduce",
    "2:",
    "mov rdi, -1",
    "lea rsi, [rsp + 16]",
    "xor edx, edx",
    "xor r10d, r10d",
    "mov eax, {wait_child}",
    "syscall",
    "cmp rax, 2",
    "je 3f",
    "cmp rax, -10",
    "jne 2b",
    "mov edi, 1",
    "mov eax, {exit}",
    "syscall",
    "3:",
    "mov dword ptr [rsp + 20], 0",
    "mov rdi, -1",
    "lea rsi, [rsp + 24]",
    "mov eax, {usage}",
    "syscall",
    "lea rdi, [rip + 4f]",
    "lea rsi, [rsp + 168]",
    "mov eax, {statfs}",
    "syscall",
    "mov rax, [rbx]",
    "mov [rsp], rax",
    "mov rax, [rbx + 8]",
    "mov [rsp + 8], rax",
    "mov edi, 3",
    "mov rsi, rsp",
    "mov edx, 288",
    "mov eax, {write}",
    "syscall",
    "xor edi, edi",
    "mov eax, {exit}",
    "syscall",
    ".balign 8",
    "4: .asciz \"/\"",
    "5: .asciz \"prism-init\"",
    ".hidden prism_waiting_end",
    ".globl prism_waiting_end",
    "prism_waiting_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
programs!(
    ".macro prism_first_introduce",
    "mov x0, #4",
    "mov x1, #0",
    "mov x2, #0",
    "mov x3, #0",
    "mov x4, #0",
    "mov x8, #{prctl}",
    "svc #0",
    "mov x0, #1",
    "mov x1, #9",
    "mov x8, #{prctl}",
    "svc #0",
    "mov x0, #15",
    "adr x1, 5f",
    "mov x8, #{prctl}",
    "svc #0",
    ".endm",
    ".pushsection .rodata.prism_first,\"a\",%progbits",
    ".balign 16",
    ".hidden prism_idle_code",
    ".globl prism_idle_code",
    "prism_idle_code:",
    "prism_first_introduce",
    "2:",
    "adr x0, 4f",
    "mov x1, #0",
    "mov x2, #0",
    "mov x3, #8",
    "mov x8, #{wait_signal}",
    "svc #0",
    "3:",
    "mov x0, #-1",
    "mov x1, #0",
    "mov x2, #1",
    "mov x3, #0",
    "mov x8, #{wait_child}",
    "svc #0",
    "cmp x0, #0",
    "b.gt 3b",
    "b 2b",
    ".balign 8",
    "4: .quad 0x10000",
    "5: .asciz \"prism-init\"",
    ".hidden prism_idle_end",
    ".globl prism_idle_end",
    "prism_idle_end:",
    ".balign 16",
    ".hidden prism_waiting_code",
    ".globl prism_waiting_code",
    "prism_waiting_code:",
    "ldr x19, [sp, #16]",
    "sub sp, sp, #288",
    "prism_first_introduce",
    "2:",
    "mov x0, #-1",
    "add x1, sp, #16",
    "mov x2, #0",
    "mov x3, #0",
    "mov x8, #{wait_child}",
    "svc #0",
    "cmp x0, #2",
    "b.eq 3f",
    "cmn x0, #10",
    "b.ne 2b",
    "mov x0, #1",
    "mov x8, #{exit}",
    "svc #0",
    "3:",
    "str wzr, [sp, #20]",
    "mov x0, #-1",
    "add x1, sp, #24",
    "mov x8, #{usage}",
    "svc #0",
    "adr x0, 4f",
    "add x1, sp, #168",
    "mov x8, #{statfs}",
    "svc #0",
    "ldr x9, [x19]",
    "str x9, [sp]",
    "ldr x9, [x19, #8]",
    "str x9, [sp, #8]",
    "mov x0, #3",
    "mov x1, sp",
    "mov x2, #288",
    "mov x8, #{write}",
    "svc #0",
    "mov x0, #0",
    "mov x8, #{exit}",
    "svc #0",
    ".balign 8",
    "4: .asciz \"/\"",
    ".balign 4",
    "5: .asciz \"prism-init\"",
    ".hidden prism_waiting_end",
    ".globl prism_waiting_end",
    "prism_waiting_end:",
    ".popsection",
);

unsafe extern "C" {
    static prism_idle_code: u8;
    static prism_idle_end: u8;
    static prism_waiting_code: u8;
    static prism_waiting_end: u8;
}

/// What `ps` shows of it.
const NAME: &CStr = c"prism-init";

/// Where it is loaded: an address that every kernel grants.
const AT: u64 = 0x0040_0000;

const HEADER: u64 = 64;
const SEGMENT: u64 = 56;

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Collects for ever what others leave to it.
    Idle,
    /// Waits for the one program it has started, tells of its end by a [`Record`] on descriptor 3, and ends.
    Waiting,
}

/// Bytes of the text that names a record; see [`become_it`].
pub const TAG: usize = 16;

/// What a waiting first process tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The text that it was given.
    pub tag: [u8; TAG],
    /// Raw wait status of its program; none from [`Record::begun`].
    pub status: Option<i32>,
    /// Processor time of everything it collected, microseconds.
    pub cpu_us: u64,
    /// Largest resident size among that, bytes.
    pub peak: u64,
    /// Of its root's file system: blocks, those free to all, inodes, and those free.
    pub room: [u64; 4],
}

impl Record {
    /// Bytes of one; few enough to be written at once or not at all.
    pub const SIZE: usize = 288;

    const STATUS: usize = TAG;
    const USAGE: usize = 24;
    const ROOM: usize = 168;

    /// Tells that the program has begun: the same shape, written by whoever becomes the waiting one.
    pub fn begun(tag: [u8; TAG]) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[..TAG].copy_from_slice(&tag);
        out[Self::STATUS..Self::USAGE].fill(0xff);
        out
    }

    /// Reads one; `None` if there are too few bytes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| {
            let bytes = bytes.get(at..at + 8)?;
            Some(u64::from_ne_bytes(bytes.try_into().ok()?))
        };
        // A timeval for user and one for system time, then the largest size in KiB.
        let [s1, u1, s2, u2, peak] = [0, 8, 16, 24, 32].map(|at| word(Self::USAGE + at));
        let micros = |s: u64, u: u64| s.saturating_mul(1_000_000).saturating_add(u);
        let room = [16, 32, 40, 48].map(|at| word(Self::ROOM + at));
        Some(Self {
            tag: bytes.get(..TAG)?.try_into().ok()?,
            status: u32::try_from(word(Self::STATUS)?)
                .ok()
                .map(u32::cast_signed),
            cpu_us: micros(s1?, u1?).saturating_add(micros(s2?, u2?)),
            peak: peak?.saturating_mul(1024),
            room: [room[0]?, room[1]?, room[2]?, room[3]?],
        })
    }
}

fn code(kind: Kind) -> &'static [u8] {
    let (start, end) = match kind {
        Kind::Idle => (&raw const prism_idle_code, &raw const prism_idle_end),
        Kind::Waiting => (&raw const prism_waiting_code, &raw const prism_waiting_end),
    };
    // SAFETY: both labels are in one piece of one read-only section, the second after the first, and nothing ever changes it.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

/// The program as an ELF file: a header, a segment that is loaded whole, and one that says that the stack is no code.
fn image(kind: Kind) -> Vec<u8> {
    let code = code(kind);
    let start = HEADER + 2 * SEGMENT;
    let size = start + code.len() as u64;
    let mut out = Vec::with_capacity(640);
    out.extend(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [2, MACHINE] {
        out.extend(half.to_le_bytes());
    }
    out.extend(1u32.to_le_bytes());
    for word in [AT + start, HEADER, 0] {
        out.extend(word.to_le_bytes());
    }
    out.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 2, 0, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    // Kind and rights, then place in the file, twice the address, twice the size, and alignment.
    for (kind, rights, words) in [
        (1u32, 5u32, [0, AT, AT, size, size, 0x1_0000]),
        (0x6474_e551, 6, [0, 0, 0, 0, 0, 16]),
    ] {
        out.extend(kind.to_le_bytes());
        out.extend(rights.to_le_bytes());
        words.iter().for_each(|w: &u64| out.extend(w.to_le_bytes()));
    }
    out.extend(code);
    out
}

/// The program, in memory that nobody can change any more.
///
/// # Errors
/// The kernel's, such as EACCES where programs in memory are forbidden (`vm.memfd_noexec`).
pub fn program(kind: Kind) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(NAME, flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 there was no other kind.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(NAME, flags)?,
        made => made?,
    };
    let mut file = File::from(fd);
    file.write_all(&image(kind))?;
    let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, all)?;
    Ok(file.into())
}

/// Turns this process into the program behind descriptor `number`. SIGCHLD is to be blocked for the idle one; `tag`, of text, names
/// the waiting one's record; zeroes are none. Returns only to say why that failed.
pub fn become_it(_proof: SingleThread, number: u32, tag: [u8; TAG]) -> io::Error {
    let mut text = [0; TAG + 1];
    text[..TAG].copy_from_slice(&tag);
    let tag = if tag == [0; TAG] {
        std::ptr::null()
    } else {
        text.as_ptr().cast()
    };
    let argv = [NAME.as_ptr(), tag, std::ptr::null()];
    let env: [*const libc::c_char; 1] = [std::ptr::null()];
    let path = c"".as_ptr();
    // SAFETY: texts and lists end with their nulls and live across the call, which does not return if it succeeds.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            number,
            path,
            argv.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check_long(ret)
        .err()
        .unwrap_or_else(|| io::Error::from_raw_os_error(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_small_programs() {
        for kind in [Kind::Idle, Kind::Waiting] {
            let image = image(kind);
            assert_eq!(
                image.len() as u64,
                HEADER + 2 * SEGMENT + code(kind).len() as u64
            );
            assert!(image.len() < 640, "{kind:?}: {} bytes", image.len());
            assert!(program(kind).is_ok());
        }
    }

    #[test]
    fn records_come_back() {
        let begun = Record::begun(*b"0123456789abcdef");
        let read = Record::read(&begun).unwrap();
        assert_eq!((read.tag, read.status), (*b"0123456789abcdef", None));
        assert_eq!(Record::read(&begun[..200]), None);
        assert_eq!(
            std::mem::size_of::<libc::rusage>(),
            Record::ROOM - Record::USAGE
        );
        assert_eq!(
            std::mem::size_of::<libc::statfs>(),
            Record::SIZE - Record::ROOM
        );
    }
}
