//! Escape probes: each tries a known way out of a sandbox, from inside, as root inside; all must fail. Inside as a task and as a
//! program in a running sandbox, in root's sandboxes and in a normal user's; and outside, where they must find the way open. A
//! host without Python fails these tests, it does not skip them.

#![expect(
    clippy::unwrap_used,
    reason = "tests with a main of their own; a panic is how they fail"
)]

mod probes;
#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::process::Command;

use prism_runtime::Isolation::Sandboxed;
use prism_runtime::{Image, InlineFile, Launch, Runtime, Scratch};
use prism_types::{Millis, StopCause};
use probes::{Control, Host, Probe, Verdict};
use support::{Node, id};

/// Fewest probes in each mode.
const PROBES_MIN: usize = 120;

fn mode() -> &'static str {
    if support::is_root() { "root" } else { "user" }
}

fn env(host: &Host, here: &str) -> Vec<(String, String)> {
    [
        ("FACTS", host.facts.as_str()),
        ("HERE", here),
        ("MODE", mode()),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .to_vec()
}

/// A launch with the probes of a family in it, ready to be run.
fn furnished(mut launch: Launch, probes: &[&Probe]) -> Launch {
    let file = |path: &str, content: String| InlineFile {
        path: path.into(),
        content: content.into_bytes().into(),
        mode: 0o644,
    };
    launch.files = vec![
        file("runner.py", probes::RUNNER.to_owned()),
        file("probes.json", probes::list(probes)),
    ];
    launch
}

const ARGV: &[&str] = &["python3", "/work/runner.py", "/work/probes.json"];

/// Checks that each probe of a run held, and tells of each.
fn check(node: &Node, run: &str, probes: &[&Probe], way: &str) -> Vec<String> {
    let report = node.wait_exit(&id(run));
    let said: BTreeMap<String, Verdict> = probes::verdicts(&node.stdout(run))
        .into_iter()
        .map(|v| (v.name.clone(), v))
        .collect();
    let mut failures = Vec::new();
    for probe in probes {
        let found = said.get(probe.name);
        let held = found.is_some_and(|v| v.held);
        let verdict = if held { "ok" } else { "FAILED" };
        println!(
            "test escape::{}::{} ({}, {way}) ... {verdict}",
            probe.family,
            probe.name,
            mode()
        );
        if !held {
            let said = found.map_or("said nothing", |v| v.said.as_str());
            failures.push(format!("{} ({way}): {said}", probe.name));
        }
    }
    if !failures.is_empty() {
        let err = node.output(run, "stderr");
        failures.push(format!("{report:?} {}", String::from_utf8_lossy(&err)));
    }
    failures
}

/// The probes by family.
fn by_family(probes: &[Probe]) -> Vec<(&'static str, Vec<&Probe>)> {
    probes::families()
        .map(|f| (f, probes.iter().filter(|p| p.family == f).collect()))
        .collect()
}

fn every_probe_fails_to_escape_from_a_task() {
    let (node, host, probes) = (Node::new(), Host::start(), probes::all());
    let families = by_family(&probes);
    let launch = |(family, probes): &(&str, Vec<&Probe>)| {
        let mut launch = furnished(node.task(family, Sandboxed, ""), probes);
        let program = launch.program.as_mut().unwrap();
        program.argv = ARGV.iter().map(|a| (*a).to_owned()).collect();
        program.env.extend(env(&host, "/work/here"));
        launch
    };
    node.rt()
        .launch(families.iter().map(launch).collect())
        .unwrap();
    let failures: Vec<String> = families
        .iter()
        .flat_map(|(family, probes)| check(&node, family, probes, "task"))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Programs in a running sandbox come in by another way than a task's.
fn every_probe_fails_to_escape_from_a_program_in_a_sandbox() {
    let (node, host, probes) = (Node::new(), Host::start(), probes::all());
    let families = by_family(&probes);
    for (family, probes) in &families {
        let name = format!("box-{family}");
        node.rt()
            .launch(vec![furnished(node.sandbox(&name), probes)])
            .unwrap();
        let mut exec = node.exec(family, &name, ARGV);
        exec.program.env.extend(env(&host, "/work/here"));
        node.rt().exec(exec).unwrap();
    }
    let mut failures = Vec::new();
    for (family, probes) in &families {
        failures.extend(check(&node, family, probes, "exec"));
        let name = id(&format!("box-{family}"));
        node.rt().stop(&[name], Millis(0)).unwrap();
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Runs all probes outside, begun by `wrapper`; what they say.
fn outside(host: &Host, probes: &[Probe], wrapper: &[&str]) -> Vec<Verdict> {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let runner = file("runner.py", probes::RUNNER);
    let list: Vec<&Probe> = probes.iter().collect();
    let list = file("probes.json", &probes::list(&list));
    let here = dir.path().join("here");
    let output = Command::new(wrapper[0])
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .args(&wrapper[1..])
        .arg("python3")
        .args([&runner, &list])
        .envs(env(host, here.to_str().unwrap()))
        .env("OUTSIDE", "1")
        .env("SECRET", "of the host")
        .output()
        .unwrap();
    probes::verdicts(&String::from_utf8_lossy(&output.stdout))
}

/// A probe that fails whatever it meets shows nothing; so each finds its way open outside, where it is open: as root of the host
/// (in a mount namespace that is thrown away), or as a normal user, with and without a user namespace of its own.
fn every_probe_finds_the_way_open_outside() {
    let (host, probes) = (Host::start(), probes::all());
    let wrappers: &[&[&str]] = if support::is_root() {
        &[&["unshare", "-m", "--propagation", "private"]]
    } else {
        &[&["env"], &["unshare", "-Urm"]]
    };
    let found: Vec<Verdict> = wrappers
        .iter()
        .flat_map(|wrapper| outside(&host, &probes, wrapper))
        .collect();
    let open = |p: &Probe| {
        let mut said = found.iter().filter(|v| v.name == p.name);
        said.any(|v| v.clear && !v.held)
    };
    let expected = |p: &Probe| match p.control {
        Control::Both => true,
        Control::Root => support::is_root(),
        Control::Route => host.fact("route") == true,
        Control::None => false,
    };
    let mut missing = Vec::new();
    for probe in probes.iter().filter(|p| expected(p) && !open(p)) {
        let said = found.iter().filter(|v| v.name == probe.name);
        let said: Vec<&str> = said.map(|v| v.said.as_str()).collect();
        missing.push(format!("{}: {said:?}", probe.name));
    }
    let count = probes.iter().filter(|p| open(p)).count();
    println!(
        "escape: {count} of {} probes find the way open outside ({})",
        probes.len(),
        mode()
    );
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// Enough of them, each with a name of its own and what it stands for, and none of a family without a control; and the page that
/// tells of them counts them as they are.
fn the_table_of_probes_is_as_told() {
    let probes = probes::all();
    assert!(probes.len() >= PROBES_MIN, "{}", probes.len());
    let names: BTreeSet<&str> = probes.iter().map(|p| p.name).collect();
    assert_eq!(names.len(), probes.len(), "a name is there twice");
    for probe in &probes {
        assert!(
            probe.stands_for.len() > 3,
            "{}: stands for what?",
            probe.name
        );
        assert!(probe.source.contains("must("), "{}: no check", probe.name);
    }
    let controlled = |f: &Control| probes.iter().filter(|p| p.control == *f).count();
    let (both, root) = (controlled(&Control::Both), controlled(&Control::Root));
    let (route, none) = (controlled(&Control::Route), controlled(&Control::None));
    for (family, probes) in by_family(&probes) {
        let both = probes.iter().filter(|p| p.control == Control::Both);
        assert!(both.count() > 0, "no control in {family}");
    }
    let page = include_str!("../../../../SECURITY.md");
    let told = [
        format!("| escape probes | {} | {} |", probes.len(), probes.len()),
        format!(
            "| of them open outside of a sandbox | {} | {} |",
            both + root + route,
            both + route
        ),
    ];
    for line in told {
        assert!(page.contains(&line), "SECURITY.md lacks {line:?}");
    }
    assert_eq!(both + root + route + none, probes.len());
}

/// A working directory that is a leaked descriptor of whoever started it (CVE-2024-21626).
fn a_directory_by_descriptor_leads_nowhere() {
    let node = Node::new();
    for fd in 0..24 {
        let name = format!("fd{fd}");
        let mut launch = node.task(
            &name,
            Sandboxed,
            "pwd -P; ls /proc/self/cwd/../../../../../home",
        );
        launch.program.as_mut().unwrap().cwd = format!("/proc/self/fd/{fd}");
        let report = node.run(launch);
        if report.cause != StopCause::StartFailed {
            let out = node.stdout(&name);
            assert!(!out.contains("unreachable"), "{fd}: {out}");
            assert!(
                out.starts_with('/') && out.lines().count() == 1,
                "{fd}: {out}"
            );
        }
    }
}

/// Images whose /dev, /proc, /tmp, /work or /run lead out (CVE-2019-19921, CVE-2023-27561, CVE-2021-30465).
fn links_in_images_lead_nowhere() {
    let node = Node::new();
    let outside = node.dir.join("outside");
    std::fs::create_dir(&outside).unwrap();
    let image = node.dir.join("image");
    std::fs::create_dir_all(image.join("etc")).unwrap();
    for name in ["dev", "proc", "run", "tmp", "work", "home"] {
        symlink(&outside, image.join(name)).unwrap();
    }
    let mut launch = node.sandbox("links");
    launch.image = Image::Layers(vec![image.clone()]);
    launch.files = vec![InlineFile {
        path: "file".into(),
        content: b"x".as_slice().into(),
        mode: 0o644,
    }];
    node.rt().launch(vec![launch]).unwrap();
    node.wait_start(&id("links"));
    let root = node.rt().root(&id("links")).unwrap();
    assert!(
        std::fs::symlink_metadata(root.join("dev/null")).is_ok(),
        "/dev is there"
    );
    assert!(
        std::fs::symlink_metadata(root.join("work/file")).is_ok(),
        "/work/file is there"
    );
    assert_eq!(
        std::fs::read_dir(&outside).unwrap().count(),
        0,
        "something was made outside"
    );
    // The same in the upper layer of a scratch directory, as a hostile archive would have it.
    let scratch = node.dir.join("scratch");
    std::fs::create_dir_all(scratch.join("upper")).unwrap();
    for name in ["dev", "proc", "usr", "run", "tmp", "work", "home"] {
        symlink(&outside, scratch.join("upper").join(name)).unwrap();
    }
    let mut launch = node.task("upper", Sandboxed, "true");
    launch.scratch = Scratch::Disk {
        dir: scratch,
        bytes: prism_types::Bytes(0),
    };
    let report = node.run(launch);
    assert_eq!(report.cause, StopCause::StartFailed, "{report:?}");
    assert!(report.detail.contains("not a directory"), "{report:?}");
    assert_eq!(
        std::fs::read_dir(&outside).unwrap().count(),
        0,
        "something was made outside"
    );
}

fn main() {
    support::run(
        "escape",
        &[
            (
                "every_probe_fails_to_escape_from_a_task",
                every_probe_fails_to_escape_from_a_task,
            ),
            (
                "every_probe_fails_to_escape_from_a_program_in_a_sandbox",
                every_probe_fails_to_escape_from_a_program_in_a_sandbox,
            ),
            (
                "the_table_of_probes_is_as_told",
                the_table_of_probes_is_as_told,
            ),
            (
                "every_probe_finds_the_way_open_outside",
                every_probe_finds_the_way_open_outside,
            ),
            (
                "a_directory_by_descriptor_leads_nowhere",
                a_directory_by_descriptor_leads_nowhere,
            ),
            ("links_in_images_lead_nowhere", links_in_images_lead_nowhere),
        ],
        &[],
    );
}
