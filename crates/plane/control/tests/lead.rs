//! A leader that could not commit: what it has in memory is told nobody.

use std::sync::Arc;

use prism_control::{ControlError, Seat, Seats};
use prism_state::{Command, Role};
use prism_store::{Store, StoreError};
use prism_store_kit::FakeStore;
use prism_types::{Id, Outcome, Reason, TokenId};
use tokio_util::sync::CancellationToken;

fn token(n: u128) -> Command {
    Command::CreateToken {
        id: TokenId::new(1, n),
        name: format!("t{n}"),
        role: Role::Viewer,
        scope: Box::default(),
        by: None,
        hash: [u8::try_from(n).expect("small"); 32],
        expires: None,
    }
}

#[tokio::test]
async fn what_was_not_committed_is_told_nobody() {
    let store = Arc::new(FakeStore::default());
    let (control, leader) = prism_control::open(store.clone()).await.expect("it leads");
    let led = tokio::spawn(leader.run(CancellationToken::new()));
    control.propose(token(1), None).await.expect("committed");
    control.confirm().await.expect("it leads");
    // As of a server whose lead lapses for a moment: it knows of no other.
    let leader = "nobody does".to_owned();
    store.refuse_commits(0, StoreError::NotLeader { leader });
    let refused = control.propose(token(2), None).await.expect_err("lost");
    assert_eq!(refused.outcome, Outcome::Unknown, "{refused}");
    assert!(led.await.expect("no panic").is_err());
    // The store knows of no other leader, and the state may hold the second token.
    store.take_commits();
    assert!(store.status().leader);
    assert!(control.confirm().await.is_err());
    // What another knows without leading is what was committed, and it decides nothing.
    let known = prism_control::frozen(store).await.expect("it reads");
    assert_eq!(known.read(|s| s.tokens().count()).await, 1);
    assert!(known.propose(token(3), None).await.is_err());
}

#[tokio::test]
async fn what_the_store_refused_is_said_to_be_undone_and_why() {
    let (why, advice) = ("it is full".to_owned(), "make room".to_owned());
    let cases = [
        (
            StoreError::Full {
                why: why.clone(),
                advice: advice.clone(),
            },
            Reason::Pressure,
        ),
        (StoreError::Unavailable { why, advice }, Reason::NotLeader),
    ];
    for (refusal, reason) in cases {
        let store = Arc::new(FakeStore::default());
        let (control, leader) = prism_control::open(store.clone()).await.expect("it leads");
        let cluster = Id::new(7, 7);
        let led = tokio::spawn(leader.founding(cluster).run(CancellationToken::new()));
        control.propose(token(1), None).await.expect("committed");
        assert_eq!(control.read(|s| s.cluster()).await, Some(cluster));
        store.refuse_commits(0, refusal.clone());
        let refused = control.propose(token(2), None).await.expect_err("refused");
        assert_eq!(
            (refused.outcome, refused.reason, refused.retryable),
            (Outcome::NotApplied, reason, true)
        );
        for words in ["it is full", "nothing was changed", "make room"] {
            assert!(refused.message.contains(words), "{refused}");
        }
        assert!(control.confirm().await.is_err(), "it decides no more");
        let ended = led.await.expect("no panic").expect_err("it ended");
        assert!(
            matches!(&ended, ControlError::Store(was) if *was == refusal),
            "{ended}"
        );
        // There is room again: whoever leads next goes on.
        store.take_commits();
        let (control, leader) = prism_control::open(store).await.expect("it leads");
        tokio::spawn(leader.founding(Id::new(8, 8)).run(CancellationToken::new()));
        control.propose(token(2), None).await.expect("committed");
        assert_eq!(
            control.read(|s| s.cluster()).await,
            Some(cluster),
            "for life"
        );
    }
}

#[tokio::test]
async fn who_waits_for_the_leader_hears_when_it_comes_and_goes() {
    let store = Arc::new(FakeStore::default());
    let (control, _leader) = prism_control::open(store).await.expect("it leads");
    let (seat, mut seats) = Seats::new();
    assert!(seats.here().is_none());
    let waits = tokio::spawn({
        let mut seats = seats.clone();
        async move { seats.control().await }
    });
    seat.send_replace(Seat::There("10.0.0.1:1".to_owned()));
    seat.send_replace(Seat::Here(control.clone()));
    assert!(waits.await.expect("no panic").is(&control));
    assert!(matches!(seats.look(), Seat::Here(now) if now.is(&control)));
    let over = tokio::spawn({
        let (seats, control) = (seats.clone(), control.clone());
        async move { seats.over(&control).await }
    });
    seat.send_replace(Seat::Nowhere);
    over.await.expect("no panic");
    seats.changed().await;
    assert!(matches!(seats.now(), Seat::Nowhere));
}
