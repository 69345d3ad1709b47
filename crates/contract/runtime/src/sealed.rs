//! A small text file that shows its own damage: the text, then a line with its checksum. Used by whoever keeps records as files.

use std::io;
use std::path::Path;

/// What stands between the text and its checksum.
const MARK: &[u8] = b"\n#";
/// Digits of the checksum.
const DIGITS: usize = 16;

/// FNV-1a: every change of one byte changes it.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, b| {
        (sum ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The text with its checksum.
pub fn seal(mut text: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&text);
    text.extend(MARK);
    text.extend(format!("{sum:0DIGITS$x}\n").into_bytes());
    text
}

/// The text of a sealed file. A file without a checksum is of an earlier version, and is taken as it is.
///
/// # Errors
/// `InvalidData`, naming the file and the byte, when it was changed since.
pub fn unseal<'b>(path: &Path, bytes: &'b [u8]) -> io::Result<&'b [u8]> {
    let Some(at) = bytes.windows(MARK.len()).rposition(|w| w == MARK) else {
        return Ok(bytes);
    };
    let (text, rest) = bytes.split_at(at);
    let wanted = format!("{:0DIGITS$x}\n", checksum(text)).into_bytes();
    match rest.get(MARK.len()..) {
        Some(found) if found == wanted => Ok(text),
        Some(found) if found.len() != wanted.len() => {
            Err(damaged(path, at, "its checksum is not whole"))
        }
        _ => Err(damaged(path, 0, "its checksum does not match")),
    }
}

/// What is said of a file that holds something else than was written.
pub fn damaged(path: &Path, at: usize, what: &str) -> io::Error {
    let path = path.display();
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{path} is damaged at byte {at}: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_and_any_cut_shows_or_changes_nothing() {
        let path = Path::new("f");
        let text = b"{\"a\": 1}";
        let whole = seal(text.to_vec());
        assert_eq!(unseal(path, &whole).unwrap(), text);
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // Without its mark it is not one text any more, which its reader sees.
            match unseal(path, &bytes) {
                Ok(found) => assert!(found.len() > text.len() + DIGITS, "bit {bit}"),
                Err(e) => assert!(e.to_string().starts_with("f is damaged at byte"), "{e}"),
            }
        }
        for cut in 0..whole.len() {
            match unseal(path, &whole[..cut]) {
                Ok(found) => assert!(found == &whole[..cut] && cut <= text.len() + 1),
                Err(e) => assert!(e.to_string().contains("not whole"), "{e}"),
            }
        }
    }
}
