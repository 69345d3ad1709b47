//! Promise: a machine joins with one token, runs work for its server over mutual TLS, and neither loses anything when the other goes
//! away for a while.

use std::collections::BTreeMap;

use prism_e2e::cluster::{LOOPBACK, Worker, node, nodes, token};
use prism_e2e::{Output, Place, Server, until};
use serde_json::json;

/// What a machine of this name says when it is not let in.
#[track_caller]
fn refused(machine: &mut Worker, at: &str, token: &str, code: i32) -> String {
    machine.launch(at, Some(token), &[]);
    let limit = std::time::Duration::from_secs(60);
    machine.take().wait(limit).expect(code).stderr
}

#[test]
fn a_machine_joins_works_and_survives_the_end_of_either() {
    let mut server = Server::start_with(&[LOOPBACK]);
    let own = nodes(&server)[0]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    let (text, at) = token(&server, &["--labels=zone=a"]);
    let mut machine = Worker::new("w1");
    machine.join(&server, &at, &text, &[]);
    let found = node(&server, "w1").expect("it is there");
    assert_eq!(found["labels"]["zone"], "a", "{found}");
    // All new work goes there.
    server.ctl(&["node", "cordon", &own]).expect(0);
    let small = json!({"cpu": "100m", "memory": "32Mi"});
    let body = json!({"name": "far", "resources": small});
    server.api().post("/api/v1/sandboxes", &body).expect(201);
    let exec = |server: &Server, line: &str| -> Output {
        server.ctl(&["sandbox", "exec", "far", "--", "sh", "-c", line])
    };
    let said = exec(&server, "echo kept > /work/state; echo far; exit 3").expect(3);
    assert_eq!(said.stdout, "far\n");
    let big = machine.place.write("big", vec![7_u8; 3 << 20]);
    server.place.write("big", vec![7_u8; 3 << 20]);
    server
        .ctl(&["sandbox", "cp", &big, "far:/work/big"])
        .expect(0);
    let sum = exec(&server, "wc -c < /work/big").expect(0).stdout;
    assert_eq!(sum.trim(), (3 << 20).to_string());
    // The worker's prismd is killed in the middle of a job; what runs goes on.
    let job = server.submit(&json!({
        "job": "far", "array": 300, "resources": small,
        "command": ["sh", "-c", "sleep 0.05; echo done"],
    }));
    let completed = |server: &Server| {
        let view = server.api().get(&format!("/api/v1/jobs/{job}")).expect(200);
        view.json()["counts"]["completed"].as_u64().unwrap_or(0)
    };
    until("some to complete", || {
        (completed(&server) > 20).then_some(())
    });
    machine.kill();
    machine.launch(&at, None, &[]);
    until("more to complete", || {
        (completed(&server) > 150).then_some(())
    });
    // And so is the server's, which comes back where it was.
    server.kill();
    let serf = format!("--serf={at}");
    let restarted = server.try_start(&[&serf], &[]);
    assert!(restarted.is_ok(), "{restarted:?}");
    let view = server.finished(&job);
    assert_eq!(view["status"], "COMPLETED", "{view}");
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    for result in server.results(&job) {
        *seen
            .entry(result["index"].as_u64().expect("an index"))
            .or_default() += 1;
    }
    assert_eq!(seen.len(), 300);
    assert!(seen.values().all(|n| *n == 1), "each is recorded once");
    let kept = exec(&server, "cat /work/state").expect(0).stdout;
    assert_eq!(kept, "kept\n");
    server.place.assert_no_panic();
    machine.place.assert_no_panic();
}

