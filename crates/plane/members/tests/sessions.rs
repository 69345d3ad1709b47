//! Members come, are what they joined as, and go when they are kept out.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod kit;

use std::time::{Duration, Instant};

use kit::{cluster, hello, node, until};
use prism_identity::Lifetime;
use prism_members::{MemberError, renew};
use prism_state::{Command, Whom};
use prism_types::{NodeState, Reason};

#[tokio::test]
async fn a_worker_joins_comes_and_is_a_node_with_its_tokens_labels() {
    let c = cluster().await;
    let token = c
        .token(|t| {
            t.labels.insert("zone".into(), "a".into());
        })
        .await;
    let me = c.join(&token, 7).await.unwrap();
    let mut said = hello(7);
    said.labels.insert("zone".into(), "b".into());
    let session = c.session(&me, said).await;
    assert!(c.is_there(7).await);
    let labels = |s: &prism_state::State| s.node(node(7)).unwrap().record().labels.clone();
    let labels = c.control.read(labels).await;
    assert_eq!(labels.get("zone").map(String::as_str), Some("a"));
    assert!(session.beat().await);
    assert_eq!(c.house.counts().connected, 1);
    // Its end is noticed there.
    drop(session.worker);
    session.carried.abort();
    assert!(until(|| async { c.control.node(node(7)).is_none() }).await);
    assert!(until(|| async { c.house.counts().connected == 0 }).await);
}

