//! A backup is taken while writes go on; a restore is all or nothing, wherever it breaks off; hostile backups change nothing.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use prism_backup::{Head, Reader, Writer};
use prism_control::{Control, RestoreOutcome};
use prism_spec::{ImageRef, IsolationSpec, JobSpec, Work};
use prism_state::{Command, Role, State, Submission};
use prism_store::{KeyRange, Store, StoreError};
use prism_store_kit::FakeStore;
use prism_types::{Bytes, JobId, Labels, MilliCpu, Reason, Rejection, Resources, TokenId};
use tokio_util::sync::CancellationToken;

/// More than half of what is written at once.
const FILE: usize = (5 << 20) / 2;

/// A job with a file of so many bytes.
fn job(n: u64, bytes: usize) -> Command {
    let spec = JobSpec {
        name: format!("j{n}").parse().unwrap(),
        namespace: "default".parse().unwrap(),
        group: None,
        task: String::new(),
        work: Work::Array {
            command: vec!["true".into()],
            count: 600,
        },
        env: Default::default(),
        files: Vec::new(),
        image: ImageRef::Host,
        isolation: IsolationSpec::Sandbox,
        resources: Resources {
            cpu: MilliCpu(100),
            memory: Bytes::mib(32),
            disk: Bytes(0),
        },
        pids: 64,
        retries: 0,
        backoff: Default::default(),
        timeout: None,
        concurrency: None,
        priority: 0,
        max_failures: None,
        after: Vec::new(),
        labels: Labels::new(),
        single_instance: false,
    };
    let blob: Arc<[u8]> = vec![7; bytes].into();
    Command::SubmitJob(Submission {
        id: JobId::new(n + 1, 7),
        spec: Arc::new(spec),
        blobs: vec![(format!("{n:064x}"), blob)],
        seed: n,
    })
}

fn token(n: u128) -> Command {
    Command::CreateToken {
        id: TokenId::new(1, n),
        name: format!("t{n}"),
        role: Role::Admin,
        scope: Box::default(),
        by: None,
        hash: [u8::try_from(n).unwrap(); 32],
        expires: None,
    }
}

/// A leader that runs until the end of the test, or until it ends by itself.
async fn led(store: Arc<dyn Store>) -> Control {
    let (control, leader) = prism_control::open(store).await.unwrap();
    tokio::spawn(leader.run(CancellationToken::new()));
    while control.read(|s| s.cluster().is_none()).await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    control
}

async fn taken(control: &Control) -> Vec<u8> {
    let (summary, bytes) = control.backup(Vec::new(), "test").await.unwrap();
    assert_eq!(summary.size, bytes.len() as u64);
    bytes
}

async fn old() -> (Control, Vec<u8>) {
    let control = led(Arc::new(FakeStore::default())).await;
    for n in 0..3 {
        control.propose(job(n, FILE), None).await.unwrap();
    }
    control.propose(token(9), None).await.unwrap();
    let bytes = taken(&control).await;
    (control, bytes)
}

async fn restore(control: &Control, bytes: &[u8]) -> Result<RestoreOutcome, Rejection> {
    control
        .restore(Box::new(Cursor::new(bytes.to_vec())), None)
        .await
}

