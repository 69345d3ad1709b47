//! Promise: bytes that are no HTTP, or HTTP that two programs could read differently, are refused or cut off; a body is
//! JSON or nothing.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use prism_e2e::{Server, Trial};

/// Heads after which the connection is of no more use: what comes back is a 4xx or nothing. `{a}` is the authorization
/// header with its line end.
const BROKEN: &[&str] = &[
    "\r\n\r\n\r\n\r\n",
    "GET\r\n\r\n",
    "GET /health\r\n\r\n",
    "GET /health HTTP/0.9\r\n\r\n",
    "GET /health HTTP/2.0\r\n\r\n",
    "GET /health HTTP/9.9\r\n\r\n",
    "GET /health http/1.1\r\nhost: x\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "GET /hea lth HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET  /health  HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET\t/health\tHTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /health\0 HTTP/1.1\r\nhost: x\r\n\r\n",
    "G\u{7f}ET /health HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /health HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n",
    "GET /health HTTP/1.1\r\nhost: x\r\n: empty\r\n\r\n",
    "GET /health HTTP/1.1\r\nhost: x\r\nna me: y\r\n\r\n",
    "GET /health HTTP/1.1\r\nhost: x\r\nname : y\r\n\r\n",
    "GET /health HTTP/1.1\r\nhost: x\r\nx: a\r\n folded\r\n\r\n",
    "GET /health HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n",
    "GET /health HTTP/1.1\r\nhost: x\r\nx: a\rb: c\r\n\r\n",
    "GET /health HTTP/1.1\r\n host: x\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: x\r\n\u{e9}: y\r\n\r\n",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}content-length: -5\r\n\r\n{}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}content-length: +2\r\n\r\n{}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}content-length: 2 2\r\n\r\n{}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}content-length: 0x2\r\n\r\n{}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}content-length: 2e0\r\n\r\n{}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}content-length: two\r\n\r\n{}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}content-length:\r\n\r\n{}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}content-length: 99999999999999999999999\r\n\r\n{}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}content-length: 18446744073709551615\r\n\r\n{}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}content-length: 2\r\ncontent-length: 3\r\n\r\n{}}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}content-length: 2, 3\r\n\r\n{}}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}transfer-encoding: chunked\r\n\r\nzz\r\n",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}transfer-encoding: chunked\r\n\r\n-1\r\n",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}transfer-encoding: chunked\r\n\r\n2;a=b\r\n{}X\r\n0\r\n\r\n",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}transfer-encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}transfer-encoding: gzip\r\n\r\n{}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}transfer-encoding:\u{b}chunked\r\n\r\n0\r\n\r\n",
    "POST /api/v1/jobs HTTP/1.0\r\nhost: x\r\n{a}transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}",
    "SSH-2.0-OpenSSH_9.9\r\n",
    "EHLO example.org\r\n",
    "*1\r\n$4\r\nPING\r\n",
    "{\"jsonrpc\": \"2.0\"}\r\n\r\n",
];

/// Two requests in one: the second must not be read out of the body of the first. `{j}` is a whole job submission.
const SMUGGLED: &[&str] = &[
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{j}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n{j}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}content-length: 0\r\ncontent-length: 9999\r\n\r\n{j}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}content-length: 0,9999\r\n\r\n{j}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n{j}",
    "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{a}x: y\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n{j}",
    "GET /health HTTP/1.1\r\nhost: x\r\nx: y\r\n\r {j}",
];

