//! Remembers every acknowledgement of a server, and checks after a crash that all of it is there, and once.
//!
//! It asks with a token of its own, because idempotency keys belong to a token and `prismd` makes a new one at each start.
//! What was asked for and not acknowledged may be there or not, but never twice: it is asked for again with the same key.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::http::{Answer, Api};
use crate::wait::until;

/// What a sandbox of these tests needs.
const RESOURCES: [(&str, &str); 2] = [("cpu", "50m"), ("memory", "32Mi")];

/// A submission, and its id once it was acknowledged.
#[derive(Clone, Debug)]
struct Job {
    key: String,
    spec: Value,
    tasks: u64,
    id: Option<String>,
}

/// A sandbox that was acknowledged, with the files that were acknowledged in it.
#[derive(Clone, Debug, Default)]
struct Sandbox {
    id: String,
    files: BTreeMap<String, Vec<u8>>,
    execs: Vec<String>,
}

/// A snapshot that was acknowledged, with what it must hold.
#[derive(Clone, Debug)]
struct Snapshot {
    id: String,
    sandbox: String,
    files: BTreeMap<String, Vec<u8>>,
}

/// How much was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Jobs.
    pub jobs: u64,
    /// Their tasks.
    pub tasks: u64,
    /// Sandboxes.
    pub sandboxes: u64,
    /// Programs that were run in sandboxes to their end.
    pub execs: u64,
    /// Files that were written into sandboxes.
    pub files: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Images.
    pub images: u64,
}

/// What became of sandboxes, as far as the test knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandboxes {
    /// Their supervisor lived on: each runs, with its files.
    Live,
    /// Their supervisor may have died: each is known, and either runs with its files or says why it does not.
    MayBeLost,
}

/// The memory of one test. It outlives the servers that it asks.
#[derive(Clone, Debug)]
pub struct Oracle {
    name: String,
    token: String,
    count: u64,
    jobs: Vec<Job>,
    sandboxes: Vec<Sandbox>,
    snapshots: Vec<Snapshot>,
    images: Vec<String>,
}

impl Oracle {
    /// Makes a token for itself. `name` is in the names of all that it asks for.
    ///
    /// # Errors
    /// When the server does not make one.
    pub fn new(api: &Api, name: &str) -> Result<Self> {
        let body = json!({"name": format!("oracle-{name}"), "role": "admin"});
        let answer = post(api, "/api/v1/tokens", &body, None)?;
        ensure!(
            answer.status == 201,
            "a token: {} {}",
            answer.status,
            answer.text()
        );
        let token = answer.json()["token"].as_str().map(str::to_owned);
        Ok(Self {
            name: name.to_owned(),
            token: token.context("the answer holds a token")?,
            count: 0,
            jobs: Vec::new(),
            sandboxes: Vec::new(),
            snapshots: Vec::new(),
            images: Vec::new(),
        })
    }

    /// The server with this oracle's token.
    pub fn api(&self, server: &Api) -> Api {
        server.with_token(Some(&self.token))
    }

    /// How much was acknowledged so far.
    pub fn acknowledged(&self) -> Acknowledged {
        let known = || self.jobs.iter().filter(|j| j.id.is_some());
        Acknowledged {
            jobs: known().count() as u64,
            tasks: known().map(|j| j.tasks).sum(),
            sandboxes: self.sandboxes.len() as u64,
            execs: self.sandboxes.iter().map(|s| s.execs.len() as u64).sum(),
            files: self.sandboxes.iter().map(|s| s.files.len() as u64).sum(),
            snapshots: self.snapshots.len() as u64,
            images: self.images.len() as u64,
        }
    }

    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// Submits an array of quick tasks that print a line; its id if that was acknowledged.
    ///
    /// # Errors
    /// When there was no acknowledgement. The submission is asked for again by [`Oracle::check`].
    pub fn submit(&mut self, server: &Api, tasks: u64) -> Result<String> {
        let spec = json!({"command": ["echo", "ok"], "resources": resources()});
        self.submit_spec(server, spec, tasks)
    }

