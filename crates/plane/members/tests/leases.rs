//! A leader that does not know whether it still leads gives nobody more time for what may run once only.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod kit;

use std::sync::Arc;
use std::time::Duration;

use kit::{hello, nobody, node, until};
use prism_link::{ToControl, ToWorker, WorkerEnd, pair};
use prism_state::State;
use prism_store::Store;
use prism_store_kit::FakeStore;
use tokio_util::sync::CancellationToken;

/// The questions that are answered, up to and with this one.
async fn answered(worker: &mut WorkerEnd, last: u64) -> Vec<u64> {
    let mut all = Vec::new();
    while all.last() != Some(&last) {
        let order = tokio::time::timeout(Duration::from_secs(30), worker.from_control.recv());
        match order.await.unwrap() {
            Some(ToWorker::Renewed { sent }) => all.push(sent),
            Some(_) => {}
            None => panic!("the session ended after {all:?}"),
        }
    }
    all
}

/// ADR 18: a lease that a leader gave was asked for before that leader lost the lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lease_is_renewed_that_the_store_does_not_confirm() {
    let store = Arc::new(FakeStore::default());
    let (control, leader) = prism_control::open(store.clone()).await.unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(leader.run(stop.clone()));
    let (end, mut worker) = pair();
    let (served, service) = (control.clone(), nobody().await);
    tokio::spawn(async move { served.serve_worker(end, service).await });
    let to = worker.to_control.clone();
    let ask = |sent| {
        let to = to.clone();
        async move { to.send(ToControl::Renew { sent }).await.unwrap() }
    };
    let greeting = ToControl::Hello(Box::new(hello(7)));
    to.send(greeting).await.unwrap();
    assert!(until(|| async { control.node(node(7)).is_some() }).await);
    ask(1).await;
    assert_eq!(answered(&mut worker, 1).await, [1]);
    store.doubt(true);
    for sent in 2..20 {
        ask(sent).await;
    }
    // Reports are taken in order: when this one has come to the state, all questions before it were heard.
    let mut again = hello(7);
    again.labels.insert("said".into(), "again".into());
    to.send(ToControl::Hello(Box::new(again))).await.unwrap();
    let labelled = || async {
        let labels = |s: &State| s.node(node(7)).unwrap().record().labels.len();
        control.read(labels).await == 1
    };
    assert!(until(labelled).await);
    store.doubt(false);
    ask(20).await;
    assert_eq!(
        answered(&mut worker, 20).await,
        [20],
        "nothing of what was asked in doubt is answered"
    );
    // A leader that another has taken over from answers none either, and its session ends.
    let _other = store.lead().await.unwrap();
    ask(21).await;
    let ended = async {
        loop {
            // What changes nothing is answered without the store, until the leader has seen that it leads no more.
            let _gone = to.send(ToControl::Finished(Vec::new())).await;
            let look = Duration::from_millis(50);
            match tokio::time::timeout(look, worker.from_control.recv()).await {
                Ok(None) => break,
                Ok(Some(order)) => assert!(!matches!(order, ToWorker::Renewed { .. }), "{order:?}"),
                Err(_) => {}
            }
        }
    };
    let limit = Duration::from_secs(30);
    assert!(tokio::time::timeout(limit, ended).await.is_ok());
    stop.cancel();
}
