//! Loading a seccomp filter. What it allows is decided in `prism-sandbox`.

use std::io;

use crate::check_long;

/// One instruction of classic BPF, as the kernel lays it out.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jump_true: u8,
    /// Instructions to skip when it does not.
    pub jump_false: u8,
    /// Operand.
    pub value: u32,
}

#[repr(C)]
struct Program {
    length: u16,
    filter: *const Instruction,
}

/// Filters the system calls of this process for good. Needs no_new_privs.
///
/// # Errors
/// EINVAL for a malformed program; ENOSYS where the kernel has no seccomp.
pub fn load(program: &[Instruction]) -> io::Result<()> {
    let program = Program {
        length: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr(),
    };
    // SAFETY: SECCOMP_SET_MODE_FILTER reads `length` instructions at `filter`, which are alive across the call.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    })
    .map(drop)
}
