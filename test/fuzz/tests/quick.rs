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
