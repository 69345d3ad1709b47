//! What follows from a decision once it is durable: messages to workers. Losing one loses nothing, since every session starts
//! from the state; so a worker that does not keep up is disconnected rather than waited for.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prism_link::{AssignedTask, JobBundle, StopWhy, ToWorker};
use prism_spec::{FileSpec, JobSpec, Work};
use prism_state::{Action, blob_key, decode_blob};
use prism_types::{JobId, NodeId, Reason, SandboxId, TaskRef};
use tokio::sync::mpsc;

use crate::{Control, results};

impl Control {
    /// Carries out the actions of a round, and tells workers which jobs are over.
    pub(crate) async fn act(&self, actions: Vec<Action>, over: &[JobId]) {
        let mut starts: BTreeMap<NodeId, Vec<SandboxId>> = BTreeMap::new();
        let mut stops = starts.clone();
        for action in merge(actions) {
            match action {
                Action::Assign {
                    node,
                    job,
                    lanes,
                    tasks,
                } => self.assign(node, job, lanes, tasks).await,
                Action::SetLanes { node, job, lanes } => {
                    self.tell(
                        node,
                        ToWorker::Assign {
                            job,
                            lanes,
                            tasks: Vec::new(),
                        },
                    );
                }
                Action::StopTasks {
                    node,
                    tasks,
                    reason,
                } => {
                    let why = match reason {
                        Reason::EarlyStopped => StopWhy::EarlyStopped,
                        _ => StopWhy::Cancelled,
                    };
                    self.tell(node, ToWorker::Stop { tasks, why });
                }
                Action::Recall { node, job } => self.tell(node, ToWorker::Recall(job)),
                Action::StartSandbox { node, id } => starts.entry(node).or_default().push(id),
                Action::StopSandbox { node, id } => stops.entry(node).or_default().push(id),
            }
        }
        for (node, ids) in starts {
            self.start_sandboxes(node, ids).await;
        }
        for (node, ids) in stops {
            self.tell(node, ToWorker::SandboxStop(ids));
        }
        for job in over {
            self.job_over(*job);
        }
    }

    /// Sends sandboxes to a node: one message, however many.
    pub(crate) async fn start_sandboxes(&self, node: NodeId, ids: Vec<SandboxId>) {
        let specs = self
            .read(|s| {
                let specs = ids
                    .iter()
                    .filter_map(|id| Some((*id, s.sandbox(*id)?.spec.clone())));
                specs.collect::<Vec<_>>()
            })
            .await;
        if !specs.is_empty() {
            self.tell(node, ToWorker::SandboxStart(specs));
        }
    }

    /// Sends a message to a node's worker, if it has a session.
    pub(crate) fn tell(&self, node: NodeId, message: ToWorker) {
        let sessions = self.sessions();
        let Some(session) = sessions.get(&node) else {
            return;
        };
        let Err(e) = session.outbox.try_send(message) else {
            return;
        };
        // A worker that went away ends its session itself.
        if matches!(e, mpsc::error::TrySendError::Full(_)) {
            tracing::warn!(%node, "a worker does not keep up with its messages; its session starts over");
        }
        drop(sessions);
        self.end_session(node);
    }

    fn job_over(&self, job: JobId) {
        let told: Vec<NodeId> = self
            .sessions()
            .iter_mut()
            .filter_map(|(node, s)| s.jobs.remove(&job).then_some(*node))
            .collect();
        for node in told {
            self.tell(node, ToWorker::JobOver(job));
        }
    }

