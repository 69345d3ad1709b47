//! The client against a stand-in that speaks what Vault documents, over HTTPS.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

use std::path::Path;
use std::time::{Duration, Instant};

use prism_vault::{Config, Vault, VaultError};
use prism_vault_kit::{MOUNT, Manner, ROLE, StandIn};
use rcgen::{CertificateParams, KeyPair};

const TOKEN: &str = "hvs.CAESIJ-secret-of-this-test";
const URI: &str = "spiffe://c/worker/w";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn config(dir: &Path, vault: &StandIn) -> Config {
    std::fs::write(dir.join("token"), format!("{TOKEN}\n")).unwrap();
    std::fs::write(dir.join("ca.pem"), vault.web()).unwrap();
    Config {
        address: vault.url(),
        mount: MOUNT.to_owned(),
        role: ROLE.to_owned(),
        token_file: dir.join("token"),
        ca: Some(dir.join("ca.pem")),
        namespace: None,
    }
}

fn request() -> String {
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::default().serialize_request(&key);
    made.unwrap().pem().unwrap()
}

async fn refused(vault: &Vault) -> VaultError {
    let why = vault.sign(&request(), URI, DAY).await.unwrap_err();
    let said = format!("{why} {why:?}");
    assert!(!said.contains(TOKEN), "{said}");
    assert!(said.len() < 3_000, "{said}");
    why
}

#[tokio::test]
async fn what_it_signs_comes_back_and_the_token_is_read_at_each_use() {
    let (dir, stand_in) = (tempfile::tempdir().unwrap(), StandIn::start(TOKEN));
    let vault = Vault::new(config(dir.path(), &stand_in)).unwrap();
    assert!(!format!("{vault:?}").contains(TOKEN));
    let signed = vault.sign(&request(), URI, DAY).await.unwrap();
    assert_ne!(signed.certificate, signed.issuer);
    assert_eq!(stand_in.signed()[0].uri, URI);
    assert_eq!(stand_in.asked(), [format!("POST /v1/{MOUNT}/sign/{ROLE}")]);
    assert_eq!(vault.issuer("default").await.unwrap(), signed.issuer);
    let none = vault.issuer("next").await.unwrap_err();
    assert!(none.to_string().contains("unable to find"), "{none}");
    stand_in.take("hvs.another");
    let why = refused(&vault).await;
    assert!(matches!(why, VaultError::Refused { .. }), "{why:?}");
    assert!(why.to_string().contains("403: permission denied"), "{why}");
    assert!(why.to_string().contains("may update prism/sign/"), "{why}");
    std::fs::write(dir.path().join("token"), "hvs.another").unwrap();
    assert!(vault.sign(&request(), URI, DAY).await.is_ok());
    std::fs::remove_file(dir.path().join("token")).unwrap();
    assert!(matches!(refused(&vault).await, VaultError::File { .. }));
    // In a namespace it is not found without saying so.
    stand_in.take(TOKEN);
    stand_in.within("team/a");
    let mut within = config(dir.path(), &stand_in);
    let vault = Vault::new(within.clone()).unwrap();
    let why = refused(&vault).await.to_string();
    assert!(
        why.contains("404: no handler for route; see that there is such a mount"),
        "{why}"
    );
    within.namespace = Some("team/a".to_owned());
    let vault = Vault::new(within).unwrap();
    assert!(vault.sign(&request(), URI, DAY).await.is_ok());
    assert!(
        vault.place().ends_with("(namespace team/a)"),
        "{}",
        vault.place()
    );
}

