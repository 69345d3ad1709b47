//! Namespaces through the API, streams that end with their token, and audit events of every change.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod harness;

use std::collections::BTreeSet;
use std::time::Duration;

use harness::{Answer, Request, Server, bare, config, http, server};
use prism_api::{Op, ROUTES, Role};
use prism_gateway::GatewayConfig;
use prism_types::{Millis, Scope};
use serde_json::{Value, json};

fn within(namespace: &str) -> Scope {
    Scope {
        namespaces: Some(BTreeSet::from([namespace.parse().unwrap()])),
        ..Scope::default()
    }
}

async fn send(server: &Server, token: &str, method: &str, path: &str, body: Value) -> Answer {
    let mut request = Request::new(method, path).token(token);
    if !body.is_null() {
        request.body = body.to_string().into_bytes();
    }
    server.ask(request).await
}

async fn audits(server: &Server, token: &str) -> Vec<Value> {
    let path = "/api/v1/events?kind=audit&limit=1000";
    let page = server.ask(Request::get(path).token(token)).await.ok();
    page.json()["items"].as_array().unwrap().clone()
}

/// Somebody who asks.
struct As<'a>(&'a Server, &'a str);

impl As<'_> {
    /// Asks, and is answered with success.
    async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let path = format!("/api/v1{path}");
        let answer = send(self.0, self.1, method, &path, body).await.ok();
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }

    /// Asks, and is refused; why.
    async fn no(&self, status: u16, method: &str, path: &str, body: Value) -> String {
        let path = format!("/api/v1{path}");
        let answer = send(self.0, self.1, method, &path, body).await;
        answer.error(status)["message"].as_str().unwrap().to_owned()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.ok("POST", path, body).await
    }
}

const TEAM: &str = "/namespaces/team";

#[tokio::test]
async fn a_namespace_is_made_shown_changed_and_removed() {
    let server = server().await;
    let admin = server.token(Role::Admin).await;
    let a = As(&server, &admin);
    let new = format!("{TEAM}?new=true");
    let quota = json!({"cpu": "2", "memory": "1Gi", "sandboxes": 1});
    let made = a.ok("PUT", &new, quota.clone()).await;
    assert_eq!(made["quota"]["cpu"], "2");
    a.no(409, "PUT", &new, quota).await;
    let why = a
        .no(404, "PUT", "/namespaces/taem?new=false", json!({}))
        .await;
    assert!(why.contains("did you mean team"), "{why}");
    a.no(400, "PUT", "/namespaces/Team%20A", json!({})).await;
    a.no(400, "PUT", TEAM, json!({"cpus": 1})).await;
    let why = a
        .no(409, "DELETE", "/namespaces/default", Value::Null)
        .await;
    assert!(why.contains("always there"), "{why}");
    let list = a.ok("GET", "/namespaces", Value::Null).await;
    let names: Vec<&Value> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| &n["name"])
        .collect();
    assert_eq!(names, ["default", "team"]);
    a.ok("DELETE", TEAM, Value::Null).await;
    a.no(404, "GET", TEAM, Value::Null).await;
}

