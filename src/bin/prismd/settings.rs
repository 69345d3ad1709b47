//! Settings of the daemon: a flag wins over the environment, that over the file, that over the default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use prism_types::{Labels, Name, nearest};
use serde::Deserialize;

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
    /// Name of this node, a-z 0-9 and - [default: the host's name]
    #[arg(long, global = true, env = "PRISM_NAME")]
    name: Option<Name>,
    /// Address of the API; only loopback addresses are taken [default: 127.0.0.1:8008, a free port for `dev` when that is taken]
    #[arg(long, global = true, env = "PRISM_API")]
    api: Option<String>,
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
    /// Configuration file (TOML)
    #[arg(long, global = true, env = "PRISM_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// One node on loopback for trying things; writes its credentials into prismctl's context `dev`
    Dev,
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    name: Option<Name>,
    api: Option<String>,
    data_dir: Option<PathBuf>,
    labels: BTreeMap<String, String>,
    allow_plain: Option<bool>,
    pressure_threshold: Option<f64>,
    log_level: Option<String>,
    log_format: Option<String>,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

const FILE_KEYS: [&str; 8] = [
    "name",
    "api",
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
}

/// Checked settings.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) name: Option<Name>,
    pub(crate) api: SocketAddr,
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
        let mode = match (&args.command, args.bootstrap) {
            (Some(Verb::Dev), false) => Mode::Dev,
            (None, true) => Mode::Bootstrap,
            (Some(Verb::Dev), true) => return Err("`dev` and --bootstrap exclude each other: `prismd dev` is for trying things, `prismd --bootstrap` keeps its work".to_owned()),
            (None, false) => return Err("say how to start: `prismd dev` to try things, or `prismd --bootstrap` for a server that keeps its state; `prismd --help` shows all".to_owned()),
        };
        let mut labels: Labels = file.labels;
        for pair in args
            .labels
            .iter()
            .flat_map(|l| l.split(','))
            .filter(|p| !p.is_empty())
        {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("--labels: {pair:?} is not key=value"))?;
            labels.insert(key.trim().to_owned(), value.trim().to_owned());
        }
        let threshold = args
            .pressure_threshold
            .or(file.pressure_threshold)
            .unwrap_or(0.8);
        if !(0.0..=1.0).contains(&threshold) {
            return Err(format!(
                "--pressure-threshold: {threshold} is not between 0 and 1"
            ));
        }
        let level = args
            .log_level
            .or(file.log_level)
            .unwrap_or_else(|| "info".to_owned());
        let format = args
            .log_format
            .or(file.log_format)
            .unwrap_or_else(|| "text".to_owned());
        Ok(Self {
            mode,
            name: args.name.or(file.name),
            api: api(args.api.or(file.api).as_deref(), mode)?,
            data_dir: args
                .data_dir
                .or(file.data_dir)
                .map_or_else(|| default_data_dir(mode), Ok)?,
            labels,
            allow_plain: args.allow_plain || file.allow_plain.unwrap_or(false),
            pressure_threshold: threshold,
            log_level: one_of(
                "--log-level",
                &level,
                &["error", "warn", "info", "debug", "trace"],
            )?,
            log_json: one_of("--log-format", &format, &["text", "json"])? == "json",
        })
    }
}

fn one_of(what: &str, given: &str, known: &[&str]) -> Result<String, String> {
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
        let hint =
            nearest(key, FILE_KEYS).map_or_else(String::new, |n| format!("; did you mean {n:?}"));
        return Err(format!(
            "{}: unknown key {key:?}{hint}; known are {}",
            path.display(),
            FILE_KEYS.join(", ")
        ));
    }
    Ok(file)
}

/// The address to listen on. Off loopback nothing listens without TLS, and this server has none yet.
fn api(given: Option<&str>, mode: Mode) -> Result<SocketAddr, String> {
    let text = given.unwrap_or(API);
    let address: SocketAddr = text.parse().map_err(|_| {
        format!(
            "--api: {text:?} is not an address: expected one such as 127.0.0.1:8008 or [::1]:8008"
        )
    })?;
    if !address.ip().is_loopback() {
        return Err(format!(
            "--api: {address} is not a loopback address, and the API has no TLS in this version; listen on 127.0.0.1 and reach it through an ssh tunnel: ssh -L 8008:127.0.0.1:8008 HOST"
        ));
    }
    let taken =
        given.is_none() && mode == Mode::Dev && std::net::TcpListener::bind(address).is_err();
    Ok(if taken {
        SocketAddr::new(address.ip(), 0)
    } else {
        address
    })
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
        Mode::Bootstrap => "server",
    }))
}
