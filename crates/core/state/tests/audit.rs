//! Audit events: made with the change, chained, and found out when altered. And records as earlier versions wrote them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod common;

use common::*;
use prism_state::*;
use prism_types::*;
use serde::Serialize;

fn origin(op: &str) -> Option<Origin> {
    Some(Origin {
        actor: Actor::Token {
            id: TokenId::new(1, 5),
            name: "ci".into(),
        },
        op: op.into(),
        from: "127.0.0.1:4711".into(),
        request_id: "r-1".into(),
    })
}

fn asked(op: &str, command: Command) -> Proposal {
    Proposal {
        command,
        key: None,
        origin: origin(op),
    }
}

fn audits(w: &World) -> Vec<EventRecord> {
    let events = w.events().into_iter();
    events.filter(|e| e.audit.is_some()).collect()
}

fn checked(w: &World) -> Checked {
    let meta = w.store.get(meta_key().as_bytes()).unwrap();
    let meta = decode_meta(meta_key().as_bytes(), meta).unwrap();
    let mut check = AuditCheck::new(meta);
    let prefix = events_prefix().as_bytes();
    for (key, value) in w.store.iter().filter(|(k, _)| k.starts_with(prefix)) {
        check.take(key, value).unwrap();
    }
    check.finish()
}

/// A world with a few audit events among others.
fn world() -> World {
    let mut w = World::new(2, 8);
    w.propose(&asked("job_submit", submission(1, array(3))))
        .unwrap();
    w.submit(2, array(1));
    let cancel = Command::CancelJob { id: job_id(1) };
    w.propose(&asked("job_cancel", cancel)).unwrap();
    let cordon = Command::Cordon {
        id: node_id(0),
        on: true,
    };
    w.propose(&asked("node_cordon", cordon)).unwrap();
    w
}

#[test]
fn each_change_that_is_asked_for_has_its_event_in_the_same_commit() {
    let w = world();
    let all = audits(&w);
    let kinds: Vec<&str> = all.iter().map(|e| &*e.kind).collect();
    assert_eq!(
        kinds,
        ["audit.job_submit", "audit.job_cancel", "audit.node_cordon"]
    );
    assert_eq!(all[0].subject, Subject::Job(job_id(1)));
    assert_eq!(all[0].namespace, Some(name("default")));
    assert_eq!(all[2].subject, Subject::Node(node_id(0)));
    let audit = all[1].audit.as_ref().unwrap();
    assert_eq!(Some(&audit.origin), origin("job_cancel").as_ref());
    assert_eq!(audit.outcome, Outcome::Applied);
    w.check();
}

#[test]
fn what_changes_nothing_or_is_refused_or_repeated_has_none() {
    let mut w = world();
    let before = w.events().len();
    let again = Command::CancelJob { id: job_id(1) };
    w.propose(&asked("job_cancel", again)).unwrap();
    let wrong = Command::CancelJob { id: job_id(9) };
    w.propose(&asked("job_cancel", wrong)).unwrap_err();
    assert_eq!(w.events().len(), before);
    let mut keyed = asked("job_submit", submission(5, array(1)));
    keyed.key = Some(IdempotencyKey {
        key: "k".into(),
        request_digest: [1; 32],
    });
    w.propose(&keyed).unwrap();
    let once = w.events().len();
    w.propose(&keyed).unwrap();
    assert_eq!(w.events().len(), once);
}

#[test]
fn a_change_on_a_node_is_noted_with_its_outcome() {
    let mut w = world();
    let note = Command::Note {
        subject: Subject::Job(job_id(1)),
        outcome: Outcome::Unknown,
    };
    w.propose(&asked("exec_start", note)).unwrap();
    let last = audits(&w).pop().unwrap();
    assert_eq!(last.audit.unwrap().outcome, Outcome::Unknown);
    assert_eq!(last.namespace, Some(name("default")));
}

