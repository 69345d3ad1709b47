//! Promise: off loopback the API speaks TLS and nothing else. A server is known by its pin or authority, a client by its token or
//! certificate; all of `prismctl` works over it; and no listener of ours off loopback takes plain text.
//!
//! "Off loopback" is a network namespace with an interface that leads nowhere.

#![expect(
    clippy::too_many_lines,
    reason = "a story that is told from its begin to its end"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use prism_e2e::{Output, Place, Running, until};
use serde_json::Value;

const V4: &str = "10.77.0.1";
const V6: &str = "fd77::1";

/// A network of one machine.
struct Net {
    holder: Running,
    root: bool,
}

impl Net {
    fn new(place: &Place) -> Self {
        let root = rustix::process::geteuid().is_root();
        let mut command = Command::new("unshare");
        if !root {
            command.arg("--map-root-user");
        }
        let script = format!(
            "ip link set lo up && ip link add prism0 type veth peer name prism1 && ip link set prism1 up && ip addr add {V4}/24 dev prism0 && \
             ip -6 addr add {V6}/64 dev prism0 nodad && ip link set prism0 up && echo up && exec sleep 1200"
        );
        command.args(["--net", "sh", "-c", &script]);
        let holder = place.launch(command);
        let net = Self { holder, root };
        until("the network", || {
            net.holder.stdout().contains("up").then_some(())
        });
        net
    }

    /// A command that runs in it.
    fn command(&self, place: &Place, program: &str, args: &[&str]) -> Command {
        let inner = place.command(program);
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.holder.pid()));
        if !self.root {
            command.args(["--user", "--preserve-credentials"]);
        }
        command
            .arg("--net")
            .arg("--")
            .arg(inner.get_program())
            .args(args);
        command.env_clear().current_dir(place.work());
        for (name, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command.stdin(std::process::Stdio::null());
        command
    }
}

/// A server in a network, and whoever uses it from there.
struct Site {
    // Ended in this order.
    running: Option<Running>,
    net: Net,
    place: Place,
}

impl Site {
    fn start(args: &[&str]) -> Self {
        let place = Place::new();
        let net = Net::new(&place);
        let mut site = Self {
            running: None,
            net,
            place,
        };
        site.launch(args);
        site
    }

    fn launch(&mut self, args: &[&str]) {
        let data = format!("--data-dir={}", self.place.data().display());
        let mut all = vec!["--bootstrap", "--name=s1", &data];
        all.extend(args);
        let command = self.net.command(&self.place, "prismd", &all);
        let running = self.place.launch(command);
        self.running = Some(running);
        until("the server to answer", || {
            let done = self.ctl(&["info"]);
            (done.code == Some(0)).then_some(())
        });
    }

    fn ctl(&self, args: &[&str]) -> Output {
        self.with(&[], args)
    }

    fn with(&self, env: &[(&str, &str)], args: &[&str]) -> Output {
        let mut command = self.net.command(&self.place, "prismctl", args);
        command.envs(env.iter().copied());
        self.place.launch(command).wait(Duration::from_secs(60))
    }

    fn begin(&self, args: &[&str]) -> Running {
        self.place
            .launch(self.net.command(&self.place, "prismctl", args))
    }

    fn pid(&self) -> u32 {
        self.running.as_ref().expect("it runs").pid()
    }

    /// Its log.
    fn log(&self) -> String {
        self.running.as_ref().expect("it runs").stderr()
    }

    /// Of the context that it wrote.
    fn context(&self, key: &str) -> String {
        let path = self.place.path().join("config/prism/contexts.toml");
        let text = fs::read_to_string(path).expect("it wrote one");
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(&format!("{key} = ")));
        line.expect("it is there").trim_matches('"').to_owned()
    }

    fn port(&self) -> u16 {
        let api = self.context("api");
        let port = api.rsplit_once(':').expect("a port").1;
        port.parse().expect("a number")
    }

    /// What a program in the network sends to an address as it is, and gets back.
    fn plain(&self, to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
        let sent = self.place.write("sent", bytes);
        let script = format!(
            "exec 3<>/dev/tcp/{}/{}; cat {sent} >&3; timeout 5 cat <&3 | head -c 4096",
            to.ip(),
            to.port()
        );
        let mut command = self.net.command(&self.place, "prismctl", &[]);
        // Only its place is taken over.
        let mut bash = Command::new("nsenter");
        bash.args(command.get_args().take_while(|a| *a != "--"));
        bash.args(["--", "bash", "-c", &script]);
        command = bash;
        self.place
            .launch(command)
            .wait(Duration::from_secs(30))
            .stdout
            .into_bytes()
    }
}

