//! Promise: a cluster keeps its state in an etcd that is there: servers join, the end of one loses nothing that was acknowledged, and an
//! etcd that is away or full costs time, not work. What is another's is refused by name.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use prism_e2e::cluster::{self, LOOPBACK, leader, peers, token};
use prism_e2e::{Answer, Output, Place, Server, until};
use prism_store_kit::etcd::{Certificates, Etcd, free_ports, has_etcd};
use serde_json::{Value, json};

/// A leader that was killed is followed when its lease of 5 s has ended; the rest is for a busy machine.
const FOLLOWED: Duration = Duration::from_secs(15);

fn endpoints(etcd: &Etcd) -> String {
    format!("--etcd-endpoints={}", etcd.url)
}

/// How a server is started that keeps the state beneath a prefix of this etcd.
fn store(etcd: &Etcd, prefix: &str) -> [String; 3] {
    let prefix = format!("--etcd-prefix={prefix}");
    ["--store=etcd".to_owned(), endpoints(etcd), prefix]
}

/// A server that is not started yet.
fn server(etcd: &Etcd, prefix: &str, more: &[&str]) -> Server {
    let store = store(etcd, prefix);
    Server::started_as(&[&store.each_ref().map(String::as_str)[..], more].concat())
}

fn founder(etcd: &Etcd, prefix: &str) -> Server {
    let store = store(etcd, prefix);
    let [kind, at, beneath] = store.each_ref().map(String::as_str);
    cluster::founder("s1", &[LOOPBACK, kind, at, beneath])
}

/// Another server that has joined.
fn joined(etcd: &Etcd, prefix: &str, first: &Server, name: &str) -> Server {
    let store = store(etcd, prefix);
    let [kind, at, beneath] = store.each_ref().map(String::as_str);
    cluster::joined(first, name, &[LOOPBACK, kind, at, beneath])
}

fn small() -> Value {
    json!({"cpu": "100m", "memory": "32Mi"})
}

/// A job under a key: the same one however often it is asked for.
fn keyed(server: &Server, owner: Option<&str>, key: &str) -> Option<String> {
    let headers = [
        ("idempotency-key", key),
        ("content-type", "application/json"),
    ];
    let spec = json!({"job": key, "command": ["true"], "resources": small()});
    let body = serde_json::to_vec(&spec).expect("JSON");
    let api = server.api().with_token(owner);
    let answer = api.try_send("POST", "/api/v1/jobs", &headers, &body).ok()?;
    if answer.status != 201 {
        return None;
    }
    Some(answer.json()["id"].as_str().expect("an id").to_owned())
}

/// What a server says that does not start.
fn refused(server: &mut Server) -> Output {
    server.try_start(&[], &[]).expect_err("it is refused")
}

#[track_caller]
fn says(output: &Output, code: &str, words: &[&str]) {
    let said = &output.stderr;
    let page = format!("more: prismctl explain {code}");
    for words in words.iter().chain([&&*page]) {
        assert!(said.contains(words), "{words}: {said}");
    }
}

fn ask(server: &Server, path: &str) -> Option<Answer> {
    server.api().try_send("GET", path, &[], b"").ok()
}

