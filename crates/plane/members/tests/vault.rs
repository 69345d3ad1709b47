//! A cluster whose certificates Vault signs: what Vault gives is looked at before anybody has it, and nothing is used up for nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod kit;

use std::sync::Arc;
use std::time::Duration;

use prism_identity::{ClusterId, JoinSecret, JoinToken, Key, Role};
use prism_members::{
    House, Joining, MemberError, Membership, dial_session, join, renew, who_leads,
};
use prism_state::{Command, MemberRole};
use prism_types::{Id, Reason, TokenId};
use prism_vault::{Config, Vault};
use prism_vault_kit::{MOUNT, Manner, ROLE, StandIn};

use kit::{Cluster, SERVER, UNKNOWN_HERE, cluster_of, joining, node, now};

const TOKEN: &str = "hvs.members";

struct Site {
    cluster: Cluster,
    vault: Arc<Vault>,
    // What the Vault's client reads.
    _dir: tempfile::TempDir,
}

impl std::ops::Deref for Site {
    type Target = Cluster;
    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

fn vault_of(dir: &tempfile::TempDir, stand_in: &StandIn) -> Arc<Vault> {
    std::fs::write(dir.path().join("token"), TOKEN).unwrap();
    std::fs::write(dir.path().join("ca.pem"), stand_in.web()).unwrap();
    let config = Config {
        address: stand_in.url(),
        mount: MOUNT.to_owned(),
        role: ROLE.to_owned(),
        token_file: dir.path().join("token"),
        ca: Some(dir.path().join("ca.pem")),
        namespace: None,
    };
    Arc::new(Vault::new(config).unwrap())
}

fn cluster() -> ClusterId {
    ClusterId(Id::new(1, 9))
}

async fn site(stand_in: &StandIn) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let vault = vault_of(&dir, stand_in);
    let me = Membership::found_by(&vault, cluster(), node(SERVER)).await;
    let issue = |house: &House| house.issue_by(vault.clone());
    let cluster = cluster_of(me.unwrap(), UNKNOWN_HERE, issue).await;
    Site {
        cluster,
        vault,
        _dir: dir,
    }
}

impl Site {
    async fn token(&self, role: MemberRole) -> JoinToken {
        let token = self.cluster.token(|record| record.role = role).await;
        // The root may have changed since the cluster was founded.
        let pin = self.server().root_pin().unwrap();
        JoinToken { pin, ..token }
    }

    async fn uses(&self, token: &JoinToken) -> u32 {
        let uses = |s: &prism_state::State| {
            let mut all = s.join_tokens();
            all.find(|t| t.id == token.id).map_or(0, |t| t.uses)
        };
        self.control.read(uses).await
    }

    async fn try_join(&self, token: &JoinToken, who: &Joining) -> Result<Membership, MemberError> {
        join(self.address, token, who, Key::generate().unwrap()).await
    }
}

fn server(n: u128) -> Joining {
    Joining {
        server: Some(format!("127.0.0.1:{n}")),
        by_vault: true,
        ..joining(n)
    }
}

/// How no Vault should answer, and what is said of it.
fn hostile() -> Vec<(Manner, &'static str)> {
    let uri = |role: &str, n: u128| format!("spiffe://{}/{role}/{}", cluster(), node(n));
    let other = format!("spiffe://{}/worker/{}", ClusterId(Id::new(1, 8)), node(7));
    let named = |all: &[String]| Manner::Named(all.to_vec());
    let name = "and nobody else";
    vec![
        (Manner::WrongKey, "another key"),
        (named(&[uri("worker", 8)]), name),
        (named(&[uri("server", 7)]), name),
        (named(&[other]), name),
        (named(&[uri("worker", 7), uri("server", 1)]), name),
        (named(&[uri("worker", 7).to_uppercase()]), name),
        (named(&[]), name),
        (Manner::NamedBeside("w7.example.org".to_owned()), name),
        (Manner::Authority, "authority"),
        (Manner::Longer(3600), "asked for"),
        (Manner::Longer(365 * 24 * 3600), "asked for"),
        (Manner::Over, "expired"),
        (Manner::NotYet, "not good yet"),
        (Manner::NoClient, "no member would take it"),
        (Manner::WrongChain, "prismctl ca rotate"),
        (Manner::WrongSigner, "prismctl ca rotate"),
        (Manner::Giant(1 << 20), "more than"),
        (Manner::SendOn, "not followed"),
        (Manner::Slow(Duration::from_secs(12)), "within 6 seconds"),
        (
            Manner::Refuse(403, vec!["permission denied".to_owned()]),
            "may update",
        ),
        (
            Manner::Refuse(503, vec!["Vault is sealed".to_owned()]),
            "sealed",
        ),
        (Manner::Says("{\"data\":".to_owned()), "not understood"),
    ]
}