#[tokio::test]
async fn what_a_quota_does_not_hold_is_refused_and_usage_is_shown() {
    let server = server().await;
    let admin = server.token(Role::Admin).await;
    let a = As(&server, &admin);
    a.ok("PUT", TEAM, json!({"cpu": "2", "sandboxes": 1})).await;
    let sandbox = |name: &str, namespace: &str| json!({"name": name, "namespace": namespace, "resources": {"cpu": "1", "memory": "256Mi"}});
    a.post("/sandboxes", sandbox("box", "team")).await;
    let shown = a.ok("GET", TEAM, Value::Null).await;
    assert_eq!(
        (&shown["used"]["sandboxes"], &shown["used"]["cpu"]),
        (&json!(1), &json!("1"))
    );
    let full = a
        .no(429, "POST", "/sandboxes", sandbox("box2", "team"))
        .await;
    assert!(full.contains("sandboxes 1 of 1 in use"), "{full}");
    // The same name elsewhere is another sandbox.
    a.post("/sandboxes", sandbox("box", "default")).await;
    a.no(409, "GET", "/sandboxes/box", Value::Null).await;
    let found = a
        .ok("GET", "/sandboxes/box?namespace=team", Value::Null)
        .await;
    assert_eq!(found["namespace"], "team");
    a.no(400, "GET", "/sandboxes/box?namespace=Team", Value::Null)
        .await;
    let large =
        json!({"job": "x", "namespace": "team", "command": ["x"], "resources": {"cpu": "3"}});
    let why = a.no(400, "POST", "/jobs", large).await;
    assert!(why.contains("3 cpu, of 2 cpu in all"), "{why}");
    let why = a.no(409, "DELETE", TEAM, Value::Null).await;
    assert!(why.contains("1 sandboxes"), "{why}");
    let gone = format!("/sandboxes/{}", found["id"].as_str().unwrap());
    a.ok("DELETE", &gone, Value::Null).await;
    let empty = |c: prism_control::Control| async move {
        let team = "team".parse().unwrap();
        c.read(|s| s.usage(&team).sandboxes == 0).await
    };
    server.until(empty).await;
    a.ok("DELETE", TEAM, Value::Null).await;
}

#[tokio::test]
async fn explain_says_which_part_of_the_quota_is_used_up() {
    // No node is connected, so nothing ever ends.
    let server = bare(config()).await;
    let admin = server.token(Role::Admin).await;
    let path = "/api/v1/namespaces/team";
    send(&server, &admin, "PUT", path, json!({"instances": 0}))
        .await
        .ok();
    let box1 = json!({"name": "box", "namespace": "team", "resources": {"cpu": "1"}});
    send(&server, &admin, "PUT", path, json!({"cpu": "1"}))
        .await
        .ok();
    let request = "/api/v1/sandboxes?wait=false";
    send(&server, &admin, "POST", request, box1).await.ok();
    send(&server, &admin, "PUT", path, json!({"cpu": "500m"}))
        .await
        .ok();
    let explain = Request::get("/api/v1/explain/box").token(&admin);
    let said = server.ask(explain).await.ok().json();
    let summary = said["summary"].as_str().unwrap();
    assert!(
        summary.contains("quota of namespace team: cpu 0 of 500m in use")
            || summary.contains("quota of namespace team: cpu 0 of 0.5 in use"),
        "{summary}"
    );
}

#[tokio::test]
async fn a_scoped_token_is_made_shown_and_makes_no_larger_one() {
    let server = bare(config()).await;
    server.namespace("team").await;
    let admin = server.token(Role::Admin).await;
    let path = "/api/v1/tokens";
    let body = json!({"name": "lead", "role": "admin", "namespaces": ["team"],
        "resources": ["jobs", "tokens"], "expires_in": "1h"});
    let made = send(&server, &admin, "POST", path, body.clone())
        .await
        .ok()
        .json();
    assert_eq!(made["namespaces"], json!(["team"]));
    let lead = made["token"].as_str().unwrap();
    let smaller = json!({"name": "eyes", "role": "viewer", "namespaces": ["team"],
        "resources": ["jobs"], "verbs": ["read"], "expires_in": "1m"});
    send(&server, lead, "POST", path, smaller.clone())
        .await
        .ok();
    for (field, value) in [
        ("namespaces", json!(["default"])),
        ("namespaces", Value::Null),
        ("resources", json!(["nodes"])),
        ("resources", Value::Null),
        ("expires_in", json!("2h")),
        ("expires_in", Value::Null),
    ] {
        let mut larger = smaller.clone();
        larger[field] = value;
        send(&server, lead, "POST", path, larger).await.error(403);
    }
    for (field, value) in [
        ("namespaces", json!([])),
        ("resources", json!([])),
        ("verbs", json!(["look"])),
        ("resources", json!(["job"])),
        ("namespaces", json!(["A"])),
    ] {
        let mut odd = smaller.clone();
        odd[field] = value;
        send(&server, &admin, "POST", path, odd).await.error(400);
    }
    let list = |token: &str| Request::get(path).token(token);
    let all = server.ask(list(&admin)).await.ok().json();
    assert_eq!(all["items"].as_array().unwrap().len(), 3);
    let own = server.ask(list(lead)).await.ok().json();
    assert_eq!(own["items"].as_array().unwrap().len(), 2);
    let is_own = |token: &&Value| own["items"].as_array().unwrap().contains(token);
    let mut others = all["items"].as_array().unwrap().iter();
    let root = others.find(|token| !is_own(token)).unwrap();
    let root = format!("{path}/{}", root["id"].as_str().unwrap());
    send(&server, lead, "DELETE", &root, Value::Null)
        .await
        .error(404);
    server.ask(list(&admin)).await.ok();
}

