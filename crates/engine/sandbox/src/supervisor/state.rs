//! What the supervisor holds, and the small steps that every part of it needs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prism_faults::point;
use prism_runtime::{Exec, Observed, RunEvent};
use prism_sys::filter::Instruction;
use prism_sys::first;
use prism_sys::process::{self, Ended, SingleThread};
use prism_sys::table::{self, Entry};
use prism_sys::unforked::Unforked;
use prism_types::{RunId, RunReport, StopCause, TimeMs};
use rustix::event::epoll;

use super::bootstrap::{self, Arguments, Home};
use super::disk::Accounts;
use super::floods::Floods;
use super::journal::{Journal, Record};
use super::leases::Leases;
use super::makers::{self, Makers};
use super::neighbours::Neighbours;
use super::peers::Peer;
use super::run::Run;
use super::waiting::Waiting;
use crate::cgroup::{self, Driver};
use crate::slots::Slots;
use crate::template::Template;
use crate::wire::Reply;

/// Most runs that are live at once.
pub const MAX_RUNS: usize = 32_768;

/// How long news of tasks are held back while more tasks wait here.
const HOLD: Duration = Duration::from_millis(4);

/// How soon a journal that could not be written is tried again.
const JOURNAL_AGAIN: Duration = Duration::from_millis(200);

/// Most news that are held back.
const HOLD_EVENTS: usize = 256;

/// What an epoll event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// A daemon connects.
    Listener,
    /// A child ended.
    Signals,
    /// A child has told something.
    Wake,
    /// A daemon says something.
    Peer(usize),
    /// A run's stream brings something.
    Stream(usize, usize),
    /// A run takes input.
    Input(usize),
    /// A run's terminal comes.
    Terminal(usize),
    /// A plain run's program begins.
    Beginning(usize),
    /// First processes tell of their programs.
    News,
    /// A lease ends.
    Lease,
}

impl Token {
    /// As the kernel keeps it.
    pub fn pack(self) -> u64 {
        let (kind, n, m) = match self {
            Self::Listener => (0, 0, 0),
            Self::Signals => (1, 0, 0),
            Self::Wake => (2, 0, 0),
            Self::Peer(n) => (3, n, 0),
            Self::Stream(n, m) => (4, n, m),
            Self::Input(n) => (5, n, 0),
            Self::Terminal(n) => (6, n, 0),
            Self::Beginning(n) => (7, n, 0),
            Self::News => (8, 0, 0),
            Self::Lease => (9, 0, 0),
        };
        kind | (m as u64) << 8 | (n as u64) << 16
    }

    /// As it was.
    pub fn unpack(packed: u64) -> Self {
        let n = usize::try_from(packed >> 16).expect("an index fits");
        let m = usize::try_from(packed >> 8 & 0xff).expect("eight bits fit");
        match packed & 0xff {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Wake,
            3 => Self::Peer(n),
            4 => Self::Stream(n, m),
            5 => Self::Input(n),
            6 => Self::Terminal(n),
            7 => Self::Beginning(n),
            9 => Self::Lease,
            _ => Self::News,
        }
    }
}

/// What a timer does when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// The run's time is up.
    Timeout,
    /// Its grace is over.
    Kill,
}

