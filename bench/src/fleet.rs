//! Many sandboxes at once, over HTTP.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::stream::{StreamExt, TryStreamExt, iter};
use prism_client::Client;
use prism_types::SandboxState;

use crate::node::small;

/// Requests under way at once.
const ABREAST: usize = 256;

/// Makes sandboxes until so many run, or the time is over; answers their ids, in the order in which they were up. With them,
/// the first refusal, if there was one.
pub async fn up(
    client: &Client,
    count: usize,
    time: Duration,
) -> (Vec<String>, Option<anyhow::Error>) {
    let end = Instant::now() + time;
    let mut ids = Vec::with_capacity(count);
    let mut problem = None;
    let mut answers = iter((0..count).take_while(move |_| Instant::now() < end))
        .map(|_| one(client))
        .buffer_unordered(ABREAST);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(id) => ids.push(id),
            Err(e) => {
                problem.get_or_insert(e);
            }
        }
    }
    (ids, problem)
}

async fn one(client: &Client) -> Result<String> {
    let view = client.sandboxes().create(&small(), true).await?;
    let running = view.status == SandboxState::Running;
    ensure!(
        running,
        "a sandbox is {}: {}",
        view.status,
        view.message.unwrap_or_default()
    );
    Ok(view.id.to_string())
}

/// Asks for the end of all of them.
///
/// # Errors
/// The first refusal.
pub async fn down(client: &Client, ids: &[String]) -> Result<()> {
    let ends = iter(ids).map(|id| async move {
        client.sandboxes().delete(id).await?;
        Ok::<_, anyhow::Error>(())
    });
    ends.buffer_unordered(ABREAST).try_collect::<()>().await
}
