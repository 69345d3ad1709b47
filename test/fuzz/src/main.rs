//! `prism-fuzz`: feeds every parser for some minutes with random seeds, or one of them with one input.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use prism_fuzz::{PARSERS, Parser, Until, run};

const USAGE: &str =
    "usage: prism-fuzz [--minutes N] [--seed N] [--parser NAME] [--input FILE] [--save DIRECTORY]";

struct Wanted {
    minutes: f64,
    seed: u64,
    parser: Option<String>,
    input: Option<PathBuf>,
    save: PathBuf,
}

fn main() -> ExitCode {
    match wanted().and_then(|w| all(&w)) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("prism-fuzz: {e:#}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn wanted() -> Result<Wanted> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut wanted = Wanted {
        minutes: 10.0,
        seed: u64::try_from(now.as_nanos() % u128::from(u64::MAX)).unwrap_or(1),
        parser: None,
        input: None,
        save: PathBuf::from("target/fuzz"),
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        if name == "--help" {
            println!("{USAGE}");
            std::process::exit(0);
        }
        let value = args
            .next()
            .with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--minutes" => wanted.minutes = value.parse().context("--minutes is to be a number")?,
            "--seed" => wanted.seed = value.parse().context("--seed is to be a number")?,
            "--parser" => wanted.parser = Some(value),
            "--input" => wanted.input = Some(value.into()),
            "--save" => wanted.save = value.into(),
            other => bail!("unknown argument {other}"),
        }
    }
    Ok(wanted)
}

fn all(wanted: &Wanted) -> Result<ExitCode> {
    let chosen: Vec<&Parser> = PARSERS
        .iter()
        .filter(|p| wanted.parser.as_ref().is_none_or(|name| name == p.name))
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = PARSERS.iter().map(|p| p.name).collect();
        bail!("no such parser; there are {}", names.join(", "));
    }
    if let Some(path) = &wanted.input {
        let input = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        for parser in chosen {
            println!("{}: {}", parser.name, (parser.make)()(&input));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !(0.0..=100_000.0).contains(&wanted.minutes) {
        bail!("--minutes is to be 0 to 100000");
    }
    // Panics are what is looked for; each is told below with its input.
    std::panic::set_hook(Box::new(|_| {}));
    println!("seed {}", wanted.seed);
    let share = Duration::from_secs_f64(wanted.minutes * 60.0 / chosen.len() as f64);
    let (mut inputs, mut failed) = (0, 0);
    for parser in chosen {
        let report = run(parser, wanted.seed, Until::Time(Instant::now() + share));
        inputs += report.inputs;
        println!(
            "{:<22} {:>10} inputs {:>6} forms of answers, slowest {:>5} ms",
            parser.name,
            report.inputs,
            report.forms,
            report.slowest.as_millis()
        );
        if let Some(failure) = report.failure {
            failed += 1;
            std::fs::create_dir_all(&wanted.save).context("making the directory for inputs")?;
            let path = wanted.save.join(format!("{}-{}", parser.name, wanted.seed));
            std::fs::write(&path, &failure.input).context("saving the input")?;
            println!("  PANIC: {}", failure.message);
            println!(
                "  again: cargo xtask fuzz --parser {} --input {}",
                parser.name,
                path.display()
            );
        }
    }
    println!("{inputs} inputs, {failed} parsers panicked");
    Ok(ExitCode::from(u8::from(failed > 0)))
}
