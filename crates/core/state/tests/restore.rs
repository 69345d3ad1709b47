//! A backup's state in another cluster: what came along, what did not, and that nothing is claimed to run that does not.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::*;
use prism_state::*;
use prism_types::*;
use proptest::prelude::*;

fn origin() -> Origin {
    Origin {
        actor: Actor::Token {
            id: TokenId::new(1, 5),
            name: "admin".into(),
        },
        op: "cluster_restore".into(),
        from: "127.0.0.1:4711".into(),
        request_id: "r-1".into(),
    }
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

/// A cluster with work of every kind.
fn old() -> World {
    let mut w = World::new(3, 8);
    w.ok(Command::Init {
        cluster: Id::new(1, 1),
    });
    w.ok(token(7));
    w.ok(namespace(
        "team",
        Quota {
            sandboxes: Some(9),
            ..Quota::default()
        },
    ));
    let audited = Proposal {
        command: submission(1, array(6)),
        key: Some(IdempotencyKey {
            key: "t/again".into(),
            request_digest: [3; 32],
        }),
        origin: Some(Origin {
            op: "job_submit".into(),
            ..origin()
        }),
    };
    w.propose(&audited).unwrap();
    let job = job_id(1);
    w.place(job, 0, [0, 1]);
    w.place(job, 2, [2]);
    w.start(job, 0, 0);
    w.start(job, 0, 1);
    w.finish_with(job, 0, 0, "{\"x\":1}");
    for (n, label) in [(1, Some("box")), (2, None)] {
        w.ok(Command::CreateSandbox {
            id: sandbox_id(n),
            spec: Arc::new(sandbox_spec(label)),
        });
    }
    w.ok(Command::Assign(Plan {
        placements: Vec::new(),
        sandboxes: vec![(sandbox_id(1), node_id(1))],
    }));
    w
}

/// A cluster that has just begun.
fn new() -> World {
    let mut w = World {
        now: TimeMs(5_000_000),
        ..World::default()
    };
    w.ok(Command::Init {
        cluster: Id::new(2, 2),
    });
    w.ok(Command::RegisterNode(Registration {
        id: node_id(40),
        name: name("fresh"),
        ..registration(40, 8)
    }));
    w.ok(token(1));
    w
}

/// Keys and values as they are stored.
type Stored = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a backup of a world holds, apart.
fn backup(w: &World) -> (State, Stored, Stored) {
    let holds = |key: &[u8]| {
        let mut all = BACKUP_PREFIXES.iter();
        all.any(|p| key.starts_with(p.as_bytes()))
    };
    let all = w.store.iter().filter(|(key, _)| holds(key));
    let all = all.map(|(k, v)| (k.clone(), v.clone()));
    let (events, rest): (BTreeMap<_, _>, BTreeMap<_, _>) =
        all.partition(|(key, _)| key.starts_with(b"events/"));
    let payload = |key: &[u8]| key.starts_with(b"results/") || key.starts_with(b"blobs/");
    let (payload, state): (BTreeMap<_, _>, BTreeMap<_, _>) =
        rest.into_iter().partition(|(key, _)| payload(key));
    (State::load(state).unwrap(), events, payload)
}

/// The new cluster after a restore, as its store has it.
fn restored(old: &World, own: &World) -> (World, Restored) {
    let (state, events, payload) = backup(old);
    let of = BackupOf {
        cluster: "old".into(),
        revision: 9,
    };
    let now = own.now.max(old.now);
    let made = restore(state, events, &own.state, &of, Some(&origin()), now).unwrap();
    let mut w = World {
        store: own.store.clone(),
        now,
        ..World::default()
    };
    w.store.extend(payload);
    for (key, _) in &made.first {
        let early = RESTORED_FIRST.iter().any(|p| key.starts_with(p.as_bytes()));
        assert!(early, "{}", String::from_utf8_lossy(key));
    }
    for (key, value) in made.first.iter().chain(&made.last) {
        match value {
            Some(value) => w.store.insert(key.clone(), value.clone()),
            None => w.store.remove(key),
        };
    }
    w.state = w.reloaded();
    w.check();
    (w, made)
}

#[test]
fn what_is_finished_comes_along_and_what_ran_is_tried_again() {
    let (old, own) = (old(), new());
    let (mut w, made) = restored(&old, &own);
    assert_eq!((made.jobs, made.retried, made.ended), (1, 2, 1));
    let job = job_id(1);
    assert_eq!(w.task(job, 0).state, TaskState::Completed);
    assert_eq!(w.results(job).len(), 1);
    for index in [1, 2] {
        let task = w.task(job, index);
        assert_eq!(task.state, TaskState::Retrying, "{index}");
        assert_eq!(task.attempt, old.task(job, index).attempt);
    }
    assert_eq!(w.task(job, 3).state, TaskState::Queued);
    let gone = w.state.sandbox(sandbox_id(1)).unwrap();
    assert_eq!(gone.state, SandboxState::Failed);
    assert!(
        gone.message
            .contains("it ran on node n1 of cluster old, from whose backup"),
        "{}",
        gone.message
    );
    let waits = w.state.sandbox(sandbox_id(2)).unwrap();
    assert_eq!(waits.state, SandboxState::Pending);
    assert_eq!(
        w.state.namespace(&name("team")).unwrap().quota.sandboxes,
        Some(9)
    );
    assert!(
        w.state.key("t/again").is_some(),
        "the same request is the same job"
    );
    // The attempts that follow have greater numbers, and they run on the new cluster's node.
    w.pass(1);
    w.place(job, 40, [1, 2]);
    for index in [1, 2] {
        assert!(w.task(job, index).attempt > old.task(job, index).attempt);
        w.start(job, 40, index);
        w.finish(job, 40, index, success());
    }
    assert_eq!(w.results(job).len(), 3);
    w.check();
}

#[test]
fn the_new_cluster_keeps_what_is_its_own_and_nobody_comes_in_by_a_backup() {
    let (old, own) = (old(), new());
    let (w, _) = restored(&old, &own);
    assert_eq!(w.state.cluster(), own.state.cluster());
    let tokens: Vec<String> = w.state.tokens().map(|t| t.name.clone()).collect();
    assert_eq!(tokens, ["t1"]);
    assert!(w.state.token_by_hash(&[7; 32], w.now).is_none());
    let nodes: Vec<String> = w
        .state
        .nodes()
        .map(|n| n.record().name.to_string())
        .collect();
    assert_eq!(nodes, ["fresh"]);
    // Results name nodes by number: the old ones' are not given again.
    let no = w.state.node(node_id(40)).unwrap().record().no;
    assert!(old.state.nodes().all(|n| n.record().no != no));
    assert_eq!(w.state.meta().next_node, no.0 + 1);
}

#[test]
fn the_events_go_on_where_the_backup_ends_and_their_chain_holds() {
    let (old, own) = (old(), new());
    let (mut w, made) = restored(&old, &own);
    let events = w.events();
    let (before, after) = (old.events(), &events);
    assert_eq!(after[..before.len()], before[..]);
    assert_eq!(after.len(), usize::try_from(made.events).unwrap());
    let kinds: Vec<&str> = after[before.len()..].iter().map(|e| &*e.kind).collect();
    assert!(kinds.contains(&"cluster.restored") && kinds.contains(&"sandbox.failed"));
    assert_eq!(kinds.last(), Some(&"audit.cluster_restore"));
    let check = |w: &World| {
        let mut check = AuditCheck::new(w.state.meta().clone());
        for event in w.events() {
            let key = event_key(event.seq).into_bytes();
            check.take(&key, &w.store[&key]).unwrap();
        }
        check.finish()
    };
    assert_eq!(check(&w).broken, None);
    assert_eq!(check(&w).events, 2);
    let cancel = Proposal {
        command: Command::CancelJob { id: job_id(1) },
        key: None,
        origin: Some(origin()),
    };
    w.propose(&cancel).unwrap();
    assert_eq!(check(&w).broken, None);
}

#[test]
fn a_cluster_that_is_not_empty_is_refused_by_what_it_has() {
    let of = BackupOf {
        cluster: "old".into(),
        revision: 9,
    };
    let refused = |own: &World| {
        let (state, events, _) = backup(&old());
        let why = restore(state, events, &own.state, &of, None, own.now).unwrap_err();
        assert_eq!(why.reason, Reason::Conflict);
        why.message
    };
    let mut own = new();
    own.submit(3, array(1));
    own.submit(4, array(1));
    own.ok(Command::CreateSandbox {
        id: sandbox_id(8),
        spec: Arc::new(sandbox_spec(Some("cell"))),
    });
    own.ok(namespace("mine", Quota::default()));
    let why = refused(&own);
    assert!(
        why.contains("it has job job and 1 more, sandbox cell, namespace mine"),
        "{why}"
    );
    let mut own = new();
    let member = |n: u32, role| MemberRecord {
        id: node_id(n),
        role,
        name: name(&format!("m{n}")),
        key: [1; 32],
        labels: Labels::new(),
        token: None,
        joined: TimeMs(1),
    };
    own.ok(Command::Found {
        member: member(40, MemberRole::Server),
        address: "10.0.0.1:4200".to_owned(),
    });
    assert!(is_restorable(&own.state).is_ok(), "itself is a member");
    own.state
        .apply(&[Change::Member(member(41, MemberRole::Worker))]);
    let why = is_restorable(&own.state).unwrap_err().message;
    assert!(why.contains("it has member m"), "{why}");
}

#[test]
fn of_all_servers_one_is_left() {
    let mut w = new();
    let member = |n: u32| MemberRecord {
        id: node_id(n),
        role: MemberRole::Server,
        name: name(&format!("s{n}")),
        key: [1; 32],
        labels: Labels::new(),
        token: None,
        joined: TimeMs(1),
    };
    let server = |n: u32| ServerRecord {
        id: node_id(n),
        number: u64::from(n),
        address: format!("at:{n}"),
        gone: false,
    };
    for n in 1..=3 {
        w.state
            .apply(&[Change::Member(member(n)), Change::Server(server(n))]);
    }
    let stranger = w.err(Command::RecoverAlone { id: node_id(9) });
    assert_eq!(stranger.reason, Reason::NotFound);
    w.ok(Command::RecoverAlone { id: node_id(3) });
    let left: Vec<u64> = w.state.servers().map(|s| s.number).collect();
    assert_eq!(left, [3]);
    assert_eq!(
        w.state.gone_servers().count(),
        2,
        "their numbers stay taken"
    );
    assert_eq!(w.state.members().count(), 1);
    let said: Vec<String> = w.events().into_iter().map(|e| e.message).collect();
    let of = |text: &str| said.iter().any(|s| s.contains(text));
    assert!(of("server s1 was left behind") && of("server s2 was left behind"));
    let count = w.events().len();
    w.ok(Command::RecoverAlone { id: node_id(3) });
    assert_eq!(w.events().len(), count, "twice is once");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_went_on_the_restored_state_holds_together(steps in prop::collection::vec((0u8..8, 0u32..12, 0u32..3), 0..60)) {
        let mut w = old();
        let mut jobs = 1;
        for (what, index, node) in steps {
            let job = job_id(u64::from(index) % jobs + 1);
            match what {
                0 => {
                    jobs += 1;
                    w.submit(jobs, array(index + 1));
                }
                1 | 2 => drop(w.run(Command::Assign(Plan {
                    placements: vec![Placement { job, node: node_id(node), lanes: 2, tasks: vec![index] }],
                    sandboxes: vec![(sandbox_id(2), node_id(node))],
                }))),
                3 if w.state.task(job, index).is_some() => drop(w.start(job, node, index)),
                4 if w.state.task(job, index).is_some() => drop(w.finish(job, node, index, success())),
                5 => drop(w.run(Command::CancelJob { id: job })),
                6 => drop(w.run(Command::DeleteSandbox { id: sandbox_id(u64::from(index % 2) + 1) })),
                _ => w.pass(500),
            }
        }
        let (restored, _) = restored(&w, &new());
        prop_assert_eq!(restored.state.jobs().count(), w.state.jobs().count());
        for job in restored.state.jobs() {
            let counts = job.counts();
            prop_assert_eq!(counts.placed(), 0);
            let before = w.job(job.id()).counts();
            prop_assert!(counts.finished() >= before.finished());
            prop_assert_eq!(counts.total(), before.total());
        }
    }
}
