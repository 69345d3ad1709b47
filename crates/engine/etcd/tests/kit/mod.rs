//! A real etcd for tests: on a free port of loopback, in a temporary directory, ended with its test.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

pub mod proxy;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prism_etcd::{Config, EtcdStore, open};
use prism_store::{Leadership, Store};
use prism_store_kit::conformance::WINDOW;
use tempfile::TempDir;

/// Longest time that anything here may take.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Whether the machine has an etcd; says so when not.
pub fn has_etcd() -> bool {
    let found = Command::new("etcd")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        eprintln!("skipped: there is no etcd here; scripts/setup-test-host installs it");
    }
    found
}

/// Ports that were free a moment ago.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let bound = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    bound.map(|listener| listener.local_addr().unwrap().port())
}

/// One running member.
pub struct Etcd {
    child: Option<Child>,
    arguments: Vec<String>,
    /// Its client URL.
    pub url: String,
    dir: Arc<TempDir>,
    name: String,
}

impl Etcd {
    /// A cluster of one, with these arguments more.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_over("http", arguments)
    }

    pub fn start_over(scheme: &str, arguments: &[&str]) -> Self {
        // Another program may take a port in between.
        for _ in 0..5 {
            let [client, peer] = free_ports();
            let mut etcd = Self::member("one", client, peer, &[("one", peer)], scheme, arguments);
            etcd.run();
            if etcd.answers() {
                return etcd;
            }
        }
        panic!("etcd does not start");
    }

    /// Three members of one cluster.
    pub fn three() -> [Self; 3] {
        let [a, b, c, d, e, f] = free_ports();
        let members = [("one", d), ("two", e), ("three", f)];
        let mut all = [("one", a, d), ("two", b, e), ("three", c, f)]
            .map(|(name, client, peer)| Self::member(name, client, peer, &members, "http", &[]));
        for etcd in &mut all {
            etcd.run();
        }
        assert!(all.iter().all(Self::answers), "three members start");
        // They listen before they have found each other.
        let until = Instant::now() + LIMIT;
        while !all.iter().all(Self::is_healthy) {
            assert!(Instant::now() < until, "three members find each other");
        }
        all
    }

    fn member(
        name: &str,
        client: u16,
        peer: u16,
        members: &[(&str, u16)],
        scheme: &str,
        more: &[&str],
    ) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let url = format!("{scheme}://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let cluster: Vec<String> = members
            .iter()
            .map(|(name, port)| format!("{name}=http://127.0.0.1:{port}"))
            .collect();
        let data = dir.path().join("data").display().to_string();
        let cluster = cluster.join(",");
        let pairs = [
            ("--name", name),
            ("--data-dir", &data),
            ("--listen-client-urls", &url),
            ("--advertise-client-urls", &url),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &cluster),
            ("--logger", "zap"),
            ("--log-level", "error"),
        ];
        let mut arguments: Vec<String> = Vec::new();
        for (key, value) in pairs {
            arguments.extend([key.to_owned(), value.to_owned()]);
        }
        arguments.extend(more.iter().map(|a| (*a).to_owned()));
        Self {
            child: None,
            arguments,
            url,
            dir,
            name: name.to_owned(),
        }
    }

    /// Starts it, also again.
    pub fn run(&mut self) {
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let child = Command::new("etcd")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Whether it listens within the limit.
    fn answers(&self) -> bool {
        let until = Instant::now() + Duration::from_secs(20);
        let address = self.url.split_once("://").unwrap().1.to_owned();
        while Instant::now() < until {
            if std::net::TcpStream::connect(&address).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    pub fn pid(&self) -> i32 {
        self.child.as_ref().unwrap().id() as i32
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([format!("-{signal}"), self.pid().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    fn is_healthy(&self) -> bool {
        let asked = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args([&format!("--endpoints={}", self.url), "endpoint", "health"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        asked.is_ok_and(|status| status.success())
    }

    /// Runs etcdctl against it.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.url))
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "etcdctl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// How a store is opened on it; nobody else uses the prefix.
    pub fn config(&self, prefix: &str) -> Config {
        Config {
            prefix: format!("/{prefix}/"),
            window: WINDOW,
            lease: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            ..Config::new([&self.url])
        }
    }

    pub async fn open(&self, prefix: &str) -> Arc<EtcdStore> {
        open(self.config(prefix)).await.unwrap()
    }

    pub async fn open_named(&self, prefix: &str, name: &str) -> Arc<EtcdStore> {
        let mut config = self.config(prefix);
        config.name = name.to_owned();
        open(config).await.unwrap()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = child.kill();
            let _waited = child.wait();
        }
    }
}

/// Leads as soon as nobody else does.
pub async fn lead(store: &EtcdStore) -> Leadership {
    let trying = async {
        loop {
            store.vacant().await;
            match store.lead().await {
                Ok(leadership) => return leadership,
                Err(error) if error.retryable() => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    within(trying).await
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("it takes too long")
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < LIMIT, "it never came that {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
