//! Every parser with fixed seeds: none panics, and what some promise (reads back, chunks do not matter) holds.

use prism_fuzz::{PARSERS, Until, run};

fn every(number: usize, of: usize) {
    for parser in PARSERS.iter().skip(number).step_by(of) {
        let report = run(parser, 1, Until::Inputs(parser.quick));
        assert_eq!(
            report.inputs, parser.quick,
            "{}: {:?}",
            parser.name, report.failure
        );
        assert!(
            report.forms > 1,
            "{}: every answer was the same",
            parser.name
        );
        if let Some(failure) = report.failure {
            let input = String::from_utf8_lossy(&failure.input).into_owned();
            panic!("{}: {}\n{input}", parser.name, failure.message);
        }
    }
}

#[test]
fn no_parser_panics_half() {
    every(0, 2);
}

#[test]
fn no_parser_panics_other_half() {
    every(1, 2);
}

/// What is mutated is what is read: otherwise only the first check of a reader would be tried.
#[test]
fn seeds_of_what_comes_from_other_machines_are_understood() {
    for (name, words) in [
        ("worker-session", &["2 messages", "3 messages"][..]),
        (
            "session-resume",
            &["settled", "buckets differ", "2000 buckets"],
        ),
        (
            "member-questions",
            &["join;", "where;", "request;", "directions;"],
        ),
        (
            "raft-messages",
            &[
                "hello append",
                "hello vote",
                "hello pre-vote",
                "hello transfer",
            ],
        ),
        ("gossip-bodies", &["ok"]),
        ("certificates", &["ok"]),
        ("join-token", &["ok"]),
    ] {
        let found = PARSERS.iter().find(|p| p.name == name);
        let parser = found.unwrap_or_else(|| panic!("no parser {name}"));
        let mut feed = (parser.make)();
        let answers: Vec<String> = (parser.seeds)().iter().map(|seed| feed(seed)).collect();
        for word in words {
            let said = answers.iter().any(|a| a.contains(word));
            assert!(said, "{name}: nobody says {word:?}: {answers:#?}");
        }
    }
}
