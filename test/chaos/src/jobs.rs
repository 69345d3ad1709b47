//! The client of jobs: submits arrays of tasks, each under a key, and again under the same key until it is acknowledged. In the end each
//! acknowledged job is there once, and each of its tasks has its result once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prism_api::Op;
use prism_client::Ask;
use prism_e2e::chaos::Random;
use serde_json::{Value, json};

use crate::counts::{Counts, Ended};
use crate::desk::{Access, Desk};

/// How long a try to submit may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest pause between two jobs, ms.
const PAUSE_MS: u64 = 3_000;
/// Most jobs of a run.
const MOST: usize = 2_000;
/// How long all jobs may take to end when all is well again.
const ALL_OVER: Duration = Duration::from_secs(240);

/// A job that was asked for.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name, and the key under which it is asked for.
    pub name: String,
    tasks: u64,
    id: Option<String>,
    /// Tries without an answer.
    unanswered: u64,
}

impl Job {
    fn body(&self) -> Value {
        json!({
            "job": self.name, "array": self.tasks, "retries": 5,
            "resources": {"cpu": "50m", "memory": "24Mi"},
            "command": ["sh", "-c", "echo '{\"index\": '$PRISM_TASK_INDEX', \"job\": \"'$0'\"}'", self.name],
        })
    }

    /// Asks for it once.
    fn submit(&mut self, desk: &Desk, server: usize, counts: &Mutex<Counts>) -> Result<()> {
        let ask = Ask::new(Op::JobSubmit).key(&*self.name).json(&self.body());
        let answered = desk.ask(server, ask);
        let ended = match &answered {
            Ok(_) => Ended::Known,
            Err(e) if e.outcome() == prism_types::Outcome::NotApplied => Ended::Undone,
            Err(_) => Ended::Unknown,
        };
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let said = answered.as_ref().err().map(ToString::to_string);
        counts.call("submit", ended, said);
        drop(counts);
        if let Ok(view) = answered {
            let id = view["id"].as_str().context("a job has an id")?.to_owned();
            let known = self.id.get_or_insert_with(|| id.clone());
            ensure!(
                *known == id,
                "job {} was {known} and is now {id}",
                self.name
            );
        } else {
            self.unanswered += u64::from(ended == Ended::Unknown);
        }
        Ok(())
    }
}

/// What the jobs came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recorded {
    /// Jobs.
    pub jobs: u64,
    /// Results.
    pub tasks: u64,
    /// Tries to submit that had no answer, and were made again.
    pub repeated: u64,
    /// Attempts beyond the first of a task.
    pub attempts: u64,
}

/// Submits jobs until it is told to stop; what it has asked for.
///
/// # Errors
/// When one key became two jobs.
pub fn client(
    access: &Access,
    counts: &Mutex<Counts>,
    mut random: Random,
    stop: &AtomicBool,
) -> Result<Vec<Job>> {
    let desk = Desk::patient(access, PATIENCE)?;
    let mut jobs: Vec<Job> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if jobs.last().is_none_or(|job| job.id.is_some()) && jobs.len() < MOST {
            jobs.push(Job {
                name: format!("j{}-{:x}", jobs.len(), random.seed() & 0xffff),
                tasks: 5 + random.below(20),
                id: None,
                unanswered: 0,
            });
        }
        let server = random.below(desk.servers() as u64) as usize;
        if let Some(job) = jobs.last_mut().filter(|job| job.id.is_none()) {
            job.submit(&desk, server, counts)?;
            // Once more now and then, although it was acknowledged: it is the same job.
            if job.id.is_some() && random.below(4) == 0 {
                let other = random.below(desk.servers() as u64) as usize;
                job.submit(&desk, other, counts)?;
            }
        }
        std::thread::sleep(random.moment(PAUSE_MS));
    }
    Ok(jobs)
}

/// Asks for what was never acknowledged, waits for the end of all jobs, and looks at all of their results.
///
/// # Errors
/// What is not there once.
pub fn check(access: &Access, counts: &Mutex<Counts>, jobs: &mut [Job]) -> Result<Recorded> {
    let desk = Desk::patient(access, Duration::from_secs(20))?;
    let mut recorded = Recorded::default();
    for (at, job) in jobs.iter_mut().enumerate() {
        if job.id.is_none() {
            job.submit(&desk, at % desk.servers(), counts)?;
        }
        ensure!(job.id.is_some(), "job {} is not taken in the end", job.name);
        recorded.repeated += job.unanswered;
    }
    let began = Instant::now();
    for (at, job) in jobs.iter().enumerate() {
        let server = at % desk.servers();
        let view = loop {
            let view = desk.ask(server, Ask::new(Op::JobGet).at(id(job)))?;
            if !matches!(view["status"].as_str(), Some("QUEUED" | "RUNNING")) {
                break view;
            }
            ensure!(
                began.elapsed() < ALL_OVER,
                "job {} is not over after {} s: {view}",
                job.name,
                ALL_OVER.as_secs()
            );
            std::thread::sleep(Duration::from_millis(100));
        };
        ensure!(view["status"] == "COMPLETED", "job {}: {view}", job.name);
        recorded.attempts += results(&desk, server, job)?;
        recorded.jobs += 1;
        recorded.tasks += job.tasks;
    }
    once(&desk, jobs)?;
    Ok(recorded)
}

fn id(job: &Job) -> &str {
    job.id.as_deref().unwrap_or_default()
}

/// Every task has one result, and it is its own. Attempts beyond the first of each.
fn results(desk: &Desk, server: usize, job: &Job) -> Result<u64> {
    let lines = desk.lines(server, id(job))?;
    let mut indices = Vec::new();
    let mut attempts = 0;
    for task in &lines {
        ensure!(task["status"] == "COMPLETED", "job {}: {task}", job.name);
        let own = task["result"]["index"] == task["index"] && task["result"]["job"] == *job.name;
        ensure!(own, "job {}: the result of another: {task}", job.name);
        indices.extend(task["index"].as_u64());
        attempts += task["attempt"].as_u64().unwrap_or(1).saturating_sub(1);
    }
    indices.sort_unstable();
    ensure!(
        indices.iter().copied().eq(0..job.tasks),
        "job {} of {} tasks has results of {indices:?}",
        job.name,
        job.tasks
    );
    Ok(attempts)
}

/// No job is there twice.
fn once(desk: &Desk, jobs: &[Job]) -> Result<()> {
    let mut names: BTreeMap<String, u32> = BTreeMap::new();
    let mut cursor: Option<String> = None;
    loop {
        let ask = Ask::new(Op::JobList)
            .query("limit", 1_000)
            .maybe("cursor", cursor.take());
        let page = desk.ask(0, ask)?;
        for job in page["items"].as_array().into_iter().flatten() {
            let name = job["name"].as_str().unwrap_or_default();
            *names.entry(name.to_owned()).or_default() += 1;
        }
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    for job in jobs {
        let times = names.get(&job.name).copied().unwrap_or(0);
        ensure!(times == 1, "job {} is there {times} times", job.name);
    }
    ensure!(
        names.len() == jobs.len(),
        "there are jobs that nobody asked for"
    );
    Ok(())
}