    async fn assign(&self, node: NodeId, job: JobId, lanes: u32, tasks: Vec<(u32, u32)>) {
        let Some(spec) = self.read(|s| s.job(job).map(|j| j.spec().clone())).await else {
            return;
        };
        if !self.send_job(node, job).await {
            return;
        }
        let aggregate = spec.sweep().and_then(|s| s.aggregate_index());
        let mut assigned = Vec::with_capacity(tasks.len());
        for (index, attempt) in tasks {
            let results = match aggregate == Some(index) {
                true => match results::aggregate_input(self, job).await {
                    Ok(input) => Some(Bytes::from(input)),
                    Err(e) => {
                        tracing::error!(%job, error = %e, "could not read the results for an aggregate; it runs without them");
                        None
                    }
                },
                false => None,
            };
            assigned.push(AssignedTask {
                index,
                attempt,
                results,
            });
        }
        self.tell(
            node,
            ToWorker::Assign {
                job,
                lanes,
                tasks: assigned,
            },
        );
    }

    /// Sends a job's spec and files to a node, once in a session. False if it has no session.
    pub(crate) async fn send_job(&self, node: NodeId, job: JobId) -> bool {
        match self.sessions().get(&node) {
            None => return false,
            Some(session) if session.jobs.contains(&job) => return true,
            Some(_) => {}
        }
        let Some(spec) = self.read(|s| s.job(job).map(|j| j.spec().clone())).await else {
            return false;
        };
        let mut blobs = Vec::new();
        for sha in blobs_of(&spec) {
            match self.blob(&sha).await {
                Some(content) => blobs.push((sha, content)),
                None => {
                    tracing::error!(%job, sha, "the content of a file is not in the store; its tasks will miss it")
                }
            }
        }
        // Noted and sent under one lock: whoever finds it noted may rely on its being sent before.
        let mut sessions = self.sessions();
        let Some(session) = sessions.get_mut(&node) else {
            return false;
        };
        if session.jobs.insert(job) {
            let bundle = ToWorker::Job(Box::new(JobBundle { job, spec, blobs }));
            if session.outbox.try_send(bundle).is_err() {
                // The worker does not keep up: its session starts over.
                drop(sessions);
                self.end_session(node);
                return false;
            }
        }
        true
    }

    async fn blob(&self, sha: &str) -> Option<Bytes> {
        let item = self
            .store()
            .get(blob_key(sha).as_bytes(), None)
            .await
            .ok()??;
        decode_blob(&item.key, &item.value)
            .ok()
            .map(Bytes::copy_from_slice)
    }

    /// Acknowledges outcomes.
    pub(crate) fn acknowledge(&self, node: NodeId, tasks: Vec<TaskRef>) {
        self.tell(node, ToWorker::Ack(tasks));
    }
}

/// Digests of all files of a job.
fn blobs_of(spec: &JobSpec) -> BTreeSet<String> {
    let mut files: Vec<&FileSpec> = spec.files.iter().collect();
    if let Work::Sweep(sweep) = &spec.work {
        files.extend(sweep.runners.iter().flat_map(|r| &r.files));
        files.extend(sweep.aggregate.iter().flat_map(|a| &a.files));
    }
    files.into_iter().map(|f| f.sha256.clone()).collect()
}

/// Joins assignments of one job to one node: one message, with the lanes decided last.
fn merge(actions: Vec<Action>) -> Vec<Action> {
    let mut at: BTreeMap<(NodeId, JobId), usize> = BTreeMap::new();
    let mut out: Vec<Action> = Vec::with_capacity(actions.len());
    for action in actions {
        let (node, job, new_lanes, more) = match action {
            Action::Assign {
                node,
                job,
                lanes,
                tasks,
            } => (node, job, lanes, tasks),
            Action::SetLanes { node, job, lanes } => (node, job, lanes, Vec::new()),
            Action::StopTasks { .. } => {
                // A stop must come after the assignment it may concern.
                at.clear();
                out.push(action);
                continue;
            }
            other => {
                out.push(other);
                continue;
            }
        };
        match at.get(&(node, job)).map(|i| &mut out[*i]) {
            Some(Action::Assign { lanes, tasks, .. }) => {
                *lanes = new_lanes;
                tasks.extend(more);
            }
            _ => {
                at.insert((node, job), out.len());
                out.push(Action::Assign {
                    node,
                    job,
                    lanes: new_lanes,
                    tasks: more,
                });
            }
        }
    }
    out
}