/// Every address on which a process listens (TCP), read from the kernel.
fn listens(pid: u32) -> BTreeSet<SocketAddr> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("it runs")
        .flatten()
    {
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        if let Some(inode) = target.strip_prefix("socket:[") {
            inodes.insert(inode.trim_end_matches(']').to_owned());
        }
    }
    let mut all = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).expect("it runs");
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // 0A: it listens.
            if fields[3] == "0A" && inodes.contains(fields[9]) {
                all.insert(address(fields[1]));
            }
        }
    }
    all
}

/// An address as the kernel writes it: words of four bytes in the machine's order.
fn address(text: &str) -> SocketAddr {
    let (ip, port) = text.split_once(':').expect("a port");
    let bytes: Vec<u8> = ip
        .as_bytes()
        .chunks(8)
        .flat_map(|word| {
            let word = std::str::from_utf8(word).expect("hex");
            u32::from_str_radix(word, 16).expect("hex").to_ne_bytes()
        })
        .collect();
    let ip: IpAddr = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => four.into(),
        Err(_) => <[u8; 16]>::try_from(bytes.as_slice())
            .expect("16 bytes")
            .into(),
    };
    SocketAddr::new(ip, u16::from_str_radix(port, 16).expect("hex"))
}

/// No listener of a process off loopback answers plain text with anything but the hint, and there is at least one.
fn assert_no_plain_text(site: &Site) {
    let all = listens(site.pid());
    let open: Vec<_> = all.iter().filter(|a| !a.ip().is_loopback()).collect();
    assert!(!open.is_empty(), "{all:?}");
    for listener in open {
        let ip: IpAddr = if listener.is_ipv6() { V6 } else { V4 }
            .parse()
            .expect("an address");
        let at = SocketAddr::new(ip, listener.port());
        for request in [
            "GET /health HTTP/1.1\r\nhost: x\r\n\r\n",
            "GET /metrics HTTP/1.0\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "PRSM\u{1}\0\u{1}\0",
            "hello\n",
        ] {
            let answer = site.plain(at, request.as_bytes());
            let text = String::from_utf8_lossy(&answer);
            let hint = text.starts_with("HTTP/1.1 400 ") && text.contains("TLS only");
            // An alert of TLS is a few bytes.
            assert!(
                hint || answer.len() <= 7,
                "{at}: {request:?} is answered {text:?}"
            );
            assert!(
                !text.contains(" 200 ") && !text.contains("prism_"),
                "{at}: {text:?}"
            );
        }
    }
}

#[test]
fn off_loopback_the_api_speaks_tls_only_and_all_of_prismctl_works_over_it() {
    let site = Site::start(&["--api=0.0.0.0:0"]);
    let (pin, token) = (site.context("pin"), site.context("token"));
    let api = format!("https://{V4}:{}", site.port());
    let token_file = site.place.write("token", &token);
    // As somebody who has been told address, pin and token.
    let add = [
        "context",
        "add",
        "far",
        "--api",
        &api,
        "--pin",
        &pin,
        "--token-file",
        &token_file,
    ];
    site.ctl(&add).expect(0);
    site.ctl(&["info"]).expect(0);
    let small = ["--cpu", "100m", "--memory", "32Mi"];
    let job = [
        &["job", "submit", "--name", "many", "--array", "50", "--wait"],
        &small[..],
        &["--", "echo", "done"],
    ]
    .concat();
    site.ctl(&job).expect(0);
    let results = site
        .ctl(&["job", "results", "many", "-o", "ndjson"])
        .expect(0);
    assert_eq!(results.stdout.lines().count(), 50);
    // A stream that goes on, and one upward.
    let mut events = site.begin(&["events", "--follow", "-o", "ndjson"]);
    site.ctl(&["sandbox", "create", "--name", "box"]).expect(0);
    let big: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let big = site.place.write("big", &big);
    site.ctl(&["sandbox", "cp", &big, "box:/work/big"])
        .expect(0);
    site.ctl(&["sandbox", "cp", "box:/work/big", "back"])
        .expect(0);
    let back = fs::read(site.place.work().join("back")).expect("it came back");
    assert!(back == fs::read(&big).expect("ours"));
    let said = site
        .ctl(&[
            "sandbox",
            "exec",
            "box",
            "--",
            "sh",
            "-c",
            "echo far; exit 3",
        ])
        .expect(3);
    assert_eq!(said.stdout, "far\n");
    until("the event of the sandbox", || {
        events.stdout().contains("sandbox").then_some(())
    });
    assert!(!events.is_over());
    assert_no_plain_text(&site);
    assert!(!site.log().contains(&token), "a token is in the log");
}

