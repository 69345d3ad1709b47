//! A node's lease is renewed only by the session that holds it.

use super::Held;

/// A heartbeat of one session renews the lease of a node whose session is another.
pub fn renewed(holder: u64, by: u64) -> Held {
    match holder == by {
        true => Ok(()),
        false => Err(format!(
            "the lease of session {holder} is renewed by a heartbeat of session {by}"
        )),
    }
}
