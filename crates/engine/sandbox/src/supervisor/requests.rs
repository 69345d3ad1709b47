//! What daemons ask, and their comings and goings.

use std::os::fd::AsFd;

use prism_runtime::{Observed, RunEvent, RuntimeError, Usage};
use prism_sys::{process, stdio};
use prism_types::{Millis, RunId, StopCause};
use rustix::event::epoll::{self, EventFlags};

use super::journal::Record;
use super::output::Flow;
use super::peers::Peer;
use super::run::{Kind, Phase, Run};
use super::state::{Supervisor, Token, now, unwatch, watch};
use crate::procfs;
use crate::wire::{Answer, Question, Reply, Request};

/// Daemons that may be connected; one is usual.
const MAX_PEERS: usize = 16;

impl Supervisor {
    /// Lets daemons in.
    pub(super) fn accept(&mut self) {
        while let Ok((socket, _)) = self.home.listener.accept() {
            let free = self.peers.iter().position(Option::is_none);
            let n = free.unwrap_or(self.peers.len());
            if n >= MAX_PEERS {
                continue;
            }
            if n == self.peers.len() {
                self.peers.push(None);
            }
            if let Ok(peer) = Peer::new(socket) {
                watch(
                    self.epoll.as_fd(),
                    peer.fd(),
                    Token::Peer(n),
                    EventFlags::IN,
                );
                self.peers[n] = Some(peer);
            }
        }
    }

    pub(super) fn drop_peer(&mut self, n: usize) {
        if let Some(peer) = self.peers[n].take() {
            unwatch(self.epoll.as_fd(), peer.fd());
        }
    }

    pub(super) fn flush_peer(&mut self, n: usize) {
        let Some(peer) = &mut self.peers[n] else {
            return;
        };
        match peer.flush() {
            Ok(waits) => {
                let mut on = EventFlags::IN;
                if waits {
                    on |= EventFlags::OUT;
                }
                if waits != peer.waits {
                    peer.waits = waits;
                    let data = epoll::EventData::new_u64(Token::Peer(n).pack());
                    let _ = epoll::modify(self.epoll.as_fd(), peer.fd(), data, on);
                }
            }
            Err(_) => self.drop_peer(n),
        }
    }

    /// Serves what a daemon has sent.
    pub(super) fn serve_peer(&mut self, n: usize) {
        let Some(peer) = self.peers.get_mut(n).and_then(Option::as_mut) else {
            return;
        };
        let new = !peer.is_greeted();
        let Ok(requests) = peer.receive(&mut self.buffer) else {
            // Its greeting goes out first, so that a daemon of another version learns why.
            let _ = peer.flush();
            self.drop_peer(n);
            return;
        };
        if new && self.peers[n].as_ref().is_some_and(Peer::is_greeted) {
            self.welcome(n);
        }
        for request in requests {
            self.serve(n, request);
        }
    }

    /// Tells a daemon that has just come what it may have missed.
    fn welcome(&mut self, n: usize) {
        let hello = Reply::Hello {
            life: self.life,
            lost: self.lost,
        };
        let live = self.runs.iter().flatten();
        let started = live
            .filter(|run| run.phase == Phase::Running)
            .map(|run| RunEvent::Started {
                id: run.id.clone(),
                at: run.started,
                pid: run.pid,
            });
        let exited = self.ended.values().filter_map(|run| {
            Some(RunEvent::Exited {
                id: run.id.clone(),
                report: run.exited.clone()?,
            })
        });
        // Events of this round are part of it already, and must not come to this daemon twice.
        let all = Reply::Events(started.chain(exited).collect());
        let news = Reply::Events(std::mem::take(&mut self.events));
        let room = self.to_keep_to();
        for (i, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            if i == n {
                let sent = peer.send(&hello).and_then(|()| peer.send(&all));
                let _ = sent.and_then(|()| room.iter().try_for_each(|room| peer.send(room)));
            } else if peer.is_greeted() {
                let _ = peer.send(&news);
            }
        }
    }

    fn serve(&mut self, n: usize, request: Request) {
        match request {
            Request::Launch(batch) => self.accept_launches(batch),
            Request::Exec(exec) => self.accept_exec(exec),
            Request::Stop(ids, grace) => self.stop(&ids, grace),
            Request::Forget(ids) => self.forget(ids),
            Request::Renew(ids, until) => self.renew(&ids, until),
            Request::Shutdown => self.shut_down(),
            Request::Ask(number, question) => {
                let answer = Reply::Answer(number, self.answer(question));
                let sent = self.peers[n].as_mut().map(|peer| peer.send(&answer));
                if sent.is_some_and(|s| s.is_err()) {
                    self.drop_peer(n);
                }
            }
        }
    }

    fn forget(&mut self, ids: Vec<RunId>) {
        for id in &ids {
            self.ended.remove(id);
        }
        self.journal.note(&Record::Forgotten(ids));
    }

    fn shut_down(&mut self) {
        self.stopping = true;
        let mut ids: Vec<RunId> = self.queue.iter().map(|l| l.id.clone()).collect();
        ids.extend(self.by_id.keys().cloned());
        self.stop(&ids, Millis(0));
    }

