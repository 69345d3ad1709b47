//! Promise: a cluster comes back from the loss of most of its servers, and from the loss of all of them by a backup; what was lost, and
//! what to do, is said beforehand in the words of the guide.

use std::collections::BTreeMap;
use std::path::Path;

use prism_e2e::cluster::{self, LOOPBACK, Worker, founder, peers, voters};
use prism_e2e::{Output, Place, Server, until};
use serde_json::{Value, json};

/// Another server that has joined, at the same address at every start: the others know it by that.
fn joined(first: &Server, name: &str) -> Server {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let serf = format!("--serf={}", free.local_addr().expect("it has one"));
    drop(free);
    cluster::joined(first, name, &[&serf])
}

fn three() -> BTreeMap<&'static str, Server> {
    let first = founder("s1", &[LOOPBACK]);
    let (second, third) = (joined(&first, "s2"), joined(&first, "s3"));
    until("all to vote", || {
        let caught_up = |p: &&Value| p["voter"] == true && p["behind"].as_u64() == Some(0);
        (peers(&first).iter().filter(caught_up).count() == 3).then_some(())
    });
    [("s1", first), ("s2", second), ("s3", third)].into()
}

fn small(name: &str, tasks: u32, script: &str) -> Value {
    json!({
        "job": name, "array": tasks, "resources": {"cpu": "100m", "memory": "32Mi"}, "retries": 5,
        "command": ["sh", "-c", script],
    })
}

/// What a guide shows must be what people see: every line of this block of it, in order.
#[track_caller]
fn as_in_the_guide(marker: &str, seen: &str) {
    let guide = std::fs::read_to_string(Place::repo("docs/guides/recovery.md")).expect("the guide");
    let (_, after) = guide
        .split_once(&format!("<!-- {marker} -->"))
        .unwrap_or_else(|| panic!("the guide has no {marker}"));
    let block: Vec<&str> = after
        .lines()
        .skip_while(|l| l.trim().is_empty())
        .take_while(|l| l.starts_with("    ") || l.trim().is_empty())
        .filter_map(|l| Some(l.strip_prefix("    ")?.trim_end()).filter(|l| !l.is_empty()))
        .collect();
    assert!(!block.is_empty(), "{marker} is empty");
    let seen: Vec<&str> = seen
        .lines()
        .map(str::trim_end)
        .filter(|l| !l.is_empty())
        .collect();
    let fits = |shown: &str, is: &str| {
        // `…` stands for what differs from one cluster to another.
        let mut rest = is;
        let mut parts = shown.split('…').peekable();
        let mut first = true;
        while let Some(part) = parts.next() {
            let at = match rest.find(part) {
                Some(at) if !first || at == 0 => at,
                _ => return false,
            };
            first = false;
            rest = &rest[at + part.len()..];
            if parts.peek().is_none() && !part.is_empty() && !rest.is_empty() {
                return false;
            }
        }
        true
    };
    let all = block.len() == seen.len() && block.iter().zip(&seen).all(|(b, s)| fits(b, s));
    assert!(
        all,
        "{marker}: the guide shows\n{block:#?}\nand this is seen\n{seen:#?}"
    );
}

fn recover(server: &Server, yes: bool) -> Output {
    let data = server.place.data();
    let data = data.to_str().expect("a path");
    let mut args = vec!["server", "recover", "--data-dir", data];
    args.extend(yes.then_some("--yes"));
    server.ctl(&args)
}

