//! The table of escape probes: Python, one file for each family. A probe begins with a line `#: name | what it stands for`, and
//! may say in a third part when its control (the same probe outside of a sandbox) finds the way open: `root` where only root of
//! the host can go it, `route` where the host has a route to the world, `none` where a correct kernel closes it to everybody or the host lacks what it takes.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};

/// When the same probe, run outside, must find its way open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// As root and as a normal user.
    Both,
    /// As root only.
    Root,
    /// As both, on a host with a default route.
    Route,
    /// Never.
    None,
}

/// A way out.
#[derive(Clone, Debug)]
pub struct Probe {
    pub family: &'static str,
    pub name: &'static str,
    /// The CVE or technique.
    pub stands_for: &'static str,
    pub control: Control,
    pub source: &'static str,
}

/// Runs the probes it is given.
pub const RUNNER: &str = include_str!("runner.py");

/// Holds on the host what the probes look for.
const HOST: &str = include_str!("host.py");

const FAMILIES: &[(&str, &str)] = &[
    ("descriptors", include_str!("descriptors.py")),
    ("proc", include_str!("proc.py")),
    ("mounts", include_str!("mounts.py")),
    ("devices", include_str!("devices.py")),
    ("privilege", include_str!("privilege.py")),
    ("processes", include_str!("processes.py")),
    ("kernel", include_str!("kernel.py")),
    ("network", include_str!("network.py")),
    ("resources", include_str!("resources.py")),
];

/// Names of the families.
pub fn families() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|(name, _)| *name)
}

/// Every probe.
pub fn all() -> Vec<Probe> {
    FAMILIES
        .iter()
        .flat_map(|(family, text)| text.split("\n#: ").skip(1).map(|part| parse(family, part)))
        .collect()
}

fn parse(family: &'static str, part: &'static str) -> Probe {
    let (header, source) = part.split_once('\n').unwrap();
    let mut fields = header.split(" | ").map(str::trim);
    Probe {
        family,
        name: fields.next().unwrap(),
        stands_for: fields.next().unwrap_or(""),
        control: match fields.next() {
            None => Control::Both,
            Some("root") => Control::Root,
            Some("route") => Control::Route,
            Some("none") => Control::None,
            Some(other) => panic!("{header}: no control {other:?}"),
        },
        source,
    }
}

/// The runner's input.
pub fn list(probes: &[&Probe]) -> String {
    let list: Vec<(&str, &str)> = probes.iter().map(|p| (p.name, p.source)).collect();
    serde_json::to_string(&list).unwrap()
}

/// What a probe said.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub name: String,
    pub held: bool,
    /// Whether it ran to its end, so that `held` means something.
    pub clear: bool,
    pub said: String,
}

/// The runner's output.
pub fn verdicts(output: &str) -> Vec<Verdict> {
    let line = |line: &str| {
        let mut fields = line.splitn(3, '\t');
        let name = fields.next().unwrap_or_default().to_owned();
        let verdict = fields.next().unwrap_or_default();
        let said = fields.next().unwrap_or_default();
        Verdict {
            name,
            held: verdict == "HELD",
            clear: matches!(verdict, "HELD" | "ESCAPED"),
            said: format!("{verdict} {said}"),
        }
    };
    output.lines().map(line).collect()
}

/// A process of the host that a sandbox must not reach; it goes when this is dropped.
pub struct Host {
    child: Child,
    input: Option<ChildStdin>,
    /// What it holds, as JSON.
    pub facts: String,
}

impl Host {
    pub fn start() -> Self {
        let mut child = Command::new("python3")
            .env("PATH", "/usr/bin:/bin")
            .args(["-c", HOST])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut facts = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut facts).unwrap();
        assert!(facts.starts_with('{'), "the host's process did not start");
        Self {
            input: child.stdin.take(),
            child,
            facts: facts.trim().to_owned(),
        }
    }

    /// A fact.
    pub fn fact(&self, name: &str) -> serde_json::Value {
        let facts: serde_json::Value = serde_json::from_str(&self.facts).unwrap();
        facts[name].clone()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
