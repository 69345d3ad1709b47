//! What goes wrong: drawn from the kinds that the seed turned on, and undone when everything is healed.

use crate::disk::Disk;
use crate::log::Config;
use crate::server::Clock;
use crate::server::Server;
use crate::setup::Kinds;
use crate::sim::{Addr, Event, Sim, Timer};
use crate::worker::Worker;
use crate::world::World;

/// A fault, or its end.
#[derive(Clone, Debug)]
pub enum Act {
    /// A direction carries nothing, or does again.
    Cut(Addr, Addr, bool),
    /// A server falls over.
    Fall(u32),
    /// A server falls over at one of its next syncs.
    FallAt(u32, u32),
    /// The daemon of a worker falls over.
    Daemon(usize),
    /// The supervisor of a worker dies.
    Supervisor(usize),
    /// Both do.
    Both(usize),
    /// A worker's machine loses power.
    Power(usize),
    /// Somebody stands still for so long.
    Pause(Addr, u64),
    /// A wall clock jumps by so much.
    Jump(Addr, i64),
    /// A disk is so many times slower.
    Slow(u32, u64),
    /// The next sync of a disk fails.
    Fails(u32),
    /// A disk is full, or no longer.
    Full(u32, bool),
    /// A server's disk is gone; another server takes its place.
    ReplaceServer(u32),
    /// A worker's disk is gone; another worker takes its place.
    ReplaceWorker(usize),
    /// The loop of a worker's daemon is stuck for so long.
    Stall(usize, u64),
    /// A server falls over right after its next vote.
    FallVoted(u32),
    /// A server falls over while it writes its next snapshot.
    FallSnapshot(u32),
    /// A session breaks.
    Sever,
    /// The leader is asked to hand over.
    Transfer,
    /// Everything is healed.
    Heal,
}

impl World {
    /// Draws the next fault.
    pub fn draw(&mut self) {
        if self.healed {
            return;
        }
        let wait = self.sim.rng.within(1, 2 * self.sim.setup.pace);
        self.sim.after(wait, Event::Draw);
        let kinds = self.sim.setup.kinds;
        let all = menu(&kinds);
        let Some(draw) = self.sim.rng.pick(&all) else {
            return;
        };
        draw(self);
    }

    fn plan(&mut self, after: u64, act: Act) {
        self.sim.after(after, Event::Fault(act));
    }

    fn a_server(&mut self) -> u32 {
        // Leaders are where it hurts.
        let leading = self
            .servers
            .iter()
            .find(|s| s.control.is_some())
            .map(|s| s.id);
        let any = self.sim.rng.pick(&self.sim.servers).unwrap_or(0);
        leading
            .filter(|_| self.sim.rng.permille(500))
            .unwrap_or(any)
    }

    fn a_worker(&mut self) -> usize {
        self.sim.rng.index(self.workers.len())
    }

    fn a_node(&mut self) -> Addr {
        match self.sim.rng.permille(500) {
            true => Addr::Server(self.a_server()),
            false => {
                let at = self.a_worker();
                self.workers[at].addr()
            }
        }
    }

    fn partition(&mut self) {
        let one = self.a_node();
        // Some outlast a lease.
        let length = match self.sim.rng.permille(250) {
            true => self.sim.rng.within(18_000, 45_000),
            false => self.sim.rng.within(500, 25_000),
        };
        let (into, out) = match self.sim.rng.below(4) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        if into != out {
            self.sim.sometimes("a one-way partition");
        }
        let mut others: Vec<Addr> = self.sim.servers.iter().map(|s| Addr::Server(*s)).collect();
        if self.sim.rng.permille(700) {
            others.extend(self.workers.iter().map(Worker::addr));
            others.extend((0..self.sim.setup.clients).map(Addr::Client));
        }
        let some = self.sim.rng.permille(400);
        for other in others {
            if other == one || some && self.sim.rng.permille(500) {
                continue;
            }
            for (from, to) in [(other, one)]
                .into_iter()
                .filter(|_| into)
                .chain([(one, other)].into_iter().filter(|_| out))
            {
                self.act(Act::Cut(from, to, true));
                self.plan(length, Act::Cut(from, to, false));
            }
        }
    }

    fn flap(&mut self) {
        let (one, other) = (self.a_node(), Addr::Server(self.a_server()));
        let beat = self.sim.rng.within(100, 1_500);
        for n in 0..self.sim.rng.within(4, 16) {
            let cut = n % 2 == 0;
            self.plan(n * beat, Act::Cut(one, other, cut));
            self.plan(n * beat, Act::Cut(other, one, cut));
        }
        self.plan(17 * beat, Act::Cut(one, other, false));
        self.plan(17 * beat, Act::Cut(other, one, false));
    }

