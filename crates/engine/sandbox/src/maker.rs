//! Makers: small processes beside the supervisor in whose memory the first processes of sandboxes are prepared.
//!
//! A fork of the supervisor would pay for copies of its memory three times: when they are made, when either side writes, and when
//! they are dropped. A maker lends its own memory instead ([`prism_sys::sibling`]): the process it makes is a child of the
//! supervisor, works there, and leaves it by becoming a program of a few hundred bytes ([`prism_sys::first`]). One maker serves one
//! order at a time and does nothing else. It dies with its supervisor, and leaves when its socket is closed.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use prism_runtime::{Launch, Program};
use prism_sys::process::{self, SingleThread};
use prism_sys::sibling::{self, Left, Stack};
use prism_sys::table::Entry;
use prism_sys::{first, stdio};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::cgroup::Driver;
use crate::child::{self, Context, Each, Place, Stdio, Wake};
use crate::slots::Slot;

/// Largest order, in bytes; what is larger (files sent along) is not for this way.
const MAX_ORDER: usize = 64 << 10;

/// Most descriptors of one order: two namespaces, a group to be born in, files to join groups by, and three streams or a terminal.
const MAX_FDS: usize = 12;

/// What is to be made.
#[derive(Clone, Copy, Debug, Serialize)]
pub enum Work<'a> {
    /// The first process of a sandbox, with ids from this number on.
    First(u32, &'a Launch),
    /// A program in a sandbox: the number of its first process, and its limits.
    Exec(u32, Each, &'a Program),
}

/// The same as it arrives.
#[derive(Debug, Deserialize)]
enum Received {
    First(u32, Box<Launch>),
    Exec(u32, Each, Program),
}

/// Which descriptors an order brings, in this order.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    index: u32,
    net: bool,
    user: bool,
    into: bool,
    joins: u8,
    streams: [bool; 4],
}

/// Descriptors for an order.
#[derive(Debug)]
pub struct Brought<'a> {
    /// The network namespace of a new sandbox.
    pub net: Option<BorrowedFd<'a>>,
    /// Its user namespace.
    pub user: Option<BorrowedFd<'a>>,
    /// A cgroup to be born in.
    pub into: Option<BorrowedFd<'a>>,
    /// Files to join cgroups by.
    pub joins: Vec<BorrowedFd<'a>>,
}

impl<'a> Brought<'a> {
    /// Those of a slot.
    pub fn of(driver: Option<&dyn Driver>, slot: &'a Slot) -> Self {
        let group = driver.zip(slot.group.as_ref());
        let place = Place::of(driver, slot);
        Self {
            net: place.net,
            user: place.user,
            into: group.and_then(|(driver, group)| driver.clone_into(group)),
            joins: place.joins,
        }
    }
}

/// Gives a maker an order: its record in the table, and what is to be made with what.
///
/// # Errors
/// `None` if it is too large for this way; else the socket's.
pub fn order(
    socket: BorrowedFd<'_>,
    index: usize,
    work: Work<'_>,
    brought: &Brought<'_>,
    ends: &Stdio,
) -> Option<io::Result<()>> {
    let streams = [&ends.input, &ends.output, &ends.error, &ends.terminal].map(Option::as_ref);
    let head = Head {
        index: u32::try_from(index).ok()?,
        net: brought.net.is_some(),
        user: brought.user.is_some(),
        into: brought.into.is_some(),
        joins: u8::try_from(brought.joins.len()).ok()?,
        streams: streams.map(|end| end.is_some()),
    };
    let bytes = postcard::to_allocvec(&(&head, work)).ok()?;
    let groups = brought.into.iter().chain(&brought.joins);
    let namespaces = brought.net.iter().chain(&brought.user);
    let mut fds: Vec<BorrowedFd<'_>> = namespaces.chain(groups).copied().collect();
    fds.extend(streams.iter().flatten().map(|end| end.as_fd()));
    if bytes.len() > MAX_ORDER || fds.len() > MAX_FDS {
        return None;
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return None;
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let sent = sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags);
    Some(sent.map(drop).map_err(Into::into))
}

/// What came of an order.
struct Order {
    head: Head,
    work: Received,
    net: Option<OwnedFd>,
    user: Option<OwnedFd>,
    into: Option<OwnedFd>,
    joins: Vec<OwnedFd>,
    stdio: Stdio,
}

/// Waits for an order; `None` when there will be none.
fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Option<Order> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(buffer)];
    let got = loop {
        match recvmsg(socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            got => break got.ok()?,
        }
    };
    let mut fds = Vec::with_capacity(MAX_FDS);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(got) = message {
            fds.extend(got);
        }
    }
    let (head, work): (Head, Received) = postcard::from_bytes(buffer.get(..got.bytes)?).ok()?;
    let mut fds = fds.into_iter();
    let net = head.net.then(|| fds.next()).flatten();
    let user = head.user.then(|| fds.next()).flatten();
    let into = head.into.then(|| fds.next()).flatten();
    let joins = fds.by_ref().take(usize::from(head.joins)).collect();
    let [input, output, error, terminal] = head.streams.map(|on| on.then(|| fds.next()).flatten());
    Some(Order {
        head,
        work,
        net,
        user,
        into,
        joins,
        stdio: Stdio {
            input,
            output,
            error,
            terminal,
            ..Stdio::default()
        },
    })
}

