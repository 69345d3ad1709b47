//! Jobs.

use bytes::Bytes;
use prism_api::{JobView, Page, TaskView};

use crate::stream::{ByteStream, Lines};
use crate::transport::Call;
use crate::url::Target;
use crate::{Client, ListQuery, Result};

const JOBS: &str = "/api/v1/jobs";

/// Calls about jobs.
#[derive(Clone, Copy, Debug)]
pub struct Jobs<'a>(&'a Client);

/// Which output of a task.
#[derive(Clone, Debug, Default)]
pub struct LogsQuery {
    /// Index of the task.
    pub task: Option<u32>,
    /// Which attempt; the last unless said.
    pub attempt: Option<u32>,
    /// `stdout` (unless said) or `stderr`.
    pub stream: Option<prism_api::Stream>,
    /// Byte to start from.
    pub offset: Option<u64>,
    /// Whether to go on until it ends.
    pub follow: bool,
}

impl Client {
    /// Calls about jobs.
    pub fn jobs(&self) -> Jobs<'_> {
        Jobs(self)
    }
}

impl Jobs<'_> {
    /// Submits a job: the JSON that `prism-spec` makes of a job file. `key` makes it repeatable across calls.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn submit(&self, body: impl Into<Bytes>, key: Option<String>) -> Result<JobView> {
        let call = Call::post(Target::new(JOBS))
            .raw(body.into(), "application/json")
            .keyed(key);
        self.0.answer(call).await
    }

    /// One page of jobs (sweeps included), newest first.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn list(&self, query: &ListQuery) -> Result<Page<JobView>> {
        self.0.answer(Call::get(query.on(JOBS))).await
    }

    /// Every job.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn all(&self, query: ListQuery) -> Result<Vec<JobView>> {
        self.0.every(query, async |q| self.list(q).await).await
    }

    /// A job, by id or the newest of a name.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn get(&self, id: &str) -> Result<JobView> {
        self.0.answer(Call::get(Target::new(JOBS).push(id))).await
    }

    /// One page of its tasks, by index; `query.state` selects.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn tasks(&self, id: &str, query: &ListQuery) -> Result<Page<TaskView>> {
        let target = Target::new(JOBS)
            .push(id)
            .push("tasks")
            .maybe("limit", query.limit)
            .maybe("cursor", query.cursor.as_ref())
            .maybe("state", query.state.as_ref());
        self.0.answer(Call::get(target)).await
    }

    /// Its recorded results, line by line; with `follow`, until it is over.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn results(
        &self,
        id: &str,
        state: Option<&str>,
        follow: bool,
    ) -> Result<Lines<TaskView>> {
        let target = Target::new(JOBS)
            .push(id)
            .push("results")
            .maybe("state", state)
            .flag("follow", follow);
        let response = self.0.send(Call::get(target)).await?;
        Ok(Lines::new(ByteStream::new(self.0.clone(), response)))
    }

    /// The output of one of its tasks.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn logs(&self, id: &str, query: &LogsQuery) -> Result<ByteStream> {
        let target = Target::new(JOBS)
            .push(id)
            .push("logs")
            .maybe("task", query.task)
            .maybe("attempt", query.attempt)
            .maybe("stream", query.stream)
            .maybe("offset", query.offset)
            .flag("follow", query.follow);
        let response = self.0.send(Call::get(target)).await?;
        Ok(ByteStream::new(self.0.clone(), response))
    }

    async fn act(&self, id: &str, verb: &str) -> Result<JobView> {
        self.0
            .answer(Call::post(Target::new(JOBS).push(id).push(verb)))
            .await
    }

    /// Ends it.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn cancel(&self, id: &str) -> Result<JobView> {
        self.act(id, "cancel").await
    }

    /// Runs its failed and cancelled tasks again.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn retry(&self, id: &str) -> Result<JobView> {
        self.act(id, "retry").await
    }

    /// Places nothing new of it.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn pause(&self, id: &str) -> Result<JobView> {
        self.act(id, "pause").await
    }

    /// Goes on after a pause.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn resume(&self, id: &str) -> Result<JobView> {
        self.act(id, "resume").await
    }
}
