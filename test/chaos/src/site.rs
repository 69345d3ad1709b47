//! The cluster: three servers and five workers, each a process in a network namespace with a disk of its own, on one bridge; two of the
//! workers are behind a router that translates addresses. If an etcd keeps the state, its three members are on the bridge too. The
//! harness is in the bridge's namespace, and so are the clients.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use prism_api::{NodeCounts, PeerView};
use prism_e2e::Place;
use prism_e2e::net::{Machine, wire};
use rustix::process::Signal;

use crate::delay::Delay;
use crate::desk::{Access, Desk};
use crate::etcd::{self, Etcd};
use crate::member::{Kind, Member};

/// Servers, workers on the bridge, and workers behind the router.
pub const SERVERS: usize = 3;
/// See [`SERVERS`].
pub const NEAR: usize = 3;
/// See [`SERVERS`].
pub const FAR: usize = 2;

/// The number of the router's place on the bridge; those of members are their own, those of the etcd's come after it.
pub(crate) const ROUTER_PORT: usize = SERVERS + NEAR;

/// The longest time in which a cluster has to take writes again after a fault is over; generous, for a busy machine.
pub const WELL_AGAIN: Duration = Duration::from_secs(60);
/// The longest time that the machines may take to be all there.
const ALL_THERE: Duration = Duration::from_secs(180);

/// The addresses that the router may have towards the bridge; it changes between them when it is restarted.
const ROUTER: [&str; 2] = ["10.73.0.100", "10.73.0.101"];

/// What each machine can be told to drop: a chain of its own, before its programs and before what it passes on.
const CHAIN: &str =
    "iptables -w -N chaos; iptables -w -A INPUT -j chaos; iptables -w -A FORWARD -j chaos";

const BRIDGE: &str = "ip link set lo up
ip link add br0 type bridge
ip addr add 10.73.0.254/24 dev br0
ip link set br0 up";

/// What keeps the cluster's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// The servers.
    Raft,
    /// An etcd of three members.
    Etcd,
}

impl Keeper {
    /// As it is named on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::Etcd => "etcd",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Raft, Self::Etcd]
            .into_iter()
            .find(|k| k.name() == name)
    }
}

/// The cluster.
#[derive(Debug)]
pub struct Site {
    // The first to go: it needs the devices of the others.
    pub(crate) delay: Option<Delay>,
    /// Servers first, then workers on the bridge, then those behind the router.
    pub members: Vec<Member>,
    /// Members of the etcd that keeps the state, if one does.
    pub etcds: Vec<Etcd>,
    /// The router.
    pub router: Machine,
    /// Which of its addresses the router has.
    at: usize,
    /// How its servers are reached.
    pub access: Access,
    // The last to go: its processes hold the namespaces.
    pub(crate) holders: Place,
}

/// A machine on the bridge.
fn on_bridge(holders: &Place, number: usize, address: &str) -> Result<Machine> {
    let machine = Machine::new(holders);
    let line = format!(
        "ip link add v{number} type veth peer name eth0 netns $m; ip link set v{number} master br0 up"
    );
    wire(&[("m", &machine)], &line)?;
    machine.shell(&format!(
        "ip link set lo up; ip addr add {address}/24 dev eth0; ip link set eth0 up; {CHAIN}"
    ))?;
    Ok(machine)
}

/// A machine behind the router, on a wire of its own.
fn behind(holders: &Place, router: &Machine, number: usize) -> Result<Machine> {
    let machine = Machine::new(holders);
    let net = format!("192.168.{}", 73 + number);
    let line = format!(
        "nsenter -t $r -n ip link add in{number} type veth peer name eth0 netns $m
         nsenter -t $r -n ip addr add {net}.1/24 dev in{number}
         nsenter -t $r -n ip link set in{number} up"
    );
    wire(&[("r", router), ("m", &machine)], &line)?;
    machine.shell(&format!(
        "ip link set lo up; ip addr add {net}.2/24 dev eth0; ip link set eth0 up
         ip route add default via {net}.1; {CHAIN}"
    ))?;
    Ok(machine)
}

/// The members of an etcd, which has begun.
fn etcds(holders: &Place) -> Result<Vec<Etcd>> {
    let mut all = Vec::new();
    for n in 0..etcd::MEMBERS {
        let machine = on_bridge(holders, ROUTER_PORT + 1 + n, &etcd::address(n))?;
        all.push(Etcd::new(n, machine));
    }
    etcd::begin(&mut all)?;
    Ok(all)
}

