//! `/sandboxes/{id}/snapshots`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use prism_api::SnapshotView;
use prism_state::Subject;

use crate::app::App;
use crate::ask::Ask;
use crate::refuse::{Answered, Refusal};
use crate::sandboxes::place;
use crate::{answer, list, output};

pub(crate) async fn list(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let place = place(app, ask, true).await?;
    let all = place.node.snapshots(Some(place.id)).await?;
    let mut views: Vec<SnapshotView> = all.into_iter().map(output::snapshot).collect();
    views.sort_by(|a, b| a.id.cmp(&b.id));
    answer::json(&list::slice(ask, views, "p", |s| s.id.clone())?)
}

pub(crate) async fn create(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let place = place(app, &ask, false).await?;
    let take = async {
        let work = place.node.snapshot(place.id);
        let info = app.on_node(&ask, Subject::Sandbox(place.id), work).await?;
        let json = serde_json::to_vec(&output::snapshot(info)).map_err(|e| {
            Refusal::new(
                prism_types::Reason::Internal,
                format!("the answer cannot be written: {e}"),
            )
        })?;
        Ok(json.into())
    };
    let json = app.replays.once(ask.key.as_ref(), take).await?;
    Ok(answer::of("application/json", json))
}
