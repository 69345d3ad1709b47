//! Execs in a sandbox: started, streamed in the same answer, fed, signalled.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use base64::Engine as _;
use bytes::Bytes;
use prism_api::{ErrorBody, ExecBody, ExecEvent, ExecView, SignalBody, Stream, TtySize};
use prism_link::{ExecRequest, LogOf, NodeError, NodeService};
use prism_state::Subject;
use prism_types::{Reason, SandboxId, parse_duration};

use crate::app::App;
use crate::ask::Ask;
use crate::refuse::{Answered, Refusal};
use crate::sandboxes::place;
use crate::stream::{self, Gone, Sink};
use crate::{answer, list, output};

/// Bytes of output in one event.
const CHUNK: usize = 32 << 10;
/// Longest time that a node holds an empty answer back.
const WAIT: Duration = Duration::from_secs(20);
/// Most arguments.
const ARGS_MAX: usize = 1024;

fn request(ask: &Ask, body: ExecBody) -> Answered<ExecRequest> {
    let field = |name: &str, why: String| Refusal::invalid(why).detail("field", name.to_owned());
    if body.argv.first().is_none_or(String::is_empty) || body.argv.len() > ARGS_MAX {
        let why = format!("argv is to have a program and at most {ARGS_MAX} arguments");
        return Err(field("argv", why));
    }
    let env = body.env.unwrap_or_default();
    let nul = |text: &String| text.contains('\0');
    if body.argv.iter().any(nul) || env.iter().any(|(k, v)| nul(k) || nul(v)) {
        return Err(field(
            "argv",
            "a NUL character in an argument or variable".to_owned(),
        ));
    }
    if let Some(bad) = env.keys().find(|k| k.is_empty() || k.contains('=')) {
        let shown: String = bad.chars().take(40).collect();
        return Err(field(
            "env",
            format!("{shown:?} is not the name of a variable"),
        ));
    }
    let id = match body.id {
        Some(id) if is_exec_id(&id) => id,
        Some(id) => {
            let shown: String = id.chars().take(40).collect();
            return Err(field(
                "id",
                format!("{shown:?} is not an exec id: expected 1 to 26 of a-z, 0-9 and -"),
            ));
        }
        None => fresh_id(ask)?,
    };
    let timeout = body.timeout.as_deref().map(parse_duration).transpose();
    let timeout = timeout.map_err(|why| field("timeout", why))?;
    if body
        .tty
        .as_ref()
        .is_some_and(|t| t.rows == 0 || t.columns == 0)
    {
        return Err(field(
            "tty",
            "a terminal has at least one row and one column".to_owned(),
        ));
    }
    Ok(ExecRequest {
        id,
        argv: body.argv,
        env: env.into_iter().collect(),
        cwd: body.cwd,
        stdin: body.stdin.unwrap_or(false),
        tty: body.tty.map(|t| (t.rows, t.columns)),
        timeout_ms: timeout.map(|t| t.0),
    })
}

