//! Real servers as processes of this machine, reached as anyone would reach them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use prism_api::{JoinTokenCreate, MemberRole, Op};
use prism_client::{Ask, Client};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Most time until a server answers, and until one has ended.
pub const WAIT: Duration = Duration::from_secs(60);
/// Longest wait for one answer: a client that asks for a server that is gone tries again until then.
const ANSWER: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// The directory of the built programs.
///
/// # Errors
/// When it cannot be found out.
pub fn programs() -> Result<PathBuf> {
    if let Some(told) = std::env::var_os("PRISM_BIN_DIR") {
        return Ok(told.into());
    }
    let own = std::env::current_exe()?;
    Ok(own.parent().unwrap_or(Path::new("/")).to_owned())
}

/// A server's process, its directory and where it is.
pub struct Server {
    dir: PathBuf,
    child: Child,
    /// Its API.
    pub client: Client,
    api: String,
    /// Its process.
    pub pid: u32,
    /// Where members come to.
    pub members: String,
}

impl Server {
    /// Starts the first server of a cluster; `dir` is its own.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn first(dir: &Path) -> Result<Self> {
        Self::launch(dir, &["--bootstrap", "--serf=127.0.0.1:0"]).await
    }

    /// Starts another one, that joins by this.
    ///
    /// # Errors
    /// When it does not start, or is not let in.
    pub async fn other(&self, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let token = dir.join("token");
        fs::write(&token, self.join_token(1, MemberRole::Server).await?)?;
        let join = format!("--join={}", self.members);
        let token = format!("--token-file={}", token.display());
        Self::launch(dir, &[&join, &token, "--serf=127.0.0.1:0"]).await
    }

    /// Starts it again in its directory, where it was.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn again(&mut self) -> Result<()> {
        let serf = format!("--serf={}", self.members);
        let join = format!("--join={}", self.members);
        let api = format!("--api={}", self.api.trim_start_matches("http://"));
        *self = Self::launch(&self.dir, &[&serf, &join, &api]).await?;
        Ok(())
    }

    async fn launch(dir: &Path, args: &[&str]) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let prismd = programs()?.join("prismd");
        ensure!(
            prismd.exists(),
            "there is no {}; build it with `cargo build --release`, or set PRISM_BIN_DIR",
            prismd.display()
        );
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let out = dir.join("out");
        let mut command = Command::new(&prismd);
        command
            .env("PRISM_API", "127.0.0.1:0")
            .args([
                "--allow-plain",
                "--pressure-threshold=0.97",
                "--log-level=warn",
            ])
            .arg(format!("--name={name}"))
            .args(args)
            .arg("--data-dir")
            .arg(dir.join("data"))
            .env("HOME", dir)
            .env("XDG_CONFIG_HOME", dir.join("config"))
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(
                File::options()
                    .create(true)
                    .append(true)
                    .open(dir.join("err"))?,
            );
        let mut child = command.spawn().context("prismd does not start")?;
        let begin = Instant::now();
        let text = loop {
            let text = fs::read_to_string(&out)?;
            if text.contains("  try ") {
                break text;
            }
            if let Some(status) = child.try_wait()? {
                bail!("prismd ended with {status}: {}", log(dir));
            }
            if begin.elapsed() > WAIT {
                child.kill()?;
                bail!("prismd is not ready after {WAIT:?}: {}", log(dir));
            }
            tokio::time::sleep(LOOK).await;
        };
        let (api, members) = places(&text).context("prismd said where it is in other words")?;
        let token = token_of(dir).context("prismd wrote no token")?;
        Ok(Self {
            dir: dir.to_owned(),
            pid: child.id(),
            child,
            client: Client::new(&api, Some(&token), ANSWER)?,
            api,
            members,
        })
    }

    /// A token with which so many may join.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn join_token(&self, uses: u32, role: MemberRole) -> Result<String> {
        let body = JoinTokenCreate {
            uses: Some(uses),
            expires_in: Some("1h".to_owned()),
            name: None,
            role: Some(role),
            labels: None,
            from: None,
        };
        let made = self
            .client
            .ask(Ask::new(Op::JoinTokenCreate).json(&body))
            .await?;
        let token = made["token"].as_str().context("no token in the answer")?;
        Ok(token.to_owned())
    }

    /// What it says of all servers; nothing when it says nothing.
    pub async fn peers(&self) -> Vec<Value> {
        let said = self.client.ask(Ask::new(Op::PeerList)).await;
        let items = said.ok().map(|mut said| said["items"].take());
        match items {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        }
    }

    /// Ends its process without warning.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks for its end, and waits.
    ///
    /// # Errors
    /// When it has to be killed.
    pub fn stop(&mut self) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let (Some(pid), None) = (pid, self.child.try_wait()?) {
            kill_process(pid, Signal::TERM)?;
        }
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begin.elapsed() > WAIT {
                self.kill()?;
                bail!("prismd did not end within {WAIT:?} and was killed");
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _gone_already = self.child.kill();
            let _gone_already = self.child.wait();
        }
    }
}

/// Where the API is, and where members come to.
fn places(said: &str) -> Option<(String, String)> {
    let after = |mark: &str, end: char| {
        let from = said.find(mark)? + mark.len();
        let rest = &said[from..];
        Some(rest[..rest.find(end)?].to_owned())
    };
    let api = after("prismd is ready: ", '\n')?;
    Some((api, after("come to ", ';').unwrap_or_default()))
}

/// The token in the context that the server wrote; its directory has no other.
fn token_of(dir: &Path) -> Option<String> {
    let text = fs::read_to_string(dir.join("config/prism/contexts.toml")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("token = \""))?;
    Some(line.trim_end_matches('"').to_owned())
}

fn log(dir: &Path) -> String {
    fs::read_to_string(dir.join("err")).unwrap_or_default()
}
