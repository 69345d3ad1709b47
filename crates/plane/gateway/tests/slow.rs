//! Slow and many clients: cut off, bounded, and never in the way of others.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod harness;

use std::time::Duration;

use harness::{Request, bare, config, http};
use prism_api::Role;
use prism_gateway::{GatewayConfig, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn impatient() -> GatewayConfig {
    GatewayConfig {
        header_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(200),
        ..config()
    }
}

async fn ends(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let read = stream.read_to_end(&mut all);
    let _ = tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("it is cut off");
    all
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let server = bare(impatient()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /health HTTP/1.1\r\nx-slow: ")
        .await
        .unwrap();
    assert!(!ends(stream).await.starts_with(b"HTTP/1.1 200"));
    let silent = TcpStream::connect(server.address).await.unwrap();
    ends(silent).await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_answered_408() {
    let server = bare(impatient()).await;
    let token = server.token(Role::Admin).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /api/v1/tokens HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let error = http::parse(&ends(stream).await).error(408);
    assert_eq!(error["reason"], "timeout");
    assert_eq!(error["retryable"], true);
}

#[tokio::test]
async fn silent_connections_do_not_keep_others_out_for_long() {
    let server = bare(GatewayConfig {
        connections_max: 4,
        ..impatient()
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    server.ask(Request::get("/health")).await.ok();
    drop(silent);
}

#[tokio::test]
async fn it_is_not_served_off_loopback() {
    let server = bare(config()).await;
    let open = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = serve(open, server.control.clone(), config(), server.stop.clone()).await;
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("TLS") && message.contains("ssh -L"),
        "{message}"
    );
}
