//! The first eight bytes from each end: what this is, and which versions of it are spoken.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::WireError;
use crate::versions::OURS;

/// What every connection begins with.
const MAGIC: [u8; 4] = *b"PRSM";

/// Greets and is greeted; answers the newest version that both speak.
///
/// # Errors
/// When there is none, or the other end is something else.
pub(crate) async fn greet<S>(stream: &mut S) -> Result<u16, WireError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&greeting(OURS)).await?;
    stream.flush().await?;
    let mut theirs = [0; 8];
    stream
        .read_exact(&mut theirs)
        .await
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => WireError::Closed,
            _ => e.into(),
        })?;
    choose(OURS, theirs)
}

fn greeting((min, max): (u16, u16)) -> [u8; 8] {
    let ([a, b], [c, d]) = (min.to_le_bytes(), max.to_le_bytes());
    let [p, r, s, m] = MAGIC;
    [p, r, s, m, a, b, c, d]
}

fn choose((ours_min, ours_max): (u16, u16), theirs: [u8; 8]) -> Result<u16, WireError> {
    let [p, r, s, m, a, b, c, d] = theirs;
    let (theirs_min, theirs_max) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    if [p, r, s, m] != MAGIC || theirs_min > theirs_max {
        return Err(WireError::Stranger);
    }
    let newest = ours_max.min(theirs_max);
    if newest < ours_min.max(theirs_min) {
        return Err(WireError::Version {
            theirs_min,
            theirs_max,
            ours_min,
            ours_max,
        });
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_chosen() {
        for (ours, theirs, chosen) in [
            ((1, 1), (1, 1), Some(1)),
            ((2, 3), (1, 2), Some(2)),
            ((1, 2), (2, 3), Some(2)),
            ((1, 4), (2, 3), Some(3)),
            ((1, 1), (2, 3), None),
            ((3, 4), (1, 2), None),
        ] {
            assert_eq!(
                choose(ours, greeting(theirs)).ok(),
                chosen,
                "{ours:?} {theirs:?}"
            );
        }
    }

    #[test]
    fn strangers_are_told_apart() {
        for bytes in [
            *b"GET / HT",
            *b"\x16\x03\x01\x02\x00\x01\x00\x01",
            [0; 8],
            [0xff; 8],
            *b"PRSV\x01\x00\x01\x00",
            greeting((3, 2)),
        ] {
            assert!(
                matches!(choose((1, 1), bytes), Err(WireError::Stranger)),
                "{bytes:?}"
            );
        }
    }
}