#[tokio::test]
async fn what_vault_should_not_have_signed_is_given_to_nobody_and_uses_no_token_up() {
    let stand_in = StandIn::start(TOKEN);
    let s = site(&stand_in).await;
    let token = s.token(MemberRole::Worker).await;
    for (manner, says) in hostile() {
        stand_in.behave(manner.clone());
        let why = s.try_join(&token, &joining(7)).await.unwrap_err();
        let MemberError::Refused(why) = why else {
            panic!("{manner:?}: {why}");
        };
        assert_eq!(why.reason, Reason::Issuer, "{manner:?}: {why}");
        assert!(
            why.retryable && why.message.contains(says),
            "{manner:?}: {why}"
        );
        assert!(
            why.message
                .ends_with("nothing was changed; the token is not used up"),
            "{why}"
        );
        assert!(!why.message.contains(TOKEN), "{why}");
        assert_eq!(s.uses(&token).await, 1, "{manner:?}");
        let known = s.control.read(|s| s.member(node(7)).is_some()).await;
        assert!(!known, "{manner:?}");
    }
    // Nobody who has no good token has Vault sign anything.
    stand_in.behave(Manner::Well);
    let before = stand_in.asked().len();
    let mut wrong = token;
    wrong.secret = JoinSecret::generate().unwrap();
    let why = s.try_join(&wrong, &joining(7)).await.unwrap_err();
    assert!(matches!(why, MemberError::Refused(w) if w.reason == Reason::Unauthenticated));
    assert_eq!(stand_in.asked().len(), before);
    // And the good one is good still.
    let mut me = s.try_join(&token, &joining(7)).await.unwrap();
    assert_eq!((s.uses(&token).await, me.role), (0, Role::Worker));
    // A renewal is looked at in the same way, and what there is stays.
    let trust = me.trust().unwrap();
    let (chain, roots) = (me.chain.clone(), me.roots.clone());
    for (manner, says) in hostile() {
        if matches!(manner, Manner::Slow(_)) {
            continue;
        }
        stand_in.behave(manner.clone());
        let why = renew(s.address, &mut me, trust.clone()).await.unwrap_err();
        assert!(why.to_string().contains(says), "{manner:?}: {why}");
        assert_eq!((&me.chain, &me.roots), (&chain, &roots));
    }
    assert!(dial_session(s.address, &me, trust.clone()).await.is_ok());
    stand_in.behave(Manner::Well);
    renew(s.address, &mut me, trust.clone()).await.unwrap();
    assert_ne!(me.chain[0], chain[0]);
    let dialled = dial_session(s.address, &me, trust).await.unwrap();
    assert!(!dialled.differs, "nothing is being changed");
}

#[tokio::test]
async fn founding_takes_what_vault_signs_with_for_the_root_and_nothing_that_is_none() {
    let (dir, stand_in) = (tempfile::tempdir().unwrap(), StandIn::start(TOKEN));
    let vault = vault_of(&dir, &stand_in);
    for (manner, says) in hostile() {
        let says = match &manner {
            Manner::Slow(_) => continue,
            // There is no other root yet.
            Manner::WrongChain => continue,
            Manner::WrongSigner => "no root of this cluster",
            _ => says,
        };
        stand_in.behave(manner.clone());
        let why = Membership::found_by(&vault, cluster(), node(1)).await;
        let why = why.unwrap_err().to_string();
        assert!(why.contains(says), "{manner:?}: {why}");
    }
    stand_in.behave(Manner::Well);
    let mut me = Membership::found_by(&vault, cluster(), node(1))
        .await
        .unwrap();
    let hex: String = me
        .root_pin()
        .unwrap()
        .0
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(hex, stand_in.pin(0));
    assert!(me.authority.is_none(), "no key of an authority is here");
    assert_eq!(me.sealing_secrets().len(), 1);
    assert!(me.life.until <= now() + 24 * 3600 + 1);
    me.save(dir.path()).unwrap();
    let kept = std::fs::read_to_string(dir.path().join("identity.json")).unwrap();
    assert_eq!(kept.matches("PRIVATE KEY").count(), 2, "one key, its own");
    let back = Membership::load(dir.path()).unwrap().unwrap();
    assert_eq!((&back.vault, &back.chain), (&me.vault, &me.chain));
    assert!(!format!("{:?}", back.vault).contains("secret"));
    // Half of its life has to be over before it asks for another.
    assert!(!me.renew_by(&vault).await.unwrap());
    stand_in.lives(60, 600);
    me.life.until = now() + 10;
    assert!(me.renew_by(&vault).await.unwrap());
}

