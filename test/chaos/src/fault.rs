//! The faults: each is given to the cluster, held for a while and taken back, and has to leave a trace of its own, or it counts as not
//! applied: a process that is gone or stopped, packets that were dropped, a disk without a byte, an exit code.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prism_e2e::chaos::Random;
use rustix::io::Errno;
use rustix::process::Signal;

use crate::member::Kind;
use crate::site::{SERVERS, Site};

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
}

impl Fault {
    /// All kinds.
    pub const ALL: &[Self] = &[
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
        Self::SyncFails,
    ];

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
            Self::PauseServer | Self::PauseLeader | Self::PauseWorker => pause(site, random, at)?,
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
    ensure!(member.kill()?, "{} did not run", member.name);
    hold(random);
    member.start(&[])
}

/// Stops it for 0.2 to 20 seconds, short times as often as long ones.
fn pause(site: &mut Site, random: &mut Random, at: usize) -> Result<()> {
    let member = &site.members[at];
    member.signal(Signal::STOP);
    let began = Instant::now();
    while member.state() != Some('T') {
        ensure!(began.elapsed() < SHOWS, "{} does not stop", member.name);
        std::thread::sleep(Duration::from_millis(1));
    }
    let doubled = random.moment(6_600).as_secs_f64();
    std::thread::sleep(Duration::from_secs_f64(0.2 * doubled.exp2()));
    ensure!(
        member.state() == Some('T'),
        "{} went on by itself",
        member.name
    );
    member.signal(Signal::CONT);
    Ok(())
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
    site.split(&these)?;
    hold(random);
    mended(site)
}

fn isolate(site: &mut Site, random: &mut Random, at: usize) -> Result<()> {
    let mut these = vec![at];
    if site.members[at].kind == Kind::Far {
        let far = (0..site.members.len()).filter(|other| site.members[*other].kind == Kind::Far);
        these = far.collect();
    }
    site.split(&these)?;
    hold(random);
    mended(site)
}

fn one_way(site: &mut Site, random: &mut Random, at: usize) -> Result<()> {
    let deaf = random.below(2) == 0;
    for other in (0..site.members.len()).filter(|other| *other != at) {
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
    member.assert_runs()
}

fn sync_fails(site: &mut Site, random: &mut Random, at: usize) -> Result<()> {
    let member = &mut site.members[at];
    let log = member.data().join("store/log");
    let shim = member.shim.as_ref().context("a server has a shim")?;
    let given = shim.given();
    let after = u32::try_from(random.below(20))?;
    shim.fail("sync", &log, Errno::IO, after);
    let began = Instant::now();
    while member.is_up() {
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
