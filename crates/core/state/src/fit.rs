//! Whether a node can run a thing at all, room left aside. The scheduler filters by it and `decide` checks it again.

use prism_spec::{ImageRef, IsolationSpec};

use crate::NodeRecord;

/// Why `node` can never run something of this image and isolation, for people; `None` if it can.
pub fn misfit(node: &NodeRecord, image: &ImageRef, isolation: IsolationSpec) -> Option<String> {
    match isolation {
        IsolationSpec::None if !node.allow_plain => {
            return Some("does not allow plain processes".to_owned());
        }
        IsolationSpec::Sandbox if !node.facts.isolation => {
            return Some("cannot isolate (see prismctl doctor there)".to_owned());
        }
        _ => {}
    }
    match image {
        ImageRef::Named(name) if !node.facts.images.contains(name) => {
            Some(format!("lacks the image {name}"))
        }
        _ => None,
    }
}
