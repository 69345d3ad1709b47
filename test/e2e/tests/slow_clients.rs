//! Promise: clients that are slow, silent or many keep no good one out. (That they are cut off in time is tested with short
//! times in the gateway; here are the real ones.)

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use prism_e2e::{LIMIT, Server, Trial};
use serde_json::json;

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.api().address).expect("it listens");
    stream
        .set_read_timeout(Some(LIMIT))
        .expect("a timeout can be set");
    stream
}

#[test]
fn two_thousand_silent_connections_keep_nobody_out() {
    let server = Server::start();
    let mut trial = Trial::new(&server);
    let mut silent = Vec::new();
    for round in 0..20 {
        for n in 0..100 {
            // The descriptors of this process may end first, which is as good.
            if let Ok(mut stream) = TcpStream::connect(&server.api().address) {
                let half = match n % 3 {
                    0 => "",
                    1 => "GET /health HTTP/1.1\r\nx: ",
                    _ => "POST /api/v1/jobs HTTP/1.1\r\ncontent-length: 5\r\n",
                };
                // It may have given way already.
                let _ = stream.write_all(half.as_bytes());
                silent.push(stream);
            }
            if silent.len() > 800 {
                silent.drain(..100).for_each(drop);
            }
        }
        trial.refused("GET", "/api/v1/jobs/none", b"", 404, "none");
        assert!(round < 20);
    }
    trial.end(20);
}

#[test]
fn slow_bodies_keep_nobody_out() {
    let server = Server::start();
    let token = server.api().token.clone().expect("dev makes a token");
    let mut slow = Vec::new();
    for bytes in [100, 50_000, 20 << 20, 20 << 20] {
        for _ in 0..10 {
            let mut stream = connect(&server);
            let head = format!(
                "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {bytes}\r\n\r\n{{"
            );
            stream.write_all(head.as_bytes()).expect("it reads");
            slow.push(stream);
        }
    }
    // Ordinary requests go on beside them, and quickly.
    let started = Instant::now();
    for _ in 0..20 {
        let body = json!({"job": "A"});
        let error = server.api().post("/api/v1/jobs", &body).expect(400).json();
        assert!(
            error["message"].as_str().is_some_and(|m| m.contains("job")),
            "{error}"
        );
    }
    assert!(started.elapsed() < LIMIT);
    // A large one is told to come again; those that wait for room are told so too.
    let large = format!("{{\"job\": \"A\", \"x\": \"{}\"}}", "x".repeat(20 << 20));
    let answer = server
        .api()
        .try_send("POST", "/api/v1/jobs", &[], large.as_bytes());
    let status = answer.map_or(0, |a| a.status);
    // Its connection may be closed before the answer was read, as most of the body was not.
    assert!([0, 429].contains(&status), "{status}");
    drop(slow);
    server.api().get("/health").expect(200);
    server.place.assert_no_panic();
}

#[test]
fn one_byte_at_a_time_is_served_while_it_goes_on() {
    let server = Server::start();
    let mut stream = connect(&server);
    stream.set_nodelay(true).expect("a socket option");
    for byte in b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" {
        stream.write_all(&[*byte]).expect("it reads");
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn requests_that_come_together_are_answered_in_order() {
    let server = Server::start();
    let mut stream = connect(&server);
    let one = "GET /nothing HTTP/1.1\r\nhost: x\r\nx-request-id: ";
    let all: String = (0..200).map(|n| format!("{one}r{n}\r\n\r\n")).collect();
    let last = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all((all + last).as_bytes()).expect("it reads");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("answers");
    let ids: Vec<&str> = answers
        .lines()
        .filter_map(|l| l.strip_prefix("x-request-id: r"))
        .collect();
    let expected: Vec<String> = (0..200).map(|n: u32| n.to_string()).collect();
    assert_eq!(ids, expected);
}