    /// The same with a spec of the test's own; its name and size are filled in. Its tasks must succeed.
    ///
    /// # Errors
    /// As [`Oracle::submit`].
    pub fn submit_spec(&mut self, server: &Api, mut spec: Value, tasks: u64) -> Result<String> {
        let number = self.next();
        let key = format!("{}-{number}", self.name);
        spec["job"] = json!(key);
        spec["array"] = json!(tasks);
        let api = self.api(server);
        self.jobs.push(Job {
            key,
            spec,
            tasks,
            id: None,
        });
        let job = self.jobs.last_mut().context("it was just added")?;
        submit(&api, job)
    }

    /// Makes a sandbox; its number here, for the other calls, if that was acknowledged.
    ///
    /// # Errors
    /// When there was no acknowledgement.
    pub fn sandbox(&mut self, server: &Api) -> Result<usize> {
        let body = json!({"resources": resources(), "timeout": "0"});
        let id = self.make_sandbox(server, body)?;
        self.sandboxes.push(Sandbox {
            id,
            ..Sandbox::default()
        });
        Ok(self.sandboxes.len() - 1)
    }

    /// Makes a sandbox of the latest snapshot and looks for the files that it must hold.
    ///
    /// # Errors
    /// When there was no acknowledgement, or something is missing.
    pub fn restore(&mut self, server: &Api) -> Result<usize> {
        let snapshot = self.snapshots.last().context("there is a snapshot")?;
        let (snapshot, files) = (snapshot.id.clone(), snapshot.files.clone());
        let body = json!({"resources": resources(), "timeout": "0", "snapshot": snapshot});
        let id = self.make_sandbox(server, body)?;
        self.sandboxes.push(Sandbox {
            id,
            files,
            execs: Vec::new(),
        });
        let last = self.sandboxes.len() - 1;
        check_files(&self.api(server), &self.sandboxes[last])?;
        Ok(last)
    }

    fn make_sandbox(&mut self, server: &Api, body: Value) -> Result<String> {
        let number = self.next();
        let key = format!("{}-s{number}", self.name);
        let answer = post(&self.api(server), "/api/v1/sandboxes", &body, Some(&key))?;
        let view = acknowledged(answer, 201)?;
        let id = text(&view, "id")?;
        if view["status"] != "RUNNING" {
            let path = format!("/api/v1/explain/{id}");
            let why = self.api(server).try_send("GET", &path, &[], b"")?;
            bail!("it does not run: {view}: {}", why.text());
        }
        Ok(id)
    }

    /// Writes a file into a sandbox.
    ///
    /// # Errors
    /// When there was no acknowledgement.
    pub fn file(&mut self, server: &Api, sandbox: usize, content: &[u8]) -> Result<()> {
        let path = format!("/work/f{}", self.next());
        let at = format!(
            "/api/v1/sandboxes/{}/files?path={path}",
            self.sandboxes[sandbox].id
        );
        let answer = self.api(server).try_send("PUT", &at, &[], content)?;
        ensure!(
            answer.status < 300,
            "not written: {} {}",
            answer.status,
            answer.text()
        );
        self.sandboxes[sandbox].files.insert(path, content.to_vec());
        Ok(())
    }

    /// Runs a program in a sandbox to its end, which must be a good one.
    ///
    /// # Errors
    /// When there was no acknowledgement.
    pub fn exec(&mut self, server: &Api, sandbox: usize, argv: &[&str]) -> Result<()> {
        let id = format!("x{}", self.next());
        let base = format!("/api/v1/sandboxes/{}", self.sandboxes[sandbox].id);
        let api = self.api(server);
        let body = json!({"id": id, "argv": argv});
        let answer = post(&api, &format!("{base}/exec"), &body, None)?;
        acknowledged(answer, 200)?;
        let path = format!("{base}/execs/{id}?wait=60");
        let view = acknowledged(api.try_send("GET", &path, &[], b"")?, 200)?;
        ensure!(view["exit"]["code"] == 0, "it did not end well: {view}");
        self.sandboxes[sandbox].execs.push(id);
        Ok(())
    }

