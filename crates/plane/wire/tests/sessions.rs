//! Sessions over a pipe: what is said arrives in order, calls are answered, and whatever the other end sends, this one lives.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes as Blob;
use prism_link::*;
use prism_types::*;
use prism_wire::{Link, WireError, carry_control, carry_worker};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

/// A node whose answers tell what it was asked.
#[derive(Default)]
struct Echo {
    /// Calls that are being waited in.
    waiting: AtomicU32,
}

struct Counted<'a>(&'a AtomicU32);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn answer<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, Result<T, NodeError>> {
    Box::pin(async { Ok(value) })
}

fn info(id: String) -> ExecInfo {
    ExecInfo {
        id,
        argv: Vec::new(),
        started: Some(TimeMs(5)),
        report: None,
    }
}

fn entry(name: String, size: u64) -> FileEntry {
    FileEntry {
        name,
        kind: FileKind::File,
        size,
        mode: 0o644,
        modified: TimeMs(1),
        target: None,
    }
}

impl NodeService for Echo {
    fn exec(&self, _: SandboxId, exec: ExecRequest) -> BoxFuture<'_, Result<ExecInfo, NodeError>> {
        answer(ExecInfo {
            argv: exec.argv,
            ..info(exec.id)
        })
    }

    /// With `wait`, never answers.
    fn exec_info(
        &self,
        _: SandboxId,
        exec: String,
        wait: Option<Duration>,
    ) -> BoxFuture<'_, Result<ExecInfo, NodeError>> {
        Box::pin(async move {
            if wait.is_some() {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                let _counted = Counted(&self.waiting);
                std::future::pending::<()>().await;
            }
            Ok(info(exec))
        })
    }

    fn execs(&self, sandbox: SandboxId) -> BoxFuture<'_, Result<Vec<ExecInfo>, NodeError>> {
        answer(vec![info(sandbox.to_string())])
    }

    fn exec_input(
        &self,
        _: SandboxId,
        _: String,
        data: Blob,
        eof: bool,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(async move {
            let text = format!("{} bytes, eof {eof}", data.len());
            Err(NodeError::new(Reason::WrongState, text))
        })
    }

    fn exec_signal(
        &self,
        _: SandboxId,
        _: String,
        signal: i32,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(async move { Err(not_found(format!("signal {signal}"))) })
    }

    fn exec_resize(
        &self,
        _: SandboxId,
        _: String,
        rows: u16,
        columns: u16,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(async move { Err(not_found(format!("{rows} x {columns}"))) })
    }

    fn output(
        &self,
        _: LogOf,
        _: Stream,
        offset: u64,
        max: usize,
        _: Option<Duration>,
    ) -> BoxFuture<'_, Result<Chunk, NodeError>> {
        answer(Chunk {
            offset,
            data: vec![7; max].into(),
            end: true,
        })
    }

    fn file_read(
        &self,
        _: SandboxId,
        path: String,
        offset: u64,
        _: usize,
    ) -> BoxFuture<'_, Result<Chunk, NodeError>> {
        answer(Chunk {
            offset,
            data: path.into(),
            end: false,
        })
    }

    fn file_write(
        &self,
        _: SandboxId,
        _: String,
        data: Blob,
        mode: u32,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(async move { Err(not_found(format!("{} bytes, {mode:o}", data.len()))) })
    }

    fn file_list(
        &self,
        _: SandboxId,
        path: String,
    ) -> BoxFuture<'_, Result<Vec<FileEntry>, NodeError>> {
        answer(vec![entry(path, 1), entry("b".into(), 2)])
    }

    fn file_stat(&self, _: SandboxId, path: String) -> BoxFuture<'_, Result<FileEntry, NodeError>> {
        answer(entry(path, 3))
    }

    fn file_mkdir(&self, _: SandboxId, _: String) -> BoxFuture<'_, Result<(), NodeError>> {
        answer(())
    }

    fn file_remove(&self, _: SandboxId, path: String) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(async move { Err(not_found(path)) })
    }

    fn snapshot(&self, sandbox: SandboxId) -> BoxFuture<'_, Result<SnapshotInfo, NodeError>> {
        answer(SnapshotInfo {
            id: "s".into(),
            sandbox,
            bytes: 1,
            files: 2,
            created: TimeMs(3),
        })
    }

    fn snapshots(
        &self,
        _: Option<SandboxId>,
    ) -> BoxFuture<'_, Result<Vec<SnapshotInfo>, NodeError>> {
        answer(Vec::new())
    }

    fn image_load(
        &self,
        path: String,
        name: Option<String>,
    ) -> BoxFuture<'_, Result<String, NodeError>> {
        answer(name.unwrap_or(path))
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<String>, NodeError>> {
        answer(vec!["host".into()])
    }
}

/// Both ends of a session over a pipe.
struct Both {
    control: ControlEnd,
    worker: WorkerEnd,
    link: Link,
    echo: Arc<Echo>,
    at_worker: JoinHandle<WireError>,
    at_control: JoinHandle<WireError>,
}

async fn both(pipe: usize) -> Both {
    let (here, there) = duplex(pipe);
    let (control_far, worker) = pair();
    let (control, worker_far) = pair();
    let echo = Arc::new(Echo::default());
    let service = Arc::clone(&echo);
    let at_worker = tokio::spawn(async move { carry_worker(here, control_far, service).await });
    let (link, carried) = carry_control(there, worker_far).await.unwrap();
    Both {
        control,
        worker,
        link,
        echo,
        at_worker,
        at_control: tokio::spawn(carried),
    }
}

fn sandbox() -> SandboxId {
    SandboxId::new(1, 2)
}

fn started(n: u64) -> ToControl {
    let task = TaskRef {
        job: JobId::new(1, u128::from(n)),
        index: 0,
        attempt: 1,
    };
    ToControl::Started(vec![(task, TimeMs(n))])
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what)
        .await
        .unwrap()
}

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

/// A control plane's end whose other end is read frame by frame.
async fn raw_worker(pipe: usize) -> (Link, DuplexStream, JoinHandle<WireError>) {
    let (here, mut there) = duplex(pipe);
    let (control, worker_far) = pair();
    let greet = async {
        there.write_all(&greeted(&[])).await.unwrap();
        let mut greeting = [0; 8];
        there.read_exact(&mut greeting).await.unwrap();
    };
    let (begun, ()) = tokio::join!(carry_control(here, worker_far), greet);
    let (link, carried) = begun.unwrap();
    let carried = tokio::spawn(async move {
        let _stays = control;
        carried.await
    });
    (link, there, carried)
}

/// The next frame: its kind, whether it is its message's last, its number and its body.
async fn next_frame(from: &mut DuplexStream) -> (u8, bool, u64, Vec<u8>) {
    let mut head = [0; 16];
    soon(from.read_exact(&mut head)).await.unwrap();
    let length = u32::from_le_bytes(head[..4].try_into().unwrap());
    let mut body = vec![0; usize::try_from(length).unwrap()];
    soon(from.read_exact(&mut body)).await.unwrap();
    let number = u64::from_le_bytes(head[8..].try_into().unwrap());
    (head[4], head[5] == 1, number, body)
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

fn frame(kind: u8, last: u8, number: u64, body: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    out.extend([kind, last, 0, 0]);
    out.extend(number.to_le_bytes());
    out.extend(body);
    out
}

fn greeted(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut out = b"PRSM\x01\0\x01\0".to_vec();
    frames.iter().for_each(|frame| out.extend(frame));
    out
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
