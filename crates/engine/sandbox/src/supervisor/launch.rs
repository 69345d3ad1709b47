//! Beginning runs: out of the queue, a slot, streams, a fork; and hearing from the child how far it came.

use std::cmp::Reverse;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use prism_faults::point;
use prism_runtime::{Isolation, Launch, Limits, Program, RunEvent, Scratch};
use prism_sys::process::{self, Fork};
use prism_sys::table::State;
use prism_types::{Millis, RunId, RunReport};
use rustix::event::epoll::EventFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::beginning::LOOK;
use super::disk::Account;
use super::journal::Record;
use super::leases;
use super::neighbours::Crowding;
use super::output::{Input, Stream};
use super::plain::Apart;
use super::run::{Kind, Phase, Run};
use super::state::{Alarm, Supervisor, Token, now, unwatch, watch};
use crate::child::{self, Context, Place, Stdio, Wake};
use crate::maker::{Brought, Work};
use crate::slots::{Needs, Slot};

/// Most launches that wait.
const MAX_QUEUED: usize = 200_000;

/// Above this many live runs, the descriptors of a slot are given up while a task runs, or at once for a sandbox, which may live
/// long. Below, the next run has the slot as it is.
const PARK_ABOVE: usize = 1_000;
const PARK_SANDBOXES_ABOVE: usize = 200;

/// How many children are prepared at once: enough to keep the processors busy while some wait for the kernel's grace periods.
pub(super) fn preparing_at_once() -> usize {
    static N: OnceLock<usize> = OnceLock::new();
    *N.get_or_init(|| std::thread::available_parallelism().map_or(4, |n| 4 * n.get()))
}

/// A run on its way: our ends, its ends, and its process.
struct Begun {
    ends: Ends,
    stdio: Stdio,
    side: Fork,
    apart: Option<Apart>,
}

/// Our ends of a run's streams.
#[derive(Default)]
pub(super) struct Ends {
    streams: [Option<Stream>; 2],
    input: Option<Input>,
    terminal_socket: Option<OwnedFd>,
    beginning: Option<OwnedFd>,
}

impl Supervisor {
    /// Takes in a batch.
    pub(super) fn accept_launches(&mut self, batch: Vec<Launch>) {
        for launch in batch {
            if self.knows(&launch.id) {
                self.tell_again(&launch.id);
                continue;
            }
            if self.queue.len() >= MAX_QUEUED || self.stopping {
                let why = "too many runs wait on this node; try again later";
                self.refuse(launch.id, launch.logs, RunReport::not_started(now(), why));
                continue;
            }
            let lease = launch.lease;
            if lease.is_some_and(|until| !self.lease(&launch.id, until)) {
                self.refuse(launch.id, launch.logs, leases::too_late());
                continue;
            }
            self.queue.push(launch);
            self.release();
        }
    }

    /// Answers for a run that is asked for anew: whoever asks may have come after what was told of it.
    pub(super) fn tell_again(&mut self, id: &RunId) {
        if let Some(ended) = self.ended.get(id) {
            let exited = ended.exited.clone().map(|report| RunEvent::Exited {
                id: id.clone(),
                report,
            });
            self.events.extend(exited);
        } else if let Some(index) = self.by_id.get(id).copied()
            && let Some(run) = self.run(index).filter(|run| run.phase == Phase::Running)
        {
            let started = RunEvent::Started {
                id: id.clone(),
                at: run.started,
                pid: run.pid,
            };
            self.events.push(started);
        }
    }

    /// Begins as many queued runs as can be prepared at once; true when more could begin right away.
    pub(super) fn launch_queued(&mut self) -> bool {
        for _ in 0..preparing_at_once() {
            if self.prepares_enough() {
                // Some may have begun long ago.
                self.look_at_all();
            }
            if self.prepares_enough() {
                return false;
            }
            let Some((launch, held)) = self.queue.pop() else {
                return false;
            };
            if let Err(why) = self.launch(&launch, held) {
                self.queue.over(&launch.id);
                self.release();
                self.refuse(launch.id, launch.logs, RunReport::not_started(now(), why));
            }
        }
        self.queue.is_ready()
    }

    fn prepares_enough(&self) -> bool {
        self.starting.len() - self.queue.held() >= preparing_at_once()
    }

    /// Lets those go on that were held and have a lane now; their time runs from here.
    pub(super) fn release(&mut self) {
        for id in self.queue.take_released() {
            let Some(index) = self.by_id.get(&id).copied() else {
                continue;
            };
            let Some(run) = self.run(index) else {
                continue;
            };
            (run.started, run.since) = (now(), Instant::now());
            run.look = run.silent.then_some(run.since + LOOK);
            if let Some(Millis(ms)) = run.limits.timeout {
                self.alarm(id, Duration::from_millis(ms), Alarm::Timeout);
            }
            self.table[index].release();
        }
    }