#[test]
fn the_one_that_is_left_goes_on_and_those_that_come_back_are_refused() {
    let mut servers = three();
    let worker = Worker::joined(&servers["s1"], "w1", &[]);
    let done = servers["s1"].submit(&small("done", 20, "echo done"));
    servers["s1"].finished(&done);
    // On the worker, which has no part in what follows.
    for name in ["s1", "s2", "s3"] {
        servers["s1"].ctl(&["node", "cordon", name]).expect(0);
    }
    let long = servers["s1"].submit(&small("long", 1, "sleep 20; echo done"));
    until("it to run", || {
        let view = servers["s1"]
            .api()
            .get(&format!("/api/v1/jobs/{long}"))
            .json();
        (view["counts"]["running"] == 1).then_some(())
    });
    until("all to have everything", || {
        let level = |p: &Value| p["behind"].as_u64() == Some(0);
        let all = peers(&servers["s1"]);
        (all.len() == 3 && all.iter().all(level)).then_some(())
    });
    let mut third = servers.remove("s3").expect("there");
    let refused = recover(&third, true).expect(1);
    assert!(
        refused.stderr.contains("in use by process"),
        "{}",
        refused.stderr
    );
    // The others go on without it for a moment: their logs are longer, and what they acknowledge meanwhile is what is lost. Then they
    // are lost themselves; one of them comes back later.
    third.kill();
    until("the other two to go on", || {
        (servers["s1"].api().get("/api/v1/cluster").status == 200).then_some(())
    });
    let unseen = servers["s1"].submit(&small("unseen", 1, "true"));
    let mut first = servers.remove("s1").expect("there");
    let mut second = servers.remove("s2").expect("there");
    first.kill();
    second.kill();
    let shown = recover(&third, false).expect(2);
    as_in_the_guide("recover-shown", &(shown.stdout.clone() + &shown.stderr));
    let made = recover(&third, true).expect(0);
    as_in_the_guide("recover-done", &made.stderr);
    let again = recover(&third, true).expect(1);
    assert!(
        again.stderr.contains("is the only server of cluster"),
        "{}",
        again.stderr
    );
    third.restart();
    until("it to lead alone", || {
        let all = peers(&third);
        (all.len() == 1 && all[0]["leader"] == true).then_some(())
    });
    assert_eq!(third.finished(&done)["status"], "COMPLETED");
    assert_eq!(third.results(&done).len(), 20);
    let lost = third.api().get(&format!("/api/v1/jobs/{unseen}"));
    assert_eq!(lost.status, 404, "{}", lost.text());
    assert_eq!(third.finished(&long)["status"], "COMPLETED");
    assert_eq!(third.results(&long)[0]["attempt"], 1, "it went on");
    let after = third.submit(&small("after", 8, "echo after"));
    assert_eq!(third.finished(&after)["status"], "COMPLETED");
    let fourth = returned(second, &third);
    drop((fourth, worker, first));
    third.place.assert_no_panic();
}

/// One that comes back is told, and ends; with an empty directory it is one of the cluster's again.
fn returned(mut second: Server, third: &Server) -> Server {
    let ended = match second.try_start(&[], &[]) {
        Err(ended) => ended,
        Ok(()) => second.ended(),
    };
    let said = ended
        .stderr
        .lines()
        .skip_while(|l| !l.starts_with("error:"));
    let said: Vec<&str> = said.collect();
    as_in_the_guide("returned", &said.join("\n"));
    assert_eq!(peers(third).len(), 1);
    let fourth = joined(third, "s4");
    until("both to vote", || (voters(third) == 2).then_some(()));
    fourth
}

#[test]
fn a_backup_under_load_is_restored_into_a_new_cluster() {
    let old = Server::start();
    let done = old.submit(&small("done", 50, "echo '{\"n\": 1}'"));
    old.finished(&done);
    old.ctl(&["namespace", "create", "team", "--cpu", "2"])
        .expect(0);
    let sandbox = old.sandbox();
    let load = old.submit(&small("load", 400, "sleep 0.05"));
    let file = old.place.work().join("cluster.prism");
    let path = file.to_str().expect("a path").to_owned();
    let taken = old.ctl(&["backup", &path]).expect(0);
    as_in_the_guide("backup", &taken.stdout);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&file).expect("it is there").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let twice = old.ctl(&["backup", &path]).expect(2);
    assert!(
        twice.stderr.contains("is there already"),
        "{}",
        twice.stderr
    );
    let checked = old.ctl(&["backup", "--check", &path]).expect(0);
    as_in_the_guide("backup", &checked.stdout);
    let refused = old.ctl(&["restore", &path]).expect(1);
    as_in_the_guide("restore-refused", &refused.stderr);
    let audit = old.ctl(&["events", "--kind", "audit"]).expect(0);
    assert!(audit.stdout.contains("cluster_backup"), "{}", audit.stdout);
    let old_token = old.api().token.clone();
    old.finished(&load);

    let new = Server::start();
    hostile(&new, &file);
    let restored = new.ctl(&["restore", &path]).expect(0);
    as_in_the_guide("restore", &restored.stdout);
    until("it to answer", || {
        (new.api().get("/api/v1/cluster").status == 200).then_some(())
    });
    assert_eq!(new.finished(&done)["status"], "COMPLETED");
    assert_eq!(new.results(&done).len(), 50);
    assert_eq!(new.finished(&load)["status"], "COMPLETED");
    assert_eq!(new.results(&load).len(), 400);
    let view = new
        .api()
        .get(&format!("/api/v1/sandboxes/{sandbox}"))
        .expect(200)
        .json();
    assert_eq!(view["status"], "FAILED", "{view}");
    assert!(view.to_string().contains("from whose backup"), "{view}");
    assert!(
        new.ctl(&["namespace", "ls"])
            .expect(0)
            .stdout
            .contains("team")
    );
    let by_old = new.api().with_token(old_token.as_deref());
    assert_eq!(
        by_old.get("/api/v1/jobs").status,
        401,
        "nobody comes in by a backup"
    );
    let verified = new.ctl(&["events", "--verify"]);
    verified.expect(0);
    let twice = new.ctl(&["restore", &path]).expect(1);
    assert!(twice.stderr.contains("is not empty"), "{}", twice.stderr);
    new.place.assert_no_panic();
}

