//! A server with all of its listeners, one whose API speaks TLS, and what is seen of them from outside.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use prism_e2e::{Place, Running, Server, until};
use prism_identity::{JoinToken, Key};
use prism_members::{Joining, Membership};
use prism_types::{Id, NodeId};
use serde_json::{Value, json};

/// Refusals by listener and reason.
pub type Counts = BTreeMap<String, u64>;

pub struct Site {
    // Ended in this order.
    pub server: Server,
    _second: Running,
    place: Place,
    pub api: SocketAddr,
    pub members: SocketAddr,
    pub tls: SocketAddr,
    /// A token that only looks.
    pub viewer: String,
    pub cluster: Id,
    /// The name of the gossip key.
    pub key: [u8; 4],
}

/// The value of a line of a file of contexts.
fn context(place: &Place, key: &str) -> Option<String> {
    let path = place.path().join("config/prism/contexts.toml");
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    Some(
        line.trim_start_matches([' ', '='])
            .trim_matches('"')
            .to_owned(),
    )
}

/// A server whose API speaks TLS.
fn second() -> (Place, Running, SocketAddr) {
    let place = Place::new();
    let mut command = place.command("prismd");
    command.args(["--bootstrap", "--name=s2", "--api=https://127.0.0.1:0"]);
    command.arg("--data-dir").arg(place.data());
    let running = place.launch(command);
    let api = until("the second server to answer", || {
        let api = context(&place, "api")?;
        let told = api.strip_prefix("https://")?.parse().ok()?;
        (place.ctl(&["info"]).code == Some(0)).then_some(told)
    });
    (place, running, api)
}

impl Site {
    pub fn start() -> Self {
        let how = ["--bootstrap", "--name=s1", "--serf=127.0.0.1:0"];
        let room = "--pressure-threshold=1";
        let mut server = Server::started_as(&[how[0], how[1], how[2], room]);
        server.restart();
        let (place, second, tls) = second();
        let api = server.api().address.parse().expect("an address");
        let made = server.ctl(&["token", "create", "eyes", "--role", "viewer", "-o", "json"]);
        let made: Value = serde_json::from_str(&made.expect(0).stdout).expect("JSON");
        let viewer = made["token"].as_str().expect("a token").to_owned();
        let peers = server.api().get("/api/v1/cluster/peers").expect(200).json();
        let members = peers["items"][0]["address"].as_str().expect("an address");
        let members = members.parse().expect("an address");
        let own = Membership::load(&server.place.data()).expect("it is sound");
        let cluster = own.expect("it listens for members").cluster.0;
        let key = until("gossip to have its key", || {
            let answer = server.api().get("/api/v1/cluster/keys");
            let name = answer.json()["keys"][0]["id"].as_str()?.to_owned();
            u32::from_str_radix(&name, 16).ok().map(u32::to_be_bytes)
        });
        Self {
            server,
            _second: second,
            place,
            api,
            members,
            tls,
            viewer,
            cluster,
            key,
        }
    }

    /// A join token for a role.
    pub fn join_token(&self, role: &str) -> JoinToken {
        let role = format!("--role={role}");
        let made = self
            .server
            .ctl(&["server", "join-token", &role, "-o", "json"]);
        let made: Value = serde_json::from_str(&made.expect(0).stdout).expect("JSON");
        made["token"]
            .as_str()
            .expect("a token")
            .parse()
            .expect("a token")
    }

    /// A member that has joined.
    pub async fn member(&self, n: u128, role: &str) -> Membership {
        let token = self.join_token(role);
        let who = Joining {
            node: NodeId::new(1_800_000_000_000, n),
            name: format!("fz{n}").parse().expect("a name"),
            // Nobody answers there.
            server: (role == "server").then(|| "127.0.0.1:9".to_owned()),
            on_etcd: false,
            by_vault: false,
        };
        let key = Key::generate().expect("random numbers");
        let joined = prism_members::join(self.members, &token, &who, key).await;
        joined.expect("the token is good")
    }

