//! An etcd that keeps the cluster's state: three members, each in a network namespace on the bridge.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prism_e2e::Place;
use prism_e2e::net::Machine;

use crate::program::Program;

/// Members of the etcd.
pub const MEMBERS: usize = 3;
/// How long it may take to begin.
const WAIT: Duration = Duration::from_secs(60);

/// Where a member is.
pub fn address(n: usize) -> String {
    format!("10.73.0.{}", 21 + n)
}

fn name(n: usize) -> String {
    format!("e{}", n + 1)
}

fn endpoints(all: &[Etcd]) -> String {
    let urls: Vec<String> = all.iter().map(Etcd::url).collect();
    urls.join(",")
}

/// What a server is told of the etcd that keeps its state; nothing when none does.
pub fn arguments(all: &[Etcd]) -> Vec<String> {
    if all.is_empty() {
        return Vec::new();
    }
    let at = format!("--etcd-endpoints={}", endpoints(all));
    vec![
        "--store=etcd".to_owned(),
        at,
        "--etcd-prefix=/chaos/".to_owned(),
    ]
}

/// Starts all members, and waits until they have found each other.
///
/// # Errors
/// When they do not.
pub fn begin(all: &mut [Etcd]) -> Result<()> {
    for etcd in all.iter_mut() {
        etcd.start()?;
    }
    let began = Instant::now();
    loop {
        let asked = std::process::Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", endpoints(all)))
            .args(["endpoint", "health"])
            .output();
        let asked = asked.context("starting etcdctl; scripts/setup-test-host installs it")?;
        if asked.status.success() {
            return Ok(());
        }
        all.iter_mut().try_for_each(|e| e.program.assert_runs())?;
        let said = String::from_utf8_lossy(&asked.stderr);
        ensure!(began.elapsed() < WAIT, "the etcd does not begin: {said}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A member of the etcd.
#[derive(Debug)]
pub struct Etcd {
    // Dropped in this order.
    /// Its process.
    pub program: Program,
    place: Place,
    /// Its network.
    pub machine: Machine,
    /// Its name.
    pub name: String,
    /// Where it is reached.
    pub address: String,
}

impl Etcd {
    /// One that does not run yet.
    pub fn new(n: usize, machine: Machine) -> Self {
        Self {
            program: Program::new(name(n)),
            place: Place::new(),
            machine,
            name: name(n),
            address: address(n),
        }
    }

    fn url(&self) -> String {
        format!("http://{}:2379", self.address)
    }

    /// Starts it, with the data that it has.
    ///
    /// # Errors
    /// When it runs already.
    pub fn start(&mut self) -> Result<()> {
        let peer = |n: usize| format!("{}=http://{}:2380", name(n), address(n));
        let cluster: Vec<String> = (0..MEMBERS).map(peer).collect();
        let own = format!("http://{}:2380", self.address);
        let mut command = self.machine.command("etcd");
        command
            .arg(format!("--name={}", self.name))
            .arg(format!("--data-dir={}", self.place.data().display()))
            .arg(format!("--listen-client-urls={}", self.url()))
            .arg(format!("--advertise-client-urls={}", self.url()))
            .arg(format!("--listen-peer-urls={own}"))
            .arg(format!("--initial-advertise-peer-urls={own}"))
            .arg(format!("--initial-cluster={}", cluster.join(",")))
            .args(["--logger=zap", "--log-level=warn"]);
        self.program.start(&self.place, command)
    }
}
