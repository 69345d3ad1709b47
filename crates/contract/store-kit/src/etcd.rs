//! A real etcd for tests: on a free port of loopback, in a temporary directory, ended with its test. Needs `etcd` and `etcdctl`.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
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
///
/// # Panics
/// When there is none.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let bound =
        [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("loopback has free ports"));
    bound.map(|listener| listener.local_addr().expect("it is bound").port())
}

/// One running member.
#[derive(Debug)]
pub struct Etcd {
    child: Option<Child>,
    arguments: Vec<String>,
    /// Its client URL.
    pub url: String,
    dir: TempDir,
    /// What `etcdctl` is told beside.
    with: Vec<String>,
}

impl Etcd {
    /// A cluster of one, with these arguments more.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_over("http", arguments)
    }

    /// The same with another scheme of its client URL.
    ///
    /// # Panics
    /// When it does not start.
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
    ///
    /// # Panics
    /// When they do not start.
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
        all.iter().for_each(Self::wait_healthy);
        all
    }

    /// Waits until it serves with a majority of the others.
    ///
    /// # Panics
    /// When it does not come to that.
    pub fn wait_healthy(&self) {
        let until = Instant::now() + LIMIT;
        while !self.is_healthy() {
            assert!(Instant::now() < until, "the members find each other");
        }
    }

    fn member(
        name: &str,
        client: u16,
        peer: u16,
        members: &[(&str, u16)],
        scheme: &str,
        more: &[&str],
    ) -> Self {
        let dir = tempfile::tempdir().expect("the temporary directory can be written");
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
            with: Vec::new(),
        }
    }

    /// Starts it, also again.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&mut self) {
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.dir.path().join("log"))
            .expect("our own directory can be written");
        let child = Command::new("etcd")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd is here");
        self.child = Some(child);
    }

    fn address(&self) -> &str {
        let (_, address) = self.url.split_once("://").expect("it is a URL");
        address
    }

    /// Whether it listens within the limit.
    fn answers(&self) -> bool {
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if TcpStream::connect(self.address()).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// kill -9.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is our own");
        child.wait().expect("it is our own");
    }

    /// `STOP` or `CONT`.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([format!("-{signal}"), self.pid().to_string()])
            .status();
        assert!(status.is_ok_and(|s| s.success()), "kill -{signal}");
    }

    fn is_healthy(&self) -> bool {
        self.ask(&["endpoint", "health"]).status.success()
    }

    /// Runs etcdctl against it, and says what came of it.
    ///
    /// # Panics
    /// When there is no etcdctl.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.url))
            .args(&self.with)
            .args(arguments)
            .output()
            .expect("etcdctl is here")
    }

    /// Runs etcdctl against it, which is to do it.
    ///
    /// # Panics
    /// When it does not.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(
            output.status.success(),
            "etcdctl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What etcdctl is told from now on beside, such as certificates.
    pub fn tell_ctl(&mut self, arguments: &[&str]) {
        self.with = arguments.iter().map(|a| (*a).to_owned()).collect();
    }

    /// Lets in only users from now on: `root` with the password `secret`, and `prism` with `right`, to whom a prefix belongs.
    ///
    /// # Panics
    /// When etcd does not do it.
    pub fn have_users(&self, prefix: &str) {
        // Some versions make this role by themselves.
        let _made = self.ask(&["role", "add", "root"]);
        let grant = format!("role grant-permission prism readwrite {prefix} --prefix");
        for words in [
            "user add root:secret",
            "user grant-role root root",
            "role add prism",
            &grant,
            "user add prism:right",
            "user grant-role prism prism",
            "auth enable",
        ] {
            self.ctl(&words.split(' ').collect::<Vec<_>>());
        }
    }

    /// Makes room after the alarm `NOSPACE`: drops the history of before `key` was changed last, and lifts the alarm.
    ///
    /// # Panics
    /// When etcd does not do it.
    pub fn make_room(&self, key: &str) {
        let now = self.revision(key);
        self.ctl(&["compact", &now, "--physical"]);
        self.ctl(&["defrag"]);
        self.ctl(&["alarm", "disarm"]);
    }

    /// etcd's revision, as a look at a key shows it.
    ///
    /// # Panics
    /// When it does not.
    pub fn revision(&self, key: &str) -> String {
        let now = self.ctl(&["get", key, "--write-out=json"]);
        let now = now.split("\"revision\":").nth(1).expect("it says so");
        now.chars().take_while(char::is_ascii_digit).collect()
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

/// An authority, and what it signed, as files: `ca.pem`, and `.pem` and `.key` of `server`, `client` and `named`, which is a client
/// with a common name.
#[derive(Debug)]
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    /// New ones.
    ///
    /// # Panics
    /// When they cannot be made.
    pub fn new() -> Self {
        let made = || -> Result<TempDir, Box<dyn std::error::Error>> {
            let dir = tempfile::tempdir()?;
            let mut params = CertificateParams::new(Vec::<String>::new())?;
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
            std::fs::write(dir.path().join("ca.pem"), ca.pem())?;
            for name in ["server", "client", "named"] {
                let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
                params.distinguished_name = DistinguishedName::new();
                if name == "named" {
                    params.distinguished_name.push(DnType::CommonName, name);
                }
                // The gateway calls etcd itself with the server's certificate.
                params.extended_key_usages = vec![
                    ExtendedKeyUsagePurpose::ServerAuth,
                    ExtendedKeyUsagePurpose::ClientAuth,
                ];
                let key = KeyPair::generate()?;
                let certificate = params.signed_by(&key, &ca)?;
                std::fs::write(dir.path().join(format!("{name}.pem")), certificate.pem())?;
                std::fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem())?;
            }
            Ok(dir)
        };
        Self {
            dir: made().expect("certificates can be made"),
        }
    }

    /// Where a file is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// The same as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Where all are.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// A cluster of one that shows these, and asks for a certificate of the same authority.
    ///
    /// # Panics
    /// When it does not start.
    pub fn etcd(&self) -> Etcd {
        let mut etcd = Etcd::start_over(
            "https",
            &[
                "--cert-file",
                &self.text("server.pem"),
                "--key-file",
                &self.text("server.key"),
                "--trusted-ca-file",
                &self.text("ca.pem"),
                "--client-cert-auth",
            ],
        );
        let with = ["cacert=ca.pem", "cert=client.pem", "key=client.key"].map(|pair| {
            let (flag, name) = pair.split_once('=').expect("it is a pair");
            format!("--{flag}={}", self.text(name))
        });
        etcd.tell_ctl(&with.each_ref().map(String::as_str));
        etcd
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}
