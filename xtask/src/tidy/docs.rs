//! The docs say nothing that is not there: links, paths of the repository, ADR numbers, a page for each error code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use crate::repo::{Repo, Text};

/// First folders of paths of this repository, as they stand in backticks.
const FOLDERS: &[&str] = &[
    "crates/",
    "src/",
    "docs/",
    "examples/",
    "test/",
    "bench/",
    "xtask/",
    "scripts/",
    ".ci/",
];

/// Checks every Markdown file.
pub fn check(repo: &Repo) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let texts = repo.texts(&[".md"])?;
    for text in &texts {
        let folder = Path::new(&text.path).parent().unwrap_or(Path::new(""));
        for (at, line) in text.text.lines().enumerate() {
            let absent = links(line)
                .filter(|link| !repo.root.join(folder).join(link).exists())
                .chain(paths(line).filter(|path| !repo.root.join(path).exists()));
            for path in absent {
                problems.push(format!("{}:{}: {path} does not exist", text.path, at + 1));
            }
        }
    }
    problems.extend(adr_numbers(&texts));
    let mut codes = repo.read("crates/core/types/src/reason.rs")?;
    codes += &repo.read("crates/core/types/src/fault.rs")?;
    problems.extend(error_pages(&codes, &texts));
    Ok(problems)
}

/// Relative targets of `[text](target)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split([')', '#', ' ']).next()?;
        let outside = target.contains("://") || target.starts_with("mailto:");
        (!target.is_empty() && !outside).then_some(target)
    })
}

/// Paths of the repository in backticks.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).filter_map(|code| {
        let path = code.split(':').next()?;
        let plain = path
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
        (plain && FOLDERS.iter().any(|f| path.starts_with(f))).then_some(path)
    })
}

fn adr_numbers(texts: &[Text]) -> Vec<String> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    let mut problems = Vec::new();
    for text in texts {
        let Some(name) = text.path.strip_prefix("docs/adr/") else {
            continue;
        };
        if name == "README.md" {
            continue;
        }
        let number = name.split('-').next().unwrap_or_default();
        if number.len() != 4 || !number.bytes().all(|b| b.is_ascii_digit()) {
            problems.push(format!(
                "{}: expected a name such as 0001-title.md",
                text.path
            ));
        } else if let Some(other) = seen.insert(number, &text.path) {
            problems.push(format!("{}: {other} has the same number", text.path));
        }
    }
    problems
}

/// Every code of the source has a page, and every page a code.
fn error_pages(source: &str, texts: &[Text]) -> Vec<String> {
    let codes: BTreeSet<&str> = source
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|s| s.starts_with("PRISM-") && s.len() == 10)
        .collect();
    let pages: BTreeSet<&str> = texts
        .iter()
        .filter_map(|t| t.path.strip_prefix("docs/errors/")?.strip_suffix(".md"))
        .filter(|p| *p != "README")
        .collect();
    let missing = codes
        .difference(&pages)
        .map(|c| format!("docs/errors/{c}.md is missing"));
    let extra = pages.difference(&codes).map(|p| {
        format!(
            "docs/errors/{p}.md: no such code in reason.rs or fault.rs of crates/core/types/src"
        )
    });
    missing.chain(extra).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_paths_are_found_in_a_line() {
        let line = "see [a](../a.md#b), [c](https://x.y/z) and `crates/core:12` or `crates/{a,b}`";
        assert_eq!(links(line).collect::<Vec<_>>(), ["../a.md"]);
        assert_eq!(paths(line).collect::<Vec<_>>(), ["crates/core"]);
    }

    #[test]
    fn a_number_used_twice_and_a_code_without_a_page_are_found() {
        let page = |path: &str| Text {
            path: path.to_owned(),
            text: String::new(),
        };
        let texts = [
            page("docs/adr/0001-a.md"),
            page("docs/adr/0001-b.md"),
            page("docs/errors/PRISM-A001.md"),
        ];
        assert_eq!(adr_numbers(&texts).len(), 1);
        assert_eq!(
            error_pages("\"PRISM-A001\" \"PRISM-B002\"", &texts).len(),
            1
        );
    }
}
