//! Ends that say nothing, or say that they live and do not read.

use std::time::Duration;

use prism_link::{NodeService, pair};
use prism_types::*;
use prism_wire::{WireError, carry_control};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::kit::{both, frame, greeted, sandbox, started};

#[tokio::test(start_paused = true)]
async fn life_is_shown_and_silence_ends_it() {
    let mut b = both(4096).await;
    // A day with nothing to say.
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    assert!(b.link.node.round_trip().is_some());
    b.worker.to_control.send(started(1)).await.unwrap();
    assert_eq!(b.control.from_worker.recv().await, Some(started(1)));
    assert!(!b.at_worker.is_finished() && !b.at_control.is_finished());
    // One that takes everything and says nothing.
    let (here, mut there) = duplex(4096);
    let (_control, worker_far) = pair();
    let silent = tokio::spawn(async move {
        there.write_all(b"PRSM\x01\0\x01\0").await.unwrap();
        let mut sink = vec![0; 4096];
        while there.read(&mut sink).await.unwrap() > 0 {}
    });
    let (_link, carried) = carry_control(here, worker_far).await.unwrap();
    assert!(matches!(carried.await, WireError::Silent(15)));
    silent.await.unwrap();
}

/// A machine whose power is gone, or a network that swallows everything: the connection stays open.
#[tokio::test(start_paused = true)]
async fn no_call_waits_for_a_node_that_has_fallen_silent() {
    let (here, mut there) = duplex(4096);
    let (control, worker_far) = pair();
    there.write_all(b"PRSM\x01\0\x01\0").await.unwrap();
    let (link, carried) = carry_control(here, worker_far).await.unwrap();
    let carried = tokio::spawn(carried);
    let node = link.node.named("w3");
    let begin = tokio::time::Instant::now();
    // It may wait for hours for the end of an exec, and not for a node that is not there.
    let hours = Some(Duration::from_secs(7_200));
    let refused = node.exec_info(sandbox(), "e1".into(), hours).await;
    let refused = refused.unwrap_err();
    let took = begin.elapsed();
    assert!((8..10).contains(&took.as_secs()), "{took:?}");
    assert_eq!(
        (refused.reason, refused.outcome),
        (Reason::Lost, Outcome::Unknown)
    );
    assert!(
        refused.message.contains("node w3 has said nothing for 8 s"),
        "{refused}"
    );
    // Who comes later is told at once, and that nothing was done.
    let refused = node.execs(sandbox()).await.unwrap_err();
    assert_eq!(begin.elapsed(), took);
    assert_eq!(
        (refused.reason, refused.outcome),
        (Reason::Lost, Outcome::NotApplied)
    );
    assert!(
        refused.retryable && refused.message.contains("node w3 has said nothing"),
        "{refused}"
    );
    // Calls that do not fit into what nobody reads any more are no exception: none is made.
    assert!(matches!(carried.await.unwrap(), WireError::Silent(15)));
    drop((there, control));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_greet_is_not_waited_for() {
    let (here, _there) = duplex(4096);
    let (_control, worker_far) = pair();
    let refused = carry_control(here, worker_far).await.map(drop);
    assert!(matches!(refused, Err(WireError::Silent(10))));
}

/// Its memory is bounded by what it keeps of signs, however many come.
#[tokio::test(start_paused = true)]
async fn signs_without_end_from_one_that_does_not_read_end_it() {
    let (here, mut there) = duplex(4096);
    let (_control, worker_far) = pair();
    let flood = tokio::spawn(async move {
        there.write_all(&greeted(&[])).await.unwrap();
        let ping = frame(5, 1, 7, b"");
        for _ in 0..200_000 {
            if there.write_all(&ping).await.is_err() {
                break;
            }
        }
        there
    });
    let (_link, carried) = carry_control(here, worker_far).await.unwrap();
    assert!(matches!(carried.await, WireError::Silent(15)));
    flood.await.unwrap();
}
