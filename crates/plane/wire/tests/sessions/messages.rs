//! Messages, in order and whole.

use prism_link::*;
use prism_types::*;
use prism_wire::WireError;

use crate::kit::{both, soon, started};

#[tokio::test]
async fn messages_arrive_in_order_both_ways() {
    let mut b = both(512).await;
    let sending = tokio::spawn(async move {
        for n in 0..3_000 {
            b.worker.to_control.send(started(n)).await.unwrap();
        }
        b.worker
    });
    for n in 0..3_000 {
        assert_eq!(soon(b.control.from_worker.recv()).await, Some(started(n)));
    }
    let mut worker = soon(sending).await.unwrap();
    let large = ToWorker::Assign {
        job: JobId::new(1, 1),
        lanes: 1,
        tasks: vec![AssignedTask {
            index: 0,
            attempt: 1,
            results: Some(vec![9; 3 << 20].into()),
        }],
    };
    b.control.to_worker.send(large.clone()).await.unwrap();
    b.control
        .to_worker
        .send(ToWorker::Ack(Vec::new()))
        .await
        .unwrap();
    assert_eq!(soon(worker.from_control.recv()).await, Some(large));
    assert_eq!(
        soon(worker.from_control.recv()).await,
        Some(ToWorker::Ack(Vec::new()))
    );
}

#[tokio::test]
async fn what_was_said_before_the_end_arrives() {
    let mut b = both(512).await;
    for n in 0..100 {
        b.worker.to_control.send(started(n)).await.unwrap();
    }
    drop(b.worker);
    for n in 0..100 {
        assert_eq!(soon(b.control.from_worker.recv()).await, Some(started(n)));
    }
    assert!(matches!(soon(b.at_worker).await.unwrap(), WireError::Over));
    assert!(matches!(
        soon(b.at_control).await.unwrap(),
        WireError::Closed
    ));
    assert_eq!(soon(b.control.from_worker.recv()).await, None);
    let refused = soon(b.link.node.images()).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Lost);
    assert!(refused.retryable && refused.outcome == Outcome::NotApplied);
}
