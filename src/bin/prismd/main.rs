//! `prismd`: the daemon. Parses flags, environment and file, starts a node, waits for the end.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

mod etcd;
mod issuer;
mod settings;

use clap::{CommandFactory, FromArgMatches};
use prism_node::{Node, NodeConfig, NodeError};
use prism_types::{Fault, Reason};
use settings::{Args, Mode, Settings};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The configuration cannot be used.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let armed = prism_faults::arm();
    // Before any thread or runtime exists: a supervisor is single-threaded.
    prism_sandbox::maybe_supervise();
    prism_sys::memory::give_back_early();
    if std::env::var_os(prism_faults::VARIABLE).is_some_and(|v| v == "list") {
        print!("{}", prism_faults::list());
        return ExitCode::SUCCESS;
    }
    let args = Args::command()
        .try_get_matches()
        .and_then(|m| Args::from_arg_matches(&m));
    let args = match args {
        Ok(args) => args,
        Err(e) => return prism_cli::wrong_line(&e),
    };
    match args.recover() {
        None => {}
        Some(Ok((data, yes))) => return prism_cli::recover(&data, yes),
        Some(Err(why)) => return prism_cli::fail(Fault::Usage.as_code(), EXIT_USAGE, &why, None),
    }
    let settings = match Settings::read(args) {
        Ok(settings) => settings,
        Err(message) => {
            let message = format!("{message}; nothing was started");
            let code = Fault::Usage.as_code();
            return prism_cli::fail(code, EXIT_USAGE, &message, Some("prismd --help"));
        }
    };
    start_logging(&settings);
    match armed {
        Ok(Some(faults)) => tracing::warn!(
            faults,
            "FAILPOINTS ARE ARMED: this server fails on purpose; unset PRISM_FAULTS to run it for work"
        ),
        Ok(None) => {}
        Err(why) => {
            let message = format!("{why}; nothing was started");
            return prism_cli::fail(Fault::Usage.as_code(), EXIT_USAGE, &message, None);
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            let message = format!("cannot start threads: {e}; nothing was started");
            return prism_cli::fail(Reason::Internal.as_code(), 1, &message, None);
        }
    };
    match runtime.block_on(serve(settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed {
            code,
            message,
            next,
        }) => prism_cli::fail(code, 1, &message, next),
    }
}

/// Why the daemon ends: the code of its page, what failed, and the command to run next.
struct Failed {
    code: &'static str,
    message: String,
    next: Option<&'static str>,
}

impl From<NodeError> for Failed {
    fn from(e: NodeError) -> Self {
        Self {
            code: e.code(),
            message: e.to_string(),
            next: Some(e.next()),
        }
    }
}

fn start_logging(settings: &Settings) {
    // The consensus library tells its whole life at `info`.
    let level = settings.log_level.parse().unwrap_or(LevelFilter::INFO);
    let filter = Targets::new()
        .with_default(level)
        .with_target("openraft", level.min(LevelFilter::WARN));
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // Told to standard error itself, which panics where that cannot be written, such as a file on a full disk.
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry();
    if settings.log_json {
        registry.with(log.json().with_filter(filter)).init();
    } else {
        let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
        registry
            .with(log.with_ansi(ansi).with_filter(filter))
            .init();
    }
}

/// What the node is told, whatever it is.
fn node_config(settings: &Settings) -> NodeConfig {
    let mut config = NodeConfig::new(settings.data_dir.clone());
    config.name = settings.name.clone();
    config.labels = settings.labels.clone();
    config.api = settings.api;
    config.api_tls = settings.api_tls;
    config.tls = settings.tls.clone();
    config.allow_plain = settings.allow_plain;
    config.pressure_threshold = settings.pressure_threshold;
    config.serf = settings.serf;
    config.advertise = settings.advertise.clone();
    config.etcd = settings.etcd.clone();
    config.vault = settings.vault.clone();
    config.strict_join = settings.strict_join;
    config.announce_mdns = settings.announce_mdns;
    config.remove_gone_after = settings.remove_gone_after;
    config.runs_end_with_node = settings.mode == Mode::Dev;
    config
}