    /// Bytes of memory of the first server.
    pub fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.server.pid());
        let status = fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("the kernel says") << 10
    }

    /// What it has refused so far, by all of its listeners.
    pub fn refused(&self) -> Counts {
        let text = self.server.api().get("/metrics").expect(200).text();
        let counters = [
            "prism_refused_total",
            "prism_gossip_refused_total",
            "prism_denied_total",
        ];
        let lines = text
            .lines()
            .filter(|l| counters.iter().any(|c| l.starts_with(c)));
        let pairs = lines.filter_map(|l| l.rsplit_once(' '));
        pairs
            .filter_map(|(name, n)| Some((name.to_owned(), n.parse().ok()?)))
            .collect()
    }

    /// Each kind of refusal was counted.
    pub fn counted(&self, before: &Counts) {
        let now = self.refused();
        let grown = |name: &str| {
            let of = |counts: &Counts| counts.get(name).copied().unwrap_or(0);
            of(&now) - of(before)
        };
        let refused = |listener: &str, reason: &str| {
            grown(&format!(
                "prism_refused_total{{listener=\"{listener}\",reason=\"{reason}\"}}"
            ))
        };
        for reason in ["malformed", "too_large", "broken_off"] {
            assert!(refused("api", reason) > 0, "api {reason}: {now:?}");
        }
        for reason in [
            "protocol",
            "malformed",
            "broken_off",
            "silent",
            "certificate",
            "stranger",
            "wrong_role",
            "join",
            "renew",
            "version",
        ] {
            assert!(refused("members", reason) > 0, "members {reason}: {now:?}");
        }
        for reason in [
            "too_long",
            "too_short",
            "version",
            "cluster",
            "unknown_key",
            "seal",
        ] {
            let name = format!("prism_gossip_refused_total{{reason=\"{reason}\"}}");
            assert!(grown(&name) > 0, "gossip {reason}: {now:?}");
        }
        let denied = now.keys().filter(|n| n.starts_with("prism_denied_total"));
        assert!(denied.map(|n| grown(n)).sum::<u64>() > 0, "{now:?}");
    }

    /// The log of each server says why, and nothing of a panic.
    pub fn said(&self) {
        let log = self.server.log();
        for words in [
            "a connection of a member is refused",
            "it speaks no protocol of ours",
            "a node is not let in",
            "a certificate is not renewed",
            "a node of another version is not let in",
            "a worker's connection is over",
            "a gossip datagram was refused",
            "a connection to the API is refused",
            "denied",
        ] {
            assert!(log.contains(words), "the log does not say: {words}");
        }
        for log in [log, self.log_of_second()] {
            assert!(!log.contains("panicked at"), "{log}");
        }
    }

    fn log_of_second(&self) -> String {
        let files = fs::read_dir(self.place.path().join("logs")).expect("it is there");
        let paths = files.flatten().map(|f| f.path());
        let logs = paths.filter(|p: &PathBuf| p.extension().is_some_and(|e| e == "err"));
        logs.filter_map(|p| fs::read_to_string(p).ok()).collect()
    }

    /// Both servers answer, and work is done.
    pub fn works(&self) {
        let health = self.server.api().get("/health").expect(200).json();
        assert_eq!(health["ready"], true, "{health}");
        self.place.ctl(&["info"]).expect(0);
        let small = json!({"cpu": "100m", "memory": "32Mi"});
        let spec = json!({"job": "after", "command": ["true"], "resources": small});
        let job = self.server.submit(&spec);
        assert_eq!(self.server.finished(&job)["status"], "COMPLETED");
        let jobs = self.server.api().get("/api/v1/jobs").expect(200).json();
        let jobs = jobs["items"].as_array().map(Vec::len);
        assert_eq!(jobs, Some(1), "nobody else has submitted any");
        self.server.place.assert_no_panic();
    }
}