    /// Saves a sandbox.
    ///
    /// # Errors
    /// When there was no acknowledgement.
    pub fn snapshot(&mut self, server: &Api, sandbox: usize) -> Result<()> {
        let from = &self.sandboxes[sandbox];
        let path = format!("/api/v1/sandboxes/{}/snapshots", from.id);
        let answer = post(&self.api(server), &path, &json!({}), None)?;
        let view = acknowledged(answer, 201)?;
        self.snapshots.push(Snapshot {
            id: text(&view, "id")?,
            sandbox: from.id.clone(),
            files: from.files.clone(),
        });
        Ok(())
    }

    /// Loads an image from an archive on this host.
    ///
    /// # Errors
    /// When there was no acknowledgement.
    pub fn image(&mut self, server: &Api, archive: &str, name: &str) -> Result<()> {
        let body = json!({"path": archive, "name": name});
        let answer = post(&self.api(server), "/api/v1/images", &body, None)?;
        let view = acknowledged(answer, 201)?;
        self.images.push(text(&view, "name")?);
        Ok(())
    }

    /// Checks that everything that was acknowledged is there: every job, each of its tasks with one good result and counts that
    /// add up; sandboxes, their files and execs; snapshots; images. Submissions without an answer are sent again with their keys.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub fn check(&mut self, server: &Api, sandboxes: Sandboxes) -> Result<()> {
        let api = self.api(server);
        for job in &mut self.jobs {
            submit(&api, job).with_context(|| format!("submitting {} again", job.key))?;
        }
        for job in &self.jobs {
            check_job(&api, job).with_context(|| format!("job {}", job.key))?;
        }
        self.check_once(&api)?;
        for sandbox in &self.sandboxes {
            check_sandbox(&api, sandbox, sandboxes)
                .with_context(|| format!("sandbox {}", sandbox.id))?;
        }
        for snapshot in &self.snapshots {
            let path = format!("/api/v1/sandboxes/{}/snapshots", snapshot.sandbox);
            let list = acknowledged(api.try_send("GET", &path, &[], b"")?, 200)?;
            let there = items(&list).any(|s| s["id"] == snapshot.id.as_str());
            ensure!(there, "snapshot {} is gone: {list}", snapshot.id);
        }
        let images = acknowledged(api.try_send("GET", "/api/v1/images", &[], b"")?, 200)?;
        for image in &self.images {
            let there = items(&images).any(|i| i["name"] == image.as_str());
            ensure!(there, "image {image} is gone: {images}");
        }
        Ok(())
    }

    /// No submission became two jobs.
    fn check_once(&self, api: &Api) -> Result<()> {
        let mut names = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/api/v1/jobs?limit=1000{cursor}");
            let page = acknowledged(api.try_send("GET", &path, &[], b"")?, 200)?;
            names.extend(items(&page).filter_map(|j| j["name"].as_str().map(str::to_owned)));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        for job in &self.jobs {
            let times = names.iter().filter(|name| **name == job.key).count();
            ensure!(times == 1, "job {} is there {times} times", job.key);
        }
        Ok(())
    }
}

fn resources() -> Value {
    RESOURCES.iter().map(|(k, v)| (*k, json!(v))).collect()
}

fn post(api: &Api, path: &str, body: &Value, key: Option<&str>) -> Result<Answer> {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    api.try_send("POST", path, &headers, body.to_string().as_bytes())
}

/// Sends a submission with its key. Sent twice it must be the same job.
fn submit(api: &Api, job: &mut Job) -> Result<String> {
    let answer = post(api, "/api/v1/jobs", &job.spec, Some(&job.key))?;
    let id = text(&acknowledged(answer, 201)?, "id")?;
    let known = job.id.get_or_insert_with(|| id.clone());
    ensure!(*known == id, "it was job {known} and is now job {id}");
    Ok(id)
}

/// The answer's JSON, if it says that the thing was done. A repeated request may be answered with 200.
fn acknowledged(answer: Answer, status: u16) -> Result<Value> {
    if answer.status != status && answer.status != 200 {
        bail!("status {}: {}", answer.status, answer.text());
    }
    serde_json::from_slice(&answer.body).with_context(|| format!("no JSON: {}", answer.text()))
}

fn text(view: &Value, key: &str) -> Result<String> {
    let found = view[key].as_str().map(str::to_owned);
    found.with_context(|| format!("no {key} in {view}"))
}

