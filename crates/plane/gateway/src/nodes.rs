//! `/nodes`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use prism_api::{
    DrainBody, DrainView, NodeFactsView, NodeHealth, NodeReadings, NodeResources, NodeView, Op,
};
use prism_control::Control;
use prism_link::{NodeFacts, Readings};
use prism_state::{Command, IdempotencyKey, Node, Phase, State, answered};
use prism_types::{Millis, NodeState, Reason, parse_duration};

use crate::app::App;
use crate::ask::Ask;
use crate::refuse::{Answered, Refusal};
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

fn drain_view(node: &Node) -> Option<DrainView> {
    let drain = node.record().drain?;
    let phase = match drain.phase {
        Phase::Waiting => "waiting",
        Phase::Stopping => "stopping",
        Phase::Done => "done",
    };
    Some(DrainView {
        phase: phase.to_owned(),
        since: drain.since,
        deadline: drain.deadline,
        tasks: node.tasks(),
        sandboxes: u32::try_from(node.sandboxes().len()).unwrap_or(u32::MAX),
    })
}

fn view(control: &Control, node: &Node) -> NodeView {
    let record = node.record();
    let live = control.readings(record.id);
    NodeView {
        id: record.id,
        name: record.name.to_string(),
        state: record.state,
        cordoned: record.cordoned,
        drain: drain_view(node),
        labels: record.labels.clone(),
        capacity: record.capacity,
        allocated: node.reserved(),
        readings: live.as_ref().map(|l| readings(&l.readings)),
        rtt_ms: live
            .as_ref()
            .and_then(|l| Some(l.round_trip?.as_secs_f64() * 1000.0)),
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
    let limit = list::limit(ask)?;
    let after: Option<String> = list::cursor(ask, "n")?;
    let page = |s: &State| -> Vec<NodeView> {
        let mut nodes: Vec<(&str, &Node)> = s
            .nodes()
            .filter(|n| filter.takes_labels(&n.record().labels))
            .map(|n| (n.record().name.as_str(), n))
            .filter(|(name, _)| after.as_ref().is_none_or(|after| *name > after.as_str()))
            .collect();
        // Of thousands only the page is put in order, and only what is on it is looked at.
        if nodes.len() > limit {
            nodes.select_nth_unstable_by_key(limit, |(name, _)| *name);
            nodes.truncate(limit + 1);
        }
        nodes.sort_unstable_by_key(|(name, _)| *name);
        let views = nodes.into_iter().map(|(_, n)| view(&app.control, n));
        views.collect()
    };
    let found = app.control.read(page).await;
    answer::json(&list::page(found, limit, "n", |n| n.name.clone()))
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
    if let Some(drain) = drain_view(node) {
        reasons.push(format!(
            "it is being emptied ({}: {} tasks and {} sandboxes are left); take work again: prismctl node uncordon {}",
            drain.phase, drain.tasks, drain.sandboxes, record.name
        ));
    } else if record.cordoned {
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

pub(crate) async fn cordon(app: &Arc<App>, op: Op, ask: Ask) -> Answered<Response<Body>> {
    let on = op == Op::NodeCordon;
    let text = ask.param("id")?;
    let id = app
        .control
        .read(|s| s.find_node(text).map(|n| n.record().id))
        .await?;
    let command = Command::Cordon { id, on };
    app.propose(&ask, command).await?;
    get(app, &ask).await
}

/// How long what runs on a node that is emptied may go on, unless it is said: as long as with Nomad.
const DRAIN_LIMIT: Millis = Millis(3_600_000);

pub(crate) async fn drain(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let body: DrainBody = ask.json()?;
    let limit = match body.deadline.as_deref() {
        None => Some(DRAIN_LIMIT),
        Some("none") => None,
        Some(text) => {
            let limit = parse_duration(text).map_err(|why| {
                Refusal::invalid(format!(
                    "deadline: {why}; or none, for until it ends by itself"
                ))
            });
            Some(limit.map_err(|why| why.detail("field", "deadline"))?)
        }
    };
    let text = ask.param("id")?;
    let id = app
        .control
        .read(|s| s.find_node(text).map(|n| n.record().id))
        .await?;
    let command = Command::Drain { id, limit };
    app.propose(&ask, command).await?;
    get(app, &ask).await
}

/// Forgets a node that has no work; one that has joined is no member any more, and is kept out.
pub(crate) async fn remove(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let text = ask.param("id")?;
    let found = |s: &State| {
        let node = s.find_node(text).map(|n| n.record().id);
        let mut members = s.members();
        let named = members.find(|m| m.name.as_str() == text || m.id.to_string() == text);
        match (node, named) {
            (Ok(id), _) => Ok((id, true, s.member(id).map(|m| m.role))),
            // A member that has never come, or was forgotten before.
            (Err(_), Some(m)) => Ok((m.id, false, Some(m.role))),
            (Err(why), None) => Err(why),
        }
    };
    // Of the two steps each has a key: a repetition does what is left of them, and nothing anew.
    let second = ask.key.clone().map(|key| IdempotencyKey {
        key: format!("{}#member", key.key).into(),
        ..key
    });
    let found = app.control.read(found).await;
    if found.is_err()
        && (was_done(app, ask.key.as_ref()).await? || was_done(app, second.as_ref()).await?)
    {
        return Ok(answer::nothing());
    }
    let (id, is_node, role) = found?;
    let is_worker = role == Some(prism_state::MemberRole::Worker);
    if role == Some(prism_state::MemberRole::Server) {
        let several = app.control.read(|s| s.servers().count() > 1).await;
        if several {
            return Err(Refusal::new(
                Reason::WrongState,
                format!(
                    "{text} is a server of the cluster; take it out with prismctl peer rm {text}"
                ),
            ));
        }
    }
    if !is_worker && app.control.node(id).is_some() {
        return Err(Refusal::new(
            Reason::WrongState,
            format!("node {text} is this server's own; it comes back as long as the server runs"),
        ));
    }
    if is_node {
        let command = Command::RemoveNode { id };
        app.propose(&ask, command).await?;
    }
    if is_worker {
        let command = Command::RemoveMember { id };
        let origin = ask.origin();
        app.control.propose_for(command, second, origin).await?;
    }
    Ok(answer::nothing())
}

/// Whether a request with this key was carried out before.
async fn was_done(app: &App, key: Option<&IdempotencyKey>) -> Answered<bool> {
    let Some(key) = key else { return Ok(false) };
    let now = app.control.now();
    let reply = app.control.read(|s| answered(s, key, now)).await?;
    Ok(reply.is_some())
}
