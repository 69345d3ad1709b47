//! What is written is read, and nothing else is: every file that is not as it was written is refused, with a reason, and costs no
//! more than it has bytes.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::io::{Read, Write};

use prism_backup::{
    BackupError, Head, Item, MAGIC, Opener, Reader, SEALED_MAGIC, Sealer, Summary, Writer,
};
use proptest::prelude::*;

const PASSPHRASE: &str = "correct horse battery";

fn head() -> Head {
    Head {
        cluster: "01k8z3v6m0000000000000000a".to_owned(),
        revision: 42,
        made_ms: 1_700_000_000_000,
        prism: "0.1.0".to_owned(),
    }
}

fn items(count: u32, bytes: usize) -> Vec<Item> {
    let item = |n: u32| Item {
        key: format!("k/{n:08}").into_bytes(),
        value: vec![u8::try_from(n % 251).unwrap(); bytes],
    };
    (0..count).map(item).collect()
}

fn written(items: &[Item]) -> (Vec<u8>, Summary) {
    let mut writer = Writer::new(Vec::new(), head()).unwrap();
    for item in items {
        writer.put(&item.key, &item.value).unwrap();
    }
    let (summary, bytes) = writer.finish().unwrap();
    assert_eq!(summary.size, bytes.len() as u64);
    (bytes, summary)
}

fn read(bytes: &[u8]) -> Result<Vec<Item>, BackupError> {
    let mut reader = Reader::open(bytes)?;
    let mut all = Vec::new();
    while let Some(item) = reader.next()? {
        all.push(item);
    }
    assert_eq!(reader.head(), &head());
    Ok(all)
}

fn sealed(content: &[u8]) -> Vec<u8> {
    let mut sealer = Sealer::new(Vec::new(), PASSPHRASE, [7; 16]).unwrap();
    sealer.write_all(content).unwrap();
    sealer.finish().unwrap()
}

fn opened(bytes: &[u8], passphrase: &str) -> Result<Vec<u8>, String> {
    let mut opener = Opener::new(bytes, passphrase).map_err(|e| e.to_string())?;
    let mut content = Vec::new();
    let read = opener.read_to_end(&mut content);
    read.map(|_| content).map_err(|e| e.to_string())
}

#[test]
fn what_is_written_is_read() {
    for all in [
        items(0, 0),
        items(1, 0),
        items(1000, 100),
        items(3, 1 << 20),
    ] {
        let (bytes, summary) = written(&all);
        assert_eq!(read(&bytes).unwrap(), all);
        let checked = Reader::open(&bytes[..]).unwrap().check().unwrap();
        assert_eq!(checked.size, bytes.len() as u64);
        assert_eq!(
            (checked.items, checked.bytes, checked.digest),
            (summary.items, summary.bytes, summary.digest)
        );
    }
}

#[test]
fn keys_ascend_and_are_short_enough() {
    let mut writer = Writer::new(Vec::new(), head()).unwrap();
    writer.put(b"b", b"").unwrap();
    assert!(writer.put(b"b", b"").is_err() && writer.put(b"a", b"").is_err());
    assert!(writer.put(&[b'c'; 4097], b"").is_err());
    writer.put(b"c", b"").unwrap();
}

#[test]
fn every_cut_and_every_flipped_bit_is_found() {
    let (bytes, _) = written(&items(40, 50));
    for end in 0..bytes.len() {
        let why = read(&bytes[..end]).unwrap_err();
        let expected = match end {
            0..8 => matches!(why, BackupError::Foreign),
            _ => matches!(why, BackupError::Cut { .. }),
        };
        assert!(expected, "{end}: {why}");
    }
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(read(&bad).is_err(), "byte {at}");
    }
    let mut more = bytes;
    more.push(0);
    let why = read(&more).unwrap_err().to_string();
    assert!(why.contains("something follows its end"), "{why}");
}

#[test]
fn other_files_and_other_versions_are_refused_by_name() {
    let (bytes, _) = written(&items(1, 1));
    let version = |n: u32| {
        let mut other = bytes.clone();
        other[8..12].copy_from_slice(&n.to_le_bytes());
        read(&other).unwrap_err().to_string()
    };
    assert!(version(2).contains("it is of format 2, and this version of Prism reads up to 1"));
    assert!(version(u32::MAX).contains("4294967295"));
    assert!(version(0).contains("it has no version"));
    let tar = vec![0u8; 10_240];
    for foreign in [
        &b""[..],
        b"PRISMSNP\x01\0\0\0",
        b"{}",
        &tar,
        b"\x7fELF and so on",
    ] {
        let why = read(foreign).unwrap_err().to_string();
        assert!(why.contains("no backup of Prism"), "{why}");
    }
    let why = read(&sealed(&bytes)).unwrap_err().to_string();
    assert!(why.contains("sealed with a passphrase"), "{why}");
    let why = opened(&bytes, PASSPHRASE).unwrap_err();
    assert!(why.contains("not sealed"), "{why}");
}

/// A block as it is written, with a right checksum.
fn block(kind: u8, length: u32, body: &[u8]) -> Vec<u8> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[kind]);
    crc.update(&length.to_le_bytes());
    crc.update(body);
    let mut all = vec![kind];
    all.extend(length.to_le_bytes());
    all.extend(crc.finalize().to_le_bytes());
    all.extend(body);
    all
}