/// What it answers, of which kind that is, and what is said of it.
fn answers() -> Vec<(Manner, &'static str, &'static str)> {
    let strange = "not do so as Vault";
    let refuse = |status, errors: &[&str]| {
        let errors = errors.iter().map(|e| (*e).to_owned());
        Manner::Refuse(status, errors.collect())
    };
    let echo = format!("bad token \r\n {TOKEN}");
    let long = "x".repeat(5_000);
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{";
    let mut all = vec![
        (refuse(503, &["Vault is sealed"]), "is away", "is sealed"),
        (refuse(429, &[]), "is away", "it does not say why"),
        (refuse(400, &[&echo, &long]), "refuses", "token (the token)"),
        (refuse(403, &[]), "refuses", "vault token lookup"),
        (refuse(204, &[]), strange, "204"),
        (Manner::Giant(1 << 20), strange, "more than 131072 bytes"),
        (Manner::SendOn, strange, "elsewhere, which is not followed"),
        (Manner::Raw(head), strange, ""),
        (Manner::Raw("no HTTP\r\n\r\n".to_owned()), strange, ""),
        (Manner::Raw(cut.to_owned()), "", ""),
        (Manner::Raw(String::new()), "is away", ""),
    ];
    for text in ["{", "", "<html>", "{\"data\":{}}", "{\"data\":[]}"] {
        all.push((Manner::Says(text.to_owned()), strange, "not understood"));
    }
    all
}

#[tokio::test]
async fn whatever_it_answers_is_bounded_in_time_and_bytes_and_told_in_words() {
    let (dir, mut stand_in) = (tempfile::tempdir().unwrap(), StandIn::start(TOKEN));
    let vault = Vault::new(config(dir.path(), &stand_in)).unwrap();
    for (manner, kind, says) in answers() {
        stand_in.behave(manner.clone());
        let why = refused(&vault).await.to_string();
        assert!(
            why.contains(kind) && why.contains(says),
            "{manner:?}: {why}"
        );
    }
    assert!(
        stand_in
            .asked()
            .iter()
            .all(|path| !path.contains("elsewhere"))
    );
    stand_in.behave(Manner::Slow(Duration::from_secs(30)));
    let began = Instant::now();
    let why = refused(&vault).await.to_string();
    assert!(why.contains("no answer within 6 seconds"), "{why}");
    assert!(began.elapsed() < Duration::from_secs(9));
    stand_in.away();
    let why = refused(&vault).await;
    assert!(matches!(why, VaultError::Away { .. }), "{why:?}");
    stand_in.back();
    stand_in.behave(Manner::Well);
    assert!(vault.sign(&request(), URI, DAY).await.is_ok());
}

#[tokio::test]
async fn it_is_spoken_to_with_tls_or_on_this_machine() {
    let (dir, stand_in) = (tempfile::tempdir().unwrap(), StandIn::start(TOKEN));
    let good = config(dir.path(), &stand_in);
    // Somebody else's authority.
    std::fs::write(dir.path().join("other.pem"), StandIn::start("t").web()).unwrap();
    let other = Config {
        ca: Some(dir.path().join("other.pem")),
        ..good.clone()
    };
    let why = refused(&Vault::new(other).unwrap()).await;
    assert!(matches!(why, VaultError::Away { .. }), "{why:?}");
    assert!(stand_in.asked().is_empty(), "nothing was sent to it");
    // A name that leads to this machine, and does not stand in for another.
    let at = |address: &str, ca: bool| {
        Vault::new(Config {
            address: address.to_owned(),
            ca: good.ca.clone().filter(|_| ca),
            ..good.clone()
        })
    };
    for here in [
        "http://127.0.0.1:8200",
        "http://[::1]:8200/",
        "http://localhost",
    ] {
        assert!(at(here, false).is_ok(), "{here}");
    }
    for bad in [
        "http://vault:8200",
        "http://10.0.0.1:8200",
        "http://0.0.0.0:8200",
        "http://127.0.0.1.example.org",
        "https://vault:8200",
        "vault:8200",
        "ftp://vault",
        "https://",
        "https://vault/v1",
        "https://user@vault",
        "https://vault?x",
        "https://vault:99999",
        "",
    ] {
        let why = at(bad, false).unwrap_err();
        assert!(matches!(why, VaultError::Config { .. }), "{bad}: {why:?}");
    }
    assert!(at("http://127.0.0.1:8200", true).is_err());
    std::fs::write(dir.path().join("ca.pem"), "none").unwrap();
    let why = at(&stand_in.url(), true).unwrap_err().to_string();
    assert!(why.contains("holds no certificate"), "{why}");
}
