//! The groups of tests: what each runs, and what it needs from the machine.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::build::TestProgram;
use super::readme;
use super::report::Outcome;
use super::session::{As, Session, is_root};
use crate::tidy;

/// A named part of the tests.
pub struct Group {
    /// What to call it on the command line.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// Whether it runs what the build made.
    pub needs_build: bool,
    /// What may run at the same time.
    pub beside: Beside,
    /// Runs it.
    pub run: fn(&Session<'_>) -> Result<Outcome>,
}

/// What may run at the same time as a group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Nothing: it is about time, memory or what a host has in all, or it uses every processor.
    Nothing,
    /// One that waits; it works most of the time.
    Waiting,
    /// One that works; it waits most of the time: for leases, elections and networks.
    Working,
}

/// All groups, in the order in which they run; those that have nothing beside them come first.
pub const GROUPS: &[Group] = &[
    Group {
        name: "tidy",
        about: "format, rings, sizes, purity, licences, docs, clippy",
        needs_build: false,
        beside: Beside::Waiting,
        run: tidy_group,
    },
    Group {
        name: "doc",
        about: "rustdoc without warnings",
        needs_build: false,
        beside: Beside::Waiting,
        run: doc,
    },
    Group {
        name: "unit",
        about: "unit, property, scenario and conformance tests",
        needs_build: true,
        beside: Beside::Nothing,
        run: unit,
    },
    Group {
        name: "store-crash",
        about: "the store killed at random moments under load",
        needs_build: true,
        beside: Beside::Nothing,
        run: |s| s.tests(&of(s, Kind::StoreCrash)?, As::Caller),
    },
    Group {
        name: "sim",
        about: "the control plane simulated from 2,000 seeds, and faults planted in it",
        needs_build: true,
        beside: Beside::Nothing,
        run: sim,
    },
    Group {
        name: "store-etcd",
        about: "the store, and servers, on a real etcd: conformance, leaders, kills, limits, TLS",
        needs_build: true,
        beside: Beside::Nothing,
        run: store_etcd,
    },
    Group {
        name: "lan",
        about: "servers that find each other on a local network, in a namespace of its own",
        needs_build: true,
        beside: Beside::Nothing,
        run: lan,
    },
    Group {
        name: "sandbox-root",
        about: "isolation and escape probes, as root",
        needs_build: true,
        beside: Beside::Nothing,
        run: sandbox_root,
    },
    Group {
        name: "sandbox-user",
        about: "the same as an ordinary user",
        needs_build: true,
        beside: Beside::Nothing,
        run: |s| as_user(s, Kind::Sandbox),
    },
    Group {
        name: "e2e",
        about: "the real binaries from end to end",
        needs_build: true,
        beside: Beside::Waiting,
        run: |s| s.tests(&of(s, Kind::EndToEnd)?, As::Caller),
    },
    Group {
        name: "cluster",
        about: "the same of several servers and workers: joins, leases, elections, networks",
        needs_build: true,
        beside: Beside::Working,
        run: |s| s.tests(&of(s, Kind::Cluster)?, As::Caller),
    },
    Group {
        name: "e2e-user",
        about: "those of them that run work, as an ordinary user",
        needs_build: true,
        beside: Beside::Waiting,
        run: |s| as_user(s, Kind::EndToEnd),
    },
    Group {
        name: "chaos",
        about: "three servers and five workers under kills, pauses, partitions, NAT and bad disks: 10 minutes, or PRISM_CHAOS_MINUTES",
        needs_build: true,
        beside: Beside::Working,
        run: chaos,
    },
    Group {
        name: "readme",
        about: "the commands that the README shows",
        needs_build: true,
        beside: Beside::Waiting,
        run: readme::run,
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unit,
    StoreCrash,
    StoreEtcd,
    Lan,
    Sandbox,
    EndToEnd,
    Cluster,
}

/// End-to-end tests of several servers and workers, which wait most of the time. The example is among the others: so both lanes
/// end at about the same time.
const OF_CLUSTERS: &[&str] = &[
    "capture",
    "cohort",
    "gossip",
    "ipv6",
    "members",
    "recovery",
    "rotation",
    "servers",
    "single_instance",
    "slow_members",
    "vault",
];

fn kind(program: &TestProgram) -> Kind {
    match program.package.as_str() {
        "prism-e2e" if program.target == "etcd" => Kind::StoreEtcd,
        "prism-e2e" if program.target == "lan" => Kind::Lan,
        "prism-e2e" if OF_CLUSTERS.contains(&program.target.as_str()) => Kind::Cluster,
        "prism-e2e" => Kind::EndToEnd,
        "prism-fuzz" if program.target == "listeners" => Kind::EndToEnd,
        "prism-sandbox" | "prism-sys" => Kind::Sandbox,
        "prism-etcd" => Kind::StoreEtcd,
        "prism-membership" if program.target == "mdns" => Kind::Lan,
        "prism-raft" if program.target.contains("crash") => Kind::StoreCrash,
        _ => Kind::Unit,
    }
}

fn of<'s>(session: &'s Session<'_>, wanted: Kind) -> Result<Vec<&'s TestProgram>> {
    let tests = session.built()?.tests.iter();
    Ok(tests.filter(|p| kind(p) == wanted).collect())
}

/// Of the unit tests those that wait: for leases, elections, timeouts of sockets.
const WAITING: &[(&str, &str)] = &[
    ("prism-bench", "quick"),
    ("prism-gateway", "access"),
    ("prism-gateway", "slow"),
    ("prism-gateway", "tls"),
    ("prism-members", "leader"),
    ("prism-members", "sessions"),
    ("prism-members", "vault"),
    ("prism-membership", "sockets"),
    ("prism-node", "labels"),
    ("prism-node", "resume"),
    ("prism-raft", "prism_raft"),
    ("prism-raft", "servers"),
    ("prism-vault", "speaks"),
];

/// Those that wait run beside the others.
fn unit(session: &Session<'_>) -> Result<Outcome> {
    let waits = |p: &&TestProgram| WAITING.contains(&(p.package.as_str(), p.target.as_str()));
    let all = of(session, Kind::Unit)?;
    let (waiting, working): (Vec<_>, Vec<_>) = all.into_iter().partition(waits);
    let other = session.beside()?;
    std::thread::scope(|scope| {
        let waited = scope.spawn(|| other.tests(&waiting, As::Caller));
        let worked = session.tests(&working, As::Caller);
        let waited = waited.join().expect("what runs tests does not panic");
        Ok(worked?.and(waited?))
    })
}

fn tidy_group(session: &Session<'_>) -> Result<Outcome> {
    let mut problems = tidy::problems(session.repo)?;
    let fmt = session.run(
        session
            .repo
            .cargo()
            .args(["fmt", "--all", "--", "--check", "-l"]),
    )?;
    if !fmt.ok {
        problems.push(format!(
            "not formatted; run `cargo xtask fix`:\n{}",
            fmt.output
        ));
    }
    let clippy = session.run(session.repo.cargo().args([
        "clippy",
        "--release",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    if !clippy.ok {
        problems.push(clippy.output);
    }
    Ok(Outcome::Ran {
        counts: Default::default(),
        ok: problems.is_empty(),
        output: problems.join("\n"),
    })
}

fn doc(session: &Session<'_>) -> Result<Outcome> {
    let mut command = session.repo.cargo();
    command.env("RUSTDOCFLAGS", "-D warnings").args([
        "doc",
        "--release",
        "--quiet",
        "--workspace",
        "--lib",
        "--no-deps",
    ]);
    session.check(&mut command)
}

/// 2,000 seeds on which everything has to hold, then the planted faults, each of which has to be found within 500.
fn sim(session: &Session<'_>) -> Result<Outcome> {
    let program = session.built()?.binaries.join("prism-sim");
    let seeds = session.run(Command::new(&program).args(["--seeds", "2000"]))?;
    let bugs = session.run(Command::new(&program).arg("--bugs"))?;
    let (ok, output) = (seeds.ok && bugs.ok, [seeds.output, bugs.output].concat());
    Ok(Outcome::Ran {
        counts: Default::default(),
        ok,
        output,
    })
}

fn store_etcd(session: &Session<'_>) -> Result<Outcome> {
    for program in ["etcd", "etcdctl"] {
        let there = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
        });
        if !there {
            let why = format!("no {program}; scripts/setup-test-host installs it");
            return Ok(Outcome::Skipped(why));
        }
    }
    session.tests(&of(session, Kind::StoreEtcd)?, As::Caller)
}

/// Network namespaces are root's here, and `ip` makes the network in them.
fn lan(session: &Session<'_>) -> Result<Outcome> {
    match no_namespace(session, "ip link set lo up") {
        None => session.tests(&of(session, Kind::Lan)?, As::Caller),
        Some(why) => Ok(Outcome::Skipped(why)),
    }
}

/// Why a line of shell does not work in a network namespace of its own, if it does not.
fn no_namespace(session: &Session<'_>, line: &str) -> Option<String> {
    let mut probe = Command::new("unshare");
    probe.args(["--net", "sh", "-ec", line]);
    match session.run(&mut probe) {
        Ok(ended) if ended.ok => None,
        Ok(ended) => Some(format!("no network namespace ({})", ended.output.trim())),
        Err(e) => Some(format!("{e:#}")),
    }
}

/// What the chaos run's network is made of, tried once.
const CHAOS_NETWORK: &str =
    "ip link set lo up; ip link add br0 type bridge; ip link add v0 type veth peer name v1
iptables -w -t nat -A POSTROUTING -o v0 -j MASQUERADE; cc --version > /dev/null";

/// As long as it is told, and what it needs beside: its begin, the last fault, and the look at everything.
fn chaos(session: &Session<'_>) -> Result<Outcome> {
    if !is_root() {
        return Ok(Outcome::Skipped("not root".to_owned()));
    }
    if let Some(why) = no_namespace(session, CHAOS_NETWORK) {
        return Ok(Outcome::Skipped(why));
    }
    let minutes = std::env::var("PRISM_CHAOS_MINUTES");
    let minutes: u64 = match &minutes {
        Ok(text) => text
            .parse()
            .with_context(|| format!("PRISM_CHAOS_MINUTES: expected a number, found {text:?}"))?,
        Err(_) => 10,
    };
    let binaries = &session.built()?.binaries;
    let mut command = Command::new(binaries.join("prism-chaos"));
    command
        .args(["--minutes", &minutes.to_string()])
        .env("PRISM_BIN_DIR", binaries)
        .env("PRISM_REPO_DIR", &session.repo.root);
    let limit = Duration::from_secs((minutes + 20) * 60);
    let ended = session.run_within(&mut command, limit)?;
    Ok(Outcome::Ran {
        counts: Default::default(),
        ok: ended.ok,
        output: ended.output,
    })
}

fn sandbox_root(session: &Session<'_>) -> Result<Outcome> {
    if !is_root() {
        return Ok(Outcome::Skipped("not root".to_owned()));
    }
    session.tests(&of(session, Kind::Sandbox)?, As::Caller)
}

/// End-to-end tests that are shown as an ordinary user as well: those of what runs sandboxes and processes, and of what people see. What
/// is said over a wire, among servers, or under faults of the disk is the same for every user.
const AS_USER_TOO: &[&str] = &[
    "array_killed",
    "golden_terminal",
    "hostile_paths",
    "jobs",
    "memory",
    "recoveries",
    "sandboxes",
    "shutdown",
    "surface",
    "sweep_killed",
    "sweeps",
];

fn as_user(session: &Session<'_>, wanted: Kind) -> Result<Outcome> {
    if wanted == Kind::EndToEnd && !is_root() {
        return Ok(Outcome::Skipped(
            "the e2e group ran as an ordinary user already".to_owned(),
        ));
    }
    match session.no_user_sandboxes()? {
        Some(why) => Ok(Outcome::Skipped(why)),
        None => {
            let mut programs = of(session, wanted)?;
            if wanted == Kind::EndToEnd {
                programs.retain(|p| AS_USER_TOO.contains(&p.target.as_str()));
            }
            session.tests(&programs, As::User)
        }
    }
}
