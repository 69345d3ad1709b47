//! The pages of docs/errors: what each stable code means and what to do about it. Printed by `explain`.

use prism_types::{codes, nearest};

macro_rules! pages {
    ($($code:literal),+ $(,)?) => {
        /// Every page by its code.
        pub const ALL: &[(&str, &str)] = &[$(
            ($code, include_str!(concat!("../../../../docs/errors/", $code, ".md")))
        ),+];
    };
}

pages![
    "PRISM-A001",
    "PRISM-A002",
    "PRISM-C001",
    "PRISM-C002",
    "PRISM-C003",
    "PRISM-C004",
    "PRISM-C005",
    "PRISM-C006",
    "PRISM-C007",
    "PRISM-C008",
    "PRISM-C009",
    "PRISM-D001",
    "PRISM-D002",
    "PRISM-D003",
    "PRISM-D004",
    "PRISM-D005",
    "PRISM-D006",
    "PRISM-E001",
    "PRISM-E002",
    "PRISM-I001",
    "PRISM-N001",
    "PRISM-P001",
    "PRISM-P002",
    "PRISM-P003",
    "PRISM-Q001",
    "PRISM-R001",
    "PRISM-R002",
    "PRISM-R003",
    "PRISM-R004",
    "PRISM-R005",
    "PRISM-T001",
    "PRISM-T002",
    "PRISM-T003",
    "PRISM-T004",
    "PRISM-T005",
    "PRISM-T006",
    "PRISM-T007",
    "PRISM-T008",
    "PRISM-T009",
    "PRISM-T010",
    "PRISM-T011",
    "PRISM-T012",
];

/// The page of a code (`PRISM-T003`, in any case) or of its name (`out_of_memory`).
pub fn find(word: &str) -> Option<(&'static str, &'static str)> {
    let code = codes()
        .find(|(_, name)| name.eq_ignore_ascii_case(word))
        .map_or(word, |(code, _)| code);
    ALL.iter()
        .find(|(c, _)| c.eq_ignore_ascii_case(code))
        .copied()
}

/// Whether a word looks like a code rather than the id of a thing.
pub fn looks_like_code(word: &str) -> bool {
    word.get(..6)
        .is_some_and(|p| p.eq_ignore_ascii_case("prism-"))
}

/// The known code or reason nearest to a wrong one.
pub fn near(word: &str) -> Option<&'static str> {
    let upper = word.to_ascii_uppercase();
    let lower = word.to_ascii_lowercase();
    nearest(&upper, ALL.iter().map(|(c, _)| *c))
        .or_else(|| nearest(&lower, codes().map(|(_, name)| name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_code_has_a_page_and_each_page_a_code() {
        let codes: BTreeSet<_> = codes().map(|(c, _)| c.to_owned()).collect();
        let embedded: BTreeSet<_> = ALL.iter().map(|(c, _)| (*c).to_owned()).collect();
        assert_eq!(codes, embedded);
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/errors");
        let files: BTreeSet<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter_map(|f| f.strip_suffix(".md").map(str::to_owned))
            .filter(|f| f.starts_with("PRISM-"))
            .collect();
        assert_eq!(codes, files);
    }

    #[test]
    fn a_page_says_what_why_and_what_to_do() {
        for (code, name) in codes() {
            let (_, page) = find(code).unwrap();
            let title = page.lines().next().unwrap();
            assert_eq!(
                title.split(':').next(),
                Some(&*format!("# {code} {name}")),
                "{code}"
            );
            for part in ["## What it means", "## Likely causes", "## What to do"] {
                assert!(page.contains(part), "{code} lacks {part}");
            }
            assert_eq!(find(name).unwrap().0, code);
        }
    }

    #[test]
    fn a_near_miss_is_suggested() {
        assert_eq!(find("prism-t003").map(|p| p.0), Some("PRISM-T003"));
        assert_eq!(near("PRISM-T03"), Some("PRISM-T003"));
        assert_eq!(near("out_of_memry"), Some("out_of_memory"));
        assert!(looks_like_code("prism-x") && !looks_like_code("01k8"));
    }
}
