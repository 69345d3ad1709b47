//! Frames: a head of sixteen bytes and a body. A message is one frame or several of the same kind and number, the last of which says
//! so.

use std::collections::HashMap;

use crate::WireError;

/// Most bytes of a body.
pub(crate) const BODY_MAX: usize = 32 << 10;

/// Bytes of a head: length of the body (4), kind (1), whether it is the last (1), zero (2), number (8); little endian.
pub(crate) const HEAD: usize = 16;

/// What a frame is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A message of the session; their number is 0, and they keep their order.
    Message = 1,
    /// A call, by its number.
    Call = 2,
    /// The answer to the call of this number.
    Answer = 3,
    /// Nobody waits for this call any more.
    Cancel = 4,
    /// A sign of life, to be answered with its number.
    Ping = 5,
    /// That answer.
    Pong = 6,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [
            Self::Message,
            Self::Call,
            Self::Answer,
            Self::Cancel,
            Self::Ping,
            Self::Pong,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }

    /// Whether it has a body.
    fn has_body(self) -> bool {
        matches!(self, Self::Message | Self::Call | Self::Answer)
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) last: bool,
    pub(crate) number: u64,
    pub(crate) length: usize,
}

impl Head {
    pub(crate) fn encode(self) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        let length = u32::try_from(self.length).expect("a body fits");
        out[..4].copy_from_slice(&length.to_le_bytes());
        out[4] = self.kind as u8;
        out[5] = u8::from(self.last);
        out[8..].copy_from_slice(&self.number.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: [u8; HEAD]) -> Result<Self, WireError> {
        let [a, b, c, d, kind, last, 0, 0, number @ ..] = bytes else {
            return Err(WireError::Protocol(
                "a frame's head has bytes where none are",
            ));
        };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let kind = Kind::of(kind).ok_or(WireError::Protocol("a frame of an unknown kind"))?;
        if last > 1 {
            return Err(WireError::Protocol("a frame's mark of the last is neither"));
        }
        if length > BODY_MAX {
            return Err(WireError::Protocol("a frame is too long"));
        }
        if !kind.has_body() && (length != 0 || last != 1) {
            return Err(WireError::Protocol("a sign has a body"));
        }
        Ok(Self {
            kind,
            last: last == 1,
            number: u64::from_le_bytes(number),
            length,
        })
    }
}

/// How much may be on its way at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of one message.
    pub(crate) message: usize,
    /// Bytes of all messages that are not whole yet.
    pub(crate) all: usize,
    /// How many these may be.
    pub(crate) count: usize,
}

/// Puts messages together.
#[derive(Debug)]
pub(crate) struct Assembler {
    limits: Limits,
    parts: HashMap<(Kind, u64), Vec<u8>>,
    held: usize,
}

