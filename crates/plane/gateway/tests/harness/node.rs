//! A node that is played: tasks end at once, execs say what their arguments tell them to, files are in a map.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use prism_link::{
    BoxFuture, Chunk, ExecInfo, ExecRequest, FileEntry, FileKind, Hello, LogOf, NodeError,
    NodeFacts, NodeService, Readings, SandboxStatus, SnapshotInfo, Stream, TaskOutcome, ToControl,
    ToWorker, WorkerEnd, not_found,
};
use prism_types::{
    ExitStatus, Millis, NodeId, Reason, Rejection, Resources, RunReport, SandboxId, StopCause,
    TaskRef, TimeMs,
};
use tokio_util::sync::CancellationToken;

/// Its id, which never changes.
pub fn id() -> NodeId {
    NodeId::new(1_700_000_000_000, 1)
}

pub fn report(exit: ExitStatus) -> RunReport {
    RunReport {
        exit,
        cause: StopCause::None,
        started: TimeMs(1_700_000_000_000),
        wall: Millis(12),
        cpu_us: 3_400,
        memory_peak: 1 << 20,
        stdout_bytes: 5,
        stderr_bytes: 0,
        detail: String::new(),
    }
}

/// What a task prints: an accuracy that grows with its index; every seventh fails.
fn outcome(task: TaskRef) -> TaskOutcome {
    let fails = task.index % 7 == 6;
    TaskOutcome {
        task,
        report: report(ExitStatus::Code(i32::from(fails))),
        result: (!fails).then(|| format!("{{\"accuracy\": {}}}", f64::from(task.index) / 100.0)),
        tail: if fails {
            "it broke\n".to_owned()
        } else {
            String::new()
        },
    }
}

/// What it says first.
fn hello() -> Hello {
    Hello {
        capacity: Resources {
            cpu: "8".parse().unwrap(),
            memory: "16Gi".parse().unwrap(),
            disk: "100Gi".parse().unwrap(),
        },
        facts: NodeFacts {
            isolation: true,
            cpus: 8,
            ..NodeFacts::default()
        },
        ..Hello::empty(id(), "n1".parse().unwrap())
    }
}

/// The worker's end of the session.
pub async fn work(end: WorkerEnd, stop: CancellationToken) {
    let WorkerEnd {
        to_control,
        mut from_control,
        ..
    } = end;
    let beat = || ToControl::Heartbeat {
        readings: Readings {
            cpu: Some(0.25),
            ..Readings::default()
        },
        credits: 10_000,
    };
    let _ = to_control.send(ToControl::Hello(Box::new(hello()))).await;
    let _ = to_control.send(beat()).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => { let _ = to_control.send(beat()).await; continue }
            message = from_control.recv() => message,
        };
        let reply = match message {
            None => return,
            Some(ToWorker::Assign { job, tasks, .. }) => {
                let refs: Vec<TaskRef> = tasks
                    .iter()
                    .map(|t| TaskRef {
                        job,
                        index: t.index,
                        attempt: t.attempt,
                    })
                    .collect();
                let started = refs
                    .iter()
                    .map(|t| (*t, TimeMs(1_700_000_000_000)))
                    .collect();
                let _ = to_control.send(ToControl::Started(started)).await;
                ToControl::Finished(refs.into_iter().map(outcome).collect())
            }
            Some(ToWorker::SandboxStart(all)) => {
                let since = SandboxStatus::Running(TimeMs(1_700_000_000_000));
                tell(&to_control, all.into_iter().map(|(id, _)| id), &since).await;
                continue;
            }
            Some(ToWorker::SandboxStop(all)) => {
                let over = SandboxStatus::Exited(report(ExitStatus::Signal(9)));
                tell(&to_control, all.into_iter(), &over).await;
                continue;
            }
            Some(_) => continue,
        };
        let _ = to_control.send(reply).await;
    }
}

/// Tells the same of several sandboxes.
async fn tell(
    to: &tokio::sync::mpsc::Sender<ToControl>,
    ids: impl Iterator<Item = SandboxId>,
    status: &SandboxStatus,
) {
    for id in ids {
        let status = status.clone();
        let _ = to.send(ToControl::Sandbox { id, status }).await;
    }
}

#[derive(Debug, Default)]
struct Exec {
    info: Option<ExecInfo>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    input: Vec<u8>,
}

/// Its service.
#[derive(Debug, Default)]
pub struct FakeNode {
    execs: Mutex<BTreeMap<(SandboxId, String), Exec>>,
    files: Mutex<BTreeMap<String, Bytes>>,
    snapshots: Mutex<Vec<SnapshotInfo>>,
    pub signals: Mutex<Vec<i32>>,
}