    fn launch(&mut self, launch: &Launch, held: bool) -> Result<(), String> {
        check(launch)?;
        let sandboxed = launch.isolation == Isolation::Sandboxed;
        let index = self.place().ok_or("too many runs are live on this node")?;
        if held {
            self.table[index].hold();
        }
        let driver = self.driver.as_deref();
        let needs = Needs {
            namespaces: sandboxed,
            group: launch.program.is_some(),
        };
        let slot = match self.slots.take(driver, &launch.limits, needs) {
            Ok(slot) => slot,
            Err(why) => {
                self.free.push(index);
                return Err(why);
            }
        };
        let Begun {
            ends,
            stdio,
            side,
            apart,
        } = match self.start(index, launch, &slot) {
            Ok(begun) => begun,
            Err(e) => {
                self.slots.give_back(slot, self.driver.as_deref());
                self.free.push(index);
                return Err(format!("start a process: {e}"));
            }
        };
        let Fork::Parent(pid) = side else {
            self.child(index, launch, &slot, stdio)
        };
        drop(stdio);
        let (id, kind) = (launch.id.clone(), kind_of(launch));
        let mut run = fresh(id, kind, ends, &launch.logs, &launch.limits);
        run.slot = Some(slot);
        run.account = Account::of(launch);
        run.apart = apart;
        if launch.lanes > 0 && run.kind == Kind::Task {
            self.in_lanes.push(index);
        }
        run.silent = run.apart.is_some() || child::is_silent(launch);
        if run.silent && !held {
            run.look = Some(Instant::now() + LOOK);
        }
        let timeout = launch.limits.timeout.filter(|_| !held);
        self.adopt(index, run, pid, timeout);
        Ok(())
    }

    /// Makes the streams and the process of a run: by a maker, without a fork, or by one.
    fn start(&mut self, index: usize, launch: &Launch, slot: &Slot) -> std::io::Result<Begun> {
        let sandboxed = launch.isolation == Isolation::Sandboxed;
        let keep = launch.limits.log_bytes;
        let (mut ends, mut stdio) = streams(launch.program.as_ref(), &launch.logs, keep)?;
        let mut apart = None;
        let side = if sandboxed {
            let maker = self.free_maker();
            let brought = Brought::of(self.driver.as_deref(), slot);
            let work = Work::First(slot.base, launch);
            match maker.filter(|n| self.order(*n, index, work, &brought, &stdio)) {
                Some(n) => {
                    self.ordered(n, index, &launch.id);
                    // Its number comes with its first news.
                    Fork::Parent(0)
                }
                None => {
                    let flags = u64::from(libc::CLONE_NEWPID.cast_unsigned());
                    process::fork(self.proof, flags, brought.into)?
                }
            }
        } else {
            let entry = &self.table[index];
            if let Some(started) = self.start_apart(entry, launch, slot, &stdio) {
                let (started, pid) = started?;
                apart = Some(started);
                Fork::Parent(pid)
            } else {
                let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
                (ends.beginning, stdio.begun) = (Some(ours), Some(theirs));
                process::fork(self.proof, 0, self.born_in(slot))?
            }
        };
        Ok(Begun {
            ends,
            stdio,
            side,
            apart,
        })
    }

    /// The group that a process can be born in.
    fn born_in<'a>(&'a self, slot: &'a Slot) -> Option<BorrowedFd<'a>> {
        let (driver, group) = self.driver.as_deref().zip(slot.group.as_ref())?;
        driver.clone_into(group)
    }

    /// The life of a forked child.
    fn child(&self, index: usize, launch: &Launch, slot: &Slot, stdio: Stdio) -> ! {
        let (ctx, place) = (self.context(index), Place::of(self.driver.as_deref(), slot));
        if launch.isolation == Isolation::Plain {
            child::plain(&ctx, &place.joins, launch, stdio)
        }
        let idle = self.programs.as_ref().map(|[idle, _]| idle.as_fd());
        child::init(&ctx, &place, launch, stdio, idle)
    }

