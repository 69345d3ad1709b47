//! Ends that break the protocol, and noise.

use std::sync::Arc;
use std::time::Duration;

use prism_link::{NodeService, pair};
use prism_wire::{WireError, carry_control, carry_worker};
use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use crate::kit::{Echo, frame, greeted, next_frame, raw_worker, sandbox, soon};

/// What the control plane makes of a worker that sends this and closes.
async fn sent(bytes: Vec<u8>) -> WireError {
    let (here, there) = duplex(1 << 20);
    let (mut control, worker_far) = pair();
    let (mut read, mut write) = tokio::io::split(there);
    tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
    let sending = tokio::spawn(async move {
        // Its end may come first.
        let _ = write.write_all(&bytes).await;
        let _ = write.shutdown().await;
    });
    let taking = tokio::spawn(async move { while control.from_worker.recv().await.is_some() {} });
    let why = match carry_control(here, worker_far).await {
        Ok((_link, carried)) => soon(carried).await,
        Err(why) => why,
    };
    soon(sending).await.unwrap();
    soon(taking).await.unwrap();
    why
}

#[tokio::test]
async fn whoever_breaks_the_protocol_is_cut_off() {
    let part = vec![0; 32 << 10];
    let endless: Vec<Vec<u8>> = (0..400).map(|_| frame(1, 0, 0, &part)).collect();
    let many: Vec<Vec<u8>> = (0..200).map(|n| frame(1, 0, n, b"x")).collect();
    for (what, frames) in [
        ("a call to the control plane", vec![frame(2, 1, 1, b"\x10")]),
        ("an unknown kind", vec![frame(9, 1, 0, b"")]),
        ("a message of nothing", vec![frame(1, 1, 0, b"")]),
        ("a message of nonsense", vec![frame(1, 1, 0, &[0xff; 50])]),
        ("a message without end", endless),
        ("many messages without end", many),
        ("an empty part", vec![frame(1, 0, 0, b"")]),
        ("a sign with a body", vec![frame(5, 1, 0, b"x")]),
        ("http", vec![b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()]),
    ] {
        let why = sent(greeted(&frames)).await;
        assert!(matches!(why, WireError::Protocol(_)), "{what}: {why}");
    }
    // What nobody asked for and what nobody waits for is passed over, and the end in the middle of a frame is the end.
    let unasked = greeted(&[
        frame(3, 1, 5, b"x"),
        frame(3, 0, 6, b"x"),
        frame(4, 1, 7, b""),
        frame(6, 1, 8, b""),
    ]);
    assert!(matches!(sent(unasked).await, WireError::Closed));
    let mut cut = greeted(&[frame(1, 1, 0, &[1; 100])]);
    cut.truncate(cut.len() - 1);
    assert!(matches!(sent(cut).await, WireError::Broken(_)));
    for early in [Vec::new(), b"PRSM".to_vec()] {
        assert!(matches!(sent(early).await, WireError::Closed));
    }
    let newer = b"PRSM\x07\0\x09\0".to_vec();
    assert!(matches!(
        sent(newer).await,
        WireError::Version { theirs_min: 7, .. }
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_that_comes_breaks_it(
        noise in prop::collection::vec(any::<u8>(), 0..400),
        frames in prop::collection::vec((1u8..8, 0u8..3, 0u64..4, prop::collection::vec(any::<u8>(), 0..60)), 0..30),
        greet: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut bytes: Vec<u8> = if greet { greeted(&[]) } else { Vec::new() };
        for (kind, last, number, body) in frames {
            bytes.extend(frame(kind, last, number, &body));
        }
        bytes.extend(noise);
        runtime.block_on(sent(bytes));
    }
}

/// The other direction: what a worker makes of a control plane gone wrong.
#[tokio::test]
async fn a_worker_cuts_a_mad_control_plane_off() {
    async fn told(bytes: Vec<u8>) -> WireError {
        let (here, mut there): (DuplexStream, DuplexStream) = duplex(1 << 20);
        let (control_far, _worker) = pair();
        there.write_all(&bytes).await.unwrap();
        soon(carry_worker(here, control_far, Arc::new(Echo::default()))).await
    }
    // A call that waits for ever, as it is written.
    let (link, mut there, _carried) = raw_worker(4096).await;
    let waits = async {
        let wait = Some(Duration::MAX);
        link.node.exec_info(sandbox(), "i".into(), wait).await
    };
    let call = tokio::select! {
        _ = waits => unreachable!(),
        frame = async {
            loop {
                let (kind, _, _, body) = next_frame(&mut there).await;
                if kind == 2 {
                    break body;
                }
            }
        } => frame,
    };
    let many = (0..2_049).map(|n| frame(2, 1, n, &call)).collect();
    for (what, frames) in [
        ("an answer", vec![frame(3, 1, 1, b"x")]),
        ("a call of nonsense", vec![frame(2, 1, 1, &[0xff; 9])]),
        ("two calls of one number", vec![frame(2, 1, 1, &call); 2]),
        ("more calls than may be", many),
        ("a message of nonsense", vec![frame(1, 1, 0, &[0xff; 9])]),
    ] {
        let why = told(greeted(&frames)).await;
        assert!(matches!(why, WireError::Protocol(_)), "{what}: {why}");
    }
}
