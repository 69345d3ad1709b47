//! Settings of the daemon: a flag wins over the environment, that over the file, that over the default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use prism_node::{EtcdConfig, ExpectConfig, JoinConfig, TlsFiles, VaultConfig};
use prism_types::{Labels, Name, nearest};
use serde::Deserialize;

use crate::etcd::{self, StoreArgs, StoreFile};
use crate::issuer::{self, IssuerArgs, IssuerFile};

/// Where the API listens unless said otherwise.
const API: &str = "127.0.0.1:8008";

/// The Prism daemon: scheduler, store, worker and API of one machine, in one process.
#[derive(Debug, Parser)]
#[command(
    name = "prismd",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  prismd dev                             a node for trying things; Ctrl-C ends it
                                         and everything it runs
  prismd --bootstrap --name=first-node   a server that keeps its state and work
  prismd --bootstrap --serf=0.0.0.0:4200   one to which other machines may come
  prismd --bootstrap --api=0.0.0.0:8008    one whose API others use, over TLS
  prismd --role=worker --join=first-node:4200 --token-file=F
                                         run work for it; dials out, opens no port;
                                         F is made by `prismctl server join-token`
  prismd --bootstrap --store=etcd --etcd-endpoints=http://127.0.0.1:2379
                                         keep the cluster's state in an etcd that
                                         is there
  prismd --bootstrap --serf=0.0.0.0:4200 --issuer=vault \
    --vault-address=https://vault:8200 --vault-ca=F --vault-token-file=G
                                         let the PKI mount of a Vault sign for members
  prismd --bootstrap-expect=3 --join=a:4200,b:4200,c:4200 --token-file=F
                                         found a cluster with two others; the same F
                                         on each: `prismctl server bootstrap-token`

Every flag is also in the environment (PRISM_API, PRISM_DATA_DIR, ...) and a key
of the configuration file (api, data_dir, ...). A flag comes before the
environment, that before the file."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Verb>,
    /// Start a cluster of one server that keeps its state
    #[arg(long)]
    bootstrap: bool,
    /// Found a cluster with as many servers as this, once all see each other; --join names them, --token-file has what is common to all
    #[arg(long, env = "PRISM_BOOTSTRAP_EXPECT", value_name = "N")]
    bootstrap_expect: Option<u16>,
    /// Do not start while any server named in --join can't be reached, or is of another cluster
    #[arg(long, global = true, env = "PRISM_STRICT_JOIN")]
    strict_join: bool,
    /// Announce this server on the local network by multicast DNS, in clear text: the cluster's id, its name and its port
    #[arg(long, global = true, env = "PRISM_ANNOUNCE_MDNS")]
    announce_mdns: bool,
    /// Take a server out of the cluster that was not heard of for so long, as long as the rest stays safe; `never`, or a time [default: 24h]
    #[arg(
        long,
        global = true,
        env = "PRISM_REMOVE_GONE_AFTER",
        value_name = "TIME"
    )]
    remove_gone_after: Option<String>,
    /// What this node is: `server`, or `worker` for one that runs work for a server and nothing else [default: server]
    #[arg(long, global = true, env = "PRISM_ROLE")]
    role: Option<String>,
    /// Where other machines come to, with mutual TLS, such as 0.0.0.0:4200; nowhere unless given
    #[arg(long, global = true, env = "PRISM_SERF", value_name = "ADDRESS")]
    serf: Option<String>,
    /// Where the others reach that, when it is not what the route says: HOST, ADDRESS or HOST:PORT
    #[arg(long, global = true, env = "PRISM_ADVERTISE", value_name = "ADDRESS")]
    advertise: Option<String>,
    /// Servers of the cluster to join, HOST:PORT,HOST:PORT; the first that answers is taken; `mdns` finds them on the local network
    #[arg(long, global = true, env = "PRISM_JOIN", value_name = "SERVERS")]
    join: Option<String>,
    /// File with the join token; needed until this machine has joined
    #[arg(long, global = true, env = "PRISM_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Name of this node, a-z 0-9 and - [default: the host's name]
    #[arg(long, global = true, env = "PRISM_NAME")]
    name: Option<Name>,
    /// Address of the API, such as 0.0.0.0:8008; off loopback, or with https:// before it, with TLS [default: 127.0.0.1:8008, a free port for `dev` when that is taken]
    #[arg(long, global = true, env = "PRISM_API")]
    api: Option<String>,
    /// Certificate of the API (PEM), with those above it that clients do not know [default: one of the cluster's own authority]
    #[arg(long, global = true, env = "PRISM_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, global = true, env = "PRISM_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Authorities above it (PEM), shown along, so that clients may pin one
    #[arg(long, global = true, env = "PRISM_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Directory for everything this node keeps [default: per user, /var/lib/prism for root]
    #[arg(long, global = true, env = "PRISM_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Labels of this node, k=v,k=v
    #[arg(long, global = true, env = "PRISM_LABELS")]
    labels: Option<String>,
    /// Run tasks that ask for `isolation: none` as plain processes
    #[arg(long, global = true, env = "PRISM_ALLOW_PLAIN")]
    allow_plain: bool,
    /// Share of memory in use above which nothing new is started, 0 to 1 [default: 0.8]
    #[arg(long, global = true, env = "PRISM_PRESSURE_THRESHOLD")]
    pressure_threshold: Option<f64>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, global = true, env = "PRISM_LOG_LEVEL")]
    log_level: Option<String>,
    /// text or json [default: text]
    #[arg(long, global = true, env = "PRISM_LOG_FORMAT")]
    log_format: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    issuer: IssuerArgs,
    /// Configuration file (TOML)
    #[arg(long, global = true, env = "PRISM_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// One node on loopback for trying things; writes its credentials into prismctl's context `dev`
    Dev,
    /// After most servers were lost: the same as `prismctl server`
    #[command(subcommand)]
    Server(ServerVerb),
}

