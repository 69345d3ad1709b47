//! A wrong command line, told as every other failure: what is wrong, how it is written, and the page about it.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::exit::Failure;

/// Prints it, and answers the exit code. Help and version go to standard output as they are.
pub fn line(e: &clap::Error) -> ExitCode {
    match e.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // A closed pipe is nobody's loss.
            let _ = e.print();
            ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2))
        }
        _ => {
            let program = std::env::args().next().unwrap_or_default();
            let failure = told(e, program.rsplit('/').next().unwrap_or_default());
            crate::tell(&failure);
            ExitCode::from(failure.exit().code())
        }
    }
}

fn told(e: &clap::Error, program: &str) -> Failure {
    let text = e.render().to_string();
    let said = text
        .split("\n\nUsage:")
        .next()
        .and_then(|t| t.split("\n\nFor more information").next())
        .unwrap_or_default();
    let said = said.strip_prefix("error: ").unwrap_or(said);
    let words: Vec<&str> = said.split_whitespace().collect();
    let said = words.join(" ").replace(" tip: ", "; ");
    let usage = match e.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => String::new(),
    };
    let usage = usage.trim_start_matches("Usage:").trim();
    let failure = Failure::usage(format!("{said}; nothing was done"));
    if usage.is_empty() {
        return failure.next(format!("{program} --help"));
    }
    // The first of several ways to write it is the usual one.
    let usage = usage.lines().next().unwrap_or_default();
    let verb: Vec<&str> = usage
        .split(' ')
        .take_while(|w| w.bytes().all(|b| b.is_ascii_lowercase()))
        .collect();
    failure.next(format!("{usage}; more with {} --help", verb.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    fn shown(line: &str) -> String {
        let words: Vec<_> = line.split(' ').map(Into::into).collect();
        told(&Cli::read(&words).unwrap_err(), "prismctl").to_string()
    }

    #[test]
    fn a_wrong_line_is_told_in_three_lines() {
        assert_eq!(
            shown("prismctl job sumbit x"),
            "error: unrecognized subcommand 'sumbit'; a similar subcommand exists: 'submit'; nothing was done\n  \
             next: prismctl job [OPTIONS] <COMMAND>; more with prismctl job --help\n  \
             more: prismctl explain PRISM-C001"
        );
        assert_eq!(
            shown("prismctl job logs"),
            "error: the following required arguments were not provided: <JOB>; nothing was done\n  \
             next: prismctl job logs <JOB>; more with prismctl job logs --help\n  \
             more: prismctl explain PRISM-C001"
        );
        assert_eq!(
            shown("prismctl token create x --role bos"),
            "error: invalid value 'bos' for '--role <ROLE>' [possible values: viewer, submitter, operator, admin]; \
             nothing was done\n  next: prismctl --help\n  more: prismctl explain PRISM-C001"
        );
    }
}