    fn fall_server(&mut self) {
        let server = self.a_server();
        let at_sync = self.sim.rng.permille(600);
        if self.sim.rng.permille(250) {
            return self.act(Act::FallSnapshot(server));
        }
        match at_sync {
            true => {
                let nth = u32::try_from(self.sim.rng.within(1, 12)).unwrap_or(1);
                self.act(Act::FallAt(server, nth));
            }
            false => self.act(Act::Fall(server)),
        }
    }

    /// All servers fall and come back at once, and whoever votes then falls right after its vote.
    fn fall_voters(&mut self) {
        let wait = self.sim.rng.within(100, 1_000);
        for id in self.sim.servers.clone() {
            let server = &mut self.servers[id as usize];
            server.fall(&mut self.sim);
            server.timer(&mut self.sim, wait, Timer::Start);
            self.act(Act::FallVoted(id));
        }
    }

    fn blackout(&mut self) {
        for server in self.sim.servers.clone() {
            let wait = self.sim.rng.below(20);
            self.plan(wait, Act::Fall(server));
        }
        self.sim.sometimes("all servers fell at once");
    }

    fn pause(&mut self) {
        let who = self.a_node();
        let long = self.sim.rng.permille(400);
        let length = match long {
            true => self.sim.rng.within(8_000, 30_000),
            false => self.sim.rng.within(100, 4_000),
        };
        self.act(Act::Pause(who, length));
    }

    /// Carries a fault out.
    pub fn act(&mut self, act: Act) {
        if self.healed {
            return;
        }
        let sim = &mut self.sim;
        match act {
            Act::Cut(from, to, on) => {
                sim.note("net.cut", [from.number(), to.number(), u64::from(on)]);
                match on {
                    true => sim.net.cut.insert((from, to)),
                    false => sim.net.cut.remove(&(from, to)),
                };
            }
            Act::Pause(who, length) => {
                sim.note("fault.pause", [who.number(), length, 0]);
                sim.sometimes("somebody stood still");
                let until = (sim.now + length).min(sim.setup.chaos);
                // Who stands still already is not woken by this: what waits for the later moment would come after what came later.
                let paused = sim.paused.entry(who).or_default();
                *paused = until.max(*paused);
            }
            Act::Sever => {
                let ids: Vec<u64> = sim.conns.keys().copied().collect();
                let newest = ids.last().copied().filter(|_| sim.rng.permille(400));
                if let Some(id) = newest.or_else(|| sim.rng.pick(&ids)) {
                    sim.note("net.severs", [id, 0, 0]);
                    sim.sometimes("a session broke");
                    sim.sever(id);
                }
            }
            Act::Heal => self.heal(),
            Act::ReplaceServer(id) => self.replace_server(id),
            Act::ReplaceWorker(at) => self.replace_worker(at),
            Act::Transfer => {
                if let Some(server) = self.servers.iter_mut().find(|s| s.up && s.raft.leads()) {
                    sim.sometimes("a leader was asked to hand over");
                    server.raft.transfer();
                    server.settle(sim);
                }
            }
            Act::Stall(at, length) => {
                sim.sometimes("a daemon was stuck");
                let until = (sim.now + length).min(sim.setup.chaos);
                self.workers[at].stuck_until = until;
            }
            Act::Daemon(_) | Act::Supervisor(_) | Act::Both(_) | Act::Power(_) => {
                self.act_on_worker(&act);
            }
            Act::Jump(..) => self.jump(&act),
            _ => self.act_on_server(&act),
        }
    }

    fn jump(&mut self, act: &Act) {
        let Act::Jump(who, by) = act else {
            return;
        };
        let clock = match who {
            Addr::Server(id) => self.servers.get_mut(*id as usize).map(|s| &mut s.clock),
            Addr::Worker(no) => self
                .workers
                .iter_mut()
                .find(|w| w.no == *no)
                .map(|w| &mut w.clock),
            Addr::Client(_) => None,
        };
        if let Some(clock) = clock {
            clock.offset += by;
            self.sim.sometimes("a wall clock jumped");
        }
    }

