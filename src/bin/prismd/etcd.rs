//! What keeps the cluster's state, as flags, environment and file say it: the servers themselves, or an etcd.

use std::path::PathBuf;

use clap::Args;
use prism_node::{EtcdConfig, EtcdLogin, EtcdTls};
use serde::Deserialize;

use crate::settings::{Mode, one_of};

/// The password itself; never a flag, which others on the machine could read.
const PASSWORD: &str = "PRISM_ETCD_PASSWORD";
/// What all keys in etcd begin with, unless said otherwise.
const PREFIX: &str = "/prism/";
/// Longest prefix: etcd holds it once for every key.
const PREFIX_MAX: usize = 128;

/// Flags and their environment.
#[derive(Debug, Default, Args)]
pub(crate) struct StoreArgs {
    /// What keeps the cluster's state: `raft`, the servers themselves, or `etcd`, one that is there [default: raft]
    #[arg(long, global = true, env = "PRISM_STORE")]
    store: Option<String>,
    /// Client URLs of the etcd, http://HOST:PORT or https://HOST:PORT, several with commas
    #[arg(long, global = true, env = "PRISM_ETCD_ENDPOINTS", value_name = "URLS")]
    etcd_endpoints: Option<String>,
    /// What all of this cluster's keys in etcd begin with; begins and ends with a slash [default: /prism/]
    #[arg(long, global = true, env = "PRISM_ETCD_PREFIX", value_name = "PREFIX")]
    etcd_prefix: Option<String>,
    /// Certificates (PEM) of the authorities that signed those of the etcd; needed for https
    #[arg(long, global = true, env = "PRISM_ETCD_CA", value_name = "FILE")]
    etcd_ca: Option<PathBuf>,
    /// This server's certificate (PEM) for an etcd that asks for one
    #[arg(long, global = true, env = "PRISM_ETCD_CERT", value_name = "FILE")]
    etcd_cert: Option<PathBuf>,
    /// The key (PEM) of that certificate
    #[arg(long, global = true, env = "PRISM_ETCD_KEY", value_name = "FILE")]
    etcd_key: Option<PathBuf>,
    /// User of an etcd that has users; may read and write what begins with the prefix
    #[arg(long, global = true, env = "PRISM_ETCD_USER", value_name = "NAME")]
    etcd_user: Option<String>,
    /// File with that user's password; or the password in PRISM_ETCD_PASSWORD
    #[arg(
        long,
        global = true,
        env = "PRISM_ETCD_PASSWORD_FILE",
        value_name = "FILE"
    )]
    etcd_password_file: Option<PathBuf>,
    /// Leave etcd's history, which is that of all its users, to whoever else drops it; otherwise what is older than 5 minutes goes
    #[arg(long, global = true, env = "PRISM_ETCD_KEEP_HISTORY")]
    etcd_keep_history: bool,
}

/// The same in the configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StoreFile {
    store: Option<String>,
    etcd_endpoints: Option<Endpoints>,
    etcd_prefix: Option<String>,
    etcd_ca: Option<PathBuf>,
    etcd_cert: Option<PathBuf>,
    etcd_key: Option<PathBuf>,
    etcd_user: Option<String>,
    etcd_password_file: Option<PathBuf>,
    etcd_keep_history: bool,
}

/// One text, as in the environment, or a list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Endpoints {
    Text(String),
    List(Vec<String>),
}

/// Keys of the file.
pub(crate) const FILE_KEYS: [&str; 9] = [
    "store",
    "etcd_endpoints",
    "etcd_prefix",
    "etcd_ca",
    "etcd_cert",
    "etcd_key",
    "etcd_user",
    "etcd_password_file",
    "etcd_keep_history",
];

