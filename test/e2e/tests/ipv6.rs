//! Promise: all of it goes over IPv6 too: joining, replication, sessions, gossip, what one server hands on to another, and `prismctl`; and
//! over both at once, each server where it says it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use prism_e2e::cluster::{ROOM, Worker, founder, joined, joined_at, leader, peers, token};
use prism_e2e::{Server, until};
use serde_json::{Value, json};

/// All that vote, and all that gossip sees.
fn whole(server: &Server, n: usize) {
    until("all to vote and to be seen", || {
        let all = peers(server);
        let well = |p: &&Value| p["voter"] == true && p["gossip"] == "alive";
        (all.iter().filter(well).count() == n).then_some(())
    });
}

/// The sockets of a process among those of a table of the kernel.
fn sockets(pid: u32, tables: &[&str]) -> usize {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let own: BTreeSet<String> = links
        .flatten()
        .filter_map(|entry| {
            let link = fs::read_link(entry.path()).ok()?;
            let text = link.to_str()?.strip_prefix("socket:[")?;
            Some(text.trim_end_matches(']').to_owned())
        })
        .collect();
    let read = |table: &&str| fs::read_to_string(format!("/proc/{pid}/net/{table}"));
    let rows: Vec<String> = tables.iter().flat_map(read).collect();
    let inode = |line: &&str| {
        let field = line.split_whitespace().nth(9);
        field.is_some_and(|inode| own.contains(inode))
    };
    rows.iter().flat_map(|t| t.lines()).filter(inode).count()
}

/// Work is done there and is seen from everywhere.
fn works(servers: &BTreeMap<&str, Server>, name: &str) {
    let small = json!({"cpu": "100m", "memory": "32Mi"});
    let spec = json!({"job": name, "array": 10, "resources": small, "retries": 5, "command": ["echo", "there"]});
    let by = servers.values().next().expect("one is there");
    let job = by.submit(&spec);
    for server in servers.values() {
        assert_eq!(server.finished(&job)["status"], "COMPLETED");
        // From the worker's disk, by way of whoever has a session with it.
        let logs = server.ctl(&["job", "logs", name, "--task", "3"]).expect(0);
        assert_eq!(logs.stdout.trim(), "there");
    }
}

/// Another leads than this one, which was killed.
fn led_anew(servers: &BTreeMap<&str, Server>, gone: &str) {
    for server in servers.values() {
        until("another to lead", || leader(server).filter(|l| l != gone));
    }
}

