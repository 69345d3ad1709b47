//! The rings: a crate uses lower rings freely, its own ring only where it is listed, and never a higher one.

use anyhow::Result;
use serde_json::Value;

use crate::repo::Repo;

/// Folders, from the inside out.
const RINGS: &[&str] = &[
    "crates/core/",
    "crates/contract/",
    "crates/engine/",
    "crates/plane/",
    "crates/surface/",
];

/// Who may use whom within a ring. An engine uses only `prism-sys` and the failpoints of its ring, and wiring is left to
/// `prism-node`.
const WITHIN: &[(&str, &[&str])] = &[
    ("prism-spec", &["prism-types"]),
    ("prism-state", &["prism-types", "prism-spec"]),
    (
        "prism-scheduler",
        &["prism-types", "prism-spec", "prism-state"],
    ),
    ("prism-runtime-kit", &["prism-runtime"]),
    ("prism-store-kit", &["prism-store"]),
    ("prism-sandbox", &["prism-sys", "prism-faults"]),
    ("prism-raft", &["prism-faults"]),
    ("prism-gateway", &["prism-control", "prism-identity"]),
    (
        "prism-members",
        &["prism-control", "prism-identity", "prism-wire"],
    ),
    (
        "prism-node",
        &[
            "prism-control",
            "prism-worker",
            "prism-gateway",
            "prism-identity",
            "prism-members",
            "prism-membership",
            "prism-wire",
        ],
    ),
    ("prism-cli", &["prism-client"]),
];

/// Lower, but still not for them: (who, whom, why).
const NEVER: &[(&str, &[&str], &str)] = &[
    (
        "crates/contract/",
        &["prism-state", "prism-scheduler"],
        "an interface knows words and specs, not decisions",
    ),
    (
        "crates/engine/",
        &["prism-state", "prism-scheduler", "prism-link", "prism-api"],
        "an engine knows neither decisions nor the wire",
    ),
    (
        "crates/plane/worker",
        &[
            "prism-state",
            "prism-scheduler",
            "prism-sandbox",
            "prism-raft",
            "prism-etcd",
            "prism-vault",
            "prism-sys",
            "prism-store",
        ],
        "a worker never decides and knows engines only as a Runtime",
    ),
    (
        "crates/plane/gateway",
        &[
            "prism-sandbox",
            "prism-raft",
            "prism-etcd",
            "prism-vault",
            "prism-sys",
        ],
        "the gateway reaches engines through control",
    ),
    (
        "crates/plane/control",
        &[
            "prism-sandbox",
            "prism-raft",
            "prism-etcd",
            "prism-vault",
            "prism-sys",
        ],
        "control knows the store only as a trait",
    ),
    (
        "crates/surface/client",
        &[
            "prism-state",
            "prism-scheduler",
            "prism-control",
            "prism-worker",
            "prism-gateway",
            "prism-node",
        ],
        "a client knows only the wire",
    ),
];

/// What the core may use of others' crates: nothing that touches the world.
const PURE: &[&str] = &[
    "base64",
    "granit-parser",
    "postcard",
    "proptest",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
    "toml",
];

/// Checks every dependency of every crate.
pub fn check(repo: &Repo) -> Result<Vec<String>> {
    let metadata = repo.metadata(&["--no-deps", "--offline"])?;
    let packages: Vec<(&str, String, &Value)> = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|p| {
            let path = p["manifest_path"].as_str().unwrap_or_default();
            let path = path
                .strip_prefix(&*repo.root.to_string_lossy())
                .unwrap_or(path);
            let name = p["name"].as_str().unwrap_or_default();
            (
                name,
                path.trim_start_matches('/').to_owned(),
                &p["dependencies"],
            )
        })
        .collect();
    let home = |name: &str| {
        packages
            .iter()
            .find(|(n, ..)| *n == name)
            .map(|(_, path, _)| path)
    };
    let mut problems = Vec::new();
    for (name, path, dependencies) in &packages {
        for dependency in dependencies.as_array().into_iter().flatten() {
            let other = dependency["name"].as_str().unwrap_or_default();
            let dev = dependency["kind"] == "dev";
            let problem = match home(other) {
                _ if other == *name => None,
                Some(there) => edge((name, path), (other, there), dev),
                None => outside(path, other, dev),
            };
            problems.extend(problem.map(|why| format!("{path}: {name} uses {other}: {why}")));
        }
    }
    Ok(problems)
}

fn ring(path: &str) -> usize {
    RINGS
        .iter()
        .position(|r| path.starts_with(r))
        .unwrap_or(RINGS.len())
}

/// Why one crate of ours may not use another, if so. Tests may use everything below.
fn edge((name, path): (&str, &str), (other, there): (&str, &str), dev: bool) -> Option<String> {
    let never = NEVER
        .iter()
        .find(|(who, whom, _)| !dev && path.starts_with(who) && whom.contains(&other));
    if let Some((_, _, why)) = never {
        return Some((*why).to_owned());
    }
    match ring(path).cmp(&ring(there)) {
        std::cmp::Ordering::Greater => None,
        std::cmp::Ordering::Less => Some(format!("{there} is in a higher ring")),
        std::cmp::Ordering::Equal if ring(path) == RINGS.len() => None,
        std::cmp::Ordering::Equal => {
            let listed = WITHIN
                .iter()
                .any(|(n, may)| *n == name && may.contains(&other));
            (!listed).then(|| "the same ring, and not listed in xtask/src/tidy/rings.rs".to_owned())
        }
    }
}

/// Why a crate of ours may not use someone else's, if so.
fn outside(path: &str, other: &str, dev: bool) -> Option<String> {
    let pure = ring(path) > 0 || PURE.contains(&other) || (dev && other == "tempfile");
    (!pure).then(|| {
        "the core uses only crates that touch nothing (PURE in xtask/src/tidy/rings.rs)".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_uses_lower_rings_and_what_is_listed() {
        let state = ("prism-state", "crates/core/state/Cargo.toml");
        let spec = ("prism-spec", "crates/core/spec/Cargo.toml");
        let control = ("prism-control", "crates/plane/control/Cargo.toml");
        let worker = ("prism-worker", "crates/plane/worker/Cargo.toml");
        let sandbox = ("prism-sandbox", "crates/engine/sandbox/Cargo.toml");
        assert_eq!(edge(state, spec, false), None);
        assert_eq!(edge(control, state, false), None);
        assert!(edge(spec, state, false).is_some());
        assert!(edge(state, control, false).is_some());
        assert!(edge(control, worker, false).is_some());
        assert!(edge(worker, sandbox, false).is_some());
        assert_eq!(edge(worker, sandbox, true), None);
        assert!(outside("crates/core/state/Cargo.toml", "tokio", false).is_some());
        assert_eq!(
            outside("crates/plane/control/Cargo.toml", "tokio", false),
            None
        );
    }
}
