//! Sandboxes, tokens and damaged stores, step by step.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod common;

use std::sync::Arc;

use common::*;
use prism_state::*;
use prism_types::*;

fn create(n: u64, label: Option<&str>) -> Command {
    Command::CreateSandbox {
        id: sandbox_id(n),
        spec: Arc::new(sandbox_spec(label)),
    }
}

fn place(w: &mut World, n: u64) -> Reply {
    w.ok(Command::Assign(Plan {
        placements: Vec::new(),
        sandboxes: vec![(sandbox_id(n), node_id(0)), (sandbox_id(n), node_id(0))],
    }))
}

fn report(w: &mut World, n: u64, status: SandboxStatus) -> Reply {
    w.ok(Command::SandboxReport {
        node: node_id(0),
        id: sandbox_id(n),
        status,
    })
}

fn state(w: &World, n: u64) -> SandboxState {
    w.state.sandbox(sandbox_id(n)).unwrap().state
}

#[test]
fn a_sandbox_lives_and_ends() {
    let mut w = World::new(1, 2);
    w.ok(create(1, Some("box")));
    assert_eq!(w.err(create(2, Some("box"))).reason, Reason::Conflict);
    assert_eq!(
        place(&mut w, 1),
        Reply::Assigned {
            accepted: 1,
            dropped: 1
        }
    );
    let at = w.now;
    report(&mut w, 1, SandboxStatus::Running { at });
    assert_eq!(state(&w, 1), SandboxState::Running);
    assert_eq!(w.state.node(node_id(0)).unwrap().free(), cores(1000, 1536));
    w.check();
    w.ok(Command::DeleteSandbox { id: sandbox_id(1) });
    assert_eq!(state(&w, 1), SandboxState::Stopping);
    assert!(w.state.desired_for(node_id(0)).sandboxes[0].stop);
    assert_eq!(w.state.node(node_id(0)).unwrap().free(), cores(1000, 1536));
    report(&mut w, 1, SandboxStatus::Exited(exit(137)));
    assert_eq!(state(&w, 1), SandboxState::Stopped);
    assert_eq!(w.state.node(node_id(0)).unwrap().free(), cores(2000, 2048));
    w.check();
    w.ok(create(2, Some("box")));
    w.pass(3_600_000);
    assert!(w.state.sandbox(sandbox_id(1)).is_none(), "it is forgotten");
    w.check();
}

#[test]
fn a_lease_of_life_ends() {
    let mut w = World::new(1, 2);
    w.ok(create(1, None));
    w.ok(create(2, None));
    w.ok(create(3, None));
    place(&mut w, 1);
    let until = Some(TimeMs(w.now.0 + 120_000));
    w.ok(Command::SetSandboxTimeout {
        id: sandbox_id(3),
        until,
    });
    w.pass(60_000);
    assert_eq!(state(&w, 1), SandboxState::Stopping);
    assert_eq!(state(&w, 2), SandboxState::Stopped);
    assert_eq!(state(&w, 3), SandboxState::Pending);
    assert_eq!(
        w.state.sandbox(sandbox_id(1)).unwrap().reason,
        Some(Reason::Expired)
    );
    w.check();
}

#[test]
fn a_sandbox_dies_with_its_node() {
    let mut w = World::new(1, 2);
    w.ok(create(1, None));
    w.ok(create(2, None));
    place(&mut w, 1);
    place(&mut w, 2);
    report(&mut w, 2, SandboxStatus::Gone);
    assert_eq!(state(&w, 2), SandboxState::Failed);
    w.ok(Command::SetNodeState {
        id: node_id(0),
        state: NodeState::Offline,
    });
    assert_eq!(state(&w, 1), SandboxState::Failed);
    assert_eq!(
        w.state.sandbox(sandbox_id(1)).unwrap().reason,
        Some(Reason::Lost)
    );
    w.check();
    w.ok(Command::RemoveNode { id: node_id(0) });
    w.check();
}

#[test]
fn a_full_node_takes_no_sandbox() {
    let mut w = World::new(1, 1);
    w.ok(create(1, None));
    w.ok(create(2, None));
    place(&mut w, 1);
    assert_eq!(
        place(&mut w, 2),
        Reply::Assigned {
            accepted: 0,
            dropped: 2
        }
    );
    w.check();
}

#[test]
fn tokens_are_found_by_hash_until_they_expire() {
    let mut w = World::new(0, 0);
    let id = TokenId::new(1, 1);
    let make = |id, hash: u8| Command::CreateToken {
        id,
        name: "ci".into(),
        role: Role::Admin,
        scope: Box::default(),
        by: None,
        hash: [hash; 32],
        expires: Some(TimeMs(1_000_010)),
    };
    w.ok(make(id, 1));
    assert_eq!(w.err(make(TokenId::new(2, 2), 1)).reason, Reason::Conflict);
    assert!(w.state.token_by_hash(&[1; 32], w.now).is_some());
    assert!(w.state.token_by_hash(&[1; 32], TimeMs(1_000_010)).is_none());
    assert!(w.state.token_by_hash(&[2; 32], w.now).is_none());
    w.check();
    w.ok(Command::RevokeToken { id });
    assert!(w.state.token_by_hash(&[1; 32], w.now).is_none());
    assert_eq!(w.err(Command::RevokeToken { id }).reason, Reason::NotFound);
    w.check();
}

#[test]
fn a_damaged_store_is_refused_with_its_key() {
    let mut w = World::new(1, 2);
    let job = w.submit(1, sweep(4, true, true));
    w.place(job, 0, 0..2);
    w.ok(create(1, None));
    for (key, value) in &w.store {
        for cut in 0..value.len() {
            let mut store = w.store.clone();
            store.insert(key.clone(), value[..cut].to_vec());
            let loaded = State::load(store.iter());
            let skipped = key.starts_with(b"events/");
            match loaded {
                Ok(_) => assert!(skipped, "{}", String::from_utf8_lossy(key)),
                Err(why) => assert_eq!(why.key.as_bytes(), key),
            }
        }
        for at in 0..value.len() {
            let mut store = w.store.clone();
            let mut value = value.clone();
            value[at] ^= 0xff;
            store.insert(key.clone(), value);
            // Damage may go unseen here (the store has checksums); it must not panic.
            let _ = State::load(store.iter()).map(|s| s.encode().len());
        }
    }
    let mut store = w.store.clone();
    store.insert(b"nonsense/1".to_vec(), vec![1]);
    assert_eq!(State::load(store.iter()).unwrap_err().key, "nonsense/1");
}
