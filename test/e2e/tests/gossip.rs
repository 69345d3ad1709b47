//! Promise: servers see each other come and go, their keys are replaced while they work, and one that is long gone is taken out only
//! while the rest stays safe.

use std::collections::BTreeMap;

use prism_e2e::cluster::{self, LOOPBACK, peer, peers};
use prism_e2e::{Server, until};
use serde_json::{Value, json};

/// Another server that has joined.
fn joined(first: &Server, name: &str, more: &[&str]) -> Server {
    cluster::joined(first, name, &[&[LOOPBACK][..], more].concat())
}

fn founder(more: &[&str]) -> Server {
    cluster::founder("s1", &[&[LOOPBACK][..], more].concat())
}

fn all_alive(server: &Server, n: usize) {
    until("all to be seen", || {
        let all = peers(server);
        let well = all
            .iter()
            .filter(|p| p["gossip"] == "alive" && p["voter"] == true);
        (all.len() == n && well.count() == n).then_some(())
    });
}

fn events(server: &Server, kind: &str) -> Vec<Value> {
    let path = format!("/api/v1/events?kind={kind}&limit=1000");
    let answer = server.api().get(&path);
    if answer.status != 200 {
        return Vec::new();
    }
    answer.json()["items"].as_array().expect("a list").clone()
}

