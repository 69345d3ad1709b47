//! What happens between fork and exec: the first process of a sandbox, the helper that starts a program in a running sandbox, and
//! a plain child of the host. The order of the steps is the security of the thing; each says what failed if it fails.
//!
//! Runs in children of the supervisor only, which have one thread: forked ones, or such as work in a maker's memory
//! ([`crate::maker`]) until they become a program of their own.

mod harden;
mod program;
mod root;

use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use prism_runtime::{Isolation, Launch, Limits, Program, Scratch};
use prism_sys::filter::Instruction;
use prism_sys::process::{self, SingleThread};
use prism_sys::sibling::Then;
use prism_sys::table::Entry;
use prism_sys::{creds, first, mounts};
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::slots::Slot;
use crate::template::Template;

pub use program::{plan, why};
pub use root::full;

/// What every child needs from the supervisor.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Proof that forking was sound.
    pub proof: SingleThread,
    /// The shared parts of a root.
    pub template: &'a Template,
    /// The seccomp filter; empty where the kernel has none.
    pub filter: &'a [Instruction],
    /// Landlock's version; 0 for none.
    pub landlock: u32,
    /// Wakes the supervisor.
    pub wake: Wake<'a>,
    /// Where to tell what became of it.
    pub entry: &'static Entry,
    /// Whether cgroups limit what runs.
    pub grouped: bool,
    /// Set when the supervisor is root of a user namespace only: the real user and group.
    pub user: Option<(u32, u32)>,
}

/// How a child wakes the supervisor when its program has begun or ended.
#[derive(Clone, Copy, Debug)]
pub enum Wake<'a> {
    /// Only that.
    Event(BorrowedFd<'a>),
    /// By a record of this name in a pipe; a waiting first process adds that of the end.
    News(BorrowedFd<'a>, [u8; first::TAG]),
}

impl<'a> Wake<'a> {
    fn fd(self) -> BorrowedFd<'a> {
        match self {
            Self::Event(fd) | Self::News(fd, _) => fd,
        }
    }

    /// Does it, through the descriptor at [`WAKE`]. A failure only delays the news until the exit.
    fn write(self) {
        match self {
            Self::Event(_) => prism_sys::stdio::write_to(WAKE, &1u64.to_ne_bytes()),
            Self::News(_, tag) => {
                prism_sys::stdio::write_to(WAKE, &first::Record::begun(tag));
            }
        }
    }
}

/// What a sandbox's first process takes of its slot.
#[derive(Debug)]
pub struct Place<'a> {
    /// Cgroup files to join by; see [`crate::cgroup::Driver::joins`].
    pub joins: Vec<BorrowedFd<'a>>,
    /// The id outside that is 0 inside; 0 when they are the same.
    pub base: u32,
    /// Its network namespace.
    pub net: Option<BorrowedFd<'a>>,
    /// Its user namespace.
    pub user: Option<BorrowedFd<'a>>,
}

impl<'a> Place<'a> {
    /// That of a slot.
    pub fn of(driver: Option<&dyn cgroup::Driver>, slot: &'a Slot) -> Self {
        let grouped = driver.zip(slot.group.as_ref());
        Self {
            joins: grouped.map_or_else(Vec::new, |(driver, group)| driver.joins(group)),
            base: slot.base,
            net: slot.net.as_ref().map(AsFd::as_fd),
            user: slot.user.as_ref().map(AsFd::as_fd),
        }
    }
}

/// The program's ends of its streams; what is missing is `/dev/null`.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Standard input.
    pub input: Option<OwnedFd>,
    /// Standard output.
    pub output: Option<OwnedFd>,
    /// Standard error.
    pub error: Option<OwnedFd>,
    /// Where to send the master of a new terminal to, which then takes the place of all three.
    pub terminal: Option<OwnedFd>,
    /// For a plain run: closes, by the exec itself, when the program begins.
    pub begun: Option<OwnedFd>,
}

/// A step's failure, as text for the report.
type Step<T> = Result<T, String>;

