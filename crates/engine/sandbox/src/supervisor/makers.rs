//! The supervisor's makers ([`crate::maker`]): made at need, one kept, the others gone when there is nothing to do.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use prism_sys::first::Record;
use prism_sys::process::{self, Ended, Fork};
use prism_sys::table::State;
use prism_types::RunId;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, socketpair};

use super::run::{Kind, Phase, Run};
use super::state::{Alarm, MAX_RUNS, Supervisor};
use crate::child::{self, Stdio};
use crate::maker::{self, Brought, Tools, Work};

/// Most makers. Each has a record of the table, after those of the runs.
pub const MOST: usize = 32;

/// How long they stay without work, but for one.
const STAY: Duration = Duration::from_secs(2);

/// How soon a run that is to be killed is looked at again while it has no process yet.
const NO_PROCESS_YET: Duration = Duration::from_millis(5);

/// One of them.
#[derive(Debug)]
struct Maker {
    pid: u32,
    socket: OwnedFd,
    /// Its last order.
    order: Option<(usize, RunId)>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Makers {
    list: Vec<Option<Maker>>,
    used: Option<Instant>,
}

impl Makers {
    /// When those that have nothing to do go.
    pub fn due(&self) -> Option<Instant> {
        (self.list.iter().flatten().count() > 1).then_some(self.used? + STAY)
    }
}

impl Supervisor {
    /// Gives a maker its order; `false` if it could not be given.
    pub(super) fn order(
        &self,
        n: usize,
        index: usize,
        work: Work<'_>,
        brought: &Brought<'_>,
        stdio: &Stdio,
    ) -> bool {
        let Some(Some(maker)) = self.makers.list.get(n) else {
            return false;
        };
        let own = &self.table[MAX_RUNS + n];
        own.reset();
        match maker::order(maker.socket.as_fd(), index, work, brought, stdio) {
            Some(Ok(())) => true,
            None => {
                own.running(0);
                false
            }
            // It is dying; its end is told by a signal.
            Some(Err(_)) => false,
        }
    }

    /// Notes who has the order of a run.
    pub(super) fn ordered(&mut self, n: usize, index: usize, id: &RunId) {
        if let Some(Some(maker)) = self.makers.list.get_mut(n) {
            maker.order = Some((index, id.clone()));
        }
        self.makers.used = Some(Instant::now());
    }

    /// One that has nothing to do, made if need be. `None` if none is to be had: then what it would make is to be forked.
    pub(super) fn free_maker(&mut self) -> Option<usize> {
        self.programs.as_ref()?;
        let most = MOST.min(4 * super::launch::preparing_at_once());
        let free = |n: &usize| {
            let record = &self.table[MAX_RUNS + n];
            self.makers.list[*n].is_some() && matches!(record.state(), State::Running(_))
        };
        if let Some(n) = (0..self.makers.list.len()).find(free) {
            return Some(n);
        }
        let n = match self.makers.list.iter().position(Option::is_none) {
            Some(n) => n,
            None if self.makers.list.len() < most => {
                self.makers.list.push(None);
                self.makers.list.len() - 1
            }
            None => return None,
        };
        let made = self.make_maker(n).ok()?;
        self.makers.list[n] = Some(made);
        Some(n)
    }

    /// The numbers of all of them.
    pub(super) fn maker_pids(&self) -> impl Iterator<Item = u32> {
        self.makers.list.iter().flatten().map(|maker| maker.pid)
    }

    fn make_maker(&self, n: usize) -> std::io::Result<Maker> {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        let own = &self.table[MAX_RUNS + n];
        own.reset();
        match process::fork(self.proof, 0, None)? {
            Fork::Parent(pid) => Ok(Maker {
                pid,
                socket: ours,
                order: None,
            }),
            Fork::Child => {
                drop(ours);
                let Some([idle, waiting]) = &self.programs else {
                    process::exit(1)
                };
                let tools = Tools {
                    proof: self.proof,
                    own,
                    table: &self.table[..MAX_RUNS],
                    context: self.context(0),
                    wake: self.wake.as_fd(),
                    news: self.news[1].as_fd(),
                    programs: [idle.as_fd(), waiting.as_fd()],
                };
                maker::serve(&tools, &theirs)
            }
        }
    }