/// The etcd that keeps the state, if one is to.
pub(crate) fn read(
    args: StoreArgs,
    file: StoreFile,
    mode: Mode,
) -> Result<Option<EtcdConfig>, String> {
    let store = args.store.or(file.store);
    let password = std::env::var(PASSWORD).ok().filter(|p| !p.is_empty());
    let endpoints = args.etcd_endpoints.or(file.etcd_endpoints.map(|e| match e {
        Endpoints::Text(text) => text,
        Endpoints::List(list) => list.join(","),
    }));
    let prefix = args.etcd_prefix.or(file.etcd_prefix);
    let ca = args.etcd_ca.or(file.etcd_ca);
    let cert = args.etcd_cert.or(file.etcd_cert);
    let key = args.etcd_key.or(file.etcd_key);
    let user = args.etcd_user.or(file.etcd_user);
    let password_file = args.etcd_password_file.or(file.etcd_password_file);
    let keep_history = args.etcd_keep_history || file.etcd_keep_history;
    let given = [
        ("--etcd-endpoints", endpoints.is_some()),
        ("--etcd-prefix", prefix.is_some()),
        ("--etcd-ca", ca.is_some()),
        ("--etcd-cert", cert.is_some()),
        ("--etcd-key", key.is_some()),
        ("--etcd-user", user.is_some()),
        ("--etcd-password-file", password_file.is_some()),
        (PASSWORD, password.is_some()),
        ("--etcd-keep-history", keep_history),
    ];
    let told = store.as_deref().unwrap_or("raft");
    if one_of("--store", told, &["raft", "etcd"])? == "raft" {
        return match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(format!(
                "{name} goes with --store=etcd: without it the servers keep the cluster's state themselves"
            )),
            None => Ok(None),
        };
    }
    match mode {
        Mode::Worker => {
            return Err(
                "--store is for servers: a worker keeps none of the cluster's state".to_owned(),
            );
        }
        Mode::Dev => {
            return Err("--store=etcd goes with --bootstrap, or with --join for another server: `dev` is one node for trying things, and keeps its state itself".to_owned());
        }
        Mode::Expect => {
            return Err("--bootstrap-expect is for servers that keep the state together: beneath an etcd start one with --bootstrap, and let the others --join it".to_owned());
        }
        Mode::Bootstrap | Mode::Join => {}
    }
    let urls = urls(endpoints.as_deref())?;
    let secure = urls.iter().any(|url| url.starts_with("https://"));
    let mut etcd = EtcdConfig::new(urls);
    etcd.prefix = self::prefix(prefix)?;
    etcd.tls = tls(secure, ca, (cert, key))?;
    if keep_history {
        etcd.compact_every = None;
    }
    etcd.login = login(user, password_file, password)?;
    Ok(Some(etcd))
}

/// The client URLs, all of one kind.
fn urls(given: Option<&str>) -> Result<Vec<String>, String> {
    let all: Vec<String> = given
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|url| !url.is_empty())
        .map(str::to_owned)
        .collect();
    if all.is_empty() {
        return Err("--store=etcd needs --etcd-endpoints: say where the etcd is, such as --etcd-endpoints=http://127.0.0.1:2379".to_owned());
    }
    if all.iter().any(|url| url.contains('@')) {
        return Err(
            "--etcd-endpoints: a URL has no user in it; say --etcd-user and --etcd-password-file"
                .to_owned(),
        );
    }
    if let Some(bad) = all.iter().find(|url| !is_url(url)) {
        return Err(format!(
            "--etcd-endpoints: {bad:?} is not http://HOST:PORT or https://HOST:PORT, such as http://127.0.0.1:2379"
        ));
    }
    let secure = all.iter().filter(|url| url.starts_with("https://")).count();
    if secure != 0 && secure != all.len() {
        return Err(
            "--etcd-endpoints: some are https and some are not; all of one cluster are the same"
                .to_owned(),
        );
    }
    Ok(all)
}

fn is_url(url: &str) -> bool {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest)) else {
        return false;
    };
    let (host, port) = match rest.rsplit_once(':') {
        // Within brackets a colon is of the address.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain =
        |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c) || bracketed && ":[]%".contains(c);
    !host.is_empty()
        && host.chars().all(plain)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

fn prefix(given: Option<String>) -> Result<String, String> {
    let prefix = given.unwrap_or_else(|| PREFIX.to_owned());
    let well = prefix.len() > 1 && prefix.starts_with('/') && prefix.ends_with('/');
    let readable = prefix.chars().all(|c| c.is_ascii_graphic());
    if well && readable && prefix.len() <= PREFIX_MAX {
        return Ok(prefix);
    }
    Err(format!(
        "--etcd-prefix: {prefix:?} is not one: it begins and ends with a slash, has something between and at most {PREFIX_MAX} characters, such as /prism/"
    ))
}

fn tls(
    secure: bool,
    ca: Option<PathBuf>,
    client: (Option<PathBuf>, Option<PathBuf>),
) -> Result<Option<EtcdTls>, String> {
    let client = match client {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            return Err("--etcd-cert needs --etcd-key, the key of that certificate".to_owned());
        }
        (None, Some(_)) => {
            return Err("--etcd-key needs --etcd-cert, the certificate of that key".to_owned());
        }
    };
    match (secure, ca) {
        (true, Some(ca)) => Ok(Some(EtcdTls { ca, client })),
        (true, None) => Err("--etcd-endpoints are https, which needs --etcd-ca: the certificates of the authorities that signed those of the etcd".to_owned()),
        (false, None) if client.is_none() => Ok(None),
        (false, _) => Err("--etcd-ca, --etcd-cert and --etcd-key are for endpoints that begin with https://".to_owned()),
    }
}

