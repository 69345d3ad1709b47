//! One epoch: load, a fault in the middle of it, recovery, and a look at everything that was acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use prism_e2e::chaos::{Daemon, Load, Loaded, Random, Shim, work};
use prism_e2e::{Oracle, Process, Sandboxes, until};

use crate::RECENT;
use crate::counts::Counts;
use crate::fault::Fault;

/// How far an epoch is: says what an error in it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Work is given, and the fault.
    Load,
    /// It comes back, and what ran before is stopped.
    Recovery,
    /// What was acknowledged is looked for.
    Check,
}

/// An epoch.
pub struct Epoch<'e> {
    pub number: usize,
    pub fault: Fault,
    pub phase: Phase,
    pub daemon: &'e mut Daemon,
    pub shim: &'e Shim,
    pub random: &'e mut Random,
    pub counts: &'e mut Counts,
    pub oracles: &'e mut Vec<Oracle>,
}

impl Epoch<'_> {
    /// All of it.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub fn run(&mut self) -> Result<()> {
        let api = self.daemon.api().clone();
        let mut oracle = Oracle::new(&api, &format!("e{}", self.number))?;
        let sandbox = match self.random.below(2) {
            0 => Some(oracle.sandbox(&api)?),
            _ => None,
        };
        let sweep = (self.random.below(3) == 0).then(|| work::sweep(&oracle.api(&api)));
        if self.fault == Fault::KillRun {
            let tasks = work::run_killed(
                self.random,
                &self.daemon.place,
                &format!("run-{}", self.number),
                3,
            );
            self.counts.run(tasks);
        }
        let given = self.shim.given();
        let (orphans, loaded) = self.load(&mut oracle, sandbox);
        self.counts.loaded(&loaded);
        self.phase = Phase::Recovery;
        self.recover(&mut oracle, &orphans, given)?;
        self.phase = Phase::Check;
        let api = self.daemon.api().clone();
        let sandboxes = if self.fault.ends_sandboxes() {
            Sandboxes::MayBeLost
        } else {
            Sandboxes::Live
        };
        oracle.check(&api, sandboxes)?;
        if let Some(sweep) = sweep {
            work::check_sweep(&oracle.api(&api), &sweep);
            self.counts.sweep();
        }
        if self.fault == Fault::None || self.random.below(4) == 0 {
            work::control(&oracle.api(&api), self.number);
            self.counts.control();
        }
        self.remove_sandboxes(&oracle)?;
        self.counts.acknowledged(oracle.acknowledged());
        self.oracles.push(oracle);
        let recent = self.oracles.len().saturating_sub(RECENT);
        for oracle in &mut self.oracles[recent..] {
            oracle.check(&api, Sandboxes::MayBeLost)?;
        }
        self.daemon.place.assert_no_panic();
        self.counts.survived(self.fault);
        Ok(())
    }

    /// Load with the fault in the middle of it.
    fn load(&mut self, oracle: &mut Oracle, sandbox: Option<usize>) -> (Vec<Process>, Loaded) {
        let stop = AtomicBool::new(false);
        let api = self.daemon.api().clone();
        let load = Load {
            tasks: 50 + self.random.below(250),
            jobs: 12,
            sandbox,
        };
        let moment = self.random.moment(400);
        let after = u32::try_from(self.random.below(10)).unwrap_or(0);
        let mut choices = Random::of("load", self.random.number());
        std::thread::scope(|scope| {
            let loading = scope.spawn(|| load.run(oracle, &api, &mut choices, &stop));
            std::thread::sleep(moment);
            self.fault.begin(self.shim, self.daemon, after);
            let orphans = self.kill();
            stop.store(self.fault.is_kill(), Ordering::Relaxed);
            (orphans, loading.join().expect("the load does not panic"))
        })
    }

    fn kill(&mut self) -> Vec<Process> {
        match self.fault {
            Fault::KillPrismd => {
                self.daemon.kill();
                Vec::new()
            }
            Fault::KillSupervisor => self.daemon.kill_supervisor(),
            Fault::KillBoth => {
                let orphans = self.daemon.kill_supervisor();
                self.daemon.kill();
                orphans
            }
            _ => Vec::new(),
        }
    }

    /// Ends the fault; everything runs again then.
    fn recover(&mut self, oracle: &mut Oracle, orphans: &[Process], given: u32) -> Result<()> {
        if self.fault.ends_prismd() {
            // Whatever it does next meets the fault, if the load has not.
            let api = self.daemon.api().clone();
            until("prismd to end", || {
                let headers = [("content-type", "application/json")];
                let body = br#"{"name": "probe", "role": "viewer"}"#;
                // It may be the one that meets the fault.
                let _ = api.try_send("POST", "/api/v1/tokens", &headers, body);
                (!self.daemon.is_up()).then_some(())
            });
            let output = self.daemon.ended();
            ensure!(output.code == Some(70), "{}", output.stderr);
        } else if !self.fault.is_kill() && self.fault != Fault::None {
            until("the fault to be met", || {
                let met = self.shim.given() > given;
                if !met {
                    // It came after the load: a little more meets it. Without an answer it is asked for again later.
                    let _ = oracle.submit(self.daemon.api(), 2);
                }
                met.then_some(())
            });
        }
        self.shim.set("");
        if !self.daemon.is_up() {
            self.daemon.start().context("starting again")?;
        }
        self.daemon.supervisor();
        until("the orphans to be stopped", || {
            (!orphans.iter().any(|o| o.is_alive())).then_some(())
        });
        Ok(())
    }

    /// What is not needed any more: the node's memory is for the next ones.
    fn remove_sandboxes(&self, oracle: &Oracle) -> Result<()> {
        let api = oracle.api(self.daemon.api());
        let list = api
            .try_send("GET", "/api/v1/sandboxes?limit=1000", &[], b"")?
            .json();
        for sandbox in list["items"].as_array().into_iter().flatten() {
            if sandbox["status"] == "RUNNING" {
                let id = sandbox["id"].as_str().unwrap_or_default();
                let answer =
                    api.try_send("DELETE", &format!("/api/v1/sandboxes/{id}"), &[], b"")?;
                ensure!(answer.status < 300, "deleting {id}: {}", answer.text());
            }
        }
        Ok(())
    }
}
