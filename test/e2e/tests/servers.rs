//! Promise: several servers keep the cluster's state together: each answers, and the end of any of them loses nothing that was
//! acknowledged.

use std::collections::BTreeMap;

use prism_e2e::cluster::{LOOPBACK, founder, joined, leader, nodes, peers, voters};
use prism_e2e::{Server, until};
use serde_json::json;

/// Three servers that all vote.
fn three() -> BTreeMap<&'static str, Server> {
    let first = founder("s1", &[LOOPBACK]);
    let join = |name| joined(&first, name, &[LOOPBACK]);
    let (second, third) = (join("s2"), join("s3"));
    until("all to vote", || (voters(&first) == 3).then_some(()));
    until("all to run work", || {
        let all = nodes(&first);
        let well = all.iter().filter(|n| n["state"] == "HEALTHY").count();
        (well == 3).then_some(())
    });
    [("s1", first), ("s2", second), ("s3", third)].into()
}

fn any<'s>(servers: &'s BTreeMap<&'static str, Server>) -> &'s Server {
    servers.values().next().expect("one is there")
}

#[test]
fn the_end_of_the_leader_loses_nothing_and_work_goes_on() {
    let mut servers = three();
    // Each of them answers, whoever leads.
    for server in servers.values() {
        assert_eq!(leader(server).as_deref(), Some("s1"));
        let health = server.api().get("/health").expect(200).json();
        assert_eq!(health["ready"], true, "{health}");
    }
    let small = json!({"cpu": "100m", "memory": "32Mi"});
    let spec = json!({
        "job": "far", "array": 400, "resources": small, "retries": 5,
        "command": ["sh", "-c", "sleep 0.02; echo done"],
    });
    let job = servers["s2"].submit(&spec);
    // A key belongs to the token that it is used with; every server takes every token.
    let owner = servers["s3"].api().token.clone();
    let keyed = |server: &Server| {
        let headers = [
            ("idempotency-key", "once"),
            ("content-type", "application/json"),
        ];
        let spec = json!({"job": "once", "command": ["true"], "resources": small});
        let body = serde_json::to_vec(&spec).expect("JSON");
        let api = server.api().with_token(owner.as_deref());
        let answer = api.send("POST", "/api/v1/jobs", &headers, &body);
        answer.expect(201).json()["id"]
            .as_str()
            .expect("an id")
            .to_owned()
    };
    let once = keyed(&servers["s3"]);
    let completed = |server: &Server| -> u64 {
        let view = server.api().get(&format!("/api/v1/jobs/{job}")).expect(200);
        view.json()["counts"]["completed"].as_u64().unwrap_or(0)
    };
    until("some to complete", || {
        (completed(&servers["s2"]) > 40).then_some(())
    });
    let mut first = servers.remove("s1").expect("it is there");
    first.kill();
    let led = until("another to lead", || leader(&servers["s2"]));
    assert_ne!(led, "s1");
    for server in servers.values() {
        assert_eq!(keyed(server), once, "the same request is the same job");
    }
    // The one that was away comes back as one of the others, with its worker.
    first.restart();
    until("it to know who leads", || {
        (first.api().get("/api/v1/cluster").status == 200).then_some(())
    });
    servers.insert("s1", first);
    let view = servers["s3"].finished(&job);
    assert_eq!(view["status"], "COMPLETED", "{view}");
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    for result in servers["s1"].results(&job) {
        *seen
            .entry(result["index"].as_u64().expect("an index"))
            .or_default() += 1;
    }
    assert_eq!(seen.len(), 400);
    assert!(seen.values().all(|n| *n == 1), "each is recorded once");
    for server in servers.values() {
        server.place.assert_no_panic();
    }
}

#[test]
fn without_a_majority_nothing_is_changed_and_what_is_known_is_told_on_request() {
    let mut servers = three();
    servers.get_mut("s1").expect("there").kill();
    servers.get_mut("s2").expect("there").kill();
    let left = &servers["s3"];
    until("it to miss them", || {
        let health = left.api().get("/health");
        (health.status == 503).then_some(())
    });
    let refused = left
        .api()
        .post("/api/v1/jobs", &json!({"job": "no", "command": ["true"]}));
    assert_eq!(refused.status, 503, "{}", refused.text());
    let body = refused.json();
    assert_eq!(body["outcome"], "not_applied", "{body}");
    assert_eq!(left.api().get("/api/v1/nodes").status, 503);
    let known = left.api().get("/api/v1/nodes?stale=true").expect(200);
    assert!(
        known
            .header("x-prism-stale")
            .is_some_and(|m| m.contains("age_ms="))
    );
    assert_eq!(known.json()["items"].as_array().map(Vec::len), Some(3));
    // With one more there is a majority again.
    let mut back = servers.remove("s2").expect("there");
    back.restart();
    until("one to lead", || leader(&back));
    servers.insert("s2", back);
    until("both to know who leads", || {
        let knows = |s: &Server| s.api().get("/api/v1/cluster").status == 200;
        (knows(&servers["s2"]) && knows(&servers["s3"])).then_some(())
    });
    let job = servers["s3"].submit(
        &json!({"job": "yes", "command": ["true"], "resources": {"cpu": "100m", "memory": "32Mi"}}),
    );
    assert_eq!(servers["s2"].finished(&job)["status"], "COMPLETED");
}

#[test]
fn servers_leave_in_order_and_a_directory_that_lost_its_store_takes_no_part() {
    let mut servers = three();
    // Who is stopped hands over before it goes.
    let mut first = servers.remove("s1").expect("there");
    first.stop();
    until("another to lead", || {
        leader(any(&servers)).filter(|l| l != "s1")
    });
    let out = any(&servers).ctl(&["peer", "rm", "s1"]).expect(0);
    assert!(out.stderr.contains("taken out"), "{}", out.stderr);
    until("it to be gone", || {
        (peers(any(&servers)).len() == 2).then_some(())
    });
    let listed = any(&servers).ctl(&["peer", "ls"]).expect(0).stdout;
    assert!(
        listed.contains("leader") && !listed.contains("s1 "),
        "{listed}"
    );
    // Two of two are needed now: one more is not let go while the other would be alone and away.
    any(&servers).ctl(&["peer", "rm", "nobody"]).expect(1);
    let mut second = servers.remove("s2").expect("there");
    second.kill();
    std::fs::remove_dir_all(second.place.data().join("store")).expect("it was there");
    let said = second
        .try_start(&[], &[])
        .expect_err("it takes no part")
        .stderr;
    assert!(said.contains("its store is gone"), "{said}");
    assert!(said.contains("prismctl peer rm"), "{said}");
}
