//! Promise: the root of a cluster is changed while everything goes on. A member that is away meanwhile comes along when it is back, a server
//! that is killed in the middle goes on where it was, and nothing that was acknowledged is lost.

#![expect(
    clippy::too_many_lines,
    reason = "a story that is told from its begin to its end"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prism_e2e::cluster::{LOOPBACK, ROOM, Worker, healthy, joined, state, token, voters};
use prism_e2e::{Server, until, until_within};
use serde_json::{Value, json};

fn status(server: &Server) -> Value {
    let answer = server.api().try_send("GET", "/api/v1/ca", &[], b"");
    let answer = answer.ok().filter(|a| a.status == 200);
    answer.map_or(Value::Null, |a| {
        serde_json::from_slice(&a.body).expect("JSON")
    })
}

fn waiting(server: &Server) -> Option<Vec<String>> {
    let all = status(server)["rotation"]["waiting"].as_array()?.clone();
    let names = all.iter().map(|n| n.as_str().expect("a name").to_owned());
    Some(names.collect())
}

/// Submits small jobs, one after the other, until it is told to stop; answers all that were acknowledged.
fn load(server: &Server, stop: &AtomicBool) -> Vec<String> {
    let mut all = Vec::new();
    let spec = json!({
        "job": "load", "array": 5, "retries": 5, "command": ["true"],
        "resources": {"cpu": "50m", "memory": "16Mi"},
    });
    let headers = [("content-type", "application/json")];
    while !stop.load(Ordering::Relaxed) {
        let body = spec.to_string();
        let answer = server
            .api()
            .try_send("POST", "/api/v1/jobs", &headers, body.as_bytes());
        if let Ok(answer) = answer
            && answer.status == 201
        {
            let view: Value = serde_json::from_slice(&answer.body).expect("JSON");
            all.push(view["id"].as_str().expect("an id").to_owned());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    all
}

#[test]
fn the_root_is_changed_under_load_with_a_member_away_and_a_server_killed() {
    let mut first = Server::started_as(&["--bootstrap", "--name=s1", ROOM]);
    let started = first.try_start(&[LOOPBACK], &[]);
    assert!(started.is_ok(), "{started:?}");
    let second = joined(&first, "s2", &[LOOPBACK, ROOM]);
    let mut machines: BTreeMap<&str, Worker> = BTreeMap::new();
    for name in ["w1", "w2"] {
        machines.insert(name, Worker::joined(&first, name, &[ROOM]));
    }
    until("both servers to vote", || {
        (voters(&first) == 2).then_some(())
    });
    let before = status(&first)["root"].as_str().expect("a root").to_owned();
    let (during, at) = token(&first, &[]);
    let (after, _) = token(&first, &[]);
    let stop = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| {
        let submitting = scope.spawn(|| load(&second, &stop));
        // One is away when it begins.
        machines.get_mut("w2").expect("there").kill();
        first.ctl(&["ca", "rotate"]).expect(0);
        let again = first.ctl(&["ca", "rotate"]).expect(1);
        assert!(again.stderr.contains("already"), "{}", again.stderr);
        until("all but one to come along", || {
            (waiting(&first)? == ["w2"]).then_some(())
        });
        assert_eq!(state(&first, "w1").as_deref(), Some("HEALTHY"));
        // A token of the old root is good until it is over.
        let mut third = Worker::new("w3");
        third.join(&first, &at, &during, &[ROOM]);
        machines.insert("w3", third);
        let human = first.ctl(&["ca", "status"]).expect(0).stdout;
        assert!(human.contains("missing   w2"), "{human}");
        let early = first.ctl(&["server", "join-token"]).expect(0);
        assert!(early.stdout.starts_with("pj1."), "{}", early.stdout);
        let second = machines.get_mut("w2").expect("there");
        second.launch(&at, None, &[ROOM]);
        healthy(&first, "w2");
        until_within(Duration::from_secs(90), "the end of the change", || {
            status(&first)["rotation"]["ended"].as_u64().map(drop)
        });
        for name in ["w1", "w2", "w3"] {
            healthy(&first, name);
        }
        stop.store(true, Ordering::Relaxed);
        submitting.join().expect("it does not panic")
    });
    let now = status(&first);
    assert_ne!(now["root"], before.as_str(), "{now}");
    assert_eq!(now["rotation"]["old_root"], before.as_str(), "{now}");
    assert!(acknowledged.len() > 5, "{}", acknowledged.len());
    for job in &acknowledged {
        let view = second.finished(job);
        assert_eq!(view["status"], "COMPLETED", "{view}");
        assert_eq!(second.results(job).len(), 5);
    }
    // The old root opens nothing any more.
    let mut late = Worker::new("w4");
    late.launch(&at, Some(&after), &[ROOM]);
    let ended = late.take().wait(Duration::from_secs(60)).expect(1);
    assert!(
        ended.stderr.contains("is not to be trusted"),
        "{}",
        ended.stderr
    );
    // The new one does.
    let (fresh, _) = token(&first, &[]);
    late.join(&first, &at, &fresh, &[ROOM]);
    // Once more, and the server that leads is killed in the middle of it.
    machines.get_mut("w1").expect("there").kill();
    first.ctl(&["ca", "rotate"]).expect(0);
    let serf = format!("--serf={at}");
    first.kill();
    let restarted = first.try_start(&[&serf], &[]);
    assert!(restarted.is_ok(), "{restarted:?}");
    until("all but one to come along", || {
        (waiting(&first)? == ["w1"]).then_some(())
    });
    let away = machines.get_mut("w1").expect("there");
    away.launch(&at, None, &[ROOM]);
    until_within(
        Duration::from_secs(90),
        "the end of the second change",
        || {
            let status = status(&first);
            let rotation = &status["rotation"];
            (rotation["ended"].is_u64() && rotation["old_root"] == now["root"]).then_some(())
        },
    );
    for name in ["w1", "w2", "w3", "w4"] {
        healthy(&first, name);
    }
    for server in [&first, &second] {
        server.place.assert_no_panic();
    }
}
