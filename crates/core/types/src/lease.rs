//! The lease under which work runs that must never run twice at the same time. Both sides of it follow from these three lengths.

use crate::Millis;

/// A worker's lease runs so long from the moment at which it sent the question that a leader has answered.
pub const LEASE: Millis = Millis(15_000);

/// So long before the end of its lease a node kills what runs under it: for clocks of unequal speed, and for the kill itself.
pub const LEASE_MARGIN: Millis = Millis(3_000);

/// So long after the last possible end of a node's lease the same work may begin elsewhere.
pub const LEASE_GRACE: Millis = Millis(2_000);

/// So long after a node's last question that was answered nothing runs there any more.
pub const LEASE_KILL: Millis = Millis(LEASE.0 - LEASE_MARGIN.0);

/// So long after a node was last heard of its work may begin elsewhere.
pub const LEASE_WAIT: Millis = Millis(LEASE.0 + LEASE_GRACE.0);
