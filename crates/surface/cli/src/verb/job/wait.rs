//! `job wait`: until a job or sweep is over, with its progress meanwhile.

use std::time::{Duration, Instant};

use prism_api::{BestBeam, ExplainView, JobView, ObjectiveView, Op, TaskCounts};
use prism_client::Ask;
use prism_types::JobState;
use serde_json::Value;

use super::one;
use crate::exit::{Done, Exit, Failure};
use crate::output::live::{Live, Progress};
use crate::output::{Out, human};
use crate::server::{Server, typed};

/// Shortest time between two looks.
pub const LOOK_MIN: Duration = Duration::from_millis(200);
/// Longest.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// Asking why nothing moves, at most so often.
const WHY_EVERY: Duration = Duration::from_secs(5);

/// Waits for a job, shows it, and ends as it ended.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(job: &str, server: &Server, out: &Out) -> Done {
    let first = server.ask(Ask::new(Op::JobGet).at(job)).await?;
    let view: JobView = typed(&first)?;
    let id = view.id.to_string();
    let mut follow = Follow::new(out);
    let stopped = interruptible(follow.until_over(server, &id, LOOK_MIN)).await?;
    drop(follow);
    if stopped.is_none() {
        out.note(&format!(
            "no longer waiting; the job goes on: prismctl job wait {id}"
        ));
        return Ok(Exit::Interrupted);
    }
    let answer = server.ask(Ask::new(Op::JobGet).at(&*id)).await?;
    one(&answer, out)?;
    let over: JobView = typed(&answer)?;
    if over.counts.failed > 0 {
        out.note(&format!(
            "see why: prismctl job results {id} --state FAILED"
        ));
    }
    Ok(ended(over.status))
}

/// What comes of `work`, or nothing when it is interrupted from the keyboard or told to end.
///
/// # Errors
/// What `work` says, or when signals cannot be received.
pub async fn interruptible<T>(
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<Option<T>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let deaf = |e| {
        Failure::failed(
            prism_types::Fault::Output,
            format!("cannot receive signals: {e}"),
        )
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(deaf)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(deaf)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(deaf)?;
    tokio::select! {
        done = work => done.map(Some),
        _ = interrupt.recv() => Ok(None),
        _ = terminate.recv() => Ok(None),
        _ = hangup.recv() => Ok(None),
    }
}

/// The exit code that goes with how a job ended.
pub fn ended(status: JobState) -> Exit {
    match status {
        JobState::Completed => Exit::Ok,
        JobState::PartiallyCompleted => Exit::Partial,
        JobState::Failed | JobState::Cancelled | JobState::Queued | JobState::Running => {
            Exit::Failure
        }
    }
}

/// Looks at one job again and again, and draws how far it is.
#[derive(Debug)]
pub struct Follow {
    live: Live,
    why: Option<(Instant, Option<String>)>,
}

/// What one look tells.
#[derive(serde::Deserialize)]
struct Look {
    status: JobState,
    paused: bool,
    counts: TaskCounts,
    #[serde(default)]
    best: Option<BestBeam>,
    #[serde(default)]
    objective: Option<ObjectiveView>,
}

impl Follow {
    /// Nothing is drawn yet.
    pub fn new(out: &Out) -> Self {
        Self {
            live: Live::new(out.live),
            why: None,
        }
    }

    /// Returns when the job is over. A server that is away for a moment is waited for.
    ///
    /// # Errors
    /// What the server says.
    pub async fn until_over(
        &mut self,
        server: &Server,
        id: &str,
        often: Duration,
    ) -> Result<JobState, Failure> {
        let mut sweep = true;
        loop {
            let asked = Instant::now();
            let look = self.look(server, id, &mut sweep).await?;
            let note = self.note(server, id, &look).await;
            self.live.show(&Progress {
                total: look.counts.total,
                done: look.counts.done(),
                running: look.counts.running,
                failed: look.counts.failed,
                best: look.best.as_ref().map(|b| best(b, look.objective.as_ref())),
                note,
            });
            if look.status.is_final() {
                return Ok(look.status);
            }
            // A job that is long to describe is looked at less often.
            tokio::time::sleep((asked.elapsed() * 4).clamp(often, LOOK_MAX)).await;
        }
    }

    async fn look(&self, server: &Server, id: &str, sweep: &mut bool) -> Result<Look, Failure> {
        if *sweep {
            match server.ask(Ask::new(Op::SweepGet).at(id)).await {
                Ok(answer) => return typed(&answer),
                Err(e) if e.reason().is_some() => *sweep = false,
                Err(e) => return Err(e),
            }
        }
        typed(&server.ask(Ask::new(Op::JobGet).at(id)).await?)
    }

    /// Why nothing runs, if nothing does.
    async fn note(&mut self, server: &Server, id: &str, look: &Look) -> Option<String> {
        if look.paused {
            return Some(format!("paused; go on with: prismctl job resume {id}"));
        }
        let waits = look.counts.running + look.counts.assigned == 0 && !look.status.is_final();
        if !waits {
            self.why = None;
            return None;
        }
        match &self.why {
            // The first moments of a job say nothing yet.
            None => {
                self.why = Some((Instant::now(), None));
                None
            }
            Some((at, text)) if at.elapsed() < WHY_EVERY => text.clone(),
            Some(_) => {
                let answer = server.ask(Ask::new(Op::Explain).at(id)).await.ok();
                let text = answer
                    .and_then(|a| typed::<ExplainView>(&a).ok())
                    .map(|e| e.summary);
                self.why = Some((Instant::now(), text.clone()));
                text
            }
        }
    }
}

/// `best accuracy=0.9667 at lr=0.03 hidden=32`.
pub fn best(beam: &BestBeam, objective: Option<&ObjectiveView>) -> String {
    let metric = objective.map_or("result", |o| o.metric.as_str());
    let value = beam.result.get(metric).unwrap_or(&beam.result);
    let mut text = match metric {
        "best" => format!("best={}", scalar(value)),
        _ => format!("best {metric}={}", scalar(value)),
    };
    if beam.point.is_empty() {
        text.push_str(&format!(" by {}", beam.runner));
    } else {
        let point: Vec<String> = beam
            .point
            .iter()
            .map(|(k, v)| format!("{k}={}", scalar(v)))
            .collect();
        text.push_str(&format!(" at {}", point.join(" ")));
    }
    text
}

/// A value as people read it: numbers short, text without quotes.
pub fn scalar(v: &Value) -> String {
    match v {
        Value::String(s) => s.clone(),
        Value::Number(n) if n.is_f64() => n.as_f64().map_or_else(|| n.to_string(), human::number),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_best_beam_reads_as_a_sentence() {
        let beam: BestBeam = serde_json::from_value(json!({
            "index": 3, "runner": "main",
            "point": {"lr": 0.030_012_3, "hidden": 32}, "result": {"accuracy": 0.966_666}
        }))
        .unwrap();
        let objective = ObjectiveView {
            direction: "maximize".into(),
            metric: "accuracy".into(),
        };
        assert_eq!(
            best(&beam, Some(&objective)),
            "best accuracy=0.9667 at lr=0.03001 hidden=32"
        );
    }

    #[test]
    fn how_it_ended_is_the_exit_code() {
        assert_eq!(ended(JobState::Completed).code(), 0);
        assert_eq!(ended(JobState::PartiallyCompleted).code(), 3);
        assert_eq!(ended(JobState::Failed).code(), 1);
        assert_eq!(ended(JobState::Cancelled).code(), 1);
    }
}