#[test]
fn the_end_of_the_leader_loses_nothing_and_work_goes_on() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let mut first = founder(&etcd, "/prism/");
    let job = first.submit(&json!({"job": "before", "command": ["true"], "resources": small()}));
    assert_eq!(first.finished(&job)["status"], "COMPLETED");
    // The state is in etcd: a server that was killed finds it there, once the lease of its last life has ended.
    first.kill();
    first.restart();
    let kept = first.api().get(&format!("/api/v1/jobs/{job}")).expect(200);
    assert_eq!(kept.json()["status"], "COMPLETED");
    assert!(!first.place.data().join("store").exists());

    let second = joined(&etcd, "/prism/", &first, "s2");
    assert_eq!(leader(&second).as_deref(), Some("s1"));
    let listed = second.ctl(&["peer", "ls"]).expect(0).stdout;
    assert!(
        listed.contains("s2") && listed.contains("leader"),
        "{listed}"
    );
    assert!(
        !listed.contains("voter") && !listed.contains("learns"),
        "{listed}"
    );
    until("both to run work", || {
        let page = second.api().get("/api/v1/nodes").expect(200).json();
        let nodes = page["items"].as_array().expect("a list");
        let well = nodes.iter().filter(|n| n["state"] == "HEALTHY").count();
        (well == 2).then_some(())
    });
    let job = second.submit(&json!({
        "job": "far", "array": 300, "resources": small(), "retries": 5,
        "command": ["sh", "-c", "sleep 0.02; echo done"],
    }));
    let owner = second.api().token.clone();
    let before: Vec<_> = (0..20)
        .map(|n| keyed(&second, owner.as_deref(), &format!("key-{n}")).expect("acknowledged"))
        .collect();
    first.kill();
    let killed = Instant::now();
    let after = until("another to lead", || {
        keyed(&second, owner.as_deref(), "key-after")
    });
    let took = killed.elapsed();
    eprintln!(
        "the first write after the leader was killed came {} ms later",
        took.as_millis()
    );
    assert!(took < FOLLOWED, "{took:?}");
    assert_eq!(leader(&second).as_deref(), Some("s2"));
    for (n, id) in before.iter().enumerate() {
        let same = keyed(&second, owner.as_deref(), &format!("key-{n}"));
        assert_eq!(same.as_ref(), Some(id), "what was acknowledged is there");
    }
    // The one that was away comes back as one that follows.
    first.restart();
    let same = keyed(&first, owner.as_deref(), "key-after");
    assert_eq!(same.as_ref(), Some(&after));
    let view = first.finished(&job);
    assert_eq!(view["status"], "COMPLETED", "{view}");
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    for result in second.results(&job) {
        let index = result["index"].as_u64().expect("an index");
        *seen.entry(index).or_default() += 1;
    }
    assert_eq!(seen.len(), 300);
    assert!(seen.values().all(|n| *n == 1), "each is recorded once");
    first.place.assert_no_panic();
    second.place.assert_no_panic();
}

#[test]
fn a_leader_that_stops_hands_over_at_once_and_one_that_was_taken_out_leads_no_more() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let mut first = founder(&etcd, "/prism/");
    let mut second = joined(&etcd, "/prism/", &first, "s2");
    let owner = second.api().token.clone();
    let asked = Instant::now();
    first.stop();
    let stopped = asked.elapsed();
    until("another to lead", || {
        keyed(&second, owner.as_deref(), "now")
    });
    let took = asked.elapsed() - stopped;
    // The lease alone would take longer.
    assert!(took < Duration::from_secs(4), "{took:?} after {stopped:?}");
    first.restart();
    until("it to know the leader", || {
        leader(&first).filter(|l| l == "s2")
    });
    let out = first.ctl(&["peer", "rm", "s2"]).expect(0);
    assert!(out.stderr.contains("taken out"), "{}", out.stderr);
    until("the other to lead", || leader(&first).filter(|l| l == "s1"));
    assert_eq!(peers(&first).len(), 1);
    second.kill();
    let said = refused(&mut second);
    says(&said, "PRISM-D005", &["server s2", "was taken out"]);
    first.place.assert_no_panic();
}

