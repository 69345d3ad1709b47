//! Promise: killed at any moment under load, `prismd`, its supervisor, both, or `prismctl run` come back with everything that was
//! acknowledged, each task with one result, and nothing left over of what ran.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use prism_e2e::chaos::{Daemon, Load, Loaded, Random, work};
use prism_e2e::{Api, Leftovers, Oracle, Place, Process, Sandboxes, until};
use serde_json::Value;

/// Recoveries of a kind: as root, and as an ordinary user, where the same is shown a second time.
fn rounds(root: u32, user: u32) -> u32 {
    if rustix::process::geteuid().is_root() {
        root
    } else {
        user
    }
}

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Prismd,
    Supervisor,
    Both,
}

impl Victim {
    fn sandboxes(self) -> Sandboxes {
        match self {
            Self::Prismd => Sandboxes::Live,
            Self::Supervisor | Self::Both => Sandboxes::MayBeLost,
        }
    }
}

/// A daemon under load with all that it acknowledged.
struct Round<'r> {
    daemon: &'r mut Daemon,
    random: &'r mut Random,
    victim: Victim,
}

impl Round<'_> {
    /// Load, a kill in the middle of it, and a start; what ran under a killed supervisor is gone then.
    fn run(&mut self, oracle: &mut Oracle, sandbox: Option<usize>) -> Loaded {
        let stop = AtomicBool::new(false);
        let api = self.daemon.api().clone();
        let load = Load {
            tasks: 150 + self.random.below(150),
            jobs: 12,
            sandbox,
        };
        let moment = self.random.moment(350);
        let mut choices = Random::of("load", self.random.number());
        let (orphans, loaded) = std::thread::scope(|scope| {
            let loading = scope.spawn(|| load.run(oracle, &api, &mut choices, &stop));
            // The moment is the test's input; what follows holds for every moment.
            std::thread::sleep(moment);
            let orphans = self.kill();
            stop.store(true, Ordering::Relaxed);
            (orphans, loading.join().expect("the load does not panic"))
        });
        if self.victim != Victim::Supervisor {
            self.daemon.start().expect("it starts again");
        }
        self.daemon.supervisor();
        until("the orphans to be stopped", || {
            (!orphans.iter().any(|o| o.is_alive())).then_some(())
        });
        loaded
    }

    fn kill(&mut self) -> Vec<Process> {
        let mut orphans = Vec::new();
        if self.victim == Victim::Both && self.random.below(2) == 0 {
            self.daemon.kill();
        }
        if self.victim != Victim::Prismd {
            orphans = self.daemon.kill_supervisor();
        }
        if self.victim != Victim::Supervisor {
            self.daemon.kill();
        }
        orphans
    }
}

/// No task of these jobs was tried more often than losses explain.
fn check_attempts(api: &Api, jobs: &[String], most: u64) {
    for job in jobs {
        let path = format!("/api/v1/jobs/{job}/results");
        let text = api.get(&path).expect(200).text();
        for line in text.lines() {
            let result: Value = serde_json::from_str(line).expect("a result is JSON");
            let attempt = result["attempt"].as_u64().expect("a number");
            assert!((1..=most).contains(&attempt), "{result}");
        }
    }
}

/// Kills again and again; checks what each round was told after it, and all of it at the end.
fn recover(victim: Victim, rounds: u32) {
    let began = Instant::now();
    let mut random = Random::new(&format!("recoveries of {victim:?}"));
    let mut daemon = Daemon::new();
    daemon.start().expect("it starts");
    let mut keeper = Oracle::new(daemon.api(), "keeper").expect("an oracle");
    let mut sandbox = keeper.sandbox(daemon.api()).expect("a sandbox");
    let mut leftovers = Leftovers::default();
    leftovers.note(&daemon.place);
    let mut told = Vec::new();
    let mut sweeps = Vec::new();
    for n in 0..rounds {
        if n % 8 == 3 {
            sweeps.push(work::sweep(&keeper.api(daemon.api())));
        }
        let mut oracle = Oracle::new(daemon.api(), &format!("r{n}")).expect("an oracle");
        let content = format!("round {n}");
        keeper
            .file(daemon.api(), sandbox, content.as_bytes())
            .expect("a file");
        let own = (n % 5 == 0).then(|| oracle.sandbox(daemon.api()).expect("a sandbox"));
        let mut round = Round {
            daemon: &mut daemon,
            random: &mut random,
            victim,
        };
        let loaded = round.run(&mut oracle, own);
        let api = daemon.api().clone();
        let checked = oracle.check(&api, victim.sandboxes());
        checked.unwrap_or_else(|e| panic!("round {n}: {e:?}\n{}", daemon.stderr()));
        check_attempts(&oracle.api(&api), &loaded.ids, 3);
        if victim != Victim::Prismd {
            keeper.check(&api, Sandboxes::MayBeLost).expect("a reason");
            lost_with_reason(&keeper.api(&api));
            sandbox = keeper.sandbox(&api).expect("a sandbox");
        }
        told.push(oracle);
    }
    let api = daemon.api().clone();
    for oracle in told.iter_mut().chain([&mut keeper]) {
        oracle
            .check(&api, victim.sandboxes())
            .expect("all is there");
    }
    sweeps
        .iter()
        .for_each(|id| work::check_sweep(&keeper.api(&api), id));
    let tasks: u64 = told.iter().map(|o| o.acknowledged().tasks).sum();
    daemon.place.assert_no_panic();
    end(&mut daemon, &leftovers);
    println!(
        "recoveries of {victim:?}: {rounds}, {tasks} tasks acknowledged, 0 lost, 0 doubled, {} s",
        began.elapsed().as_secs()
    );
}

/// No sandbox is said to run whose supervisor died.
fn lost_with_reason(api: &Api) {
    until("every sandbox to be lost or stopped", || {
        let list = api.get("/api/v1/sandboxes?limit=1000").expect(200).json();
        let all = list["items"].as_array().expect("a list").iter();
        let running = all.filter(|s| s["status"] == "RUNNING").count();
        (running == 0).then_some(())
    });
}

/// Ends it in order; nothing is left.
fn end(daemon: &mut Daemon, leftovers: &Leftovers) {
    daemon.stop().expect("it runs").expect(0);
    leftovers.assert_none(&daemon.place);
}

#[test]
fn prismd_is_killed_under_load_and_nothing_is_lost() {
    recover(Victim::Prismd, rounds(80, 24));
}

#[test]
fn the_supervisor_is_killed_under_load_and_its_work_is_retried() {
    recover(Victim::Supervisor, rounds(50, 14));
}

#[test]
fn both_are_killed_under_load_and_nothing_is_lost() {
    recover(Victim::Both, rounds(40, 12));
}

#[test]
fn prismctl_run_is_killed_and_goes_on_where_it_was() {
    let mut random = Random::new("recoveries of prismctl run");
    let place = Place::new();
    let runs = rounds(5, 2);
    for n in 0..runs {
        work::run_killed(&mut random, &place, &format!("run-{n}"), 6);
    }
    place.assert_no_panic();
    println!(
        "recoveries of prismctl run: {}, 0 lost, 0 doubled",
        runs * 6
    );
}
