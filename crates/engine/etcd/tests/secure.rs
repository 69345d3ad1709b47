//! TLS with certificates on both sides, and users with passwords: what works, and what is refused in which words.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod kit;

use std::path::Path;

use kit::{Etcd, SHORT, has_etcd, lead, until};
use prism_etcd::{Config, Login, OpenError, Tls, open};
use prism_store::{Batch, Revision, Store, StoreError};
use prism_store_kit::etcd::Certificates;

fn tls(files: &Certificates) -> Tls {
    Tls {
        ca: files.path("ca.pem"),
        client: Some((files.path("client.pem"), files.path("client.key"))),
    }
}

async fn refused(mut config: Config) -> String {
    // What is refused is asked for again until then.
    config.timeout = SHORT / 2;
    open(config).await.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_prove_who_they_are() {
    if !has_etcd() {
        return;
    }
    let files = Certificates::new();
    let etcd = Etcd(files.etcd());
    let mut config = etcd.config("p");
    config.tls = Some(tls(&files));
    let store = open(config.clone()).await.unwrap();
    let fence = store.lead().await.unwrap().fence;
    assert_eq!(
        store.commit(fence, Batch::new().put("a", "1")).await,
        Ok(Revision(1))
    );
    let follower = open(config.clone()).await.unwrap();
    assert!(follower.get(b"a", None).await.unwrap().is_some());

    let mut nobody = config.clone();
    nobody.tls = Some(Tls {
        client: None,
        ..tls(&files)
    });
    let said = refused(nobody).await;
    assert!(said.contains("no etcd member answered"), "{said}");
    let strangers = Certificates::new();
    let mut other = config.clone();
    other.tls = Some(Tls {
        ca: strangers.path("ca.pem"),
        ..tls(&files)
    });
    let said = refused(other).await;
    assert!(said.contains("certificate"), "{said}");
    let mut none = config.clone();
    none.tls = None;
    let said = refused(none).await;
    assert!(said.contains("https") && said.contains("CA"), "{said}");
    let mut plain = config.clone();
    plain.endpoints = vec![etcd.url.replace("https", "http")];
    let said = refused(plain.clone()).await;
    assert!(said.contains("http"), "{said}");
    plain.tls = None;
    let said = refused(plain).await;
    assert!(said.contains("nothing was changed"), "{said}");
    for wrong in ["absent.pem", "server.key"] {
        let mut config = config.clone();
        config.tls = Some(Tls {
            ca: files.path(wrong),
            ..tls(&files)
        });
        let error = open(config).await.unwrap_err();
        assert!(matches!(error, OpenError::Tls { .. }), "{error}");
        assert!(error.to_string().contains(wrong), "{error}");
    }
}

fn login(etcd: &Etcd, prefix: &str, password: &str) -> Config {
    let mut config = etcd.config(prefix);
    config.login = Some(Login {
        user: "prism".to_owned(),
        password: password.to_owned(),
    });
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_its_prefix_and_a_token_that_is_renewed() {
    if !has_etcd() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    etcd.have_users("/p/");
    let store = open(login(&etcd, "p", "right")).await.unwrap();
    let fence = store.lead().await.unwrap().fence;
    store
        .commit(fence, Batch::new().put("a", "1"))
        .await
        .unwrap();
    let follower = open(login(&etcd, "p", "right")).await.unwrap();
    assert!(follower.get(b"a", None).await.unwrap().is_some());

    let said = refused(login(&etcd, "p", "wrong")).await;
    assert!(
        said.contains("etcd refused") && said.contains("check user and password"),
        "{said}"
    );
    assert!(!said.contains("wrong"), "a password is never shown: {said}");
    let said = refused(login(&etcd, "other", "right")).await;
    assert!(
        said.contains("permission denied") && said.contains("beneath the prefix"),
        "{said}"
    );
    let said = refused(etcd.config("p")).await;
    assert!(said.contains("etcd refused"), "{said}");

    // An etcd that starts again knows no token any more.
    etcd.kill();
    etcd.run();
    let done = async {
        loop {
            let fence = lead(&store).await.fence;
            match store.commit(fence, Batch::new().put("b", "2")).await {
                Ok(revision) => return revision,
                Err(error) => assert!(
                    error.retryable() || matches!(error, StoreError::Fenced { .. }),
                    "{error}"
                ),
            }
        }
    };
    assert_eq!(kit::within(done).await, Revision(2));
    until("the follower goes on", async || {
        follower
            .get(b"b", None)
            .await
            .is_ok_and(|item| item.is_some())
    })
    .await;
}

#[test]
fn a_password_is_not_in_what_is_printed() {
    let login = Login {
        user: "a".to_owned(),
        password: "hidden".to_owned(),
    };
    assert!(!format!("{login:?}").contains("hidden"));
    assert!(Path::new("a").is_relative());
}
