//! Sweeps.

use bytes::Bytes;
use prism_api::{BeamView, Page, SweepSummary, SweepView};

use crate::transport::Call;
use crate::url::Target;
use crate::{Client, ListQuery, Result};

const SWEEPS: &str = "/api/v1/sweeps";

/// Calls about sweeps.
#[derive(Clone, Copy, Debug)]
pub struct Sweeps<'a>(&'a Client);

impl Client {
    /// Calls about sweeps.
    pub fn sweeps(&self) -> Sweeps<'_> {
        Sweeps(self)
    }
}

impl Sweeps<'_> {
    /// Submits a sweep: the JSON that `prism-spec` makes of a sweep file. `key` makes it repeatable across calls.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn submit(&self, body: impl Into<Bytes>, key: Option<String>) -> Result<SweepView> {
        let call = Call::post(Target::new(SWEEPS))
            .raw(body.into(), "application/json")
            .keyed(key);
        self.0.answer(call).await
    }

    /// One page of sweeps, newest first.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn list(&self, query: &ListQuery) -> Result<Page<SweepSummary>> {
        self.0.answer(Call::get(query.on(SWEEPS))).await
    }

    /// Every sweep.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn all(&self, query: ListQuery) -> Result<Vec<SweepSummary>> {
        self.0.every(query, async |q| self.list(q).await).await
    }

    /// A sweep with all its beams, by id or the newest of a name.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn get(&self, id: &str) -> Result<SweepView> {
        self.0.answer(Call::get(Target::new(SWEEPS).push(id))).await
    }

    /// Its finished beams.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn results(&self, id: &str) -> Result<Vec<BeamView>> {
        let target = Target::new(SWEEPS).push(id).push("results");
        self.0.answer(Call::get(target)).await
    }

    /// Its finished beams as CSV.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn results_csv(&self, id: &str) -> Result<String> {
        let target = Target::new(SWEEPS)
            .push(id)
            .push("results")
            .query("format", "csv");
        let bytes = self.0.bytes(Call::get(target)).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn act(&self, id: &str, verb: &str) -> Result<SweepView> {
        self.0
            .answer(Call::post(Target::new(SWEEPS).push(id).push(verb)))
            .await
    }

    /// Ends it.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn cancel(&self, id: &str) -> Result<SweepView> {
        self.act(id, "cancel").await
    }

    /// Places nothing new of it.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn pause(&self, id: &str) -> Result<SweepView> {
        self.act(id, "pause").await
    }

    /// Goes on after a pause.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn resume(&self, id: &str) -> Result<SweepView> {
        self.act(id, "resume").await
    }
}
