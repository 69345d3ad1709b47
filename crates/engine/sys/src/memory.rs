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
        // What one thread freed is not left unused beside what another one takes: one heap for each processor.
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let heaps = libc::c_int::try_from(cores.max(2)).unwrap_or(libc::c_int::MAX);
        // SAFETY: mallopt takes integers and touches nothing of the caller's; it is thread-safe in glibc.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
            libc::mallopt(libc::M_ARENA_MAX, heaps);
        }
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = (OWN_MAPPING, KEPT);
}
