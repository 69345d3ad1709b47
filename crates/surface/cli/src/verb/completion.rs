//! `completion`: the script that a shell reads.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::{Done, Exit};
use crate::output::Out;

/// Print the completion script of a shell.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  prismctl completion bash > ~/.local/share/bash-completion/completions/prismctl
  prismctl completion zsh  > ~/.zfunc/_prismctl
  prismctl completion fish > ~/.config/fish/completions/prismctl.fish")]
pub struct CompletionArgs {
    /// Which shell
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// When it cannot be written.
pub fn run(args: &CompletionArgs, out: &Out) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "prismctl", &mut script);
    out.bytes(&script)?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "prismctl", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("sandbox"));
        }
    }
}
