//! The daemon's end: a [`Runtime`] whose every call is a message to the supervisor of a directory.
//!
//! One thread reads what the supervisor tells and hands events to the sink. If the supervisor goes away uncalled, that thread
//! starts a new one and tells of it with [`RunEvent::Restarted`].

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prism_runtime::{
    BootMs, Capability, EventSink, Exec, Launch, Observed, RunEvent, Runtime, RuntimeError, Usage,
};
use prism_sys::processors;
use prism_types::{Millis, RunId};

use crate::wire::{self, Answer, Question, Reply, Request};

/// How a [`ProcessRuntime`] is opened.
pub struct Config {
    /// The directory of the supervisor: its socket, journal and mounts. Private to one node.
    pub dir: PathBuf,
    /// Takes events.
    pub sink: EventSink,
    /// How long the supervisor stays without a daemon and without runs.
    pub idle_exit: Duration,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// The usual: the supervisor stays 30 seconds when nothing needs it.
    pub fn new(dir: impl Into<PathBuf>, sink: EventSink) -> Self {
        Self {
            dir: dir.into(),
            sink,
            idle_exit: Duration::from_secs(30),
        }
    }
}

/// How long an answer may take; a supervisor that is silent for so long is stopped or wedged.
const PATIENCE: Duration = Duration::from_secs(30);

type Waiting = HashMap<u64, SyncSender<Result<Answer, RuntimeError>>>;

struct Shared {
    dir: PathBuf,
    idle: Duration,
    sink: EventSink,
    writer: Mutex<Option<UnixStream>>,
    waiting: Mutex<Waiting>,
    next: AtomicU64,
    closed: AtomicBool,
    /// Set when the reading thread has ended.
    over: Mutex<bool>,
    /// The processors that this process had at first.
    cpus: Vec<usize>,
    over_now: Condvar,
}

/// The runtime of processes and sandboxes on this host. Dropping it leaves everything running.
pub struct ProcessRuntime {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for ProcessRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessRuntime")
            .field("dir", &self.shared.dir)
            .finish_non_exhaustive()
    }
}

fn unavailable(what: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Unavailable(format!("the supervisor cannot be reached: {what}"))
}

/// Connects to the supervisor of a directory.
///
/// # Errors
/// When none listens there.
pub(crate) fn dial(dir: &Path) -> io::Result<UnixStream> {
    // A socket's path must be short; through a descriptor it always is.
    let handle = File::open(dir)?;
    UnixStream::connect(format!(
        "/proc/self/fd/{}/supervisor.sock",
        handle.as_raw_fd()
    ))
}

/// Starts a supervisor and waits until it is ready (or there is one already).
fn start(dir: &Path, idle: Duration) -> Result<(), RuntimeError> {
    let output = Command::new("/proc/self/exe")
        .arg("supervise")
        .arg(dir)
        .arg(idle.as_millis().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|e| unavailable(format_args!("start it: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(RuntimeError::Unsupported(format!(
        "the supervisor of {} did not start: {}",
        dir.display(),
        said.trim()
    )))
}

/// A connection whose greeting is done.
struct Connected {
    socket: UnixStream,
    life: u64,
    lost: bool,
}

fn connect(dir: &Path, idle: Duration) -> Result<Connected, RuntimeError> {
    const ATTEMPTS: u32 = 5;
    let mut last = unavailable("no attempt was made");
    for _ in 0..ATTEMPTS {
        let socket = match dial(dir) {
            Ok(socket) => socket,
            Err(_) => {
                start(dir, idle)?;
                match dial(dir) {
                    Ok(socket) => socket,
                    Err(e) => {
                        last = unavailable(e);
                        continue;
                    }
                }
            }
        };
        match greet(socket) {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(why)) => return Err(RuntimeError::Unsupported(why)),
            // It was just going; the next attempt starts another.
            Err(e) => last = unavailable(e),
        }
    }
    Err(last)
}

fn greet(mut socket: UnixStream) -> io::Result<Result<Connected, String>> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(&wire::greeting())?;
    let mut theirs = [0; 8];
    socket.read_exact(&mut theirs)?;
    if let Err(why) = wire::check_greeting(theirs) {
        return Ok(Err(why));
    }
    let Reply::Hello { life, lost } = wire::read_frame(&mut socket)? else {
        return Err(io::Error::other("it did not say hello"));
    };
    socket.set_read_timeout(None)?;
    Ok(Ok(Connected { socket, life, lost }))
}

