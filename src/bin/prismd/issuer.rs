//! What signs for the cluster's members, as flags, environment and file say it: its own authority, or a PKI mount of a Vault.

use std::path::PathBuf;

use clap::Args;
use prism_node::VaultConfig;
use serde::Deserialize;

use crate::settings::{Mode, one_of};

/// The mount and the role, unless said otherwise.
const MOUNT: &str = "prism";
const ROLE: &str = "prism-member";

/// Flags and their environment.
#[derive(Debug, Default, Args)]
pub(crate) struct IssuerArgs {
    /// What signs the certificates of servers and workers: `prism`, the cluster's own authority, or `vault`, a PKI mount of a Vault or OpenBao [default: prism]
    #[arg(long, global = true, env = "PRISM_ISSUER")]
    issuer: Option<String>,
    /// Where the Vault is, https://HOST:PORT; http:// only on this machine
    #[arg(long, global = true, env = "PRISM_VAULT_ADDRESS", value_name = "URL")]
    vault_address: Option<String>,
    /// Path of its PKI mount [default: prism]
    #[arg(long, global = true, env = "PRISM_VAULT_MOUNT", value_name = "PATH")]
    vault_mount: Option<String>,
    /// Role of that mount that certificates are signed by [default: prism-member]
    #[arg(long, global = true, env = "PRISM_VAULT_ROLE", value_name = "NAME")]
    vault_role: Option<String>,
    /// File with the token for Vault, read at each use, such as one that a Vault agent keeps
    #[arg(
        long,
        global = true,
        env = "PRISM_VAULT_TOKEN_FILE",
        value_name = "FILE"
    )]
    vault_token_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that signed Vault's own; needed for https
    #[arg(long, global = true, env = "PRISM_VAULT_CA", value_name = "FILE")]
    vault_ca: Option<PathBuf>,
    /// Namespace in which the mount is
    #[arg(
        long,
        global = true,
        env = "PRISM_VAULT_NAMESPACE",
        value_name = "NAME"
    )]
    vault_namespace: Option<String>,
}

/// The same in the configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct IssuerFile {
    issuer: Option<String>,
    vault_address: Option<String>,
    vault_mount: Option<String>,
    vault_role: Option<String>,
    vault_token_file: Option<PathBuf>,
    vault_ca: Option<PathBuf>,
    vault_namespace: Option<String>,
}

/// Keys of the file.
pub(crate) const FILE_KEYS: [&str; 7] = [
    "issuer",
    "vault_address",
    "vault_mount",
    "vault_role",
    "vault_token_file",
    "vault_ca",
    "vault_namespace",
];

/// The Vault that signs, if one is to.
pub(crate) fn read(
    args: IssuerArgs,
    file: IssuerFile,
    mode: Mode,
) -> Result<Option<VaultConfig>, String> {
    let issuer = args.issuer.or(file.issuer);
    let address = args.vault_address.or(file.vault_address);
    let mount = args.vault_mount.or(file.vault_mount);
    let role = args.vault_role.or(file.vault_role);
    let token_file = args.vault_token_file.or(file.vault_token_file);
    let ca = args.vault_ca.or(file.vault_ca);
    let namespace = args.vault_namespace.or(file.vault_namespace);
    let given = [
        ("--vault-address", address.is_some()),
        ("--vault-mount", mount.is_some()),
        ("--vault-role", role.is_some()),
        ("--vault-token-file", token_file.is_some()),
        ("--vault-ca", ca.is_some()),
        ("--vault-namespace", namespace.is_some()),
    ];
    let told = issuer.as_deref().unwrap_or("prism");
    if one_of("--issuer", told, &["prism", "vault"])? == "prism" {
        return match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(format!(
                "{name} goes with --issuer=vault: without it the cluster has an authority of its own"
            )),
            None => Ok(None),
        };
    }
    match mode {
        Mode::Worker => {
            return Err("--issuer is for servers: a worker has its certificates from them, and never asks Vault itself".to_owned());
        }
        Mode::Dev => {
            return Err("--issuer=vault goes with --bootstrap, --bootstrap-expect or --join: `dev` is one node for trying things, and has an authority of its own".to_owned());
        }
        Mode::Bootstrap | Mode::Join | Mode::Expect => {}
    }
    let address = address.ok_or("--issuer=vault needs --vault-address: say where the Vault is, such as --vault-address=https://vault:8200")?;
    let token_file = token_file.ok_or(
        "--issuer=vault needs --vault-token-file: a file with a token that may sign by the role",
    )?;
    if address.starts_with("https://") && ca.is_none() {
        return Err("--vault-address is https, which needs --vault-ca: the certificates of the authorities that signed Vault's own".to_owned());
    }
    if !address.starts_with("https://") && ca.is_some() {
        return Err("--vault-ca is for an address that begins with https://".to_owned());
    }
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    Ok(Some(VaultConfig {
        address,
        mount: mount.unwrap_or_else(|| MOUNT.to_owned()),
        role: role.unwrap_or_else(|| ROLE.to_owned()),
        token_file: absolute(token_file),
        ca: ca.map(absolute),
        namespace,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]
    use super::*;

    fn args(change: impl FnOnce(&mut IssuerArgs)) -> IssuerArgs {
        let mut args = IssuerArgs {
            issuer: Some("vault".to_owned()),
            vault_address: Some("https://vault:8200".to_owned()),
            vault_token_file: Some("t".into()),
            vault_ca: Some("/ca.pem".into()),
            ..IssuerArgs::default()
        };
        change(&mut args);
        args
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        let none = read(IssuerArgs::default(), IssuerFile::default(), Mode::Dev);
        assert!(none.unwrap().is_none());
        type Change = fn(&mut IssuerArgs);
        let cases: [(Mode, &str, Change); 9] = [
            (Mode::Worker, "is for servers", |_| {}),
            (Mode::Dev, "--bootstrap", |_| {}),
            (Mode::Join, "goes with --issuer=vault", |a| a.issuer = None),
            (Mode::Join, "goes with --issuer=vault", |a| {
                *a = IssuerArgs {
                    vault_mount: Some("pki".to_owned()),
                    ..IssuerArgs::default()
                };
            }),
            (Mode::Expect, "did you mean \"vault\"", |a| {
                a.issuer = Some("valt".to_owned());
            }),
            (Mode::Join, "needs --vault-address", |a| {
                a.vault_address = None;
            }),
            (Mode::Join, "needs --vault-token-file", |a| {
                a.vault_token_file = None;
            }),
            (Mode::Join, "needs --vault-ca", |a| a.vault_ca = None),
            (Mode::Join, "begins with https", |a| {
                a.vault_address = Some("http://127.0.0.1:8200".to_owned());
            }),
        ];
        for (mode, says, change) in cases {
            let said = read(args(change), IssuerFile::default(), mode).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
        let all = read(args(|_| {}), IssuerFile::default(), Mode::Bootstrap);
        let all = all.unwrap().unwrap();
        assert_eq!((&*all.mount, &*all.role), (MOUNT, ROLE));
        assert!(all.token_file.is_absolute());
    }
}