#[test]
fn on_ipv6_alone_servers_and_a_worker_meet_work_and_survive_the_leader() {
    let only = ["--serf=[::1]:0", "--api=[::1]:0"];
    let first = founder("s1", &[ROOM, only[0], only[1]]);
    assert!(first.api().address.starts_with("[::1]:"), "{first:?}");
    let join = |name| joined(&first, name, &[ROOM, only[0], only[1]]);
    let (second, third) = (join("s2"), join("s3"));
    let mut servers = BTreeMap::from([("s1", first), ("s2", second), ("s3", third)]);
    let mut machine = Worker::joined(&servers["s2"], "w1", &[ROOM]);
    whole(&servers["s3"], 3);
    for name in ["s1", "s2", "s3"] {
        servers["s1"].ctl(&["node", "cordon", name]).expect(0);
    }
    works(&servers, "six");
    let small = json!({"name": "far", "resources": {"cpu": "100m", "memory": "32Mi"}});
    let made = servers["s3"].api().post("/api/v1/sandboxes", &small);
    made.expect(201);
    let exec = |server: &Server, line: &str| {
        server.ctl(&["sandbox", "exec", "far", "--", "sh", "-c", line])
    };
    exec(&servers["s2"], "echo kept > /work/state").expect(0);
    for server in servers.values() {
        assert_eq!(sockets(server.pid(), &["tcp", "udp"]), 0, "IPv4 sockets");
        assert!(sockets(server.pid(), &["tcp6", "udp6"]) >= 3);
    }
    let four = sockets(machine.running().pid(), &["tcp", "udp"]);
    assert_eq!(four, 0, "IPv4 sockets of the worker");
    let mut gone = servers.remove("s1").expect("it is there");
    gone.kill();
    led_anew(&servers, "s1");
    until("the sandbox to be reached again", || {
        let said = exec(&servers["s3"], "cat /work/state");
        (said.stdout == "kept\n").then_some(())
    });
    // It comes back as one of the others, with an API over TLS.
    let mut command = gone.place.command("prismd");
    command.args(["--bootstrap", "--name=s1", ROOM, only[0]]);
    command.args(["--api=https://[::1]:0", "--data-dir"]);
    command.arg(gone.place.data());
    let contexts = gone.place.path().join("config/prism/contexts.toml");
    fs::remove_file(&contexts).expect("it wrote one");
    let _running = gone.place.launch(command);
    until("it to be used over TLS", || {
        (gone.ctl(&["job", "ls"]).code == Some(0)).then_some(())
    });
    let text = fs::read_to_string(&contexts).expect("it wrote one");
    let value = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key));
        line.expect("it is there").trim_matches('"').to_owned()
    };
    let api = value("api = ");
    assert!(api.starts_with("https://[::1]:"), "{api}");
    let mut command = servers["s2"].place.command("prismctl");
    command
        .args(["--api", &api, "node", "ls"])
        .env("PRISM_PIN", value("pin = "))
        .env("PRISM_TOKEN", value("token = "));
    let seen = servers["s2"].place.launch(command);
    let seen = seen.wait(prism_e2e::LIMIT).expect(0).stdout;
    assert!(seen.contains("w1"), "{seen}");
    for server in servers.values() {
        server.place.assert_no_panic();
    }
}

#[test]
fn servers_that_advertise_ipv4_and_ipv6_are_one_cluster() {
    let both = "--serf=[::]:0";
    let first = founder("s1", &[ROOM, both, "--advertise=127.0.0.1"]);
    let (text, at) = token(&first, &[]);
    let port = at.strip_prefix("127.0.0.1:").expect("as it advertises");
    // The same listener, by its other address.
    let six = format!("[::1]:{port}");
    let second = joined(&first, "s2", &[ROOM, both, "--advertise=::1"]);
    let alone = [ROOM, "--serf=[::1]:0", "--api=[::1]:0"];
    let third = joined_at(&first, Some(&six), "s3", &alone);
    let addresses: BTreeMap<String, String> = peers(&first)
        .iter()
        .map(|p| {
            let text = |key: &str| p[key].as_str().unwrap_or_default().to_owned();
            (text("name"), text("address"))
        })
        .collect();
    assert!(addresses["s1"].starts_with("127.0.0.1:"), "{addresses:?}");
    assert!(addresses["s2"].starts_with("[::1]:"), "{addresses:?}");
    assert!(addresses["s3"].starts_with("[::1]:"), "{addresses:?}");
    // Each says where it is, and why there.
    assert!(
        second.log().contains("as --advertise says"),
        "{}",
        second.log()
    );
    assert!(third.log().contains("it listens there"), "{}", third.log());
    let mut servers = BTreeMap::from([("s1", first), ("s2", second), ("s3", third)]);
    // It was told of one address of one server, and learns of the others.
    let mut machine = Worker::new("w1");
    machine.join(&servers["s1"], &six, &text, &[ROOM]);
    whole(&servers["s1"], 3);
    for name in ["s1", "s2", "s3"] {
        servers["s2"].ctl(&["node", "cordon", name]).expect(0);
    }
    works(&servers, "both");
    let mut gone = servers.remove("s1").expect("it is there");
    gone.kill();
    led_anew(&servers, "s1");
    works(&servers, "still");
    for server in servers.values() {
        server.place.assert_no_panic();
    }
}