fn items(page: &Value) -> impl Iterator<Item = &Value> {
    page["items"].as_array().into_iter().flatten()
}

/// Waits for the end of a job; each task must have one good result, and the counts must add up.
fn check_job(api: &Api, job: &Job) -> Result<()> {
    let id = job.id.as_deref().context("it has an id by now")?;
    let path = format!("/api/v1/jobs/{id}");
    let mut view = Value::Null;
    until(&format!("the end of job {}", job.key), || {
        let answer = api.try_send("GET", &path, &[], b"").ok()?;
        view = serde_json::from_slice(&answer.body).ok()?;
        let over = !matches!(view["status"].as_str(), Some("QUEUED" | "RUNNING"));
        over.then_some(())
    });
    ensure!(view["status"] == "COMPLETED", "{view}");
    let counts = view["counts"].as_object().context("it has counts")?;
    let sum: u64 = counts
        .iter()
        .filter(|(k, _)| *k != "total")
        .filter_map(|(_, n)| n.as_u64())
        .sum();
    ensure!(
        sum == job.tasks && counts["total"] == job.tasks,
        "counts: {view}"
    );
    ensure!(counts["completed"] == job.tasks, "counts: {view}");
    let answer = api.try_send("GET", &format!("{path}/results"), &[], b"")?;
    ensure!(answer.status == 200, "results: {}", answer.text());
    let text = answer.text();
    let mut indices = Vec::new();
    for line in text.lines() {
        let result: Value = serde_json::from_str(line).context("a result is JSON")?;
        ensure!(result["status"] == "COMPLETED", "{result}");
        indices.extend(result["index"].as_u64());
    }
    indices.sort_unstable();
    ensure!(
        indices.iter().copied().eq(0..job.tasks),
        "results of {indices:?}"
    );
    Ok(())
}

fn check_sandbox(api: &Api, sandbox: &Sandbox, expected: Sandboxes) -> Result<()> {
    let path = format!("/api/v1/sandboxes/{}", sandbox.id);
    let mut view = Value::Null;
    // After a restart the node tells of its sandboxes a moment after it takes work.
    until("the sandbox's state", || {
        let answer = api.try_send("GET", &path, &[], b"").ok()?;
        view = serde_json::from_slice(&answer.body).ok()?;
        (answer.status != 200 || view["status"] != "STARTING").then_some(())
    });
    if view["status"] != "RUNNING" {
        ensure!(view["id"] == sandbox.id.as_str(), "it is gone: {view}");
        ensure!(
            expected == Sandboxes::MayBeLost,
            "it does not run any more: {view}"
        );
        ensure!(view["reason"].is_string(), "it says no reason: {view}");
        return Ok(());
    }
    match check_files(api, sandbox).and_then(|()| check_execs(api, sandbox)) {
        // It may be found lost just now, after its state was asked for.
        Err(_) if expected == Sandboxes::MayBeLost && is_over(api, &path) => Ok(()),
        other => other,
    }
}

fn is_over(api: &Api, path: &str) -> bool {
    let answer = api.try_send("GET", path, &[], b"");
    answer.is_ok_and(|a| a.status == 200 && a.json()["status"] != "RUNNING")
}

fn check_files(api: &Api, sandbox: &Sandbox) -> Result<()> {
    for (path, content) in &sandbox.files {
        let at = format!("/api/v1/sandboxes/{}/files?path={path}", sandbox.id);
        let answer = api.try_send("GET", &at, &[], b"")?;
        ensure!(answer.status == 200, "file {path}: {}", answer.text());
        ensure!(answer.body == *content, "file {path} holds something else");
    }
    Ok(())
}

fn check_execs(api: &Api, sandbox: &Sandbox) -> Result<()> {
    for exec in &sandbox.execs {
        let at = format!("/api/v1/sandboxes/{}/execs/{exec}", sandbox.id);
        let answer = api.try_send("GET", &at, &[], b"")?;
        ensure!(answer.status == 200, "exec {exec}: {}", answer.text());
        let view = answer.json();
        ensure!(view["exit"]["code"] == 0, "exec {exec}: {view}");
    }
    Ok(())
}