impl ProcessRuntime {
    /// Connects to the supervisor of the directory, starting it if there is none. The program that calls this must call
    /// [`crate::maybe_supervise`] first thing in its `main`, because the supervisor is the same program.
    ///
    /// Events of runs that are known already come first: `Started` for what runs, `Exited` for what is over and not forgotten.
    ///
    /// # Errors
    /// `Unsupported` when it cannot run here or another version's supervisor runs; `Unavailable` when it cannot be reached.
    pub fn open(config: Config) -> Result<Arc<Self>, RuntimeError> {
        let connected = connect(&config.dir, config.idle_exit)?;
        let shared = Arc::new(Shared {
            dir: config.dir,
            idle: config.idle_exit,
            sink: config.sink,
            writer: Mutex::new(None),
            waiting: Mutex::new(HashMap::new()),
            next: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            over: Mutex::new(false),
            cpus: processors::mine(),
            over_now: Condvar::new(),
        });
        let reader = shared.take_up(&connected)?;
        if connected.lost {
            (shared.sink)(vec![RunEvent::Restarted]);
        }
        let life = connected.life;
        let thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("runtime-events".into())
            .stack_size(256 << 10)
            .spawn(move || thread.live(reader, life))
            .map_err(|e| unavailable(format_args!("start a thread: {e}")))?;
        Ok(Arc::new(Self { shared }))
    }

    fn send(&self, request: &Request) -> Result<(), RuntimeError> {
        self.shared.send(request)
    }

    fn ask(&self, question: Question) -> Result<Answer, RuntimeError> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (to, from) = sync_channel(1);
        self.shared.waiting().insert(number, to);
        let sent = self.send(&Request::Ask(number, question));
        if sent.is_err() {
            self.shared.waiting().remove(&number);
        }
        sent?;
        from.recv_timeout(PATIENCE).unwrap_or_else(|e| {
            self.shared.waiting().remove(&number);
            Err(unavailable(format_args!("no answer: {e}")))
        })
    }
}

impl Drop for ProcessRuntime {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    fn writer(&self) -> MutexGuard<'_, Option<UnixStream>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(socket) = self.writer().take() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Makes a connection the one that is written to, and returns its reading end.
    fn take_up(&self, connected: &Connected) -> Result<UnixStream, RuntimeError> {
        let writer = connected.socket.try_clone().map_err(unavailable)?;
        let reader = connected.socket.try_clone().map_err(unavailable)?;
        *self.writer() = Some(writer);
        Ok(reader)
    }

    fn send(&self, request: &Request) -> Result<(), RuntimeError> {
        let bytes = wire::frame(request, Vec::new())
            .map_err(|e| RuntimeError::Invalid(format!("the request: {e}")))?;
        let mut writer = self.writer();
        let socket = writer
            .as_mut()
            .ok_or_else(|| unavailable("it is being started again; try again in a moment"))?;
        socket.write_all(&bytes).map_err(|e| {
            // Half a frame may be out: nothing more may follow it.
            *writer = None;
            unavailable(e)
        })
    }

    fn live(&self, reader: UnixStream, life: u64) {
        self.listen(reader, life);
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.over_now.notify_all();
    }

    /// Reads until the end, through any number of supervisors.
    fn listen(&self, reader: UnixStream, mut life: u64) {
        let mut reader = io::BufReader::with_capacity(64 << 10, reader);
        let mut narrow = false;
        loop {
            match wire::read_frame(&mut reader) {
                Ok(Reply::Answer(number, answer)) => {
                    if let Some(to) = self.waiting().remove(&number) {
                        let _ = to.send(answer);
                    }
                }
                Ok(Reply::Events(events)) if events.is_empty() => {}
                Ok(Reply::Events(events)) => (self.sink)(events),
                Ok(Reply::Hello { .. }) => {}
                Ok(Reply::KeepTo(cpus)) => {
                    narrow = cpus != self.cpus;
                    processors::all_keep_to(&cpus);
                }
                Err(_) => {
                    if std::mem::take(&mut narrow) {
                        // Also for the next supervisor, which is our child.
                        processors::all_keep_to(&self.cpus);
                    }
                    *self.writer() = None;
                    self.waiting().clear();
                    let Some((next, next_life)) = self.reconnect(life) else {
                        return;
                    };
                    reader = io::BufReader::with_capacity(64 << 10, next);
                    life = next_life;
                }
            }
        }
    }

