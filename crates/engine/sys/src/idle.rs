//! The program of a sandbox's first process while it has none of its own: it collects what others leave to it, and nothing else.
//!
//! It is two hundred bytes, made here, because what a fork of this process would keep (pages of our code, mapped once more by
//! every idle sandbox) costs memory, and the kernel time: whatever it does with a page it does for each process that maps it.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};

use crate::check_long;
use crate::process::SingleThread;

// Says that nobody may look into it, that it dies with its parent, and its name; then waits for a child's end (SIGCHLD, which whoever
// starts it has blocked), collects all that have ended, and waits again.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.prism_idle,\"a\",@progbits",
    ".balign 16",
    ".hidden prism_idle_code",
    ".globl prism_idle_code",
    "prism_idle_code:",
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
    ".popsection",
    prctl = const libc::SYS_prctl,
    wait_signal = const libc::SYS_rt_sigtimedwait,
    wait_child = const libc::SYS_wait4,
);

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .rodata.prism_idle,\"a\",%progbits",
    ".balign 16",
    ".hidden prism_idle_code",
    ".globl prism_idle_code",
    "prism_idle_code:",
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
    ".popsection",
    prctl = const libc::SYS_prctl,
    wait_signal = const libc::SYS_rt_sigtimedwait,
    wait_child = const libc::SYS_wait4,
);

unsafe extern "C" {
    static prism_idle_code: u8;
    static prism_idle_end: u8;
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

fn code() -> &'static [u8] {
    let (start, end) = (&raw const prism_idle_code, &raw const prism_idle_end);
    // SAFETY: both labels are in one piece of one read-only section, the second after the first, and nothing ever changes it.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

/// The program as an ELF file: a header, a segment that is loaded whole, and one that says that the stack is no code.
fn image() -> Vec<u8> {
    let code = code();
    let start = HEADER + 2 * SEGMENT;
    let size = start + code.len() as u64;
    let mut out = Vec::with_capacity(512);
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
pub fn program() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(NAME, flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 there was no other kind.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(NAME, flags)?,
        made => made?,
    };
    let mut file = File::from(fd);
    file.write_all(&image())?;
    let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, all)?;
    Ok(file.into())
}

/// Turns this process into the program behind descriptor `number`. SIGCHLD is to be blocked. Returns only to say why that failed.
pub fn become_it(_proof: SingleThread, number: u32) -> io::Error {
    let argv = [NAME.as_ptr(), std::ptr::null()];
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
    fn it_is_a_small_program() {
        let image = image();
        assert_eq!(
            image.len() as u64,
            HEADER + 2 * SEGMENT + code().len() as u64
        );
        assert!(image.len() < 512, "{} bytes", image.len());
        assert!(program().is_ok());
    }
}