#[test]
fn an_etcd_that_is_away_costs_time_and_no_work() {
    if !has_etcd() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    let mut server = founder(&etcd, "/prism/");
    let pid = server.pid();
    for how in ["paused", "killed"] {
        let job = server.submit(&json!({
            "job": how, "command": ["sh", "-c", "sleep 12; echo went on"], "resources": small(),
        }));
        until("it to run", || {
            let view = ask(&server, &format!("/api/v1/jobs/{job}"))?.json();
            (view["counts"]["running"] == 1).then_some(())
        });
        match how {
            "paused" => etcd.signal("STOP"),
            _ => etcd.kill(),
        }
        let said = until("it to say that nobody leads", || {
            ask(&server, "/api/v1/jobs").filter(|a| a.status == 503)
        });
        let body = until("the words of etcd", || {
            let body = ask(&server, "/api/v1/jobs")
                .filter(|a| a.status == 503)?
                .json();
            let text = body["message"].as_str()?.to_owned();
            (text.contains("etcd") && text.contains("cannot be used now")).then_some(body)
        });
        assert_eq!(body["outcome"], "not_applied", "{body}");
        assert_eq!(body["retryable"], true, "{body} after {}", said.text());
        let health = server.api().get("/health");
        assert_eq!(health.status, 503);
        assert!(health.text().contains("etcd"), "{}", health.text());
        let refused = server
            .api()
            .post("/api/v1/jobs", &json!({"job": "no", "command": ["true"]}));
        assert_eq!(refused.status, 503, "{}", refused.text());
        let known = server.api().get("/api/v1/jobs?stale=true").expect(200);
        assert!(known.header("x-prism-stale").is_some());
        match how {
            "paused" => etcd.signal("CONT"),
            _ => etcd.run(),
        }
        let view = until("it to lead again", || {
            ask(&server, &format!("/api/v1/jobs/{job}")).filter(|a| a.status == 200)
        });
        assert_eq!(view.json()["id"], json!(job));
        assert_eq!(server.finished(&job)["status"], "COMPLETED");
        let results = server.results(&job);
        assert_eq!(results.len(), 1);
        assert_eq!(results[0]["attempt"], 1, "it ran on: {}", results[0]);
        let next = server.submit(
            &json!({"job": format!("{how}-after"), "command": ["true"], "resources": small()}),
        );
        assert_eq!(server.finished(&next)["status"], "COMPLETED");
    }
    assert!(!server.is_over() && server.pid() == pid, "it never ended");
    server.place.assert_no_panic();
}

#[test]
fn a_full_etcd_is_told_with_what_to_do_and_there_is_work_again_when_it_has_room() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&["--quota-backend-bytes", "16777216"]);
    let mut server = founder(&etcd, "/prism/");
    let value = "x".repeat(100_000);
    let full = (0..400).any(|n| {
        let put = etcd.ask(&["put", &format!("/other/{n}"), &value]);
        String::from_utf8_lossy(&put.stderr).contains("database space exceeded")
    });
    assert!(full, "its quota is used up some time");
    let spec = json!({"job": "one", "command": ["true"], "resources": small()});
    // What was under way when it was found out, and what comes after.
    for _ in 0..3 {
        let answer = server.api().post("/api/v1/jobs", &spec);
        assert_eq!(answer.status, 507, "{}", answer.text());
        let body = answer.json();
        assert_eq!(body["reason"], "pressure", "{body}");
        assert_eq!(body["outcome"], "not_applied", "{body}");
        let text = body["message"].as_str().expect("a text");
        assert!(
            text.contains("NOSPACE") && text.contains("etcdctl alarm disarm"),
            "{text}"
        );
    }
    let said = server.ctl(&["job", "submit", "--name", "two", "--", "true"]);
    assert!(
        said.code != Some(0) && said.stderr.contains("NOSPACE"),
        "{said:?}"
    );
    server.api().get("/api/v1/jobs?stale=true").expect(200);
    etcd.ctl(&["del", "/other/", "--prefix"]);
    etcd.make_room("/prism/head");
    let job = until("it to take work again", || {
        let answer = server.api().post("/api/v1/jobs", &spec);
        (answer.status == 201).then(|| answer.json()["id"].as_str().map(str::to_owned))?
    });
    assert_eq!(server.finished(&job)["status"], "COMPLETED");
    assert!(!server.is_over());
    server.place.assert_no_panic();
}

