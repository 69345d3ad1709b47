//! Jobs, sweeps, nodes and events through the API, with a real control plane and a played node.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod harness;

use harness::{Request, Server, server};
use prism_api::Role;
use serde_json::{Value, json};

const JOB: &str = "/api/v1/jobs";

async fn submit(server: &Server, token: &str, path: &str, body: &Value) -> Value {
    let answer = server
        .ask(Request::post(path, body.to_string()).token(token))
        .await
        .ok();
    assert_eq!(answer.status, 201);
    answer.json()
}

async fn finished(server: &Server, id: &Value) {
    let id = id.as_str().unwrap().parse().unwrap();
    server
        .until(|c| async move {
            c.read(|s| s.job(id).is_some_and(|j| j.record().state.is_final()))
                .await
        })
        .await;
}

async fn get(server: &Server, token: &str, target: &str) -> Value {
    server
        .ask(Request::get(target).token(token))
        .await
        .ok()
        .json()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

#[tokio::test]
async fn a_job_runs_and_its_results_are_one_line_each() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    let body = json!({"job": "count", "command": ["x"], "array": 1200, "labels": {"team": "blue"}});
    let job = submit(&server, &token, JOB, &body).await;
    finished(&server, &job["id"]).await;
    let shown = get(&server, &token, &format!("{JOB}/count")).await;
    assert_eq!(shown["status"], "PARTIALLY_COMPLETED");
    assert_eq!(shown["counts"]["total"], 1200);
    assert_eq!(shown["counts"]["failed"], 171);
    let id = job["id"].as_str().unwrap();
    let results = server
        .ask(Request::get(&format!("{JOB}/{id}/results")).token(&token))
        .await
        .ok();
    assert_eq!(results.header("content-type"), Some("application/x-ndjson"));
    let rows = lines(&results.text());
    let indexes: Vec<u64> = rows.iter().map(|r| r["index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, (0..1200).collect::<Vec<_>>());
    assert_eq!(rows[5]["result"], json!({"accuracy": 0.05}));
    assert_eq!(rows[6]["reason"], "exit_code");
    assert_eq!(rows[6]["message"], "it broke");
    let failed = server
        .ask(Request::get(&format!("{JOB}/{id}/results?state=FAILED")).token(&token))
        .await;
    assert_eq!(lines(&failed.text()).len(), 171);
    let all = server
        .ask(Request::get(&format!("{JOB}/{id}/results?follow")).token(&token))
        .await;
    assert_eq!(all.body, results.body);
}

#[tokio::test]
async fn results_are_followed_while_the_job_runs() {
    let server = harness::bare(harness::config()).await;
    let token = server.token(Role::Submitter).await;
    let job = submit(
        &server,
        &token,
        JOB,
        &json!({"job": "a", "command": ["x"], "array": 700}),
    )
    .await;
    let target = format!("{JOB}/{}/results?follow=true", job["id"].as_str().unwrap());
    let request = Request::get(&target).token(&token);
    let following = tokio::spawn(harness::http::ask(server.address, request));
    server.connect().await;
    let rows = lines(&following.await.unwrap().text());
    let mut indexes: Vec<u64> = rows.iter().map(|r| r["index"].as_u64().unwrap()).collect();
    indexes.sort_unstable();
    assert_eq!(indexes, (0..700).collect::<Vec<_>>());
}

#[tokio::test]
async fn tasks_are_paged_and_selected() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    let job = submit(
        &server,
        &token,
        JOB,
        &json!({"job": "a", "command": ["x"], "array": 600}),
    )
    .await;
    finished(&server, &job["id"]).await;
    let mut seen = 0;
    let mut target = format!("{JOB}/a/tasks?limit=250");
    loop {
        let page = get(&server, &token, &target).await;
        seen += page["items"].as_array().unwrap().len();
        match page["next"].as_str() {
            Some(next) => target = format!("{JOB}/a/tasks?limit=250&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, 600);
    let failed = get(
        &server,
        &token,
        &format!("{JOB}/a/tasks?state=FAILED&limit=3"),
    )
    .await;
    let indexes: Vec<_> = failed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["index"].clone())
        .collect();
    assert_eq!(indexes, [6, 13, 20]);
    assert!(failed["next"].is_string());
}

#[tokio::test]
async fn the_same_key_submits_once_and_another_body_is_refused() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    let request = |body: &str| {
        Request::post(JOB, body)
            .token(&token)
            .header("idempotency-key", "k-1")
    };
    let body = r#"{"job": "once", "command": ["x"]}"#;
    let first = server.ask(request(body)).await.ok().json();
    let second = server.ask(request(body)).await.ok();
    assert_eq!(second.status, 201);
    assert_eq!(second.json()["id"], first["id"]);
    let other = server
        .ask(request(r#"{"job": "other", "command": ["x"]}"#))
        .await;
    assert_eq!(other.error(422)["reason"], "key_reused");
    let jobs = get(&server, &token, JOB).await;
    assert_eq!(jobs["items"].as_array().unwrap().len(), 1);
    let someone = server.token(Role::Submitter).await;
    let theirs = Request::post(JOB, body)
        .token(&someone)
        .header("idempotency-key", "k-1");
    assert_ne!(server.ask(theirs).await.ok().json()["id"], first["id"]);
}

#[tokio::test]
async fn lists_are_newest_first_with_cursors_labels_and_namespaces() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    server.namespace("even").await;
    server.namespace("odd").await;
    for i in 0..7 {
        let space = if i % 2 == 0 { "even" } else { "odd" };
        let body = json!({"job": format!("j{i}"), "command": ["x"], "namespace": space, "labels": {"n": i.to_string()}});
        submit(&server, &token, JOB, &body).await;
    }
    let names = |page: &Value| -> Vec<String> {
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|j| j["name"].as_str().unwrap().to_owned())
            .collect()
    };
    // By the time in their ids, which is the asking's: what was asked for in one millisecond has an order of its own, but always the same.
    let whole = get(&server, &token, JOB).await;
    let ids: Vec<&str> = whole["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|j| j["id"].as_str().unwrap())
        .collect();
    assert!(ids.is_sorted_by(|a, b| a > b), "{ids:?}");
    let first = get(&server, &token, &format!("{JOB}?limit=3")).await;
    let next = first["next"].as_str().unwrap();
    let second = get(&server, &token, &format!("{JOB}?limit=4&cursor={next}")).await;
    assert_eq!(second["next"], Value::Null);
    assert_eq!([names(&first), names(&second)].concat(), names(&whole));
    let odd = get(&server, &token, &format!("{JOB}?namespace=odd")).await;
    let mut odd = names(&odd);
    odd.sort();
    assert_eq!(odd, ["j1", "j3", "j5"]);
    let labelled = get(&server, &token, &format!("{JOB}?label=n%3D4")).await;
    assert_eq!(names(&labelled), ["j4"]);
}

#[tokio::test]
async fn a_job_is_paused_resumed_cancelled_and_retried() {
    let server = harness::bare(harness::config()).await;
    let token = server.token(Role::Submitter).await;
    let job = submit(
        &server,
        &token,
        JOB,
        &json!({"job": "a", "command": ["x"], "array": 3}),
    )
    .await;
    let act = |verb: &str| Request::new("POST", &format!("{JOB}/a/{verb}")).token(&token);
    assert_eq!(server.ask(act("pause")).await.ok().json()["paused"], true);
    assert_eq!(server.ask(act("resume")).await.ok().json()["paused"], false);
    let cancelled = server.ask(act("cancel")).await.ok().json();
    assert_eq!(cancelled["status"], "CANCELLED");
    assert_eq!(cancelled["counts"]["cancelled"], 3);
    let again = server.ask(act("pause")).await;
    assert_eq!(again.error(409)["reason"], "wrong_state");
    server.connect().await;
    server.ask(act("retry")).await.ok();
    finished(&server, &job["id"]).await;
    let done = get(&server, &token, &format!("{JOB}/a")).await;
    assert_eq!(done["status"], "COMPLETED");
    assert!(done["spec"]["work"].is_object());
}

#[tokio::test]
async fn logs_of_a_task_are_read_from_its_node() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    let job = submit(
        &server,
        &token,
        JOB,
        &json!({"job": "a", "command": ["x"], "array": 3}),
    )
    .await;
    finished(&server, &job["id"]).await;
    let logs = |query: &str| Request::get(&format!("{JOB}/a/logs?{query}")).token(&token);
    let whole = server.ask(logs("task=2")).await.ok();
    assert_eq!(whole.text(), "output of 2 attempt 1\n");
    assert_eq!(whole.header("x-offset"), Some("0"));
    let rest = server.ask(logs("task=2&offset=10&follow")).await.ok();
    assert_eq!(rest.text(), "2 attempt 1\n");
    server.ask(logs("task=3")).await.error(404);
    server.ask(logs("task=1&attempt=9")).await.error(409);
}

#[tokio::test]
async fn a_sweep_has_its_beams_its_best_and_its_table() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    let body = json!({
        "sweep": "digits", "task": "find it", "command": ["x"], "space": {"lr": [0.1, 0.2, 0.3, 0.4], "n": [1, 2]},
        "objective": {"maximize": "accuracy"},
    });
    let sweep = submit(&server, &token, "/api/v1/sweeps", &body).await;
    assert_eq!(
        sweep["pending"].as_array().unwrap().len() + sweep["completed"].as_array().unwrap().len(),
        8
    );
    finished(&server, &sweep["id"]).await;
    let view = get(&server, &token, "/api/v1/sweeps/digits").await;
    assert_eq!(
        (&view["task"], &view["status"]),
        (&json!("find it"), &json!("PARTIALLY_COMPLETED"))
    );
    assert_eq!(view["pending"], json!([]));
    let beams = view["completed"].as_array().unwrap();
    assert_eq!(beams.len(), 8);
    assert_eq!(
        (&beams[3]["point"], &beams[3]["status"]),
        (&json!({"lr": 0.2, "n": 2}), &json!("done"))
    );
    assert_eq!(
        (
            &beams[6]["status"],
            &beams[6]["reason"],
            &beams[6]["result"]
        ),
        (&json!("failed"), &json!("exit_code"), &Value::Null)
    );
    assert_eq!(
        (&view["best"]["index"], &view["best"]["result"]),
        (&json!(7), &json!({"accuracy": 0.07}))
    );
    assert_eq!(view["results"], Value::Null);
    let csv = server
        .ask(Request::get("/api/v1/sweeps/digits/results?format=csv").token(&token))
        .await
        .ok();
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    assert!(
        csv.text()
            .starts_with("index,lr,n,status,accuracy,reason\r\n0,0.1,1,done,0"),
        "{}",
        csv.text()
    );
    let table = get(&server, &token, "/api/v1/sweeps/digits/results").await;
    assert_eq!(table.as_array().unwrap().len(), 8);
    let list = get(&server, &token, "/api/v1/sweeps").await;
    assert_eq!(list["items"][0]["best"]["index"], 7);
    submit(
        &server,
        &token,
        JOB,
        &json!({"job": "plain", "command": ["x"]}),
    )
    .await;
    server
        .ask(Request::get("/api/v1/sweeps/plain").token(&token))
        .await
        .error(404);
}

#[tokio::test]
async fn several_runners_answer_one_task() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    let body = json!({"sweep": "abc", "task": "one task in", "runners": {
        "a": {"command": ["x"]}, "b": {"command": ["y"]}, "c": {"command": ["z"]},
    }});
    let sweep = submit(&server, &token, "/api/v1/sweeps", &body).await;
    finished(&server, &sweep["id"]).await;
    let view = get(&server, &token, "/api/v1/sweeps/abc").await;
    assert_eq!(
        view["results"][1],
        json!({"runner": "b", "output": {"accuracy": 0.01}, "status": "done"})
    );
    assert_eq!(view["results"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn nodes_and_the_cluster_show_what_is_there() {
    let server = server().await;
    let token = server.token(Role::Operator).await;
    let cluster = get(&server, &token, "/api/v1/cluster").await;
    assert_eq!(
        (&cluster["nodes"]["healthy"], &cluster["leader"]),
        (&json!(1), &json!("n1"))
    );
    assert_eq!(cluster["capacity"]["cpu"], "8");
    let node = get(&server, &token, "/api/v1/nodes/n1").await;
    assert_eq!(node["state"], "HEALTHY");
    let id = node["id"].as_str().unwrap();
    let cordon = Request::new("POST", &format!("/api/v1/nodes/{id}/cordon")).token(&token);
    assert_eq!(server.ask(cordon).await.ok().json()["cordoned"], true);
    let health = get(&server, &token, "/api/v1/nodes/n1/health").await;
    assert_eq!(health["ready"], false);
    assert!(health["reasons"][0].as_str().unwrap().contains("uncordon"));
    let waiting = submit(&server, &token, JOB, &json!({"job": "w", "command": ["x"]})).await;
    let why = get(&server, &token, "/api/v1/explain/w").await;
    assert_eq!(
        (&why["kind"], &why["candidates"][0]["fits"]),
        (&json!("job"), &json!(false))
    );
    let uncordon = Request::new("POST", "/api/v1/nodes/n1/uncordon").token(&token);
    server.ask(uncordon).await.ok();
    finished(&server, &waiting["id"]).await;
    let why = get(&server, &token, "/api/v1/explain/w.0").await;
    assert_eq!(
        (&why["kind"], &why["status"]),
        (&json!("task"), &json!("COMPLETED"))
    );
    assert_eq!(
        get(&server, &token, "/api/v1/cluster/members").await["items"][0]["name"],
        "n1"
    );
    assert_eq!(
        get(&server, &token, "/api/v1/cluster/resources").await["nodes"][0]["name"],
        "n1"
    );
    assert_eq!(
        get(&server, &token, "/api/v1/images").await["items"][0]["name"],
        "host"
    );
}

#[tokio::test]
async fn events_are_paged_and_followed_from_where_one_stood() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    let job = submit(&server, &token, JOB, &json!({"job": "a", "command": ["x"]})).await;
    finished(&server, &job["id"]).await;
    let all = get(&server, &token, "/api/v1/events").await;
    let events = all["items"].as_array().unwrap();
    let seqs: Vec<u64> = events.iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert!(seqs.len() >= 3 && seqs.is_sorted(), "{seqs:?}");
    let since = seqs[1];
    let rest = get(&server, &token, &format!("/api/v1/events?since={since}")).await;
    assert_eq!(rest["items"][0]["seq"], seqs[2]);
    let about = get(
        &server,
        &token,
        &format!("/api/v1/events?subject={}", job["id"].as_str().unwrap()),
    )
    .await;
    assert!(!about["items"].as_array().unwrap().is_empty());
    let follow = Request::get("/api/v1/events?follow")
        .token(&token)
        .header("last-event-id", &since.to_string());
    let text = read_some(&server, &follow, |text| {
        text.contains(": alive") && text.contains("data: ")
    })
    .await;
    assert!(
        text.contains(&format!("id: {}\nevent: ", seqs[2])),
        "{text}"
    );
    assert!(!text.contains(&format!("id: {since}\n")));
}

/// Reads an answer that never ends until it has what is looked for.
async fn read_some(server: &Server, request: &Request, enough: impl Fn(&str) -> bool) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let work = async {
        let mut stream = tokio::net::TcpStream::connect(server.address)
            .await
            .unwrap();
        stream.write_all(&request.bytes()).await.unwrap();
        let mut all = Vec::new();
        loop {
            let mut piece = [0; 4096];
            let n = stream.read(&mut piece).await.unwrap();
            all.extend_from_slice(&piece[..n]);
            let text = String::from_utf8_lossy(&all).into_owned();
            if n == 0 || enough(&text) {
                return text;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), work)
        .await
        .expect("it comes within 20 s")
}

#[tokio::test]
async fn health_metrics_and_the_document_need_no_token() {
    let server = server().await;
    let health = server.ask(Request::get("/health")).await.ok().json();
    assert_eq!(
        (&health["live"], &health["ready"]),
        (&json!(true), &json!(true))
    );
    let text = server.ask(Request::get("/metrics")).await.ok().text();
    for name in [
        "prism_http_requests_total{route=\"Health\",status=\"200\"} 1",
        "prism_tasks{state=\"QUEUED\"}",
        "prism_node_cpu_busy{node=\"n1\"} 0.25",
        "process_resident_memory_bytes",
        "prism_store_revision",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
    let named = text.lines().filter(|l| l.starts_with("# TYPE")).count();
    let unique: std::collections::BTreeSet<_> =
        text.lines().filter(|l| l.starts_with("# TYPE")).collect();
    assert_eq!(named, unique.len());
    let document = server.ask(Request::get("/openapi.json")).await.ok().json();
    assert_eq!(document["info"]["version"], "1.2.3");
    server.ask(Request::get("/api/v1/openapi.json")).await.ok();
}
