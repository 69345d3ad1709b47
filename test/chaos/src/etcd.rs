//! An etcd that keeps the cluster's state: three members, each in a network namespace on the bridge.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use prism_e2e::net::Machine;
use prism_e2e::{Place, Running, kill};
use rustix::process::Signal;

/// Members of the etcd.
pub const MEMBERS: usize = 3;
/// How long it may take to begin, and a member to end.
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
        all.iter_mut().try_for_each(Etcd::assert_runs)?;
        let said = String::from_utf8_lossy(&asked.stderr);
        ensure!(began.elapsed() < WAIT, "the etcd does not begin: {said}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A member of the etcd.
#[derive(Debug)]
pub struct Etcd {
    // Dropped in this order.
    running: Option<Running>,
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
            running: None,
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
        ensure!(!self.is_up(), "{} runs already", self.name);
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
        self.running = Some(self.place.launch(command));
        Ok(())
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Running::pid)
    }

    /// Whether it runs.
    pub fn is_up(&mut self) -> bool {
        self.running.as_mut().is_some_and(|r| !r.is_over())
    }

    /// Complains when it has ended by itself.
    ///
    /// # Errors
    /// Then, with what it said.
    pub fn assert_runs(&mut self) -> Result<()> {
        if self.running.is_none() || self.is_up() {
            return Ok(());
        }
        let said = self.printed();
        let tail = said.get(said.len().saturating_sub(2_000)..);
        let tail = tail.unwrap_or(&said);
        bail!("{} has ended by itself:\n{tail}", self.name)
    }

    /// Sends it a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(running) = &self.running {
            running.signal(signal);
        }
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it did not run.
    pub fn kill(&mut self) -> Result<()> {
        ensure!(self.is_up(), "{} did not run", self.name);
        if let Some(running) = self.running.take() {
            kill(running.pid());
            running.wait(WAIT);
        }
        Ok(())
    }

    /// What it has printed since its last start.
    pub fn printed(&self) -> String {
        let said = self.running.as_ref().map(Running::stderr);
        said.unwrap_or_default()
    }
}
