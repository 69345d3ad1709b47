//! `/sandboxes/{id}/files`: read, listed, written, removed, all by the node; paths are checked here first.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use prism_api::{FileList, Written};
use prism_spec::TASK_DIR;
use prism_state::Subject;

use crate::app::App;
use crate::ask::Ask;
use crate::refuse::{Answered, Refusal};
use crate::sandboxes::place;
use crate::{answer, output, stream};

/// Longest path, bytes.
const PATH_MAX: usize = 4096;

/// The `path` of the request, beneath the working directory if it is relative. The node opens it beneath the sandbox's root in any case; `..` is refused early and clearly.
fn path_of(ask: &Ask) -> Answered<String> {
    let bad =
        |why: &str| Refusal::invalid(format!("query parameter path {why}")).detail("field", "path");
    let path = ask
        .query
        .text("path")
        .ok_or_else(|| bad("is missing; give the path in the sandbox"))?;
    if path.is_empty() || path.len() > PATH_MAX {
        return Err(bad(&format!("is to have 1 to {PATH_MAX} bytes")));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(bad("has `..`; give the path without it"));
    }
    if path.split('/').any(|part| part.len() > 255) {
        return Err(bad("has a name of more than 255 bytes"));
    }
    match path.starts_with('/') {
        true => Ok(path.to_owned()),
        false => Ok(format!("{TASK_DIR}/{path}")),
    }
}

pub(crate) async fn get(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let path = path_of(ask)?;
    let place = place(app, ask, false).await?;
    let listed = if ask.query.flag("stat") {
        vec![place.node.file_stat(place.id, path.clone()).await?]
    } else if ask.query.flag("list") {
        place.node.file_list(place.id, path.clone()).await?
    } else {
        let offset = ask.query.number("offset").unwrap_or(0);
        let first = place
            .node
            .file_read(place.id, path.clone(), offset, app.streams.piece())
            .await?;
        let copy = move |sink: stream::Sink| async move {
            let mut chunk = first;
            loop {
                let next = chunk.offset + chunk.data.len() as u64;
                let over = chunk.end || chunk.data.is_empty();
                if sink.send(chunk.data).await.is_err() || over {
                    return;
                }
                chunk = match place
                    .node
                    .file_read(place.id, path.clone(), next, sink.piece())
                    .await
                {
                    Ok(chunk) => chunk,
                    Err(e) => return sink.break_off(&e.message).await,
                };
            }
        };
        return Ok(stream::answer(app, "application/octet-stream", copy));
    };
    let entries = listed.into_iter().map(output::file).collect();
    answer::json(&FileList { path, entries })
}

pub(crate) async fn put(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let path = path_of(&ask)?;
    let mode = match ask.query.text("mode") {
        None => 0o644,
        Some(text) => u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| {
                Refusal::invalid("query parameter mode is to be octal permission bits, 0 to 777")
                    .detail("field", "mode")
            })?,
    };
    let place = place(app, &ask, false).await?;
    let bytes = ask.body.len() as u64;
    if ask.query.flag("mkdir") {
        if bytes > 0 {
            return Err(Refusal::invalid(
                "a directory that is made has no content; send no body",
            ));
        }
        let work = place.node.file_mkdir(place.id, path.clone());
        app.on_node(&ask, Subject::Sandbox(place.id), work).await?;
    } else {
        let work = place
            .node
            .file_write(place.id, path.clone(), ask.body.clone(), mode);
        app.on_node(&ask, Subject::Sandbox(place.id), work).await?;
    }
    answer::json(&Written { path, bytes })
}

pub(crate) async fn delete(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let path = path_of(ask)?;
    let place = place(app, ask, false).await?;
    let work = place.node.file_remove(place.id, path);
    app.on_node(ask, Subject::Sandbox(place.id), work).await?;
    Ok(answer::nothing())
}