#[test]
fn on_ipv6_too_and_a_server_that_is_not_meant_gets_nothing() {
    let site = Site::start(&["--api=[::]:0", "--serf=[::]:0"]);
    let (pin, token) = (site.context("pin"), site.context("token"));
    let port = site.port();
    let file = site.place.write("token", &token);
    let named = |host: &str| format!("https://{host}:{port}");
    for host in [
        format!("[{V6}]"),
        V4.to_owned(),
        "localhost".to_owned(),
        "[::1]".to_owned(),
    ] {
        let api = named(&host);
        let add = [
            "context",
            "add",
            "far",
            "--api",
            &api,
            "--pin",
            &pin,
            "--token-file",
            &file,
        ];
        site.ctl(&add).expect(0);
        site.ctl(&["info"]).expect(0);
    }
    let api = named(V4);
    // Another key than that which is pinned.
    let wrong = "00".repeat(32);
    let env = [("PRISM_TOKEN", token.as_str())];
    let lab = [
        "context",
        "add",
        "lab",
        "--keep-current",
        "--api",
        &api,
        "--pin",
        &wrong,
    ];
    site.with(&env, &lab).expect(0);
    let refused = site.ctl(&["--context", "lab", "info"]).expect(4);
    for part in [
        "is not the one that is meant: its key does not match the pin (got ",
        &format!("want {wrong}"),
        "nothing was sent to it; possible interception",
        "prismctl explain PRISM-C009",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert!(!refused.stderr.contains(&token[..20]), "{}", refused.stderr);
    // Without anything to know it by, nothing is tried at all.
    let add = site
        .with(&env, &["context", "add", "x", "--api", &api])
        .expect(2);
    assert!(add.stderr.contains("--pin"), "{}", add.stderr);
    for bad in ["", "00", "zz", &wrong[1..], &format!("{wrong}00")] {
        let args = ["context", "add", "x", "--api", &api, "--pin", bad];
        site.with(&env, &args).expect(2);
    }
    // Plain text to the port of TLS.
    let plain = format!("http://{V4}:{port}");
    let said = site.with(&env, &["--api", &plain, "info"]);
    assert_ne!(said.code, Some(0), "{}", said.stdout);
    assert_no_plain_text(&site);
}

#[test]
fn a_certificate_stands_for_a_token_and_ends_with_it() {
    let site = Site::start(&["--api=0.0.0.0:0"]);
    let issue = [
        "ca",
        "issue",
        "ada",
        "--role",
        "viewer",
        "--expires-in",
        "1d",
        "-o",
        "json",
    ];
    let made: Value = serde_json::from_str(&site.ctl(&issue).expect(0).stdout).expect("JSON");
    let id = made["id"].as_str().expect("an id");
    // Again it is not written over.
    site.ctl(&issue).expect(2);
    let key = site.place.work().join("ada.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(&key).expect("it is there").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let api = format!("https://{V4}:{}", site.port());
    let args = [
        "context",
        "add",
        "ada",
        "--keep-current",
        "--api",
        &api,
        "--ca",
        "ada-ca.pem",
        "--cert",
        "ada.pem",
        "--key",
        "ada.key",
    ];
    site.ctl(&args).expect(0);
    let ada = |args: &[&str]| site.ctl(&[&["--context", "ada"], args].concat());
    ada(&["info"]).expect(0);
    ada(&["node", "ls"]).expect(0);
    let refused = ada(&["node", "cordon", "s1"]).expect(1);
    assert!(refused.stderr.contains("viewer"), "{}", refused.stderr);
    let tokens = site.ctl(&["token", "ls", "-o", "json"]).expect(0).stdout;
    assert!(tokens.contains(id), "{tokens}");
    // A certificate of an administrator changes things, and is told by its name.
    site.ctl(&[
        "ca",
        "issue",
        "root",
        "--role",
        "admin",
        "--expires-in",
        "1h",
    ])
    .expect(0);
    let args = [
        "context",
        "add",
        "root",
        "--keep-current",
        "--api",
        &api,
        "--ca",
        "root-ca.pem",
        "--cert",
        "root.pem",
        "--key",
        "root.key",
    ];
    site.ctl(&args).expect(0);
    site.ctl(&["--context", "root", "namespace", "create", "lab"])
        .expect(0);
    let audit = site
        .ctl(&["events", "--kind", "audit.namespace_put", "-o", "ndjson"])
        .expect(0);
    assert!(audit.stdout.contains("\"root\""), "{}", audit.stdout);
    // Its end ends the streams that it has open.
    let mut stream = site.begin(&["--context", "ada", "events", "--follow"]);
    until("the stream", || {
        stream.stdout().contains("node").then_some(())
    });
    let began = Instant::now();
    site.ctl(&["token", "revoke", id]).expect(0);
    until("its end", || stream.is_over().then_some(()));
    assert!(began.elapsed() < Duration::from_secs(20));
    let gone = ada(&["info"]).expect(1);
    assert!(
        gone.stderr.contains("stands for no token"),
        "{}",
        gone.stderr
    );
    // A key that does not go with the certificate.
    let args = [
        "context",
        "add",
        "mixed",
        "--keep-current",
        "--api",
        &api,
        "--ca",
        "ada-ca.pem",
        "--cert",
        "ada.pem",
        "--key",
        "root.key",
    ];
    site.ctl(&args).expect(2);
    // It is kept across a restart, with the authority that nobody comes to.
    let mut site = site;
    let running = site.running.take().expect("it runs");
    running.signal(rustix::process::Signal::TERM);
    running.wait(Duration::from_secs(60));
    let listen = format!("--api=0.0.0.0:{}", api.rsplit_once(':').expect("a port").1);
    site.launch(&[&listen]);
    site.ctl(&["--context", "root", "namespace", "create", "lab2"])
        .expect(0);
}

#[test]
fn on_loopback_nothing_changes_unless_it_is_told_so() {
    let place = Place::new();
    let data = format!("--data-dir={}", place.data().display());
    for (api, says) in [
        (
            "http://0.0.0.0:0",
            "off loopback the API is served with TLS only",
        ),
        ("ftp://127.0.0.1:0", "is not an address"),
        ("0.0.0.0", "is not an address"),
        ("https://", "is not an address"),
    ] {
        let ended = place.start("prismd", &["--bootstrap", "--api", api, &data]);
        let ended = ended.wait(Duration::from_secs(30)).expect(2);
        assert!(ended.stderr.contains(says), "{api}: {}", ended.stderr);
    }
    let half = place.start("prismd", &["--bootstrap", "--tls-cert", "x", &data]);
    let half = half.wait(Duration::from_secs(30)).expect(2);
    assert!(half.stderr.contains("go together"), "{}", half.stderr);
    let gone = place.start(
        "prismd",
        &[
            "--bootstrap",
            "--api=127.0.0.1:0",
            "--tls-cert",
            "x",
            "--tls-key",
            "y",
            &data,
        ],
    );
    let gone = gone.wait(Duration::from_secs(30)).expect(1);
    assert!(
        gone.stderr
            .contains("the certificate of the API cannot be used"),
        "{}",
        gone.stderr
    );
    let mut running = place.start(
        "prismd",
        &[
            "--bootstrap",
            "--name=s1",
            "--api=https://127.0.0.1:0",
            &data,
        ],
    );
    until("the server to answer", || {
        assert!(!running.is_over(), "{}", running.stderr());
        (place.ctl(&["info"]).code == Some(0)).then_some(())
    });
    let all = listens(running.pid());
    assert!(all.iter().all(|a| a.ip().is_loopback()), "{all:?}");
    // On loopback plain text is told what to do as well.
    let port = all.iter().next().expect("one").port();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream
        .write_all(b"GET /health HTTP/1.1\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("https://"),
        "{answer}"
    );
}

/// An authority of somebody else, and a certificate of it for this machine, as PEM: the authority, the certificate, its key.
struct Foreign {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Foreign {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            issuer: rcgen::Issuer::new(params, key),
            pem,
        }
    }

    fn leaf(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let params = rcgen::CertificateParams::new(names).expect("names");
        let key = rcgen::KeyPair::generate().expect("a key");
        let made = params.signed_by(&key, &self.issuer).expect("a certificate");
        (made.pem(), key.serialize_pem())
    }
}

#[test]
fn files_of_somebody_else_are_shown_and_read_again_when_they_change() {
    let place = Place::new();
    let authority = Foreign::new();
    let put = |(certificate, key): (String, String)| {
        // As those do who renew them: each file is replaced whole.
        for (name, text) in [("api.key", key), ("api.pem", certificate)] {
            let new = place.write("new", text);
            fs::rename(new, place.work().join(name)).expect("our own directory");
        }
    };
    put(authority.leaf(&["127.0.0.1"]));
    let ca = place.write("ca.pem", &authority.pem);
    let data = format!("--data-dir={}", place.data().display());
    let args = [
        "--bootstrap",
        "--name=s1",
        "--api=https://127.0.0.1:0",
        "--tls-cert=api.pem",
        "--tls-key=api.key",
        "--tls-ca=ca.pem",
        &data,
    ];
    let running = place.start("prismd", &args);
    until("the server to answer", || {
        (place.ctl(&["info"]).code == Some(0)).then_some(())
    });
    let contexts =
        fs::read_to_string(place.path().join("config/prism/contexts.toml")).expect("one");
    let value = |key: &str| {
        let line = contexts
            .lines()
            .find_map(|l| l.strip_prefix(&format!("{key} = ")));
        line.expect("it is there").trim_matches('"').to_owned()
    };
    let (api, token) = (value("api"), place.write("token", value("token")));
    let add = |name: &str, api: &str, ca: &str| {
        place
            .ctl(&[
                "context",
                "add",
                name,
                "--keep-current",
                "--api",
                api,
                "--ca",
                ca,
                "--token-file",
                &token,
            ])
            .expect(0);
    };
    add("far", &api, &ca);
    place.ctl(&["--context", "far", "info"]).expect(0);
    // The name counts, for this authority signs for others too.
    add("named", &api.replace("127.0.0.1", "localhost"), &ca);
    let wrong = place.ctl(&["--context", "named", "info"]).expect(4);
    assert!(wrong.stderr.contains("PRISM-C009"), "{}", wrong.stderr);
    let stranger = place.write("stranger.pem", Foreign::new().pem);
    add("stranger", &api, &stranger);
    place.ctl(&["--context", "stranger", "info"]).expect(4);
    // A new one, for another name too; the pin of the one before is that of another server now.
    put(authority.leaf(&["127.0.0.1", "localhost"]));
    until("the new one to be shown", || {
        (place.ctl(&["--context", "named", "info"]).code == Some(0)).then_some(())
    });
    place.ctl(&["--context", "far", "info"]).expect(0);
    place.ctl(&["--context", "s1", "info"]).expect(4);
    // What is not good changes nothing: half of a pair, noise, nothing.
    for bad in [
        authority.leaf(&["localhost"]).0,
        "noise".to_owned(),
        String::new(),
    ] {
        place.write("api.pem", bad);
        let count = || {
            running
                .stderr()
                .matches("is not good; the one before is shown")
                .count()
        };
        let before = count();
        until("it to be noticed", || (count() > before).then_some(()));
        place.ctl(&["--context", "named", "info"]).expect(0);
    }
    assert!(
        !running.stderr().contains("PRIVATE"),
        "{}",
        running.stderr()
    );
}