#[test]
fn an_etcd_with_certificates_and_users_is_reached_by_the_configuration_file() {
    if !has_etcd() {
        return;
    }
    let files = Certificates::new();
    let etcd = files.etcd();
    etcd.have_users("/team/");
    let place = Place::new();
    let password = place.write("password", "right\n");
    let config = |prefix: &str, password: &str| {
        format!(
            "store = \"etcd\"\netcd_endpoints = [\"{}\"]\netcd_prefix = \"{prefix}\"\netcd_ca = \"{}\"\netcd_cert = \"{}\"\netcd_key = \"{}\"\netcd_user = \"prism\"\netcd_password_file = \"{password}\"\n",
            etcd.url,
            files.text("ca.pem"),
            files.text("client.pem"),
            files.text("client.key")
        )
    };
    let good = place.write("prism.toml", config("/team/", &password));
    let mut server = Server::started_as(&["--bootstrap", "--name=s1"]);
    let with = |file: &str| format!("--config={file}");
    server.try_start(&[&with(&good)], &[]).expect("it starts");
    let job = server.submit(&json!({"job": "one", "command": ["true"], "resources": small()}));
    assert_eq!(server.finished(&job)["status"], "COMPLETED");
    server.stop();

    let denied = place.write("denied.toml", config("/others/", &password));
    let mut other = Server::started_as(&["--bootstrap", "--name=s2"]);
    let said = other.try_start(&[&with(&denied)], &[]).expect_err("denied");
    says(
        &said,
        "PRISM-E001",
        &["permission denied", "beneath the prefix"],
    );
    let guessed = place.write("wrong", "a-guess");
    let wrong = place.write("wrong.toml", config("/team/", &guessed));
    let said = server
        .try_start(&[&with(&wrong)], &[])
        .expect_err("refused");
    says(
        &said,
        "PRISM-E001",
        &["etcd refused", "check user and password"],
    );
    assert!(!said.stderr.contains("a-guess"), "{}", said.stderr);
    // The environment goes before the file.
    let strangers = Certificates::new();
    let said = server.try_start(
        &[&with(&good)],
        &[("PRISM_ETCD_CA", &strangers.text("ca.pem"))],
    );
    let said = said.expect_err("not signed by them");
    says(&said, "PRISM-E001", &["certificate"]);
    let named = [
        ("PRISM_ETCD_CERT", files.text("named.pem")),
        ("PRISM_ETCD_KEY", files.text("named.key")),
    ];
    let said = server.try_start(&[&with(&good)], &named.each_ref().map(|(k, v)| (*k, &**v)));
    let said = said.expect_err("etcd takes no common name beside a user");
    says(
        &said,
        "PRISM-E001",
        &["CommonName", "without a common name"],
    );
    let said = server.try_start(
        &[&with(&good)],
        &[("PRISM_ETCD_KEY", &files.text("absent.key"))],
    );
    says(&said.expect_err("no key"), "PRISM-C001", &["absent.key"]);
    server.try_start(&[&with(&good)], &[]).expect("it starts");
    let kept = server.api().get(&format!("/api/v1/jobs/{job}")).expect(200);
    assert_eq!(kept.json()["status"], "COMPLETED");
    server.place.assert_no_panic();
}

/// A server that joins has to use the etcd, and the prefix, of the others.
fn joins_where_the_others_are(etcd: &Etcd, first: &Server) {
    let (token, at) = token(first, &["--role=server"]);
    let join = format!("--join={at}");
    let mut second = Server::started_as(&["--name=s2", &join, LOOPBACK]);
    let file = format!("--token-file={}", second.place.write("token", token));
    let said = second.try_start(&[&file], &[]).expect_err("no etcd");
    says(&said, "PRISM-R003", &["start it with --store=etcd"]);
    let at = endpoints(etcd);
    let more = [file.as_str(), "--store=etcd", &at];
    let elsewhere = [&more[..], &["--etcd-prefix=/two/"]].concat();
    let said = second.try_start(&elsewhere, &[]).expect_err("not there");
    says(
        &said,
        "PRISM-D005",
        &["beneath /two/", "no state of a cluster"],
    );
    let right = [&more[1..], &["--etcd-prefix=/one/"]].concat();
    second.try_start(&right, &[]).expect("it has joined");
    second.stop();
    let said = second.try_start(&elsewhere[1..], &[]).expect_err("moved");
    says(&said, "PRISM-D005", &["beneath /one/", "prefix /two/"]);
    let said = second.try_start(&[], &[]).expect_err("the other store");
    says(&said, "PRISM-D005", &["without --store=etcd", "backup"]);
}