impl Site {
    /// Makes the network, founds the cluster and waits until all are there.
    ///
    /// # Errors
    /// When the machine does not allow it, or the cluster does not come about.
    pub fn new(keeper: Keeper) -> Result<Self> {
        wire(&[], BRIDGE)?;
        let holders = Place::new();
        let etcds = match keeper {
            Keeper::Raft => Vec::new(),
            Keeper::Etcd => etcds(&holders)?,
        };
        let mut members = Vec::new();
        for n in 0..SERVERS {
            let address = format!("10.73.0.{}", n + 1);
            let machine = on_bridge(&holders, n, &address)?;
            let name = format!("s{}", n + 1);
            let mut server = Member::new(Kind::Server, name, vec![address], machine)?;
            server.store = etcd::arguments(&etcds);
            members.push(server);
        }
        for n in 0..NEAR {
            let address = format!("10.73.0.{}", n + 11);
            let machine = on_bridge(&holders, SERVERS + n, &address)?;
            let name = format!("w{}", n + 1);
            members.push(Member::new(Kind::Worker, name, vec![address], machine)?);
        }
        let router = on_bridge(&holders, ROUTER_PORT, ROUTER[0])?;
        router.shell(
            "echo 1 > /proc/sys/net/ipv4/ip_forward; iptables -w -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
        )?;
        for n in 0..FAR {
            let machine = behind(&holders, &router, n)?;
            let name = format!("w{}", NEAR + n + 1);
            let addresses = ROUTER.iter().map(|a| (*a).to_owned()).collect();
            members.push(Member::new(Kind::Far, name, addresses, machine)?);
        }
        let mut site = Self {
            delay: None,
            members,
            etcds,
            router,
            at: 0,
            access: Access::default(),
            holders,
        };
        site.found()?;
        Ok(site)
    }

    /// What keeps its state.
    pub fn keeper(&self) -> Keeper {
        match self.etcds.is_empty() {
            true => Keeper::Raft,
            false => Keeper::Etcd,
        }
    }

    /// The first server founds the cluster, the others join it.
    fn found(&mut self) -> Result<()> {
        self.members[0].start(&[])?;
        let context = self.members[0]
            .place
            .path()
            .join("config/prism/contexts.toml");
        let mut pin = String::new();
        prism_e2e::until("the first server to say how it is reached", || {
            // There is nothing to wait for then, and it has said why.
            self.members[0]
                .program
                .assert_runs()
                .expect("the first server runs");
            let text = std::fs::read_to_string(&context).ok()?;
            let line = text.lines().find_map(|l| l.strip_prefix("pin"))?;
            pin = line
                .trim_start_matches([' ', '='])
                .trim_matches('"')
                .to_owned();
            let done = self.members[0].place.ctl(&["info"]);
            (done.code == Some(0)).then_some(())
        });
        // The token of a server's own context ends when it is started again.
        let made = self.members[0]
            .place
            .ctl(&["token", "create", "chaos", "--role", "admin", "-o", "json"])
            .expect(0)
            .json();
        let token = made["token"].as_str().context("a token")?.to_owned();
        let urls = self.members[..SERVERS].iter().map(Member::url).collect();
        self.access = Access { urls, pin, token };
        for n in 1..self.members.len() {
            let role = match self.members[n].kind {
                Kind::Server => "server",
                Kind::Worker | Kind::Far => "worker",
            };
            let made = self.members[0]
                .place
                .ctl(&["server", "join-token", "--role", role, "-o", "json"])
                .expect(0)
                .json();
            let token = made["token"].as_str().context("a token")?;
            let file = self.members[n].place.write("token", token);
            self.members[n].start(&["--token-file", &file])?;
        }
        self.all_there()?;
        let desk = Desk::new(&self.access)?;
        for server in &self.members[..SERVERS] {
            desk.cordon(&server.name)?;
        }
        Ok(())
    }