fn quick() -> GatewayConfig {
    GatewayConfig {
        token_check: Duration::from_millis(100),
        ..config()
    }
}

/// Opens a stream and reads it to its end, which a test brings about once it has begun.
async fn until_it_ends(server: &Server, token: &str, end: impl Future<Output = ()>) -> Answer {
    let request = Request::get("/api/v1/events?follow=true&since=0").token(token);
    let address = server.address;
    let stream = tokio::spawn(async move { http::raw(address, &request.bytes()).await });
    end.await;
    // It reads for 30 s at most.
    let bytes = stream.await.unwrap();
    http::parse(&bytes)
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_revoked_and_others_go_on() {
    let server = bare(quick()).await;
    let admin = server.token(Role::Admin).await;
    let (id, token) = server.scoped(Role::Viewer, Scope::default()).await;
    let answer = until_it_ends(&server, &token, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let path = format!("/api/v1/tokens/{id}");
        send(&server, &admin, "DELETE", &path, Value::Null)
            .await
            .ok();
    })
    .await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("token.created"));
    // Broken off and not ended in order: the reader sees that there would have been more.
    let good = Request::get("/api/v1/events?follow=true")
        .token(&admin)
        .bytes();
    let still = tokio::time::timeout(Duration::from_secs(1), http::raw(server.address, &good));
    assert!(still.await.is_err(), "a good token's stream goes on");
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires() {
    let slow = GatewayConfig {
        token_check: Duration::from_secs(600),
        ..config()
    };
    let server = bare(slow).await;
    let soon = server.control.now().after(Millis(800));
    let made = server.token_until(Role::Viewer, Scope::default(), Some(soon));
    let (_, token) = made.await;
    let answer = until_it_ends(&server, &token, async {}).await;
    assert_eq!(answer.status, 200);
    assert!(server.control.now() >= soon);
}

