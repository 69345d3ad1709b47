//! Promise: a PKI mount of a Vault signs for a cluster's members. Members join and renew; while Vault is away or refuses, all goes on, nothing
//! is used up, and it is said why; and Vault's root is changed while everything goes on.

#![expect(
    clippy::too_many_lines,
    reason = "a story that is told from its begin to its end"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use prism_e2e::{Place, Running, Server, until, until_within};
use prism_vault_kit::{Manner, StandIn};
use serde_json::{Value, json};

const TOKEN: &str = "hvs.the-token-for-vault-of-this-test";
const ROOM: &str = "--pressure-threshold=1";
/// How long a certificate lives here, in seconds.
const LIFE: i64 = 40;

/// What a server is told of the Vault.
fn told(place: &Place, vault: &StandIn, token: &str) -> Vec<String> {
    let ca = place.write("vault-ca.pem", vault.web());
    let token = place.write("vault-token", token);
    vec![
        "--issuer=vault".to_owned(),
        format!("--vault-address={}", vault.url()),
        format!("--vault-ca={ca}"),
        format!("--vault-token-file={token}"),
    ]
}

fn start(server: &mut Server, more: &[String]) -> Result<(), prism_e2e::Output> {
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    server.try_start(&more, &[])
}

fn token(server: &Server, role: &str) -> (String, String) {
    let role = format!("--role={role}");
    let args = ["server", "join-token", &role, "-o", "json"];
    let made: Value = serde_json::from_str(&server.ctl(&args).expect(0).stdout).expect("JSON");
    let text = |key: &str| made[key].as_str().expect("a text").to_owned();
    (text("token"), text("address"))
}

fn worker(place: &Place, at: &str, token: &str) -> Running {
    let mut command = place.command("prismd");
    let file = place.write("token", token);
    let join = format!("--join={at}");
    command.args(["--role=worker", &join, "--name=w1", ROOM]);
    command.arg("--data-dir").arg(place.data());
    command.args(["--token-file", &file]);
    place.launch(command)
}

fn status(server: &Server) -> Value {
    let answer = server.api().try_send("GET", "/api/v1/ca", &[], b"");
    let answer = answer.ok().filter(|a| a.status == 200);
    answer.map_or(Value::Null, |a| {
        serde_json::from_slice(&a.body).expect("JSON")
    })
}

fn healthy(server: &Server, name: &str) -> bool {
    let answer = server.api().try_send("GET", "/api/v1/nodes", &[], b"");
    let page = answer
        .ok()
        .and_then(|a| serde_json::from_slice::<Value>(&a.body).ok());
    let nodes = page.and_then(|p| p["items"].as_array().cloned());
    let is = |n: &Value| n["name"] == name && n["state"] == "HEALTHY";
    nodes.is_some_and(|all| all.iter().any(is))
}

fn works(server: &Server) {
    let spec = json!({
        "job": "j", "array": 3, "retries": 5, "command": ["true"],
        "resources": {"cpu": "50m", "memory": "16Mi"},
    });
    let job = server.submit(&spec);
    assert_eq!(server.finished(&job)["status"], "COMPLETED");
}

/// How often each member was given a certificate.
fn counts(vault: &StandIn) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for noted in vault.signed() {
        *all.entry(noted.uri).or_default() += 1;
    }
    all
}

