//! Ending runs: exits, time limits, requests to stop; and the report of each.

use std::cmp::Reverse;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use prism_sys::process::{self, Ended};
use prism_sys::table::State;
use prism_types::{ExitStatus, Millis, RunId, RunReport, StopCause};

use super::limits;
use super::output::{Flow, Stream};
use super::run::{Kind, Phase, Run};
use super::state::{Alarm, Supervisor, now, unwatch};
use crate::cgroup::{Driver, Group, Outcome};
use crate::procfs;

impl Supervisor {
    /// A child has ended: a run's first process, a helper, or a program whose helper has not told of it yet.
    pub(super) fn on_exit(&mut self, ended: Ended) {
        if !self.by_pid.contains_key(&ended.pid) {
            self.note_made();
        }
        if self.accounts.is_counter(ended.pid) {
            self.disks_are_counted(ended.cpu_us);
        } else if let Some(index) = self.by_pid.remove(&ended.pid) {
            let apart = self.run(index).and_then(|run| run.apart.take());
            if let Some(why) = apart.and_then(|apart| apart.failure()) {
                self.table[index].failed(&why);
            }
            // What it told before it ended comes first. A task's end may be on its way; that of others is their process's.
            let told = matches!(self.table[index].state(), State::Ended { .. });
            if !told && self.run(index).is_some_and(|run| run.kind == Kind::Task) {
                self.hear_news();
            }
            let ran = match self.table[index].state() {
                State::Ended { .. } | State::Running(_) => true,
                // A plain child tells only of failure; what was killed on its way never ran.
                State::Preparing => self
                    .run(index)
                    .is_some_and(|run| run.kind == Kind::Plain && run.ending.is_none()),
                State::Failed(_) => false,
            };
            if ran {
                self.announce(index, ended.pid);
            }
            self.finish(index, ended);
        } else if let Some(index) = self.helpers.remove(&ended.pid) {
            self.on_helper_exit(index, ended);
        } else if self.maker_ended(ended.pid) || self.mover_ended(ended.pid) {
            // That is all.
        } else {
            self.stray.insert(ended.pid, ended);
        }
    }

    fn on_helper_exit(&mut self, index: usize, ended: Ended) {
        if let Some(run) = self.run(index) {
            run.helper = None;
        }
        match self.table[index].state() {
            State::Running(pid) => self.begin(index, pid),
            _ => self.finish(index, ended),
        }
    }

    /// Writes a run's report, tells it, and gives back what it held.
    pub(super) fn finish(&mut self, index: usize, ended: Ended) {
        self.starting.retain(|i| *i != index);
        let Some(mut run) = self.runs[index].take() else {
            return;
        };
        if let Some(helper) = run.helper.take() {
            // Its own end is no news any more, and the index may be another run's by then.
            self.helpers.remove(&helper);
        }
        if run.kind == Kind::Plain {
            self.kill_rest(&run);
        }
        // Nothing of it runs any more: the next begins while this one's affairs are put in order.
        self.by_id.remove(&run.id);
        self.in_lanes.retain(|i| *i != index);
        if !run.lane_given {
            self.queue.over(&run.id);
            self.release();
        }
        self.close_streams(&mut run);
        let report = self.report(index, &mut run, ended);
        self.free.push(index);
        self.give_place_back(&mut run);
        if let Some(slot) = run.slot.take() {
            if run.kind == Kind::Plain {
                self.slots.give_back_dying(slot);
            } else {
                self.slots.give_back(slot, self.driver.as_deref());
            }
        }
        if let Kind::Exec(parent) = run.kind {
            self.on_inner_end(parent, &report);
        }
        let mut observed = run.observed();
        observed.pid = 0;
        observed.exited = Some(report);
        let (id, sandbox) = (run.id, run.kind == Kind::Sandbox);
        self.remember(observed);
        if sandbox {
            self.exec_early(id);
        }
    }

    /// A program in a sandbox is over: its use is the sandbox's, and a sandbox that is to end may be waiting for it.
    fn on_inner_end(&mut self, parent: usize, report: &RunReport) {
        let Some(sandbox) = self.run(parent) else {
            return;
        };
        sandbox.inner = sandbox.inner.saturating_sub(1);
        let others = sandbox.inner > 0;
        sandbox.inner_cpu_us += report.cpu_us;
        sandbox.inner_peak = sandbox.inner_peak.max(report.memory_peak);
        if sandbox.ending.is_some() && sandbox.kind == Kind::Sandbox && !others {
            self.kill(parent);
        }
    }

    /// The programs in a sandbox.
    pub(super) fn inner(&self, parent: usize) -> impl Iterator<Item = usize> {
        let is_inner =
            move |run: &Option<Run>| run.as_ref().is_some_and(|r| r.kind == Kind::Exec(parent));
        self.runs
            .iter()
            .enumerate()
            .filter(move |(_, run)| is_inner(run))
            .map(|(i, _)| i)
    }

