//! Servers that are one cluster, and workers of theirs: beginning, joining, and what one of the servers says of all of them.

use std::process::Command;

use serde_json::Value;

use crate::place::Place;
use crate::program::Running;
use crate::server::Server;
use crate::wait::until;

/// Members come to a free port of loopback, another one at each start.
pub const LOOPBACK: &str = "--serf=127.0.0.1:0";

/// Whatever else this machine does, it takes work.
pub const ROOM: &str = "--pressure-threshold=1";

/// Everything in a list of the API; nothing while the server does not answer, or answers with an error.
pub fn list(server: &Server, path: &str) -> Vec<Value> {
    let answer = server.api().try_send("GET", path, &[], b"").ok();
    let page = answer.filter(|a| a.status == 200).map(|a| a.json());
    let items = page.and_then(|p| p["items"].as_array().cloned());
    items.unwrap_or_default()
}

/// What a server says of all servers.
pub fn peers(server: &Server) -> Vec<Value> {
    list(server, "/api/v1/cluster/peers")
}

/// What a server says of the one of this name.
pub fn peer(server: &Server, name: &str) -> Option<Value> {
    named(peers(server), name)
}

/// How many servers vote, as this one knows.
pub fn voters(server: &Server) -> usize {
    let all = peers(server);
    all.iter().filter(|p| p["voter"] == true).count()
}

/// The name of the server that leads, as this one knows.
pub fn leader(server: &Server) -> Option<String> {
    let all = peers(server);
    let leads = all.iter().find(|p| p["leader"] == true)?;
    Some(leads["name"].as_str()?.to_owned())
}

/// What a server says of all nodes.
pub fn nodes(server: &Server) -> Vec<Value> {
    list(server, "/api/v1/nodes")
}

/// What a server says of the node of this name.
pub fn node(server: &Server, name: &str) -> Option<Value> {
    named(nodes(server), name)
}

/// The state of the node of this name.
pub fn state(server: &Server, name: &str) -> Option<String> {
    Some(node(server, name)?["state"].as_str()?.to_owned())
}

/// Waits until the node of this name takes work.
///
/// # Panics
/// When it does not in time.
#[track_caller]
pub fn healthy(server: &Server, name: &str) {
    until(&format!("{name} to be there"), || {
        (state(server, name).as_deref() == Some("HEALTHY")).then_some(())
    });
}

fn named(all: Vec<Value>, name: &str) -> Option<Value> {
    all.into_iter().find(|one| one["name"] == name)
}

/// A join token, made with these arguments (for a worker without `--role`), and where members come to.
///
/// # Panics
/// When it is not made.
#[track_caller]
pub fn token(server: &Server, args: &[&str]) -> (String, String) {
    let args = [&["server", "join-token", "-o", "json"][..], args].concat();
    let made: Value = serde_json::from_str(&server.ctl(&args).expect(0).stdout).expect("JSON");
    let text = |key: &str| made[key].as_str().expect("a text").to_owned();
    (text("token"), text("address"))
}

/// What a server is told for whose cluster the PKI mount of a Vault signs: where it is, by which authority it is known, and by which token
/// it is asked.
pub fn by_vault(place: &Place, at: &str, ca: &str, token: &str) -> Vec<String> {
    let ca = place.write("vault-ca.pem", ca);
    let token = place.write("vault-token", token);
    vec![
        "--issuer=vault".to_owned(),
        format!("--vault-address={at}"),
        format!("--vault-ca={ca}"),
        format!("--vault-token-file={token}"),
    ]
}

/// The first server of a cluster, with more arguments.
///
/// # Panics
/// When it does not start.
pub fn founder(name: &str, how: &[&str]) -> Server {
    let name = format!("--name={name}");
    let mut server = Server::started_as(&[&["--bootstrap", &name][..], how].concat());
    server.restart();
    server
}

/// Another server that has joined, with more arguments.
///
/// # Panics
/// When it is not let in.
pub fn joined(first: &Server, name: &str, how: &[&str]) -> Server {
    joined_at(first, None, name, how)
}

/// The same, by another address of the first one than it says itself.
///
/// # Panics
/// When it is not let in.
pub fn joined_at(first: &Server, at: Option<&str>, name: &str, how: &[&str]) -> Server {
    let (token, told) = token(first, &["--role=server"]);
    let (name, join) = (
        format!("--name={name}"),
        format!("--join={}", at.unwrap_or(&told)),
    );
    let mut server = Server::started_as(&[&[name.as_str(), &join][..], how].concat());
    let file = format!("--token-file={}", server.place.write("token", token));
    let started = server.try_start(&[&file], &[]);
    assert!(started.is_ok(), "{started:?}");
    server
}

/// Starts servers that wait for each other, all at once.
///
/// # Panics
/// When one of them does not start.
pub fn start_all(servers: Vec<Server>) -> Vec<Server> {
    let start = |mut server: Server| {
        let started = server.try_start(&[], &[]);
        assert!(started.is_ok(), "{started:?}");
        server
    };
    let begun = servers
        .into_iter()
        .map(|s| std::thread::spawn(move || start(s)));
    let all: Vec<_> = begun.collect();
    all.into_iter()
        .map(|s| s.join().expect("it starts"))
        .collect()
}

/// A machine that runs work for a cluster, in a place of its own.
#[derive(Debug)]
pub struct Worker {
    // Dropped first, so that the place is quiet when it is removed.
    running: Option<Running>,
    name: String,
    /// Where it lives.
    pub place: Place,
}

impl Worker {
    /// One that does not run yet.
    pub fn new(name: &str) -> Self {
        Self {
            running: None,
            name: name.to_owned(),
            place: Place::new(),
        }
    }

    /// One that has joined where the server says, and takes work.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn joined(server: &Server, name: &str, how: &[&str]) -> Self {
        let (token, at) = token(server, &[]);
        let mut worker = Self::new(name);
        worker.join(server, &at, &token, how);
        worker
    }

    /// Joins by a token and waits until it takes work.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn join(&mut self, server: &Server, at: &str, token: &str, how: &[&str]) {
        self.launch(at, Some(token), how);
        healthy(server, &self.name);
    }

    /// Starts it. Without a token it has to have joined before: nothing to join with is there then.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn launch(&mut self, at: &str, token: Option<&str>, how: &[&str]) {
        let command = self.place.command("prismd");
        self.launch_by(command, at, token, how);
    }

    /// The same by a command that starts `prismd` elsewhere, as in a network namespace.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn launch_by(&mut self, mut command: Command, at: &str, token: Option<&str>, how: &[&str]) {
        let (join, name) = (format!("--join={at}"), format!("--name={}", self.name));
        command.args(["--role=worker", &join, &name]).args(how);
        command.arg("--data-dir").arg(self.place.data());
        match token {
            Some(token) => {
                let file = self.place.write("token", token);
                command.args(["--token-file", &file]);
            }
            // It may have joined with none in a file.
            None => drop(std::fs::remove_file(self.place.work().join("token"))),
        }
        self.running = Some(self.place.launch(command));
    }

    /// Its process.
    ///
    /// # Panics
    /// When it was not started.
    pub fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("it was started")
    }

    /// Its process, to be waited for.
    ///
    /// # Panics
    /// When it was not started.
    pub fn take(&mut self) -> Running {
        self.running.take().expect("it was started")
    }

    /// `kill -9` of `prismd` alone; what it runs goes on.
    ///
    /// # Panics
    /// When it was not started, or does not end.
    pub fn kill(&mut self) {
        let mut running = self.take();
        crate::procs::kill(running.pid());
        until("its end", || running.is_over().then_some(()));
    }
}