/// Bodies of a submission that are no JSON of it.
const BODIES: &[(&str, &str)] = &[
    ("", "empty"),
    (" ", "empty"),
    ("\n\n", "empty"),
    ("nonsense", "JSON value"),
    ("job: a", "JSON value"),
    ("<job/>", "JSON value"),
    ("job=a&command=x", "JSON value"),
    ("{", "key in quotes"),
    ("}", "JSON value"),
    ("[]", "table"),
    ("null", "table"),
    ("true", "table"),
    ("1", "table"),
    ("\"job\"", "table"),
    ("{\"job\"}", "expected :"),
    ("{\"job\": }", "JSON value"),
    ("{\"job\": \"a\",}", "key in quotes"),
    ("{'job': 'a'}", "key in quotes"),
    ("{job: \"a\"}", "key in quotes"),
    ("{\"job\": \"a\"} {}", "after the end"),
    ("{\"job\": \"a\"}\u{0}", "NUL"),
    ("{\"job\": \"a\" /* x */}", "expected ,"),
    ("{\"job\": \"a\" // x\n}", "expected ,"),
    ("{\"job\": \"a\n\"}", "control character"),
    ("{\"job\": \"\\x\"}", "escape"),
    ("{\"job\": \"\\u12\"}", "hexadecimal"),
    ("{\"job\": \"\\ud800\"}", "surrogate"),
    ("{\"job\": \"\\udc00\\ud800\"}", "surrogate"),
    ("{\"job\": \"a", "closing quote"),
    ("{\"job\": \"a\", \"job\": \"b\"}", "given twice"),
    ("{\"job\": \"a\", \"\\u006aob\": \"b\"}", "given twice"),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"env\": {\"A\": 1, \"A\": 2}}",
        "given twice",
    ),
    ("{\"__proto__\": {}, \"job\": \"a\"}", "unknown field"),
    (
        "{\"job\": \"a\", \"comand\": [\"x\"]}",
        "did you mean \"command\"",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"Retries\": 1}",
        "did you mean \"retries\"",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"\\u0072\\u0065\": 1}",
        "unknown field",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"\\u001b[31m\": 1}",
        "unknown field",
    ),
    ("{\"job\": \"\\u001b[31mred\", \"command\": [\"x\"]}", "job"),
    ("{\"job\": \"a\\u202eb\", \"command\": [\"x\"]}", "job"),
    ("{\"job\": tru}", "JSON value"),
    ("{\"job\": TRUE}", "JSON value"),
    ("{\"sweep\": \"a\", \"command\": [\"x\"]}", "unknown field"),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"array\": 1e5}",
        "array",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"array\": 1E400}",
        "array",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"array\": --1}",
        "JSON number",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"array\": 1e}",
        "JSON number",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"array\": .5}",
        "JSON value",
    ),
];

fn put_in(text: &str, token: &str) -> String {
    let authorization = format!("authorization: Bearer {token}\r\n");
    let body = "{\"job\": \"smuggled\", \"command\": [\"true\"]}";
    let job = format!(
        "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{authorization}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    text.replace("{j}", &job).replace("{a}", &authorization)
}

/// Sends bytes, ends the sending side, and reads all that comes back.
fn exchange(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a timeout can be set");
    // It may be refused before all of it is sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn what_is_no_http_is_cut_off() {
    let server = Server::start();
    let token = server.api().token.clone().expect("dev makes a token");
    let mut trial = Trial::new(&server);
    let headers: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = [
        format!("GET /health HTTP/1.1\r\nhost: x\r\n{headers}\r\n"),
        format!(
            "GET /health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
            "y".repeat(200_000)
        ),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(1 << 20)),
        format!("GET /health HTTP/1.1\r\n{}", "x: y\r\n".repeat(100_000)),
        format!(
            "{} /health HTTP/1.1\r\nhost: x\r\n\r\n",
            "A".repeat(100_000)
        ),
        "A".repeat(1 << 20),
    ];
    let broken = BROKEN.iter().map(|text| put_in(text, &token)).chain(long);
    for text in broken {
        let answer = exchange(&server.api().address, text.as_bytes());
        let shown: String = text.chars().take(90).collect();
        let fault = (answer.starts_with(b"HTTP/1.1 2") || answer.starts_with(b"HTTP/1.1 5"))
            .then(|| String::from_utf8_lossy(&answer).into_owned());
        trial.judge(&format!("{shown:?}"), fault);
    }
    trial.end(50);
}

#[test]
fn no_request_hides_in_another() {
    let server = Server::start();
    let token = server.api().token.clone().expect("dev makes a token");
    let mut trial = Trial::new(&server);
    for text in SMUGGLED {
        // Whatever is answered to the first: the job inside is never made.
        exchange(&server.api().address, put_in(text, &token).as_bytes());
        trial.judge(text, None);
    }
    trial.end(SMUGGLED.len());
}