    fn answer(&mut self, question: Question) -> Result<Answer, RuntimeError> {
        match question {
            Question::Input(id, bytes, eof) => self.feed(&id, &bytes, eof),
            Question::Signal(id, signal) => self.signal(&id, signal),
            Question::Resize(id, rows, columns) => {
                let run = self.live(&id)?;
                let terminal = run
                    .terminal
                    .as_ref()
                    .ok_or_else(|| RuntimeError::Invalid(format!("run {id} has no terminal")))?;
                stdio::resize(terminal.as_fd(), rows, columns)
                    .map_err(|e| RuntimeError::Invalid(format!("resize the terminal: {e}")))?;
                Ok(Answer::Done)
            }
            Question::Observe => Ok(Answer::Runs(self.observe())),
            Question::Usage(id) => self.usage(&id).map(Answer::Usage),
            Question::FirstProcess(id) => {
                let run = self.live(&id)?;
                match run.kind {
                    Kind::Exec(parent) => {
                        let sandbox = self.runs[parent].as_ref();
                        Ok(Answer::Process(sandbox.map_or(0, |s| s.pid)))
                    }
                    _ => Ok(Answer::Process(run.pid)),
                }
            }
            Question::Capabilities => {
                let groups = match &self.driver {
                    Some(driver) => driver.capabilities(),
                    None => vec![crate::probe::no_cgroups(&self.no_cgroups)],
                };
                Ok(Answer::Capabilities(crate::probe::all(self.proof, groups)))
            }
        }
    }

    fn live(&mut self, id: &RunId) -> Result<&mut Run, RuntimeError> {
        let index = self.by_id.get(id).copied();
        index
            .and_then(|i| self.run(i))
            .filter(|run| run.phase == Phase::Running)
            .ok_or_else(|| RuntimeError::NotFound(format!("run {id} is not running")))
    }

    fn feed(&mut self, id: &RunId, bytes: &[u8], eof: bool) -> Result<Answer, RuntimeError> {
        let index = self.by_id.get(id).copied();
        let (index, run) = index
            .and_then(|i| Some((i, self.run(i)?)))
            .ok_or_else(|| RuntimeError::NotFound(format!("run {id} is not running")))?;
        let input = run
            .input
            .as_mut()
            .ok_or_else(|| RuntimeError::Invalid(format!("run {id} has no open standard input")))?;
        input.add(bytes, eof).map_err(RuntimeError::Invalid)?;
        self.push_input(index);
        Ok(Answer::Done)
    }

    /// Writes waiting input.
    pub(super) fn push_input(&mut self, index: usize) {
        let Some(run) = self.runs.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some(input) = &mut run.input else {
            return;
        };
        match input.push() {
            Flow::More => {
                let token = Token::Input(index);
                watch(self.epoll.as_fd(), input.fd(), token, EventFlags::OUT);
            }
            Flow::Dry => unwatch(self.epoll.as_fd(), input.fd()),
            Flow::Over => {
                unwatch(self.epoll.as_fd(), input.fd());
                run.input = None;
            }
        }
    }

    fn signal(&mut self, id: &RunId, signal: i32) -> Result<Answer, RuntimeError> {
        if !(1..=64).contains(&signal) {
            return Err(RuntimeError::Invalid(format!("{signal} is no signal")));
        }
        let missing = || RuntimeError::NotFound(format!("run {id} is not running"));
        let index = *self.by_id.get(id).ok_or_else(missing)?;
        let run = self.run(index).ok_or_else(missing)?;
        if run.kind == Kind::Sandbox && signal == libc::SIGKILL {
            run.ending.get_or_insert(StopCause::Requested);
            self.kill(index);
            return Ok(Answer::Done);
        }
        let pid = self.program_of(index).ok_or_else(missing)?;
        process::kill(pid, signal)
            .map_err(|e| RuntimeError::NotFound(format!("signal run {id}: {e}")))?;
        Ok(Answer::Done)
    }

    fn observe(&self) -> Vec<Observed> {
        let queued = self.queue.iter().map(|launch| Observed {
            id: launch.id.clone(),
            started: now(),
            pid: 0,
            logs: launch.logs.clone(),
            exited: None,
        });
        let live = self.runs.iter().flatten().map(Run::observed);
        live.chain(queued)
            .chain(self.ended.values().cloned())
            .collect()
    }

    fn usage(&mut self, id: &RunId) -> Result<Usage, RuntimeError> {
        let index = self.by_id.get(id).copied().unwrap_or(usize::MAX);
        let run = self.live(id)?;
        let (kind, pid, before) = (run.kind, run.pid, run.inner_cpu_us);
        let group = run
            .slot
            .as_ref()
            .and_then(|slot| Some(slot.group.as_ref()?.name.clone()));
        let mut pids = procfs::descendants(pid);
        if kind != Kind::Sandbox && kind != Kind::Task {
            pids.push(pid);
        }
        for program in self.inner(index).collect::<Vec<_>>() {
            let first = self.run(program).map_or(0, |run| run.pid);
            if first != 0 {
                pids.push(first);
                pids.extend(procfs::descendants(first));
            }
        }
        let each = pids.iter().map(|pid| procfs::usage(*pid));
        let sum = each.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        let mut usage = Usage {
            cpu_us: before + sum.0,
            memory: sum.1,
            pids: u32::try_from(pids.len()).unwrap_or(u32::MAX),
        };
        if let (Some(driver), Some(name)) = (&self.driver, group) {
            let counted = driver.usage(&name);
            usage.memory = counted.memory;
            let mut all = driver.processes(&name);
            if kind != Kind::Plain {
                // Our own first process is none of the run's.
                all.retain(|p| p.unsigned_abs() != pid);
            }
            usage.pids = u32::try_from(all.len()).unwrap_or(u32::MAX);
            let cpu = all.iter().map(|p| procfs::usage(p.unsigned_abs()).0);
            usage.cpu_us = before + cpu.sum::<u64>();
        }
        Ok(usage)
    }
}