/// Both ends of a session are ended in turns, and something is changed while they do not speak: what is wanted runs on as what it was,
/// what is not is stopped.
#[test]
fn a_machine_that_comes_back_keeps_what_is_wanted_and_drops_the_rest() {
    const KEPT: u64 = 30;
    const DROPPED: u64 = 10;
    let mut server = Server::start_with(&["--serf=127.0.0.1:0"]);
    let own = nodes(&server)[0]["name"].clone();
    let (text, at) = token(&server, &[]);
    let mut machine = Worker::new("w1");
    machine.join(&server, &at, &text, &[]);
    let cordon = ["node", "cordon", own.as_str().expect("a name")];
    server.ctl(&cordon).expect(0);
    let small = json!({"cpu": "10m", "memory": "16Mi"});
    for name in ["far", "away"] {
        let body = json!({"name": name, "resources": small});
        server.api().post("/api/v1/sandboxes", &body).expect(201);
    }
    let submit = |name: &str, tasks: u64, line: &str| {
        server.submit(&json!({
            "job": name, "array": tasks, "resources": small, "command": ["sh", "-c", line],
        }))
    };
    let line = r#"sleep 15; echo "{\"attempt\": $PRISM_TASK_ATTEMPT}""#;
    let kept = submit("kept", KEPT, line);
    let dropped = submit("dropped", DROPPED, "sleep 600");
    let run = |server: &Server, job: &str, tasks: u64| {
        until("all to run", || {
            let view = server.api().get(&format!("/api/v1/jobs/{job}")).expect(200);
            (view.json()["counts"]["running"] == tasks).then_some(())
        });
    };
    run(&server, &kept, KEPT);
    run(&server, &dropped, DROPPED);
    // The leader remembers nothing of the machine but what is in the store.
    server.kill();
    let serf = format!("--serf={at}");
    let restarted = server.try_start(&[&serf], &[]);
    assert!(restarted.is_ok(), "{restarted:?}");
    until("w1 to come back", || {
        let node = node(&server, "w1")?;
        (node["readings"]["running"] == KEPT + DROPPED).then_some(())
    });
    // The machine's daemon remembers nothing but what its supervisor runs.
    machine.kill();
    server.ctl(&["job", "cancel", &dropped]).expect(0);
    server.api().delete("/api/v1/sandboxes/away");
    machine.launch(&at, None, &[]);
    assert_eq!(server.finished(&dropped)["status"], "CANCELLED");
    until("it to be dropped", || {
        let node = node(&server, "w1")?;
        (node["readings"]["running"] == KEPT && node["readings"]["sandboxes"] == 1).then_some(())
    });
    let view = server.finished(&kept);
    assert_eq!(view["status"], "COMPLETED", "{view}");
    let results = server.results(&kept);
    assert_eq!(results.len() as u64, KEPT);
    for result in &results {
        assert_eq!(result["result"]["attempt"], 1, "{result}");
    }
    let said = server.ctl(&["sandbox", "exec", "far", "--", "echo", "here"]);
    assert_eq!(said.expect(0).stdout, "here\n");
    server.place.assert_no_panic();
    machine.place.assert_no_panic();
}

#[test]
fn one_that_is_kept_out_goes_and_comes_again_when_allowed() {
    let server = Server::start_with(&[LOOPBACK]);
    let own = nodes(&server)[0]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    let (text, at) = token(&server, &[]);
    let mut machine = Worker::new("w1");
    machine.join(&server, &at, &text, &[]);
    let connected =
        |server: &Server| !node(server, "w1").expect("it is known")["connected"].is_null();
    assert!(connected(&server));
    server
        .ctl(&["ca", "deny", "w1", "--why", "stolen"])
        .expect(0);
    let began = std::time::Instant::now();
    until("its connection to end", || {
        (!connected(&server)).then_some(())
    });
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
    let status = server.ctl(&["ca", "status"]).expect(0).stdout;
    assert!(
        status.contains("stolen") && status.contains("w1"),
        "{status}"
    );
    server.ctl(&["ca", "allow", "w1"]).expect(0);
    until("it to come again", || connected(&server).then_some(()));
    let said = server.ctl(&["ca", "allow", "w1"]).expect(1).stderr;
    assert!(said.contains("is not kept out"), "{said}");
    for (bad, code) in [
        (&["ca", "deny", "nobody"][..], 1),
        (&["ca", "deny", "--certificate", "12"], 2),
        (&["ca", "deny", "w1", "--why", ""], 2),
        (&["node", "rm", &own], 1),
        (&["node", "rm", "nobody"], 1),
    ] {
        server.ctl(bad).expect(code);
    }
    server.ctl(&["node", "rm", "w1"]).expect(0);
    until("its end", || (nodes(&server).len() == 1).then_some(()));
    let status = server.ctl(&["ca", "status"]).expect(0).stdout;
    assert!(
        status.contains("it was removed from the cluster"),
        "{status}"
    );
    let all = nodes(&server);
    assert!(all.len() == 1 && all[0]["name"] != "w1", "{all:?}");
}