#[derive(Debug, Subcommand)]
enum ServerVerb {
    /// Make the stopped server of --data-dir the only one of its cluster; without --yes only shows what that means
    Recover {
        /// Do it
        #[arg(long)]
        yes: bool,
    },
}

impl Args {
    /// The directory and the consent, if a server is to be recovered and none started.
    pub(crate) fn recover(&self) -> Option<Result<(PathBuf, bool), String>> {
        let Some(Verb::Server(ServerVerb::Recover { yes })) = self.command else {
            return None;
        };
        let given = self.data_dir.clone();
        let data = given.map_or_else(|| default_data_dir(Mode::Bootstrap), Ok);
        Some(data.map(|data| (data, yes)))
    }
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    role: Option<String>,
    serf: Option<String>,
    advertise: Option<String>,
    join: Option<String>,
    strict_join: Option<bool>,
    remove_gone_after: Option<String>,
    announce_mdns: Option<bool>,
    bootstrap_expect: Option<u16>,
    token_file: Option<PathBuf>,
    name: Option<Name>,
    api: Option<String>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_ca: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    labels: BTreeMap<String, String>,
    allow_plain: Option<bool>,
    pressure_threshold: Option<f64>,
    log_level: Option<String>,
    log_format: Option<String>,
    #[serde(flatten)]
    store: StoreFile,
    #[serde(flatten)]
    issuer: IssuerFile,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

const FILE_KEYS: [&str; 20] = [
    "role",
    "serf",
    "advertise",
    "join",
    "strict_join",
    "remove_gone_after",
    "announce_mdns",
    "bootstrap_expect",
    "token_file",
    "name",
    "api",
    "tls_cert",
    "tls_key",
    "tls_ca",
    "data_dir",
    "labels",
    "allow_plain",
    "pressure_threshold",
    "log_level",
    "log_format",
];

/// How the node lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// What it runs ends with it.
    Dev,
    /// What it runs goes on without it.
    Bootstrap,
    /// One of several servers; what it runs goes on without it.
    Join,
    /// One of several that found a cluster together; what it runs goes on without it.
    Expect,
    /// It runs work for a server; what it runs goes on without it.
    Worker,
}

