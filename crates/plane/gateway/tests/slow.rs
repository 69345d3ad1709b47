//! Slow and many clients: cut off, bounded, and never in the way of others.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod harness;

use std::time::Duration;

use harness::{Request, bare, config, http};
use prism_api::Role;
use prism_gateway::{Gateway, GatewayConfig, Ground, serve};
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
async fn the_connection_that_was_idle_longest_gives_way_at_once() {
    let server = bare(GatewayConfig {
        connections_max: 4,
        header_timeout: Duration::from_secs(600),
        ..config()
    })
    .await;
    let mut silent = Vec::new();
    for i in 0..4 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let half = format!("GET /health HTTP/1.1\r\nx-{i}: ");
        stream.write_all(half.as_bytes()).await.unwrap();
        silent.push(stream);
    }
    for _ in 0..8 {
        server.ask(Request::get("/health")).await.ok();
    }
    // Those that did nothing were closed, not merely kept waiting.
    assert!(ends(silent.remove(0)).await.is_empty());
}

#[tokio::test]
async fn a_stream_that_is_read_does_not_give_way() {
    let server = bare(GatewayConfig {
        connections_max: 2,
        header_timeout: Duration::from_secs(600),
        ..config()
    })
    .await;
    let token = server.token(Role::Viewer).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "GET /api/v1/events?follow HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut some = [0; 64];
    stream.read_exact(&mut some).await.unwrap();
    for _ in 0..6 {
        let _other = TcpStream::connect(server.address).await.unwrap();
        server.ask(Request::get("/health")).await.ok();
    }
    // Comments keep coming.
    for _ in 0..5 {
        stream.read_exact(&mut some).await.unwrap();
    }
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_off() {
    let server = bare(GatewayConfig {
        write_timeout: Duration::from_millis(300),
        ..config()
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // Requests without end, of which no answer is read, until the server's patience and the sockets' room are over.
    let cut = async {
        let many = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
        while stream.write_all(many.as_bytes()).await.is_ok() {}
    };
    tokio::time::timeout(Duration::from_secs(60), cut)
        .await
        .expect("it is cut off");
    server.ask(Request::get("/health")).await.ok();
}

#[tokio::test]
async fn bodies_that_do_not_fit_are_told_to_come_again() {
    let server = bare(GatewayConfig {
        bodies_max: 1 << 20,
        room_wait: Duration::from_millis(100),
        ..config()
    })
    .await;
    let token = server.token(Role::Admin).await;
    let head = |bytes: usize| {
        format!(
            "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {bytes}\r\n\r\n{{"
        )
    };
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first.write_all(head(1 << 20).as_bytes()).await.unwrap();
    // Until the first one has its room, the second one may be the one that waits for its body.
    let refused = loop {
        let mut second = TcpStream::connect(server.address).await.unwrap();
        second.write_all(head(1 << 20).as_bytes()).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(5), ends(second)).await;
        if let Ok(answer) = answer {
            break http::parse(&answer);
        }
    };
    assert_eq!(refused.header("retry-after"), Some("2"));
    let error = refused.error(429);
    assert_eq!(error["retryable"], true);
    assert!(
        error["message"].as_str().unwrap().contains("1 MiB"),
        "{error}"
    );
    // Small ones are not kept out by it.
    let small = Request::post("/api/v1/jobs", "{}").token(&token);
    server.ask(small).await.error(400);
    drop(first);
    let body = format!("{{\"job\": \"A\", \"x\": \"{}\"}}", "x".repeat(200_000));
    server
        .ask(Request::post("/api/v1/jobs", body).token(&token))
        .await
        .error(400);
}

#[tokio::test]
async fn it_is_not_served_off_loopback() {
    let server = bare(config()).await;
    let open = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let ground = Ground::alone(server.control.clone());
    let at = open.local_addr().unwrap();
    let gateway = Gateway::new(at, ground, config(), server.stop.clone());
    let refused = serve(open, gateway).await;
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("without TLS") && message.contains("nothing was started"),
        "{message}"
    );
}