impl FakeNode {
    /// What was fed to an exec.
    pub fn input_of(&self, exec: &str) -> Vec<u8> {
        let execs = self.execs.lock().unwrap();
        execs
            .iter()
            .find(|((_, id), _)| id == exec)
            .map(|(_, e)| e.input.clone())
            .unwrap_or_default()
    }

    /// Execs that were started.
    pub fn started(&self) -> usize {
        self.execs.lock().unwrap().len()
    }

    fn info(&self, sandbox: SandboxId, exec: &str) -> Result<ExecInfo, NodeError> {
        let execs = self.execs.lock().unwrap();
        let found = execs
            .get(&(sandbox, exec.to_owned()))
            .and_then(|e| e.info.clone());
        found.ok_or_else(|| not_found(format!("there is no exec {exec:?}")))
    }

    /// `say OUT ERR CODE` prints and exits; `cat` runs until its input is closed and prints it.
    fn start(&self, sandbox: SandboxId, exec: ExecRequest) -> Result<ExecInfo, NodeError> {
        let mut execs = self.execs.lock().unwrap();
        let entry = execs.entry((sandbox, exec.id.clone())).or_default();
        if let Some(info) = &entry.info {
            return Ok(info.clone());
        }
        let arg = |i: usize| exec.argv.get(i).cloned().unwrap_or_default();
        if arg(0) == "panic" {
            drop(execs);
            panic!("the played node was told to");
        }
        if arg(0) == "missing" {
            return Err(Rejection::new(
                Reason::StartFailed,
                "there is no program missing",
            ));
        }
        entry.stdout = if arg(1) == "binary" {
            vec![0xff, 0xfe, 0]
        } else {
            arg(1).into_bytes()
        };
        entry.stderr = arg(2).into_bytes();
        let report =
            (arg(0) == "say").then(|| report(ExitStatus::Code(arg(3).parse().unwrap_or(0))));
        let info = ExecInfo {
            id: exec.id.clone(),
            argv: exec.argv,
            started: Some(TimeMs(1)),
            report,
        };
        entry.info = Some(info.clone());
        Ok(info)
    }

    fn chunk(
        &self,
        of: &LogOf,
        stream: Stream,
        offset: u64,
        max: usize,
    ) -> Result<Chunk, NodeError> {
        let (data, end) = match of {
            LogOf::Task(task) => {
                let text = format!("output of {} attempt {}\n", task.index, task.attempt);
                (text.into_bytes(), true)
            }
            LogOf::Exec(sandbox, exec) => {
                let execs = self.execs.lock().unwrap();
                let found = execs.get(&(*sandbox, exec.clone()));
                let exec = found.ok_or_else(|| not_found("there is no such exec"))?;
                let over = exec.info.as_ref().is_some_and(|i| i.report.is_some());
                let data = match stream {
                    Stream::Stdout => &exec.stdout,
                    Stream::Stderr => &exec.stderr,
                };
                (data.clone(), over)
            }
        };
        let from = usize::try_from(offset).unwrap().min(data.len());
        let to = (from + max).min(data.len());
        Ok(Chunk {
            offset: from as u64,
            data: Bytes::copy_from_slice(&data[from..to]),
            end: end && to == data.len(),
        })
    }

    fn entry(&self, path: &str) -> Result<FileEntry, NodeError> {
        let files = self.files.lock().unwrap();
        let data = files
            .get(path)
            .ok_or_else(|| not_found(format!("there is no file {path:?}")))?;
        Ok(FileEntry {
            name: path.rsplit('/').next().unwrap_or(path).to_owned(),
            kind: FileKind::File,
            size: data.len() as u64,
            mode: 0o644,
            modified: TimeMs(1),
            target: None,
        })
    }
}