/// Checked settings.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) serf: Option<SocketAddr>,
    pub(crate) advertise: Option<String>,
    pub(crate) join: JoinConfig,
    pub(crate) etcd: Option<EtcdConfig>,
    pub(crate) vault: Option<VaultConfig>,
    pub(crate) strict_join: bool,
    pub(crate) remove_gone_after: Option<Duration>,
    pub(crate) announce_mdns: bool,
    pub(crate) expect: Option<ExpectConfig>,
    pub(crate) name: Option<Name>,
    pub(crate) api: SocketAddr,
    pub(crate) api_tls: bool,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) data_dir: PathBuf,
    pub(crate) labels: Labels,
    pub(crate) allow_plain: bool,
    pub(crate) pressure_threshold: f64,
    pub(crate) log_level: String,
    pub(crate) log_json: bool,
}

impl Settings {
    /// Merges and checks.
    pub(crate) fn read(args: Args) -> Result<Self, String> {
        let file = match &args.config {
            Some(path) => read_file(path)?,
            None => File::default(),
        };
        let role = args
            .role
            .or(file.role)
            .unwrap_or_else(|| "server".to_owned());
        let worker = one_of("--role", &role, &["server", "worker"])? == "worker";
        let servers_given = args.join.or(file.join);
        let joins = servers_given.is_some();
        let expected = args.bootstrap_expect.or(file.bootstrap_expect);
        let mode = match expected {
            None => mode(args.command.as_ref(), args.bootstrap, worker, joins)?,
            Some(n) => expect_mode(n, args.command.is_some() || args.bootstrap || worker, joins)?,
        };
        let strict_join = args.strict_join || file.strict_join.unwrap_or(false);
        strict(strict_join, mode)?;
        let token_file = args.token_file.or(file.token_file);
        let join = JoinConfig {
            servers: servers(servers_given.as_deref(), mode)?,
            token: match &token_file {
                Some(path) if matches!(mode, Mode::Worker | Mode::Join) => token(path)?,
                _ => None,
            },
        };
        let labels = labels(file.labels, args.labels.as_deref())?;
        let tls = tls_files(
            args.tls_cert.or(file.tls_cert),
            args.tls_key.or(file.tls_key),
            args.tls_ca.or(file.tls_ca),
        )?;
        let (api, api_tls) = api(args.api.or(file.api).as_deref(), mode)?;
        let expect = match expected {
            Some(servers) => Some(ExpectConfig {
                servers,
                token: token_file.as_deref().map_or(Ok(None), token)?,
            }),
            None => None,
        };
        let threshold = threshold(args.pressure_threshold.or(file.pressure_threshold))?;
        let gone = args.remove_gone_after.or(file.remove_gone_after);
        Ok(Self {
            mode,
            serf: serf(args.serf.or(file.serf).as_deref(), mode)?,
            advertise: args.advertise.or(file.advertise),
            join,
            etcd: etcd::read(args.store, file.store, mode)?,
            vault: issuer::read(args.issuer, file.issuer, mode)?,
            strict_join,
            announce_mdns: args.announce_mdns || file.announce_mdns.unwrap_or(false),
            remove_gone_after: gone_after(gone.as_deref())?,
            expect,
            name: args.name.or(file.name),
            api,
            api_tls: api_tls || tls.is_some(),
            tls,
            data_dir: args
                .data_dir
                .or(file.data_dir)
                .map_or_else(|| default_data_dir(mode), Ok)?,
            labels,
            allow_plain: args.allow_plain || file.allow_plain.unwrap_or(false),
            pressure_threshold: threshold,
            log_level: log_level(args.log_level.or(file.log_level))?,
            log_json: log_json(args.log_format.or(file.log_format))?,
        })
    }
}

fn log_level(given: Option<String>) -> Result<String, String> {
    let level = given.unwrap_or_else(|| "info".to_owned());
    let levels = ["error", "warn", "info", "debug", "trace"];
    one_of("--log-level", &level, &levels)
}

fn log_json(given: Option<String>) -> Result<bool, String> {
    let format = given.unwrap_or_else(|| "text".to_owned());
    Ok(one_of("--log-format", &format, &["text", "json"])? == "json")
}

/// The share of memory in use above which nothing new is started.
fn threshold(given: Option<f64>) -> Result<f64, String> {
    let threshold = given.unwrap_or(0.8);
    if (0.0..=1.0).contains(&threshold) {
        return Ok(threshold);
    }
    Err(format!(
        "--pressure-threshold: {threshold} is not between 0 and 1"
    ))
}