#[test]
fn who_may_not_join_is_told_why_and_what_to_do() {
    let server = Server::start_with(&[LOOPBACK]);
    let (text, at) = token(&server, &[]);
    let mut first = Worker::new("w1");
    first.join(&server, &at, &text, &[]);
    let (mut second, mut same) = (Worker::new("w2"), Worker::new("w1"));
    let said = refused(&mut second, &at, &text, 1);
    assert!(said.contains("is used up"), "{said}");
    assert!(
        said.contains("next: on a server: prismctl server join-token"),
        "{said}"
    );
    let (text, _) = token(&server, &["--name=w9"]);
    let said = refused(&mut second, &at, &text, 1);
    assert!(said.contains("for node w9, and this is w2"), "{said}");
    let (text, _) = token(&server, &["--from=10.0.0.0/8"]);
    let said = refused(&mut second, &at, &text, 1);
    assert!(said.contains("not for address 127.0.0.1"), "{said}");
    let (text, _) = token(&server, &["--uses=5"]);
    let said = refused(&mut same, &at, &text, 1);
    assert!(said.contains("the name w1 belongs to node"), "{said}");
    let mut cut = text.clone();
    cut.pop();
    let said = refused(&mut second, &at, &cut, 2);
    assert!(
        said.contains("--token-file") && said.contains("cut or changed"),
        "{said}"
    );
    // A server of another cluster is told nothing.
    let other = Server::start_with(&[LOOPBACK]);
    let (_, elsewhere) = token(&other, &[]);
    let said = refused(&mut second, &elsewhere, &text, 1);
    assert!(said.contains("is not to be trusted"), "{said}");
    // Revoked, and listed no more.
    let listed = server
        .ctl(&["server", "join-token", "--ls"])
        .expect(0)
        .stdout;
    let id = text
        .split('.')
        .nth(1)
        .expect("a token has an id")
        .to_owned();
    assert!(listed.contains(&id), "{listed}");
    assert!(!listed.contains(text.split('.').nth(2).expect("a secret")));
    server
        .ctl(&["server", "join-token", "--revoke", &id])
        .expect(0);
    let said = refused(&mut second, &at, &text, 1);
    assert!(said.contains("no such join token"), "{said}");
    // Nobody but an administrator makes one.
    let eye = server.ctl(&["token", "create", "eye", "--role", "operator"]);
    let eye = eye.expect(0).stdout;
    let mut command = server.place.command("prismctl");
    command
        .args(["server", "join-token"])
        .env("PRISM_TOKEN", eye.trim());
    let said = server
        .place
        .launch(command)
        .wait(std::time::Duration::from_secs(60));
    assert!(said.expect(1).stderr.contains("needs admin"));
    // Only the member is there.
    assert_eq!(nodes(&server).len(), 2);
}

