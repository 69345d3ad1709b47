//! Promise: what ran goes on when only `prismd` dies, and nothing is left when it is told to end.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use prism_e2e::{Server, until};
use serde_json::json;

fn mounts_beneath(directory: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("this is Linux");
    let prefix = directory.to_string_lossy().into_owned();
    mounts
        .lines()
        .filter(|l| {
            l.split(' ')
                .nth(1)
                .is_some_and(|target| target.starts_with(&prefix))
        })
        .map(str::to_owned)
        .collect()
}

/// Names of the groups `prism/NAME` that processes of a place are in.
fn cgroup_names(server: &Server) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for process in server.place.processes() {
        let pid = process.split(' ').next().unwrap_or_default();
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        names.extend(groups.lines().filter_map(|line| {
            let (_, rest) = line.split_once("/prism/")?;
            Some(rest.split('/').next()?.to_owned())
        }));
    }
    names
}

/// Every control group with one of these names.
fn cgroups(names: &BTreeSet<String>) -> Vec<PathBuf> {
    fn walk(directory: &Path, depth: u32, names: &BTreeSet<String>, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if depth > 0 && entry.file_type().is_ok_and(|t| t.is_dir()) {
                if entry
                    .file_name()
                    .to_str()
                    .is_some_and(|n| names.contains(n))
                {
                    into.push(entry.path());
                }
                walk(&entry.path(), depth - 1, names, into);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), 6, names, &mut found);
    found
}

#[test]
fn a_task_and_a_sandbox_outlive_prismd() {
    let mut server = Server::start();
    let resources = json!({"cpu": "100m", "memory": "32Mi"});
    let sandbox = json!({"name": "survivor", "resources": resources});
    server.api().post("/api/v1/sandboxes", &sandbox).expect(201);
    let write = [
        "sandbox",
        "exec",
        "survivor",
        "--",
        "sh",
        "-c",
        "echo kept > /work/state",
    ];
    server.ctl(&write).expect(0);
    let command =
        "echo begun; i=0; while [ $i -lt 40 ]; do sleep 0.1; i=$((i+1)); done; echo ended";
    let id = server.submit(
        &json!({"job": "survivor", "command": ["sh", "-c", command], "resources": resources}),
    );
    until("its first output", || {
        let answer = server.api().get(&format!("/api/v1/jobs/{id}/logs?task=0"));
        (answer.status == 200 && answer.text() == "begun\n").then_some(())
    });
    server.kill();
    server.restart();
    let view = server.finished(&id);
    assert_eq!(view["status"], "COMPLETED", "{view}");
    let result = &server.results(&id)[0];
    assert_eq!(result["attempt"], 1, "it was not run again: {result}");
    let logs = server
        .api()
        .get(&format!("/api/v1/jobs/{id}/logs?task=0"))
        .expect(200)
        .text();
    assert_eq!(logs, "begun\nended\n");
    let read = server
        .ctl(&["sandbox", "exec", "survivor", "--", "cat", "/work/state"])
        .expect(0);
    assert_eq!(read.stdout, "kept\n");
}

#[test]
fn nothing_is_left_after_prismd_was_told_to_end() {
    let mut server = Server::start();
    let resources = json!({"cpu": "100m", "memory": "32Mi"});
    let id = server
        .submit(&json!({"job": "some", "command": ["true"], "array": 20, "resources": resources}));
    server.finished(&id);
    let view = server
        .api()
        .post("/api/v1/sandboxes", &json!({"resources": resources}))
        .expect(201)
        .json();
    let path = format!("/api/v1/sandboxes/{}", view["id"].as_str().expect("an id"));
    server
        .api()
        .post(&format!("{path}/exec"), &json!({"argv": ["sleep", "600"]}));
    let names = cgroup_names(&server);
    assert!(server.api().delete(&path).status < 300);
    until("the sandbox to be gone", || {
        let view = server.api().get(&path).json();
        (view["status"] == "STOPPED").then_some(())
    });
    server.stop().expect(0);
    until("its processes to end", || {
        server.place.processes().is_empty().then_some(())
    });
    assert_eq!(mounts_beneath(server.place.path()), Vec::<String>::new());
    until("its control groups to go", || {
        cgroups(&names).is_empty().then_some(())
    });
    server.place.assert_no_panic();
}
