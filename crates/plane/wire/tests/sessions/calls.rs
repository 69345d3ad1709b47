//! Calls of a node: their answers, those that are given up, and how many there may be.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes as Blob;
use prism_link::*;
use prism_types::*;

use crate::kit::{both, next_frame, raw_worker, sandbox, soon, started};

#[tokio::test]
async fn every_call_and_every_answer_crosses() {
    let b = both(256).await;
    let (node, s) = (&b.link.node, sandbox());
    let request = ExecRequest {
        id: "x".into(),
        argv: vec!["a".into(), "b".into()],
        env: vec![("k".into(), "v".into())],
        cwd: Some("/".into()),
        stdin: true,
        tty: Some((1, 2)),
        timeout_ms: Some(3),
    };
    assert_eq!(node.exec(s, request).await.unwrap().argv, ["a", "b"]);
    assert_eq!(node.exec_info(s, "i".into(), None).await.unwrap().id, "i");
    assert_eq!(node.execs(s).await.unwrap()[0].id, s.to_string());
    let data = Blob::from(vec![1; 100_000]);
    let no = node
        .exec_input(s, "i".into(), data.clone(), true)
        .await
        .unwrap_err();
    assert_eq!(
        (no.reason, no.message.as_str()),
        (Reason::WrongState, "100000 bytes, eof true")
    );
    let no = node.exec_signal(s, "i".into(), -9).await.unwrap_err();
    assert_eq!(no.message, "signal -9");
    let no = node.exec_resize(s, "i".into(), 24, 80).await.unwrap_err();
    assert_eq!(no.message, "24 x 80");
    let of = LogOf::Exec(s, "i".into());
    let out = node
        .output(of, Stream::Stderr, 9, 70_000, None)
        .await
        .unwrap();
    assert_eq!((out.offset, out.data.len(), out.end), (9, 70_000, true));
    let part = node.file_read(s, "/p".into(), 4, 10).await.unwrap();
    assert_eq!(
        (part.offset, &part.data[..], part.end),
        (4, &b"/p"[..], false)
    );
    let no = node
        .file_write(s, "/p".into(), data, 0o600)
        .await
        .unwrap_err();
    assert_eq!(no.message, "100000 bytes, 600");
    assert_eq!(node.file_list(s, "/l".into()).await.unwrap().len(), 2);
    assert_eq!(node.file_stat(s, "/s".into()).await.unwrap().name, "/s");
    node.file_mkdir(s, "/d".into()).await.unwrap();
    assert_eq!(
        node.file_remove(s, "/r".into()).await.unwrap_err().message,
        "/r"
    );
    assert_eq!(node.snapshot(s).await.unwrap().sandbox, s);
    assert!(node.snapshots(None).await.unwrap().is_empty());
    assert_eq!(
        node.image_load("f".into(), Some("n".into())).await.unwrap(),
        "n"
    );
    assert_eq!(node.images().await.unwrap(), ["host"]);
}

#[tokio::test]
async fn no_answer_is_longer_than_allowed() {
    let b = both(64 << 10).await;
    let of = LogOf::Exec(sandbox(), "i".into());
    let out = b
        .link
        .node
        .output(of, Stream::Stdout, 0, usize::MAX, None)
        .await
        .unwrap();
    assert_eq!(out.data.len(), 4 << 20);
}

#[tokio::test]
async fn a_long_answer_holds_nobody_up() {
    let mut b = both(16 << 10).await;
    let node = b.link.node.clone();
    let of = LogOf::Exec(sandbox(), "i".into());
    let long = tokio::spawn(async move {
        let out = node.output(of, Stream::Stdout, 0, 4 << 20, None).await;
        out.unwrap().data.len()
    });
    // Each waits for the one before; were they behind the long one, it would be over with the first.
    let mut before = 0;
    while !long.is_finished() && before < 20 {
        b.worker.to_control.send(started(before)).await.unwrap();
        assert_eq!(
            soon(b.control.from_worker.recv()).await,
            Some(started(before))
        );
        before += 1;
    }
    assert!(
        before >= 3,
        "{before} messages before the long answer was whole"
    );
    assert_eq!(soon(long).await.unwrap(), 4 << 20);
}