trait Named<T> {
    /// Names the step that failed.
    fn step(self, what: impl Display) -> Step<T>;
}

impl<T, E: Display> Named<T> for Result<T, E> {
    fn step(self, what: impl Display) -> Step<T> {
        self.map_err(|e| format!("{what}: {e}"))
    }
}

/// Runs the life of a child, and tells if it fails.
fn live(entry: &Entry, life: impl FnOnce() -> Step<()>) -> ! {
    // A panic must not unwind into the supervisor's loop, of which this process is a copy.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(life)) {
        Ok(Ok(())) => process::exit(0),
        Ok(Err(why)) => entry.failed(&why),
        Err(_) => entry.failed("internal error: a panic while preparing the sandbox"),
    }
    process::exit(1)
}

const UNSHARED: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;

/// The first process of a sandbox (pid 1 inside), forked: builds it, starts the program, reaps what is left to it, and tells how
/// the program ended. Without a program it becomes `idle` where it can, and lives until it is killed.
pub fn init(
    ctx: &Context<'_>,
    place: &Place<'_>,
    launch: &Launch,
    stdio: Stdio,
    idle: Option<BorrowedFd<'_>>,
) -> ! {
    live(ctx.entry, || {
        let keep = idle.filter(|_| launch.program.is_none());
        let Some(pid) = begin(ctx, place, launch, stdio, keep)? else {
            if keep.is_some() {
                // Where it cannot, it stays what it is.
                let _ = first::become_it(ctx.proof, program::KEPT, [0; first::TAG]);
            }
            process::reap_for_ever()
        };
        wait_for(ctx, launch, pid)
    })
}

/// The same in a maker's memory: what it becomes instead of staying. `program` is the one for a launch of its kind.
pub fn first(
    ctx: &Context<'_>,
    place: &Place<'_>,
    launch: &Launch,
    stdio: Stdio,
    program: BorrowedFd<'_>,
) -> Step<Then> {
    let tag = match (begin(ctx, place, launch, stdio, Some(program))?, ctx.wake) {
        // The waiting one knows it by its number.
        (Some(pid), _) if pid != 2 => return Err(format!("the program is number {pid}, not 2")),
        (_, Wake::News(_, tag)) => tag,
        (_, Wake::Event(_)) => [0; first::TAG],
    };
    Ok(Then {
        program: program::KEPT,
        tag,
    })
}

/// Builds the sandbox around this process and starts its program, if it has one, whose number it answers. `keep` is what is to
/// be at [`program::KEPT`] afterwards. All else that this process had open is closed.
fn begin(
    ctx: &Context<'_>,
    place: &Place<'_>,
    launch: &Launch,
    stdio: Stdio,
    keep: Option<BorrowedFd<'_>>,
) -> Step<Option<u32>> {
    process::die_with_parent();
    creds::umask(0);
    cgroup::join(&place.joins).step("join the cgroup")?;
    enter(ctx, place, launch)?;
    let file = match &launch.scratch {
        Scratch::Disk { bytes, .. } => bytes.0,
        Scratch::Memory { .. } => 0,
    };
    Each::of(&launch.limits)
        .with_files_of(file)
        .set(ctx.grouped)?;
    let user = place.user.as_ref().ok_or("no user namespace")?;
    process::join(ctx.proof, user.as_fd(), libc::CLONE_NEWUSER).step("join the users")?;
    creds::become_root_inside().step("become root inside")?;
    root::finish(launch)?;
    program::enter(launch.program.as_ref(), &launch.files)?;
    process::die_with_parent();
    process::set_dumpable(false);
    let Some(program) = &launch.program else {
        program::place(ctx.wake.fd(), Stdio::default(), None, keep, false)?;
        harden::lock(ctx, false)?;
        ctx.entry.running(0);
        ctx.wake.write();
        return Ok(None);
    };
    let mut plan = program::plan(program)?;
    plan.entry = Some(ctx.entry);
    program::place(ctx.wake.fd(), stdio, program.tty, keep, true)?;
    harden::lock(ctx, true)?;
    ctx.entry.await_release();
    let pid = process::spawn(ctx.proof, &plan).map_err(|e| program::why(name_of(program), &e))?;
    ctx.entry.running(pid);
    if !is_silent(launch) {
        ctx.wake.write();
    }
    // Streams held here would keep their readers waiting.
    prism_sys::stdio::close_range(0, 2).step("close the streams")?;
    Ok(Some(pid))
}