    fn close_streams(&mut self, run: &mut Run) {
        for (n, stream) in run.streams.iter_mut().enumerate() {
            if let Some(stream) = stream {
                if run.watched {
                    unwatch(self.epoll.as_fd(), stream.fd());
                }
                stream.drain(&mut self.buffer);
                run.stream_bytes[n] = stream.bytes();
                note_trouble(&mut run.trouble, stream);
                run.cut[n] = limits::cut(stream);
            }
            *stream = None;
        }
        if let Some(input) = run.input.take() {
            unwatch(self.epoll.as_fd(), input.fd());
        }
        if let Some(pipe) = run.beginning.take() {
            unwatch(self.epoll.as_fd(), pipe.as_fd());
        }
        if let Some(socket) = run.terminal_socket.take() {
            unwatch(self.epoll.as_fd(), socket.as_fd());
        }
        run.terminal = None;
    }

    fn report(&self, index: usize, run: &mut Run, ended: Ended) -> RunReport {
        let told = self.table[index].state();
        let outcome = self.outcome(run);
        let mut report = RunReport {
            exit: exit_status(ended.status),
            cause: run.ending.unwrap_or(StopCause::None),
            started: run.started,
            wall: Millis(u64::try_from(run.since.elapsed().as_millis()).unwrap_or(u64::MAX)),
            cpu_us: ended.cpu_us + run.inner_cpu_us,
            memory_peak: outcome
                .peak
                .unwrap_or_else(|| ended.peak.max(run.inner_peak)),
            stdout_bytes: run.stream_bytes[0],
            stderr_bytes: run.stream_bytes[1],
            detail: run.trouble.take().unwrap_or_default(),
        };
        if run.kind == Kind::Sandbox {
            // Its first process was killed, as that is how sandboxes end.
            report.exit = exit_status(ended.status);
        }
        match told {
            State::Ended {
                status,
                cpu_us,
                peak,
            } => {
                report.exit = exit_status(status);
                report.cpu_us = cpu_us + run.inner_cpu_us;
                report.memory_peak = outcome.peak.unwrap_or(peak);
            }
            State::Failed(why) => {
                report.exit = ExitStatus::Unknown;
                report.cause = StopCause::StartFailed;
                report.detail = why;
                return report;
            }
            State::Preparing | State::Running(_) => {}
        }
        let unhappy = report.exit != ExitStatus::Code(0);
        if report.cause == StopCause::None && outcome.out_of_memory && unhappy {
            report.cause = StopCause::OutOfMemory;
        }
        if report.cause == StopCause::None && run.phase == Phase::Starting {
            report.cause = StopCause::StartFailed;
            report.detail = "it was killed while it was prepared".into();
        }
        if report.cause == StopCause::None
            && run.account.is_some()
            && report.exit == ExitStatus::Signal(libc::SIGXFSZ)
        {
            report.cause = StopCause::DiskExceeded;
        }
        limits::name_them(&mut report, run, outcome, &self.table[index].text());
        report
    }

    fn outcome(&self, run: &Run) -> Outcome {
        let Some(driver) = self.driver.as_deref() else {
            return Outcome::default();
        };
        if let Kind::Exec(parent) = run.kind {
            let group = self.runs[parent]
                .as_ref()
                .and_then(|sandbox| sandbox.slot.as_ref()?.group.as_ref());
            return Outcome {
                peak: None,
                out_of_memory: group.is_some_and(|g| driver.kills(g) > run.kills_before),
                pids_refused: group.map_or(0, |g| driver.refused(g)) - run.refused_before,
            };
        }
        run.slot
            .as_ref()
            .and_then(|slot| slot.group.as_ref())
            .map_or_else(Outcome::default, |group| driver.outcome(group))
    }

    /// Ends runs for a reason, with grace.
    pub(super) fn stop(&mut self, ids: &[RunId], grace: Millis) {
        for launch in self.queue.take_out(ids) {
            let report = RunReport {
                cause: StopCause::Requested,
                ..RunReport::not_started(now(), "stopped before it started")
            };
            let id = launch.id.clone();
            self.refuse(launch.id, launch.logs, report);
            self.exec_early(id);
        }
        self.release();
        for id in ids {
            if let Some(index) = self.by_id.get(id) {
                self.end(*index, StopCause::Requested, grace);
            }
        }
    }

    pub(super) fn end(&mut self, index: usize, cause: StopCause, grace: Millis) {
        // One whose beginning was not heard of yet has its grace too.
        self.look_at(index);
        let Some(run) = self.run(index) else {
            return;
        };
        run.ending.get_or_insert(cause);
        let (id, kind, starting) = (run.id.clone(), run.kind, run.phase == Phase::Starting);
        if starting && matches!(kind, Kind::Exec(_)) {
            // Its helper may be just between starting the program and telling of it; `begin` kills what it tells of.
            return;
        }
        if starting || grace == Millis(0) {
            self.kill(index);
            return;
        }
        if kind == Kind::Sandbox {
            if run.inner == 0 {
                self.kill(index);
                return;
            }
            let inner: Vec<usize> = self.inner(index).collect();
            for program in inner {
                self.terminate(program);
            }
        } else {
            self.terminate(index);
        }
        self.alarm(id, Duration::from_millis(grace.0), Alarm::Kill);
    }

