//! Promise: servers that are to found a cluster together found exactly one, and whoever holds data or hears of a cluster never founds.

use std::path::Path;
use std::thread;
use std::time::Duration;

use prism_e2e::cluster::{LOOPBACK, founder, start_all, token, voters};
use prism_e2e::{Place, Running, Server, until};
use prism_store_kit::etcd::free_ports;
use serde_json::json;

fn common_token() -> String {
    let place = Place::new();
    let made = place.ctl(&["server", "bootstrap-token"]).expect(0).stdout;
    assert!(made.starts_with("pb1."), "{made}");
    made
}

/// A server that is not started yet.
fn server(n: usize, expect: usize, ports: &[u16], token: &str) -> Server {
    let join: Vec<String> = ports.iter().map(|p| format!("127.0.0.1:{p}")).collect();
    let mut how = vec![
        format!("--bootstrap-expect={expect}"),
        format!("--join={}", join.join(",")),
        format!("--name=s{}", n + 1),
        format!("--serf=127.0.0.1:{}", ports[n]),
        "--remove-gone-after=never".to_owned(),
    ];
    let place = Place::new();
    how.push(format!("--token-file={}", place.write("token", token)));
    let how: Vec<&str> = how.iter().map(String::as_str).collect();
    Server::started_in(place, &how)
}

fn cluster(server: &Server) -> String {
    let view = server.api().get("/api/v1/ca").expect(200).json();
    view["cluster"].as_str().expect("an id").to_owned()
}

fn log_of(place: &Place, words: &str) -> bool {
    let all = std::fs::read_dir(place.path().join("logs")).expect("logs are kept");
    all.flatten().any(|file| contains(&file.path(), words))
}

fn contains(path: &Path, words: &str) -> bool {
    if path.is_dir() {
        let all = std::fs::read_dir(path).expect("it is there");
        return all.flatten().any(|file| contains(&file.path(), words));
    }
    std::fs::read_to_string(path).is_ok_and(|text| text.contains(words))
}

#[test]
fn three_that_start_at_once_found_one_cluster_and_come_back_as_what_they_were() {
    let ports = free_ports::<3>();
    let token = common_token();
    let servers = (0..3).map(|n| server(n, 3, &ports, &token)).collect();
    let mut servers = start_all(servers);
    until("all to vote", || (voters(&servers[0]) == 3).then_some(()));
    let id = cluster(&servers[0]);
    assert!(servers.iter().all(|s| cluster(s) == id));
    for server in &servers {
        let left = server.place.data().join("cohort.json");
        assert!(!left.exists(), "nothing is left to be agreed on");
    }
    // The token has let in as many as were expected, and lets nobody in any more.
    let tokens = servers[1]
        .api()
        .get("/api/v1/join-tokens")
        .expect(200)
        .json();
    assert_eq!(tokens["items"][0]["uses"], 0, "{tokens}");
    let job = servers[2].submit(&json!({
        "job": "one", "command": ["true"], "resources": {"cpu": "100m", "memory": "32Mi"},
    }));
    assert_eq!(servers[0].finished(&job)["status"], "COMPLETED");
    // The same command lines start them again, all at once.
    servers.iter_mut().for_each(Server::kill);
    let servers = start_all(servers);
    until("all to vote", || (voters(&servers[1]) == 3).then_some(()));
    assert!(servers.iter().all(|s| cluster(s) == id));
    let view = servers[1]
        .api()
        .get(&format!("/api/v1/jobs/{job}"))
        .expect(200);
    assert_eq!(view.json()["status"], "COMPLETED");
    for server in &servers {
        server.place.assert_no_panic();
    }
}

#[test]
fn one_that_is_killed_in_the_middle_takes_part_again() {
    let ports = free_ports::<2>();
    let token = common_token();
    for _ in 0..3 {
        let first = server(0, 2, &ports, &token);
        let second = server(1, 2, &ports, &token);
        // One begins, and is killed while it waits or while it founds.
        let running = begun(&first);
        let other = thread::spawn(move || start_all(vec![second]).pop().expect("one"));
        thread::sleep(Duration::from_millis(500));
        prism_e2e::kill(running.pid());
        drop(running);
        let first = start_all(vec![first]).pop().expect("one");
        let second = other.join().expect("it starts");
        until("both to vote", || (voters(&first) == 2).then_some(()));
        assert_eq!(cluster(&first), cluster(&second));
        drop((first, second));
    }
}

/// Begins a server and does not wait for it.
fn begun(server: &Server) -> Running {
    let mut command = server.place.command("prismd");
    command
        .args(server.how())
        .args(["--api=127.0.0.1:0", "--data-dir"])
        .arg(server.place.data());
    server.place.launch(command)
}

