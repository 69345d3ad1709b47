//! Promise: machines on one local network find their servers when they are told to look, and only then. Inside a network namespace that
//! the test makes itself: nothing is sent to the network of this machine.

use std::process::Command;

use prism_e2e::{Place, Server, until};
use serde_json::Value;

/// Set for the process inside the namespace.
const INSIDE: &str = "PRISM_TEST_LAN_INSIDE";

/// One interface that multicast can go out of, which leads nowhere. A kernel without dummies has pairs, of which both ends have to be up.
const NETWORK: &str = "set -e
ip link set lo up
if ! ip link add lan0 type dummy; then
    ip link add lan0 type veth peer name lan1
    ip link set lan1 up
fi
ip addr add 10.213.7.1/24 dev lan0
ip link set lan0 up multicast on
ip route add 224.0.0.0/4 dev lan0
exec \"$0\" --exact machines_find_their_servers_by_mdns --nocapture";

#[test]
fn machines_find_their_servers_by_mdns() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let me = std::env::current_exe().expect("this test has a path");
    let done = Command::new("unshare")
        .args(["--net", "sh", "-c", NETWORK])
        .arg(&me)
        .env(INSIDE, "1")
        .output();
    let done = done.expect("unshare (util-linux) can be run");
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    let err = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        done.status.success() && out.contains("all were found"),
        "{out}{err}"
    );
}

fn token(server: &Server, role: &str) -> String {
    let args = ["server", "join-token", "--role", role, "-o", "json"];
    let made: Value = serde_json::from_str(&server.ctl(&args).expect(0).stdout).expect("JSON");
    made["token"].as_str().expect("a text").to_owned()
}

fn inside() {
    let quiet = ["--bootstrap", "--name=s1", "--serf=0.0.0.0:4200"];
    let mut first = Server::started_as(&quiet);
    first.restart();
    let worker = Place::new();
    let file = format!(
        "--token-file={}",
        worker.write("token", token(&first, "worker"))
    );
    let data = format!("--data-dir={}", worker.data().display());
    let args = ["--role=worker", "--name=w1", "--join=mdns", &file, &data];
    // Nobody is announced who was not told to be.
    let said = worker.start("prismd", &args).wait(prism_e2e::LIMIT);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stderr.contains("--announce-mdns"), "{}", said.stderr);
    first.stop();
    let told = ["--announce-mdns"];
    assert!(first.try_start(&told, &[]).is_ok());
    let _working = worker.start("prismd", &args);
    until("the worker to join", || {
        let page = first.api().get("/api/v1/nodes").expect(200).json();
        let nodes = page["items"].as_array().expect("a list");
        nodes
            .iter()
            .any(|n| n["name"] == "w1" && n["state"] == "HEALTHY")
            .then_some(())
    });
    let mut second = Server::started_as(&["--name=s2", "--join=mdns", "--serf=0.0.0.0:4201"]);
    let file = format!(
        "--token-file={}",
        second.place.write("token", token(&first, "server"))
    );
    let started = second.try_start(&[&file], &[]);
    assert!(started.is_ok(), "{started:?}");
    until("both to vote", || {
        let page = first.api().get("/api/v1/cluster/peers").expect(200).json();
        let all = page["items"].as_array().expect("a list");
        (all.iter().filter(|p| p["voter"] == true).count() == 2).then_some(())
    });
    println!("all were found");
}
