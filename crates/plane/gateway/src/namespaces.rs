//! `/namespaces`: their quotas, and what of them is in use.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use prism_api::{NamespaceView, QuotaView, UsageView};
use prism_state::{Command, NamespaceRecord, Quota, Sight, Usage};
use prism_types::{Name, Outcome, Reason, Rejection};

use crate::answer;
use crate::app::App;
use crate::ask::Ask;
use crate::list;
use crate::refuse::{Answered, Refusal};

fn view(record: &NamespaceRecord, used: Usage) -> NamespaceView {
    let quota = record.quota;
    NamespaceView {
        name: record.name.clone(),
        quota: QuotaView {
            cpu: quota.cpu,
            memory: quota.memory,
            disk: quota.disk,
            instances: quota.instances,
            sandboxes: quota.sandboxes,
        },
        used: UsageView {
            cpu: used.resources.cpu,
            memory: used.resources.memory,
            disk: used.resources.disk,
            instances: used.instances,
            sandboxes: used.sandboxes,
            jobs: used.jobs,
        },
        created: record.created,
    }
}

pub(crate) async fn list(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let views: Vec<NamespaceView> = app
        .control
        .read(|s| {
            let there = s.namespaces().filter(|(r, _)| ask.sees(&r.name));
            there.map(|(record, used)| view(record, used)).collect()
        })
        .await;
    let at = |n: &NamespaceView| n.name.to_string();
    answer::json(&list::slice(ask, views, "n", at)?)
}

async fn by_name(app: &App, text: &str, sight: &Sight) -> Answered<Response<Body>> {
    let found = app.control.read(|s| {
        let record = s.find_namespace(text, sight)?;
        Ok::<_, Refusal>(view(record, s.usage(&record.name)))
    });
    answer::json(&found.await?)
}

pub(crate) async fn get(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    by_name(app, ask.param("name")?, &ask.sight()).await
}

pub(crate) async fn put(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let text = ask.param("name")?;
    let name: Name = text.parse().map_err(|why: prism_types::NameError| {
        Refusal::new(Reason::Invalid, why.to_string()).detail("field", "name")
    })?;
    let quota = if ask.body.is_empty() {
        Quota::default()
    } else {
        let body: prism_api::Quota = ask.json()?;
        Quota {
            cpu: body.cpu,
            memory: body.memory,
            disk: body.disk,
            instances: body.instances,
            sandboxes: body.sandboxes,
        }
    };
    let new = ask.query.given("new");
    let command = Command::PutNamespace {
        name: name.clone(),
        quota,
        new,
    };
    app.propose(&ask, command).await?;
    let there = |s: &prism_state::State| {
        let record = s.namespace(&name);
        record.map(|record| view(record, s.usage(&name)))
    };
    match app.control.read(there).await {
        Some(view) => answer::json(&view),
        None => Err(Rejection {
            outcome: Outcome::Applied,
            ..Rejection::new(
                Reason::NotFound,
                format!("namespace {name} was put as asked, and removed by another request since"),
            )
        }
        .into()),
    }
}

pub(crate) async fn remove(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    // Whether it is there is decided with the removal itself: a repetition under the same key is to get the same answer, and not that
    // there is none any more.
    let text = ask.param("name")?;
    let Ok(name) = text.parse::<Name>() else {
        return by_name(app, text, &ask.sight()).await;
    };
    app.propose(&ask, Command::RemoveNamespace { name }).await?;
    Ok(answer::nothing())
}
