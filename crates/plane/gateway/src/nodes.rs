//! `/nodes`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use prism_api::{NodeFactsView, NodeHealth, NodeReadings, NodeResources, NodeView};
use prism_control::Control;
use prism_link::{NodeFacts, Readings};
use prism_state::{Command, Node};
use prism_types::NodeState;

use crate::app::App;
use crate::ask::Ask;
use crate::refuse::Answered;
use crate::{answer, list};

fn facts(facts: NodeFacts) -> NodeFactsView {
    NodeFactsView {
        os: facts.os,
        kernel: facts.kernel,
        arch: facts.arch,
        cpus: facts.cpus,
        memory_bytes: facts.memory.0,
        disk_bytes: facts.disk.0,
        version: facts.version,
        hostname: facts.hostname,
        sandbox: facts.sandbox,
        allow_plain: facts.allow_plain,
    }
}

fn readings(r: &Readings) -> NodeReadings {
    NodeReadings {
        cpu: r.cpu,
        load: r.load,
        memory_used: r.memory_used,
        memory_total: r.memory_total,
        disk_used: r.disk_used,
        disk_total: r.disk_total,
        running: r.running,
        waiting: r.waiting,
        sandboxes: r.sandboxes,
        pressure: r.pressure,
    }
}

fn view(control: &Control, node: &Node) -> NodeView {
    let record = node.record();
    let live = control.readings(record.id);
    NodeView {
        id: record.id,
        name: record.name.to_string(),
        state: record.state,
        cordoned: record.cordoned,
        labels: record.labels.clone(),
        capacity: record.capacity,
        allocated: node.reserved(),
        readings: live.as_ref().map(|l| readings(&l.readings)),
        last_heartbeat: live.as_ref().map(|l| l.last_heartbeat),
        connected: live.as_ref().map(|l| l.since),
        facts: live.map(|l| facts(l.facts)),
    }
}

pub(crate) fn resources_view(control: &Control, node: &Node) -> NodeResources {
    NodeResources {
        id: node.record().id,
        name: node.record().name.to_string(),
        capacity: node.record().capacity,
        allocated: node.reserved(),
        free: node.free(),
        readings: control
            .readings(node.record().id)
            .map(|l| readings(&l.readings)),
    }
}

pub(crate) async fn list(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let filter = list::Filter::of(ask)?;
    let mut all: Vec<NodeView> = app
        .control
        .read(|s| {
            s.nodes()
                .filter(|n| filter.takes(&n.record().labels, "default"))
                .map(|n| view(&app.control, n))
                .collect()
        })
        .await;
    all.sort_by(|a, b| a.name.cmp(&b.name));
    answer::json(&list::slice(ask, all, "n", |n| n.name.clone())?)
}

pub(crate) async fn get(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let id = ask.param("id")?;
    let found = app
        .control
        .read(|s| s.find_node(id).map(|n| view(&app.control, n)))
        .await?;
    answer::json(&found)
}

pub(crate) async fn resources(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let id = ask.param("id")?;
    let found = app
        .control
        .read(|s| s.find_node(id).map(|n| resources_view(&app.control, n)))
        .await?;
    answer::json(&found)
}

pub(crate) async fn health(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let id = ask.param("id")?;
    let found = app
        .control
        .read(|s| s.find_node(id).map(|n| health_view(&app.control, n)))
        .await?;
    answer::json(&found)
}

pub(crate) fn health_view(control: &Control, node: &Node) -> NodeHealth {
    let record = node.record();
    let live = control.readings(record.id);
    let mut reasons = Vec::new();
    match record.state {
        NodeState::Healthy => {}
        NodeState::Suspect => reasons.push("its heartbeat is late".to_owned()),
        NodeState::Offline => {
            reasons.push("it has not been heard of for longer than its lease".to_owned());
        }
    }
    if record.cordoned {
        reasons.push(format!(
            "it is cordoned; take work again: prismctl node uncordon {}",
            record.name
        ));
    }
    match &live {
        None => reasons.push("it is not connected to this server".to_owned()),
        Some(live) if live.readings.pressure => {
            reasons.push("its memory or disk is under pressure".to_owned());
        }
        Some(_) => {}
    }
    NodeHealth {
        id: record.id,
        name: record.name.to_string(),
        state: record.state,
        ready: reasons.is_empty(),
        reasons,
        last_heartbeat: live.map(|l| l.last_heartbeat),
    }
}

pub(crate) async fn cordon(app: &Arc<App>, ask: Ask, on: bool) -> Answered<Response<Body>> {
    let text = ask.param("id")?;
    let id = app
        .control
        .read(|s| s.find_node(text).map(|n| n.record().id))
        .await?;
    let command = Command::Cordon { id, on };
    app.control.propose(command, ask.key.clone()).await?;
    get(app, &ask).await
}
