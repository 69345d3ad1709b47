//! The faults: each is given to the cluster, held for a while and taken back, and has to leave a trace of its own, or it counts as not
//! applied: a process that is gone or stopped, packets that were dropped, a disk without a byte, an exit code.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prism_e2e::chaos::Random;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::etcd::MEMBERS;
use crate::member::Kind;
use crate::site::{Keeper, SERVERS, Site};

/// What a server ends with after a sync that failed.
const DISK_FAILED: i32 = 70;
/// How long a fault may take to show.
const SHOWS: Duration = Duration::from_secs(30);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9` of a server, which is started again.
    KillServer,
    /// The same of the one that leads.
    KillLeader,
    /// The same of a worker.
    KillWorker,
    /// A server is stopped for a while, and goes on where it was.
    PauseServer,
    /// The same of the one that leads.
    PauseLeader,
    /// The same of a worker.
    PauseWorker,
    /// Nothing goes between two parts of the cluster, of which one has one server and some workers.
    Partition,
    /// Nothing goes between the leader and all other members; clients still reach it.
    IsolateLeader,
    /// A server hears nobody, or nobody hears it.
    OneWay,
    /// A server is cut off and not, in turn.
    Flapping,
    /// A worker is cut off.
    CutWorker,
    /// The router in front of two workers forgets whom it translates for, and comes back with another address.
    RouterRestart,
    /// The disk of a server is full to the last byte.
    FullDisk,
    /// A sync of a server's log fails: it has to end, and is started again.
    SyncFails,
    /// Packets from and to a server or a member of the etcd take longer, each a time of its own, so that they overtake each other.
    Delay,
    /// `kill -9` of a member of the etcd, which is started again.
    KillEtcd,
    /// The same of two of its three members: nothing can be committed meanwhile.
    KillEtcds,
    /// A member of the etcd is stopped for a while.
    PauseEtcd,
    /// All members are: who asks gets no answer, and what was under way may be done later.
    PauseEtcds,
    /// A member of the etcd is cut off from everything.
    CutEtcd,
}

/// Those that need nothing but members.
macro_rules! all_and {
    ($($more:ident),*) => {
        &[
            Self::KillServer,
            Self::KillLeader,
            Self::KillWorker,
            Self::PauseServer,
            Self::PauseLeader,
            Self::PauseWorker,
            Self::Partition,
            Self::IsolateLeader,
            Self::OneWay,
            Self::Flapping,
            Self::CutWorker,
            Self::RouterRestart,
            Self::FullDisk,
            Self::Delay,
            $(Self::$more),*
        ]
    };
}

impl Fault {
    /// The kinds that make sense with what keeps the state. An etcd syncs its own log, and the servers have none.
    pub const fn of(keeper: Keeper) -> &'static [Self] {
        match keeper {
            Keeper::Raft => all_and![SyncFails],
            Keeper::Etcd => all_and![KillEtcd, KillEtcds, PauseEtcd, PauseEtcds, CutEtcd],
        }
    }

    /// Its name in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KillServer => "kill_server",
            Self::KillLeader => "kill_leader",
            Self::KillWorker => "kill_worker",
            Self::PauseServer => "pause_server",
            Self::PauseLeader => "pause_leader",
            Self::PauseWorker => "pause_worker",
            Self::Partition => "partition",
            Self::IsolateLeader => "isolate_leader",
            Self::OneWay => "one_way",
            Self::Flapping => "flapping",
            Self::CutWorker => "cut_worker",
            Self::RouterRestart => "router_restart",
            Self::FullDisk => "full_disk",
            Self::SyncFails => "sync_fails",
            Self::Delay => "delay",
            Self::KillEtcd => "kill_etcd",
            Self::KillEtcds => "kill_etcds",
            Self::PauseEtcd => "pause_etcd",
            Self::PauseEtcds => "pause_etcds",
            Self::CutEtcd => "cut_etcd",
        }
    }

    /// Gives it, holds it, takes it back; on whom.
    ///
    /// # Errors
    /// When it left no trace, or something that must not end has ended.
    pub fn give(self, site: &mut Site, random: &mut Random) -> Result<String> {
        let at = match self {
            Self::KillLeader | Self::PauseLeader | Self::IsolateLeader => leader(site)?,
            Self::KillWorker | Self::PauseWorker | Self::CutWorker => worker(site, random),
            _ => random.below(SERVERS as u64) as usize,
        };
        match self {
            Self::KillServer | Self::KillLeader | Self::KillWorker => kill(site, random, at)?,
            Self::PauseServer | Self::PauseLeader | Self::PauseWorker => {
                let member = &site.members[at];
                pause(&[(&member.name, member.program.pid())], random)?;
            }
            Self::Partition => partition(site, random, at)?,
            Self::IsolateLeader | Self::CutWorker => isolate(site, random, at)?,
            Self::OneWay => one_way(site, random, at)?,
            Self::Flapping => flapping(site, random, at)?,
            Self::RouterRestart => {
                site.restart_router(Duration::from_millis(200) + random.moment(6_000))?;
                return Ok("the router".to_owned());
            }
            Self::FullDisk => full_disk(site, random, at)?,
            Self::SyncFails => sync_fails(site, random, at)?,
            Self::Delay => return delay(site, random),
            Self::KillEtcd => return kill_etcds(site, random, 1),
            Self::KillEtcds => return kill_etcds(site, random, 2),
            Self::PauseEtcd => return pause_etcds(site, random, 1),
            Self::PauseEtcds => return pause_etcds(site, random, MEMBERS),
            Self::CutEtcd => {
                let which = random.below(MEMBERS as u64) as usize;
                isolate(site, random, site.members.len() + which)?;
                return Ok(site.etcds[which].name.clone());
            }
        }
        Ok(site.members[at].name.clone())
    }
}

fn leader(site: &Site) -> Result<usize> {
    let began = Instant::now();
    loop {
        if let Some(at) = site.leader() {
            return Ok(at);
        }
        ensure!(began.elapsed() < SHOWS, "nobody says who leads");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn worker(site: &Site, random: &mut Random) -> usize {
    SERVERS + random.below((site.members.len() - SERVERS) as u64) as usize
}

/// Holds a fault for 0.5 to 8 seconds.
fn hold(random: &mut Random) {
    std::thread::sleep(Duration::from_millis(500) + random.moment(7_500));
}

fn kill(site: &mut Site, random: &mut Random, at: usize) -> Result<()> {
    let member = &mut site.members[at];
    ensure!(member.program.kill(), "{} did not run", member.name);
    hold(random);
    member.start(&[])
}

/// The letter of a process's state, such as `T` when it is stopped.
fn state(pid: Option<u32>) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid?)).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn signal(pid: Option<u32>, signal: Signal) -> Result<()> {
    let pid = pid.and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.and_then(Pid::from_raw).context("it does not run")?;
    Ok(kill_process(pid, signal)?)
}

/// Stops programs for 0.2 to 20 seconds, short times as often as long ones.
fn pause(who: &[(&str, Option<u32>)], random: &mut Random) -> Result<()> {
    for (name, pid) in who {
        signal(*pid, Signal::STOP).with_context(|| format!("stopping {name}"))?;
    }
    let began = Instant::now();
    for (name, pid) in who {
        while state(*pid) != Some('T') {
            ensure!(began.elapsed() < SHOWS, "{name} does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let doubled = random.moment(6_600).as_secs_f64();
    std::thread::sleep(Duration::from_secs_f64(0.2 * doubled.exp2()));
    for (name, pid) in who {
        ensure!(state(*pid) == Some('T'), "{name} went on by itself");
        signal(*pid, Signal::CONT).with_context(|| format!("continuing {name}"))?;
    }
    Ok(())
}

/// So many members of the etcd, one beside the other.
fn etcds(random: &mut Random, count: usize) -> Vec<usize> {
    let first = random.below(MEMBERS as u64) as usize;
    (0..count).map(|n| (first + n) % MEMBERS).collect()
}

fn named(site: &Site, etcds: &[usize]) -> String {
    let names = etcds.iter().map(|at| site.etcds[*at].name.as_str());
    names.collect::<Vec<_>>().join(", ")
}

fn kill_etcds(site: &mut Site, random: &mut Random, count: usize) -> Result<String> {
    let these = etcds(random, count);
    for at in &these {
        let etcd = &mut site.etcds[*at];
        ensure!(etcd.program.kill(), "{} did not run", etcd.name);
    }
    hold(random);
    for at in &these {
        site.etcds[*at].start()?;
    }
    Ok(named(site, &these))
}

fn pause_etcds(site: &Site, random: &mut Random, count: usize) -> Result<String> {
    let these = etcds(random, count);
    let who = these.iter().map(|at| &site.etcds[*at]);
    let who: Vec<_> = who.map(|e| (e.name.as_str(), e.program.pid())).collect();
    pause(&who, random)?;
    Ok(named(site, &these))
}

/// A server's packets, or those of a member of the etcd, take up to 20 to 320 ms longer each way: from what a long line costs to what
/// lets elections be lost.
fn delay(site: &mut Site, random: &mut Random) -> Result<String> {
    let which = random.below((SERVERS + site.etcds.len()) as u64) as usize;
    let (at, name) = match which.checked_sub(SERVERS) {
        Some(etcd) => (site.members.len() + etcd, &site.etcds[etcd].name),
        None => (which, &site.members[which].name),
    };
    let name = name.clone();
    let most = 20 << random.below(5);
    site.delay(at, (most / 10, most))?;
    std::thread::sleep(Duration::from_secs(2));
    hold(random);
    let done = site.prompt()?;
    ensure!(done.frames > 0, "no packet of {name} was delayed");
    ensure!(done.overtaken > 0, "no packet of {name} was overtaken");
    let (frames, overtaken) = (done.frames, done.overtaken);
    Ok(format!(
        "{name} ({frames} packets by up to {most} ms, {overtaken} overtaken)"
    ))
}

/// Takes a cut back, not before it met a packet: an idle worker is silent for seconds, and longer when it waits to dial again.
fn mended(site: &Site) -> Result<()> {
    let began = Instant::now();
    while site.dropped()? == 0 {
        ensure!(began.elapsed() < SHOWS, "no packet was dropped");
        std::thread::sleep(Duration::from_millis(50));
    }
    site.mend()
}

fn partition(site: &mut Site, random: &mut Random, at: usize) -> Result<()> {
    let mut these = vec![at];
    // Those behind the router are on one side.
    let far_too = random.below(2) == 0;
    these.extend(
        (SERVERS..site.members.len()).filter(|at| match site.members[*at].kind {
            Kind::Far => far_too,
            Kind::Server | Kind::Worker => random.below(2) == 0,
        }),
    );
    // On either side there may be a majority of the etcd, or none of it.
    these.extend((site.members.len()..site.ends()).filter(|_| random.below(2) == 0));
    site.split(&these)?;
    hold(random);
    mended(site)
}

fn isolate(site: &mut Site, random: &mut Random, at: usize) -> Result<()> {
    let mut these = vec![at];
    if site.members.get(at).is_some_and(|m| m.kind == Kind::Far) {
        let far = (0..site.members.len()).filter(|other| site.members[*other].kind == Kind::Far);
        these = far.collect();
    }
    site.split(&these)?;
    hold(random);
    mended(site)
}

fn one_way(site: &mut Site, random: &mut Random, at: usize) -> Result<()> {
    let deaf = random.below(2) == 0;
    for other in (0..site.ends()).filter(|other| *other != at) {
        match deaf {
            true => site.cut(other, at)?,
            false => site.cut(at, other)?,
        }
    }
    hold(random);
    mended(site)
}

fn flapping(site: &mut Site, random: &mut Random, at: usize) -> Result<()> {
    let mut dropped = 0;
    for _ in 0..4 + random.below(5) {
        site.split(&[at])?;
        std::thread::sleep(Duration::from_millis(200) + random.moment(1_300));
        dropped += site.dropped()?;
        site.mend()?;
        std::thread::sleep(Duration::from_millis(100) + random.moment(900));
    }
    ensure!(dropped > 0, "no packet was dropped");
    Ok(())
}

fn full_disk(site: &mut Site, random: &mut Random, at: usize) -> Result<()> {
    let member = &mut site.members[at];
    member.disk.fill();
    let free = rustix::fs::statvfs(member.disk.path()).context("asking for the free space")?;
    ensure!(
        free.f_bavail == 0,
        "the disk of {} has {} blocks left",
        member.name,
        free.f_bavail
    );
    hold(random);
    member.disk.free();
    // It waits for room, and ends for nothing.
    member.program.assert_runs()
}

fn sync_fails(site: &mut Site, random: &mut Random, at: usize) -> Result<()> {
    let member = &mut site.members[at];
    let log = member.data().join("store/log");
    let shim = member.shim.as_ref().context("a server has a shim")?;
    let given = shim.given();
    let after = u32::try_from(random.below(20))?;
    shim.fail("sync", &log, Errno::IO, after);
    let began = Instant::now();
    while member.program.is_up() {
        ensure!(
            began.elapsed() < SHOWS,
            "{} goes on although a sync of its log failed",
            member.name
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let shim = member.shim.as_ref().context("a server has a shim")?;
    ensure!(shim.given() > given, "no sync failed at {}", member.name);
    shim.set("");
    let output = member.ended().context("it has ended")?;
    ensure!(
        output.code == Some(DISK_FAILED),
        "{} ended with {:?} after a sync of its log failed: {}",
        member.name,
        output.code,
        output.stderr
    );
    hold(random);
    member.start(&[])
}