/// The labels of the file, and those of the command line above them.
fn labels(mut all: Labels, given: Option<&str>) -> Result<Labels, String> {
    let pairs = given.unwrap_or_default().split(',');
    for pair in pairs.filter(|p| !p.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("--labels: {pair:?} is not key=value"))?;
        all.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(all)
}

/// How the node lives, as the command line says.
fn mode(verb: Option<&Verb>, bootstrap: bool, worker: bool, joins: bool) -> Result<Mode, String> {
    match (verb, bootstrap) {
        (None, false) if joins && !worker => Ok(Mode::Join),
        (None, false) if worker => Ok(Mode::Worker),
        (Some(Verb::Server(_)), _) => Err("`server recover` starts nothing".to_owned()),
        (Some(_), _) | (None, true) if worker => Err("--role=worker goes with --join and --token-file, and with neither `dev` nor --bootstrap: a worker runs work for a server that is there".to_owned()),
        (Some(Verb::Dev), false) => Ok(Mode::Dev),
        (None, true) => Ok(Mode::Bootstrap),
        (Some(Verb::Dev), true) => Err("`dev` and --bootstrap exclude each other: `prismd dev` is for trying things, `prismd --bootstrap` keeps its work".to_owned()),
        (None, false) => Err("say how to start: `prismd dev` to try things, or `prismd --bootstrap` for a server that keeps its state, `prismd --join=SERVER:4200` for another server of a cluster, or `prismd --role=worker --join=SERVER:4200` to run work for one; `prismd --help` shows all".to_owned()),
    }
}

/// The same when several servers are to found a cluster together.
fn expect_mode(servers: u16, other: bool, joins: bool) -> Result<Mode, String> {
    if other {
        return Err("--bootstrap-expect goes with neither `dev`, --bootstrap nor --role=worker: it starts one of several servers that found a cluster together".to_owned());
    }
    if !(1..=7).contains(&servers) {
        return Err(format!(
            "--bootstrap-expect: a cluster is founded by 1 to 7 servers, not {servers}"
        ));
    }
    if servers > 1 && !joins {
        return Err("--bootstrap-expect needs --join: name the servers that found the cluster together, such as --join=a:4200,b:4200,c:4200".to_owned());
    }
    Ok(Mode::Expect)
}

/// After how long a server that is gone is taken out.
fn gone_after(given: Option<&str>) -> Result<Option<Duration>, String> {
    match given.unwrap_or("24h") {
        "never" => Ok(None),
        text => match prism_types::parse_duration(text) {
            Ok(time) if time.0 >= 1_000 => Ok(Some(Duration::from_millis(time.0))),
            Ok(_) => Err("--remove-gone-after: at least 1s, or `never`".to_owned()),
            Err(why) => Err(format!("--remove-gone-after: {why}, or `never`")),
        },
    }
}

/// Whether there is anything to be strict about.
fn strict(asked: bool, mode: Mode) -> Result<(), String> {
    match mode {
        _ if !asked => Ok(()),
        Mode::Join | Mode::Worker => Ok(()),
        Mode::Expect => Err("--strict-join does not go with --bootstrap-expect, which waits for every server that is named".to_owned()),
        Mode::Dev | Mode::Bootstrap => Err("--strict-join goes with --join: it is about the servers that are named there".to_owned()),
    }
}

/// Where members come to.
fn serf(given: Option<&str>, mode: Mode) -> Result<Option<SocketAddr>, String> {
    let Some(text) = given else {
        return Ok(None);
    };
    if mode == Mode::Worker {
        return Err("--serf is for servers: a worker dials out and opens no port".to_owned());
    }
    let wrong = |_| {
        format!(
            "--serf: {text:?} is not an address: expected one such as 0.0.0.0:4200 or [::]:4200"
        )
    };
    text.parse().map(Some).map_err(wrong)
}

