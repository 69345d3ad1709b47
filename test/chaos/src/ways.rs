//! The ways between the machines: what is cut, what is delayed, and how many packets met that.

use anyhow::{Result, ensure};
use prism_e2e::net::Machine;

use crate::delay::{Delay, Delayed};
use crate::member::Kind;
use crate::site::{ROUTER_PORT, Site};

impl Site {
    /// How many there are between whom packets go: the members, and after them those of the etcd.
    pub fn ends(&self) -> usize {
        self.members.len() + self.etcds.len()
    }

    /// Whether one is behind the router.
    fn is_far(&self, at: usize) -> bool {
        self.members.get(at).is_some_and(|m| m.kind == Kind::Far)
    }

    /// The machine whose packets one gets and sends: its own, or the router that it is behind.
    fn gate(&self, at: usize) -> &Machine {
        match self.members.get(at) {
            Some(member) if member.kind == Kind::Far => &self.router,
            Some(member) => &member.machine,
            None => &self.etcds[at - self.members.len()].machine,
        }
    }

    /// Where one's packets seem to come from.
    fn addresses(&self, at: usize) -> &[String] {
        match self.members.get(at) {
            Some(member) => &member.addresses,
            None => std::slice::from_ref(&self.etcds[at - self.members.len()].address),
        }
    }

    /// The number of its place on the bridge.
    fn port(&self, at: usize) -> usize {
        match at.checked_sub(self.members.len()) {
            Some(etcd) => ROUTER_PORT + 1 + etcd,
            None if self.is_far(at) => ROUTER_PORT,
            None => at,
        }
    }

    /// From now on `to` gets nothing that `from` sends.
    ///
    /// # Errors
    /// When the rule cannot be made.
    pub fn cut(&self, from: usize, to: usize) -> Result<()> {
        let rules: Vec<String> = self
            .addresses(from)
            .iter()
            .map(|a| format!("iptables -w -A chaos -s {a} -j DROP"))
            .collect();
        self.gate(to).shell(&rules.join("\n")).map(drop)
    }

    /// From now on every packet from and to one takes so many milliseconds more, each a time of its own between the two.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn delay(&mut self, at: usize, ms: (u64, u64)) -> Result<()> {
        ensure!(self.delay.is_none(), "only one is delayed at a time");
        self.delay = Some(Delay::begin(&self.holders, self.port(at), ms)?);
        Ok(())
    }

    /// Ends what [`Site::delay`] began, if it did; what it did.
    ///
    /// # Errors
    /// When it failed meanwhile, or cannot be undone.
    pub fn prompt(&mut self) -> Result<Delayed> {
        self.delay.take().map_or(Ok(Delayed::default()), Delay::end)
    }

    /// From now on nothing goes between these and all others.
    ///
    /// # Errors
    /// When a rule cannot be made.
    pub fn split(&self, these: &[usize]) -> Result<()> {
        // What is behind the router goes with it, on whichever side the first of it is.
        let others = (0..self.ends()).filter(|at| !these.contains(at));
        for other in others {
            for this in these {
                if self.is_far(other) && self.is_far(*this) {
                    continue;
                }
                self.cut(*this, other)?;
                self.cut(other, *this)?;
            }
        }
        Ok(())
    }

    /// Every machine that can be told to drop something.
    fn machines(&self) -> impl Iterator<Item = &Machine> {
        let own = self.members.iter().map(|m| &m.machine);
        own.chain(self.etcds.iter().map(|e| &e.machine))
            .chain([&self.router])
    }

    /// How many packets were dropped by what [`Site::cut`] did and is not ended.
    ///
    /// # Errors
    /// When the rules cannot be read.
    pub fn dropped(&self) -> Result<u64> {
        let mut dropped = 0;
        for machine in self.machines() {
            let listed = machine.shell("iptables -w -nvxL chaos")?;
            let packets = listed.lines().filter(|l| l.contains("DROP"));
            dropped += packets
                .filter_map(|l| l.split_whitespace().next()?.parse::<u64>().ok())
                .sum::<u64>();
        }
        Ok(dropped)
    }

    /// Ends everything that [`Site::cut`] did.
    ///
    /// # Errors
    /// When the rules cannot be removed.
    pub fn mend(&self) -> Result<()> {
        for machine in self.machines() {
            machine.shell("iptables -w -F chaos")?;
        }
        Ok(())
    }
}