    fn terminate(&mut self, index: usize) {
        if let Some(pid) = self.program_of(index) {
            let _ = process::kill(pid, libc::SIGTERM);
        }
    }

    /// The number of a run's program on the host. It is a child of ours or of a child of ours, so it is not reused under us for
    /// as long as that is not reaped; a task's is looked up among its first process's children just now.
    pub(super) fn program_of(&self, index: usize) -> Option<i32> {
        let run = self.runs.get(index)?.as_ref()?;
        let pid = match run.kind {
            Kind::Task => procfs::child_named(run.pid, self.table[index].pid())?,
            Kind::Sandbox => return None,
            Kind::Exec(_) | Kind::Plain => run.pid,
        };
        i32::try_from(pid).ok().filter(|pid| *pid > 0)
    }

    /// Kills everything in a run.
    pub(super) fn kill(&mut self, index: usize) {
        if self.kill_when_made(index) {
            return;
        }
        let Some(run) = self.runs.get(index).and_then(Option::as_ref) else {
            return;
        };
        if run.pid == 0 {
            return;
        }
        let alone = !matches!(run.kind, Kind::Exec(_) | Kind::Plain);
        // Named before: once the program is gone, they are children of others.
        let rest = if alone {
            Vec::new()
        } else {
            self.ungrouped_rest(run)
        };
        // First the program, so that it does not live to see the others die. A sandbox's first process takes its whole pid
        // namespace with it.
        let pid = run.pid;
        let _ = process::kill(pid.cast_signed(), libc::SIGKILL);
        if !alone {
            kill_all(&rest);
            self.kill_rest(run);
        }
        self.busy.insert(pid);
    }

    /// The group that a plain run has to itself.
    fn own_group<'a>(&self, run: &'a Run) -> Option<(&dyn Driver, &'a Group)> {
        let slot = run.slot.as_ref().filter(|_| run.kind == Kind::Plain)?;
        self.driver.as_deref().zip(slot.group.as_ref())
    }

    /// What a program outside of a pid namespace and of a group of its own has started.
    fn ungrouped_rest(&self, run: &Run) -> Vec<u32> {
        if run.pid == 0 || self.own_group(run).is_some() {
            return Vec::new();
        }
        procfs::descendants(run.pid)
    }

    /// Kills what a program outside of a pid namespace of its own has started, and left if it is over.
    fn kill_rest(&self, run: &Run) {
        if run.pid == 0 {
            return;
        }
        if let Some((driver, group)) = self.own_group(run) {
            if !driver.is_empty(group) {
                driver.kill(&group.name);
            }
        } else {
            kill_all(&self.ungrouped_rest(run));
        }
        let _ = process::kill(-run.pid.cast_signed(), libc::SIGKILL);
    }

    /// Does what is due.
    pub(super) fn fire_timers(&mut self, at: Instant) {
        while self.next_timer().is_some_and(|t| t <= at) {
            let Some(Reverse((_, id, alarm))) = self.timers.pop() else {
                return;
            };
            let Some(index) = self.by_id.get(&id).copied() else {
                continue;
            };
            match alarm {
                Alarm::Timeout => self.end(index, StopCause::Timeout, Millis(0)),
                Alarm::Kill => self.kill(index),
            }
        }
    }

    /// Takes what a stream brings.
    pub(super) fn pump(&mut self, index: usize, n: usize) {
        let flow = self.read(index, n);
        let Some(run) = self.runs.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some(stream) = &mut run.streams[n] else {
            return;
        };
        if flow == Some(Flow::Over) {
            unwatch(self.epoll.as_fd(), stream.fd());
            run.stream_bytes[n] = stream.bytes();
            note_trouble(&mut run.trouble, stream);
            run.cut[n] = limits::cut(stream);
            run.streams[n] = None;
        }
    }
}

fn kill_all(pids: &[u32]) {
    for pid in pids {
        let _ = process::kill(pid.cast_signed(), libc::SIGKILL);
    }
}

fn note_trouble(note: &mut Option<String>, stream: &Stream) {
    if note.is_none() {
        *note = stream.trouble().map(str::to_owned);
    }
}

fn exit_status(raw: i32) -> ExitStatus {
    if libc::WIFEXITED(raw) {
        ExitStatus::Code(libc::WEXITSTATUS(raw))
    } else if libc::WIFSIGNALED(raw) {
        ExitStatus::Signal(libc::WTERMSIG(raw))
    } else {
        ExitStatus::Unknown
    }
}