    fn act_on_worker(&mut self, act: &Act) {
        let (Act::Daemon(at) | Act::Supervisor(at) | Act::Both(at) | Act::Power(at)) = act else {
            return;
        };
        let sim = &mut self.sim;
        let worker = &mut self.workers[*at];
        let soon = sim.rng.permille(300);
        let wait = if soon { 20 } else { sim.rng.within(50, 12_000) };
        match act {
            Act::Daemon(_) => {
                sim.sometimes("a daemon fell while its runs went on");
                worker.fall(sim);
            }
            Act::Supervisor(_) => worker.on_supervisor_death(sim),
            Act::Both(_) => {
                worker.fall(sim);
                worker.on_supervisor_death(sim);
            }
            _ => worker.lose_power(sim),
        }
        let (addr, boot) = (worker.addr(), worker.boot);
        sim.timer(addr, boot, wait, Timer::Daemon);
    }

    fn act_on_server(&mut self, act: &Act) {
        let (Act::Fall(id)
        | Act::FallAt(id, _)
        | Act::FallVoted(id)
        | Act::FallSnapshot(id)
        | Act::Slow(id, _)
        | Act::Fails(id)
        | Act::Full(id, _)) = act
        else {
            return;
        };
        let sim = &mut self.sim;
        let Some(server) = self.servers.get_mut(*id as usize).filter(|s| !s.gone) else {
            return;
        };
        match act {
            Act::Fall(_) if server.up => {
                server.fall(sim);
                let wait = sim.rng.within(100, 8_000);
                server.timer(sim, wait, Timer::Start);
            }
            Act::FallAt(_, nth) if server.up => server.falls_at = Some(*nth),
            Act::FallSnapshot(_) => server.falls_at_snapshot = true,
            Act::FallVoted(_) => server.falls_after_vote = true,
            Act::Slow(_, times) => {
                sim.sometimes("a disk was slow");
                server.disk.slow = *times;
            }
            Act::Fails(_) => server.disk.fails = true,
            Act::Full(_, on) => {
                sim.note("disk.full", [u64::from(*id), u64::from(*on), 0]);
                server.disk.full = *on;
                if *on {
                    sim.sometimes("a disk was full");
                } else if server.up {
                    server.settle(sim);
                }
            }
            _ => {}
        }
    }

    /// A voter's disk is gone, where a majority of the others has all there is; a new server comes in its place.
    fn replace_server(&mut self, id: u32) {
        // Every server left has to know of no other change: one disk at a time, as an operator would.
        let voters = &self.sim.servers;
        let known = |s: &Server| {
            let config = &s.raft.config;
            config.learners.is_empty()
                && config.voters.len() == voters.len()
                && voters.iter().all(|id| config.voters.contains(id))
        };
        let alive = self.servers.iter().filter(|s| !s.gone);
        let enough = self.sim.setup.servers >= 3 && alive.clone().all(known);
        let settled = alive.clone().any(|s| s.up && s.raft.is_settled());
        let sim = &mut self.sim;
        if !enough || !settled || self.servers[id as usize].gone {
            return;
        }
        let server = &mut self.servers[id as usize];
        server.fall(sim);
        server.gone = true;
        let new = u32::try_from(self.servers.len()).unwrap_or(u32::MAX);
        sim.servers.retain(|s| *s != id);
        sim.servers.push(new);
        sim.note("server.replaced", [u64::from(id), u64::from(new), 0]);
        sim.sometimes("a server was replaced");
        let clock = clock(sim);
        let server = Server::new(new, Disk::default(), clock, sim);
        self.servers.push(server);
    }

    fn replace_worker(&mut self, at: usize) {
        let sim = &mut self.sim;
        let old = &mut self.workers[at];
        old.lose_power(sim);
        sim.sometimes("a worker was replaced");
        let (no, boot, life) = (old.no, old.boot, old.life);
        let clock = clock(sim);
        let mut new = Worker::new(no, clock, sim);
        // Timers of the one before mean nothing to it.
        new.up = false;
        (new.boot, new.life) = (boot + 1, life + 1);
        new.start(sim);
        self.workers[at] = new;
    }

    /// The members are looked after: one change at a time, a learner first.
    pub fn operate(&mut self) {
        self.sim.after(1_000, Event::Operator);
        let gone: Vec<u32> = self
            .servers
            .iter()
            .filter(|s| s.gone)
            .map(|s| s.id)
            .collect();
        let now = self.sim.now;
        let wanted = self.sim.servers.clone();
        let paused = &self.sim.paused;
        let leader = self.servers.iter_mut().find(|s| {
            s.up && s.raft.is_settled() && paused.get(&Addr::Server(s.id)).is_none_or(|u| *u <= now)
        });
        let Some(leader) = leader else {
            return;
        };
        let config = &leader.raft.config;
        let known = |id: &u32| config.voters.contains(id) || config.learners.contains(id);
        let mut next: Config = config.clone();
        if let Some(new) = wanted.iter().find(|id| !known(id)) {
            next.learners.insert(*new);
        } else if let Some(ready) = config
            .learners
            .iter()
            .find(|id| leader.raft.has_caught_up(**id))
        {
            next.learners.remove(ready);
            next.voters.insert(*ready);
            self.sim.sometimes("a learner became a voter");
        } else if let Some(old) = gone.iter().find(|id| config.voters.contains(*id))
            && config.voters.len() > self.sim.setup.servers as usize
        {
            next.voters.remove(old);
        }
        if next != *config && leader.raft.change(next, now) {
            leader.settle(&mut self.sim);
        }
    }