#[test]
fn bodies_that_are_no_json_are_refused() {
    let server = Server::start();
    let mut trial = Trial::new(&server);
    for (body, says) in BODIES {
        trial.refused("POST", "/api/v1/jobs", body.as_bytes(), 400, says);
    }
    for bytes in [
        &b"\xff\xfe{\0}\0"[..],
        b"{\"job\": \"\xc0\x80\"}",
        b"{\"job\": \"\xed\xa0\x80\"}",
        b"\x80",
        b"{\"\xf5\": 1}",
    ] {
        trial.refused("POST", "/api/v1/jobs", bytes, 400, "UTF-8");
    }
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        let deep = format!("{}1{}", open.repeat(50_000), close.repeat(50_000));
        trial.refused("POST", "/api/v1/jobs", deep.as_bytes(), 400, "deep");
        let deep = format!("{{\"argv\": {deep}}}");
        trial.refused("POST", "/api/v1/sandboxes/x/exec", deep.as_bytes(), 400, "");
    }
    for (method, path, body, status) in [
        ("POST", "/api/v1/jobs/x/cancel", "{\"why\": 1}", 400),
        ("POST", "/api/v1/jobs/x/cancel", "x", 400),
        ("DELETE", "/api/v1/sandboxes/x", "[1]", 400),
        ("GET", "/api/v1/jobs", "{\"limit\": 5}", 400),
        ("POST", "/api/v1/tokens", "", 400),
        ("POST", "/api/v1/tokens", "[]", 400),
        (
            "POST",
            "/api/v1/tokens",
            "{\"name\": \"x\", \"name\": \"y\", \"role\": \"viewer\"}",
            400,
        ),
        ("POST", "/api/v1/images", "\"/x.tar\"", 400),
        ("POST", "/api/v1/sandboxes", "[]", 400),
        (
            "POST",
            "/api/v1/sandboxes",
            "{\"image\": {\"name\": \"x\"}}",
            400,
        ),
    ] {
        trial.refused(method, path, body.as_bytes(), status, "");
    }
    trial.end(65);
}

#[test]
fn bodies_that_are_too_large_are_refused_before_they_are_read() {
    let server = Server::start();
    let token = server.api().token.clone().expect("dev makes a token");
    let mut trial = Trial::new(&server);
    for (method, path, bytes) in [
        ("POST", "/api/v1/jobs", (24 << 20) + 1),
        ("POST", "/api/v1/sweeps", 99_999_999_999_u64),
        ("POST", "/api/v1/sandboxes", (1 << 20) + 1),
        ("POST", "/api/v1/tokens", (1 << 20) + 1),
        ("POST", "/api/v1/images", 1 << 40),
        ("POST", "/api/v1/jobs/x/cancel", 1 << 30),
        ("POST", "/api/v1/sandboxes/x/exec", 2 << 20),
        ("PUT", "/api/v1/sandboxes/x/files?path=a", (24 << 20) + 1),
        ("GET", "/api/v1/jobs", 1 << 30),
    ] {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {bytes}\r\n\r\n"
        );
        trial.raw(
            &format!("{method} {path} {bytes}"),
            head.as_bytes(),
            Some(413),
        );
        let waits = head.replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
        trial.raw(
            &format!("{method} {path} expects"),
            waits.as_bytes(),
            Some(413),
        );
    }
    let head = format!(
        "POST /api/v1/tokens HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let mut chunks = head.into_bytes();
    for _ in 0..20 {
        chunks.extend_from_slice(b"10000\r\n");
        chunks.extend_from_slice(&[b' '; 1 << 16]);
        chunks.extend_from_slice(b"\r\n");
    }
    trial.raw("chunks without end", &chunks, Some(413));
    trial.end(19);
}

#[test]
fn a_client_that_goes_away_in_the_middle_leaves_nothing() {
    let server = Server::start();
    let token = server.api().token.clone().expect("dev makes a token");
    let mut trial = Trial::new(&server);
    let whole = put_in("{j}", &token);
    let cuts = (0..whole.len()).step_by(whole.len() / 25);
    for cut in cuts {
        let mut stream = TcpStream::connect(&server.api().address).expect("it listens");
        stream
            .write_all(&whole.as_bytes()[..cut])
            .expect("a part can be sent");
        drop(stream);
        trial.judge(&format!("cut after {cut} bytes"), None);
    }
    trial.end(25);
}