#[test]
fn whoever_makes_a_file_to_do_harm_is_refused_at_once() {
    let said = serde_json::to_vec(&head()).unwrap();
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    let begin = |head: &[u8]| {
        let mut all = MAGIC.to_vec();
        all.extend(1u32.to_le_bytes());
        all.extend(block(1, length(head), head));
        all
    };
    let with = |rest: &[u8]| {
        let mut all = begin(&said);
        all.extend(rest);
        read(&all).unwrap_err().to_string()
    };
    // Lengths of what never comes take no memory.
    assert!(with(&block(2, u32::MAX, b"x")).contains("longer than any is"));
    assert!(with(&block(2, 150 << 20, b"x")).contains("cut off"));
    let item = |key: u32, value: u32, rest: &[u8]| {
        let mut body = key.to_le_bytes().to_vec();
        body.extend(value.to_le_bytes());
        body.extend(rest);
        block(2, length(&body), &body)
    };
    assert!(with(&item(4097, 0, &[0; 5000])).contains("longer than any is"));
    assert!(with(&item(1, u32::MAX, b"ab")).contains("longer than any is"));
    assert!(with(&item(1, 5, b"ab")).contains("longer than its block"));
    assert!(with(&block(2, 3, b"abc")).contains("longer than its block"));
    assert!(with(&block(2, 0, b"")).contains("does not belong there"));
    assert!(with(&block(9, 0, b"")).contains("does not belong there"));
    assert!(with(&block(1, length(&said), &said)).contains("does not belong there"));
    assert!(with(&block(3, 2, b"ab")).contains("not as long"));
    assert!(with(&block(3, 48, &[0; 48])).contains("checksum of the whole"));
    assert!(with(&block(3, 48, &[1; 48])).contains("more or less"));
    let twice = [item(1, 1, b"ab"), item(1, 1, b"ac")].concat();
    assert!(with(&twice).contains("do not ascend"));
    for head in [&b"no"[..], b"{}", br#"{"cluster":1}"#] {
        assert!(read(&begin(head)).is_err());
    }
}

#[test]
fn what_is_sealed_opens_with_its_passphrase_only() {
    for size in [0, 1, 65_536, 65_537, 131_072] {
        let content: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let bytes = sealed(&content);
        assert!(bytes.starts_with(&SEALED_MAGIC));
        assert_eq!(opened(&bytes, PASSPHRASE).unwrap(), content, "{size}");
    }
    let wrong = opened(&sealed(b"x"), "another passphrase").unwrap_err();
    assert!(wrong.contains("does not open it"), "{wrong}");
    let short = Sealer::new(Vec::new(), "too short", [0; 16]).unwrap_err();
    assert!(short.to_string().contains("at least 12"), "{short}");
}

#[test]
fn what_is_sealed_shows_nothing_and_every_change_of_it_is_found() {
    let (plain, _) = written(&items(900, 100));
    let bytes = sealed(&plain);
    let shown = |needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
    assert!(!shown(b"k/0000") && !shown(b"01k8z3v6m0") && !shown(&MAGIC));
    // Pieces out of order, left out, or from another file are not opened: each says where it belongs.
    let mut swapped = bytes.clone();
    let (a, b) = (40, 40 + 65_552);
    assert!(bytes.len() > b + 100);
    swapped.copy_within(b..b + 100, a);
    opened(&swapped, PASSPHRASE).unwrap_err();
    for end in [0, 7, 39, 50, 65_592, bytes.len() - 1] {
        opened(&bytes[..end], PASSPHRASE).unwrap_err();
    }
    for at in [0, 11, 25, 40, 65_592, bytes.len() - 1] {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        opened(&bad, PASSPHRASE).unwrap_err();
    }
    // Whoever makes a file that asks for all memory, or for ever, gets nothing.
    for (at, number) in [
        (12, u32::MAX),
        (16, u32::MAX),
        (20, 255),
        (12, 0),
        (16, 0),
        (20, 0),
    ] {
        let mut bad = bytes.clone();
        bad[at..at + 4].copy_from_slice(&u32::to_le_bytes(number));
        let why = opened(&bad, PASSPHRASE).unwrap_err();
        assert!(why.contains("asks for what no backup does"), "{why}");
    }
    let mut newer = bytes;
    newer[8] = 2;
    let why = opened(&newer, PASSPHRASE).unwrap_err();
    assert!(why.contains("it is of format 2"), "{why}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_items_come_back(all in prop::collection::btree_map(
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(any::<u8>(), 0..2000),
        0..60,
    )) {
        let all: Vec<Item> = all.into_iter().map(|(key, value)| Item { key, value }).collect();
        let (bytes, _) = written(&all);
        prop_assert_eq!(read(&bytes).unwrap(), all);
    }

    #[test]
    fn any_bytes_are_refused_and_harm_nobody(tail in prop::collection::vec(any::<u8>(), 0..4000), whole: bool) {
        let mut bytes = Vec::new();
        if whole {
            bytes = written(&items(2, 10)).0;
            bytes.truncate(bytes.len() - 57);
        }
        bytes.extend(tail);
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn any_changes_are_found(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
        let (good, _) = written(&items(20, 30));
        let mut bad = good.clone();
        for (at, byte) in changes {
            let at = at.index(bad.len());
            bad[at] = byte;
        }
        prop_assert!(bad == good || read(&bad).is_err());
    }
}
