//! A term has at most one leader.

use std::collections::BTreeMap;

use super::Held;
use crate::log::ServerId;

/// Who led which term.
#[derive(Debug, Default)]
pub struct Leaders(BTreeMap<u64, ServerId>);

impl Leaders {
    /// A server leads a term.
    pub fn leads(&mut self, term: u64, server: ServerId) -> Held {
        match self.0.insert(term, server) {
            Some(other) if other != server => {
                Err(format!("servers {other} and {server} lead term {term}"))
            }
            _ => Ok(()),
        }
    }
}
