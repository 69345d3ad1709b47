//! A client that has shown a certificate of the cluster. It stands for a token of the same id, which says what may be done: the
//! certificate says only who asks. So it is scoped, listed, audited and revoked as every token.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use prism_control::Control;
use prism_identity::Shown;
use prism_state::{State, TokenRecord, Whom};
use prism_types::{NodeId, TokenId};

/// Most certificates of a chain, and most that signed for it.
const CHAIN_MAX: usize = 8;

/// Whom a certificate names, its key, and what may be denied of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) id: TokenId,
    key: [u8; 32],
    certificates: Vec<[u8; 32]>,
    nodes: Vec<NodeId>,
}

impl From<&Shown> for Client {
    fn from(shown: &Shown) -> Self {
        Self {
            id: TokenId(shown.holder.id.0),
            key: shown.key.0,
            certificates: shown.certificates.iter().map(|c| c.0).collect(),
            nodes: shown.nodes.clone(),
        }
    }
}

impl Client {
    /// Of a request, if its connection has shown one, or another server says that it has.
    pub(crate) fn of<B>(request: &axum::http::Request<B>) -> Option<Self> {
        if let Some(told) = request.extensions().get::<Arc<Self>>() {
            return Some((**told).clone());
        }
        let shown = request.extensions().get::<Arc<Shown>>()?;
        Some(Self::from(&**shown))
    }

    /// The token that it stands for, if it is there and is not denied.
    pub(crate) fn record(&self, state: &State) -> Option<TokenRecord> {
        if self.is_denied(state) {
            return None;
        }
        let record = state.token(self.id)?;
        (record.hash == self.key).then(|| record.clone())
    }

    fn is_denied(&self, state: &State) -> bool {
        let nodes = self.nodes.iter().map(|id| Whom::Node(*id));
        let all = self.certificates.iter().map(|c| Whom::Certificate(*c));
        nodes.chain(all).any(|whom| state.is_denied(&whom))
    }

    /// Whether it is denied by now.
    pub(crate) async fn denied(&self, control: &Control) -> bool {
        control.read(|state| self.is_denied(state)).await
    }
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// As one server tells it another: `ID KEY CERTIFICATE,… NODE,…`.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificates: Vec<String> = self.certificates.iter().map(hex).collect();
        let nodes: Vec<String> = self.nodes.iter().map(ToString::to_string).collect();
        let (certificates, nodes) = (certificates.join(","), nodes.join(","));
        write!(f, "{} {} {certificates} {nodes}", self.id, hex(&self.key))
    }
}

impl FromStr for Client {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split(' ').collect();
        let [id, key, certificates, nodes] = parts[..] else {
            return Err(());
        };
        let certificates: Vec<_> = certificates.split(',').map(unhex).collect();
        let nodes: Vec<_> = nodes.split(',').map(|id| id.parse().ok()).collect();
        if certificates.len().max(nodes.len()) > CHAIN_MAX {
            return Err(());
        }
        Ok(Self {
            id: id.parse().map_err(drop)?,
            key: unhex(key).ok_or(())?,
            certificates: certificates.into_iter().collect::<Option<_>>().ok_or(())?,
            nodes: nodes.into_iter().collect::<Option<_>>().ok_or(())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_nothing_else_is_one() {
        let client = Client {
            id: TokenId::new(1, 2),
            key: [7; 32],
            certificates: vec![[1; 32], [2; 32]],
            nodes: vec![NodeId::new(1, 3), NodeId::new(1, 4)],
        };
        let text = client.to_string();
        assert_eq!(text.parse(), Ok(client));
        for bad in [
            String::new(),
            text.replace(' ', "  "),
            text.replace(',', ",,"),
            text.replacen("07", "0g", 1),
            text.replacen("07", "", 1),
            format!("{text} x"),
            format!("{text},x"),
            text.replacen(',', &",".repeat(20), 1),
        ] {
            assert_eq!(bad.parse::<Client>(), Err(()), "{bad:?}");
        }
    }
}