fn is_exec_id(id: &str) -> bool {
    (1..=26).contains(&id.len())
        && id
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// An id for an exec that came without: the same for the same idempotency key, so that a repeat finds the first.
fn fresh_id(ask: &Ask) -> Answered<String> {
    let mut bytes = [0u8; 13];
    match &ask.key {
        Some(key) => {
            use sha2::{Digest, Sha256};
            let mut digest = Sha256::new();
            digest.update(key.key.as_bytes());
            digest.update(key.request_digest);
            bytes.copy_from_slice(&digest.finalize()[..13]);
        }
        None => getrandom::fill(&mut bytes).map_err(|e| {
            Refusal::new(
                Reason::Internal,
                format!("the system gives no random numbers: {e}"),
            )
        })?,
    }
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// `POST /sandboxes/{id}/exec`
pub(crate) async fn start(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let request = request(&ask, ask.json()?)?;
    let place = place(app, &ask, false).await?;
    let exec = request.id.clone();
    let work = place.node.exec(place.id, request);
    let info = app.on_node(&ask, Subject::Sandbox(place.id), work).await?;
    let streams = ask
        .query
        .given("stream")
        .unwrap_or_else(|| ask.accepts("application/x-ndjson"));
    if !streams {
        return answer::json(&output::exec(info));
    }
    let streamer = Streamer {
        node: place.node,
        sandbox: place.id,
        exec,
        request_id: ask.request_id,
    };
    let stop = app.stop.clone();
    Ok(stream::answer(
        app,
        "application/x-ndjson",
        move |sink| async move {
            tokio::select! {
                () = stop.cancelled() => sink.break_off("the server stops").await,
                () = sink.gone() => {}
                () = streamer.run(&sink) => {}
            }
        },
    ))
}

struct Streamer {
    node: Arc<dyn NodeService>,
    sandbox: SandboxId,
    exec: String,
    request_id: String,
}

/// Why a stream ended early.
enum Cut {
    Gone,
    Node(NodeError),
}

impl From<Gone> for Cut {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<NodeError> for Cut {
    fn from(error: NodeError) -> Self {
        Self::Node(error)
    }
}

impl Streamer {
    async fn run(&self, sink: &Sink) {
        match self.all(sink).await {
            Ok(()) | Err(Cut::Gone) => {}
            Err(Cut::Node(error)) => {
                let body = ErrorBody::new(&error, &self.request_id);
                let event = ExecEvent {
                    error: Some(body),
                    ..ExecEvent::empty()
                };
                // Nobody to tell when the reader has gone first.
                let _sent = sink.send(answer::line(&event)).await;
            }
        }
    }

    async fn all(&self, sink: &Sink) -> Result<(), Cut> {
        let first = ExecEvent {
            exec: Some(self.exec.clone()),
            ..ExecEvent::empty()
        };
        sink.send(answer::line(&first)).await?;
        let (out, err) = futures::join!(
            self.copy(Stream::Stdout, sink),
            self.copy(Stream::Stderr, sink)
        );
        out?;
        err?;
        loop {
            let info = self
                .node
                .exec_info(self.sandbox, self.exec.clone(), Some(WAIT));
            if let Some(report) = info.await?.report {
                let last = ExecEvent {
                    exit: Some(output::exit(&report)),
                    ..ExecEvent::empty()
                };
                sink.send(answer::line(&last)).await?;
                return Ok(());
            }
        }
    }

    /// One stream to its end, or to the end of the exec.
    async fn copy(&self, stream: Stream, sink: &Sink) -> Result<(), Cut> {
        let link = output::link_stream(stream);
        let mut offset = 0;
        loop {
            let of = LogOf::Exec(self.sandbox, self.exec.clone());
            let mut chunk = self
                .node
                .output(of, link, offset, CHUNK.min(sink.piece()), Some(WAIT))
                .await?;
            let whole = whole_characters(&chunk.data);
            if whole < chunk.data.len() && !chunk.end {
                // The rest of the character comes with the next piece.
                chunk.data.truncate(whole);
            }
            offset = chunk.offset + chunk.data.len() as u64;
            if !chunk.data.is_empty() {
                let event = event(stream, chunk.offset, &chunk.data);
                sink.send(answer::line(&event)).await?;
            }
            if chunk.end {
                return Ok(());
            }
        }
    }
}

/// Length without a character at the end that is cut in two; everything, if it is no such text.
fn whole_characters(data: &[u8]) -> usize {
    match std::str::from_utf8(data) {
        Err(e) if e.error_len().is_none() && e.valid_up_to() > 0 => e.valid_up_to(),
        _ => data.len(),
    }
}

fn event(stream: Stream, offset: u64, data: &Bytes) -> ExecEvent {
    let (text, base64) = match std::str::from_utf8(data) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (
            None,
            Some(base64::engine::general_purpose::STANDARD.encode(data)),
        ),
    };
    ExecEvent {
        stream: Some(stream),
        offset: Some(offset),
        text,
        base64,
        ..ExecEvent::empty()
    }
}

pub(crate) async fn list(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let limit = list::limit(ask)?;
    let from: usize = list::cursor(ask, "e")?.unwrap_or(0);
    let place = place(app, ask, true).await?;
    let all = place.node.execs(place.id).await?;
    let total = all.len();
    let items: Vec<ExecView> = all
        .into_iter()
        .skip(from)
        .take(limit)
        .map(output::exec)
        .collect();
    let end = from.saturating_add(items.len());
    let next = (end < total).then(|| format!("e.{end}"));
    answer::json(&prism_api::Page { items, next })
}

pub(crate) async fn get(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let place = place(app, ask, true).await?;
    let wait = ask.query.number("wait").map(Duration::from_secs);
    let exec = ask.param("exec")?.to_owned();
    let info = place.node.exec_info(place.id, exec, wait).await?;
    answer::json(&output::exec(info))
}

pub(crate) async fn input(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let place = place(app, &ask, false).await?;
    let exec = ask.param("exec")?.to_owned();
    let eof = ask.query.flag("eof");
    let body = ask.body.clone();
    let feed = async {
        place.node.exec_input(place.id, exec, body, eof).await?;
        Ok(Bytes::new())
    };
    app.replays.once(ask.key.as_ref(), feed).await?;
    Ok(answer::nothing())
}

fn signal_number(ask: &Ask) -> Answered<i32> {
    let body: SignalBody = ask.json()?;
    const NAMES: &[(&str, i32)] = &[
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ABRT", 6),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("TERM", 15),
        ("CONT", 18),
        ("STOP", 19),
        ("TSTP", 20),
        ("WINCH", 28),
    ];
    let upper = body.signal.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = NAMES
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, number)| *number);
    let by_number = || name.parse().ok().filter(|n| (1..=64).contains(n));
    by_name.or_else(by_number).ok_or_else(|| {
        let shown: String = body.signal.chars().take(20).collect();
        let names: Vec<&str> = NAMES.iter().map(|(n, _)| *n).collect();
        Refusal::invalid(format!(
            "{shown:?} is not a signal: expected 1 to 64 or {}",
            names.join(", ")
        ))
        .detail("field", "signal")
    })
}

