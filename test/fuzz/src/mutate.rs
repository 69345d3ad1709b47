//! Changes to an input: of bits, numbers, words, lines, nesting and whole parts.

use crate::dice::Dice;

/// Largest input, bytes.
pub(crate) const INPUT_MAX: usize = 64 << 10;

/// Words that mean something to one parser or another.
const WORDS: &[&str] = &[
    "\0",
    "\u{feff}",
    "\r\n",
    "\r",
    "\t",
    "\u{1b}[31m",
    "\u{202e}",
    "\u{fffd}",
    "\u{10ffff}",
    "---\n",
    "...\n",
    "&a ",
    "*a",
    "!!binary ",
    "!!map ",
    "<<: ",
    "? ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "|\n",
    ">-\n",
    "%YAML 1.1\n",
    "# ",
    "\\u0000",
    "\\ud800",
    "\\x",
    "null",
    "true",
    "~",
    ".nan",
    ".inf",
    "-.inf",
    "NaN",
    "Infinity",
    "1e400",
    "-0",
    "0x7fffffffffffffff",
    "9223372036854775808",
    "18446744073709551616",
    "-9223372036854775809",
    "340282366920938463463374607431768211456",
    "0.1e-999",
    "1_000",
    "08",
    "+1",
    "Ki",
    "Gi",
    "99999999999Ei",
    "-5Mi",
    "500m",
    "0.0005",
    "1h30m",
    "9999999999d",
    "1ns",
    "../",
    "/",
    "..",
    "%2e%2e%2f",
    "%00",
    "%zz",
    "%",
    "+",
    "&",
    "=",
    ";",
    "job: ",
    "sweep: ",
    "command: ",
    "array: ",
    "map: ",
    "files: ",
    "space: ",
    "choice",
    "log_uniform",
    "{index}",
    "{{item}}",
    "${x}",
    "PAX",
    "GNU.sparse.major=1\n",
    "path=../x\n",
    "size=99999999999\n",
    "sha256:",
    "application/vnd.oci.image.index.v1+json",
    "Bearer ",
    "pt_",
    "[contexts.",
    "current = ",
];

/// An input made of others.
pub fn mutated(dice: &mut Dice, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = dice.pick(corpus).cloned().unwrap_or_default();
    for _ in 0..=dice.roll(4) {
        change(dice, &mut input, corpus);
    }
    input.truncate(INPUT_MAX);
    input
}

fn change(dice: &mut Dice, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    match dice.roll(14) {
        0 => flip(dice, input),
        1 => {
            let at = dice.roll(input.len());
            if let Some(byte) = input.get_mut(at) {
                *byte = *dice
                    .pick(&[0, 1, 0x7f, 0x80, 0xff, b' ', b'\n', b'0', b'9'])
                    .unwrap_or(&0);
            }
        }
        2 => input.truncate(dice.roll(input.len() + 1)),
        3 => {
            let (from, to) = part(dice, input);
            input.drain(from..to);
        }
        4 => {
            let (from, to) = part(dice, input);
            let copy = input[from..to].to_vec();
            put(dice, input, &copy);
        }
        5 => many(dice, input),
        6 | 7 => {
            let word = dice.pick(WORDS).copied().unwrap_or_default();
            put(dice, input, word.as_bytes());
        }
        8 => {
            let other = dice.pick(corpus).cloned().unwrap_or_default();
            let (from, to) = part(dice, &other);
            put(dice, input, &other[from..to]);
        }
        9 => {
            let other = dice.pick(corpus).cloned().unwrap_or_default();
            input.truncate(dice.roll(input.len() + 1));
            input.extend_from_slice(&other[dice.roll(other.len() + 1)..]);
        }
        10 => number(dice, input),
        11 => lines(dice, input),
        12 => nest(dice, input),
        _ => {
            let bytes: Vec<u8> = (0..=dice.roll(8))
                .map(|_| dice.draw().to_le_bytes()[0])
                .collect();
            put(dice, input, &bytes);
        }
    }
    input.truncate(INPUT_MAX);
}

fn flip(dice: &mut Dice, input: &mut [u8]) {
    let at = dice.roll(input.len());
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << dice.roll(8);
    }
}

/// A random part, mostly short.
fn part(dice: &mut Dice, input: &[u8]) -> (usize, usize) {
    let from = dice.roll(input.len() + 1);
    let most = if dice.roll(4) == 0 { input.len() } else { 16 };
    let to = (from + dice.roll(most + 1)).min(input.len());
    (from, to)
}

fn put(dice: &mut Dice, input: &mut Vec<u8>, what: &[u8]) {
    let at = dice.roll(input.len() + 1);
    input.splice(at..at, what.iter().copied());
}

/// A part, many times.
fn many(dice: &mut Dice, input: &mut Vec<u8>) {
    let (from, to) = part(dice, input);
    let one = input[from..to].to_vec();
    let times = 1 << dice.roll(12);
    let room = INPUT_MAX.saturating_sub(input.len()) / one.len().max(1);
    let all = one.repeat(times.min(room));
    input.splice(to..to, all);
}

/// Another number in place of one that is written out.
fn number(dice: &mut Dice, input: &mut Vec<u8>) {
    let starts: Vec<usize> = (0..input.len())
        .filter(|i| input[*i].is_ascii_digit())
        .collect();
    let Some(from) = dice.pick(&starts).copied() else {
        return flip(dice, input);
    };
    let length = input[from..]
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .count();
    let value = match dice.roll(5) {
        0 => "0".to_owned(),
        1 => format!("-{}", dice.draw()),
        2 => "9".repeat(dice.roll(400)),
        3 => format!("{}e{}", dice.roll(10), dice.roll(1000)),
        _ => dice.draw().to_string(),
    };
    input.splice(from..from + length, value.bytes());
}

/// Lines in another order, or twice.
fn lines(dice: &mut Dice, input: &mut Vec<u8>) {
    let mut all: Vec<Vec<u8>> = input
        .split_inclusive(|b| *b == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    if all.is_empty() {
        return;
    }
    let (one, other) = (dice.roll(all.len()), dice.roll(all.len()));
    if dice.roll(2) == 0 {
        all.swap(one, other);
    } else {
        let copy = all[one].clone();
        all.insert(other, copy);
    }
    *input = all.concat();
}

/// The whole inside of something, many times.
fn nest(dice: &mut Dice, input: &mut Vec<u8>) {
    let (open, close) = *dice
        .pick(&[
            ("[", "]"),
            ("{\"a\":", "}"),
            ("{a: ", "}"),
            ("- ", ""),
            ("? ", ""),
            ("&a [", "]"),
        ])
        .unwrap_or(&("[", "]"));
    let times = 1 << dice.roll(11);
    *input = [
        open.repeat(times).as_bytes(),
        input,
        close.repeat(times).as_bytes(),
    ]
    .concat();
}
