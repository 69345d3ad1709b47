//! Promise: the root of a cluster is changed while everything goes on. A member that is away meanwhile comes along when it is back, a server
//! that is killed in the middle goes on where it was, and nothing that was acknowledged is lost.

#![expect(
    clippy::too_many_lines,
    reason = "a story that is told from its begin to its end"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prism_e2e::{Place, Running, Server, until, until_within};
use serde_json::{Value, json};

fn token(server: &Server, role: &str) -> (String, String) {
    let role = format!("--role={role}");
    let args = ["server", "join-token", &role, "-o", "json"];
    let made: Value = serde_json::from_str(&server.ctl(&args).expect(0).stdout).expect("JSON");
    let text = |key: &str| made[key].as_str().expect("a text").to_owned();
    (text("token"), text("address"))
}

/// Whatever else this machine does, it takes work.
const ROOM: &str = "--pressure-threshold=1";

/// A machine that runs work.
struct Machine {
    name: &'static str,
    at: String,
    place: Place,
    running: Option<Running>,
}

impl Machine {
    fn new(name: &'static str, at: &str) -> Self {
        Self {
            name,
            at: at.to_owned(),
            place: Place::new(),
            running: None,
        }
    }

    fn launch(&mut self, token: Option<&str>) {
        let mut command = self.place.command("prismd");
        let join = format!("--join={}", self.at);
        let name = format!("--name={}", self.name);
        command.args(["--role=worker", &join, &name, ROOM]);
        command.arg("--data-dir").arg(self.place.data());
        if let Some(token) = token {
            let file = self.place.write("token", token);
            command.args(["--token-file", &file]);
        }
        self.running = Some(self.place.launch(command));
    }

    fn kill(&mut self) {
        let mut running = self.running.take().expect("it runs");
        prism_e2e::kill(running.pid());
        until("its end", || running.is_over().then_some(()));
    }
}

fn state(server: &Server, name: &str) -> Option<String> {
    let answer = server
        .api()
        .try_send("GET", "/api/v1/nodes", &[], b"")
        .ok()?;
    let page: Value = serde_json::from_slice(&answer.body).ok()?;
    let nodes = page["items"].as_array()?;
    let node = nodes.iter().find(|n| n["name"] == name)?;
    Some(node["state"].as_str()?.to_owned())
}

fn healthy(server: &Server, name: &str) {
    until(&format!("{name} to be there"), || {
        (state(server, name).as_deref() == Some("HEALTHY")).then_some(())
    });
}

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
    let started = first.try_start(&["--serf=127.0.0.1:0"], &[]);
    assert!(started.is_ok(), "{started:?}");
    let (text, at) = token(&first, "server");
    let join = format!("--join={at}");
    let mut second = Server::started_as(&["--name=s2", &join, "--serf=127.0.0.1:0", ROOM]);
    let file = format!("--token-file={}", second.place.write("token", text));
    let started = second.try_start(&[&file], &[]);
    assert!(started.is_ok(), "{started:?}");
    let mut machines: BTreeMap<&str, Machine> = BTreeMap::new();
    for name in ["w1", "w2"] {
        let (text, at) = token(&first, "worker");
        let mut machine = Machine::new(name, &at);
        machine.launch(Some(&text));
        machines.insert(name, machine);
        healthy(&first, name);
    }
    until("both servers to vote", || {
        let peers = first.api().get("/api/v1/cluster/peers").expect(200).json();
        let all = peers["items"].as_array().expect("a list");
        (all.iter().filter(|p| p["voter"] == true).count() == 2).then_some(())
    });
    let before = status(&first)["root"].as_str().expect("a root").to_owned();
    let (during, _) = token(&first, "worker");
    let (after, _) = token(&first, "worker");
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
        let mut third = Machine::new("w3", &at);
        third.launch(Some(&during));
        healthy(&first, "w3");
        machines.insert("w3", third);
        let human = first.ctl(&["ca", "status"]).expect(0).stdout;
        assert!(human.contains("missing   w2"), "{human}");
        let early = first.ctl(&["server", "join-token"]).expect(0);
        assert!(early.stdout.starts_with("pj1."), "{}", early.stdout);
        machines.get_mut("w2").expect("there").launch(None);
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
    let mut late = Machine::new("w4", &at);
    late.launch(Some(&after));
    let ended = late.running.take().expect("it was started");
    let ended = ended.wait(Duration::from_secs(60)).expect(1);
    assert!(
        ended.stderr.contains("is not to be trusted"),
        "{}",
        ended.stderr
    );
    // The new one does.
    let (fresh, _) = token(&first, "worker");
    late.launch(Some(&fresh));
    healthy(&first, "w4");
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
    machines.get_mut("w1").expect("there").launch(None);
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