/// Its lease ran out, and its connection did not break: the leader's disk was full for a while, say, or the node's loop was stuck.
#[tokio::test]
async fn a_node_whose_work_was_given_away_has_to_greet_again() {
    let c = cluster().await;
    let me = c.member(7).await;
    let session = c.session(&me, hello(7)).await;
    assert!(c.is_there(7).await);
    let gone = Command::SetNodeState {
        id: node(7),
        state: NodeState::Offline,
    };
    let early = c.control.propose(gone, None).await.unwrap_err();
    assert!(early.message.contains("heard of"), "{early}");
    let state = |s: &prism_state::State| s.node(node(7)).unwrap().record().state;
    let given_up = async {
        while c.control.read(state).await != NodeState::Offline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let limit = Duration::from_secs(120);
    tokio::time::timeout(limit, given_up).await.unwrap();
    let _beaten_or_over = session.beat().await;
    session.end().await;
    assert_eq!(c.control.read(state).await, NodeState::Offline);
    let again = c.session(&me, hello(7)).await;
    assert!(c.is_there(7).await);
    assert_eq!(c.control.read(state).await, NodeState::Healthy);
    assert!(again.beat().await);
}

#[tokio::test]
async fn nobody_speaks_for_another() {
    let c = cluster().await;
    let me = c.member(7).await;
    let _other = c.member(8).await;
    let mut renamed = hello(7);
    renamed.name = "w8".parse().unwrap();
    for said in [hello(8), renamed, hello(kit::SERVER)] {
        c.session(&me, said).await.end().await;
    }
    assert!(c.control.node(node(8)).is_none() && c.control.node(node(7)).is_none());
    let nodes = c.control.read(|s| s.nodes().count()).await;
    assert_eq!(nodes, 0, "nothing was registered");
    // In the middle of a session neither.
    let session = c.session(&me, hello(7)).await;
    assert!(c.is_there(7).await);
    let other = prism_link::ToControl::Hello(Box::new(hello(8)));
    session.worker.to_control.send(other).await.unwrap();
    session.end().await;
    let nodes = c.control.read(|s| s.nodes().count()).await;
    assert_eq!(nodes, 1);
}

#[tokio::test]
async fn who_comes_again_takes_the_place_of_its_session_before() {
    let c = cluster().await;
    let me = c.member(7).await;
    let first = c.session(&me, hello(7)).await;
    assert!(c.is_there(7).await);
    let second = c.session(&me, hello(7)).await;
    first.end().await;
    // The end of the first does not end the second.
    assert!(until(|| async { c.house.counts().connected == 1 }).await);
    assert!(c.is_there(7).await && second.beat().await);
    assert!(!second.carried.is_finished());
}

#[tokio::test]
async fn who_is_kept_out_goes_at_once_and_comes_again_when_allowed() {
    let c = cluster().await;
    let (me, other) = (c.member(7).await, c.member(8).await);
    let session = c.session(&me, hello(7)).await;
    let stays = c.session(&other, hello(8)).await;
    assert!(c.is_there(7).await && c.is_there(8).await);
    let whom = Whom::Node(node(7));
    let began = Instant::now();
    c.propose(Command::Deny {
        whom,
        why: "stolen".into(),
    })
    .await;
    session.end().await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(until(|| async { c.control.node(node(7)).is_none() }).await);
    assert_eq!(c.house.counts().refused.get("denied"), Some(&1));
    // The handshake's end is told with the first word after it.
    if let Ok(dialled) = c.dial(&me).await {
        let (far, _worker) = prism_link::pair();
        prism_wire::carry_worker(dialled.stream, far, kit::nobody().await).await;
    }
    assert!(until(|| async { c.house.counts().refused.get("denied") == Some(&2) }).await);
    let mut me = me;
    let trust = me.trust().unwrap();
    renew(c.address, &mut me, trust).await.unwrap_err();
    let token = c.token(|_| {}).await;
    let why = c.join(&token, 7).await.unwrap_err();
    assert!(matches!(why, MemberError::Refused(r) if r.reason == Reason::Forbidden));
    assert!(stays.beat().await && c.is_there(8).await);
    c.propose(Command::Allow { whom }).await;
    assert!(
        until(|| async {
            let session = c.session(&me, hello(7)).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let there = c.control.node(node(7)).is_some();
            session.carried.abort();
            there
        })
        .await
    );
}

#[tokio::test]
async fn certificates_are_renewed_for_the_key_that_joined_and_no_other() {
    let c = cluster().await;
    let mut me = c.member(7).await;
    let (before, trust) = (me.chain.clone(), me.trust().unwrap());
    renew(c.address, &mut me, trust.clone()).await.unwrap();
    assert_ne!(me.chain, before);
    let Lifetime { from, until: ends } = me.life;
    assert!(ends - from > 23 * 3600 && from <= kit::now());
    let _stays = c.session(&me, hello(7)).await;
    assert!(c.is_there(7).await);
    let mut other = c.member(8).await;
    // A member that was removed.
    c.propose(Command::RemoveMember { id: node(8) }).await;
    assert!(
        until(|| async {
            let mut gone = c.house.counts().refused;
            gone.retain(|why, _| *why == "denied");
            let _refused = c.dial(&other).await;
            !gone.is_empty()
        })
        .await
    );
    let before = other.chain.clone();
    renew(c.address, &mut other, trust).await.unwrap_err();
    assert_eq!(other.chain, before, "nothing changes");
}

#[tokio::test]
async fn one_of_another_version_is_refused_with_what_both_speak() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let c = cluster().await;
    let me = c.member(7).await;
    for (min, max) in [(9u16, 9u16), (7, 8)] {
        let mut dialled = c.dial(&me).await.unwrap();
        let greeting = [&b"PRSM"[..], &min.to_le_bytes(), &max.to_le_bytes()].concat();
        dialled.stream.write_all(&greeting).await.unwrap();
        // What is spoken here comes in any case, and then the end.
        let mut said = Vec::new();
        let _ended = dialled.stream.read_to_end(&mut said).await;
        assert_eq!(said[..8], *b"PRSM\x01\0\x03\0");
    }
    assert_eq!(c.house.counts().refused.get("version"), Some(&2));
    assert!(c.control.node(node(7)).is_none());
    // One that speaks ours among others is let in: the newest that is common to both counts.
    let mut dialled = c.dial(&me).await.unwrap();
    dialled.stream.write_all(b"PRSM\x02\0\x03\0").await.unwrap();
    let mut said = [0; 8];
    dialled.stream.read_exact(&mut said).await.unwrap();
    assert_eq!(c.house.counts().refused.get("version"), Some(&2));
}

/// Whoever is told who leads takes it that the leader knows of it: one whose leadership ended under way does not say that it leads.
#[tokio::test]
async fn what_was_not_noted_is_not_said_to_be() {
    let c = cluster().await;
    let own = prism_members::ServerToken {
        id: prism_types::TokenId::new(1, 77),
        name: "server-s2".to_owned(),
        hash: [7; 32],
    };
    let known = |s: &prism_state::State| s.token(own.id).is_some();
    let at = c.address.to_string();
    let said = c.house.introduce(&at, Some(own.clone())).await.unwrap();
    assert_eq!(said.leads, prism_members::Leads::Me);
    assert!(c.control.read(known).await);
    // It decides no more, and nobody has said so yet.
    let other = prism_members::ServerToken {
        id: prism_types::TokenId::new(1, 78),
        hash: [8; 32],
        ..own
    };
    c.lead_ends().await;
    let said = c.house.introduce(&at, Some(other)).await.unwrap();
    assert_eq!(said.leads, prism_members::Leads::Nobody);
}