fn now<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl NodeService for FakeNode {
    fn exec(
        &self,
        sandbox: SandboxId,
        exec: ExecRequest,
    ) -> BoxFuture<'_, Result<ExecInfo, NodeError>> {
        Box::pin(async move { self.start(sandbox, exec) })
    }

    fn exec_info(
        &self,
        sandbox: SandboxId,
        exec: String,
        wait: Option<Duration>,
    ) -> BoxFuture<'_, Result<ExecInfo, NodeError>> {
        Box::pin(async move {
            let until = tokio::time::Instant::now() + wait.unwrap_or_default();
            loop {
                let info = self.info(sandbox, &exec)?;
                if info.report.is_some() || tokio::time::Instant::now() >= until {
                    return Ok(info);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }

    fn execs(&self, sandbox: SandboxId) -> BoxFuture<'_, Result<Vec<ExecInfo>, NodeError>> {
        let execs = self.execs.lock().unwrap();
        let of = execs.iter().filter(|((s, _), _)| *s == sandbox);
        now(Ok(of.filter_map(|(_, e)| e.info.clone()).collect()))
    }

    fn exec_input(
        &self,
        sandbox: SandboxId,
        exec: String,
        data: Bytes,
        eof: bool,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        let mut execs = self.execs.lock().unwrap();
        let Some(entry) = execs.get_mut(&(sandbox, exec)) else {
            return now(Err(not_found("there is no such exec")));
        };
        entry.input.extend_from_slice(&data);
        entry.stdout.extend_from_slice(&data);
        if let (true, Some(info)) = (eof, &mut entry.info) {
            info.report = Some(report(ExitStatus::Code(0)));
        }
        now(Ok(()))
    }

    fn exec_signal(
        &self,
        sandbox: SandboxId,
        exec: String,
        signal: i32,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        self.signals.lock().unwrap().push(signal);
        let mut execs = self.execs.lock().unwrap();
        if let Some(info) = execs
            .get_mut(&(sandbox, exec))
            .and_then(|e| e.info.as_mut())
        {
            info.report = Some(report(ExitStatus::Signal(signal)));
        }
        now(Ok(()))
    }

    fn exec_resize(
        &self,
        _: SandboxId,
        _: String,
        _: u16,
        _: u16,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        now(Ok(()))
    }

    fn output(
        &self,
        of: LogOf,
        stream: Stream,
        offset: u64,
        max: usize,
        wait: Option<Duration>,
    ) -> BoxFuture<'_, Result<Chunk, NodeError>> {
        Box::pin(async move {
            let until = tokio::time::Instant::now() + wait.unwrap_or_default();
            loop {
                let chunk = self.chunk(&of, stream, offset, max)?;
                if chunk.end || !chunk.data.is_empty() || tokio::time::Instant::now() >= until {
                    return Ok(chunk);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }

    fn file_read(
        &self,
        _: SandboxId,
        path: String,
        offset: u64,
        max: usize,
    ) -> BoxFuture<'_, Result<Chunk, NodeError>> {
        let files = self.files.lock().unwrap();
        let Some(data) = files.get(&path) else {
            return now(Err(not_found(format!("there is no file {path:?}"))));
        };
        let from = usize::try_from(offset).unwrap().min(data.len());
        let to = (from + max).min(data.len());
        now(Ok(Chunk {
            offset,
            data: data.slice(from..to),
            end: to == data.len(),
        }))
    }

    fn file_write(
        &self,
        _: SandboxId,
        path: String,
        data: Bytes,
        _: u32,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        self.files.lock().unwrap().insert(path, data);
        now(Ok(()))
    }

    fn file_list(
        &self,
        _: SandboxId,
        _: String,
    ) -> BoxFuture<'_, Result<Vec<FileEntry>, NodeError>> {
        let names: Vec<String> = self.files.lock().unwrap().keys().cloned().collect();
        now(names.iter().map(|n| self.entry(n)).collect())
    }

    fn file_stat(&self, _: SandboxId, path: String) -> BoxFuture<'_, Result<FileEntry, NodeError>> {
        now(self.entry(&path))
    }

    fn file_mkdir(&self, _: SandboxId, _: String) -> BoxFuture<'_, Result<(), NodeError>> {
        now(Ok(()))
    }

    fn file_remove(&self, _: SandboxId, path: String) -> BoxFuture<'_, Result<(), NodeError>> {
        let gone = self.files.lock().unwrap().remove(&path);
        now(gone
            .map(drop)
            .ok_or_else(|| not_found(format!("there is no file {path:?}"))))
    }

    fn snapshot(&self, sandbox: SandboxId) -> BoxFuture<'_, Result<SnapshotInfo, NodeError>> {
        let mut all = self.snapshots.lock().unwrap();
        let info = SnapshotInfo {
            id: format!("snap-{}", all.len()),
            sandbox,
            bytes: 10,
            files: 1,
            created: TimeMs(1),
        };
        all.push(info.clone());
        now(Ok(info))
    }

    fn snapshots(
        &self,
        _: Option<SandboxId>,
    ) -> BoxFuture<'_, Result<Vec<SnapshotInfo>, NodeError>> {
        now(Ok(self.snapshots.lock().unwrap().clone()))
    }

    fn image_load(
        &self,
        path: String,
        name: Option<String>,
    ) -> BoxFuture<'_, Result<String, NodeError>> {
        now(Ok(name.unwrap_or(path)))
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<String>, NodeError>> {
        now(Ok(vec!["host".to_owned()]))
    }
}
