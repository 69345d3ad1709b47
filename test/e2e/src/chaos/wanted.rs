//! The command line of the long programs: how long, and from which seed.

use anyhow::{Context, Result, bail, ensure};

use super::Random;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// How long faults are given.
    pub minutes: u64,
    /// Where all choices come from; a new one unless given.
    pub seed: Option<u64>,
}

impl Wanted {
    /// As this program's arguments say (`--minutes N`, `--seed S`, also with `=`); so many minutes unless they do.
    ///
    /// # Errors
    /// What is wrong with them, and what was expected.
    pub fn of_arguments(minutes: u64) -> Result<Self> {
        Self::of(std::env::args().skip(1), minutes)
    }

    /// The same of these.
    ///
    /// # Errors
    /// As of [`Wanted::of_arguments`].
    pub fn of(args: impl IntoIterator<Item = String>, minutes: u64) -> Result<Self> {
        let seed = None;
        let mut wanted = Self { minutes, seed };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (arg, args.next()),
            };
            let value = value.with_context(|| format!("{name} expects a number"))?;
            let value: u64 = value
                .parse()
                .with_context(|| format!("{name}: expected a number, found {value:?}"))?;
            match name.as_str() {
                "--minutes" => wanted.minutes = value,
                "--seed" => wanted.seed = Some(value),
                _ => bail!("no argument {name:?}: expected --minutes N, --seed S"),
            }
        }
        ensure!(wanted.minutes > 0, "--minutes: expected at least 1");
        Ok(wanted)
    }

    /// Where the choices of the program of this name come from.
    pub fn random(&self, name: &'static str) -> Random {
        match self.seed {
            Some(seed) => Random::of(name, seed),
            None => Random::new(name),
        }
    }
}