async fn serve(settings: Settings) -> Result<(), Failed> {
    let mut config = node_config(&settings);
    config.token_name = match settings.mode {
        Mode::Dev => "dev".to_owned(),
        Mode::Bootstrap => "bootstrap".to_owned(),
        Mode::Join | Mode::Expect => {
            config.join = Some(settings.join.clone());
            config.expect = settings.expect;
            format!(
                "server-{}",
                settings.name.as_ref().map_or("other", |n| n.as_str())
            )
        }
        Mode::Worker => return work(config, settings).await,
    };
    let mut node = prism_node::start(config).await?;
    // Before anybody is told that it is ready: whoever knows may end it at once, and then it ends in order.
    let mut end = End::listen();
    let told = tokio::select! {
        told = announce(&settings, &node) => told,
        () = end.asked() => {
            node.stop().await;
            return Ok(());
        }
    };
    if let Err(message) = told {
        node.stop().await;
        return Err(Failed {
            code: Fault::Contexts.as_code(),
            message: format!("{message}; the node was stopped again"),
            next: Some("name another place for it in XDG_CONFIG_HOME"),
        });
    }
    let failed = tokio::select! {
        outcome = node.failed() => Some(outcome),
        () = end.asked() => None,
    };
    if let Some(Err(e)) = failed {
        if let prism_node::ControlError::TakenOut(_) = &e {
            return Err(NodeError::Control(e).into());
        }
        let cause = std::error::Error::source(&e)
            .map(|c| format!(": {c}"))
            .unwrap_or_default();
        let (fault, next) = match settings.etcd {
            Some(_) => (Fault::Etcd, "see etcd, then start prismd again"),
            None => (
                Fault::DiskFailed,
                "see the disk of the data directory, then start prismd again",
            ),
        };
        return Err(Failed {
            code: fault.as_code(),
            message: format!("the leader stopped: {e}{cause}; what runs goes on"),
            next: Some(next),
        });
    }
    tracing::info!("stopping");
    node.stop().await;
    Ok(())
}

/// The life of a node that runs work for a server.
async fn work(config: NodeConfig, settings: Settings) -> Result<(), Failed> {
    let node = prism_node::start_worker(config, settings.join).await?;
    let mut end = End::listen();
    let (name, cluster, data) = (&node.name, node.cluster, settings.data_dir.display());
    // Whoever started it may not listen any more; that is no reason to end.
    let _ = writeln!(
        std::io::stdout(),
        "prismd is ready: worker {name} of cluster {cluster}\n  data     {data}\n  \
         what it runs goes on when it is stopped, and is taken up again at the next start"
    );
    end.asked().await;
    tracing::info!("stopping");
    node.stop().await;
    Ok(())
}

/// The API's address, as those who use it from here write it.
fn reached(node: &Node) -> String {
    let (ip, port) = (node.api.ip(), node.api.port());
    let scheme = if node.tls { "https" } else { "http" };
    let here = match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("{scheme}://{}", SocketAddr::new(here, port))
}

/// Tells people and `prismctl` how to reach the node.
async fn announce(settings: &Settings, node: &Node) -> Result<(), String> {
    node.ready().await;
    let api = reached(node);
    let name = match settings.mode {
        Mode::Dev => "dev".to_owned(),
        Mode::Bootstrap | Mode::Join | Mode::Expect | Mode::Worker => settings
            .name
            .as_ref()
            .map_or_else(|| "local".to_owned(), ToString::to_string),
    };
    let context = prism_cli::context::Context {
        api: api.clone(),
        token: Some(node.token.clone()),
        pin: node
            .pin
            .map(|pin| pin.0.iter().map(|b| format!("{b:02x}")).collect()),
        ..Default::default()
    };
    let parsed = name.parse().map_err(|e| format!("{e}"))?;
    let path = prism_cli::context::save(&parsed, context, true).map_err(|e| e.to_string())?;
    let ends = match settings.mode {
        Mode::Dev => "Ctrl-C ends it and everything it runs",
        Mode::Bootstrap | Mode::Join | Mode::Expect | Mode::Worker => {
            "what it runs goes on when it is stopped, and is taken up again at the next start"
        }
    };
    let (data, saved) = (settings.data_dir.display(), path.display());
    let members = node.serf.as_ref().map_or_else(String::new, |address| {
        format!("\n  members  come to {address}; let one join with: prismctl server join-token")
    });
    // Whoever started it may not listen any more; that is no reason to end.
    let _ = writeln!(
        std::io::stdout(),
        "prismd is ready: {api}\n  data     {data}\n  context  {name} (in {saved}): prismctl uses it from now on{members}\n  \
         try      prismctl info\n  {ends}"
    );
    Ok(())
}

/// Signals that ask for the end; what comes from the moment it listens is not lost.
struct End([Option<Signal>; 2]);

impl End {
    fn listen() -> Self {
        Self([SignalKind::interrupt(), SignalKind::terminate()].map(|kind| {
            let listening = signal(kind);
            let warn = |e: &std::io::Error| {
                tracing::warn!(error = %e, ?kind, "a signal cannot be waited for: it ends this process at once");
            };
            listening.inspect_err(warn).ok()
        }))
    }

    async fn asked(&mut self) {
        let one = async |signal: &mut Option<Signal>| match signal {
            Some(signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        };
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            () = one(interrupt) => {}
            () = one(terminate) => {}
        }
    }
}