/// The servers that a node joins.
fn servers(given: Option<&str>, mode: Mode) -> Result<Vec<String>, String> {
    let all: Vec<String> = given
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|server| !server.is_empty())
        .map(str::to_owned)
        .collect();
    match (mode, all.is_empty()) {
        (Mode::Worker, true) => Err(
            "--role=worker needs --join: say where its server is, such as --join=first-node:4200"
                .to_owned(),
        ),
        (Mode::Dev | Mode::Bootstrap, false) => Err(
            "--join goes with neither `dev` nor --bootstrap: whoever joins a cluster does not begin one"
                .to_owned(),
        ),
        (Mode::Expect, _) if all.iter().any(|server| server == "mdns") => Err(
            "--join: servers that found a cluster together are named, and not looked for by mdns"
                .to_owned(),
        ),
        _ => match all.iter().find(|server| !has_port(server) && *server != "mdns") {
            Some(bad) => Err(format!(
                "--join: {bad:?} is not HOST:PORT, such as first-node:4200 or [fd00::1]:4200, nor mdns"
            )),
            None => Ok(all),
        },
    }
}

fn has_port(server: &str) -> bool {
    server
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0))
}

/// The token in a file; `None` when there is no such file, as after it was removed from a machine that has joined.
fn token<T: std::str::FromStr<Err = String>>(path: &Path) -> Result<Option<T>, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => match text.parse() {
            Ok(token) => Ok(Some(token)),
            Err(why) => Err(format!("--token-file: {}: {why}", path.display())),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("--token-file: cannot read {}: {e}", path.display())),
    }
}

pub(crate) fn one_of(what: &str, given: &str, known: &[&str]) -> Result<String, String> {
    if known.contains(&given) {
        return Ok(given.to_owned());
    }
    let hint = nearest(given, known.iter().copied())
        .map_or_else(String::new, |n| format!("; did you mean {n:?}"));
    Err(format!(
        "{what}: {given:?} is none of {}{hint}",
        known.join(", ")
    ))
}

fn read_file(path: &Path) -> Result<File, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let file: File = toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    if let Some(key) = file.unknown.keys().next() {
        let known = || {
            let all = FILE_KEYS.into_iter().chain(etcd::FILE_KEYS);
            all.chain(issuer::FILE_KEYS)
        };
        let hint =
            nearest(key, known()).map_or_else(String::new, |n| format!("; did you mean {n:?}"));
        return Err(format!(
            "{}: unknown key {key:?}{hint}; known are {}",
            path.display(),
            known().collect::<Vec<_>>().join(", ")
        ));
    }
    Ok(file)
}

/// The files of a certificate for the API.
fn tls_files(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    authorities: Option<PathBuf>,
) -> Result<Option<TlsFiles>, String> {
    match (certificate, key, authorities) {
        (Some(certificate), Some(key), authorities) => Ok(Some(TlsFiles {
            certificate,
            key,
            authorities,
        })),
        (None, None, None) => Ok(None),
        _ => Err("--tls-cert and --tls-key go together, and --tls-ca with both".to_owned()),
    }
}

/// The address to listen on, and whether with TLS: off loopback nothing listens without.
fn api(given: Option<&str>, mode: Mode) -> Result<(SocketAddr, bool), String> {
    let text = given.unwrap_or(API);
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let address: Option<SocketAddr> = rest.trim_end_matches('/').parse().ok();
    let Some(address) = address.filter(|_| matches!(scheme, "" | "http" | "https")) else {
        return Err(format!(
            "--api: {text:?} is not an address: expected one such as 127.0.0.1:8008, 0.0.0.0:8008 or https://[::1]:8008"
        ));
    };
    let open = !address.ip().is_loopback();
    if open && scheme == "http" {
        return Err(format!(
            "--api: {address} is not a loopback address, and off loopback the API is served with TLS only: leave http:// out"
        ));
    }
    let taken =
        given.is_none() && mode == Mode::Dev && std::net::TcpListener::bind(address).is_err();
    let address = if taken {
        SocketAddr::new(address.ip(), 0)
    } else {
        address
    };
    Ok((address, open || scheme == "https"))
}

/// `/var/lib/prism` for root, the user's state directory for others; `dev` beside it.
fn default_data_dir(mode: Mode) -> Result<PathBuf, String> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let base = match set("XDG_STATE_HOME") {
        Some(dir) => dir.join("prism"),
        None if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/prism"),
        None => set("HOME")
            .ok_or(
                "neither HOME nor XDG_STATE_HOME is set: say where to keep data with --data-dir",
            )?
            .join(".local/state/prism"),
    };
    Ok(base.join(match mode {
        Mode::Dev => "dev",
        Mode::Bootstrap | Mode::Join | Mode::Expect => "server",
        Mode::Worker => "worker",
    }))
}
