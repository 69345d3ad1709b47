//! Sandboxes through the API, on a played node.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod harness;

use harness::{Request, Server, server};
use prism_api::Role;
use serde_json::{Value, json};

const ALL: &str = "/api/v1/sandboxes";

async fn make(server: &Server, token: &str) -> Value {
    let answer = server
        .ask(Request::post(ALL, r#"{"name": "box"}"#).token(token))
        .await
        .ok();
    assert_eq!(answer.status, 201);
    answer.json()
}

fn events(text: &str) -> Vec<Value> {
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

#[tokio::test]
async fn a_sandbox_is_made_found_extended_and_ended() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    let made = make(&server, &token).await;
    assert_eq!(
        (&made["status"], &made["node"]),
        (&json!("RUNNING"), &json!("n1"))
    );
    let found = server
        .ask(Request::get(&format!("{ALL}/box")).token(&token))
        .await
        .ok()
        .json();
    assert_eq!(found["id"], made["id"]);
    let twice = server
        .ask(Request::post(ALL, r#"{"name": "box"}"#).token(&token))
        .await;
    assert_eq!(twice.error(409)["reason"], "conflict");
    let longer = Request::post(&format!("{ALL}/box/timeout"), r#"{"timeout": "2h"}"#).token(&token);
    assert!(server.ask(longer).await.ok().json()["expires"].as_u64() > made["expires"].as_u64());
    let for_ever = Request::post(&format!("{ALL}/box/timeout"), "{}").token(&token);
    assert_eq!(
        server.ask(for_ever).await.ok().json()["expires"],
        Value::Null
    );
    let id = made["id"].as_str().unwrap();
    server
        .ask(Request::new("DELETE", &format!("{ALL}/{id}")).token(&token))
        .await
        .ok();
    let sandbox = id.parse().unwrap();
    server
        .until(|c| async move {
            c.read(|s| s.sandbox(sandbox).is_none_or(|b| b.state.is_final()))
                .await
        })
        .await;
    let living = server
        .ask(Request::get(ALL).token(&token))
        .await
        .ok()
        .json();
    assert_eq!(living["items"], json!([]));
    let every = server
        .ask(Request::get(&format!("{ALL}?all")).token(&token))
        .await
        .ok()
        .json();
    assert_eq!(every["items"][0]["id"], made["id"]);
    let exec = Request::post(&format!("{ALL}/{id}/exec"), r#"{"argv": ["x"]}"#).token(&token);
    assert_eq!(server.ask(exec).await.error(409)["reason"], "wrong_state");
}

#[tokio::test]
async fn an_exec_streams_its_output_and_exit_in_one_answer() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    make(&server, &token).await;
    let path = format!("{ALL}/box/exec?stream=true");
    let run = |body: Value| Request::post(&path, body.to_string()).token(&token);
    let answer = server
        .ask(run(json!({"argv": ["say", "hello", "oh", "3"]})))
        .await
        .ok();
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let lines = events(&answer.text());
    assert!(lines[0]["exec"].is_string());
    assert!(lines.contains(&json!({"stream": "stdout", "offset": 0, "text": "hello"})));
    assert!(lines.contains(&json!({"stream": "stderr", "offset": 0, "text": "oh"})));
    let exit = &lines.last().unwrap()["exit"];
    assert_eq!(
        (&exit["code"], &exit["reason"]),
        (&json!(3), &json!("exit_code"))
    );
    let binary = server
        .ask(run(json!({"argv": ["say", "binary"]})))
        .await
        .ok();
    assert!(
        events(&binary.text())
            .contains(&json!({"stream": "stdout", "offset": 0, "base64": "//4A"}))
    );
    let missing = server.ask(run(json!({"argv": ["missing"]}))).await;
    assert_eq!(missing.error(422)["reason"], "start_failed");
    server.ask(run(json!({"argv": []}))).await.error(400);
    server
        .ask(run(json!({"argv": ["x"], "id": "NOT AN ID"})))
        .await
        .error(400);
    server
        .ask(run(
            json!({"argv": ["x"], "tty": {"rows": 0, "columns": 5}}),
        ))
        .await
        .error(400);
}

#[tokio::test]
async fn an_exec_is_fed_and_waited_for() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    make(&server, &token).await;
    let at = |rest: &str| format!("{ALL}/box/{rest}");
    let start = |id: &str| {
        Request::post(
            &at("exec"),
            json!({"argv": ["cat"], "id": id, "stdin": true}).to_string(),
        )
        .token(&token)
    };
    assert_eq!(
        server.ask(start("e1")).await.ok().json()["exit"],
        Value::Null
    );
    let feed = Request::post(&at("execs/e1/input"), "abc")
        .token(&token)
        .header("idempotency-key", "feed-1");
    assert_eq!(server.ask(feed.clone()).await.ok().status, 204);
    server.ask(feed).await.ok();
    let last = Request::post(&at("execs/e1/input?eof=true"), "d").token(&token);
    server.ask(last).await.ok();
    assert_eq!(server.node.input_of("e1"), b"abcd");
    let over = server
        .ask(Request::get(&at("execs/e1?wait=5")).token(&token))
        .await
        .ok()
        .json();
    assert_eq!(over["exit"]["code"], 0);
    let output = server
        .ask(Request::get(&at("execs/e1/output?offset=1&follow")).token(&token))
        .await
        .ok();
    assert_eq!(output.text(), "bcd");
    assert_eq!(
        server
            .ask(Request::get(&at("logs")).token(&token))
            .await
            .ok()
            .text(),
        "abcd"
    );
}

#[tokio::test]
async fn execs_are_signalled_resized_and_listed() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    make(&server, &token).await;
    let at = |rest: &str| format!("{ALL}/box/{rest}");
    let start = |id: &str| {
        let body = json!({"argv": ["cat"], "id": id, "stdin": true});
        Request::post(&at("exec"), body.to_string()).token(&token)
    };
    server.ask(start("e1")).await.ok();
    server.ask(start("e2")).await.ok();
    let signal = |path: &str, body: &str| Request::post(&at(path), body).token(&token);
    server
        .ask(signal("execs/e2/signal", r#"{"signal": "SIGTERM"}"#))
        .await
        .ok();
    server.ask(start("e3")).await.ok();
    server
        .ask(signal("signal", r#"{"signal": "9"}"#))
        .await
        .ok();
    assert_eq!(*server.node.signals.lock().unwrap(), [15, 9, 9]);
    server
        .ask(signal("signal", r#"{"signal": "SIGNOTHING"}"#))
        .await
        .error(400);
    server
        .ask(signal("execs/e2/resize", r#"{"rows": 24, "columns": 80}"#))
        .await
        .ok();
    let page = server
        .ask(Request::get(&at("execs?limit=2")).token(&token))
        .await
        .ok()
        .json();
    assert_eq!(
        (page["items"].as_array().unwrap().len(), &page["next"]),
        (2, &json!("e.2"))
    );
    server
        .ask(Request::get(&at("execs/none")).token(&token))
        .await
        .error(404);
}

#[tokio::test]
async fn the_same_exec_is_started_once() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    make(&server, &token).await;
    let path = format!("{ALL}/box/exec");
    for _ in 0..3 {
        let keyed = Request::post(&path, r#"{"argv": ["cat"]}"#)
            .token(&token)
            .header("idempotency-key", "run-1");
        server.ask(keyed).await.ok();
    }
    assert_eq!(server.node.started(), 1);
}

#[tokio::test]
async fn files_are_written_read_listed_and_removed() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    make(&server, &token).await;
    let at = |query: &str| format!("{ALL}/box/files?{query}");
    let content: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let put = Request::put(&at("path=data.bin"), content.clone()).token(&token);
    assert_eq!(
        server.ask(put).await.ok().json(),
        json!({"path": "/work/data.bin", "bytes": 1_000_000})
    );
    let read = server
        .ask(Request::get(&at("path=data.bin")).token(&token))
        .await
        .ok();
    assert_eq!(read.body, content);
    let part = server
        .ask(Request::get(&at("path=data.bin&offset=999990")).token(&token))
        .await
        .ok();
    assert_eq!(part.body, content[999_990..]);
    let stat = server
        .ask(Request::get(&at("path=data.bin&stat")).token(&token))
        .await
        .ok()
        .json();
    assert_eq!(stat["entries"][0]["size"], 1_000_000);
    let list = server
        .ask(Request::get(&at("path=.&list")).token(&token))
        .await
        .ok()
        .json();
    assert_eq!(list["entries"][0]["name"], "data.bin");
    server
        .ask(Request::put(&at("path=d&mkdir"), "").token(&token))
        .await
        .ok();
    server
        .ask(Request::put(&at("path=d&mkdir"), "x").token(&token))
        .await
        .error(400);
    server
        .ask(Request::new("DELETE", &at("path=data.bin")).token(&token))
        .await
        .ok();
    server
        .ask(Request::get(&at("path=data.bin")).token(&token))
        .await
        .error(404);
}

#[tokio::test]
async fn a_snapshot_is_made_once_for_a_key_and_listed() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    make(&server, &token).await;
    let path = format!("{ALL}/box/snapshots");
    let take = || {
        Request::new("POST", &path)
            .token(&token)
            .header("idempotency-key", "snap")
    };
    let first = server.ask(take()).await.ok();
    assert_eq!(first.status, 201);
    assert_eq!(server.ask(take()).await.ok().json(), first.json());
    let list = server
        .ask(Request::get(&path).token(&token))
        .await
        .ok()
        .json();
    assert_eq!(list["items"], json!([first.json()]));
}
