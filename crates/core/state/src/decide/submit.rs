//! Jobs and sweeps: acceptance.

use std::collections::BTreeSet;
use std::sync::Arc;

use prism_spec::JobSpec;
use prism_types::{JobId, JobState, Reason, Rejection};

use super::draft::Draft;
use crate::view::{files_of, not_found};
use crate::{Change, Job, JobRecord, Reply, State, Subject, Submission};

/// Most jobs that are not over.
const UNFINISHED_MAX: u32 = 100_000;
/// Most jobs that one job can wait for.
const AFTER_MAX: usize = 1_024;

pub(super) fn submit(d: &mut Draft<'_>, s: &Submission) -> Result<Reply, Rejection> {
    check(d.state, s)?;
    let after = resolve(d.state, &s.spec)?;
    let state_of = |id: &JobId| d.state.jobs.get(id).map(|j| j.record.state);
    let broken = after
        .iter()
        .find(|id| state_of(id).is_some_and(|s| s.is_final() && s != JobState::Completed))
        .copied();
    let waiting_for: BTreeSet<JobId> = after
        .iter()
        .filter(|id| state_of(id) != Some(JobState::Completed))
        .copied()
        .collect();
    for (sha, content) in &s.blobs {
        if !d.state.has_blob(sha) {
            let change = Change::Blob(sha.as_str().into(), Arc::clone(content));
            d.changes.push(change);
        }
    }
    let record = JobRecord {
        id: s.id,
        state: JobState::Queued,
        created: d.now,
        started: None,
        finished: None,
        paused: false,
        cancel: None,
        message: String::new(),
        after: after.into_iter().collect(),
        waiting_for,
        seed: s.seed,
        tasks: s.spec.task_count(),
        failure_events: 0,
    };
    let message = format!("{} accepted with {} tasks", s.spec.name, record.tasks);
    d.event("job.submitted", Subject::Job(s.id), None, message);
    match broken {
        None => d
            .changes
            .push(Change::JobAdded(record, Arc::clone(&s.spec))),
        Some(dep) => add_cancelled(d, s, record, dep),
    }
    Ok(Reply::JobCreated { id: s.id })
}

/// A job that can never run is accepted and over at once, so that asking for it gives an answer.
fn add_cancelled(d: &mut Draft<'_>, s: &Submission, record: JobRecord, dep: JobId) {
    let reason = Reason::DependencyFailed;
    let message = format!("it was to run after job {dep}, which did not complete");
    d.event(
        "job.cancelled",
        Subject::Job(s.id),
        Some(reason),
        message.clone(),
    );
    let record = JobRecord {
        state: JobState::Cancelled,
        finished: Some(d.now),
        cancel: Some(reason),
        message,
        ..record
    };
    d.changes
        .push(Change::JobAdded(record.clone(), Arc::clone(&s.spec)));
    let job = Job::new(record, Arc::clone(&s.spec));
    d.changes.extend(super::job::born_cancelled(&job, reason));
}

fn check(state: &State, s: &Submission) -> Result<(), Rejection> {
    let invalid = |message: String| Err(Rejection::new(Reason::Invalid, message));
    if state.jobs.contains_key(&s.id) {
        return Err(Rejection::new(
            Reason::Conflict,
            format!("there is a job {} already", s.id),
        ));
    }
    if state.index.unfinished >= UNFINISHED_MAX {
        return Err(Rejection::retryable(
            Reason::Overloaded,
            format!("{UNFINISHED_MAX} jobs are not over yet; wait for some, or cancel some"),
        ));
    }
    let tasks = s.spec.task_count();
    if tasks == 0 || tasks > JobSpec::TASKS_MAX {
        return invalid(format!(
            "the job has {tasks} tasks; expected 1 to {}",
            JobSpec::TASKS_MAX
        ));
    }
    if s.spec.retries > JobSpec::RETRIES_MAX {
        return invalid(format!(
            "retries is {}; expected 0 to {}",
            s.spec.retries,
            JobSpec::RETRIES_MAX
        ));
    }
    if s.spec.concurrency == Some(0) {
        return invalid("concurrency is 0; expected 1 or more, or nothing for no limit".to_owned());
    }
    super::namespace::admit(state, &s.spec.namespace, &s.spec.resources, 1)?;
    let missing = files_of(&s.spec).find(|file| {
        let sent = s.blobs.iter().any(|(sha, _)| *sha == file.sha256);
        !sent && !state.has_blob(&file.sha256)
    });
    match missing {
        None => Ok(()),
        Some(file) => invalid(format!(
            "the content of {} ({}) was not sent, and the cluster does not have it",
            file.path, file.sha256
        )),
    }
}

/// The jobs of the same namespace that `after:` names: an id, the latest of a name, or all of a group.
fn resolve(state: &State, spec: &JobSpec) -> Result<BTreeSet<JobId>, Rejection> {
    let mut ids = BTreeSet::new();
    for text in &spec.after {
        if let Some(job) = state.job_in(&spec.namespace, text) {
            ids.insert(job.id());
            continue;
        }
        let before = ids.len();
        let group = || state.jobs_in_group(&spec.namespace, text);
        ids.extend(group().take(AFTER_MAX + 1));
        if ids.len() == before && group().next().is_none() {
            let known = state.job_names_in(&spec.namespace);
            let why = not_found("job or group", text, known);
            return Err(Rejection {
                message: format!("after: {}", why.message),
                ..why
            });
        }
    }
    if ids.len() > AFTER_MAX {
        return Err(Rejection::new(
            Reason::Invalid,
            format!("after: names more than {AFTER_MAX} jobs; wait for fewer"),
        ));
    }
    Ok(ids)
}