/// A directory of the other kind.
fn keeps_what_it_had(at: &str) {
    let mut own = Server::started_as(&["--bootstrap", "--name=s3"]);
    own.restart();
    own.stop();
    let said = own.try_start(&["--store=etcd", at], &[]);
    let said = said.expect_err("the other store");
    says(&said, "PRISM-D005", &["keeps its state itself", "backup"]);
    own.restart();
    own.stop();
}

/// Two that begin beneath one prefix at once: one of them has a cluster.
fn only_one_begins(etcd: &Etcd) {
    let mut both: Vec<_> = ["s7", "s8"]
        .map(|name| {
            let how = [
                "--bootstrap",
                &format!("--name={name}"),
                "--serf=127.0.0.1:0",
            ];
            let mut server = server(etcd, "/both/", &how);
            std::thread::spawn(move || server.try_start(&[], &[]).map(|()| server))
        })
        .into_iter()
        .map(|started| started.join().expect("no panic"))
        .collect();
    both.sort_by_key(Result::is_err);
    let [Ok(one), Err(other)] = &both[..] else {
        panic!("one starts, and one does not: {both:?}");
    };
    assert_eq!(one.api().get("/health").status, 200);
    assert!(
        other.stderr.contains("PRISM-E001") || other.stderr.contains("PRISM-D005"),
        "{}",
        other.stderr
    );
}

/// What a directory says is read with care.
fn reads_its_record_with_care(first: &mut Server) {
    first.stop();
    let record = first.place.data().join("store.json");
    let kept = std::fs::read(&record).expect("it is there");
    for damage in [
        "",
        "{}",
        "{\"store\":\"etcd\"}",
        "\u{0}\u{1}",
        &"[".repeat(10_000),
    ] {
        std::fs::write(&record, damage).expect("our own");
        says(&refused(first), "PRISM-D003", &["store.json"]);
    }
    let half = kept.len() / 2;
    let mut turned = kept.clone();
    turned[half] ^= 1;
    std::fs::write(&record, turned).expect("our own");
    says(&refused(first), "PRISM-D003", &["store.json"]);
    std::fs::write(&record, kept).expect("our own");
    first.restart();
    first.stop();
}

#[test]
fn what_is_anothers_is_refused_by_name() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let mut first = founder(&etcd, "/one/");
    let cluster = first.ctl(&["ca", "status", "-o", "json"]);
    let mut stranger = server(&etcd, "/one/", &["--bootstrap", "--name=s9"]);
    let said = refused(&mut stranger);
    says(
        &said,
        "PRISM-D005",
        &["beneath /one/", "--join", "--token-file"],
    );
    drop(cluster);
    joins_where_the_others_are(&etcd, &first);

    keeps_what_it_had(&endpoints(&etcd));
    only_one_begins(&etcd);
    reads_its_record_with_care(&mut first);
    // State that is gone is not begun anew.
    etcd.ctl(&["del", "/one/", "--prefix"]);
    let said = refused(&mut first);
    says(
        &said,
        "PRISM-D005",
        &["beneath /one/", "restored from its backup"],
    );
    etcd.ctl(&["put", "/one/keys/meta", "text of others"]);
    let said = refused(&mut first);
    says(
        &said,
        "PRISM-D005",
        &["/one/keys/meta", "does not hold what Prism writes"],
    );
    let [port] = free_ports();
    let nowhere = format!("http://127.0.0.1:{port}");
    let mut lost = Server::started_as(&["--bootstrap", "--store=etcd"]);
    let said = lost.try_start(&["--etcd-endpoints", &nowhere], &[]);
    let said = said.expect_err("nobody is there");
    says(
        &said,
        "PRISM-E001",
        &[&nowhere, "no etcd member answered", "nothing was changed"],
    );
}