    /// Nothing goes wrong any more.
    fn heal(&mut self) {
        self.healed = true;
        let sim = &mut self.sim;
        sim.note("fault.heal", [0; 3]);
        sim.net.heal();
        sim.paused.clear();
        for server in self.servers.iter_mut().filter(|s| !s.gone) {
            server.disk.slow = 1;
            server.disk.full = false;
            server.disk.fails = false;
            server.falls_at = None;
            server.falls_after_vote = false;
            server.falls_at_snapshot = false;
            match server.up {
                true => server.settle(sim),
                false => server.start(sim),
            }
        }
        for worker in &mut self.workers {
            worker.on = true;
            worker.stuck_until = 0;
            worker.start(sim);
        }
        for client in &mut self.clients {
            client.closing = true;
        }
    }
}

/// Clocks as the seed has them.
pub fn clock(sim: &mut Sim) -> Clock {
    if !sim.setup.kinds.clocks {
        return Clock::default();
    }
    Clock {
        offset: i64::try_from(sim.rng.below(7_200_000)).unwrap_or(0) - 3_600_000,
        drift: i64::try_from(sim.rng.below(1_000)).unwrap_or(0) - 500,
    }
}

type Draw = fn(&mut World);

/// What may go wrong.
fn menu(kinds: &Kinds) -> Vec<Draw> {
    let all: [(bool, Draw); 19] = [
        (kinds.clocks && kinds.transfers, |w| w.act(Act::Transfer)),
        (kinds.partitions, World::partition),
        (kinds.flapping, World::flap),
        (kinds.breaks, |w| w.act(Act::Sever)),
        (kinds.server_crashes, World::fall_server),
        (kinds.server_crashes, World::fall_voters),
        (kinds.stalls, |w| {
            let busiest = (0..w.workers.len()).max_by_key(|at| w.workers[*at].left().0);
            let any = w.a_worker();
            let at = busiest.filter(|_| w.sim.rng.permille(700)).unwrap_or(any);
            let length = w.sim.rng.within(1_000, 40_000);
            w.act(Act::Stall(at, length));
        }),
        (kinds.blackouts, World::blackout),
        (kinds.pauses, World::pause),
        (kinds.transfers, |w| w.act(Act::Transfer)),
        (kinds.daemon_crashes, |w| {
            let at = w.a_worker();
            w.act(Act::Daemon(at));
        }),
        (kinds.supervisor_deaths, |w| {
            let at = w.a_worker();
            let both = w.sim.rng.permille(400);
            w.act(if both {
                Act::Both(at)
            } else {
                Act::Supervisor(at)
            });
        }),
        (kinds.machine_crashes, |w| {
            let at = w.a_worker();
            w.act(Act::Power(at));
        }),
        (kinds.clocks, |w| {
            let who = w.a_node();
            let by = i64::try_from(w.sim.rng.below(7_200_000)).unwrap_or(0) - 3_600_000;
            w.act(Act::Jump(who, by));
        }),
        (kinds.slow_disks, |w| {
            let (id, times) = (w.a_server(), w.sim.rng.within(5, 400));
            w.act(Act::Slow(id, times));
            let length = w.sim.rng.within(500, 10_000);
            w.plan(length, Act::Slow(id, 1));
        }),
        (kinds.failing_disks, |w| {
            let id = w.a_server();
            w.act(Act::Fails(id));
        }),
        (kinds.full_disks, |w| {
            let (id, length) = (w.a_server(), w.sim.rng.within(500, 25_000));
            w.act(Act::Full(id, true));
            w.plan(length, Act::Full(id, false));
        }),
        (kinds.server_replacements, |w| {
            let id = w.a_server();
            w.act(Act::ReplaceServer(id));
        }),
        (kinds.worker_replacements, |w| {
            let at = w.a_worker();
            w.act(Act::ReplaceWorker(at));
        }),
    ];
    all.into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, draw)| draw)
        .collect()
}
