//! Promise: nobody gets in without a token, a token allows what its role and scope say, namespaces keep to themselves and to
//! their quotas, every change has an audit event, and a repeated change is done once.

use std::collections::BTreeSet;

use prism_e2e::{Server, Shared, until};
use serde_json::{Value, json};

static SERVER: Shared = Shared::new();

fn token(server: &Server, role: &str) -> (String, String) {
    let view = server
        .api()
        .post("/api/v1/tokens", &json!({"name": role, "role": role}))
        .expect(201)
        .json();
    let part = |name: &str| {
        view[name]
            .as_str()
            .expect("a token has a text and an id")
            .to_owned()
    };
    (part("id"), part("token"))
}

fn small_job(name: &str) -> Value {
    json!({"job": name, "command": ["true"], "resources": {"cpu": "50m", "memory": "8Mi"}})
}

#[test]
fn requests_without_a_good_token_are_refused_with_the_reason() {
    let server = SERVER.get();
    let good = server.api().token.clone().expect("dev writes a token");
    let last = if good.ends_with('0') { "1" } else { "0" };
    let forged = format!("{}{last}", &good[..good.len() - 1]);
    for bad in [None, Some("x"), Some(""), Some(forged.as_str())] {
        let api = server.api().with_token(bad);
        for path in ["/api/v1/cluster", "/api/v1/jobs", "/api/v1/tokens"] {
            let answer = api.get(path).expect(401);
            let body = answer.json();
            assert_eq!(body["reason"], "unauthenticated", "{body}");
            assert_eq!(body["outcome"], "not_applied");
            assert!(
                body["request_id"].as_str().is_some_and(|id| !id.is_empty()),
                "{body}"
            );
        }
        api.post("/api/v1/jobs", &small_job("intruder")).expect(401);
    }
    for path in ["/health", "/metrics", "/openapi.json"] {
        server.api().with_token(None).get(path).expect(200);
    }
}

#[test]
fn each_role_may_do_what_it_says_and_no_more() {
    let server = SERVER.get();
    let may = |role: &str| {
        let api = server.api().with_token(Some(&token(&server, role).1));
        [
            api.get("/api/v1/jobs").status,
            api.post("/api/v1/jobs", &small_job("by-role")).status,
            api.post("/api/v1/nodes/nobody/cordon", &Value::Null).status,
            api.get("/api/v1/tokens").status,
        ]
    };
    assert_eq!(may("viewer"), [200, 403, 403, 403]);
    assert_eq!(may("submitter"), [200, 201, 403, 403]);
    assert_eq!(may("operator"), [200, 201, 404, 403]);
    assert_eq!(may("admin"), [200, 201, 404, 200]);
}

#[test]
fn a_revoked_token_is_of_no_use_and_secrets_never_come_back() {
    let server = SERVER.get();
    let (id, text) = token(&server, "submitter");
    let api = server.api().with_token(Some(&text));
    api.get("/api/v1/jobs").expect(200);
    let listed = server.api().get("/api/v1/tokens").expect(200).text();
    assert!(listed.contains(&id) && !listed.contains(&text), "{listed}");
    assert!(server.api().delete(&format!("/api/v1/tokens/{id}")).status < 300);
    api.get("/api/v1/jobs").expect(401);
    let server_log = server.place.logs();
    assert!(!server_log.contains(&text), "a token in the log");
}

#[test]
fn a_server_whose_last_token_is_revoked_refuses_everything() {
    let server = Server::start();
    let api = server.api();
    let tokens = api.get("/api/v1/tokens").expect(200).json();
    let items = tokens["items"].as_array().expect("a list");
    for token in items {
        let id = token["id"].as_str().expect("an id");
        assert!(api.delete(&format!("/api/v1/tokens/{id}")).status < 300);
    }
    let refused = api.get("/api/v1/jobs").expect(503).json();
    assert!(
        refused["message"]
            .as_str()
            .is_some_and(|m| m.contains("no token")),
        "{refused}"
    );
    api.with_token(None).get("/api/v1/jobs").expect(503);
}

