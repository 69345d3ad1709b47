//! Promise: nobody gets in without a token, a token allows what its role says, and a repeated change is done once.

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