    /// Waits until every server votes and every node is well; how long it took.
    ///
    /// # Errors
    /// What is missing after a long time.
    pub fn all_there(&mut self) -> Result<Duration> {
        let desk = Desk::new(&self.access)?;
        let began = Instant::now();
        let total = u32::try_from(self.members.len())?;
        loop {
            let servers = desk.peers().map(|all| self.settled(&all));
            let nodes = desk.nodes();
            let is_well =
                |n: &NodeCounts| n.healthy + n.cordoned >= total && n.offline + n.suspect == 0;
            if matches!(servers, Ok(SERVERS)) && nodes.as_ref().is_ok_and(is_well) {
                return Ok(began.elapsed());
            }
            self.assert_runs()?;
            ensure!(
                began.elapsed() < ALL_THERE,
                "not all are there after {} s: servers {servers:?}, nodes {nodes:?}",
                ALL_THERE.as_secs()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Servers that are all that they are to be: they vote, or an etcd does that and one of them leads.
    fn settled(&self, all: &[PeerView]) -> usize {
        match self.etcds.is_empty() {
            true => all.iter().filter(|p| p.voter).count(),
            false if all.iter().any(|p| p.leader) => all.len(),
            false => 0,
        }
    }

    /// Complains when a program has ended by itself.
    ///
    /// # Errors
    /// Then, with what it said.
    pub fn assert_runs(&mut self) -> Result<()> {
        for member in &mut self.members {
            member.program.assert_runs()?;
        }
        self.etcds
            .iter_mut()
            .try_for_each(|e| e.program.assert_runs())
    }

    /// Waits until a write is taken at every server; how long it took.
    ///
    /// # Errors
    /// When one does not take any for a long time, with what the servers say of themselves.
    pub fn takes_writes(&self) -> Result<Duration> {
        let desk = Desk::new(&self.access)?;
        let began = Instant::now();
        let mut open: Vec<usize> = (0..SERVERS).collect();
        while !open.is_empty() {
            let mut said = Vec::new();
            open.retain(|at| match desk.probe(*at) {
                Ok(()) => false,
                Err(e) => {
                    said.push(format!("{e:#}"));
                    true
                }
            });
            if began.elapsed() > WELL_AGAIN {
                bail!(
                    "{} s after the fault was over no write is taken by {}: {}\n{}",
                    WELL_AGAIN.as_secs(),
                    open.iter()
                        .map(|at| self.members[*at].name.as_str())
                        .collect::<Vec<_>>()
                        .join(", "),
                    said.join("; "),
                    desk.health().join("\n")
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(began.elapsed())
    }

    /// Which server leads, as most of them say.
    pub fn leader(&self) -> Option<usize> {
        let leads = |p: &PeerView| p.leader;
        let all = Desk::new(&self.access).ok()?.peers().ok()?;
        let name = all.into_iter().find(leads)?.name?;
        self.members.iter().position(|m| m.name == name.as_str())
    }

    /// The router forgets whom it translates for and is away for so long; then it has another address.
    ///
    /// # Errors
    /// When its device cannot be changed.
    pub fn restart_router(&mut self, away: Duration) -> Result<()> {
        self.router
            .shell("ip link set eth0 down; ip addr flush dev eth0")?;
        std::thread::sleep(away);
        self.at = (self.at + 1) % ROUTER.len();
        let address = ROUTER[self.at];
        self.router.shell(&format!(
            "ip addr add {address}/24 dev eth0; ip link set eth0 up"
        ))?;
        Ok(())
    }

    /// Lets all that is stopped or cut go on, and all that has ended run again, whatever the last fault was.
    ///
    /// # Errors
    /// When something cannot be undone.
    pub fn heal(&mut self) -> Result<()> {
        self.mend()?;
        self.prompt()?;
        for etcd in &mut self.etcds {
            etcd.program.signal(Signal::CONT);
            if !etcd.program.is_up() {
                etcd.start()?;
            }
        }
        for member in &mut self.members {
            member.disk.free();
            if let Some(shim) = &member.shim {
                shim.set("");
            }
            member.program.signal(Signal::CONT);
            if !member.program.is_up() {
                member.start(&[])?;
            }
        }
        Ok(())
    }

    /// Stops all of them in order, workers first; then nothing of them is left.
    ///
    /// # Errors
    /// What did not end well, or what is left.
    pub fn end(mut self) -> Result<()> {
        for member in self.members.iter_mut().rev() {
            member.stop()?;
        }
        for member in self.members.drain(..) {
            member.assert_nothing_left()?;
        }
        for mut etcd in self.etcds.drain(..) {
            ensure!(etcd.program.kill(), "{} did not run", etcd.name);
        }
        drop(self.router);
        self.holders.kill_all();
        let left = self.holders.processes();
        ensure!(
            left.is_empty(),
            "processes that hold namespaces are left: {left:?}"
        );
        Ok(())
    }

    /// What every program printed, for the file of a failed run.
    pub fn logs(&self) -> Vec<(String, String)> {
        let all = self.members.iter();
        let all = all.map(|m| (m.name.clone(), m.printed()));
        let etcds = self
            .etcds
            .iter()
            .map(|e| (e.name.clone(), e.program.printed()));
        all.chain(etcds).collect()
    }
}