#[test]
fn the_same_change_under_the_same_key_is_done_once() {
    let server = SERVER.get();
    let api = server.api();
    let send = |key: &str, spec: &Value| {
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", key),
        ];
        api.send(
            "POST",
            "/api/v1/jobs",
            &headers,
            spec.to_string().as_bytes(),
        )
    };
    let ids: BTreeSet<String> = (0..3)
        .map(|_| send("once", &small_job("keyed")).expect(201).json()["id"].to_string())
        .collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let other = send("once", &small_job("other")).expect(422).json();
    assert_eq!(other["reason"], "key_reused");
    assert_ne!(
        send("twice", &small_job("keyed")).expect(201).json()["id"].to_string(),
        *ids.first().expect("one")
    );
    let listed = api.get("/api/v1/jobs?limit=1000").expect(200).text();
    assert!(!listed.contains("\"other\""), "{listed}");
}

#[test]
fn a_key_holds_after_the_server_was_killed() {
    let mut server = Server::start();
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", "kept"),
    ];
    let body = small_job("kept").to_string();
    // A key is its token's, and this one stays over a restart.
    let token = token(&server, "submitter").1;
    let send = |server: &Server| {
        let api = server.api().with_token(Some(&token));
        api.send("POST", "/api/v1/jobs", &headers, body.as_bytes())
            .expect(201)
            .json()
    };
    let first = send(&server);
    server.kill();
    server.restart();
    assert_eq!(send(&server)["id"], first["id"]);
    let id = first["id"].as_str().expect("an id");
    assert_eq!(server.finished(id)["status"], "COMPLETED");
}

#[test]
fn lists_are_read_page_by_page_without_a_gap_or_repeat() {
    let server = SERVER.get();
    let made: BTreeSet<String> = (0..7)
        .map(|n| {
            let mut spec = small_job(&format!("page-{n}"));
            spec["labels"] = json!({"set": "pages"});
            server.submit(&spec)
        })
        .collect();
    let (mut seen, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let page = server
            .api()
            .get(&format!("/api/v1/jobs?limit=3&label=set=pages{cursor}"))
            .expect(200)
            .json();
        let items = page["items"].as_array().expect("a list");
        assert!(items.len() <= 3);
        seen.extend(
            items
                .iter()
                .filter_map(|i| i["id"].as_str().map(str::to_owned)),
        );
        pages += 1;
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(seen.len(), 7);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), made);
}

#[test]
fn events_come_as_they_happen_and_from_where_one_stood() {
    let server = SERVER.get();
    let follow = |since: &str| {
        server
            .api()
            .follow("/api/v1/events?follow=true", &[("last-event-id", since)])
            .expect("events can be followed")
    };
    let mut live = follow("0");
    let id = server.submit(&small_job("eventful"));
    let data = live
        .by_ref()
        .filter_map(|l| serde_json::from_str::<Value>(l.strip_prefix("data:")?.trim()).ok())
        .find(|e| e["subject"].as_str().is_some_and(|s| s == id))
        .expect("the job has an event");
    assert!(data["seq"].is_u64() && data["kind"].is_string(), "{data}");
    server.finished(&id);
    let last = until("the event of its end", || {
        let page = server
            .api()
            .get(&format!("/api/v1/events?subject={id}&limit=1000"))
            .expect(200)
            .json();
        let items = page["items"].as_array()?.clone();
        items.iter().find(|e| e["kind"] == "job.completed").cloned()
    });
    let before = last["seq"].as_u64().expect("a number") - 1;
    let again = follow(&before.to_string())
        .filter_map(|l| serde_json::from_str::<Value>(l.strip_prefix("data:")?.trim()).ok())
        .next()
        .expect("it goes on after the last one seen");
    assert_eq!(again["seq"], last["seq"]);
}

/// The text of a token for one namespace.
fn team_token(server: &Server, namespace: &str, role: &str) -> String {
    let args = ["token", "create", "lead", "--role", role];
    let scope = ["--namespace", namespace, "--expires-in", "1h"];
    let made = server.ctl(&[&args[..], &scope[..]].concat()).expect(0);
    made.stdout.trim().to_owned()
}

