//! Who a node is in its cluster, kept in one file of its data directory that only its owner reads, replaced whole.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use prism_identity::{ClusterId, Issued, Issuer, Key, Lifetime, Role, Root, Trust, life_of};
use prism_runtime::sealed;
use prism_types::NodeId;
use serde::{Deserialize, Serialize};

use crate::{Authority, MemberError, Vaulted};

/// Its file, in the data directory.
const FILE: &str = "identity.json";
/// The version of the file.
const VERSION: u32 = 1;

/// Who a node is.
#[derive(Debug)]
pub struct Membership {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Which.
    pub node: NodeId,
    /// As what.
    pub role: Role,
    /// Its key, which never leaves it.
    pub key: Key,
    /// Its certificate and its issuer's, DER.
    pub chain: Vec<Vec<u8>>,
    /// From when until when that is good.
    pub life: Lifetime,
    /// The roots that it trusts, DER.
    pub roots: Vec<Vec<u8>>,
    /// What it signs with, if it is a server.
    pub authority: Option<Authority>,
    /// If it is a server of a cluster whose certificates Vault signs; then there is no authority here.
    pub vault: Option<Vaulted>,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    cluster: ClusterId,
    node: NodeId,
    role: Role,
    key: String,
    chain: Vec<String>,
    roots: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    authority: Option<KeptAuthority>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    vault: Option<KeptVault>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptVault {
    number: u64,
    secret: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptAuthority {
    key: String,
    certificate: String,
    root: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    root_key: Option<String>,
    #[serde(default = "first")]
    number: u64,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    others: Vec<KeptRoot>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    also: Option<String>,
}

/// Another root, while the root is changed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptRoot {
    certificate: String,
    key: String,
}

/// The number of whoever founded a cluster; not written at first.
fn first() -> u64 {
    1
}

fn text(der: &[u8]) -> String {
    BASE64.encode(der)
}

fn texts(all: &[Vec<u8>]) -> Vec<String> {
    all.iter().map(|der| text(der)).collect()
}

fn kept_root(root: &Root) -> KeptRoot {
    KeptRoot {
        certificate: text(root.certificate()),
        key: root.key().to_pem(),
    }
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> io::Error {
    let path = path.display();
    let what = format!(
        "{path} cannot be used: {why}; restore it, or remove the node from the cluster and join again with an empty directory"
    );
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn bytes(path: &Path, text: &str) -> io::Result<Vec<u8>> {
    let read = BASE64.decode(text);
    read.map_err(|_| wrong(path, "a certificate in it is no base64"))
}

fn all_bytes(path: &Path, texts: &[String]) -> io::Result<Vec<Vec<u8>>> {
    texts.iter().map(|text| bytes(path, text)).collect()
}

impl Membership {
    /// Founds a cluster of which this node is the first server.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn found(cluster: ClusterId, node: NodeId, now: i64) -> Result<Self, MemberError> {
        let authority = Authority::found(cluster, node, now)?;
        let key = Key::generate()?;
        let issued = authority.sign(&key.request()?, Role::Server, node, now)?;
        Ok(Self {
            cluster,
            node,
            role: Role::Server,
            key,
            roots: vec![authority.root.clone()],
            chain: issued.chain,
            life: issued.life,
            authority: Some(authority),
            vault: None,
        })
    }

    /// The same once more: its keys are read again, for they are not copied.
    ///
    /// # Errors
    /// When a key cannot be read, which it can.
    pub(crate) fn copy(&self) -> Result<Self, MemberError> {
        Ok(Self {
            cluster: self.cluster,
            node: self.node,
            role: self.role,
            key: Key::from_pem(&self.key.to_pem())?,
            chain: self.chain.clone(),
            life: self.life,
            roots: self.roots.clone(),
            authority: None,
            vault: None,
        })
    }

    /// Whom it trusts.
    ///
    /// # Errors
    /// When a root is no certificate.
    pub fn trust(&self) -> Result<Arc<Trust>, MemberError> {
        Ok(Arc::new(Trust::new(self.cluster, &self.roots)?))
    }

    /// A new certificate from this server's own issuer, if it is a server.
    ///
    /// # Errors
    /// When the issuer's own certificate ends too soon.
    pub fn renew_own(&mut self, now: i64) -> Result<bool, MemberError> {
        let Some(authority) = &mut self.authority else {
            return Ok(false);
        };
        authority.renew_issuer(self.node, now)?;
        let issued = authority.sign(&self.key.request()?, self.role, self.node, now)?;
        self.renewed(issued);
        Ok(true)
    }

    /// Takes a new certificate.
    pub(crate) fn renewed(&mut self, issued: Issued) {
        self.chain = issued.chain;
        self.life = issued.life;
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }

    /// What a directory says; `None` when its node is no member of any cluster.
    ///
    /// # Errors
    /// When it cannot be read, was damaged, or is of a newer version.
    pub fn load(dir: &Path) -> Result<Option<Self>, MemberError> {
        let path = Self::path(dir);
        match fs::read(&path) {
            Ok(bytes) => read(&path, &bytes).map(Some).map_err(MemberError::Kept),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(MemberError::Kept(e)),
        }
    }

    /// Keeps it: whoever is killed meanwhile finds what was there before, or this.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, dir: &Path) -> Result<(), MemberError> {
        self.write(dir).map_err(MemberError::Kept)
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        let kept = Kept {
            version: VERSION,
            cluster: self.cluster,
            node: self.node,
            role: self.role,
            key: self.key.to_pem(),
            chain: texts(&self.chain),
            roots: texts(&self.roots),
            authority: self.authority.as_ref().map(|a| KeptAuthority {
                key: a.issuer.key().to_pem(),
                certificate: text(a.issuer.certificate()),
                root: text(&a.root),
                root_key: a.root_key.as_ref().map(|root| root.key().to_pem()),
                number: a.number,
                others: a.others.iter().map(kept_root).collect(),
                also: a.also.as_ref().map(|der| text(der)),
            }),
            vault: self.vault.as_ref().map(|v| KeptVault {
                number: v.number,
                secret: text(&v.secret),
            }),
        };
        let path = Self::path(dir);
        let temporary = path.with_extension("tmp");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&sealed::seal(serde_json::to_vec_pretty(&kept)?))?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        fs::File::open(dir)?.sync_all()
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn read(path: &Path, sealed: &[u8]) -> io::Result<Membership> {
    let json = sealed::unseal(path, sealed)?;
    let Version { version } = serde_json::from_slice(json).map_err(|e| wrong(path, e))?;
    if version > VERSION {
        let what = format!(
            "{} says version {version}, but this version of Prism reads up to {VERSION}; use the version that wrote it",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    let kept: Kept = serde_json::from_slice(json).map_err(|e| wrong(path, e))?;
    let chain = all_bytes(path, &kept.chain)?;
    let key = Key::from_pem(&kept.key).map_err(|e| wrong(path, e))?;
    let leaf = chain
        .first()
        .ok_or_else(|| wrong(path, "it has no certificate"))?;
    let life = life_of(&key, leaf).map_err(|e| wrong(path, e))?;
    let authority = kept
        .authority
        .map(|a| authority(path, kept.cluster, &a))
        .transpose()?;
    let vault = kept.vault.map(|v| vaulted(path, &v)).transpose()?;
    if authority.is_some() && vault.is_some() {
        return Err(wrong(path, "it has an authority of its own and Vault's"));
    }
    Ok(Membership {
        cluster: kept.cluster,
        node: kept.node,
        role: kept.role,
        key,
        life,
        roots: all_bytes(path, &kept.roots)?,
        chain,
        authority,
        vault,
    })
}

fn vaulted(path: &Path, kept: &KeptVault) -> io::Result<Vaulted> {
    let secret = BASE64.decode(&kept.secret).ok();
    let secret = secret.and_then(|bytes| bytes.try_into().ok());
    Ok(Vaulted {
        number: kept.number,
        secret: secret.ok_or_else(|| wrong(path, "the secret of the servers is none"))?,
    })
}

fn authority(path: &Path, cluster: ClusterId, kept: &KeptAuthority) -> io::Result<Authority> {
    let key = Key::from_pem(&kept.key).map_err(|e| wrong(path, e))?;
    let issuer = Issuer::new(cluster, key, bytes(path, &kept.certificate)?);
    let root = bytes(path, &kept.root)?;
    let root_key = kept.root_key.as_ref().map(|pem| {
        let key = Key::from_pem(pem)?;
        Root::load(cluster, key, root.clone())
    });
    let other = |kept: &KeptRoot| {
        let key = Key::from_pem(&kept.key).map_err(|e| wrong(path, e))?;
        let root = Root::load(cluster, key, bytes(path, &kept.certificate)?);
        root.map_err(|e| wrong(path, e))
    };
    let others: io::Result<Vec<Root>> = kept.others.iter().map(other).collect();
    let also = kept.also.as_ref().map(|der| bytes(path, der));
    Ok(Authority {
        others: others?,
        also: also.transpose()?,
        issuer: issuer.map_err(|e| wrong(path, e))?,
        root_key: root_key.transpose().map_err(|e| wrong(path, e))?,
        root,
        number: kept.number,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    use prism_types::Id;

    fn founded() -> Membership {
        Membership::found(ClusterId(Id::new(1, 2)), NodeId::new(1, 1), 1_000_000).unwrap()
    }

    #[test]
    fn it_comes_back_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Membership::load(dir.path()).unwrap().is_none());
        let mut me = founded();
        me.save(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let back = Membership::load(dir.path()).unwrap().unwrap();
        assert_eq!(
            (back.cluster, back.node, back.role),
            (me.cluster, me.node, me.role)
        );
        assert_eq!(
            (back.key.pin(), &back.chain, back.life),
            (me.key.pin(), &me.chain, me.life)
        );
        let (a, b) = (me.authority.as_ref().unwrap(), back.authority.unwrap());
        assert_eq!(a.issuer.certificate(), b.issuer.certificate());
        let pin = |authority: &Authority| authority.root_key.as_ref().unwrap().pin();
        assert_eq!((pin(a), &a.root), (pin(&b), &b.root));
        // A renewal replaces it.
        assert!(me.renew_own(2_000_000).unwrap());
        me.save(dir.path()).unwrap();
        let back = Membership::load(dir.path()).unwrap().unwrap();
        assert_eq!(back.life, me.life);
        // A worker signs nothing.
        me.authority = None;
        assert!(!me.renew_own(3_000_000).unwrap());
        me.save(dir.path()).unwrap();
        assert!(
            Membership::load(dir.path())
                .unwrap()
                .unwrap()
                .authority
                .is_none()
        );
    }

    #[test]
    fn damage_a_newer_version_and_parts_of_others_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        founded().save(dir.path()).unwrap();
        let good = fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let why = Membership::load(dir.path()).unwrap_err().to_string();
            assert!(why.contains("identity.json"), "{why}");
            assert!(!why.contains("PRIVATE"), "{why}");
        };
        for at in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            refused(&bad);
        }
        let text = String::from_utf8(sealed::unseal(&path, &good).unwrap().to_vec()).unwrap();
        let sealed = |text: String| sealed::seal(text.into_bytes());
        refused(&sealed(text.replace("\"version\": 1", "\"version\": 2")));
        refused(&sealed(text.replace("\"role\"", "\"rolle\"")));
        refused(&sealed("{}".to_owned()));
        let other = Key::generate().unwrap().to_pem();
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        for key in ["/key", "/authority/key", "/authority/root_key"] {
            let own = std::mem::replace(json.pointer_mut(key).unwrap(), other.clone().into());
            refused(&sealed(json.to_string()));
            *json.pointer_mut(key).unwrap() = own;
        }
        json["chain"] = serde_json::json!([]);
        refused(&sealed(json.to_string()));
    }
}