/// A figure of `/metrics`, by its name and labels as they stand there.
fn figure(server: &Server, name: &str) -> Option<u64> {
    let text = server.api().get("/metrics").expect(200).text();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

fn seen_as(server: &Server, state: &str) -> Option<u64> {
    figure(
        server,
        &format!("prism_gossip_members{{state=\"{state}\"}}"),
    )
}

#[test]
fn servers_see_each_other_fail_and_come_back() {
    let first = founder(&[]);
    let mut second = joined(&first, "s2", &[]);
    let third = joined(&first, "s3", &[]);
    all_alive(&first, 3);
    until("round trips to be known", || {
        let known = |name| peer(&first, name)?["round_trip_us"].as_u64();
        (known("s2").is_some() && known("s3").is_some()).then_some(())
    });
    assert_eq!(seen_as(&first, "alive"), Some(3));
    second.kill();
    until("it to be suspected", || {
        (seen_as(&first, "suspect") == Some(1)).then_some(())
    });
    until("it to be missed", || {
        (peer(&first, "s2")?["gossip"] == "failed").then_some(())
    });
    assert_eq!(seen_as(&first, "failed"), Some(1));
    assert_eq!(seen_as(&first, "alive"), Some(2));
    until("why it stays", || {
        let said = peer(&first, "s2")?;
        said["stays"]
            .as_str()?
            .contains("taken out after 24 h")
            .then_some(())
    });
    let listed = first.ctl(&["peer", "ls"]).expect(0).stdout;
    assert!(
        listed.contains("failed") && listed.contains("taken out after"),
        "{listed}"
    );
    until("that to be an event", || {
        let all = events(&first, "server.failed");
        all.iter()
            .any(|e| e["message"].as_str().is_some_and(|m| m.contains("s2")))
            .then_some(())
    });
    second.restart();
    until("it to be back", || {
        (peer(&first, "s2")?["gossip"] == "alive").then_some(())
    });
    until("that to be an event", || {
        (!events(&first, "server.back").is_empty()).then_some(())
    });
    // One that is stopped says goodbye.
    second.stop();
    until("its goodbye", || {
        (peer(&first, "s2")?["gossip"] == "left").then_some(())
    });
    assert_eq!(seen_as(&first, "left"), Some(1));
    assert_eq!(peer(&first, "s3").expect("there")["gossip"], "alive");
    third.place.assert_no_panic();
}

/// The keys of each server, the one that it seals with first.
fn rings(server: &Server) -> BTreeMap<String, Vec<String>> {
    let view = server.api().get("/api/v1/cluster/keys").expect(200).json();
    let all = view["servers"].as_array().expect("a list").iter();
    let keys = |s: &Value| -> Vec<String> {
        let keys = s["keys"].as_array().cloned().unwrap_or_default();
        keys.iter()
            .map(|k| k.as_str().expect("a text").to_owned())
            .collect()
    };
    all.map(|s| (s["name"].as_str().expect("a name").to_owned(), keys(s)))
        .collect()
}

/// The name of a new key that all servers have been given.
fn installed(by: &Server) -> String {
    let said = by.ctl(&["peer", "key", "install"]).expect(0).stdout;
    said.trim().to_owned()
}

#[test]
fn keys_are_replaced_while_servers_work_and_no_step_leaves_one_behind() {
    let first = founder(&[]);
    let second = joined(&first, "s2", &[]);
    let mut third = joined(&first, "s3", &[]);
    all_alive(&first, 3);
    let spec = json!({
        "job": "traffic", "array": 300, "retries": 5,
        "resources": {"cpu": "100m", "memory": "32Mi"}, "command": ["sh", "-c", "sleep 0.02"],
    });
    let job = second.submit(&spec);
    let before = rings(&first);
    let old = before["s1"][0].clone();
    assert!(
        before.len() == 3 && before.values().all(|r| *r == [old.clone()]),
        "{before:?}"
    );
    // Any server answers, whoever leads.
    let new = installed(&second);
    assert_eq!(new.len(), 8, "{new}");
    let both = [old.clone(), new.clone()];
    assert!(
        rings(&first).values().all(|r| *r == both),
        "{:?}",
        rings(&first)
    );
    let refused = first.ctl(&["peer", "key", "remove", &old]).expect(1).stderr;
    assert!(refused.contains("seals"), "{refused}");
    // One that does not answer holds the next step up.
    third.kill();
    until("it to be missed", || {
        (peer(&first, "s3")?["gossip"] == "failed").then_some(())
    });
    let refused = first.ctl(&["peer", "key", "use", &new]).expect(1).stderr;
    assert!(
        refused.contains("s3") && refused.contains("nothing was changed"),
        "{refused}"
    );
    third.restart();
    all_alive(&first, 3);
    until("it to have both", || {
        (rings(&first).get("s3")?.len() == 2).then_some(())
    });
    first.ctl(&["peer", "key", "use", &new]).expect(0);
    let turned = [new.clone(), old.clone()];
    assert!(
        rings(&first).values().all(|r| *r == turned),
        "{:?}",
        rings(&first)
    );
    first.ctl(&["peer", "key", "remove", &old]).expect(0);
    assert!(rings(&first).values().all(|r| *r == [new.clone()]));
    let all = peers(&first);
    assert!(all.len() == 3 && all.iter().all(|p| p["gossip"] == "alive"));
    // One that was away through a whole change has the new key when it is back.
    third.kill();
    let more = installed(&first);
    third.restart();
    until("it to follow", || {
        rings(&first).get("s3")?.contains(&more).then_some(())
    });
    first.ctl(&["peer", "key", "use", "00000000"]).expect(1);
    assert_eq!(first.finished(&job)["status"], "COMPLETED");
    // It is all in the audit log, and no key is in any answer.
    let audit = events(&first, "audit");
    let kinds: Vec<&str> = audit.iter().filter_map(|e| e["kind"].as_str()).collect();
    for op in ["audit.key_install", "audit.key_use", "audit.key_remove"] {
        assert!(kinds.contains(&op), "{op}: {kinds:?}");
    }
}

#[test]
fn a_server_that_is_long_gone_is_taken_out_only_while_the_rest_stays_safe() {
    let rule = ["--remove-gone-after=6s"];
    let first = founder(&rule);
    let second = joined(&first, "s2", &rule);
    let mut third = joined(&first, "s3", &rule);
    all_alive(&first, 3);
    third.kill();
    // Of three, two stay: the next loss would be the end, so it is not taken out however long it is gone.
    until("why it stays", || {
        let said = peer(&first, "s3")?["stays"].as_str()?.to_owned();
        said.contains("let another join first").then_some(())
    });
    assert_eq!(peers(&first).len(), 3);
    let fourth = joined(&first, "s4", &rule);
    until("it to be taken out", || {
        let names: Vec<Value> = peers(&first).iter().map(|p| p["name"].clone()).collect();
        (names.len() == 3 && !names.contains(&json!("s3"))).then_some(())
    });
    assert!(!events(&first, "server.retired").is_empty());
    all_alive(&first, 3);
    drop((second, fourth));
}

/// What the cluster keeps of the keys: how often they were changed.
fn revision(server: &Server) -> u64 {
    let view = server.api().get("/api/v1/cluster/keys").expect(200).json();
    view["revision"].as_u64().expect("a number")
}

/// What `/metrics` says of a key: 1 when it seals.
fn seals(server: &Server, key: &str) -> Option<u64> {
    figure(server, &format!("prism_gossip_key{{key=\"{key}\"}}"))
}

#[test]
fn gossip_goes_on_through_a_change_of_the_root_and_its_keys_are_sealed_for_the_new_one() {
    let mut first = founder(&[]);
    let mut second = joined(&first, "s2", &[]);
    all_alive(&first, 2);
    let old = rings(&first)["s1"][0].clone();
    assert_eq!(seals(&second, &old), Some(1));
    let before = revision(&first);
    first.ctl(&["ca", "rotate"]).expect(0);
    until("the end of the change", || {
        let status = first.api().get("/api/v1/ca").expect(200).json();
        status["rotation"]["ended"].as_u64().map(drop)
    });
    until("the keys to be sealed anew", || {
        (revision(&first) > before).then_some(())
    });
    // The same keys, and nobody was taken for gone.
    assert!(rings(&first).values().all(|r| *r == [old.clone()]));
    assert!(events(&first, "server.failed").is_empty());
    // Whoever starts now has nothing but the new root. Each comes back at another port, which the other has to hear of first.
    let at = |by: &Server, name| Some(peer(by, name)?["address"].clone());
    let there = at(&first, "s2");
    second.kill();
    second.restart();
    until("its new address to be known", || {
        at(&first, "s2").filter(|now| Some(now) != there.as_ref())
    });
    all_alive(&first, 2);
    first.kill();
    first.restart();
    all_alive(&first, 2);
    // Each start makes another token, of which the leader is told in time.
    until("the other's token to be known", || {
        (second.api().get("/api/v1/cluster").status == 200).then_some(())
    });
    until("both to have the key that there was", || {
        let all = rings(&first);
        (all.len() == 2 && all.values().all(|r| *r == [old.clone()])).then_some(())
    });
    let moved = |server: &Server, direction: &str| {
        let of = |what| {
            let name = format!("prism_gossip_{what}_total{{direction=\"{direction}\"}}");
            figure(server, &name)
        };
        (of("datagrams"), of("bytes"))
    };
    let (out, into) = (moved(&first, "out"), moved(&first, "in"));
    assert!(out.0 > Some(0) && into.0 > Some(0), "{out:?} {into:?}");
    until("more to go in and out", || {
        let (more_out, more_in) = (moved(&first, "out"), moved(&first, "in"));
        let both = |a: (Option<u64>, Option<u64>), b: (_, _)| a.0 > b.0 && a.1 > b.1;
        (both(more_out, out) && both(more_in, into)).then_some(())
    });
    // And keys are replaced as before.
    let new = installed(&second);
    assert_eq!(
        (seals(&first, &old), seals(&first, &new)),
        (Some(1), Some(0))
    );
    second.ctl(&["peer", "key", "use", &new]).expect(0);
    assert_eq!(
        (seals(&first, &old), seals(&first, &new)),
        (Some(0), Some(1))
    );
    first.ctl(&["peer", "key", "remove", &old]).expect(0);
    assert_eq!(
        (seals(&second, &old), seals(&second, &new)),
        (None, Some(1))
    );
    all_alive(&second, 2);
}
