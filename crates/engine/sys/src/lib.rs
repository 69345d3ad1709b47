//! The kernel calls that neither std nor rustix offers safely: the only crate with `unsafe`.
//!
//! Every function here is a thin, safe wrapper with one job. Policy (what to mount, what to forbid, in which order) lives in
//! `prism-sandbox`; nothing here decides anything.

#![expect(
    unsafe_code,
    reason = "the one place for it; every block says why it is sound"
)]

pub mod beneath;
pub mod creds;
pub mod filter;
pub mod first;
pub mod landlock;
pub mod memory;
pub mod mounts;
pub mod namespaces;
pub mod process;
pub mod processors;
mod raw;
pub mod sibling;
pub mod stdio;
pub mod table;
pub mod unforked;
pub mod vfork;

use std::io;

/// Turns the kernel's -1 into an error.
fn check(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

/// As [`check`], for raw system calls.
fn check_long(ret: libc::c_long) -> io::Result<libc::c_long> {
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

/// A path as the kernel wants it.
fn path_text(path: &std::path::Path) -> io::Result<std::ffi::CString> {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}
