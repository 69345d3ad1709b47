//! A list that forked children do not get: what a fork copies is paid for by each, whether it is looked at or not.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::{io, mem};

use crate::check;

/// A list of at most so many items, which takes memory only for those that are there. In a forked child its memory is absent:
/// whoever looks at it there ends with a segmentation fault, and nothing worse.
#[derive(Debug)]
pub struct Unforked<T> {
    at: NonNull<T>,
    len: usize,
    capacity: usize,
}

impl<T> Unforked<T> {
    /// Sets the room aside.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(capacity: usize) -> io::Result<Self> {
        let bytes = (capacity * mem::size_of::<T>()).max(1);
        // SAFETY: an anonymous mapping at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the whole of the mapping that was just made, and nothing else.
        check(unsafe { libc::madvise(at, bytes, libc::MADV_DONTFORK) })?;
        // Page-aligned, which is enough for every type here.
        let at = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("a mapping at zero"))?;
        Ok(Self {
            at,
            len: 0,
            capacity,
        })
    }

    /// Adds an item at the end.
    ///
    /// # Panics
    /// When there are as many as were asked for.
    pub fn push(&mut self, item: T) {
        assert!(self.len < self.capacity, "the list is full");
        // SAFETY: the place is within the mapping, and holds no item yet.
        unsafe { self.at.add(self.len).write(item) };
        self.len += 1;
    }
}

impl<T> Deref for Unforked<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the first `len` places hold items, and live as long as this does.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Unforked<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed for as long.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl<T> Drop for Unforked<T> {
    fn drop(&mut self) {
        let bytes = (self.capacity * mem::size_of::<T>()).max(1);
        let items: *mut [T] = &raw mut **self;
        // SAFETY: the items are dropped once, and nobody can ask for them again; then the mapping of `new` goes.
        unsafe {
            std::ptr::drop_in_place(items);
            libc::munmap(self.at.as_ptr().cast(), bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list() {
        let mut list = Unforked::new(3).unwrap();
        for n in 0..3 {
            list.push(Some(n.to_string()));
        }
        assert_eq!(list[1].take().as_deref(), Some("1"));
        assert_eq!(list.iter().flatten().count(), 2);
        assert!(std::panic::catch_unwind(move || list.push(None)).is_err());
    }
}
