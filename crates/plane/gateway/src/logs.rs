//! Output of tasks and execs as raw bytes, from an offset, followed while it grows.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response};
use prism_link::{Chunk, LogOf, NodeError, NodeService, Stream};
use prism_types::{NodeId, Reason, TaskRef};

use crate::answer::X_OFFSET;
use crate::app::App;
use crate::ask::Ask;
use crate::refuse::{Answered, Refusal};
use crate::sandboxes::{self, Place};
use crate::stream::{self, Sink};

/// Longest time that a node holds an empty answer back.
const WAIT: Duration = Duration::from_secs(20);

fn stream_of(ask: &Ask) -> Stream {
    match ask.query.text("stream") {
        Some("stderr") => Stream::Stderr,
        _ => Stream::Stdout,
    }
}

/// One output of one node.
struct Source {
    node: Arc<dyn NodeService>,
    of: LogOf,
    stream: Stream,
    follow: bool,
}

impl Source {
    async fn read(
        &self,
        offset: u64,
        most: usize,
        wait: Option<Duration>,
    ) -> Result<Chunk, NodeError> {
        self.node
            .output(self.of.clone(), self.stream, offset, most, wait)
            .await
    }

    /// Answers with the output; the first piece is read before the head goes out, so that errors have their status.
    async fn answer(self, app: &Arc<App>, offset: u64) -> Answered<Response<Body>> {
        let first = self.read(offset, app.streams.piece(), None).await?;
        let started_at = first.offset;
        let held = app.clone();
        let mut response =
            stream::answer(app, "application/octet-stream", move |sink| async move {
                self.copy(&held, first, &sink).await;
            });
        response
            .headers_mut()
            .insert(X_OFFSET, HeaderValue::from(started_at));
        Ok(response)
    }

    async fn copy(&self, app: &App, mut chunk: Chunk, sink: &Sink) {
        loop {
            let end = chunk.end;
            let empty = chunk.data.is_empty();
            let next = chunk.offset + chunk.data.len() as u64;
            if !empty && sink.send(chunk.data).await.is_err() {
                return;
            }
            if end || (empty && !self.follow) {
                return;
            }
            let wait = self.follow.then_some(WAIT);
            let read = tokio::select! {
                () = sink.gone() => return,
                () = app.stop.cancelled() => return sink.break_off("the server stops").await,
                read = self.read(next, sink.piece(), wait) => read,
            };
            chunk = match read {
                Ok(chunk) => chunk,
                Err(e) => return sink.break_off(&e.message).await,
            };
        }
    }
}

/// `GET …/execs/{exec}/output`
pub(crate) async fn exec(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let place = sandboxes::place(app, ask, true).await?;
    let exec = ask.param("exec")?.to_owned();
    of_exec(app, ask, place, exec).await
}

/// `GET /sandboxes/{id}/logs`
pub(crate) async fn sandbox(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let place = sandboxes::place(app, ask, true).await?;
    let exec = match ask.query.text("exec") {
        Some(exec) => exec.to_owned(),
        None => match place.node.execs(place.id).await?.pop() {
            Some(last) => last.id,
            None => {
                return Err(Refusal::not_found(
                    "nothing was run in this sandbox yet, so there is no output",
                ));
            }
        },
    };
    of_exec(app, ask, place, exec).await
}

async fn of_exec(
    app: &Arc<App>,
    ask: &Ask,
    place: Place,
    exec: String,
) -> Answered<Response<Body>> {
    let source = Source {
        node: place.node,
        of: LogOf::Exec(place.id, exec),
        stream: stream_of(ask),
        follow: ask.query.flag("follow"),
    };
    source
        .answer(app, ask.query.number("offset").unwrap_or(0))
        .await
}

/// `GET /jobs/{id}/logs`
pub(crate) async fn job(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let follow = ask.query.flag("follow");
    let (task, nodes) = attempt(app, ask, follow).await?;
    let offset = ask.query.number("offset").unwrap_or(0);
    let of = format!(
        "the output of attempt {} of task {}",
        task.attempt, task.index
    );
    let ran = ran(app, task).await;
    if let Some((id, name)) = &ran
        && app.control.node(*id).is_none()
    {
        return Err(Refusal::new(
            Reason::Lost,
            format!("{of} is on node {name}, which is not connected; try again when it is back: prismctl node info {name}"),
        )
        .retryable()
        .detail("node", name.as_str()));
    }
    let mut missing = Refusal::not_found(format!(
        "no node that is connected has {of}; it may have been removed to make room"
    ));
    for id in nodes {
        let Some(node) = app.control.node(id) else {
            continue;
        };
        let source = Source {
            node,
            of: LogOf::Task(task),
            stream: stream_of(ask),
            follow,
        };
        match source.answer(app, offset).await {
            Ok(response) => return Ok(response),
            Err(refusal) if refusal.rejection.reason == Reason::NotFound => {}
            // Nobody else has it, so nobody else is asked.
            Err(refusal) if ran.as_ref().is_some_and(|(at, _)| *at == id) => return Err(refusal),
            Err(refusal) => missing = refusal,
        }
    }
    Err(missing)
}

/// The node that an attempt is or was on, as long as it is the task's last one.
async fn ran(app: &App, task: TaskRef) -> Option<(NodeId, String)> {
    let ran = app.control.read(|s| {
        let at = s.task(task.job, task.index)?;
        let node = s.node(at.node.filter(|_| at.attempt == task.attempt)?)?;
        Some((node.record().id, node.record().name.to_string()))
    });
    ran.await
}

/// Which attempt is meant, and the nodes that may have its output, the likeliest first. Waits for a task that was not
/// placed yet if it is to be followed.
async fn attempt(app: &App, ask: &Ask, follow: bool) -> Answered<(TaskRef, Vec<NodeId>)> {
    let text = ask.param("id")?;
    let number = |name| {
        let n = ask.query.number(name)?;
        u32::try_from(n).ok()
    };
    let index = number("task").unwrap_or(0);
    let wanted = number("attempt");
    let mut changed = app.control.changed();
    loop {
        changed.mark_unchanged();
        let found = app.control.read(|s| {
            let job = s.find_job(text, &ask.sight())?;
            let task = s.task(job.id(), index).ok_or_else(|| {
                let last = job.record().tasks.saturating_sub(1);
                Refusal::not_found(format!(
                    "job {text} has no task {index}; they are 0 to {last}"
                ))
            })?;
            let mut nodes: Vec<NodeId> = s.nodes().map(|n| n.record().id).collect();
            nodes.sort_by_key(|id| Some(*id) != task.node);
            Ok::<_, Refusal>((job.id(), job.record().state.is_final(), task, nodes))
        });
        let (job, over, task, nodes) = found.await?;
        let attempt = wanted.unwrap_or(task.attempt);
        if attempt > task.attempt || attempt == 0 {
            if follow && !over && wanted.is_none() {
                tokio::select! {
                    changed = changed.changed() => if changed.is_ok() { continue },
                    () = app.stop.cancelled() => {}
                }
            }
            return Err(Refusal::new(
                Reason::WrongState,
                format!("task {index} of job {text} has had {} attempts, so there is no such output yet", task.attempt),
            )
            .retryable());
        }
        return Ok((
            TaskRef {
                job,
                index,
                attempt,
            },
            nodes,
        ));
    }
}