#[test]
fn the_chain_holds_as_written_and_breaks_wherever_a_byte_changes() {
    let w = world();
    let good = checked(&w);
    assert_eq!((good.events, &good.broken), (3, &None));
    let prefix = events_prefix().as_bytes();
    let keys: Vec<Vec<u8>> = w
        .store
        .keys()
        .filter(|k| k.starts_with(prefix))
        .cloned()
        .collect();
    let mut tried = 0;
    for key in &keys {
        let event = decode_event(key, &w.store[key]).unwrap();
        if event.audit.is_some() {
            for at in 1..w.store[key].len() {
                let mut altered = World {
                    store: w.store.clone(),
                    ..World::default()
                };
                altered.store.get_mut(key).unwrap()[at] ^= 1;
                if decode_event(key, &altered.store[key]).is_ok() {
                    tried += 1;
                    assert!(checked(&altered).broken.is_some(), "{at} of {}", event.kind);
                }
            }
        }
        let mut shorter = World {
            store: w.store.clone(),
            ..World::default()
        };
        shorter.store.remove(key);
        assert!(
            checked(&shorter).broken.is_some(),
            "{} taken out",
            event.kind
        );
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn the_chain_goes_on_after_a_reload_and_when_old_events_are_removed() {
    let mut w = world();
    w.state = w.reloaded();
    for n in 0..6_000 {
        let cordon = Command::Cordon {
            id: node_id(1),
            on: n % 2 == 0,
        };
        w.propose(&asked("node_cordon", cordon)).unwrap();
    }
    let found = checked(&w);
    assert_eq!(found.broken, None);
    let events = w.events().len();
    assert!(events <= 10_500, "{events}");
    assert!(w.state.meta().events_first > 0);
    assert!(found.events < 6_003);
    w.check();
}

#[derive(Serialize)]
struct OldMeta {
    cluster: Option<Id>,
    created: TimeMs,
    next_node: u32,
    events_first: u64,
    events_next: u64,
}

#[derive(Serialize)]
struct OldToken {
    id: TokenId,
    name: String,
    role: Role,
    hash: [u8; 32],
    created: TimeMs,
    expires: Option<TimeMs>,
}

#[derive(Serialize)]
enum OldSubject {
    #[allow(dead_code, reason = "it holds its place")]
    Cluster,
    #[allow(dead_code, reason = "it holds its place")]
    Node(NodeId),
    Job(JobId),
}

#[derive(Serialize)]
struct OldEvent {
    seq: u64,
    at: TimeMs,
    kind: String,
    subject: OldSubject,
    reason: Option<Reason>,
    message: String,
}

fn first_version<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![1]).unwrap()
}

#[test]
fn records_of_the_version_before_are_read_and_written_anew() {
    let meta = first_version(&OldMeta {
        cluster: Some(Id::new(1, 2)),
        created: TimeMs(5),
        next_node: 3,
        events_first: 0,
        events_next: 1,
    });
    let id = TokenId::new(8, 9);
    let token = first_version(&OldToken {
        id,
        name: "old".to_owned(),
        role: Role::Submitter,
        hash: [7; 32],
        created: TimeMs(6),
        expires: None,
    });
    let event = first_version(&OldEvent {
        seq: 0,
        at: TimeMs(7),
        kind: "job.submitted".to_owned(),
        subject: OldSubject::Job(job_id(1)),
        reason: None,
        message: "m".to_owned(),
    });
    let token_key = format!("tokens/{id}").into_bytes();
    let state = State::load([(b"meta".to_vec(), meta.clone()), (token_key, token)]).unwrap();
    assert_eq!(state.cluster(), Some(Id::new(1, 2)));
    assert_eq!(
        (state.meta().events_next, state.meta().audit_head),
        (1, [0; 32])
    );
    let read = state.token(id).unwrap();
    assert_eq!(
        (read.role, &read.scope),
        (Role::Submitter, &Scope::default())
    );
    assert!(state.namespace(&name("default")).is_some());
    let key = event_key(0).into_bytes();
    let read = decode_event(&key, &event).unwrap();
    assert_eq!(
        (read.subject, read.namespace),
        (Subject::Job(job_id(1)), None)
    );

    // What comes next is chained from there, in the form of now.
    let mut w = World {
        now: TimeMs(1_000),
        state,
        ..World::default()
    };
    w.store.insert(b"meta".to_vec(), meta);
    w.store.insert(key, event);
    w.ok(Command::RegisterNode(registration(0, 2)));
    w.propose(&asked("job_submit", submission(1, array(1))))
        .unwrap();
    let found = checked(&w);
    assert_eq!((found.events, found.broken), (1, None));
    // A version of the future is refused by its number.
    let mut later = w.store[b"meta".as_slice()].clone();
    later[0] = 3;
    let why = State::load([(b"meta".to_vec(), later)]).unwrap_err();
    assert!(why.why.contains("version 3"), "{}", why.why);
}