/// Whether it does not tell that its program has begun: one of a job's many tasks, which the supervisor looks at a moment later.
pub fn is_silent(launch: &Launch) -> bool {
    launch.lanes > 0 && launch.program.is_some() && launch.isolation == Isolation::Sandboxed
}

/// Makes and enters everything that separates it but the users.
fn enter(ctx: &Context<'_>, place: &Place<'_>, launch: &Launch) -> Step<()> {
    let sources = root::open(place, launch)?;
    let template = ctx.template.namespace.as_fd();
    process::join(ctx.proof, template, libc::CLONE_NEWNS).step("join the template")?;
    process::unshare(ctx.proof, UNSHARED).step("make namespaces")?;
    let net = place.net.as_ref().ok_or("no network namespace")?;
    process::join(ctx.proof, net.as_fd(), libc::CLONE_NEWNET).step("join the network")?;
    root::build(ctx, place, launch, &sources)?;
    mounts::set_hostname(&launch.hostname).step("set the host name")
}

/// Number of the supervisor's wake-up descriptor once the streams are in place.
const WAKE: i32 = 3;

/// Pid 1 with a program: waits for its end. What is left afterwards dies with this process.
fn wait_for(ctx: &Context<'_>, launch: &Launch, pid: u32) -> Step<()> {
    loop {
        match process::reap(None, true).step("wait for the program")? {
            Some(end) if end.pid == pid => {
                // Of everything reaped here, not only of the program.
                let (cpu_us, peak) = process::children_usage();
                if end.status != 0
                    && let Some(full) = root::room_left(launch)
                {
                    ctx.entry.note(full);
                }
                ctx.entry.ended(end.status, cpu_us, peak);
                // The next program need not wait until the kernel has taken this sandbox apart.
                ctx.wake.write();
                return Ok(());
            }
            Some(_) => {}
            None => return Err("the program is gone without an exit status".into()),
        }
    }
}

/// Limits that are each process's own, beneath those of the cgroup; 0 for none.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Each {
    nofile: u32,
    pids: u32,
    memory: u64,
    file: u64,
}

impl Each {
    /// Those of a launch.
    pub fn of(limits: &Limits) -> Self {
        Self {
            nofile: limits.nofile,
            pids: limits.pids,
            memory: limits.memory.0,
            file: 0,
        }
    }

    /// The same, and no file larger than this.
    pub fn with_files_of(self, bytes: u64) -> Self {
        Self {
            file: bytes,
            ..self
        }
    }

    /// Those of a plain launch. Its processes count together with all others of its user, so their number is the cgroup's to
    /// limit.
    pub fn plain(limits: &Limits) -> Self {
        Self {
            pids: 0,
            ..Self::of(limits)
        }
    }

    /// Each with its value. Memory is limited here only where no cgroup does it better.
    pub fn list(self, grouped: bool) -> Vec<(creds::Resource, u64)> {
        // Where a cgroup counts processes, that is the one to be hit, as it says so; this one is behind it.
        let behind = if grouped { 32 } else { 0 };
        let pids = match self.pids {
            0 => 0,
            n => u64::from(n) + 2 + behind,
        };
        let memory = if grouped { 0 } else { self.memory };
        let given = [
            (creds::Resource::Files, u64::from(self.nofile)),
            (creds::Resource::Processes, pids),
            (creds::Resource::FileSize, self.file),
            (creds::Resource::Data, memory),
        ];
        std::iter::once((creds::Resource::Core, 0))
            .chain(given.into_iter().filter(|(_, n)| *n != 0))
            .collect()
    }