pub(crate) async fn signal(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let number = signal_number(ask)?;
    let place = place(app, ask, false).await?;
    let exec = ask.param("exec")?.to_owned();
    let work = place.node.exec_signal(place.id, exec, number);
    app.on_node(ask, Subject::Sandbox(place.id), work).await?;
    Ok(answer::nothing())
}

pub(crate) async fn signal_all(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let number = signal_number(ask)?;
    let place = place(app, ask, false).await?;
    let running = place.node.execs(place.id).await?;
    for exec in running.into_iter().filter(|e| e.report.is_none()) {
        let work = place.node.exec_signal(place.id, exec.id, number);
        match app.on_node(ask, Subject::Sandbox(place.id), work).await {
            Ok(()) => {}
            // It ended in between.
            Err(e) if matches!(e.rejection.reason, Reason::WrongState | Reason::NotFound) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(answer::nothing())
}

pub(crate) async fn resize(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let size: TtySize = ask.json()?;
    if size.rows == 0 || size.columns == 0 {
        return Err(Refusal::invalid(
            "a terminal has at least one row and one column",
        ));
    }
    let place = place(app, ask, false).await?;
    let exec = ask.param("exec")?.to_owned();
    let (rows, columns) = (size.rows, size.columns);
    place
        .node
        .exec_resize(place.id, exec, rows, columns)
        .await?;
    Ok(answer::nothing())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_not_cut_in_two() {
        let text = "a\u{20ac}".as_bytes();
        assert_eq!(whole_characters(text), 4);
        assert_eq!(whole_characters(&text[..3]), 1);
        assert_eq!(whole_characters(&text[1..3]), 2);
        assert_eq!(whole_characters(&[0xff, b'a']), 2);
    }
}