    /// Tries until it works or this runtime is closed.
    fn reconnect(&self, life: u64) -> Option<(UnixStream, u64)> {
        const FIRST: Duration = Duration::from_millis(20);
        const LONGEST: Duration = Duration::from_secs(5);
        let mut pause = FIRST;
        while !self.closed.load(Ordering::Acquire) {
            if let Ok(connected) = connect(&self.dir, self.idle)
                && let Ok(reader) = self.take_up(&connected)
            {
                // Told when it can be asked: who hears of it wants to know what is left.
                if connected.life != life {
                    (self.sink)(vec![RunEvent::Restarted]);
                }
                return Some((reader, connected.life));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST);
        }
        None
    }
}

/// What only a mismatch of versions could bring about.
fn unexpected(answer: &Answer) -> RuntimeError {
    unavailable(format_args!("an unexpected answer: {answer:?}"))
}

impl Runtime for ProcessRuntime {
    fn capabilities(&self) -> Vec<Capability> {
        match self.ask(Question::Capabilities) {
            Ok(Answer::Capabilities(list)) => list,
            Ok(_) => Vec::new(),
            Err(e) => vec![Capability {
                name: "supervisor".into(),
                works: false,
                found: e.to_string(),
                lost: "nothing can run until it answers; it is started again by itself".into(),
                required: true,
            }],
        }
    }

    fn launch(&self, batch: Vec<Launch>) -> Result<(), RuntimeError> {
        self.send(&Request::Launch(batch))
    }

    fn exec(&self, exec: Exec) -> Result<(), RuntimeError> {
        self.send(&Request::Exec(exec))
    }

    fn input(&self, id: &RunId, bytes: &[u8], eof: bool) -> Result<(), RuntimeError> {
        self.ask(Question::Input(id.clone(), bytes.to_vec(), eof))
            .map(drop)
    }

    fn signal(&self, id: &RunId, signal: i32) -> Result<(), RuntimeError> {
        self.ask(Question::Signal(id.clone(), signal)).map(drop)
    }

    fn resize(&self, id: &RunId, rows: u16, columns: u16) -> Result<(), RuntimeError> {
        self.ask(Question::Resize(id.clone(), rows, columns))
            .map(drop)
    }

    fn stop(&self, ids: &[RunId], grace: Millis) -> Result<(), RuntimeError> {
        self.send(&Request::Stop(ids.to_vec(), grace))
    }

    fn renew(&self, ids: &[RunId], until: BootMs) -> Result<(), RuntimeError> {
        self.send(&Request::Renew(ids.to_vec(), until))
    }

    fn forget(&self, ids: &[RunId]) -> Result<(), RuntimeError> {
        self.send(&Request::Forget(ids.to_vec()))
    }

    fn observe(&self) -> Result<Vec<Observed>, RuntimeError> {
        match self.ask(Question::Observe)? {
            Answer::Runs(runs) => Ok(runs),
            other => Err(unexpected(&other)),
        }
    }

    fn usage(&self, id: &RunId) -> Result<Usage, RuntimeError> {
        match self.ask(Question::Usage(id.clone()))? {
            Answer::Usage(usage) => Ok(usage),
            other => Err(unexpected(&other)),
        }
    }

    fn root(&self, id: &RunId) -> Result<PathBuf, RuntimeError> {
        match self.ask(Question::FirstProcess(id.clone()))? {
            Answer::Process(pid) => Ok(PathBuf::from(format!("/proc/{pid}/root"))),
            other => Err(unexpected(&other)),
        }
    }

    fn shutdown(&self) {
        self.shared.closed.store(true, Ordering::Release);
        if self.send(&Request::Shutdown).is_ok() {
            // It hangs up when everything is dead, which ends the reading thread.
            let over = self.shared.over.lock();
            let over = over.unwrap_or_else(PoisonError::into_inner);
            let wait = self
                .shared
                .over_now
                .wait_timeout_while(over, PATIENCE, |over| !*over);
            drop(wait);
        }
        self.shared.close();
    }
}
