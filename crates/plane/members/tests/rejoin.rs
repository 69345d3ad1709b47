//! A machine that was away for longer than its certificate is good: it is kept out until it joins again, and is then who it was.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod kit;

use kit::{cluster, hello, joining, node, now, until};
use prism_identity::{Key, Lifetime, Role};
use prism_members::{MemberError, Membership, join, renew};
use prism_types::Reason;

/// The same member as it is some time after its certificate was made.
fn later(me: &Membership, server: &Membership, life: Lifetime) -> Membership {
    let authority = server.authority.as_ref().unwrap();
    let request = me.key.request().unwrap();
    let issued = authority
        .issuer
        .sign(&request, (Role::Worker, me.node), life);
    let issued = issued.unwrap();
    Membership {
        cluster: me.cluster,
        node: me.node,
        role: me.role,
        key: Key::from_pem(&me.key.to_pem()).unwrap(),
        chain: issued.chain,
        life: issued.life,
        roots: me.roots.clone(),
        authority: None,
        vault: None,
    }
}

#[tokio::test]
async fn whoever_was_away_for_too_long_joins_again_and_is_who_it_was() {
    let c = cluster().await;
    let me = c.member(7).await;
    let day = 24 * 3600;
    let over = Lifetime {
        from: now() - 2 * day,
        until: now() - day,
    };
    let mut away = later(&me, &c.server(), over);
    // It is kept as it was, and read back.
    let dir = tempfile::tempdir().unwrap();
    away.save(dir.path()).unwrap();
    let kept = Membership::load(dir.path()).unwrap().unwrap();
    assert_eq!(kept.life, over);
    let expired = || c.house.counts().refused.get("expired").copied();
    let trust = away.trust().unwrap();
    assert!(renew(c.address, &mut away, trust).await.is_err());
    assert_eq!(away.life, over, "nothing has changed");
    assert!(
        until(|| async { expired() == Some(1) }).await,
        "{:?}",
        c.house.counts()
    );
    // No session either: whatever it greets with, the connection is closed.
    let end = c.session(&away, hello(7)).await.end().await;
    let _closed_or_reset = end;
    assert!(
        until(|| async { expired() == Some(2) }).await,
        "{:?}",
        c.house.counts()
    );
    assert!(c.control.node(node(7)).is_none());
    // With the key that it has and a new token it is the member that it was.
    let before = c.control.read(|s| s.members().count()).await;
    let token = c.token(|_| {}).await;
    let key = Key::from_pem(&away.key.to_pem()).unwrap();
    let back = join(c.address, &token, &joining(7), key).await.unwrap();
    assert_eq!((back.node, back.key.pin()), (me.node, me.key.pin()));
    assert_eq!(c.control.read(|s| s.members().count()).await, before);
    let _stays = c.session(&back, hello(7)).await;
    assert!(c.is_there(7).await);
    // A token is used up by that; another key is another machine, whatever it calls itself.
    let other = c.token(|_| {}).await;
    let done = join(c.address, &other, &joining(7), Key::generate().unwrap()).await;
    match done {
        Err(MemberError::Refused(why)) => assert_eq!(why.reason, Reason::Conflict, "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_that_is_about_to_end_is_renewed_while_it_is_good() {
    let c = cluster().await;
    let me = c.member(7).await;
    let soon = Lifetime {
        from: now() - 100,
        until: now() + 20,
    };
    let mut short = later(&me, &c.server(), soon);
    let trust = short.trust().unwrap();
    renew(c.address, &mut short, trust).await.unwrap();
    assert!(short.life.until > now() + 80_000, "{:?}", short.life);
    assert_eq!(short.key.pin(), me.key.pin());
}
