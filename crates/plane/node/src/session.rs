//! A server runs work too: its worker has a session with whoever leads, within this process or over the network.

use std::sync::Arc;
use std::time::Duration;

use prism_control::{Control, Seat, Seats};
use prism_link::NodeService;
use prism_members::House;
use prism_wire::{carry_greeted, greet_control};
use prism_worker::Worker;
use tokio_util::sync::CancellationToken;

use crate::node::Vital;
use crate::way::Way;

/// Between two sessions: a refused greeting must not spin.
const PAUSE: Duration = Duration::from_millis(200);

/// Joins worker and leader, again and again until the node stops: a session may end because one end did not keep up, or because
/// another server leads.
pub(crate) async fn keep(mut seats: Seats, way: Way, mut worker: Worker, stop: CancellationToken) {
    let _vital = Vital("the worker's session");
    let service = worker.service();
    while !stop.is_cancelled() {
        let pause = match (seats.look(), way.house()) {
            (Seat::Here(control), _) => {
                here(&seats, control, &mut worker, service.clone(), &stop).await;
                PAUSE
            }
            (Seat::There(leader), Some(house)) => {
                there(&seats, &house, &leader, &mut worker, service.clone(), &stop).await;
                PAUSE
            }
            _ => Duration::MAX,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = seats.changed() => {}
            () = stop.cancelled() => {}
        }
    }
}

/// With the leader in this process.
async fn here(
    seats: &Seats,
    control: Control,
    worker: &mut Worker,
    service: Arc<dyn NodeService>,
    stop: &CancellationToken,
) {
    let (control_end, worker_end) = prism_link::pair();
    let seats = seats.clone();
    let other = tokio::spawn(async move {
        tokio::select! {
            served = control.serve_worker(control_end, service) => if let Err(e) = served {
                tracing::error!(error = %e, "the worker's session was refused");
            },
            () = seats.over(&control) => {}
        }
    });
    worker.run(worker_end, stop.clone()).await;
    let _ended_or_panicked = other.await;
}

/// With the leader on another server.
async fn there(
    seats: &Seats,
    house: &House,
    leader: &str,
    worker: &mut Worker,
    service: Arc<dyn NodeService>,
    stop: &CancellationToken,
) {
    let dialling = async {
        let dialled = house.dial_session(leader).await;
        let dialled = dialled.map_err(|why| why.to_string())?;
        tracing::info!(server = %dialled.peer.holder.id, "connected to the leader");
        let greeted = greet_control(dialled.stream).await;
        greeted.map_err(|why| why.to_string())
    };
    let greeted = tokio::select! {
        greeted = dialling => greeted,
        () = stop.cancelled() => return,
    };
    let greeted = match greeted {
        Ok(greeted) => greeted,
        Err(why) => return tracing::info!(why, "no session with the leader yet"),
    };
    let (far, mut end) = prism_link::pair();
    end.resumes = greeted.resumes();
    let carried = tokio::spawn(carry_greeted(greeted, far, service));
    let mut seats = seats.clone();
    let over = async {
        while matches!(seats.look(), Seat::There(now) if now == leader) {
            seats.changed().await;
        }
    };
    let mut running = std::pin::pin!(worker.run(end, stop.clone()));
    tokio::select! {
        () = &mut running => carried.abort(),
        () = over => {
            // Its end of the link closes, and with it the session.
            carried.abort();
            running.await;
        }
    }
}
