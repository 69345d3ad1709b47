//! `/events`: pages of what happened, or server-sent events that go on.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use prism_api::{AuditView, EventView, Page, Role};
use prism_state::{
    Actor, Audit, AuditCheck, EventRecord, Sight, Subject, decode_event, decode_meta, event_key,
    events_prefix, meta_key,
};
use prism_store::{Key, KeyRange};
use prism_types::Reason;

use crate::answer;
use crate::app::App;
use crate::ask::Ask;
use crate::list;
use crate::refuse::{Answered, Refusal};
use crate::stream::{self, Sink};

/// Events that are read from the store at once.
const RANGE_ITEMS: usize = 256;
/// About what an event takes, bytes.
const EVENT_BYTES: usize = 512;

fn subject(subject: &Subject) -> String {
    match subject {
        Subject::Cluster => "cluster".to_owned(),
        Subject::Node(id) => id.to_string(),
        Subject::Job(id) => id.to_string(),
        Subject::Task(id, index) => format!("{id}.{index}"),
        Subject::Sandbox(id) => id.to_string(),
        Subject::Token(id) => id.to_string(),
        Subject::Namespace(name) => name.to_string(),
    }
}

fn audit_view(audit: Audit) -> AuditView {
    let origin = audit.origin;
    let (token, actor) = match origin.actor {
        Actor::Token { id, name } => (Some(id), name),
        Actor::Certificate(name) => (None, name),
    };
    AuditView {
        token,
        actor: actor.to_string(),
        op: origin.op.to_string(),
        from: origin.from.to_string(),
        request_id: origin.request_id.to_string(),
        outcome: audit.outcome,
        prev: hex(&audit.prev),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn view(record: EventRecord) -> EventView {
    EventView {
        seq: record.seq,
        at: record.at,
        kind: record.kind.to_string(),
        subject: subject(&record.subject),
        message: record.message,
        reason: record.reason,
        namespace: record.namespace,
        audit: record.audit.map(|audit| audit_view(*audit)),
    }
}

/// Which events are wanted, and there for whoever asks.
struct Wanted {
    subject: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    sight: Sight,
    admin: bool,
}

impl Wanted {
    fn of(ask: &Ask) -> Answered<Self> {
        let text = |name| ask.query.text(name).map(str::to_owned);
        let caller = ask.caller.as_ref();
        let wanted = Self {
            subject: text("subject"),
            kind: text("kind"),
            namespace: text("namespace"),
            sight: ask.sight(),
            admin: caller.is_some_and(|caller| caller.role == Role::Admin),
        };
        let audit = wanted
            .kind
            .as_deref()
            .is_some_and(|kind| within(kind, "audit"));
        if audit && !wanted.admin {
            return Err(Refusal::new(
                Reason::Forbidden,
                "audit events are for administrators; this token is not one's",
            ));
        }
        Ok(wanted)
    }

    /// What belongs to no namespace is the cluster's, and there for those who see all.
    fn takes(&self, event: &EventView) -> bool {
        let there = match (&event.namespace, &self.sight.only) {
            (_, None) => true,
            (Some(namespace), Some(_)) => self.sight.sees(namespace),
            (None, Some(_)) => false,
        };
        let (subject, space) = (self.subject.as_deref(), self.namespace.as_deref());
        there
            && (self.admin || event.audit.is_none())
            && subject.is_none_or(|id| within(&event.subject, id))
            && self.kind.as_deref().is_none_or(|k| within(&event.kind, k))
            && space.is_none_or(|n| event.namespace.as_ref().is_some_and(|e| e.as_str() == n))
    }
}

/// Whether a dotted text is what was asked for, or beneath it: a task of the job, a kind of the family.
fn within(text: &str, wanted: &str) -> bool {
    text.strip_prefix(wanted)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
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
    let wanted = Wanted::of(ask)?;
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
        items.extend(some.into_iter().filter(|e| wanted.takes(e)));
    }
    let page: Page<EventView> = list::page(items, limit, "v", |e| e.seq.to_string());
    answer::json(&page)
}

async fn send(app: &App, mut from: u64, wanted: Wanted, sink: Sink) {
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
                for event in events.iter().filter(|e| wanted.takes(e)) {
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

/// `GET /events/verify`: reads every stored event as of one moment, and follows the chain of the audit events.
pub(crate) async fn verify(app: &Arc<App>) -> Answered<Response<Body>> {
    let store = app.control.store();
    let at = Some(store.status().revision);
    let meta = store.range(KeyRange::prefix(meta_key()), at, 1).await?;
    let meta = match meta.items.first() {
        Some(item) => decode_meta(&item.key, &item.value)?,
        None => Default::default(),
    };
    let mut check = AuditCheck::new(meta);
    let mut range = KeyRange::prefix(Key::from(events_prefix().to_owned()));
    loop {
        let page = store.range(range.clone(), at, RANGE_ITEMS).await?;
        for item in &page.items {
            check.take(&item.key, &item.value)?;
        }
        match page.items.last() {
            Some(last) if page.more => range = range.after(&last.key),
            _ => break,
        }
    }
    let found = check.finish();
    let (broken_at, why) = found.broken.map(|b| (b.seq, b.why)).unzip();
    answer::json(&prism_api::AuditCheck {
        ok: broken_at.is_none(),
        events: found.events,
        first: found.range.map(|(first, _)| first),
        last: found.range.map(|(_, last)| last),
        head: hex(&found.head),
        broken_at,
        why,
    })
}
