//! `/images`: loaded from the file system of a node's host, which is why only operators may.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use prism_api::{ImageLoad, ImageView};
use prism_link::NodeService;
use prism_state::Subject;
use prism_types::Reason;

use crate::app::App;
use crate::ask::Ask;
use crate::refuse::{Answered, Refusal};
use crate::{answer, list};

/// Nodes that are connected, by name; or the one that is asked for.
async fn nodes(app: &App, wanted: Option<&str>) -> Answered<Vec<(String, Arc<dyn NodeService>)>> {
    let known = app
        .control
        .read(|s| match wanted {
            Some(text) => {
                let node = s.find_node(text)?.record();
                Ok(vec![(node.name.to_string(), node.id)])
            }
            None => Ok::<_, Refusal>(
                s.nodes()
                    .map(|n| (n.record().name.to_string(), n.record().id))
                    .collect(),
            ),
        })
        .await?;
    let live: Vec<_> = known
        .into_iter()
        .filter_map(|(name, id)| Some((name, app.control.node(id)?)))
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
    for (name, node) in nodes(app, body.node.as_deref()).await? {
        let work = node.image_load(body.path.clone(), body.name.clone());
        let loaded = app.on_node(ask, Subject::Cluster, work).await?;
        image = Some(loaded);
        done.push(name);
    }
    answer::json(&ImageView {
        name: image.unwrap_or_default(),
        nodes: done,
    })
}

pub(crate) async fn list(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let mut images: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // Without any node there is simply no image.
    for (name, node) in nodes(app, None).await.unwrap_or_default() {
        for image in node.images().await? {
            images.entry(image).or_default().push(name.clone());
        }
    }
    let views: Vec<ImageView> = images
        .into_iter()
        .map(|(name, nodes)| ImageView { name, nodes })
        .collect();
    answer::json(&list::slice(ask, views, "i", |i| i.name.clone())?)
}