fn login(
    user: Option<String>,
    file: Option<PathBuf>,
    password: Option<String>,
) -> Result<Option<EtcdLogin>, String> {
    let password = match (file, password) {
        (Some(_), Some(_)) => {
            return Err(format!(
                "--etcd-password-file and {PASSWORD} both say a password; leave one out"
            ));
        }
        (Some(path), None) => {
            let read = std::fs::read_to_string(&path);
            let text = read.map_err(|e| {
                format!("--etcd-password-file: cannot read {}: {e}", path.display())
            })?;
            let line = text.trim_end_matches(['\n', '\r']);
            if line.is_empty() || line.contains('\n') {
                return Err(format!(
                    "--etcd-password-file: {} is to hold the password and nothing else, on one line",
                    path.display()
                ));
            }
            Some(line.to_owned())
        }
        (None, password) => password,
    };
    match (user, password) {
        (Some(user), Some(password)) if !user.is_empty() => Ok(Some(EtcdLogin { user, password })),
        (None, None) => Ok(None),
        (None, Some(_)) => {
            Err("a password for etcd needs --etcd-user, the user that it is of".to_owned())
        }
        (Some(_), _) => Err(format!(
            "--etcd-user needs a name and its password: --etcd-password-file FILE, or {PASSWORD} in the environment"
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]
    use super::*;

    fn args(change: impl FnOnce(&mut StoreArgs)) -> StoreArgs {
        let mut args = StoreArgs {
            store: Some("etcd".to_owned()),
            etcd_endpoints: Some("http://127.0.0.1:2379".to_owned()),
            ..StoreArgs::default()
        };
        change(&mut args);
        args
    }

    fn refused(change: impl FnOnce(&mut StoreArgs)) -> String {
        read(args(change), StoreFile::default(), Mode::Bootstrap).unwrap_err()
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        let none = read(StoreArgs::default(), StoreFile::default(), Mode::Dev);
        assert!(none.unwrap().is_none());
        for (mode, says) in [(Mode::Worker, "keeps none"), (Mode::Dev, "--bootstrap")] {
            let said = read(args(|_| {}), StoreFile::default(), mode).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
        let path = || Some(PathBuf::from("f.pem"));
        type Change = fn(&mut StoreArgs);
        let cases: [(&str, Change); 9] = [
            ("goes with --store=etcd", |a| a.store = None),
            ("did you mean \"etcd\"", |a| {
                a.store = Some("etd".to_owned())
            }),
            ("needs --etcd-endpoints", |a| a.etcd_endpoints = None),
            ("needs --etcd-endpoints", |a| {
                a.etcd_endpoints = Some(" , ".to_owned())
            }),
            ("some are https", |a| {
                a.etcd_endpoints = Some("http://a:1,https://b:1".to_owned());
            }),
            ("needs --etcd-ca", |a| {
                a.etcd_endpoints = Some("https://a".to_owned())
            }),
            ("needs a name and its password", |a| {
                a.etcd_user = Some("u".to_owned())
            }),
            ("cannot read", |a| {
                a.etcd_password_file = Some("/absent/p".into())
            }),
            ("is not one", |a| a.etcd_prefix = Some("/prism".to_owned())),
        ];
        for (says, change) in cases {
            let said = refused(change);
            assert!(said.contains(says), "{said}");
        }
        assert!(refused(|a| a.etcd_ca = path()).contains("begin with https"));
        assert!(refused(|a| a.etcd_cert = path()).contains("needs --etcd-key"));
        assert!(refused(|a| a.etcd_key = path()).contains("needs --etcd-cert"));
    }

    #[test]
    fn urls_and_prefixes_are_looked_at() {
        for good in [
            "http://127.0.0.1:2379",
            "https://etcd-1.example:2379/",
            "http://[::1]:2379",
            "https://[fd00::1]",
            "http://etcd",
        ] {
            assert!(is_url(good), "{good}");
        }
        for bad in [
            "127.0.0.1:2379",
            "ftp://a:1",
            "http://",
            "http://:2379",
            "http://a:0",
            "http://a:99999",
            "http://a:x",
            "http://a:1/v3",
            "http://a b:1",
            "http://user@a:1",
            "http://a::1",
            "https://",
        ] {
            assert!(!is_url(bad), "{bad}");
        }
        assert_eq!(prefix(None).unwrap(), "/prism/");
        assert_eq!(prefix(Some("/a/b/".to_owned())).unwrap(), "/a/b/");
        for bad in ["", "/", "prism/", "/a b/", "/\u{e4}/"] {
            assert!(prefix(Some(bad.to_owned())).is_err(), "{bad:?}");
        }
        assert!(prefix(Some(format!("/{}/", "x".repeat(127)))).is_err());
    }

    #[test]
    fn a_password_comes_from_one_place_and_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = dir.path().join("p");
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let user = || Some("prism".to_owned());
        let read = login(user(), file("secret\n"), None).unwrap().unwrap();
        assert_eq!((&*read.user, &*read.password), ("prism", "secret"));
        let told = login(user(), None, Some("other".to_owned())).unwrap();
        assert_eq!(told.unwrap().password, "other");
        for wrong in ["", "\n", "a\nb\n"] {
            assert!(login(user(), file(wrong), None).is_err(), "{wrong:?}");
        }
        let both = login(user(), file("a"), Some("b".to_owned())).unwrap_err();
        assert!(
            both.contains("leave one out") && !both.contains("\"a\""),
            "{both}"
        );
        assert!(
            login(None, file("a"), None)
                .unwrap_err()
                .contains("--etcd-user")
        );
    }
}
