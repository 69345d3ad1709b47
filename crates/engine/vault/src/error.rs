//! What goes wrong with Vault, in words for whoever runs it.

use std::path::PathBuf;

use crate::Vault;
use crate::config::Token;

/// Most characters of what Vault says that are told on.
const TOLD: usize = 300;

/// Why nothing was signed. Nothing was changed here; Vault may have signed what did not arrive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The settings cannot be used.
    #[error("{what}: {why}")]
    Config {
        /// Which.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// A file cannot be used.
    #[error("{} cannot be used: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It does not answer, or not yet.
    #[error(
        "Vault is away: {place}: {why}; see that it is reached and unsealed: vault status; it is tried again"
    )]
    Away {
        /// What was asked.
        place: String,
        /// Why.
        why: String,
    },
    /// It says no.
    #[error("Vault refuses: {place}: {said}; {next}")]
    Refused {
        /// What was asked.
        place: String,
        /// What it said.
        said: String,
        /// What to do.
        next: String,
    },
    /// What it says is not understood.
    #[error(
        "what answers at {place} does not do so as Vault does: {why}; see that the address is that of Vault"
    )]
    Strange {
        /// What was asked.
        place: String,
        /// Why.
        why: String,
    },
}

/// The same before it is told.
#[derive(Debug)]
pub(crate) enum Failed {
    Away(String),
    Refused(u16, String),
    Strange(String),
    File(VaultError),
}

/// What somebody else says, on one line and not for ever.
pub(crate) fn tame(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let words: Vec<&str> = line.split_whitespace().collect();
    words.join(" ").chars().take(TOLD).collect()
}

impl Failed {
    /// What is told never has the token in it.
    pub(crate) fn without(self, token: &Token) -> Self {
        let clean = |text: String| tame(&text.replace(&token.0, "(the token)"));
        match self {
            Self::Away(why) => Self::Away(clean(why)),
            Self::Refused(status, said) => Self::Refused(status, clean(said)),
            Self::Strange(why) => Self::Strange(clean(why)),
            other @ Self::File(_) => other,
        }
    }

    pub(crate) fn told(self, vault: &Vault) -> VaultError {
        let place = vault.place();
        let (mount, role) = (vault.mount(), vault.role());
        match self {
            Self::Away(why) => VaultError::Away { place, why },
            Self::Strange(why) => VaultError::Strange { place, why },
            Self::File(why) => why,
            Self::Refused(status, said) => VaultError::Refused {
                place,
                said: format!("{status}: {said}"),
                next: match status {
                    403 => format!(
                        "see that the token in {} is good and may update {mount}/sign/{role}: vault token lookup",
                        vault.config.token_file.display()
                    ),
                    404 => format!(
                        "see that there is such a mount, and that it is of pki: vault secrets list; vault read {mount}/roles/{role}"
                    ),
                    _ => format!("see what the role allows: vault read {mount}/roles/{role}"),
                },
            },
        }
    }
}
