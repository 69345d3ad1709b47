//! System calls without libc: for a process that shares the memory, and so `errno`, of another. See `vfork`.

use std::arch::asm;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("prism-sys knows the system calls of x86_64 and aarch64");

/// Makes a system call of up to five arguments; a negative answer is an error's number.
///
/// # Safety
/// That of the call.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn call(number: libc::c_long, [a, b, c, d, e]: [usize; 5]) -> isize {
    let answer;
    // SAFETY: the kernel's convention: it preserves all registers but rax, rcx and r11; memory is the caller's affair.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

/// As above.
///
/// # Safety
/// That of the call.
#[cfg(target_arch = "aarch64")]
pub(crate) unsafe fn call(number: libc::c_long, [a, b, c, d, e]: [usize; 5]) -> isize {
    let answer;
    // SAFETY: the kernel's convention: it preserves all registers but x0; memory is the caller's affair.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") a as isize => answer,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            options(nostack),
        );
    }
    answer
}

/// The error that an answer of [`call`] is.
pub(crate) fn failed(answer: isize) -> Option<i32> {
    (answer < 0).then(|| i32::try_from(answer.wrapping_neg()).unwrap_or(libc::EIO))
}

/// Ends this process.
pub(crate) fn exit(code: usize) -> ! {
    loop {
        // SAFETY: touches no memory; never returns.
        unsafe { call(libc::SYS_exit_group, [code, 0, 0, 0, 0]) };
    }
}

/// `clone3` with a stack of the new process's own, on which it calls `then(arg)`. Answers its number, or a negated error.
///
/// # Safety
/// `args` names a stack that is aligned to 16 and, like what `arg` points to, lives for as long as the new process shares
/// memory with this one; `then` is fit for that.
pub(crate) unsafe fn clone_apart(
    args: &libc::clone_args,
    then: extern "C" fn(*const u8) -> !,
    arg: *const u8,
) -> isize {
    let answer: isize;
    let size = std::mem::size_of::<libc::clone_args>();
    // SAFETY: the parent's side is a plain system call. The new process comes back with the new stack pointer and the same
    // registers, makes an end of the frame chain, and calls, never to return.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => answer,
            in("rdi") std::ptr::from_ref(args), in("rsi") size,
            in("r12") arg, in("r13") then,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") std::ptr::from_ref(args) as isize => answer,
            in("x1") size,
            in("x20") arg, in("x21") then,
        );
    }
    answer
}
