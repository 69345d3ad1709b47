//! Results as they are stored: batches by task block. Of several attempts only the one that the task ended with counts.

use prism_spec::BeamRow;
use prism_state::{ResultRecord, decode_results, job_results_prefix};
use prism_store::{BoxFuture, KeyRange, StoreError};
use prism_types::{JobId, Reason, TaskState};

use crate::Control;

/// Batches read at once.
const PAGE: usize = 256;

/// Results, and where the next page of them starts if there is one.
pub type ResultsPage = (Vec<ResultRecord>, Option<Vec<u8>>);

/// One page of a job's results from `cursor` on (a key; `None`: from the start), ordered by block of tasks, and where the
/// next page starts. Results that do not count (of attempts that were superseded) are left out.
///
/// # Errors
/// When the store cannot be read, or a stored batch is damaged (told as [`StoreError::Stopped`] with its key).
pub fn results_page(
    control: &Control,
    job: JobId,
    cursor: Option<Vec<u8>>,
) -> BoxFuture<'_, Result<ResultsPage, StoreError>> {
    Box::pin(async move {
        let mut range = KeyRange::prefix(job_results_prefix(job));
        if let Some(cursor) = cursor {
            range.start = cursor.into();
        }
        let page = control.store().range(range, None, PAGE).await?;
        let next = (page.items.len() >= PAGE).then(|| {
            page.items.last().map(|last| {
                let mut key = last.key.as_bytes().to_vec();
                key.push(0);
                key
            })
        });
        let mut records = Vec::new();
        for item in &page.items {
            let batch = decode_results(&item.key, &item.value)
                .map_err(|e| StoreError::Stopped(format!("a stored result cannot be read: {e}")))?;
            records.extend(batch);
        }
        let counting = control
            .read(|state| {
                let Some(job) = state.job(job) else {
                    return Vec::new();
                };
                let counts = |r: &ResultRecord| {
                    job.cell(r.index)
                        .is_some_and(|c| c.state.is_final() && c.attempt == r.attempt)
                };
                records.into_iter().filter(counts).collect()
            })
            .await;
        Ok((counting, next.flatten()))
    })
}

/// The beams of a sweep that are over, in order, as rows.
///
/// # Errors
/// As [`results_page`].
pub fn sweep_rows(
    control: &Control,
    job: JobId,
) -> BoxFuture<'_, Result<Vec<BeamRow>, StoreError>> {
    Box::pin(async move {
        let Some(spec) = control.read(|s| s.job(job).map(|j| j.spec().clone())).await else {
            return Ok(Vec::new());
        };
        let Some(sweep) = spec.sweep() else {
            return Ok(Vec::new());
        };
        let mut rows = Vec::new();
        let mut cursor = None;
        loop {
            let (records, next) = results_page(control, job, cursor).await?;
            for record in records {
                let Some((point, runner)) = sweep.beam(record.index) else {
                    continue;
                };
                rows.push(BeamRow {
                    index: record.index,
                    runner: sweep.runners[runner as usize].name.clone(),
                    point: sweep.point(point).unwrap_or_default(),
                    status: beam_status(&record).to_owned(),
                    reason: record.reason.map(|r| r.as_str().to_owned()),
                    result: record
                        .result
                        .as_deref()
                        .and_then(|text| serde_json::from_str(text).ok()),
                });
            }
            match next {
                Some(key) => cursor = Some(key),
                None => break,
            }
        }
        rows.sort_by_key(|r| r.index);
        Ok(rows)
    })
}

fn beam_status(record: &ResultRecord) -> &'static str {
    match (record.state, record.reason) {
        (TaskState::Completed, Some(Reason::EarlyStopped)) => "early_stopped",
        (TaskState::Completed, _) => "done",
        (TaskState::Cancelled, _) => "cancelled",
        _ => "failed",
    }
}

/// `results.json` for the aggregate of a sweep: every beam that is over, as a JSON array.
pub(crate) async fn aggregate_input(control: &Control, job: JobId) -> Result<Vec<u8>, StoreError> {
    let rows: Vec<serde_json::Value> = sweep_rows(control, job)
        .await?
        .iter()
        .map(prism_spec::row_json)
        .collect();
    Ok(serde_json::to_vec(&rows).expect("plain JSON values"))
}