#[test]
fn two_new_ones_and_a_survivor_never_roll_the_survivor_back() {
    let ports = free_ports::<3>();
    let token = common_token();
    let servers = (0..3).map(|n| server(n, 3, &ports, &token)).collect();
    let mut servers = start_all(servers);
    until("all to vote", || (voters(&servers[0]) == 3).then_some(()));
    let id = cluster(&servers[0]);
    let job = servers[0].submit(&json!({
        "job": "kept", "command": ["true"], "resources": {"cpu": "100m", "memory": "32Mi"},
    }));
    servers[0].finished(&job);
    servers.iter_mut().for_each(Server::kill);
    // Two have lost everything; first they are alone, and the survivor is silent.
    let new: Vec<Server> = (1..3).map(|n| server(n, 3, &ports, &token)).collect();
    drop(servers.split_off(1));
    let running: Vec<Running> = new.iter().map(begun).collect();
    for server in &new {
        until("it to say what it waits for", || {
            let silent = format!("127.0.0.1:{} was named and does not answer", ports[0]);
            log_of(&server.place, &silent).then_some(())
        });
    }
    // Then the survivor comes back, as what it was. It can't decide alone, and nobody else founds.
    let survivor = begun(&servers[0]);
    for server in &new {
        until("it to hear of the cluster", || {
            let heard = format!("there is cluster {id}");
            log_of(&server.place, &heard).then_some(())
        });
        assert!(
            !server.place.data().join("store").exists(),
            "nothing was founded"
        );
        assert!(!server.place.data().join("identity.json").exists());
    }
    let kept = std::fs::read_to_string(servers[0].place.data().join("identity.json"));
    assert!(
        kept.expect("it is there").contains(&id),
        "it is what it was"
    );
    drop((running, survivor));
}

#[test]
fn servers_of_other_clusters_other_tokens_and_other_numbers_are_told_apart() {
    let [a, b] = free_ports::<2>();
    let token = common_token();
    // A cluster that knows nothing of the token.
    let serf = format!("--serf=127.0.0.1:{a}");
    let mut old = Server::started_as(&["--bootstrap", "--name=old", &serf]);
    old.restart();
    let mut new = server(1, 2, &[a, b], &token);
    let said = new
        .try_start(&[], &[])
        .expect_err("it founds nothing")
        .stderr;
    assert!(
        said.contains(&cluster(&old)) && said.contains("is a server of cluster"),
        "{said}"
    );
    assert!(!new.place.data().join("store").exists());
    old.stop();
    // One with another token, and then one that expects another number.
    let other = server(0, 2, &[a, b], &common_token());
    let running = begun(&other);
    let waiting = begun(&new);
    until("the other token to show", || {
        log_of(&new.place, "it has another common token").then_some(())
    });
    drop(running);
    drop(other);
    let three = server(0, 3, &[a, b], &token);
    let running = begun(&three);
    until("the other number to show", || {
        log_of(&new.place, "expects 3 servers").then_some(())
    });
    drop((running, waiting));
}

#[test]
fn a_strict_server_starts_only_when_all_that_are_named_are_there() {
    let [nobody, other] = free_ports::<2>();
    let first = founder("s1", &[LOOPBACK]);
    let (text, at) = token(&first, &["--role=server"]);
    let serf = format!("--serf=127.0.0.1:{other}");
    let _foreign = founder("f1", &[&serf]);
    let place = Place::new();
    let token = format!("--token-file={}", place.write("token", text));
    let mut second = Server::started_in(place, &["--name=s2", LOOPBACK, &token]);
    for (named, why) in [
        (nobody, "no connection to"),
        (other, "it is of another cluster"),
    ] {
        let join = format!("--join={at},127.0.0.1:{named}");
        let refused = second.try_start(&[&join, "--strict-join"], &[]);
        let said = refused.expect_err("it is strict").stderr;
        assert!(
            said.contains(why) && said.contains("--strict-join"),
            "{said}"
        );
        assert!(
            !second.place.data().join("identity.json").exists(),
            "it has not joined"
        );
    }
    let join = format!("--join={at}");
    let started = second.try_start(&[&join, "--strict-join"], &[]);
    assert!(started.is_ok(), "{started:?}");
    second.stop();
    // Otherwise it goes on, and says so.
    let join = format!("--join=127.0.0.1:{nobody},{at}");
    let started = second.try_start(&[&join], &[]);
    assert!(started.is_ok(), "{started:?}");
    until("it to say who is not there", || {
        log_of(&second.place, "going on without it").then_some(())
    });
}
