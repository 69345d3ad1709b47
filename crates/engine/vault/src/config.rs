//! Where Vault is, and what is asked of it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::VaultError;

/// Most bytes of a token and of a file of authorities.
const TOKEN_MAX: u64 = 16 << 10;
const AUTHORITIES_MAX: u64 = 1 << 20;
/// Most bytes of a mount, a role or a namespace.
const NAME_MAX: usize = 256;

/// Settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `https://HOST[:PORT]`; `http` for this machine only.
    pub address: String,
    /// The path of the PKI mount, such as `prism` or `pki/prism`.
    pub mount: String,
    /// The role of the mount that certificates are signed by.
    pub role: String,
    /// File with the token, read at each use.
    pub token_file: PathBuf,
    /// Certificates (PEM) of the authorities behind Vault's own certificate; for `https`.
    pub ca: Option<PathBuf>,
    /// The namespace in which the mount is, if it is in one.
    pub namespace: Option<String>,
}

/// A token. It is shown nowhere.
pub(crate) struct Token(pub(crate) String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A path in Vault as it may stand in a URL without any change.
fn is_path(text: &str) -> bool {
    let part = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && part != "." && part != ".." && part.chars().all(plain)
    };
    text.len() <= NAME_MAX && text.split('/').all(part)
}

/// A file, if it is not larger than it may be.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>, VaultError> {
    let failed = |why: String| VaultError::File {
        path: path.to_owned(),
        why,
    };
    // A pipe would be waited for.
    let meta = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?;
    if !meta.is_file() {
        return Err(failed("it is no regular file".to_owned()));
    }
    let file = File::open(path).map_err(|e| failed(e.to_string()))?;
    let mut bytes = Vec::new();
    let read = file.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|e| failed(e.to_string()))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > most) {
        return Err(failed(format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), VaultError> {
        let wrong = |what, given: &str| {
            let why = format!("{given:?} is no path of letters, digits, - _ . and / between");
            VaultError::Config { what, why }
        };
        if !is_path(&self.mount) {
            return Err(wrong("the mount", &self.mount));
        }
        if !is_path(&self.role) || self.role.contains('/') {
            return Err(wrong("the role", &self.role));
        }
        match &self.namespace {
            Some(name) if !is_path(name.trim_end_matches('/')) => Err(wrong("the namespace", name)),
            _ => Ok(()),
        }
    }

    pub(crate) fn sign_path(&self) -> String {
        format!("/v1/{}/sign/{}", self.mount, self.role)
    }

    /// The token as it is now: whoever renews it replaces the file.
    pub(crate) fn token(&self) -> Result<Token, VaultError> {
        let bytes = read(&self.token_file, TOKEN_MAX)?;
        let failed = |why: &str| VaultError::File {
            path: self.token_file.clone(),
            why: why.to_owned(),
        };
        let text = String::from_utf8(bytes).map_err(|_| failed("it is no text"))?;
        let text = text.trim();
        if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(failed("it is to hold the token and nothing else"));
        }
        Ok(Token(text.to_owned()))
    }

    pub(crate) fn authorities(&self) -> Result<Option<Vec<u8>>, VaultError> {
        let path = self.ca.as_deref();
        path.map(|path| read(path, AUTHORITIES_MAX)).transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]
    use super::*;

    #[test]
    fn paths_go_into_urls_as_they_are() {
        for good in ["pki", "prism-1/pki_2", "a.b", "a/b/c"] {
            assert!(is_path(good), "{good}");
        }
        for bad in [
            "", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a b", "a?b", "a#b", "a%2fb",
            "a\r\nb", "\u{e4}",
        ] {
            assert!(!is_path(bad), "{bad:?}");
        }
        assert!(!is_path(&"x".repeat(NAME_MAX + 1)));
    }

    #[test]
    fn a_token_is_read_anew_and_told_to_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            address: "https://v".to_owned(),
            mount: "pki".to_owned(),
            role: "r".to_owned(),
            token_file: dir.path().join("t"),
            ca: None,
            namespace: None,
        };
        assert!(config.check().is_ok());
        let write = |text: &[u8]| std::fs::write(&config.token_file, text).unwrap();
        assert!(config.token().is_err(), "there is none");
        for bad in [
            b"" as &[u8],
            b"\n",
            b"a b",
            b"a\nb",
            b"\xff",
            &[b'x'; 17 << 10],
        ] {
            write(bad);
            let why = config.token().unwrap_err().to_string();
            assert!(why.contains("/t") && !why.contains("a b"), "{why}");
        }
        for good in ["hvs.one\n", "hvs.two"] {
            write(good.as_bytes());
            let token = config.token().unwrap();
            assert_eq!(token.0, good.trim());
            assert!(!format!("{token:?}").contains("hvs"));
        }
        let role = Config {
            role: "a/b".to_owned(),
            ..config
        };
        assert!(role.check().is_err());
    }
}