    /// Sets them for this process and its children.
    fn set(self, grouped: bool) -> Step<()> {
        for (resource, value) in self.list(grouped) {
            creds::limit(resource, value).step(format_args!("limit {}", resource.name()))?;
        }
        Ok(())
    }
}

fn name_of(program: &Program) -> &str {
    program.argv.first().map_or("", String::as_str)
}

/// Starts a program in a sandbox (its first process, and its limits), as a child of the supervisor, and ends.
pub fn exec(
    ctx: &Context<'_>,
    inside: (u32, Each),
    joins: &[BorrowedFd<'_>],
    program: &Program,
    stdio: Stdio,
) -> ! {
    live(ctx.entry, || {
        enter_sandbox(ctx, inside, joins, program, stdio)
    })
}

/// The same in a maker's memory.
pub fn enter_sandbox(
    ctx: &Context<'_>,
    (init, each): (u32, Each),
    joins: &[BorrowedFd<'_>],
    program: &Program,
    stdio: Stdio,
) -> Step<()> {
    creds::umask(0);
    cgroup::join(joins).step("join the cgroup")?;
    join_sandbox(ctx, init)?;
    creds::become_root_inside().step("become root inside")?;
    std::env::set_current_dir("/").step("enter the root")?;
    program::enter(Some(program), &[])?;
    process::set_dumpable(false);
    each.set(ctx.grouped)?;
    let mut plan = program::plan(program)?;
    plan.entry = Some(ctx.entry);
    plan.sibling = true;
    plan.die_with_parent = true;
    program::place(ctx.wake.fd(), stdio, program.tty, None, true)?;
    harden::lock(ctx, false)?;
    let pid = process::spawn(ctx.proof, &plan).map_err(|e| program::why(name_of(program), &e))?;
    ctx.entry.running(pid);
    ctx.wake.write();
    Ok(())
}

fn join_sandbox(ctx: &Context<'_>, init: u32) -> Step<()> {
    let target = process::pidfd(init).step("find the sandbox")?;
    let kinds = UNSHARED & !libc::CLONE_NEWCGROUP | libc::CLONE_NEWPID | libc::CLONE_NEWNET;
    process::join(ctx.proof, target.as_fd(), kinds).step("join the sandbox")?;
    // The sandbox's own was made before its cgroup: the path in it would tell of the host.
    process::unshare(ctx.proof, libc::CLONE_NEWCGROUP).step("hide the cgroup's path")?;
    root::add_terminals()?;
    process::join(ctx.proof, target.as_fd(), libc::CLONE_NEWUSER).step("join the users")
}

/// Becomes a plain child of the host. There is no other process to tell that the program runs, so the descriptor for that is
/// closed by the exec itself; see [`Stdio::begun`].
pub fn plain(ctx: &Context<'_>, joins: &[BorrowedFd<'_>], launch: &Launch, mut stdio: Stdio) -> ! {
    debug_assert_eq!(launch.isolation, Isolation::Plain);
    let begun = stdio.begun.take();
    live(ctx.entry, || {
        cgroup::join(joins).step("join the cgroup")?;
        let program = launch.program.as_ref().ok_or("no program")?;
        Each::plain(&launch.limits).set(ctx.grouped)?;
        if let Some((uid, gid)) = ctx.user {
            // Back to the user's own numbers, without the powers of the supervisor's namespace.
            process::unshare(ctx.proof, libc::CLONE_NEWUSER).step("leave the namespace")?;
            crate::slots::map_self(uid, gid).step("take the user's own ids")?;
        }
        creds::umask(0o022);
        program::enter(Some(program), &launch.files)?;
        let mut plan = program::plan(program)?;
        plan.entry = Some(ctx.entry);
        plan.die_with_parent = true;
        let begun = begun.as_ref().ok_or("no pipe for the news of the start")?;
        program::place(begun.as_fd(), stdio, program.tty, None, true)?;
        prism_sys::stdio::close_on_exec(WAKE).step("prepare the news of the start")?;
        ctx.entry.await_release();
        Err(program::why(
            name_of(program),
            &process::exec(ctx.proof, &plan),
        ))
    })
}