#[test]
fn vault_signs_for_members_is_away_comes_back_and_changes_its_root() {
    let mut vault = StandIn::start(TOKEN);
    vault.lives(LIFE, 5);
    let mut first = Server::started_as(&["--bootstrap", "--name=s1", ROOM]);
    let mut flags = told(&first.place, &vault, TOKEN);
    flags.push("--serf=127.0.0.1:0".to_owned());
    // Away at the very begin: nothing is founded, and the next start begins anew.
    vault.away();
    let ended = start(&mut first, &flags).expect_err("Vault is away");
    for says in ["PRISM-E002", "Vault is away", "vault status"] {
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
    }
    vault.back();
    let started = start(&mut first, &flags);
    assert!(started.is_ok(), "{started:?}");
    let now = status(&first);
    assert_eq!(now["root"], vault.pin(0).as_str(), "{now}");
    let human = first.ctl(&["ca", "status"]).expect(0).stdout;
    assert!(
        human.contains("issuer    Vault: https://127.0.0.1:"),
        "{human}"
    );
    assert!(human.contains("/v1/prism/sign/prism-member"), "{human}");

    // Vault refuses: the server that is let in says why, and its token is good still.
    let (text, at) = token(&first, "server");
    let join = format!("--join={at}");
    let mut second = Server::started_as(&["--name=s2", &join, "--serf=127.0.0.1:0", ROOM]);
    let token_file = format!("--token-file={}", second.place.write("token", &text));
    let own = told(&second.place, &vault, TOKEN);
    let ended =
        start(&mut second, std::slice::from_ref(&token_file)).expect_err("not told of Vault");
    assert!(ended.stderr.contains("--issuer=vault"), "{}", ended.stderr);
    vault.take("hvs.another");
    let with: Vec<String> = own.iter().cloned().chain([token_file]).collect();
    let ended = start(&mut second, &with).expect_err("Vault refuses");
    for says in [
        "PRISM-E002",
        "permission denied",
        "the token is not used up",
    ] {
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
    }
    // What renews the token writes the file, and no server is started again for that.
    first.place.write("vault-token", "hvs.another");
    second.place.write("vault-token", "hvs.another");
    let started = start(&mut second, &with);
    assert!(started.is_ok(), "{started:?}");
    let (text, at) = token(&first, "worker");
    let place = Place::new();
    let machine = worker(&place, &at, &text);
    until("the worker to be there", || {
        healthy(&first, "w1").then_some(())
    });
    until("both servers to vote", || {
        let peers = first.api().get("/api/v1/cluster/peers").expect(200).json();
        let all = peers["items"].as_array().expect("a list");
        (all.iter().filter(|p| p["voter"] == true).count() == 2).then_some(())
    });

    // All three renew, several times, and outlive what they had first.
    until_within(Duration::from_secs(120), "renewals of all members", || {
        let all = counts(&vault);
        (all.len() == 3 && all.values().all(|n| *n >= 3)).then_some(())
    });
    works(&second);

    // Away for longer than until the next renewal: all goes on, and it is said.
    vault.away();
    let began = Instant::now();
    until_within(Duration::from_secs(60), "the log to say so", || {
        first.log().contains("Vault is away").then_some(())
    });
    works(&first);
    vault.back();
    let before = counts(&vault);
    until_within(Duration::from_secs(60), "renewals of all members", || {
        let all = counts(&vault);
        before.iter().all(|(uri, n)| all[uri] > *n).then_some(())
    });
    let rest = Duration::from_secs(u64::try_from(LIFE).expect("short"));
    std::thread::sleep(rest.saturating_sub(began.elapsed()));
    assert!(healthy(&first, "w1") && healthy(&first, "s2"));
    works(&second);

    // Something that is no Vault answers: nothing of it is taken.
    vault.behave(Manner::WrongKey);
    until_within(Duration::from_secs(60), "the log to say so", || {
        first.log().contains("another key").then_some(())
    });
    vault.behave(Manner::Well);

    // The root is changed.
    let refused = first.ctl(&["ca", "rotate"]).expect(1);
    assert!(refused.stderr.contains("root/rotate"), "{}", refused.stderr);
    vault.rotate();
    let said = first.ctl(&["ca", "rotate"]).expect(0);
    assert!(said.stderr.contains("root/replace"), "{}", said.stderr);
    let finish = first.ctl(&["ca", "rotate", "--finish"]).expect(1);
    assert!(
        finish.stderr.contains("nothing was changed"),
        "{}",
        finish.stderr
    );
    let human = first.ctl(&["ca", "status"]).expect(0).stdout;
    assert!(human.contains("until nobody is missing"), "{human}");
    // As long as a certificate lives: then all have renewed, and trust both.
    std::thread::sleep(rest);
    assert!(healthy(&first, "w1"));
    assert!(status(&first)["rotation"]["ended"].is_null());
    vault.replace();
    until_within(Duration::from_secs(120), "the end of the change", || {
        status(&first)["rotation"]["ended"].as_u64().map(drop)
    });
    until_within(Duration::from_secs(60), "the old root to be gone", || {
        let now = status(&first);
        (now["root"] == vault.pin(1).as_str()).then_some(())
    });
    until("the worker to be there", || {
        healthy(&first, "w1").then_some(())
    });
    works(&second);
    let (text, at) = token(&first, "worker");
    let late = Place::new();
    let mut command = late.command("prismd");
    let (file, join) = (late.write("token", &text), format!("--join={at}"));
    command.args(["--role=worker", &join, "--name=w2", ROOM]);
    command.arg("--data-dir").arg(late.data());
    command.args(["--token-file", &file]);
    let other = late.launch(command);
    until("another to be there", || {
        healthy(&first, "w2").then_some(())
    });

    // People have tokens.
    let request = ["ca", "issue", "ada", "--role", "viewer"];
    let refused = first.ctl(&request);
    assert!(
        refused.stderr.contains("make a token instead"),
        "{}",
        refused.stderr
    );
    // It is started again as it was founded, and in no other way.
    first.stop();
    let serf = [format!("--serf={at}")];
    let ended = start(&mut first, &serf).expect_err("not told of Vault");
    assert!(
        ended.stderr.contains("for which Vault signs"),
        "{}",
        ended.stderr
    );
    let again: Vec<String> = told(&first.place, &vault, "hvs.another")
        .into_iter()
        .chain(serf)
        .collect();
    // Vault is not needed for that.
    vault.away();
    let started = start(&mut first, &again);
    assert!(started.is_ok(), "{started:?}");
    vault.back();
    works(&first);
    let logs = [first.log(), second.log(), machine.stderr(), other.stderr()].concat();
    assert!(
        !logs.contains(TOKEN) && !logs.contains("hvs."),
        "a token is in a log"
    );
    for place in [&first.place, &second.place, &place, &late] {
        place.assert_no_panic();
    }
}