async fn everything(store: &dyn Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    let page = store.range(KeyRange::all(), None, 1_000_000).await.unwrap();
    let items = page.items.into_iter();
    items.map(|i| (i.key.to_vec(), i.value.to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_of_one_moment_while_writes_go_on() {
    let control = led(Arc::new(FakeStore::default())).await;
    let stop = CancellationToken::new();
    let writes = tokio::spawn({
        let (control, stop) = (control.clone(), stop.clone());
        async move {
            let mut n = 0;
            while !stop.is_cancelled() {
                control.propose(job(n, 2000), None).await.unwrap();
                n += 1;
            }
            n
        }
    });
    let mut last = 0;
    for _ in 0..8 {
        let bytes = taken(&control).await;
        let mut reader = Reader::open(&bytes[..]).unwrap();
        let revision = reader.head().revision;
        assert!(revision >= last);
        last = revision;
        let (mut state, mut blobs) = (Vec::new(), 0);
        while let Some(item) = reader.next().unwrap() {
            assert!(!item.key.starts_with(b"tokens/") && !item.key.starts_with(b"members/"));
            blobs += usize::from(item.key.starts_with(b"blobs/"));
            state.push((item.key, item.value));
        }
        // Each job was committed with its file: a backup that mixes moments has one without the other.
        let state = State::load(state).unwrap();
        assert_eq!(state.jobs().count(), blobs);
    }
    stop.cancel();
    assert!(writes.await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_restore_breaks_off_the_cluster_is_empty_or_whole() {
    let (_old, bytes) = old().await;
    let mut whole = 0;
    for commits in 0..30 {
        let inner = FakeStore::default();
        let own = led(Arc::new(inner.clone())).await;
        own.propose(token(1), None).await.unwrap();
        let cluster = own.read(State::cluster).await;
        let before = everything(&inner).await;
        let fragile = inner.beside();
        fragile.refuse_commits(commits, StoreError::Stopped("broke".into()));
        let control = led(Arc::new(fragile)).await;
        let done = restore(&control, &bytes).await;
        let again = led(Arc::new(inner.clone())).await;
        assert_eq!(again.read(State::cluster).await, cluster);
        assert_eq!(again.read(|s| s.tokens().count()).await, 1);
        let jobs = again.read(|s| s.jobs().count()).await;
        match done {
            Ok(done) => {
                assert_eq!((done.jobs, jobs), (3, 3));
                whole += 1;
            }
            Err(why) => {
                assert_eq!(jobs, 0, "{commits}: {why}");
                assert_eq!(
                    everything(&inner).await,
                    before,
                    "{commits}: nothing is left"
                );
            }
        }
        if whole > 2 {
            assert!(commits > 5, "it takes several commits");
            return;
        }
    }
    panic!("it is never whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_restored_answers_and_goes_on() {
    let (old, bytes) = old().await;
    let store = FakeStore::default();
    let control = led(Arc::new(store.clone())).await;
    let done = restore(&control, &bytes).await.unwrap();
    assert_eq!(done.jobs, 3);
    // The leader of before answers no more: what it has in memory is not what is stored.
    assert!(control.confirm().await.is_err());
    assert!(control.propose(token(3), None).await.is_err());
    let new = led(Arc::new(store.clone())).await;
    let ids = |s: &State| s.jobs().map(prism_state::Job::id).collect::<Vec<_>>();
    assert_eq!(new.read(ids).await, old.read(ids).await);
    for n in 0..3 {
        let key = prism_state::blob_key(&format!("{n:064x}"));
        let there = store.get(key.as_bytes(), None).await.unwrap();
        assert_eq!(there.unwrap().value.len(), FILE + 1);
    }
    new.propose(job(10, FILE), None).await.unwrap();
    let why = restore(&new, &bytes).await.unwrap_err();
    assert_eq!(why.reason, Reason::Conflict);
    // And what it holds can be taken again.
    let again = taken(&new).await;
    assert!(Reader::open(&again[..]).unwrap().check().unwrap().items > 9);
}

fn made(items: &[(&str, &[u8])]) -> Vec<u8> {
    let head = Head {
        cluster: "x".into(),
        revision: 1,
        made_ms: 1,
        prism: "test".into(),
    };
    let mut writer = Writer::new(Vec::new(), head).unwrap();
    for (key, value) in items {
        writer.put(key.as_bytes(), value).unwrap();
    }
    writer.finish().unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_backups_are_refused_and_change_nothing() {
    let store = FakeStore::default();
    let control = led(Arc::new(store.clone())).await;
    let before = everything(&store).await;
    let id = JobId::new(5, 5).to_string();
    let (jobs, specs) = (format!("jobs/{id}"), format!("specs/{id}"));
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "a token",
            made(&[("tokens/01k8z3v6m0000000000000000a", b"x")]),
        ),
        (
            "a member",
            made(&[("members/01k8z3v6m0000000000000000a", b"x")]),
        ),
        (
            "a server",
            made(&[("servers/01k8z3v6m0000000000000000a", b"x")]),
        ),
        (
            "a join token",
            made(&[("joins/01k8z3v6m0000000000000000a", b"x")]),
        ),
        ("the marker", made(&[("restoring", b"1")])),
        ("another key", made(&[("zebra", b"1")])),
        ("meta of nonsense", made(&[("meta", b"\x01\xff\xff")])),
        ("more than meta", made(&[("meta", b""), ("metatron", b"")])),
        ("a job without a spec", made(&[(&jobs, b"\x01")])),
        ("a spec without a job", made(&[(&specs, b"\x01\x01\x02")])),
        ("results of nonsense", made(&[("results/x", b"\x09")])),
        ("a file of nothing", made(&[("blobs/x", b"")])),
        ("an event of nonsense", made(&[("events/x", b"\x01\x02")])),
        ("a node of nonsense", made(&[("nodes/x", b"\x01")])),
        ("nothing", Vec::new()),
        ("a program", b"\x7fELF".to_vec()),
    ];
    // A small one, of which each part is looked at.
    let small = led(Arc::new(FakeStore::default())).await;
    small.propose(job(0, 100), None).await.unwrap();
    let good = taken(&small).await;
    for part in 0..200 {
        let mut bad = good.clone();
        let at = bad.len() * part / 200;
        bad[at] ^= 1 << (part % 8);
        cases.push(("a flipped bit", bad));
    }
    for part in 0..40 {
        cases.push(("a cut", good[..good.len() * part / 40].to_vec()));
    }
    for (what, bytes) in cases {
        let why = restore(&control, &bytes).await.unwrap_err();
        assert_eq!(why.reason, Reason::Invalid, "{what}: {why}");
        assert!(why.message.contains("nothing was changed"), "{what}: {why}");
    }
    assert_eq!(everything(&store).await, before);
    control.confirm().await.unwrap();
    assert!(
        restore(&control, &good).await.is_ok(),
        "and the good one is taken"
    );
}
