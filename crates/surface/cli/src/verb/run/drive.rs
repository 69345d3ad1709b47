//! Starts a run or finds the one to go on with, and waits for its end.

use std::time::Duration;

use prism_api::{JobView, Op};
use prism_client::Ask;
use prism_spec::Submission;

use crate::exit::Failure;
use crate::listing::pages;
use crate::output::{Out, human};
use crate::server::{Server, typed_all};
use crate::verb::job::{self, Follow, RUN_LABEL as LABEL};

/// Runs of one file that are looked at.
const RUNS_MAX: u32 = 10_000;

/// A run on a server, which may be the embedded one.
#[derive(Clone, Copy, Debug)]
pub struct Drive<'a> {
    /// Where.
    pub server: &'a Server,
    /// What.
    pub submission: &'a Submission,
    /// What it is recognised by.
    pub digest: &'a str,
    /// Where to say so.
    pub out: &'a Out,
    /// Shortest time between two looks.
    pub often: Duration,
}

impl Drive<'_> {
    /// Goes on with the unfinished run of the same content, or starts one; answers its id. With `new` it always starts
    /// one; `alone` says that the older ones then are ended, because nobody else can want them.
    ///
    /// # Errors
    /// What the server says.
    pub async fn start(&self, new: bool, alone: bool) -> Result<String, Failure> {
        let namespace = &self.submission.spec.namespace;
        if alone && namespace.as_str() != "default" {
            // A server of one's own has the namespaces that one names.
            let make = Ask::new(Op::NamespacePut).at(namespace.as_str());
            self.server.ask(make).await?;
        }
        let ask = Ask::new(Op::JobList)
            .query("label", format!("{LABEL}={}", self.digest))
            .query("namespace", &self.submission.spec.namespace);
        let list = pages(self.server, &ask, RUNS_MAX).await?;
        let runs: Vec<JobView> =
            typed_all(list["items"].as_array().map_or(&[][..], Vec::as_slice))?;
        let unfinished = runs.iter().filter(|r| !r.status.is_final());
        if !new {
            if let Some(run) = unfinished.max_by_key(|r| r.id) {
                let done = human::count(run.counts.done());
                self.out.note(&format!(
                    "going on with {} {}: {done} of {} are done",
                    self.noun(),
                    run.id,
                    human::count(run.counts.total)
                ));
                return Ok(run.id.to_string());
            }
        } else if alone {
            for run in unfinished {
                self.server
                    .ask(Ask::new(Op::JobCancel).at(run.id.to_string()))
                    .await?;
            }
        }
        self.submit(runs.len()).await
    }

    async fn submit(&self, before: usize) -> Result<String, Failure> {
        let mut submission = self.submission.clone();
        submission
            .spec
            .labels
            .insert(LABEL.to_owned(), self.digest.to_owned());
        let key = format!(
            "run-{}-{before}",
            self.digest.get(..32).unwrap_or(self.digest)
        );
        let answer = job::send(self.server, &submission, Some(key)).await?;
        let id = answer["id"].as_str().unwrap_or_default().to_owned();
        let what = if self.noun() == "sweep" {
            "beam"
        } else {
            "task"
        };
        let total = answer["counts"]["total"].as_u64().unwrap_or(0);
        self.out.note(&format!(
            "{} {} ({id}): {}",
            self.noun(),
            self.submission.spec.name,
            human::plural(total, what)
        ));
        Ok(id)
    }

    /// Shows how far it is until it is over.
    ///
    /// # Errors
    /// What the server says.
    pub async fn until_over(&self, id: &str) -> Result<(), Failure> {
        Follow::new(self.out)
            .until_over(self.server, id, self.often)
            .await
            .map(drop)
    }

    fn noun(&self) -> &'static str {
        if self.submission.spec.sweep().is_some() {
            "sweep"
        } else {
            "job"
        }
    }
}