    /// Lets those go that have had nothing to do for a while, but for one.
    pub(super) fn retire_makers(&mut self, now: Instant) {
        if self.makers.due().is_some_and(|due| due <= now) && self.starting.is_empty() {
            // Without its socket each ends by itself.
            let all = self.makers.list.iter().enumerate();
            let live = all.filter_map(|(n, maker)| Some((n, maker.as_ref()?)));
            for (n, maker) in live.skip(1) {
                // No longer free, whatever it said last.
                self.table[MAX_RUNS + n].reset();
                let _gone_already = rustix::net::shutdown(&maker.socket, Shutdown::Both);
            }
            self.makers.used = None;
        }
    }

    /// A child has ended: says whether it was a maker. What it was ordered and had not begun is over.
    pub(super) fn maker_ended(&mut self, pid: u32) -> bool {
        let is_it = |maker: &Option<Maker>| maker.as_ref().is_some_and(|m| m.pid == pid);
        let Some(n) = self.makers.list.iter().position(is_it) else {
            return false;
        };
        let order = self.makers.list[n].take().and_then(|maker| maker.order);
        if let Some((index, id)) = order
            && self.run(index).is_some_and(|run| run.id == id)
            && self.has_no_process(index)
        {
            let why = "the process that prepares sandboxes was killed before it began";
            self.table[index].failed(why);
            self.hear_children();
        }
        true
    }

    fn has_no_process(&mut self, index: usize) -> bool {
        let made = self.table[index].made();
        made == 0 && self.run(index).is_some_and(|run| is_unmade(run))
    }

    /// Learns the numbers of processes that makers have made.
    pub(super) fn note_made(&mut self) {
        for at in 0..self.starting.len() {
            self.note_one_made(self.starting[at]);
        }
    }

    /// Learns the number of a run's process, if a maker has made it since.
    pub(super) fn note_one_made(&mut self, index: usize) {
        let pid = self.table[index].made();
        let Some(run) = self.run(index) else {
            return;
        };
        if pid == 0 || !is_unmade(run) {
            return;
        }
        if matches!(run.kind, Kind::Exec(_)) {
            run.helper = Some(pid);
            self.helpers.insert(pid, index);
        } else {
            run.pid = pid;
            self.by_pid.insert(pid, index);
        }
        self.busy.insert(pid);
    }

    /// Ends what could not be made.
    pub(super) fn end_unmade(&mut self) {
        for index in self.starting.clone() {
            if matches!(self.table[index].state(), State::Failed(_)) && self.has_no_process(index) {
                let nothing = Ended {
                    pid: 0,
                    status: 0,
                    cpu_us: 0,
                    peak: 0,
                };
                self.finish(index, nothing);
            }
        }
    }

    /// A run is to be killed that has no process: it is looked at again soon. Says whether it is such a one.
    pub(super) fn kill_when_made(&mut self, index: usize) -> bool {
        self.note_made();
        if !self.has_no_process(index) {
            return false;
        }
        let Some(id) = self.run(index).map(|run| run.id.clone()) else {
            return false;
        };
        self.alarm(id, NO_PROCESS_YET, Alarm::Kill);
        true
    }

    /// Takes in what waiting first processes tell of their programs.
    pub(super) fn hear_news(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let whole = buffer.len() / Record::SIZE * Record::SIZE;
        while let Ok(n) = rustix::io::read(&self.news[0], &mut buffer[..whole]) {
            buffer[..n]
                .chunks_exact(Record::SIZE)
                .filter_map(Record::read)
                .for_each(|record| self.hear(&record));
            if n < whole {
                break;
            }
        }
        self.buffer = buffer;
    }

    fn hear(&self, record: &Record) {
        let Some((index, in_memory)) = maker::read_tag(record.tag) else {
            return;
        };
        let (Some(entry), Some(status)) = (self.table[..MAX_RUNS].get(index), record.status) else {
            return;
        };
        if status != 0
            && in_memory
            && let Some(full) = child::full(record.room)
        {
            entry.note(full);
        }
        entry.ended(status, record.cpu_us, record.peak);
    }
}

/// Whether no process of it is known.
fn is_unmade(run: &Run) -> bool {
    match run.kind {
        Kind::Task | Kind::Sandbox => run.pid == 0,
        Kind::Exec(_) => run.helper.is_none() && run.phase == Phase::Starting,
        Kind::Plain => false,
    }
}