    pub(super) fn context(&self, index: usize) -> Context<'_> {
        Context {
            proof: self.proof,
            template: &self.template,
            filter: &self.filter,
            landlock: self.landlock,
            wake: Wake::Event(self.wake.as_fd()),
            entry: &self.table[index],
            grouped: self.driver.is_some(),
            user: self.user,
        }
    }

    /// Enters a run whose first child was just made.
    pub(super) fn adopt(&mut self, index: usize, mut run: Run, pid: u32, timeout: Option<Millis>) {
        match run.kind {
            // A maker's process, whose number is not known yet.
            _ if pid == 0 => {}
            Kind::Task | Kind::Sandbox | Kind::Plain => {
                run.pid = pid;
                self.by_pid.insert(pid, index);
            }
            Kind::Exec(_) => {
                run.helper = Some(pid);
                self.helpers.insert(pid, index);
            }
        }
        if pid != 0 {
            self.busy.insert(pid);
        }
        if let Some(Millis(ms)) = timeout {
            self.alarm(run.id.clone(), Duration::from_millis(ms), Alarm::Timeout);
        }
        if let Some(pipe) = &run.beginning {
            let token = Token::Beginning(index);
            watch(self.epoll.as_fd(), pipe.as_fd(), token, EventFlags::IN);
        }
        if let Some(socket) = &run.terminal_socket {
            let on = EventFlags::IN;
            watch(
                self.epoll.as_fd(),
                socket.as_fd(),
                Token::Terminal(index),
                on,
            );
        }
        self.by_id.insert(run.id.clone(), index);
        self.starting.push(index);
        let watched = match run.kind {
            Kind::Task => index,
            Kind::Exec(sandbox) => sandbox,
            Kind::Sandbox | Kind::Plain => usize::MAX,
        };
        let turns = if run.kind == Kind::Plain {
            index
        } else {
            watched
        };
        self.runs[index] = Some(run);
        self.watch_disk(watched);
        self.watch_turns(turns);
    }

    /// Sets a timer.
    pub(super) fn alarm(&mut self, id: RunId, after: Duration, what: Alarm) {
        if let Some(at) = Instant::now().checked_add(after) {
            self.timers.push(Reverse((at, id, what)));
        }
    }

    /// Looks at what children have told.
    pub(super) fn hear_children(&mut self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        self.hear_news();
        self.note_made();
        self.end_unmade();
        let now = Instant::now();
        for index in self.starting.clone() {
            match self.table[index].state() {
                State::Running(pid) if self.is_looked_at(index, now) => self.begin(index, pid),
                State::Ended { .. } => self.begin(index, 0),
                State::Running(_) | State::Preparing | State::Failed(_) => {}
            }
        }
        self.give_lanes();
    }

    /// Gives the lanes of tasks whose program is over to those that are held.
    fn give_lanes(&mut self) {
        let over = |index: &usize| matches!(self.table[*index].state(), State::Ended { .. });
        let (over, live) = std::mem::take(&mut self.in_lanes)
            .into_iter()
            .partition(over);
        self.in_lanes = live;
        let over: Vec<usize> = over;
        for index in over {
            let Some(run) = self.run(index).filter(|run| !run.lane_given) else {
                continue;
            };
            run.lane_given = true;
            let id = run.id.clone();
            self.queue.over(&id);
            self.release();
        }
    }

    /// A run's program runs (or, without one, its sandbox is ready): its streams are read, and it is told.
    pub(super) fn begin(&mut self, index: usize, told: u32) {
        let over = matches!(self.table[index].state(), State::Ended { .. });
        let epoll = self.epoll.as_fd();
        if let Some(run) = self.runs.get_mut(index).and_then(Option::as_mut)
            && run.phase == Phase::Starting
            && !over
        {
            run.watched = true;
            for (n, stream) in run.streams.iter().enumerate() {
                if let Some(stream) = stream {
                    let token = Token::Stream(index, n);
                    watch(epoll, stream.fd(), token, EventFlags::IN);
                }
            }
        }
        self.announce(index, told);
    }

    /// Tells that a run has begun; it may be over already.
    pub(super) fn announce(&mut self, index: usize, told: u32) {
        self.starting.retain(|i| *i != index);
        // It may have been made and have told of it since numbers were looked at last.
        self.note_one_made(index);
        let live = self.by_id.len();
        let Some(run) = self.runs.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        if run.phase == Phase::Running {
            return;
        }
        run.phase = Phase::Running;
        run.look = None;
        if matches!(run.kind, Kind::Exec(_)) {
            run.pid = told;
            self.by_pid.insert(told, index);
            self.busy.insert(told);
        }
        if run.kind == Kind::Sandbox && run.ending.is_none() {
            self.busy.remove(&run.pid);
        }
        let many = match run.kind {
            Kind::Sandbox => PARK_SANDBOXES_ABOVE,
            _ => PARK_ABOVE,
        };
        if live > many
            && let Some(slot) = &mut run.slot
        {
            slot.park();
        }
        let (id, sandbox) = (run.id.clone(), run.kind == Kind::Sandbox);
        let unwanted = run.ending.is_some();
        self.events.push(RunEvent::Started {
            id: id.clone(),
            at: run.started,
            pid: run.pid,
        });
        self.journal.note(&Record::Run(run.observed()));
        if sandbox {
            self.exec_early(id);
        }
        if unwanted {
            self.kill(index);
        }
        if let Some(ended) = self.stray.remove(&told).filter(|_| told != 0) {
            self.on_exit(ended);
        }
    }

    /// The terminal of a run has come.
    pub(super) fn take_terminal(&mut self, index: usize) {
        let Some(run) = self.runs.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some(socket) = run.terminal_socket.take() else {
            return;
        };
        unwatch(self.epoll.as_fd(), socket.as_fd());
        let Ok(Some(master)) = prism_sys::stdio::receive_fd(socket.as_fd()) else {
            return;
        };
        let nonblocking = rustix::io::ioctl_fionbio(&master, true).is_ok();
        let copies = (master.try_clone(), master.try_clone());
        if let ((Ok(reader), Ok(writer)), true) = (copies, nonblocking) {
            let stream = Stream::new(reader, &run.logs, "stdout", run.log_bytes);
            let token = Token::Stream(index, 0);
            watch(self.epoll.as_fd(), stream.fd(), token, EventFlags::IN);
            run.streams[0] = Some(stream);
            run.watched = true;
            run.input = Some(Input::new(writer));
            run.terminal = Some(master);
        }
    }
}