#[test]
fn a_namespace_keeps_to_itself_and_to_its_quota() {
    let mut server = Server::start();
    server
        .ctl(&[
            "namespace",
            "create",
            "team",
            "--cpu",
            "100m",
            "--sandboxes",
            "1",
        ])
        .expect(0);
    let token = team_token(&server, "team", "submitter");
    let own = server.submit(&small_job("mine"));
    let team = server.api().with_token(Some(&token));
    let mut job = small_job("theirs");
    job["namespace"] = json!("team");
    job["command"] = json!(["sleep", "0.5"]);
    job["array"] = json!(6);
    let id = team.post("/api/v1/jobs", &job).expect(201).json()["id"].clone();
    let id = id.as_str().expect("an id").to_owned();
    // Two tasks of 50m each at once; the others say what they wait for.
    let said = until("the quota is used up", || {
        let said = team
            .get(&format!("/api/v1/explain/{id}"))
            .expect(200)
            .json();
        let summary = said["summary"].as_str()?.to_owned();
        summary
            .contains("quota of namespace team")
            .then_some(summary)
    });
    assert!(
        said.contains("cpu 0.1 of 0.1 in use") || said.contains("cpu 100m of 100m in use"),
        "{said}"
    );
    let shown = server
        .api()
        .get("/api/v1/namespaces/team")
        .expect(200)
        .json();
    assert!(shown["used"]["instances"].as_u64() <= Some(2), "{shown}");
    for path in ["jobs", "explain"] {
        team.get(&format!("/api/v1/{path}/{own}")).expect(404);
        team.get(&format!("/api/v1/{path}/mine")).expect(404);
    }
    let listed = team.get("/api/v1/jobs").expect(200).text();
    assert!(
        listed.contains("theirs") && !listed.contains("mine"),
        "{listed}"
    );
    let mut large = job.clone();
    large["resources"]["cpu"] = json!("1");
    let why = team.post("/api/v1/jobs", &large).expect(400).json();
    let message = why["message"].as_str().unwrap_or_default();
    assert!(message.contains("quota of namespace team"), "{message}");
    // All of it holds after the server was killed.
    server.kill();
    server.restart();
    assert_eq!(server.finished(&id)["status"], "COMPLETED");
    let team = server.api().with_token(Some(&token));
    team.get(&format!("/api/v1/jobs/{own}")).expect(404);
    let shown = server
        .api()
        .get("/api/v1/namespaces/team")
        .expect(200)
        .json();
    assert_eq!(shown["used"]["instances"], 0, "{shown}");
    server.ctl(&["namespace", "rm", "team"]).expect(1);
    server.ctl(&["namespace", "ls"]).expect(0);
}

#[test]
fn every_change_is_told_with_who_made_it_and_the_chain_holds_over_a_kill() {
    let mut server = Server::start();
    let (_, token) = token(&server, "submitter");
    let api = server.api().with_token(Some(&token));
    let headers = [
        ("x-request-id", "change-1"),
        ("content-type", "application/json"),
    ];
    let body = small_job("audited").to_string();
    api.send("POST", "/api/v1/jobs", &headers, body.as_bytes())
        .expect(201);
    api.get("/api/v1/events?kind=audit").expect(403);
    let events = |server: &Server| {
        let said = server
            .ctl(&["events", "--kind", "audit", "-o", "ndjson"])
            .expect(0);
        let lines = said
            .stdout
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).expect("JSON"));
        lines.collect::<Vec<_>>()
    };
    let all = events(&server);
    let submit = all
        .iter()
        .find(|e| e["kind"] == "audit.job_submit")
        .expect("its event");
    assert_eq!(submit["audit"]["actor"], "submitter");
    assert_eq!(submit["audit"]["request_id"], "change-1");
    assert!(!json!(all).to_string().contains(&token[40..]));
    server.kill();
    server.restart();
    assert!(events(&server).len() >= all.len());
    let check = server.ctl(&["events", "--verify", "-o", "json"]).expect(0);
    let check: Value = serde_json::from_str(&check.stdout).expect("JSON");
    assert_eq!(check["ok"], true, "{check}");
    assert!(check["events"].as_u64() >= Some(2), "{check}");
}

#[test]
fn a_stream_that_is_open_ends_when_its_token_is_revoked() {
    let server = SERVER.get();
    let (id, text) = token(&server, "viewer");
    let api = server.api().with_token(Some(&text));
    let mut lines = api
        .follow("/api/v1/events?follow=true", &[("last-event-id", "0")])
        .expect("events can be followed");
    lines.next().expect("a first line");
    assert!(server.api().delete(&format!("/api/v1/tokens/{id}")).status < 300);
    let began = std::time::Instant::now();
    // It ends by itself, or this test would go on until its limit.
    let left = lines
        .take_while(|_| began.elapsed() < prism_e2e::LIMIT)
        .count();
    assert!(began.elapsed() < prism_e2e::LIMIT, "{left} more lines came");
}