/// The API off loopback is served with the server's own certificate: its key is what clients pin.
#[test]
fn the_api_is_pinned_by_the_key_of_the_server() {
    let vault = StandIn::start(TOKEN);
    let place = Place::new();
    let mut command = place.command("prismd");
    command.args([
        "--bootstrap",
        "--name=s1",
        "--api=https://127.0.0.1:0",
        ROOM,
    ]);
    command.arg("--data-dir").arg(place.data());
    command.args(told(&place, &vault, TOKEN));
    let running = place.launch(command);
    until("prismd to be ready", || {
        running
            .stdout()
            .contains("is ready: https://")
            .then_some(())
    });
    let info = place.ctl(&["ca", "status"]).expect(0).stdout;
    let pinned = info.lines().find_map(|l| l.split("its own key: ").nth(1));
    let pinned = pinned.expect("a pin").trim().to_owned();
    let contexts = place.path().join("config/prism/contexts.toml");
    let contexts = std::fs::read_to_string(contexts).expect("a context");
    assert!(contexts.contains(&pinned), "{contexts}");
    assert_ne!(pinned, vault.pin(0));
    let value = |key: &str| {
        let line = contexts
            .lines()
            .find(|l| l.starts_with(key))
            .expect("there");
        line.split('"').nth(1).expect("a text").to_owned()
    };
    let other = pinned.replace(|c: char| c.is_ascii_digit(), "0");
    let api = value("api");
    let args = ["context", "add", "x", "--api", &api, "--pin", &other];
    place.ctl_with(value("token").as_bytes(), &args).expect(0);
    let wrong = place.ctl(&["--context", "x", "info"]);
    assert!(wrong.stderr.contains("PRISM-C009"), "{}", wrong.stderr);
}