#[test]
fn command_lines_that_make_no_sense_start_nothing() {
    let place = Place::new();
    let try_it = |args: &[&str], says: &str| {
        let limit = std::time::Duration::from_secs(60);
        let said = place.start("prismd", args).wait(limit).expect(2).stderr;
        assert!(said.contains(says), "{args:?}: {said}");
    };
    try_it(&["--role=worker"], "--role=worker needs --join");
    try_it(&["--role=wroker"], "did you mean \"worker\"");
    try_it(&["--role=worker", "--join=host"], "is not HOST:PORT");
    try_it(&["--role=worker", "--join=:1"], "is not HOST:PORT");
    try_it(
        &["--role=worker", "--join=h:1", "--serf=[::]:1"],
        "opens no port",
    );
    try_it(
        &["--role=worker", "--join=h:1", "--bootstrap"],
        "neither `dev` nor --bootstrap",
    );
    try_it(
        &["dev", "--role=worker", "--join=h:1"],
        "neither `dev` nor --bootstrap",
    );
    try_it(&["dev", "--join=h:1"], "neither `dev` nor --bootstrap");
    try_it(
        &["--bootstrap", "--join=h:1"],
        "neither `dev` nor --bootstrap",
    );
    try_it(&["dev", "--serf=here"], "is not an address");
    let data = place.data();
    let data = data.to_string_lossy();
    let args = ["--role=worker", "--join=127.0.0.1:1", "--data-dir", &data];
    let limit = std::time::Duration::from_secs(60);
    let said = place.start("prismd", &args).wait(limit).expect(1).stderr;
    assert!(said.contains("has no token to join with"), "{said}");
}

#[test]
fn a_machine_is_emptied_and_its_work_runs_elsewhere() {
    let server = Server::start_with(&[LOOPBACK]);
    let own = nodes(&server)[0]["name"].clone();
    let own = own.as_str().expect("a name");
    let (text, at) = token(&server, &[]);
    let mut machine = Worker::new("w1");
    machine.join(&server, &at, &text, &[]);
    server.ctl(&["node", "cordon", own]).expect(0);
    let small = json!({"cpu": "100m", "memory": "32Mi"});
    let body = json!({"name": "far", "resources": small});
    server.api().post("/api/v1/sandboxes", &body).expect(201);
    let stays = r#"test "$PRISM_TASK_ATTEMPT" -gt 1 || sleep 600; echo "{\"attempt\": $PRISM_TASK_ATTEMPT}""#;
    let job = server.submit(&json!({
        "job": "moves", "array": 3, "resources": small, "retries": 0, "command": ["sh", "-c", stays],
    }));
    let running = || {
        let view = server.api().get(&format!("/api/v1/jobs/{job}")).expect(200);
        view.json()["counts"]["running"] == 3
    };
    until("its tasks to run", || running().then_some(()));
    server.ctl(&["node", "uncordon", own]).expect(0);
    let drain = ["node", "drain", "w1", "--deadline", "2s"];
    server
        .ctl(&["node", "drain", "w1", "--deadline", "soon"])
        .expect(2);
    server
        .ctl(&["node", "drain", "nobody", "--deadline", "2s"])
        .expect(1);
    let said = server.ctl(&drain).expect(0).stderr;
    assert!(
        said.contains("3 tasks and 1 sandboxes are left") && said.contains("w1 is empty"),
        "{said}"
    );
    let view = server.finished(&job);
    assert_eq!(view["status"], "COMPLETED", "{view}");
    let results = server.results(&job);
    assert_eq!(results.len(), 3);
    for result in &results {
        assert_eq!(result["result"]["attempt"], 2, "{result}");
    }
    let left = node(&server, "w1").expect("it is there");
    assert_eq!(
        (&left["drain"]["phase"], &left["state"]),
        (&json!("done"), &json!("HEALTHY"))
    );
    assert!(left["rtt_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{left}");
    let list = server.ctl(&["node", "ls"]).expect(0).stdout;
    assert!(list.contains("DRAINED"), "{list}");
    let gone = server
        .api()
        .get("/api/v1/sandboxes?all=true")
        .expect(200)
        .json();
    let why = gone["items"][0]["message"].as_str().expect("a message");
    assert!(why.contains("was drained"), "{gone}");
    // It takes work again when it is let.
    server.ctl(&["node", "uncordon", "w1"]).expect(0);
    server.ctl(&["node", "cordon", own]).expect(0);
    let again = server.submit(&json!({"job": "again", "resources": small, "command": ["true"]}));
    assert_eq!(server.finished(&again)["status"], "COMPLETED");
    machine.place.assert_no_panic();
}