/// Everything.
pub struct Supervisor {
    pub(super) proof: SingleThread,
    pub(super) home: Home,
    pub(super) idle: Duration,
    pub(super) epoll: OwnedFd,
    pub(super) signals: OwnedFd,
    pub(super) wake: OwnedFd,
    pub(super) table: &'static [Entry],
    pub(super) runs: Unforked<Option<Run>>,
    pub(super) free: Vec<usize>,
    pub(super) by_id: HashMap<RunId, usize>,
    pub(super) by_pid: HashMap<u32, usize>,
    /// Children that may end soon: all but the first processes of sandboxes that just live.
    pub(super) busy: HashSet<u32>,
    /// When all children are looked at again.
    pub(super) reap_all_at: Option<Instant>,
    /// Helpers that are starting a program.
    pub(super) helpers: HashMap<u32, usize>,
    /// Children that ended before their helper told of them.
    pub(super) stray: HashMap<u32, Ended>,
    pub(super) queue: Waiting,
    pub(super) starting: Vec<usize>,
    /// Tasks in sandboxes that take a lane of their job, or are held until they may.
    pub(super) in_lanes: Vec<usize>,
    /// Programs for sandboxes that do not run yet.
    pub(super) early: Vec<Exec>,
    pub(super) ended: BTreeMap<RunId, Observed>,
    pub(super) journal: Journal,
    pub(super) timers: BinaryHeap<Reverse<(Instant, RunId, Alarm)>>,
    pub(super) events: Vec<RunEvent>,
    pub(super) peers: Vec<Option<Peer>>,
    pub(super) slots: Slots,
    pub(super) driver: Option<Box<dyn Driver>>,
    pub(super) no_cgroups: String,
    pub(super) template: Template,
    pub(super) filter: Vec<Instruction>,
    pub(super) landlock: u32,
    /// What the first process of a sandbox without a program becomes, and that of one with a program.
    pub(super) programs: Option<[OwnedFd; 2]>,
    pub(super) makers: Makers,
    /// The pipe in which the second tells of its program.
    pub(super) news: [OwnedFd; 2],
    pub(super) user: Option<(u32, u32)>,
    pub(super) life: u64,
    pub(super) lost: bool,
    pub(super) stopping: bool,
    pub(super) unneeded_since: Option<Instant>,
    /// When the oldest event that is held back came.
    pub(super) held_since: Option<Instant>,
    /// When the journal, which could not be written, is tried again.
    pub(super) journal_again: Option<Instant>,
    pub(super) buffer: Vec<u8>,
    pub(super) accounts: Accounts,
    pub(super) neighbours: Neighbours,
    pub(super) floods: Floods,
    pub(super) leases: Leases,
    /// `/dev/null`, for streams that go nowhere.
    pub(super) null: std::fs::File,
}

/// At a number that no program has a stream at.
fn open_null() -> std::io::Result<std::fs::File> {
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    prism_sys::stdio::copy_above(null.as_fd(), 3).map(Into::into)
}

/// The programs of first processes, where programs in memory are possible.
fn first_programs() -> Option<[OwnedFd; 2]> {
    let make = |kind| first::program(kind).ok();
    Some([make(first::Kind::Idle)?, make(first::Kind::Waiting)?])
}

/// A pipe whose reader does not wait, and whose writers do.
fn news() -> std::io::Result<[OwnedFd; 2]> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    Ok([reader, writer])
}