#[tokio::test]
async fn a_server_joins_by_vault_where_vault_signs_and_nowhere_else() {
    let stand_in = StandIn::start(TOKEN);
    let s = site(&stand_in).await;
    let token = s.token(MemberRole::Server).await;
    let plain = Joining {
        by_vault: false,
        ..server(2)
    };
    let etcd = Joining {
        on_etcd: true,
        ..server(2)
    };
    for (who, says) in [(plain, "--issuer=vault"), (etcd, "--store=etcd")] {
        let why = s.try_join(&token, &who).await.unwrap_err().to_string();
        assert!(why.contains(says) && why.contains("not used up"), "{why}");
    }
    stand_in.behave(Manner::NoClient);
    assert!(s.try_join(&token, &server(2)).await.is_err());
    stand_in.behave(Manner::Well);
    let me = s.try_join(&token, &server(2)).await.unwrap();
    assert_eq!((me.number(), me.role), (2, Role::Server));
    assert_eq!(me.sealing_secrets(), s.house.sealing_secrets());
    assert_eq!(me.root_pin(), Some(token.pin));
    let said = who_leads(s.address, &me, me.trust().unwrap())
        .await
        .unwrap();
    assert_eq!(said.leads, prism_members::Leads::Me);
    // The other way round.
    let c = kit::cluster().await;
    let token = c.token(|t| t.role = MemberRole::Server).await;
    let key = Key::generate().unwrap();
    let why = join(c.address, &token, &server(2), key).await.unwrap_err();
    assert!(why.to_string().contains("without --issuer=vault"), "{why}");
    assert!(s.house.issuer().unwrap().contains("/v1/prism/sign/"));
    assert_eq!(c.house.issuer(), None);
    // No certificates for people.
    let why = s.house.sign_client(b"", TokenId::new(1, 1), now() + 60);
    assert_eq!(why.unwrap_err().reason, Reason::Unsupported);
}

#[tokio::test]
async fn a_new_root_is_trusted_beside_the_old_before_vault_signs_with_it() {
    let stand_in = StandIn::start(TOKEN);
    let s = site(&stand_in).await;
    let token = s.token(MemberRole::Worker).await;
    let mut me = s.try_join(&token, &joining(7)).await.unwrap();
    let trust = me.trust().unwrap();
    let none = s.house.next_vault_root().await.unwrap_err();
    assert!(none.message.contains("root/rotate"), "{none}");
    stand_in.rotate();
    let new = s.house.next_vault_root().await.unwrap();
    let record = |certificate: Vec<u8>| {
        let pin = prism_identity::Pin::of_certificate(&certificate).unwrap().0;
        Box::new(prism_state::RootRecord { certificate, pin })
    };
    let old = s.house.root().unwrap();
    let begin = Command::Rotate {
        old: record(old.clone()),
        new: record(new.clone()),
        again: false,
    };
    s.control.propose(begin, None).await.unwrap();
    let both = || async { s.house.roots().len() == 2 };
    assert!(kit::until(both).await);
    assert_eq!(s.house.roots(), [old.clone(), new.clone()]);
    assert!(
        s.house.may_finish().is_err(),
        "Vault signs with the old one"
    );
    // Whoever comes sees it, renews, and sees no difference any more, although Vault signs with the old one.
    let dialled = dial_session(s.address, &me, trust.clone()).await.unwrap();
    assert!(dialled.differs);
    renew(s.address, &mut me, trust.clone()).await.unwrap();
    assert_eq!(me.roots.len(), 2);
    let dialled = dial_session(s.address, &me, trust.clone()).await.unwrap();
    assert!(!dialled.differs);
    // A join token made meanwhile is good.
    let late = s.token(MemberRole::Worker).await;
    assert!(s.try_join(&late, &joining(8)).await.is_ok());
    stand_in.replace();
    renew(s.address, &mut me, trust.clone()).await.unwrap();
    assert_eq!(me.chain[1], new);
    // The server's own follows when it is due.
    let mut own = s.server();
    own.life.until = now();
    assert!(own.renew_by(&s.vault).await.unwrap());
    assert_eq!(own.roots, [new, old]);
    let ended = s.control.read(|s| s.rotation().unwrap().ended).await;
    assert_eq!(ended, None, "not before the server has shown its own");
}