#[tokio::test]
async fn calls_that_are_given_up_are_given_up_there_too() {
    let b = both(4096).await;
    for _ in 0..50 {
        let waiting = b
            .link
            .node
            .exec_info(sandbox(), "i".into(), Some(Duration::MAX));
        let given_up = tokio::time::timeout(Duration::from_millis(1), waiting).await;
        assert!(given_up.is_err());
    }
    let calls = (0..10).map(|_| {
        let node = b.link.node.clone();
        tokio::spawn(async move {
            node.exec_info(sandbox(), "i".into(), Some(Duration::MAX))
                .await
        })
    });
    let calls: Vec<_> = calls.collect();
    // In order behind all of the others.
    soon(b.link.node.images()).await.unwrap();
    while b.echo.waiting.load(Ordering::SeqCst) != 10 {
        tokio::task::yield_now().await;
    }
    b.at_worker.abort();
    for call in calls {
        let unknown = soon(call).await.unwrap().unwrap_err();
        assert_eq!(
            (unknown.reason, unknown.outcome),
            (Reason::Lost, Outcome::Unknown)
        );
    }
    while b.echo.waiting.load(Ordering::SeqCst) != 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_cancel_never_comes_before_its_call() {
    const CALL: u8 = 2;
    const CANCEL: u8 = 4;
    // Hardly anything is written while nothing is read, so calls wait, whole and in part.
    let (link, mut there, _carried) = raw_worker(64).await;
    let long = |n: usize| {
        let node = link.node.clone();
        let data = Blob::from(vec![7; n]);
        tokio::spawn(async move { node.file_write(sandbox(), "/f".into(), data, 0).await })
    };
    let calls: Vec<_> = (0..200).map(|n| long((n % 3) * 40_000)).collect();
    // Two frames of the first are on their way before any is given up.
    let (mut whole, mut cancelled) = (Vec::new(), Vec::new());
    let mut early = 0;
    while early < 2 {
        let (kind, ends, number, _) = next_frame(&mut there).await;
        early += u32::from(kind == CALL);
        if kind == CALL && ends {
            whole.push(number);
        }
    }
    for (n, call) in calls.iter().enumerate() {
        if n % 2 == 0 {
            call.abort();
        }
    }
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    // Those that were not given up all arrive.
    while whole.len() - cancelled.len() < 100 {
        match next_frame(&mut there).await {
            (CALL, true, number, _) => {
                assert!(
                    !cancelled.contains(&number),
                    "call {number} after its cancel"
                );
                whole.push(number);
            }
            (CANCEL, _, number, _) => {
                assert!(whole.contains(&number), "cancel {number} before its call");
                cancelled.push(number);
            }
            _ => {}
        }
    }
    // Of the others few were begun; the rest was never sent.
    assert!(
        !cancelled.is_empty() && whole.len() < 200,
        "{}",
        whole.len()
    );
}

#[tokio::test]
async fn no_more_calls_are_asked_at_once_than_may_be() {
    let b = both(64 << 10).await;
    let all: Vec<_> = (0..1_024)
        .map(|_| {
            let node = b.link.node.clone();
            let wait = Some(Duration::MAX);
            tokio::spawn(async move { node.exec_info(sandbox(), "i".into(), wait).await })
        })
        .collect();
    while b.echo.waiting.load(Ordering::SeqCst) != 1_024 {
        tokio::task::yield_now().await;
    }
    let refused = b.link.node.images().await.unwrap_err();
    assert_eq!(refused.reason, Reason::Overloaded);
    all[0].abort();
    while b.echo.waiting.load(Ordering::SeqCst) != 1_023 {
        tokio::task::yield_now().await;
    }
    soon(b.link.node.images()).await.unwrap();
}