/// Changes of every kind, made one after the other; the text of a token that was made among them.
async fn change_everything(server: &Server, a: &As<'_>) -> String {
    let none = Value::Null;
    let job = a
        .post("/jobs", json!({"job": "j", "command": ["x"], "array": 20}))
        .await;
    let sweep = json!({"sweep": "s", "command": ["x"], "space": {"x": [1]}});
    a.post("/sweeps", sweep).await;
    let sandbox = a.post("/sandboxes", json!({"name": "b"})).await;
    let sandbox = sandbox["id"].as_str().unwrap();
    let at = |rest: &str| format!("/sandboxes/{sandbox}{rest}");
    let exec = json!({"argv": ["cat"], "id": "e1", "env": {"PASSWORD": "hunter2"}});
    a.post(&at("/exec"), exec).await;
    a.post(&at("/execs/e1/signal"), json!({"signal": "TERM"}))
        .await;
    a.post(&at("/exec"), json!({"argv": ["cat"], "id": "e2"}))
        .await;
    a.post(&at("/signal"), json!({"signal": "TERM"})).await;
    a.post(&at("/snapshots"), none.clone()).await;
    // Not the 1 h that it has: within the same millisecond that would change nothing.
    a.post(&at("/timeout"), json!({"timeout": "2h"})).await;
    let file = at("/files?path=/work/f");
    a.ok("PUT", &file, json!("hunter2")).await;
    a.ok("DELETE", &file, none.clone()).await;
    a.ok("DELETE", &at(""), none.clone()).await;
    let token = a
        .post("/tokens", json!({"name": "t", "role": "viewer"}))
        .await;
    let path = format!("/tokens/{}", token["id"].as_str().unwrap());
    a.ok("DELETE", &path, none.clone()).await;
    a.ok("PUT", TEAM, json!({"cpu": 1})).await;
    a.ok("DELETE", TEAM, none.clone()).await;
    a.post("/nodes/n1/drain", json!({"deadline": "none"})).await;
    a.post("/nodes/n1/uncordon", none.clone()).await;
    a.post("/nodes/n1/cordon", none.clone()).await;
    a.post("/nodes/n1/uncordon", none.clone()).await;
    a.post("/images", json!({"path": "/x.tar", "name": "x"}))
        .await;
    let certificate = "ab".repeat(32);
    a.post(
        "/ca/deny",
        json!({"certificate": certificate, "why": "test"}),
    )
    .await;
    a.post("/ca/allow", json!({"certificate": certificate}))
        .await;
    let over = |c: prism_control::Control| async move {
        c.read(|s| s.jobs().all(|j| j.record().state.is_final()))
            .await
    };
    server.until(over).await;
    let retry = format!("/jobs/{}/retry", job["id"].as_str().unwrap());
    a.post(&retry, none).await;
    token["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_change_has_an_audit_event_of_who_what_and_from_where() {
    let server = server().await;
    let admin = server.token(Role::Admin).await;
    let path = "/api/v1/cluster/backup";
    send(&server, &admin, "POST", path, Value::Null).await.ok();
    let secret = change_everything(&server, &As(&server, &admin)).await;
    let all = audits(&server, &admin).await;
    let ops = all.iter().map(|e| e["audit"]["op"].as_str().unwrap());
    let have: BTreeSet<&str> = ops.collect();
    // What a test of its own shows, what nothing can be done with here, and what is part of an exec.
    #[rustfmt::skip]
    let without = [
        Op::JobCancel, Op::JobPause, Op::JobResume, Op::SweepCancel, Op::SweepPause, Op::SweepResume,
        Op::NodeRemove, Op::PeerRemove, Op::JoinTokenCreate, Op::JoinTokenRevoke, Op::ExecInput, Op::ExecResize,
        Op::CaIssue, Op::CaRotate,
        Op::KeyInstall, Op::KeyUse, Op::KeyRemove,
        Op::ClusterRestore,
    ];
    let changes = ROUTES.iter().filter(|r| r.changes());
    for route in changes.filter(|r| !without.contains(&r.op)) {
        let name = route.op.name();
        assert!(have.contains(&*snake(name)), "{name}: {have:?}");
    }
    for event in &all {
        let audit = &event["audit"];
        let from = audit["from"].as_str().unwrap();
        assert!(from.starts_with("127.0.0.1:"), "{from}");
        assert_eq!(audit["actor"], "a test's Admin");
        assert!(
            audit["request_id"]
                .as_str()
                .is_some_and(|id| !id.is_empty())
        );
        assert_eq!(audit["outcome"], "applied");
        let kind = format!("audit.{}", audit["op"].as_str().unwrap());
        assert_eq!(event["kind"], kind);
    }
    let submitted = all
        .iter()
        .find(|e| e["kind"] == "audit.job_submit")
        .unwrap();
    assert_eq!(submitted["namespace"], "default");
    let text = json!(all).to_string();
    assert!(!text.contains("hunter2") && !text.contains(&secret[30..]));
    let check = Request::get("/api/v1/events/verify").token(&admin);
    let check = server.ask(check).await.ok().json();
    assert_eq!(check["ok"], true, "{check}");
    assert_eq!(check["events"], all.len());
}

fn snake(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

#[tokio::test]
async fn jobs_that_wait_are_paused_resumed_and_cancelled_with_audit_events() {
    let server = bare(config()).await;
    let admin = server.token(Role::Admin).await;
    let job = json!({"job": "j", "command": ["x"]});
    send(&server, &admin, "POST", "/api/v1/jobs", job)
        .await
        .ok();
    let sweep = json!({"sweep": "s", "command": ["x"], "space": {"x": [1]}});
    send(&server, &admin, "POST", "/api/v1/sweeps", sweep)
        .await
        .ok();
    for verb in ["pause", "resume", "cancel"] {
        for thing in ["jobs/j", "sweeps/s"] {
            let path = format!("/api/v1/{thing}/{verb}");
            send(&server, &admin, "POST", &path, Value::Null).await.ok();
        }
    }
    let all = audits(&server, &admin).await;
    let ops: Vec<&str> = all
        .iter()
        .map(|e| e["audit"]["op"].as_str().unwrap())
        .collect();
    let wanted = [
        "job_submit",
        "sweep_submit",
        "job_pause",
        "sweep_pause",
        "job_resume",
        "sweep_resume",
        "job_cancel",
        "sweep_cancel",
    ];
    assert_eq!(ops, wanted);
    // Once more changes nothing, so there is nothing to keep.
    send(
        &server,
        &admin,
        "POST",
        "/api/v1/jobs/j/cancel",
        Value::Null,
    )
    .await
    .ok();
    assert_eq!(audits(&server, &admin).await.len(), all.len());
}

#[tokio::test]
async fn audit_events_are_for_administrators_and_of_their_namespaces() {
    let server = bare(config()).await;
    server.namespace("team").await;
    let admin = server.token(Role::Admin).await;
    for namespace in ["team", "default"] {
        let job = json!({"job": "j", "namespace": namespace, "command": ["x"]});
        send(&server, &admin, "POST", "/api/v1/jobs", job)
            .await
            .ok();
    }
    assert_eq!(audits(&server, &admin).await.len(), 2);
    let (_, lead) = server.scoped(Role::Admin, within("team")).await;
    let own = audits(&server, &lead).await;
    assert_eq!(own.len(), 1);
    assert_eq!(own[0]["namespace"], "team");
    for role in [Role::Viewer, Role::Submitter, Role::Operator] {
        let token = server.token(role).await;
        for kind in ["audit", "audit.job_submit"] {
            let path = format!("/api/v1/events?kind={kind}");
            server
                .ask(Request::get(&path).token(&token))
                .await
                .error(403);
        }
        let all = server
            .ask(Request::get("/api/v1/events").token(&token))
            .await
            .ok();
        assert!(!all.text().contains("audit"));
        assert!(all.text().contains("job.submitted"));
        let verify = Request::get("/api/v1/events/verify").token(&token);
        server.ask(verify).await.error(403);
    }
    let family = Request::get("/api/v1/events?kind=job&namespace=team").token(&admin);
    let family = server.ask(family).await.ok().json();
    let kinds: Vec<&Value> = family["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["kind"])
        .collect();
    assert_eq!(kinds, ["job.submitted"]);
}

#[tokio::test]
async fn what_is_denied_is_counted_and_never_stored() {
    let server = bare(config()).await;
    let viewer = server.token(Role::Viewer).await;
    let before = server.control.read(|s| s.meta().events_next).await;
    let revision = server.control.store().status().revision;
    for _ in 0..30 {
        let job = json!({"job": "j", "command": ["x"]});
        send(&server, &viewer, "POST", "/api/v1/jobs", job)
            .await
            .error(403);
        server.ask(Request::get("/api/v1/jobs")).await.error(401);
    }
    assert_eq!(server.control.read(|s| s.meta().events_next).await, before);
    assert_eq!(server.control.store().status().revision, revision);
    let metrics = server.ask(Request::get("/metrics")).await.ok().text();
    for line in [
        "prism_denied_total{route=\"JobSubmit\",reason=\"forbidden\"} 30",
        "prism_denied_total{route=\"JobList\",reason=\"unauthenticated\"} 30",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}
