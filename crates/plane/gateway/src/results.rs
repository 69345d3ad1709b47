//! `GET /jobs/{id}/results`: one line for each task that is over, read block by block, never more than one block in memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use prism_spec::JobSpec;
use prism_state::BLOCK;
use prism_types::{JobId, TaskState};

use crate::app::App;
use crate::ask::Ask;
use crate::refuse::{Answered, Refusal};
use crate::stream::{self, Gone, Sink};
use crate::tasks;

/// Shortest time between two looks at a job that is followed.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Bytes of lines that are sent in one piece.
const PIECE: usize = 64 << 10;

pub(crate) async fn stream(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let text = ask.param("id")?;
    let (job, spec, tasks) = app
        .control
        .read(|s| {
            let job = s.find_job(text, &ask.sight())?;
            Ok::<_, Refusal>((job.id(), job.spec().clone(), job.record().tasks))
        })
        .await?;
    let reader = Reader {
        app: app.clone(),
        job,
        spec,
        tasks,
        wanted: tasks::wanted_state(ask),
        follow: ask.query.flag("follow"),
    };
    Ok(stream::answer(app, "application/x-ndjson", |sink| {
        reader.run(sink)
    }))
}

struct Reader {
    app: Arc<App>,
    job: JobId,
    spec: Arc<JobSpec>,
    tasks: u32,
    wanted: Option<TaskState>,
    follow: bool,
}

/// Why a pass ended early.
enum Cut {
    Gone,
    Refused(Refusal),
}

impl From<Refusal> for Cut {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Gone> for Cut {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl Reader {
    async fn run(self, sink: Sink) {
        let mut told = Told::new(self.tasks);
        let mut changed = self.app.control.changed();
        loop {
            changed.mark_unchanged();
            // Asked before the pass: what ends during it is found by the pass after.
            let over = self.is_over().await;
            match self.pass(&sink, &mut told).await {
                Ok(()) if over || !self.follow => return,
                Ok(()) => {}
                Err(Cut::Gone) => return,
                Err(Cut::Refused(refusal)) => {
                    return sink.break_off(&refusal.rejection.message).await;
                }
            }
            let next = async {
                let _closed = changed.changed().await;
                tokio::time::sleep(LOOK_EVERY).await;
            };
            tokio::select! {
                () = sink.gone() => return,
                () = self.app.stop.cancelled() => return sink.break_off("the server stops").await,
                () = next => {}
            }
        }
    }

    async fn is_over(&self) -> bool {
        let state = self
            .app
            .control
            .read(|s| s.job(self.job).map(|j| j.record().state));
        state.await.is_none_or(|state| state.is_final())
    }

    /// Sends every task that is over and was not told yet.
    async fn pass(&self, sink: &Sink, told: &mut Told) -> Result<(), Cut> {
        for block in 0..self.tasks.div_ceil(BLOCK) {
            if told.is_whole(block) {
                continue;
            }
            let rows = tasks::rows(&self.app, self.job, block * BLOCK, BLOCK as usize).await;
            let over = |row: &tasks::TaskRow| row.task.state.is_final();
            if !rows.iter().any(|r| over(r) && !told.has(r.task.index)) {
                continue;
            }
            let mut records = tasks::Records::none(block * BLOCK);
            let mut piece = Vec::new();
            for row in rows.iter().filter(|r| over(r)) {
                let index = row.task.index;
                if !told.add(index) || self.wanted.is_some_and(|s| s != row.task.state) {
                    continue;
                }
                if index >= records.until {
                    records = tasks::records(&self.app, self.job, index, sink.piece()).await?;
                }
                let record = tasks::record_of(row, &mut records);
                let view = tasks::view(&self.spec, row, record);
                if serde_json::to_writer(&mut piece, &view).is_ok() {
                    piece.push(b'\n');
                }
                if piece.len() >= PIECE.min(sink.piece()) {
                    sink.send(Bytes::from(std::mem::take(&mut piece))).await?;
                }
            }
            if !piece.is_empty() {
                sink.send(piece.into()).await?;
            }
        }
        Ok(())
    }
}

/// Which tasks were told: a bit for each.
struct Told {
    bits: Vec<u64>,
    tasks: u32,
}

impl Told {
    fn new(tasks: u32) -> Self {
        Self {
            bits: vec![0; tasks.div_ceil(64) as usize],
            tasks,
        }
    }

    fn has(&self, index: u32) -> bool {
        self.bits[(index / 64) as usize] >> (index % 64) & 1 == 1
    }

    /// Whether it was not told before.
    fn add(&mut self, index: u32) -> bool {
        let fresh = !self.has(index);
        self.bits[(index / 64) as usize] |= 1 << (index % 64);
        fresh
    }

    fn is_whole(&self, block: u32) -> bool {
        let from = block * BLOCK;
        (from..(from + BLOCK).min(self.tasks)).all(|i| self.has(i))
    }
}