/// Files that are no backup, or not as they were written, are refused with a reason and change nothing.
fn hostile(server: &Server, good: &Path) {
    let bytes = std::fs::read(good).expect("it is there");
    let refused = |name: &str, content: &[u8], said: &str| {
        let path = server.place.write(name, content);
        for verb in [&["backup", "--check", &path][..], &["restore", &path]] {
            let out = server.ctl(verb).expect(2);
            // A flipped bit may be in a length.
            let cut = said == "damaged" && out.stderr.contains("cut off");
            assert!(cut || out.stderr.contains(said), "{name}: {}", out.stderr);
        }
        // The server looks for itself.
        let raw = [("content-type", "application/octet-stream")];
        if content.is_empty() {
            return;
        }
        let answer = server
            .api()
            .send("POST", "/api/v1/cluster/restore", &raw, content);
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        assert!(
            answer.text().contains("nothing was changed"),
            "{}",
            answer.text()
        );
    };
    refused("cut", &bytes[..bytes.len() / 2], "cut off");
    refused("foreign", b"\x7fELF, a program", "no backup of Prism");
    refused("empty", b"", "no backup of Prism");
    let mut newer = bytes.clone();
    newer[8] = 9;
    refused("newer", &newer, "format 9");
    for part in 1..8 {
        let mut flipped = bytes.clone();
        flipped[bytes.len() * part / 8] ^= 4;
        refused("flipped", &flipped, "damaged");
    }
    let jobs = server.api().get("/api/v1/jobs").expect(200).json();
    assert_eq!(jobs["items"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_sealed_backup_opens_with_its_passphrase_only() {
    let old = Server::start();
    let secret = json!({
        "job": "secret", "command": ["true"], "env": {"KEY": "canary-7a61"},
        "resources": {"cpu": "100m", "memory": "32Mi"},
    });
    let job = old.submit(&secret);
    old.finished(&job);
    let key = old.place.write("key", "a passphrase of many words\n");
    let short = old.place.write("short", "short\n");
    let path = old.place.work().join("sealed.prism");
    let shown = path.to_str().expect("a path");
    old.ctl(&["backup", shown, "--passphrase-file", &short])
        .expect(2);
    assert!(!path.exists());
    let taken = old
        .ctl(&["backup", shown, "--passphrase-file", &key])
        .expect(0);
    assert!(taken.stdout.contains("sealed"), "{}", taken.stdout);
    let bytes = std::fs::read(&path).expect("it is there");
    assert!(!bytes.windows(11).any(|w| w == b"canary-7a61"));
    let left = std::fs::read_dir(old.place.work())
        .expect("a directory")
        .flatten();
    let temporary = left
        .filter(|f| f.file_name().to_string_lossy().ends_with(".tmp"))
        .count();
    assert_eq!(temporary, 0);
    let new = Server::start();
    let without = new.ctl(&["restore", shown]).expect(2);
    as_in_the_guide("sealed", &without.stderr);
    let other = new.place.write("other", "quite another passphrase");
    let wrong = new
        .ctl(&["restore", shown, "--passphrase-file", &other])
        .expect(2);
    assert!(
        wrong.stderr.contains("does not open it"),
        "{}",
        wrong.stderr
    );
    new.ctl(&["restore", shown, "--passphrase-file", &key])
        .expect(0);
    until("it to answer", || {
        (new.api().get("/api/v1/cluster").status == 200).then_some(())
    });
    assert_eq!(new.finished(&job)["status"], "COMPLETED");
}

#[test]
fn a_directory_of_a_newer_version_is_refused_by_name() {
    let mut server = Server::start();
    server.kill();
    let format = server.place.data().join("format");
    std::fs::write(&format, "prism-data 2\n").expect("written");
    let said = server.try_start(&[], &[]).expect_err("newer").stderr;
    let said: Vec<&str> = said
        .lines()
        .skip_while(|l| !l.starts_with("error:"))
        .collect();
    as_in_the_guide("newer", &said.join("\n"));
    // One of before there was such a file opens.
    std::fs::remove_file(&format).expect("it is there");
    server.restart();
    assert_eq!(
        std::fs::read_to_string(&format).expect("written"),
        "prism-data 1\n"
    );
}
