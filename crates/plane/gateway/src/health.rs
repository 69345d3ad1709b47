//! `/health` and `/metrics`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use prism_api::HealthView;
use prism_control::Seat;
use prism_types::{NodeState, SandboxState, TaskState};

use crate::answer;
use crate::app::App;
use crate::ask::Ask;
use crate::config::{DiskGauge, DiskRoom};
use crate::desk::Desk;
use crate::gossip_metrics;
use crate::metrics::{Text, label};
use crate::refuse::Answered;

pub(crate) async fn get(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    if let Some(DiskRoom::Full(why)) = app.config.disk.as_ref().map(DiskGauge::read) {
        return full(app, ask, why);
    }
    let status = app.control.store().status();
    let (initialised, nodes) = app
        .control
        .read(|s| {
            let healthy = s.nodes().filter(|n| n.record().state == NodeState::Healthy);
            (s.cluster().is_some(), healthy.count())
        })
        .await;
    let mut reasons = Vec::new();
    if !status.leader {
        reasons.push("this server does not lead the store; changes are refused".to_owned());
    }
    if !initialised {
        reasons.push("the cluster has not been initialised yet".to_owned());
    }
    let ready = reasons.is_empty();
    if let Some(store) = &app.config.store {
        reasons.extend(store.read().warnings);
    }
    if nodes == 0 {
        reasons.push("no healthy node: work is accepted and waits".to_owned());
    }
    let mut response = answer::json(&HealthView {
        live: true,
        ready,
        reasons,
        version: app.config.version.clone(),
    })?;
    if !ready && !ask.query.flag("always") {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

/// Of a server that does not lead: it is ready when it knows who does.
pub(crate) fn following(desk: &Desk, request: &Request<Body>) -> Answered<Response<Body>> {
    let ready = matches!(desk.ground.seats.now(), Seat::There(_));
    let reason = if ready {
        "another server leads; requests are handed on to it".to_owned()
    } else {
        desk.nobody().rejection.message
    };
    let mut reasons = vec![reason];
    if let Some(store) = &desk.common.config.store {
        reasons.extend(store.read().warnings);
    }
    let mut response = answer::json(&HealthView {
        live: true,
        ready,
        reasons,
        version: desk.common.config.version.clone(),
    })?;
    let always = request.uri().query().is_some_and(|q| q.contains("always"));
    if !ready && !always {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

/// The state is locked until there is room, so nothing of it is asked.
fn full(app: &App, ask: &Ask, why: String) -> Answered<Response<Body>> {
    let mut response = answer::json(&HealthView {
        live: true,
        ready: false,
        reasons: vec![why],
        version: app.config.version.clone(),
    })?;
    if !ask.query.flag("always") {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

pub(crate) async fn metrics(app: &Arc<App>) -> Answered<Response<Body>> {
    let mut text = Text::default();
    let version = label(&app.config.version);
    text.head("prism_build_info", "gauge", "Version of this server.");
    text.sample("prism_build_info", &format!("version=\"{version}\""), 1);
    app.metrics.write(&mut text);
    let members = app.config.authority.as_ref().map(|a| a.refused());
    app.metrics
        .write_refused(&members.unwrap_or_default(), &mut text);
    work(app, &mut text).await;
    nodes(app, &mut text).await;
    store(app, &mut text);
    gossip_metrics::write(app, &mut text).await;
    control(app, &mut text);
    process(&mut text).await;
    Ok(answer::of(
        "text/plain; version=0.0.4; charset=utf-8",
        text.into_string(),
    ))
}

async fn work(app: &Arc<App>, text: &mut Text) {
    let (tasks, jobs, sandboxes) = app
        .control
        .read(|s| {
            let mut tasks = [0u64; TaskState::ALL.len()];
            let mut jobs = std::collections::BTreeMap::new();
            for job in s.jobs() {
                *jobs.entry(job.record().state).or_insert(0u64) += 1;
                for (sum, state) in tasks.iter_mut().zip(TaskState::ALL) {
                    *sum += u64::from(job.counts().of(*state));
                }
            }
            let mut sandboxes = std::collections::BTreeMap::new();
            for sandbox in s.sandboxes() {
                *sandboxes.entry(sandbox.state).or_insert(0u64) += 1;
            }
            (tasks, jobs, sandboxes)
        })
        .await;
    text.head("prism_tasks", "gauge", "Tasks that are known, by state.");
    for (count, state) in tasks.iter().zip(TaskState::ALL) {
        text.sample("prism_tasks", &format!("state=\"{state}\""), count);
    }
    text.head(
        "prism_jobs",
        "gauge",
        "Jobs and sweeps that are known, by state.",
    );
    for state in prism_types::JobState::ALL {
        let count = jobs.get(state).copied().unwrap_or(0);
        text.sample("prism_jobs", &format!("state=\"{state}\""), count);
    }
    text.head(
        "prism_sandboxes",
        "gauge",
        "Sandboxes that are known, by state.",
    );
    for state in SandboxState::ALL {
        let count = sandboxes.get(state).copied().unwrap_or(0);
        text.sample("prism_sandboxes", &format!("state=\"{state}\""), count);
    }
}

async fn nodes(app: &Arc<App>, text: &mut Text) {
    let known: Vec<_> = app
        .control
        .read(|s| {
            s.nodes()
                .map(|n| (n.record().id, n.record().name.clone(), n.record().state))
                .collect()
        })
        .await;
    text.head("prism_nodes", "gauge", "Nodes by state.");
    for state in NodeState::ALL {
        let count = known.iter().filter(|(_, _, s)| s == state).count();
        text.sample("prism_nodes", &format!("state=\"{state}\""), count);
    }
    let live: Vec<_> = known
        .iter()
        .filter_map(|(id, name, _)| Some((name, app.control.readings(*id)?.readings)))
        .collect();
    let mut gauge =
        |name: &str, help: &str, value: &dyn Fn(&prism_link::Readings) -> Option<f64>| {
            text.head(name, "gauge", help);
            for (node, readings) in &live {
                if let Some(value) = value(readings) {
                    text.sample(name, &format!("node=\"{node}\""), value);
                }
            }
        };
    gauge(
        "prism_node_cpu_busy",
        "Busy share of all processors.",
        &|r| r.cpu,
    );
    gauge("prism_node_load1", "Load average over one minute.", &|r| {
        r.load.map(|l| l[0])
    });
    gauge("prism_node_memory_used_bytes", "Memory in use.", &|r| {
        r.memory_used.map(lossy)
    });
    gauge("prism_node_memory_total_bytes", "Physical memory.", &|r| {
        r.memory_total.map(lossy)
    });
    gauge("prism_node_disk_used_bytes", "Disk in use.", &|r| {
        r.disk_used.map(lossy)
    });
    gauge("prism_node_disk_total_bytes", "Size of the disk.", &|r| {
        r.disk_total.map(lossy)
    });
    gauge("prism_node_tasks_running", "Tasks that run.", &|r| {
        Some(r.running.into())
    });
    gauge(
        "prism_node_pressure",
        "Whether the pressure guard refuses work.",
        &|r| Some(f64::from(u8::from(r.pressure))),
    );
}

/// Bytes as Prometheus has them: a floating-point number.
#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus samples are f64; sizes below 8 PiB are exact"
)]
fn lossy(n: u64) -> f64 {
    n as f64
}

fn store(app: &Arc<App>, text: &mut Text) {
    let status = app.control.store().status();
    text.single(
        "prism_store_revision",
        "gauge",
        "Revision of the store: one for each commit since it was made.",
        status.revision.0,
    );
    text.single(
        "prism_store_keys",
        "gauge",
        "Keys in the store.",
        status.keys,
    );
    text.single(
        "prism_store_fence",
        "gauge",
        "Number of the latest leadership.",
        status.fence.0,
    );
    text.single(
        "prism_store_leader",
        "gauge",
        "Whether this server leads.",
        u8::from(status.leader),
    );
}

fn control(app: &App, text: &mut Text) {
    let n = app.control.numbers();
    for (name, help, value) in [
        (
            "prism_control_commits_total",
            "Commits of this leader; each is one write to disk.",
            n.rounds,
        ),
        (
            "prism_control_commands_total",
            "Commands carried out.",
            n.commands,
        ),
        (
            "prism_control_rejected_total",
            "Commands refused.",
            n.rejected,
        ),
        (
            "prism_control_bytes_total",
            "Bytes of keys and values committed.",
            n.bytes,
        ),
        (
            "prism_control_commit_microseconds_total",
            "Time spent waiting for commits.",
            n.commit_us,
        ),
    ] {
        text.single(name, "counter", help, value);
    }
}

async fn process(text: &mut Text) {
    if let Ok(status) = tokio::fs::read_to_string("/proc/self/status").await {
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        if let Some(kib) = field("VmRSS:") {
            let name = "process_resident_memory_bytes";
            text.single(name, "gauge", "Memory of this process.", kib * 1024);
        }
        if let Some(threads) = field("Threads:") {
            text.single(
                "process_threads",
                "gauge",
                "Threads of this process.",
                threads,
            );
        }
    }
    if let Ok(mut entries) = tokio::fs::read_dir("/proc/self/fd").await {
        let mut open = 0u64;
        while let Ok(Some(_)) = entries.next_entry().await {
            open += 1;
        }
        text.single(
            "process_open_fds",
            "gauge",
            "Open file descriptors of this process.",
            open,
        );
    }
}
