//! How the C library's allocator gives memory back.

/// Pieces of at least this many bytes are mapped by themselves, and unmapped as soon as they are freed.
const OWN_MAPPING: libc::c_int = 1 << 20;
/// Free bytes at the end of the heap that are kept.
const KEPT: libc::c_int = 1 << 20;

/// Makes freed memory go back to the system soon. Without it one large request raises the size from which pieces are
/// mapped by themselves, so that later ones stay in the heap. To be called once, before threads are started. Does nothing
/// where the C library has no such setting.
pub fn give_back_early() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt takes two integers and touches nothing of the caller's; it is thread-safe in glibc.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        }
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = (OWN_MAPPING, KEPT);
}
