//! `/events`: pages of what happened, or server-sent events that go on.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use prism_api::{EventView, Page};
use prism_state::{EventRecord, Subject, decode_event, event_key, events_prefix};
use prism_store::{Key, KeyRange};

use crate::answer;
use crate::app::App;
use crate::ask::Ask;
use crate::list;
use crate::refuse::Answered;
use crate::stream::{self, Sink};

/// Events that are read from the store at once.
const RANGE_ITEMS: usize = 256;
/// About what an event takes, bytes.
const EVENT_BYTES: usize = 512;

fn subject(subject: Subject) -> String {
    match subject {
        Subject::Cluster => "cluster".to_owned(),
        Subject::Node(id) => id.to_string(),
        Subject::Job(id) => id.to_string(),
        Subject::Task(id, index) => format!("{id}.{index}"),
        Subject::Sandbox(id) => id.to_string(),
        Subject::Token(id) => id.to_string(),
    }
}

fn view(record: EventRecord) -> EventView {
    EventView {
        seq: record.seq,
        at: record.at,
        kind: record.kind.to_string(),
        subject: subject(record.subject),
        message: record.message,
        reason: record.reason,
    }
}

/// Whether an event is about what was asked for: the thing itself, or a task of the job.
fn about(event: &EventView, wanted: Option<&str>) -> bool {
    wanted.is_none_or(|id| {
        event.subject == id
            || event
                .subject
                .strip_prefix(id)
                .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// Events from a number on, in order.
async fn read(app: &App, from: u64, max: usize) -> Answered<Vec<EventView>> {
    let mut range = KeyRange::prefix(Key::from(events_prefix().to_owned()));
    range.start = Key::from(event_key(from));
    let page = app.control.store().range(range, None, max).await?;
    let decoded = page
        .items
        .iter()
        .map(|item| Ok(view(decode_event(&item.key, &item.value)?)));
    decoded.collect()
}

pub(crate) async fn list(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let since = ask.query.number("since").or(ask.last_event_id);
    let follow = ask.query.given("follow");
    let wanted = ask.query.text("subject").map(str::to_owned);
    if follow.unwrap_or_else(|| ask.accepts("text/event-stream")) {
        // Without a place to start from, only what happens from now on.
        let newest = app.control.read(|s| s.meta().events_next).await;
        let from = since.map_or(newest, |n| n.saturating_add(1));
        let held = app.clone();
        return Ok(stream::answer(
            app,
            "text/event-stream",
            move |sink| async move {
                send(&held, from, wanted, sink).await;
            },
        ));
    }
    let limit = list::limit(ask)?;
    let cursor: Option<u64> = list::cursor(ask, "v")?;
    let mut from = cursor.or(since).map_or(0, |n| n.saturating_add(1));
    let mut items: Vec<EventView> = Vec::new();
    while items.len() <= limit {
        let some = read(app, from, RANGE_ITEMS).await?;
        let Some(last) = some.last() else { break };
        from = last.seq.saturating_add(1);
        items.extend(some.into_iter().filter(|e| about(e, wanted.as_deref())));
    }
    let page: Page<EventView> = list::page(items, limit, "v", |e| e.seq.to_string());
    answer::json(&page)
}

async fn send(app: &App, mut from: u64, wanted: Option<String>, sink: Sink) {
    let mut changed = app.control.changed();
    let hello = Bytes::from_static(b": events follow\n\n");
    if sink.send(hello).await.is_err() {
        return;
    }
    loop {
        changed.mark_unchanged();
        let most = (sink.piece() / EVENT_BYTES).clamp(8, RANGE_ITEMS);
        match read(app, from, most).await {
            Ok(events) => {
                let full = events.len() == most;
                from = events.last().map_or(from, |e| e.seq.saturating_add(1));
                let mut text = Vec::new();
                for event in events.iter().filter(|e| about(e, wanted.as_deref())) {
                    text.extend_from_slice(
                        format!("id: {}\nevent: {}\ndata: ", event.seq, event.kind).as_bytes(),
                    );
                    text.extend_from_slice(&answer::line(event));
                    text.push(b'\n');
                }
                if !text.is_empty() && sink.send(text.into()).await.is_err() {
                    return;
                }
                if full {
                    continue;
                }
            }
            Err(refusal) => return sink.break_off(&refusal.rejection.message).await,
        }
        tokio::select! {
            () = sink.gone() => return,
            () = app.stop.cancelled() => return,
            changed = changed.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(app.config.keep_alive) => {
                if sink.send(Bytes::from_static(b": alive\n\n")).await.is_err() {
                    return;
                }
            }
        }
    }
}
