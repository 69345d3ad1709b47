//! Promise: the example of a whole cluster does what its README says: three servers and three workers, the leader killed, a worker cut
//! off, and in the end every result is there once. With fewer tasks than people see by default.

use std::process::Command;
use std::time::Duration;

use prism_e2e::{Output, Place};
use prism_store_kit::etcd::has_etcd;

/// Most time for one run; it takes half a minute on a machine that has nothing else to do.
const LIMIT: Duration = Duration::from_secs(600);

fn run(args: &[&str]) -> Output {
    let place = Place::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/cluster/run.sh");
    let prismd = place.command("prismd");
    let programs = std::path::Path::new(prismd.get_program());
    let programs = programs.parent().expect("it is in a directory");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(programs.to_owned()).chain(std::env::split_paths(&path));
    let mut command = Command::new("bash");
    command
        .arg(script)
        .args(args)
        .current_dir(place.work())
        .env("TMPDIR", place.path().join("tmp"))
        .env("PATH", std::env::join_paths(all).expect("paths"))
        // Whoever runs the tests from inside of a namespace: the script makes its own all the same.
        .env_remove("CLUSTER_INSIDE");
    place.launch(command).wait(LIMIT)
}

#[track_caller]
fn all_is_told(output: &Output, tasks: u32) {
    let said = &output.stdout;
    let lines = [
        "is killed".to_owned(),
        "leads\n".to_owned(),
        "w2 is cut off until it is given up\n".to_owned(),
        "w2 is OFFLINE since ".to_owned(),
        "w2 is there again\n".to_owned(),
        format!("{tasks} results of {tasks} tasks, {tasks} of them distinct"),
    ];
    let mut at = 0;
    for line in &lines {
        let found = said[at..].find(line.as_str());
        at += found.unwrap_or_else(|| panic!("{line}: {said}\n{}", output.stderr));
    }
}

#[test]
fn machines_behind_a_router_and_servers_that_keep_the_state() {
    let output = run(&["--namespaces", "400"]).expect(0);
    all_is_told(&output, 400);
}

#[test]
fn machines_behind_a_router_and_an_etcd_that_keeps_the_state() {
    if !has_etcd() {
        return;
    }
    let output = run(&["--namespaces", "--store=etcd", "400"]).expect(0);
    all_is_told(&output, 400);
}

#[test]
fn processes_beside_each_other() {
    let output = run(&["300"]).expect(0);
    all_is_told(&output, 300);
}
