//! The API's port, in the clear on loopback and with TLS.

use prism_fuzz::{Dice, mutated};
use prism_identity::connect_unjudged;

use crate::net::{Tally, client_hello, exchange, play, sent, shaken};
use crate::site::Site;

/// Streams of each kind and round.
const STREAMS: usize = 250;

/// Requests of one who may only look.
fn requests(site: &Site) -> Vec<Vec<u8>> {
    let (host, token) = (site.api, &site.viewer);
    let head = format!("host: {host}\r\nauthorization: Bearer {token}\r\n");
    let body = r#"{"job": "fuzz", "command": ["true"]}"#;
    let length = body.len();
    let json = "content-type: application/json\r\n";
    let texts = [
        format!("GET /health HTTP/1.1\r\n{head}\r\n"),
        format!("GET /api/v1/jobs?limit=5&label=a%3Db HTTP/1.1\r\n{head}connection: close\r\n\r\n"),
        format!("POST /api/v1/jobs HTTP/1.1\r\n{head}{json}content-length: {length}\r\n\r\n{body}"),
        format!(
            "POST /api/v1/sandboxes HTTP/1.1\r\n{head}{json}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
        ),
        format!("GET /metrics HTTP/1.1\r\n{head}\r\nGET /openapi.json HTTP/1.1\r\n{head}\r\n"),
        format!(
            "PUT /api/v1/namespaces/x HTTP/1.1\r\n{head}{json}idempotency-key: a\r\ncontent-length: 2\r\n\r\n{{}}"
        ),
    ];
    texts.into_iter().map(String::into_bytes).collect()
}

/// Heads and bodies that say or are far too much.
fn huge(site: &Site) -> Vec<Vec<u8>> {
    let head = format!(
        "host: {}\r\nauthorization: Bearer {}\r\n",
        site.api, site.viewer
    );
    let long = "x".repeat(1 << 20);
    let texts = [
        format!("GET /{long} HTTP/1.1\r\n{head}\r\n"),
        format!("GET /health HTTP/1.1\r\n{head}x: {long}\r\n\r\n"),
        format!("GET /health HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200)),
        format!("POST /api/v1/jobs HTTP/1.1\r\n{head}content-length: 99999999999\r\n\r\n{long}"),
        format!("POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 1048576\r\n\r\n{long}"),
    ];
    texts.into_iter().map(String::into_bytes).collect()
}

/// No answer may be that of a defect, and none says that something was made.
fn judged(answer: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(answer);
    let statuses = text.split("HTTP/1.1 ").skip(1);
    for status in statuses.filter_map(|s| s.get(..3)) {
        if matches!(status, "500" | "501" | "502" | "201" | "202") {
            return Err(format!("an answer of status {status}: {text:.300}"));
        }
    }
    Ok(())
}

pub async fn plain(site: &Site, round: u64) -> Tally {
    let mut dice = Dice::new(100 + round);
    let seeds = requests(site);
    let mut cases: Vec<Vec<u8>> = (0..STREAMS).map(|_| mutated(&mut dice, &seeds)).collect();
    cases.extend(seeds.iter().map(|s| s[..dice.roll(s.len())].to_vec()));
    cases.extend(huge(site));
    // A head that is cut off, and one in the middle of its body.
    cases.push(seeds[0][..20].to_vec());
    cases.push(seeds[2][..seeds[2].len() - 4].to_vec());
    let api = site.api;
    play(cases, move |bytes| async move {
        judged(&sent(api, bytes).await?)
    })
    .await
}

/// Over TLS: hands shaken badly, no hands at all, and the same requests once they are shaken.
pub async fn tls(site: &Site, round: u64) -> Tally {
    let mut dice = Dice::new(200 + round);
    let config = connect_unjudged().expect("it knows TLS 1.3");
    let hello = client_hello(&config, b"http/1.1");
    let seeds = [vec![hello.clone()], requests(site)].concat();
    let mut cases: Vec<Vec<u8>> = (0..STREAMS)
        .map(|_| mutated(&mut dice, &seeds[..1 + dice_of(round)]))
        .collect();
    cases.extend((0..hello.len()).step_by(16).map(|at| hello[..at].to_vec()));
    let to = site.tls;
    let mut all = play(cases, move |bytes| async move {
        let answer = sent(to, bytes).await?;
        match answer.starts_with(b"HTTP/1.1 ") {
            // It is told that TLS is spoken here.
            true if !answer.starts_with(b"HTTP/1.1 400 ") => Err("an answer in the clear".into()),
            _ => Ok(()),
        }
    })
    .await;
    let inner: Vec<Vec<u8>> = (0..STREAMS / 3)
        .map(|_| mutated(&mut dice, &seeds[1..]))
        .collect();
    all += play(inner, move |bytes| {
        let config = config.clone();
        async move {
            let stream = shaken(to, &config, b"").await;
            let stream = stream.map_err(|why| format!("no hands are shaken: {why}"))?;
            judged(&exchange(stream, &bytes).await?)
        }
    })
    .await;
    all
}

/// In the first round hands are shaken badly; in the second requests come in the clear as well.
fn dice_of(round: u64) -> usize {
    usize::try_from(round * 3).unwrap_or(0)
}
