//! Promise: a PKI mount of a Vault signs for a cluster's members. Members join and renew; while Vault is away or refuses, all goes on, nothing
//! is used up, and it is said why; and Vault's root is changed while everything goes on.

#![expect(
    clippy::too_many_lines,
    reason = "a story that is told from its begin to its end"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use prism_e2e::cluster::{
    LOOPBACK, ROOM, Worker, by_vault, leader, start_all, state, token, voters,
};
use prism_e2e::{Place, Server, until, until_within};
use prism_store_kit::etcd::{Etcd, free_ports, has_etcd};
use prism_vault_kit::{Manner, StandIn};
use serde_json::{Value, json};

const TOKEN: &str = "hvs.the-token-for-vault-of-this-test";
/// How long a certificate lives here, in seconds.
const LIFE: i64 = 40;

/// What a server is told of the Vault.
fn told(place: &Place, vault: &StandIn, token: &str) -> Vec<String> {
    by_vault(place, &vault.url(), vault.web(), token)
}

fn start(server: &mut Server, more: &[String]) -> Result<(), prism_e2e::Output> {
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    server.try_start(&more, &[])
}

fn status(server: &Server) -> Value {
    let answer = server.api().try_send("GET", "/api/v1/ca", &[], b"");
    let answer = answer.ok().filter(|a| a.status == 200);
    answer.map_or(Value::Null, |a| {
        serde_json::from_slice(&a.body).expect("JSON")
    })
}

fn healthy(server: &Server, name: &str) -> bool {
    state(server, name).as_deref() == Some("HEALTHY")
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
    flags.push(LOOPBACK.to_owned());
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
    let (text, at) = token(&first, &["--role=server"]);
    let join = format!("--join={at}");
    let mut second = Server::started_as(&["--name=s2", &join, LOOPBACK, ROOM]);
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
    let mut machine = Worker::joined(&first, "w1", &[ROOM]);
    until("both servers to vote", || {
        (voters(&first) == 2).then_some(())
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
    let mut other = Worker::joined(&first, "w2", &[ROOM]);

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
    let members = [&mut machine, &mut other].map(|w| w.running().stderr());
    let logs = [&[first.log(), second.log()][..], &members]
        .concat()
        .concat();
    assert!(
        !logs.contains(TOKEN) && !logs.contains("hvs."),
        "a token is in a log"
    );
    for place in [&first.place, &second.place, &machine.place, &other.place] {
        place.assert_no_panic();
    }
}

/// Servers that found a cluster together are signed for like those that join, and begin again as they were.
#[test]
fn a_cohort_is_signed_for_by_vault() {
    let mut vault = StandIn::start(TOKEN);
    let ports = free_ports::<3>();
    let secret = Place::new()
        .ctl(&["server", "bootstrap-token"])
        .expect(0)
        .stdout;
    let join: Vec<String> = ports.iter().map(|p| format!("127.0.0.1:{p}")).collect();
    let join = format!("--join={}", join.join(","));
    let server = |n: usize| {
        let place = Place::new();
        let mut how = told(&place, &vault, TOKEN);
        how.extend([
            "--bootstrap-expect=3".to_owned(),
            join.clone(),
            format!("--name=s{}", n + 1),
            format!("--serf=127.0.0.1:{}", ports[n]),
            format!("--token-file={}", place.write("token", &secret)),
            ROOM.to_owned(),
        ]);
        let how: Vec<&str> = how.iter().map(String::as_str).collect();
        Server::started_in(place, &how)
    };
    let mut servers = start_all((0..3).map(server).collect());
    until("all to vote", || (voters(&servers[0]) == 3).then_some(()));
    let seen: Vec<Value> = servers.iter().map(status).collect();
    for one in &seen {
        assert_eq!(one["root"], vault.pin(0).as_str(), "{one}");
        assert_eq!(one["cluster"], seen[0]["cluster"], "{one}");
    }
    assert_eq!(counts(&vault).len(), 3);
    works(&servers[2]);
    // All at once, without Vault: they have what they need.
    servers.iter_mut().for_each(Server::kill);
    vault.away();
    let servers = start_all(servers);
    until("all to vote", || (voters(&servers[1]) == 3).then_some(()));
    works(&servers[0]);
    for server in &servers {
        server.place.assert_no_panic();
    }
}

/// Who signs for the members has nothing to do with what keeps the state.
#[test]
fn vault_signs_while_etcd_keeps_the_state() {
    if !has_etcd() {
        return;
    }
    let vault = StandIn::start(TOKEN);
    let etcd = Etcd::start(&[]);
    let store = ["--store=etcd", &format!("--etcd-endpoints={}", etcd.url)];
    let mut first = Server::started_as(&["--bootstrap", "--name=s1", LOOPBACK, ROOM]);
    let own = told(&first.place, &vault, TOKEN);
    let how = |own: &[String]| -> Vec<String> {
        let store = store.iter().map(|s| (*s).to_owned());
        own.iter().cloned().chain(store).collect()
    };
    let started = start(&mut first, &how(&own));
    assert!(started.is_ok(), "{started:?}");
    let (text, at) = token(&first, &["--role=server"]);
    let join = format!("--join={at}");
    let mut second = Server::started_as(&["--name=s2", &join, LOOPBACK, ROOM]);
    let mut own = told(&second.place, &vault, TOKEN);
    own.push(format!(
        "--token-file={}",
        second.place.write("token", text)
    ));
    let started = start(&mut second, &how(&own));
    assert!(started.is_ok(), "{started:?}");
    let worker = Worker::joined(&first, "w1", &[ROOM]);
    assert_eq!(counts(&vault).len(), 3);
    works(&second);
    // Whoever leads next is signed for as well, and lets members in.
    first.kill();
    until_within(Duration::from_secs(30), "the other to lead", || {
        (leader(&second).as_deref() == Some("s2")).then_some(())
    });
    works(&second);
    let late = Worker::joined(&second, "w2", &[ROOM]);
    assert_eq!(counts(&vault).len(), 4);
    for place in [&first.place, &second.place, &worker.place, &late.place] {
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