impl Assembler {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            parts: HashMap::new(),
            held: 0,
        }
    }

    /// Lets go of what there is of a message.
    pub(crate) fn forget(&mut self, head: Head) {
        if let Some(parts) = self.parts.remove(&(head.kind, head.number)) {
            self.held -= parts.len();
        }
    }

    /// Takes a frame; answers the message if it is whole now.
    pub(crate) fn take(&mut self, head: Head, body: Vec<u8>) -> Result<Option<Vec<u8>>, WireError> {
        let key = (head.kind, head.number);
        let before = self.parts.get(&key).map_or(0, Vec::len);
        if before + body.len() > self.limits.message {
            return Err(WireError::Protocol("a message is too long"));
        }
        if head.last && before == 0 {
            self.parts.remove(&key);
            return Ok(Some(body));
        }
        if !head.last && body.is_empty() {
            // It would cost us and not the sender.
            return Err(WireError::Protocol("a part of a message is empty"));
        }
        self.held += body.len();
        if self.held > self.limits.all {
            return Err(WireError::Protocol("too much is under way at once"));
        }
        let parts = self.parts.entry(key).or_default();
        parts.extend_from_slice(&body);
        if !head.last {
            if self.parts.len() > self.limits.count {
                return Err(WireError::Protocol(
                    "too many messages are under way at once",
                ));
            }
            return Ok(None);
        }
        let whole = self.parts.remove(&key).unwrap_or_default();
        self.held -= whole.len();
        Ok(Some(whole))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: Limits = Limits {
        message: 100,
        all: 150,
        count: 3,
    };

    fn head(number: u64, last: bool, length: usize) -> Head {
        Head {
            kind: Kind::Call,
            last,
            number,
            length,
        }
    }

    proptest! {
        #[test]
        fn heads_come_back(number: u64, last: bool, length in 0..=BODY_MAX) {
            let head = head(number, last, length);
            prop_assert_eq!(Head::decode(head.encode()).unwrap(), head);
        }

        #[test]
        fn no_head_breaks_the_reader(bytes: [u8; HEAD]) {
            if let Ok(head) = Head::decode(bytes) {
                prop_assert_eq!(head.encode(), bytes);
            }
        }

        #[test]
        fn no_more_is_held_than_allowed(frames in prop::collection::vec((0u64..6, any::<bool>(), 0usize..80), 1..60)) {
            let mut all = Assembler::new(SMALL);
            for (number, last, length) in frames {
                if all.take(head(number, last, length), vec![7; length]).is_err() {
                    break;
                }
                prop_assert!(all.held <= SMALL.all && all.parts.len() <= SMALL.count);
                prop_assert_eq!(all.held, all.parts.values().map(Vec::len).sum::<usize>());
            }
        }
    }

    #[test]
    fn parts_of_several_messages_take_turns() {
        let mut all = Assembler::new(SMALL);
        let mut take = |number, last, text: &str| {
            let whole = all.take(head(number, last, text.len()), text.into());
            whole
                .unwrap()
                .map(|whole| String::from_utf8(whole).unwrap())
        };
        assert_eq!(take(1, false, "one "), None);
        assert_eq!(take(2, false, "two "), None);
        assert_eq!(take(3, true, "three"), Some("three".into()));
        assert_eq!(take(2, true, "more"), Some("two more".into()));
        assert_eq!(take(1, false, "and "), None);
        assert_eq!(take(1, true, ""), Some("one and ".into()));
        assert!(all.parts.is_empty() && all.held == 0);
    }

    #[test]
    fn what_is_too_much_ends_it() {
        let overlong = vec![head(1, false, 60), head(1, true, 41)];
        let together = (1..=3).map(|n| head(n, false, 51)).collect();
        let many = (1..=4).map(|n| head(n, false, 1)).collect();
        let empty = vec![head(1, false, 0)];
        for frames in [overlong, together, many, empty] {
            let mut all = Assembler::new(SMALL);
            let refused = |head: Head| all.take(head, vec![0; head.length]).is_err();
            let verdicts: Vec<bool> = frames.into_iter().map(refused).collect();
            let (last, others) = verdicts.split_last().unwrap();
            assert!(last & others.iter().all(|refused| !refused), "{verdicts:?}");
        }
    }

    #[test]
    fn bad_heads_are_refused() {
        let good = head(7, true, 5).encode();
        for (at, byte) in [
            (3, 1),
            (1, 0x81),
            (4, 0),
            (4, 7),
            (4, 255),
            (5, 2),
            (6, 1),
            (7, 255),
            (4, 5),
        ] {
            let mut bad = good;
            bad[at] = byte;
            assert!(Head::decode(bad).is_err(), "byte {at} is {byte}");
        }
        let sign = Head {
            kind: Kind::Ping,
            ..head(7, true, 0)
        };
        assert!(Head::decode(sign.encode()).is_ok());
        let cut = Head {
            last: false,
            ..sign
        };
        assert!(Head::decode(cut.encode()).is_err());
    }
}
