//! Descriptors of a process as a whole: putting them at numbers, closing ranges, passing one to another process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::{check, check_long};

/// Puts a copy of `fd` at `number`, to be inherited by programs. What was there is closed.
///
/// # Errors
/// The kernel's.
pub fn place(fd: BorrowedFd<'_>, number: u32) -> io::Result<()> {
    let number = i32::try_from(number).map_err(io::Error::other)?;
    if fd.as_raw_fd() == number {
        // SAFETY: no memory is passed; clears close-on-exec.
        return check(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: no memory is passed. Callers own the low numbers of a process that is about to run something else.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Marks a descriptor, by number, to be closed on exec.
///
/// # Errors
/// The kernel's.
pub fn close_on_exec(number: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
}

/// A copy of `fd` at the lowest free number that is at least `from`, closed on exec.
///
/// # Errors
/// The kernel's.
pub fn copy_above(fd: BorrowedFd<'_>, from: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let copy = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, from) })?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Closes every descriptor numbered `first` to `last`. For processes whose owners of those numbers never run again: right after
/// a fork, or at the start of a program.
///
/// # Errors
/// ENOSYS before Linux 5.9.
pub fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: no memory is passed; the callers' contract is that nothing owns these descriptors any more.
    check_long(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Closes every descriptor but these numbers, given in order. For processes as of [`close_range`].
///
/// # Errors
/// As there.
pub fn close_all_but(kept: &[u32]) -> io::Result<()> {
    let mut first = 0;
    for number in kept {
        if *number > first {
            close_range(first, number - 1)?;
        }
        first = number.saturating_add(1).max(first);
    }
    close_range(first, u32::MAX)
}

/// Sends one byte and a descriptor over a unix socket.
///
/// # Errors
/// The kernel's.
pub fn send_fd(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    let byte = 0u8;
    let mut part = libc::iovec {
        iov_base: (&raw const byte).cast_mut().cast(),
        iov_len: 1,
    };
    let mut control = [0u64; 4];
    // SAFETY: msghdr is plain data; every pointer in it is to a live local that is large enough (CMSG_SPACE of one
    // descriptor is 24 bytes of the 32 here), and CMSG_FIRSTHDR points into `control`.
    check_long(unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header)
            .cast::<i32>()
            .write_unaligned(fd.as_raw_fd());
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) as libc::c_long
    })
    .map(drop)
}

/// Receives what [`send_fd`] sent; `None` at the end of the stream or when nothing is there yet.
///
/// # Errors
/// The kernel's.
pub fn receive_fd(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut byte = 0u8;
    let mut part = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut control = [0u64; 4];
    // SAFETY: as in `send_fd`; a descriptor is taken only from a complete SCM_RIGHTS record, and owned once.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = std::mem::size_of_val(&control);
        let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
        check_long(libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) as libc::c_long)?;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
            return Ok(None);
        }
        let fd = libc::CMSG_DATA(header).cast::<i32>().read_unaligned();
        Ok(Some(OwnedFd::from_raw_fd(fd)))
    }
}

/// Opens a new terminal of the devpts at `/dev/pts`, of the given size: (master, slave).
///
/// # Errors
/// The kernel's, such as ENOENT where there is no devpts.
pub fn open_terminal(rows: u16, columns: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: a NUL-terminated literal.
    let master = check(unsafe { libc::open(c"/dev/ptmx".as_ptr(), flags) })?;
    // SAFETY: the kernel just gave us this descriptor.
    let master = unsafe { OwnedFd::from_raw_fd(master) };
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })?;
    // SAFETY: TIOCGPTPEER takes open flags by value; it needs no path, so nothing can be put in between.
    let slave = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel just gave us this descriptor.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    resize(std::os::fd::AsFd::as_fd(&master), rows, columns)?;
    Ok((master, slave))
}

/// Sets the size of a terminal.
///
/// # Errors
/// ENOTTY when it is none.
pub fn resize(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads a winsize.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// Writes to a descriptor by number; a failure is ignored. For processes that closed everything but a few known numbers.
pub fn write_to(number: i32, bytes: &[u8]) {
    // SAFETY: pointer and length of one live slice; a wrong number is an error, not a hazard.
    unsafe { libc::write(number, bytes.as_ptr().cast(), bytes.len()) };
}
