//! `/images`: loaded from the file system of a node's host, which is why only operators may.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use prism_api::{ImageLoad, ImageView};
use prism_link::NodeService;
use prism_state::{NodeRecord, Subject};
use prism_types::Reason;

use crate::app::App;
use crate::ask::Ask;
use crate::refuse::{Answered, Refusal};
use crate::{answer, list};

/// How long one node may hold up the list of what all have.
const NODE_WAIT: Duration = Duration::from_millis(500);

/// A node that is connected.
struct Live {
    name: String,
    service: Arc<dyn NodeService>,
    /// The images that it said to have when it greeted last.
    said: Vec<String>,
}

/// Nodes that are connected; or the one that is asked for.
async fn nodes(app: &App, wanted: Option<&str>) -> Answered<Vec<Live>> {
    let known: Vec<NodeRecord> = app
        .control
        .read(|s| match wanted {
            Some(text) => Ok(vec![s.find_node(text)?.record().clone()]),
            None => Ok::<_, Refusal>(s.nodes().map(|n| n.record().clone()).collect()),
        })
        .await?;
    let live: Vec<Live> = known
        .into_iter()
        .filter_map(|n| {
            Some(Live {
                service: app.control.node(n.id)?,
                name: n.name.to_string(),
                said: n.facts.images.into_iter().collect(),
            })
        })
        .collect();
    if live.is_empty() {
        return Err(Refusal::new(
            Reason::NoPlacement,
            "no such node is connected; nothing was changed, see prismctl node ls",
        )
        .retryable());
    }
    Ok(live)
}

pub(crate) async fn load(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let body: ImageLoad = ask.json()?;
    let absolute = body.path.starts_with('/') && body.path.len() <= 4096;
    if !absolute || body.path.contains('\0') || body.path.split('/').any(|p| p == "..") {
        return Err(Refusal::invalid(
            "path is to be an absolute path on the node's host, without `..`",
        )
        .detail("field", "path"));
    }
    let mut image: Option<String> = body.name.clone();
    let mut done = Vec::new();
    for node in nodes(app, body.node.as_deref()).await? {
        let work = node
            .service
            .image_load(body.path.clone(), body.name.clone());
        let loaded = app.on_node(ask, Subject::Cluster, work).await?;
        image = Some(loaded);
        done.push(node.name);
    }
    answer::json(&ImageView {
        name: image.unwrap_or_default(),
        nodes: done,
    })
}

pub(crate) async fn list(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let mut images: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // Without any node there is simply no image.
    let asked = nodes(app, None).await.unwrap_or_default();
    let asked = asked.into_iter().map(|node| async move {
        let told = tokio::time::timeout(NODE_WAIT, node.service.images()).await;
        // Of one that does not answer in time is told what it said itself before.
        let has = told.ok().and_then(Result::ok).unwrap_or(node.said);
        (node.name, has)
    });
    for (name, has) in futures::future::join_all(asked).await {
        for image in has {
            images.entry(image).or_default().push(name.clone());
        }
    }
    let views: Vec<ImageView> = images
        .into_iter()
        .map(|(name, nodes)| ImageView { name, nodes })
        .collect();
    answer::json(&list::slice(ask, views, "i", |i| i.name.clone())?)
}