/// What a maker needs beside its orders, all from the supervisor that it was forked from.
pub struct Tools<'a> {
    /// Proof that forking was sound.
    pub proof: SingleThread,
    /// Where it is told that this maker is free: `running`.
    pub own: &'static Entry,
    /// The records of the runs.
    pub table: &'static [Entry],
    /// What every child needs; the entry and the way to wake are each order's own.
    pub context: Context<'a>,
    /// Wakes the supervisor.
    pub wake: BorrowedFd<'a>,
    /// Where waiting first processes tell of their programs.
    pub news: BorrowedFd<'a>,
    /// The programs of first processes: idle, and waiting.
    pub programs: [BorrowedFd<'a>; 2],
}

/// Bit of a record's name that says that its space for files is in memory; the rest is its index.
const IN_MEMORY: u64 = 1 << 32;

/// A record's name.
fn tag(index: u32, in_memory: bool) -> [u8; first::TAG] {
    let number = u64::from(index) | if in_memory { IN_MEMORY } else { 0 };
    let text = format!("{number:016x}");
    text.as_bytes().try_into().expect("sixteen digits")
}

/// The index behind a record's name, and whether its space for files is in memory.
pub fn read_tag(tag: [u8; first::TAG]) -> Option<(usize, bool)> {
    let number = u64::from_str_radix(std::str::from_utf8(&tag).ok()?, 16).ok()?;
    let index = usize::try_from(number & !IN_MEMORY).ok()?;
    Some((index, number & IN_MEMORY != 0))
}

/// The life of a maker, in a process of its own.
pub fn serve(tools: &Tools<'_>, socket: &OwnedFd) -> ! {
    process::die_with_parent();
    // Nothing here may unwind into the supervisor's loop, of which this process is a copy.
    let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(tools, socket)));
    process::exit(i32::from(!matches!(served, Ok(Ok(())))))
}

fn work(tools: &Tools<'_>, socket: &OwnedFd) -> io::Result<()> {
    let mut kept: Vec<u32> = process::lifeline()
        .into_iter()
        .chain([
            socket.as_fd(),
            tools.wake,
            tools.news,
            tools.programs[0],
            tools.programs[1],
            tools.context.template.namespace.as_fd(),
        ])
        .map(|fd| fd.as_raw_fd().unsigned_abs())
        .chain([0, 1, 2])
        .collect();
    kept.sort_unstable();
    let mut stack = Stack::new()?;
    let mut buffer = vec![0; MAX_ORDER];
    stdio::close_all_but(&kept)?;
    while let Some(order) = receive(socket.as_fd(), &mut buffer) {
        if make(tools, &mut stack, order) == Left::Cut {
            // Killed in the middle of changing what is this process's too.
            process::exit(2);
        }
        // What the order brought was closed only in the process that was made.
        stdio::close_all_but(&kept)?;
        tools.own.running(0);
    }
    Ok(())
}

fn make(tools: &Tools<'_>, stack: &mut Stack, mut order: Order) -> Left {
    let Some(entry) = tools.table.get(order.head.index as usize) else {
        return Left::Orderly;
    };
    let into = order.into.take();
    let flags = match order.work {
        Received::First(..) => u64::from(libc::CLONE_NEWPID.cast_unsigned()),
        Received::Exec(..) => 0,
    };
    let place = (flags, into.as_ref().map(AsFd::as_fd));
    // The rest of the order is dropped by whoever is made.
    let work = || prepare(tools, entry, order);
    let made = sibling::begin(tools.proof, place, stack, entry, work);
    made.unwrap_or_else(|e| {
        entry.failed(&format!("start a process: {e}"));
        stdio::write_to(tools.wake.as_raw_fd(), &1u64.to_ne_bytes());
        Left::Orderly
    })
}

/// What the new process does.
fn prepare(
    tools: &Tools<'_>,
    entry: &'static Entry,
    order: Order,
) -> Result<Option<sibling::Then>, String> {
    let Order {
        head,
        work,
        net,
        user,
        joins,
        stdio,
        ..
    } = order;
    let files: Vec<BorrowedFd<'_>> = joins.iter().map(AsFd::as_fd).collect();
    let ctx = Context {
        entry,
        ..tools.context
    };
    let done = match work {
        Received::First(base, launch) => {
            let place = Place {
                joins: files,
                base,
                net: net.as_ref().map(AsFd::as_fd),
                user: user.as_ref().map(AsFd::as_fd),
            };
            first_process(tools, &ctx, head.index, &place, &launch, stdio).map(Some)
        }
        Received::Exec(init, each, program) => {
            child::enter_sandbox(&ctx, (init, each), &files, &program, stdio).map(|()| None)
        }
    };
    // Closed already, with all other numbers; they may be others' by now.
    let owned = net.into_iter().chain(user).chain(joins);
    owned.for_each(std::mem::forget);
    done
}

fn first_process(
    tools: &Tools<'_>,
    ctx: &Context<'_>,
    index: u32,
    place: &Place<'_>,
    launch: &Launch,
    stdio: Stdio,
) -> Result<sibling::Then, String> {
    let in_memory = matches!(launch.scratch, prism_runtime::Scratch::Memory { .. });
    let [idle, waiting] = tools.programs;
    let (program, wake) = match launch.program {
        Some(_) => (waiting, Wake::News(tools.news, tag(index, in_memory))),
        None => (idle, Wake::Event(tools.wake)),
    };
    let ctx = Context { wake, ..*ctx };
    child::first(&ctx, place, launch, stdio, program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_records_come_back() {
        for (index, memory) in [(0, false), (70_000, true), (u32::MAX, true)] {
            assert_eq!(read_tag(tag(index, memory)), Some((index as usize, memory)));
        }
        assert_eq!(read_tag([0xff; first::TAG]), None);
    }
}
