//! TLS with certificates on both sides, and users with passwords: what works, and what is refused in which words.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod kit;

use std::path::{Path, PathBuf};

use kit::{Etcd, has_etcd, lead, until};
use prism_etcd::{Config, Login, OpenError, Tls, open};
use prism_store::{Batch, Revision, Store, StoreError};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

/// An authority, and what it signed, as files.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        for name in ["server", "client"] {
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            // The gateway calls etcd itself with the server's certificate.
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &ca).unwrap();
            std::fs::write(dir.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn tls(&self) -> Tls {
        Tls {
            ca: self.path("ca.pem"),
            client: Some((self.path("client.pem"), self.path("client.key"))),
        }
    }
}

async fn refused(config: Config) -> String {
    open(config).await.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_prove_who_they_are() {
    if !has_etcd() {
        return;
    }
    let files = Files::new();
    let arguments = [
        "--cert-file",
        &files.text("server.pem"),
        "--key-file",
        &files.text("server.key"),
        "--trusted-ca-file",
        &files.text("ca.pem"),
        "--client-cert-auth",
    ];
    let etcd = Etcd::start_over("https", &arguments);
    let mut config = etcd.config("p");
    config.tls = Some(files.tls());
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
        ..files.tls()
    });
    let said = refused(nobody).await;
    assert!(said.contains("no etcd member answered"), "{said}");
    let strangers = Files::new();
    let mut other = config.clone();
    other.tls = Some(Tls {
        ca: strangers.path("ca.pem"),
        ..files.tls()
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
            ..files.tls()
        });
        let error = open(config).await.unwrap_err();
        assert!(matches!(error, OpenError::Tls { .. }), "{error}");
        assert!(error.to_string().contains(wrong), "{error}");
    }
}

fn with_users() -> Etcd {
    let etcd = Etcd::start(&[]);
    for words in [
        "user add root:secret",
        "user grant-role root root",
        "role add prism",
        "role grant-permission prism readwrite /p/ --prefix",
        "user add prism:right",
        "user grant-role prism prism",
        "auth enable",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        if words[1] == "grant-role" && words[2] == "root" {
            // It makes the role of that name by itself, or wants it made.
            let _made = std::panic::catch_unwind(|| etcd.ctl(&["role", "add", "root"]));
        }
        etcd.ctl(&words);
    }
    etcd
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
    let mut etcd = with_users();
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
