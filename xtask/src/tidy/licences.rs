//! Enforces the lists of `deny.toml` without cargo-deny: licences, banned crates, sources. Advisories need cargo-deny.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::repo::Repo;

/// Checks every crate that is built on this kind of machine.
pub fn check(repo: &Repo) -> Result<Vec<String>> {
    let deny = repo.read("deny.toml")?;
    let allowed = list(&deny, "licenses", "allow").context("deny.toml has no [licenses] allow")?;
    let banned = list(&deny, "bans", "deny").context("deny.toml has no [bans] deny")?;
    let metadata = repo.metadata(&["--locked", &host()])?;
    let mut problems = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        if banned.contains(name) {
            problems.push(format!("{name} is banned by deny.toml"));
        }
        match &package["source"] {
            Value::Null => {}
            Value::String(source) if source.starts_with("registry+") => {}
            other => problems.push(format!(
                "{name} comes from {other}; only the registry is allowed"
            )),
        }
        match package["license"].as_str() {
            None => problems.push(format!("{name} names no licence")),
            Some(text) if !permits(text, &allowed) && !excepted(&deny, name, text) => {
                problems.push(format!(
                    "{name} has the licence {text}, which deny.toml does not allow"
                ));
            }
            Some(_) => {}
        }
    }
    Ok(problems)
}

/// Whether a crate may have a licence that others may not: a line of `exceptions` names both.
fn excepted(deny: &str, name: &str, licence: &str) -> bool {
    let mut lines = deny.lines().map(str::trim);
    lines.any(|line| line == format!("{{ crate = \"{name}\", allow = [\"{licence}\"] }},"))
}

/// Limits cargo to what was downloaded for this machine.
fn host() -> String {
    let system = if cfg!(target_env = "musl") {
        "linux-musl"
    } else {
        "linux-gnu"
    };
    format!(
        "--filter-platform={}-unknown-{system}",
        std::env::consts::ARCH
    )
}

/// The texts of `key = [...]` in a section, which may go over lines; in `{ crate = "x" }` the x.
fn list<'t>(toml: &'t str, section: &str, key: &str) -> Option<BTreeSet<&'t str>> {
    let (_, rest) = toml.split_once(&format!("\n[{section}]\n"))?;
    let rest = rest.split("\n[").next()?;
    let (_, rest) = rest.split_once(&format!("{key} = ["))?;
    let items = rest.split_once("\n]").map_or(rest, |(items, _)| items);
    let lines = items.lines().filter(|l| !l.trim_start().starts_with('#'));
    Some(lines.filter_map(|l| l.split('"').nth(1)).collect())
}

/// Whether an SPDX expression can be met with allowed licences alone. `OR` binds weakest, `/` is an old `OR`.
fn permits(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    either(&words, &mut at, allowed) && at == words.len()
}

fn either(words: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let mut ok = both(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        ok |= both(words, at, allowed);
    }
    ok
}

fn both(words: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let mut ok = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        ok &= one(words, at, allowed);
    }
    ok
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let Some(word) = words.get(*at) else {
        return false;
    };
    *at += 1;
    if *word == "(" {
        let ok = either(words, at, allowed);
        *at += 1;
        return ok;
    }
    match (words.get(*at), words.get(*at + 1)) {
        (Some(&"WITH"), Some(exception)) => {
            *at += 2;
            allowed.contains(word) || allowed.contains(format!("{word} WITH {exception}").as_str())
        }
        _ => allowed.contains(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_is_for_one_crate_and_one_licence() {
        let deny = "exceptions = [\n    { crate = \"foca\", allow = [\"MPL-2.0\"] },\n]\n";
        assert!(excepted(deny, "foca", "MPL-2.0"));
        assert!(!excepted(deny, "foca", "GPL-3.0-only") && !excepted(deny, "other", "MPL-2.0"));
    }

    #[test]
    fn expressions_are_met_only_by_allowed_licences() {
        let allowed = BTreeSet::from(["MIT", "Apache-2.0", "Unicode-3.0"]);
        for yes in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert!(permits(yes, &allowed), "{yes}");
        }
        for no in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(GPL-3.0 OR AGPL-3.0) AND MIT",
            "MIT )",
            "",
        ] {
            assert!(!permits(no, &allowed), "{no}");
        }
    }

    #[test]
    fn lists_are_read_from_deny_toml() {
        let toml = "\n[licenses]\nallow = [\n  \"MIT\",\n  # why\n  \"ISC\",\n]\n[bans]\ndeny = [\n  { crate = \"x\" },\n]\n";
        assert_eq!(
            list(toml, "licenses", "allow"),
            Some(BTreeSet::from(["MIT", "ISC"]))
        );
        assert_eq!(list(toml, "bans", "deny"), Some(BTreeSet::from(["x"])));
    }
}