/// The time of day.
pub fn now() -> TimeMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    TimeMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Supervisor {
    /// Prepares everything, and clears away what an earlier one left.
    ///
    /// # Errors
    /// What failed.
    pub fn new(proof: SingleThread, home: Home, args: &Arguments) -> Result<Self, String> {
        let err = |what: &str, e: std::io::Error| format!("{what}: {e}");
        let (name, seed) = bootstrap::instance(&home.dir);
        let (driver, no_cgroups) = match cgroup::detect(&name) {
            Ok(driver) => (Some(driver), String::new()),
            Err(why) => (None, why),
        };
        if let Some(driver) = &driver {
            cgroup::clear_away(driver.as_ref());
        }
        let (journal, found) =
            Journal::open(&home.dir.join("journal")).map_err(|e| err("open the journal", e))?;
        let template = Template::make(proof, &home.dir.join("t"), args.user.is_some())?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|e| err("make an epoll", e.into()))?;
        let wake = rustix::event::eventfd(
            0,
            rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK,
        )
        .map_err(|e| err("make an eventfd", e.into()))?;
        let mut this = Self {
            proof,
            idle: args.idle,
            epoll,
            signals: process::child_signals().map_err(|e| err("watch children", e))?,
            wake,
            table: table::map(MAX_RUNS + makers::MOST).map_err(|e| err("map the table", e))?,
            runs: Unforked::new(MAX_RUNS).map_err(|e| err("set memory aside", e))?,
            free: Vec::new(),
            by_id: HashMap::new(),
            by_pid: HashMap::new(),
            busy: HashSet::new(),
            reap_all_at: None,
            helpers: HashMap::new(),
            stray: HashMap::new(),
            queue: Waiting::new(std::thread::available_parallelism().map_or(2, usize::from)),
            starting: Vec::new(),
            in_lanes: Vec::new(),
            early: Vec::new(),
            ended: BTreeMap::new(),
            journal,
            timers: BinaryHeap::new(),
            events: Vec::new(),
            peers: Vec::new(),
            slots: Slots::new(proof, args.user.is_none(), seed),
            driver,
            no_cgroups,
            template,
            filter: crate::seccomp::program(),
            landlock: prism_sys::landlock::abi(),
            programs: first_programs(),
            makers: Makers::default(),
            news: news().map_err(|e| err("make a pipe", e))?,
            user: args.user,
            life: now().0,
            lost: false,
            stopping: false,
            unneeded_since: Some(Instant::now()),
            held_since: None,
            journal_again: None,
            buffer: vec![0; 64 << 10],
            accounts: Accounts::new()?,
            neighbours: Neighbours::new(),
            floods: Floods::default(),
            leases: Leases::new().map_err(|e| err("make a timer", e))?,
            null: open_null().map_err(|e| err("open /dev/null", e))?,
            home,
        };
        this.inherit(found);
        this.watch_own();
        Ok(this)
    }

    fn watch_own(&self) {
        let own = [
            (self.home.listener.as_fd(), Token::Listener),
            (self.signals.as_fd(), Token::Signals),
            (self.wake.as_fd(), Token::Wake),
            (self.news[0].as_fd(), Token::News),
            (self.leases.timer(), Token::Lease),
        ];
        for (fd, token) in own {
            watch(self.epoll.as_fd(), fd, token, epoll::EventFlags::IN);
        }
    }

    /// Takes over what an earlier supervisor remembered; what it ran is lost with it.
    fn inherit(&mut self, found: BTreeMap<RunId, Observed>) {
        for (id, mut run) in found {
            if run.exited.is_none() {
                self.lost = true;
                run.pid = 0;
                run.exited = Some(RunReport {
                    cause: StopCause::Lost,
                    wall: now().since(run.started),
                    ..RunReport::not_started(run.started, "its supervisor died while it ran")
                });
                self.journal.note(&Record::Run(run.clone()));
            }
            self.ended.insert(id, run);
        }
    }

    /// The run at an index, if one lives there.
    pub(super) fn run(&mut self, index: usize) -> Option<&mut Run> {
        self.runs.get_mut(index).and_then(Option::as_mut)
    }

    /// Whether an id was launched and is not forgotten.
    pub(super) fn knows(&self, id: &RunId) -> bool {
        self.by_id.contains_key(id) || self.queue.contains(id) || self.ended.contains_key(id)
    }

    /// Finds room for a run.
    pub(super) fn place(&mut self) -> Option<usize> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.runs.len() < MAX_RUNS => {
                self.runs.push(None);
                self.runs.len() - 1
            }
            None => return None,
        };
        self.table[index].reset();
        if self.is_narrow() {
            self.table[index].born_narrow();
        }
        Some(index)
    }

    /// A run that is over before it was one.
    pub(super) fn refuse(&mut self, id: RunId, logs: std::path::PathBuf, report: RunReport) {
        let run = Observed {
            id,
            started: report.started,
            pid: 0,
            logs,
            exited: Some(report),
        };
        self.remember(run);
    }

    /// Notes and tells an end.
    pub(super) fn remember(&mut self, run: Observed) {
        self.leases.over(&run.id);
        if let Some(report) = &run.exited {
            self.events.push(RunEvent::Exited {
                id: run.id.clone(),
                report: report.clone(),
            });
        }
        self.journal.note(&Record::Run(run.clone()));
        self.ended.insert(run.id.clone(), run);
    }

    /// When the next timer fires.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, ..))| *at)
    }

    /// Whether no run is on its way up.
    pub(super) fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.starting.is_empty() && self.peers.iter().any(Option::is_some)
    }

    /// Whether news of tasks can wait a little, because more of the same comes without the daemon: until then they are neither
    /// written nor told.
    fn may_hold(&mut self) -> bool {
        let only_tasks = self.events.len() < HOLD_EVENTS
            && self.events.iter().all(|event| match event {
                RunEvent::Started { id, .. } | RunEvent::Exited { id, .. } => {
                    id.as_task().is_some()
                }
                RunEvent::Restarted => false,
            });
        if !only_tasks || self.queue.is_empty() || self.stopping {
            self.held_since = None;
            return false;
        }
        let since = *self.held_since.get_or_insert_with(Instant::now);
        if since.elapsed() < HOLD {
            return true;
        }
        self.held_since = None;
        false
    }

    /// When news that are held back must go out.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held_since.map(|since| since + HOLD)
    }

    /// Writes the journal. When the disk does not take it, everything goes on and it is tried again: only whoever comes after
    /// this supervisor would know less.
    fn write_journal(&mut self) {
        let mut written = self.journal.flush();
        if written.is_ok() && self.journal.is_stale() {
            let live: Vec<Observed> = self.runs.iter().flatten().map(Run::observed).collect();
            written = self.journal.rewrite(self.ended.values().chain(&live));
        }
        match written {
            Ok(()) => {
                if self.journal_again.take().is_some() {
                    super::say("the journal is written again");
                }
            }
            Err(e) => {
                let again = Instant::now() + JOURNAL_AGAIN;
                if self.journal_again.replace(again).is_none() {
                    super::say(&format!(
                        "cannot write the journal: {e}; what runs goes on, and it is tried again"
                    ));
                }
            }
        }
    }

    /// Writes what happened: the journal first, then the daemons.
    pub(super) fn tell(&mut self) {
        if !self.events.is_empty() && self.may_hold() {
            (0..self.peers.len()).for_each(|n| self.flush_peer(n));
            return;
        }
        self.write_journal();
        if !self.events.is_empty() {
            let events = Reply::Events(std::mem::take(&mut self.events));
            for n in 0..self.peers.len() {
                let sent = match &mut self.peers[n] {
                    Some(peer) if peer.is_greeted() => peer.send(&events),
                    _ => Ok(()),
                };
                if sent.is_err() {
                    self.drop_peer(n);
                }
            }
        }
        (0..self.peers.len()).for_each(|n| self.flush_peer(n));
        let needed = self.peers.iter().any(Option::is_some)
            || !self.by_id.is_empty()
            || !self.queue.is_empty();
        if needed {
            self.unneeded_since = None;
        } else if self.unneeded_since.is_none() {
            self.unneeded_since = Some(Instant::now());
        }
    }

    /// Whether it is time to go.
    pub(super) fn is_done(&self) -> bool {
        let bored = self
            .unneeded_since
            .is_some_and(|since| since.elapsed() >= self.idle);
        bored || self.stopping && self.by_id.is_empty()
    }

    /// Leaves nothing behind.
    pub(super) fn leave(&mut self) {
        let driver = self.driver.as_deref();
        for _ in 0..200 {
            if !self.slots.drain(driver) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.slots.clear(driver);
        if let Some(driver) = driver {
            driver.remove_parent();
        }
        // Whoever finds a socket that nobody listens on starts a new supervisor, which replaces it.
        let _ = point!("sup.leave.before_remove")
            .and_then(|()| std::fs::remove_file(self.home.dir.join("supervisor.sock")));
    }
}

/// Adds a descriptor to an epoll. A failure would be of memory; then its run ends without its output.
pub fn watch(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>, token: Token, on: epoll::EventFlags) {
    let data = epoll::EventData::new_u64(token.pack());
    if epoll::add(epoll, fd, data, on).is_err() {
        let _ = epoll::modify(epoll, fd, data, on);
    }
}

/// Takes a descriptor out of an epoll. Needed before closing it: a child on its way up holds a copy for a moment.
pub fn unwatch(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>) {
    let _ = epoll::delete(epoll, fd);
}

#[cfg(test)]
mod tests {
    use super::Token;

    #[test]
    fn tokens_come_back() {
        for token in [
            Token::Listener,
            Token::Signals,
            Token::Wake,
            Token::Peer(7),
            Token::Stream(70_000, 1),
            Token::Input(3),
            Token::Terminal(9),
            Token::Beginning(10),
            Token::News,
            Token::Lease,
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}
