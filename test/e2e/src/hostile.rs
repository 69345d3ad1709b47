//! Hostile input, one case after the other: each is refused as it should be, changes nothing, and leaves the server well.

use anyhow::Result;
use serde_json::Value;

use crate::http::{Answer, Api};
use crate::server::Server;

/// Lists that together show all that a request could change.
const LISTS: &[&str] = &[
    "/api/v1/jobs?limit=1000",
    "/api/v1/sandboxes?all=true&limit=1000",
    "/api/v1/tokens?limit=1000",
    "/api/v1/images?limit=1000",
];

/// Runs cases against a server and keeps what went wrong, so that one run shows everything.
#[derive(Debug)]
pub struct Trial<'s> {
    server: &'s Server,
    before: String,
    count: usize,
    wrong: Vec<String>,
}

impl<'s> Trial<'s> {
    /// Notes what there is before the first case.
    pub fn new(server: &'s Server) -> Self {
        Self {
            server,
            before: state(server.api()),
            count: 0,
            wrong: Vec::new(),
        }
    }

    /// A request with JSON, if any, that is refused with this status and these words.
    pub fn refused(&mut self, method: &str, path: &str, body: &[u8], status: u16, says: &str) {
        let headers: &[(&str, &str)] = match body.is_empty() {
            true => &[],
            false => &[("content-type", "application/json")],
        };
        self.with(method, path, headers, body, status, says);
    }

    /// The same with headers.
    pub fn with(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        status: u16,
        says: &str,
    ) {
        let api = self.server.api().clone();
        self.asked(&api, method, path, headers, body, status, says);
    }

    /// The same as somebody else.
    #[expect(clippy::too_many_arguments, reason = "a row of a table")]
    pub fn asked(
        &mut self,
        api: &Api,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        status: u16,
        says: &str,
    ) {
        let shown = format!(
            "{method} {} {}",
            short(path),
            short(&String::from_utf8_lossy(body))
        );
        let answer = api.try_send(method, path, headers, body);
        let fault = match answer {
            Ok(answer) => refusal(&answer, status, says).err(),
            Err(e) => Some(format!("no answer: {e:#}")),
        };
        self.judge(&shown, fault);
    }

    /// Bytes as they are, after which the connection ends or a 4xx comes; with `status`, exactly that one.
    pub fn raw(&mut self, what: &str, bytes: &[u8], status: Option<u16>) {
        let fault = match (self.server.api().raw(bytes), status) {
            (Ok(answer), Some(status)) if answer.status != status => Some(format!(
                "status {}: {}",
                answer.status,
                short(&answer.text())
            )),
            (Ok(answer), None) if !(400..500).contains(&answer.status) => Some(format!(
                "status {}: {}",
                answer.status,
                short(&answer.text())
            )),
            (Err(e), Some(_)) => Some(format!("no answer: {e:#}")),
            _ => None,
        };
        self.judge(what, fault);
    }

    /// Counts a case: what was wrong with it, or with what it left behind.
    pub fn judge(&mut self, shown: &str, fault: Option<String>) {
        self.count += 1;
        let fault = fault.or_else(|| {
            let after = state(self.server.api());
            (after != self.before).then(|| {
                let change = format!("something changed: {} -> {after}", self.before);
                self.before = after;
                change
            })
        });
        if let Some(fault) = fault {
            self.wrong.push(format!("{shown}\n    {fault}"));
        }
    }

    /// All must have gone well, and there must have been this many.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn end(self, count: usize) {
        let Self { wrong, .. } = &self;
        assert!(
            wrong.is_empty(),
            "{} of {}:\n{}",
            wrong.len(),
            self.count,
            wrong.join("\n")
        );
        assert!(self.count >= count, "only {} cases", self.count);
        self.server.api().get("/health").expect(200);
        self.server.place.assert_no_panic();
    }
}

/// What is true of every refusal.
///
/// # Errors
/// What is not.
pub fn refusal(answer: &Answer, status: u16, says: &str) -> Result<(), String> {
    let text = answer.text();
    if answer.status != status {
        return Err(format!(
            "status {}, not {status}: {}",
            answer.status,
            short(&text)
        ));
    }
    let body: Value =
        serde_json::from_slice(&answer.body).map_err(|e| format!("{e}: {}", short(&text)))?;
    for field in [
        "code",
        "message",
        "reason",
        "retryable",
        "outcome",
        "request_id",
        "details",
    ] {
        if body[field].is_null() {
            return Err(format!("no {field} in {}", short(&text)));
        }
    }
    let message = body["message"].as_str().unwrap_or_default();
    if body["outcome"] != "not_applied" || message.is_empty() || message.len() > 2_000 {
        return Err(format!("not a refusal: {}", short(&text)));
    }
    if message.chars().any(|c| c.is_control()) {
        return Err(format!("control characters in {message:?}"));
    }
    match message.contains(says) || body["details"].to_string().contains(says) {
        true => Ok(()),
        false => Err(format!("does not say {says:?}: {}", short(&text))),
    }
}

fn state(api: &Api) -> String {
    LISTS
        .iter()
        .map(|path| api.get(path).expect(200).text())
        .collect()
}

fn short(text: &str) -> String {
    text.chars().take(240).collect()
}