fn kind_of(launch: &Launch) -> Kind {
    match (launch.isolation, &launch.program) {
        (Isolation::Plain, _) => Kind::Plain,
        (Isolation::Sandboxed, Some(_)) => Kind::Task,
        (Isolation::Sandboxed, None) => Kind::Sandbox,
    }
}

pub(super) fn fresh(id: RunId, kind: Kind, ends: Ends, logs: &Path, limits: &Limits) -> Run {
    Run {
        id,
        kind,
        phase: Phase::Starting,
        pid: 0,
        helper: None,
        beginning: ends.beginning,
        apart: None,
        silent: false,
        look: None,
        watched: false,
        lane_given: false,
        started: now(),
        since: Instant::now(),
        slot: None,
        streams: ends.streams,
        stream_bytes: [0; 2],
        input: ends.input,
        terminal_socket: ends.terminal_socket,
        terminal: None,
        logs: logs.to_owned(),
        log_bytes: limits.log_bytes,
        ending: None,
        limits: limits.clone(),
        inner: 0,
        inner_cpu_us: 0,
        inner_peak: 0,
        account: None,
        crowding: Crowding::default(),
        cut: [None, None],
        trouble: None,
        kills_before: 0,
        refused_before: 0,
    }
}

pub(super) fn streams(
    program: Option<&Program>,
    logs: &Path,
    keep: u64,
) -> std::io::Result<(Ends, Stdio)> {
    let (mut ends, mut stdio) = (Ends::default(), Stdio::default());
    let Some(program) = program else {
        return Ok((ends, stdio));
    };
    if program.tty.is_some() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        ends.terminal_socket = Some(ours.into());
        stdio.terminal = Some(theirs.into());
        return Ok((ends, stdio));
    }
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let ours = |fd: OwnedFd| rustix::io::ioctl_fionbio(&fd, true).map(|()| fd);
    let (out, theirs) = pipe()?;
    ends.streams[0] = Some(Stream::new(ours(out)?, logs, "stdout", keep));
    stdio.output = Some(theirs);
    let (err, theirs) = pipe()?;
    ends.streams[1] = Some(Stream::new(ours(err)?, logs, "stderr", keep));
    stdio.error = Some(theirs);
    if program.stdin {
        let (theirs, input) = pipe()?;
        ends.input = Some(Input::new(ours(input)?));
        stdio.input = Some(theirs);
    }
    Ok((ends, stdio))
}

fn check(launch: &Launch) -> Result<(), String> {
    if let Some(program) = &launch.program {
        check_program(program)?;
    } else if launch.isolation == Isolation::Plain {
        return Err("a plain run needs a program".into());
    }
    let host_ok = launch.hostname.len() <= 64 && !launch.hostname.contains('\0');
    if !host_ok {
        return Err("the host name is longer than 64 bytes".into());
    }
    if let Scratch::Disk { dir, .. } = &launch.scratch
        && launch.isolation == Isolation::Sandboxed
    {
        point!("sup.scratch.before_make")
            .and_then(|()| std::fs::create_dir_all(dir))
            .and_then(|()| point!("sup.scratch.after_make"))
            .map_err(|e| format!("make scratch directory {}: {e}", dir.display()))?;
    }
    Ok(())
}

pub(super) fn check_program(program: &Program) -> Result<(), String> {
    if program.argv.first().is_none_or(String::is_empty) {
        return Err("the program has no name".into());
    }
    if program
        .env
        .iter()
        .any(|(k, _)| k.is_empty() || k.contains('='))
    {
        return Err("a variable's name is empty or holds \"=\"".into());
    }
    Ok(())
}
