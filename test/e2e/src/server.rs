//! A `prismd dev` with a place of its own: started, killed, started again, and one that the tests of a file share.

use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::http::Api;
use crate::place::Place;
use crate::program::{Output, Running};
use crate::wait::{LIMIT, until};

/// A server, and the place where it and its `prismctl` live.
#[derive(Debug)]
pub struct Server {
    // Dropped first, so that the place is quiet when it is removed.
    running: Option<Running>,
    api: Api,
    /// How it is started: `dev`, unless it is a server that lives as those do that keep their work.
    how: Vec<String>,
    /// Where it lives.
    pub place: Place,
}

impl Server {
    /// Starts `prismd dev` and waits until it takes work.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more arguments.
    ///
    /// # Panics
    /// When it does not take work in time.
    pub fn start_with(args: &[&str]) -> Self {
        let mut server = Self::not_started(Place::new());
        server.restart_with(args);
        server
    }

    /// One that does not run yet, in a place that may hold the data of another.
    pub fn not_started(place: Place) -> Self {
        Self {
            running: None,
            api: Api {
                address: String::new(),
                token: None,
            },
            how: vec!["dev".to_owned()],
            place,
        }
    }

    /// One that does not run yet, and is started with these arguments and not as `dev`.
    pub fn started_as(how: &[&str]) -> Self {
        let mut server = Self::not_started(Place::new());
        server.how = how.iter().map(|arg| (*arg).to_owned()).collect();
        server
    }

    /// The same in a place that there is.
    pub fn started_in(place: Place, how: &[&str]) -> Self {
        let mut server = Self::not_started(place);
        server.how = how.iter().map(|arg| (*arg).to_owned()).collect();
        server
    }

    /// The arguments with which it is started.
    pub fn how(&self) -> &[String] {
        &self.how
    }

    /// Starts it again after it was killed or stopped.
    ///
    /// # Panics
    /// When it does not take work in time.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    fn restart_with(&mut self, args: &[&str]) {
        if let Err(ended) = self.try_start(args, &[]) {
            panic!("prismd ended:\n{}\n{}", ended.stdout, ended.stderr);
        }
    }

    /// Starts it with more arguments and variables, and waits until it takes work.
    ///
    /// # Errors
    /// What it printed, when it ended before.
    ///
    /// # Panics
    /// When it does neither in time.
    pub fn try_start(&mut self, args: &[&str], env: &[(&str, &str)]) -> Result<(), Output> {
        let contexts = self.place.path().join("config/prism/contexts.toml");
        // What an earlier one wrote is of no use any more.
        let _ = fs::remove_file(&contexts);
        let mut command: Command = self.place.command("prismd");
        let api = |arg: &&str| arg.starts_with("--api=");
        let how = self.how.iter().map(String::as_str);
        if !how.chain(args.iter().copied()).any(|arg| api(&arg)) {
            command.arg("--api=127.0.0.1:0");
        }
        command
            .args(&self.how)
            .arg("--data-dir")
            .arg(self.place.data())
            .args(args)
            .envs(env.iter().copied());
        let mut running = self.place.launch(command);
        let api = until("prismd to take work", || {
            if running.is_over() {
                return Some(None);
            }
            let api = api_of(&fs::read_to_string(&contexts).ok()?)?;
            let health = api.try_send("GET", "/health", &[], b"").ok()?;
            let ready = serde_json::from_slice::<Value>(&health.body).ok()?;
            (health.status == 200 && ready["ready"] == true).then_some(Some(api))
        });
        let Some(api) = api else {
            return Err(running.wait(LIMIT));
        };
        self.api = api;
        self.running = Some(running);
        Ok(())
    }

    /// Whether it has ended by itself, or was never started.
    pub fn is_over(&mut self) -> bool {
        self.running.as_mut().is_none_or(Running::is_over)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it does not in time, or does not run.
    pub fn ended(&mut self) -> Output {
        let running = self.running.take().expect("it runs");
        running.wait(LIMIT)
    }

    /// Its API, with the token of the context that it wrote.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.running
            .as_ref()
            .map_or_else(String::new, Running::stderr)
    }

    /// Its process id; 0 while it does not run.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().map_or(0, Running::pid)
    }

    /// `kill -9` of `prismd` alone; supervisors and what they run stay.
    pub fn kill(&mut self) {
        if let Some(running) = &mut self.running {
            crate::procs::kill(running.pid());
        }
        if let Some(running) = self.running.take() {
            running.wait(LIMIT);
        }
    }

    /// Asks it to end and waits for that.
    ///
    /// # Panics
    /// When it does not end, or was not running.
    pub fn stop(&mut self) -> Output {
        let running = self.running.take().expect("it runs");
        running.signal(Signal::TERM);
        running.wait(Duration::from_secs(60))
    }

    /// `prismctl` against it.
    ///
    /// # Panics
    /// When it does not end in time.
    #[track_caller]
    pub fn ctl(&self, args: &[&str]) -> Output {
        self.place.ctl(args)
    }

    /// Waits until a job or sweep is over and answers it.
    ///
    /// # Panics
    /// When it is not in time.
    #[track_caller]
    pub fn finished(&self, job: &str) -> Value {
        until(&format!("the end of job {job}"), || {
            let view = self
                .api
                .get(&format!("/api/v1/jobs/{job}"))
                .expect(200)
                .json();
            let over = !matches!(view["status"].as_str(), Some("QUEUED" | "RUNNING"));
            over.then_some(view)
        })
    }

    /// Creates a sandbox with every default and answers its id.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn sandbox(&self) -> String {
        let view = self.api.post("/api/v1/sandboxes", &serde_json::json!({}));
        let view = view.expect(201).json();
        view["id"].as_str().expect("a sandbox has an id").to_owned()
    }

    /// Submits a job and answers its id.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn submit(&self, spec: &Value) -> String {
        let view = self.api.post("/api/v1/jobs", spec).expect(201).json();
        view["id"].as_str().expect("a job has an id").to_owned()
    }

    /// Every recorded result of a job.
    ///
    /// # Panics
    /// When they cannot be read.
    #[track_caller]
    pub fn results(&self, job: &str) -> Vec<Value> {
        let answer = self
            .api
            .get(&format!("/api/v1/jobs/{job}/results"))
            .expect(200);
        let text = answer.text();
        text.lines()
            .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("no JSON ({e}): {l}")))
            .collect()
    }
}

/// A server that the tests of a file share: started by the first, ended with the last.
#[derive(Debug)]
pub struct Shared(Mutex<Weak<Server>>);

impl Shared {
    /// None yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// The server.
    ///
    /// # Panics
    /// When it does not start.
    pub fn get(&self) -> Arc<Server> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Server::start());
            *slot = Arc::downgrade(&server);
            server
        })
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new()
    }
}

/// The address and token of the one context in the file.
pub(crate) fn api_of(contexts: &str) -> Option<Api> {
    let value = |key: &str| {
        contexts.lines().find_map(|l| {
            let rest = l.strip_prefix(key)?.trim_start().strip_prefix('=')?;
            Some(rest.trim().trim_matches('"').to_owned())
        })
    };
    let url = value("api")?;
    Some(Api {
        address: url
            .strip_prefix("http://")?
            .trim_end_matches('/')
            .to_owned(),
        token: value("token"),
    })
}
