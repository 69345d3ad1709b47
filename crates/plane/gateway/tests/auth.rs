//! Who may do what: every row of the table with every role, made from the table itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod harness;

use harness::{Request, bare, config};
use prism_api::{Access, ROUTES, Role};
use prism_state::Command;

/// A path of a route that names nothing that exists.
fn target(path: &str) -> String {
    path.replace("{id}", "nothing-here")
        .replace("{exec}", "nothing")
}

#[tokio::test]
async fn without_any_token_everything_is_refused_with_how_to_set_one() {
    let server = bare(config()).await;
    for route in ROUTES {
        let answer = server
            .ask(Request::new(route.method.as_str(), &target(route.path)))
            .await;
        match route.access {
            Access::Open => assert!(answer.status < 300, "{}", route.path),
            Access::Token(_) => {
                let error = answer.error(503);
                assert_eq!(error["reason"], "unauthenticated", "{}", route.path);
                assert!(error["message"].as_str().unwrap().contains("prismd dev"));
            }
        }
    }
}

#[tokio::test]
async fn a_token_that_is_wrong_in_any_way_is_refused() {
    let server = bare(config()).await;
    let good = server.token(Role::Admin).await;
    let flipped = {
        let mut text = good.clone().into_bytes();
        let last = text.last_mut().unwrap();
        *last = if *last == b'0' { b'1' } else { b'0' };
        String::from_utf8(text).unwrap()
    };
    let other = format!("pt_{}_{}", "0".repeat(26), "0".repeat(64));
    let cluster = || Request::get("/api/v1/cluster");
    server.ask(cluster().token(&good)).await.ok();
    for bad in [
        flipped.as_str(),
        &other,
        &good[..good.len() - 1],
        "",
        "pt_",
        "x y z",
        &good.to_uppercase(),
    ] {
        server.ask(cluster().token(bad)).await.error(401);
    }
    for header in ["Basic YTpi", "Bearer", &good, "bearer\tx"] {
        server
            .ask(cluster().header("authorization", header))
            .await
            .error(401);
    }
    let lower = format!("bearer {good}");
    server
        .ask(cluster().header("authorization", &lower))
        .await
        .ok();
}

#[tokio::test]
async fn tokens_are_made_shown_once_listed_and_revoked() {
    let server = bare(config()).await;
    let admin = server.token(Role::Admin).await;
    let make = Request::post(
        "/api/v1/tokens",
        r#"{"name": "ci", "role": "submitter", "expires_in": "1h"}"#,
    )
    .token(&admin)
    .header("idempotency-key", "make-ci");
    let made = server.ask(make.clone()).await.ok();
    assert_eq!(made.status, 201);
    let made = made.json();
    let token = made["token"].as_str().unwrap().to_owned();
    server
        .ask(Request::get("/api/v1/jobs").token(&token))
        .await
        .ok();
    let again = server.ask(make).await.ok().json();
    assert_eq!(
        (&again["id"], &again["token"]),
        (&made["id"], &serde_json::Value::Null)
    );
    let list = server
        .ask(Request::get("/api/v1/tokens").token(&admin))
        .await
        .ok();
    assert!(!list.text().contains(&token[30..]));
    assert_eq!(list.json()["items"].as_array().unwrap().len(), 2);
    let path = format!("/api/v1/tokens/{}", made["id"].as_str().unwrap());
    let gone = server
        .ask(Request::new("DELETE", &path).token(&admin))
        .await
        .ok();
    assert_eq!(gone.status, 204);
    server
        .ask(Request::get("/api/v1/jobs").token(&token))
        .await
        .error(401);
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let server = bare(config()).await;
    let admin = server.token(Role::Admin).await;
    let (ms, entropy) = server.control.mint();
    let id = prism_types::TokenId::new(ms, entropy);
    let token = prism_gateway::new_token(id, [9; 32]);
    let command = Command::CreateToken {
        id,
        name: "short".to_owned(),
        role: prism_state::Role::Admin,
        scope: Box::default(),
        by: None,
        hash: token.hash,
        expires: Some(server.control.now().after(prism_types::Millis(1))),
    };
    server.control.propose(command, None).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    let error = server
        .ask(Request::get("/api/v1/jobs").token(&token.text))
        .await
        .error(401);
    assert!(error["message"].as_str().unwrap().contains("token"));
    server
        .ask(Request::get("/api/v1/jobs").token(&admin))
        .await
        .ok();
}
