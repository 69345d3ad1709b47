//! Snapshots: round trips of random trees, hostile archives, and a sandbox that keeps writing.

#![expect(
    clippy::too_many_lines,
    reason = "a table of cases reads best in one piece"
)]
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

mod kit;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use kit::{Tar, gzip, zstd};
use prism_sandbox::image::Limits;
use prism_sandbox::snapshot::{SnapshotError, restore, snapshot};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

const BASE: u32 = 2_000_000;

fn base() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(BASE)
}

/// A small generator, so that every run makes the same trees.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn name(&mut self) -> OsString {
        let number = self.roll(1_000_000);
        let bytes: Vec<u8> = match self.roll(9) {
            0 => format!("späce and ünïcode {number} \u{1F600}").into_bytes(),
            1 => [
                b"\xff\xfe\n\t\"'\\ ".as_slice(),
                number.to_string().as_bytes(),
            ]
            .concat(),
            2 => format!(".wh.{number}").into_bytes(),
            3 => format!(".wh..wh.{number}").into_bytes(),
            4 => vec![b'n'; 255 - (number % 7) as usize],
            5 => format!("-rf {number}*").into_bytes(),
            6 => format!("GNUSparseFile.{number}=\u{7f}").into_bytes(),
            _ => format!("f{number}").into_bytes(),
        };
        OsString::from_vec(bytes)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.roll(256) as u8).collect()
    }
}

fn tree(dice: &mut Dice, dir: &Path, depth: u32, files: &mut Vec<PathBuf>) {
    for _ in 0..dice.roll(8) {
        let path = dir.join(dice.name());
        if fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match dice.roll(10) {
            0..=2 if depth < 5 => {
                fs::create_dir(&path).unwrap();
                tree(dice, &path, depth + 1, files);
                if dice.roll(4) == 0 {
                    rustix::fs::setxattr(&path, "user.overlay.opaque", b"y", XattrFlags::empty())
                        .unwrap();
                }
            }
            0..=3 => {
                let length = dice.roll(3000) as usize;
                fs::write(&path, dice.bytes(length)).unwrap();
                files.push(path.clone());
            }
            4 => {
                let file = fs::File::create(&path).unwrap();
                for _ in 0..dice.roll(4) {
                    let at = dice.roll(40) * 65_536;
                    file.write_all_at(&dice.bytes(5000), at).unwrap();
                }
                file.set_len(file.metadata().unwrap().len() + dice.roll(3) * 1_000_000)
                    .unwrap();
                rustix::fs::fsetxattr(
                    &file,
                    "user.k\u{e4}se",
                    &dice.bytes(200),
                    XattrFlags::empty(),
                )
                .unwrap();
                files.push(path.clone());
            }
            5 => symlink(dice.name(), &path).unwrap(),
            6 => symlink("/x".repeat(1 + dice.roll(200) as usize), &path).unwrap(),
            7 => rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0)
                .unwrap(),
            8 => rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o622), 0)
                .unwrap(),
            _ => match files.last() {
                // Its directory may be closed by now, to an ordinary user.
                Some(known) if fs::hard_link(known, &path).is_ok() => {}
                _ => fs::write(&path, b"").unwrap(),
            },
        }
        let kind = fs::symlink_metadata(&path).unwrap();
        if base().is_some() {
            let owner = |dice: &mut Dice| Some(BASE + dice.roll(65_536) as u32);
            std::os::unix::fs::lchown(&path, owner(dice), owner(dice)).unwrap();
        }
        if kind.is_file() || kind.is_dir() {
            let mode = [0o644, 0o755, 0o000, 0o1777, 0o400, 0o555][dice.roll(6) as usize];
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

/// Everything a snapshot promises to keep, by relative path. Hard links by their first name.
fn describe(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let mut first = BTreeMap::new();
    walk(root, root, &mut found, &mut first);
    found
}

fn walk(
    root: &Path,
    path: &Path,
    found: &mut BTreeMap<Vec<u8>, String>,
    first: &mut BTreeMap<u64, Vec<u8>>,
) {
    let stat = fs::symlink_metadata(path).unwrap();
    let mode = stat.permissions().mode();
    let name = path
        .strip_prefix(root)
        .unwrap()
        .as_os_str()
        .as_bytes()
        .to_vec();
    let plain = stat.is_file() || stat.is_dir();
    // An ordinary user may look only where the mode lets it; the test gives and takes that back.
    let closed = plain && mode & 0o700 != 0o700;
    if closed {
        fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o700)).unwrap();
    }
    let mut text = format!("{mode:o} {}.{}", stat.mtime(), stat.mtime_nsec());
    if mode & 0o170_000 != 0o020_000 {
        text += &format!(" {}:{}", stat.uid(), stat.gid());
    } else {
        text = format!("{mode:o} whiteout {}", stat.rdev());
    }
    if stat.is_file() {
        text += &format!(" {} {}", stat.len(), kit::sha(&fs::read(path).unwrap()));
        let linked = first.entry(stat.ino()).or_insert_with(|| name.clone());
        text += &format!(" {}", linked.escape_ascii());
    }
    if stat.is_symlink() {
        text += &format!(" {:?}", fs::read_link(path).unwrap());
    }
    if plain {
        for attribute in ["user.overlay.opaque", "user.k\u{e4}se"] {
            let mut value = [0; 512];
            if let Ok(length) = rustix::fs::getxattr(path, attribute, &mut value) {
                text += &format!(" {attribute}={}", kit::sha(&value[..length]));
            }
        }
    }
    if stat.is_dir() {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        names.sort();
        for child in names {
            walk(root, &child, found, first);
        }
    }
    if closed {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    found.insert(name, text);
}

#[test]
fn random_trees_come_back_the_same() {
    let (mut entries, mut holes) = (0, 0);
    for seed in 0..20 {
        let dir = kit::scratch();
        let upper = dir.path().join("upper");
        fs::create_dir(&upper).unwrap();
        let mut dice = Dice(seed * 7919 + 1);
        let mut files = Vec::new();
        for _ in 0..3 {
            tree(&mut dice, &upper, 0, &mut files);
        }
        if let Some(base) = base() {
            std::os::unix::fs::chown(&upper, Some(base), Some(base)).unwrap();
        }
        let before = describe(&upper);
        let out = dir.path().join("s.tar.zst");
        let taken = snapshot(&upper, &out, base(), Limits::SNAPSHOT).unwrap();
        assert_eq!(
            (taken.changed, taken.vanished, taken.skipped),
            (0, 0, 0),
            "seed {seed}"
        );
        assert_eq!(taken.bytes, fs::metadata(&out).unwrap().len());
        let back = dir.path().join("back");
        let restored = restore(&out, &back, base(), Limits::SNAPSHOT).unwrap();
        assert_eq!(
            (restored.digest, restored.files),
            (taken.digest.clone(), taken.files),
            "seed {seed}"
        );
        let after = describe(&back);
        for (name, text) in &before {
            assert_eq!(
                after.get(name),
                Some(text),
                "seed {seed}: {}",
                name.escape_ascii()
            );
        }
        assert_eq!(before.len(), after.len(), "seed {seed}");
        let again = snapshot(&back, &out, base(), Limits::SNAPSHOT).unwrap();
        assert_eq!(again.digest, taken.digest, "seed {seed}: not deterministic");
        entries += before.len();
        holes += files.iter().filter(|file| sparse(file)).count();
        let opened = fs::File::open(dir.path()).unwrap();
        for tree in ["upper", "back"] {
            prism_sys::beneath::remove_tree(&opened, tree.as_ref()).unwrap();
        }
    }
    assert!(
        entries > 300 && holes > 3,
        "{entries} entries, {holes} with holes"
    );
    kit::again_as_user("random_trees_come_back_the_same");
}

fn sparse(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|stat| stat.is_file() && stat.blocks() * 512 < stat.len())
}

#[test]
fn big_and_hollow_files_stay_small() {
    let dir = kit::scratch();
    let upper = dir.path().join("upper");
    fs::create_dir(&upper).unwrap();
    let hollow = fs::File::create(upper.join("hollow")).unwrap();
    hollow.write_all_at(b"start", 0).unwrap();
    hollow.write_all_at(b"end", 3 << 40).unwrap();
    fs::write(upper.join("zeros"), vec![0; 80 << 20]).unwrap();
    fs::write(upper.join("same"), b"the same line\n".repeat(1 << 20)).unwrap();
    let out = dir.path().join("s");
    let taken = snapshot(&upper, &out, None, Limits::SNAPSHOT).unwrap();
    assert!(taken.bytes < 1 << 20, "{taken:?}");
    let back = dir.path().join("back");
    restore(&out, &back, None, Limits::SNAPSHOT).unwrap();
    let stat = fs::metadata(back.join("hollow")).unwrap();
    assert!(stat.len() == (3 << 40) + 3 && stat.blocks() < 100);
    let mut end = [0; 3];
    fs::File::open(back.join("hollow"))
        .unwrap()
        .read_exact_at(&mut end, 3 << 40)
        .unwrap();
    assert_eq!(&end, b"end");
    assert_eq!(fs::metadata(back.join("zeros")).unwrap().len(), 80 << 20);
    assert_eq!(fs::read(back.join("same")).unwrap().len(), 14 << 20);
}

/// Another tar reader understands the archive.
#[test]
fn the_archive_is_an_ordinary_tar_with_oci_whiteouts() {
    let dir = kit::scratch();
    let upper = dir.path().join("upper");
    fs::create_dir_all(upper.join("d")).unwrap();
    fs::write(upper.join("d/f"), "content").unwrap();
    rustix::fs::setxattr(
        upper.join("d"),
        "user.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    )
    .unwrap();
    rustix::fs::mknodat(
        CWD,
        upper.join("gone"),
        FileType::CharacterDevice,
        Mode::empty(),
        0,
    )
    .unwrap();
    fs::write(upper.join("n".repeat(200)), "long").unwrap();
    let out = dir.path().join("s");
    snapshot(&upper, &out, None, Limits::SNAPSHOT).unwrap();
    let plain = zstd::decode_all(fs::File::open(&out).unwrap()).unwrap();
    let mut archive = tar::Archive::new(plain.as_slice());
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "./",
            "d/",
            "d/.wh..wh..opq",
            "d/f",
            ".wh.gone",
            &"n".repeat(200)
        ]
    );
}

#[test]
fn hostile_archives_are_refused_and_leave_nothing() {
    let t = Tar::new;
    let sparse = |records: &[(&str, &[u8])], map: &[u8]| {
        let mut all: Vec<(&str, &[u8])> = vec![
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"a"),
        ];
        all.extend(records);
        let mut content = map.to_vec();
        content.resize(512, 0);
        t().pax(&all)
            .file("s", &[content, b"data".to_vec()].concat())
            .end()
    };
    let size: &[(&str, &[u8])] = &[("GNU.sparse.realsize", b"100")];
    let no_end = {
        let tar = t().file("a", b"x").0;
        zstd(&tar)
    };
    let good = zstd(&t().dir("./").file("a", b"x").end());
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    let heavy = (0..9)
        .fold(t(), |tar, at| {
            tar.file(&format!("f{at}"), &vec![7; 1 << 20])
        })
        .end();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "truncated"),
        ("no archive", b"text".repeat(300), "not a tar"),
        ("without its end", no_end, "truncated"),
        ("cut", good[..good.len() - 3].to_vec(), "truncated"),
        ("bit flipped", flipped, ""),
        (
            "compressed twice",
            zstd(&gzip(&t().file("a", b"").end())),
            "more than once",
        ),
        ("absolute", t().file("/x", b"").end(), "absolute"),
        ("climbs", t().file("a/../../x", b"").end(), "'..'"),
        (
            "through a link",
            t().symlink("a", "/tmp").file("a/x", b"").end(),
            "not a directory",
        ),
        (
            "literal name through a link",
            t().symlink("a", "/tmp")
                .pax(&[("PRISM.literal", b"file")])
                .file("a/.wh.x", b"")
                .end(),
            "not a directory",
        ),
        (
            "literal whiteout climbs",
            t().pax(&[("PRISM.literal", b"whiteout")])
                .file("../x", b"")
                .end(),
            "'..'",
        ),
        (
            "literal of an unknown kind",
            t().pax(&[("PRISM.literal", b"x")]).file("a", b"").end(),
            "unknown kind",
        ),
        (
            "device",
            t().raw(b'3', b"null", b"", 0o666, b"").end(),
            "device",
        ),
        (
            "hard link out",
            t().hardlink("a", "/etc/shadow").end(),
            "absolute",
        ),
        (
            "hard link through a link",
            t().symlink("l", "/etc").hardlink("a", "l/shadow").end(),
            "hard link",
        ),
        (
            "overlay attribute",
            t().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/x")])
                .dir("a")
                .end(),
            "reserved",
        ),
        (
            "too many entries",
            (0..301)
                .fold(t(), |tar, at| tar.file(&format!("f{at}"), b""))
                .end(),
            "entries",
        ),
        ("too many bytes", heavy, "bytes"),
        (
            "sparse: extents overlap",
            sparse(size, b"2\n0\n3\n2\n1\n"),
            "overlap",
        ),
        (
            "sparse: beyond the file",
            sparse(size, b"1\n99\n4\n"),
            "overlap or leave",
        ),
        ("sparse: sizes differ", sparse(size, b"1\n0\n3\n"), "differ"),
        (
            "sparse: wraps around",
            sparse(size, b"1\n999999999999999999\n4\n"),
            "overlap or leave",
        ),
        ("sparse: no number", sparse(size, b"x\n"), "malformed"),
        (
            "sparse: number too long",
            sparse(size, b"99999999999999999999999\n"),
            "malformed",
        ),
        (
            "sparse: too many extents",
            sparse(size, b"999999\n"),
            "too many extents",
        ),
        (
            "sparse: cut map",
            sparse(
                size,
                &b"400\n"
                    .iter()
                    .copied()
                    .chain([b'1', b'\n'].repeat(254))
                    .collect::<Vec<u8>>(),
            ),
            "sparse",
        ),
        (
            "sparse: absurd size",
            sparse(
                &[("GNU.sparse.realsize", b"9223372036854775807")],
                b"1\n0\n4\n",
            ),
            "out of range",
        ),
        (
            "sparse: other version",
            t().pax(&[("GNU.sparse.realsize", b"9")])
                .file("s", b"")
                .end(),
            "format 1.0",
        ),
        (
            "sparse directory",
            t().pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", b"9"),
            ])
            .dir("s")
            .end(),
            "only files",
        ),
    ];
    let limits = Limits {
        entries_max: 300,
        bytes_max: 8 << 20,
        ..Limits::SNAPSHOT
    };
    for (case, bytes, expected) in cases {
        let dir = kit::scratch();
        let archive = dir.path().join("archive");
        fs::write(&archive, bytes).unwrap();
        let error = restore(&archive, &dir.path().join("upper"), None, limits).unwrap_err();
        assert!(
            matches!(error, SnapshotError::Archive { .. }),
            "{case}: {error}"
        );
        assert!(error.to_string().contains(expected), "{case}: {error}");
        assert_eq!(kit::names(dir.path()), ["archive"], "{case}");
    }
}

#[test]
fn restoring_needs_room_and_an_empty_place() {
    let dir = kit::scratch();
    let archive = dir.path().join("archive");
    fs::write(&archive, zstd(&Tar::new().dir("./").file("a", b"x").end())).unwrap();
    let full = dir.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "").unwrap();
    let into = |path: &Path, base| restore(&archive, path, base, Limits::SNAPSHOT);
    assert!(matches!(into(&full, None), Err(SnapshotError::NotEmpty(_))));
    assert_eq!(kit::names(&full), ["mine"]);
    assert!(matches!(
        into(&dir.path().join("n"), Some(u32::MAX - 5)),
        Err(SnapshotError::Base(_))
    ));
    assert!(into(&dir.path().join("no/such/parent"), None).is_err());
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    into(&empty, base()).unwrap();
    assert_eq!(kit::names(&empty), ["a"]);
    let owner = fs::metadata(empty.join("a")).unwrap().uid();
    let expected = base().map_or(rustix::process::geteuid().as_raw(), |base| base + 0o1750);
    assert_eq!(owner, expected);
    kit::again_as_user("restoring_needs_room_and_an_empty_place");
}

#[test]
fn what_cannot_be_kept_is_counted_or_refused() {
    let dir = kit::scratch();
    let upper = dir.path().join("upper");
    fs::create_dir(&upper).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(upper.join("socket")).unwrap();
    let out = dir.path().join("s");
    assert_eq!(
        snapshot(&upper, &out, None, Limits::SNAPSHOT)
            .unwrap()
            .skipped,
        1
    );
    let deep = upper.join("d/".repeat(130));
    fs::create_dir_all(&deep).unwrap();
    fs::remove_file(&out).unwrap();
    let error = snapshot(&upper, &out, None, Limits::SNAPSHOT)
        .unwrap_err()
        .to_string();
    assert!(error.contains("deep"), "{error}");
    assert_eq!(kit::names(dir.path()), ["upper"], "nothing half-written");
    if base().is_some() {
        fs::remove_dir_all(upper.join("d")).unwrap();
        fs::create_dir(upper.join("moved")).unwrap();
        rustix::fs::setxattr(
            upper.join("moved"),
            "trusted.overlay.redirect",
            b"/old",
            XattrFlags::empty(),
        )
        .unwrap();
        let error = snapshot(&upper, &out, base(), Limits::SNAPSHOT).unwrap_err();
        assert!(matches!(error, SnapshotError::Refers { .. }), "{error}");
    }
}

/// The sandbox goes on writing, truncating, deleting and swapping while snapshots are taken.
#[test]
fn a_busy_upper_layer_gives_sound_archives() {
    let dir = kit::scratch();
    let upper = dir.path().join("upper");
    fs::create_dir(&upper).unwrap();
    fs::write(dir.path().join("secret"), "SECRET").unwrap();
    for number in 0..40 {
        fs::write(upper.join(format!("f{number}")), vec![b'a'; 200_000]).unwrap();
    }
    let done = AtomicBool::new(false);
    let (mut seen, mut rounds) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut dice = Dice(5);
            while !done.load(Ordering::Acquire) {
                let path = upper.join(format!("f{}", dice.roll(40)));
                match dice.roll(5) {
                    0 => {
                        let file = unblocked().create(true).truncate(true).open(&path);
                        let bytes = vec![b'b'; dice.roll(300_000) as usize];
                        drop(file.and_then(|file| file.write_all_at(&bytes, 0)));
                    }
                    1 => drop(fs::remove_file(&path)),
                    2 => drop(symlink(dir.path().join("secret"), &path)),
                    3 => {
                        let _ = fs::remove_file(&path);
                        let mode = Mode::from_raw_mode(0o666);
                        let _ = rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0);
                    }
                    _ => {
                        let file = unblocked().open(&path);
                        drop(file.and_then(|file| file.set_len(dice.roll(1000))));
                    }
                }
            }
        });
        let out = dir.path().join("out");
        while rounds < 30 {
            rounds += 1;
            let taken = snapshot(&upper, &out, None, Limits::SNAPSHOT).unwrap();
            seen += taken.changed + taken.vanished;
            let back = dir.path().join(format!("back{rounds}"));
            restore(&out, &back, None, Limits::SNAPSHOT).unwrap();
            let plain = zstd::decode_all(fs::File::open(&out).unwrap()).unwrap();
            assert!(!plain.windows(6).any(|bytes| bytes == b"SECRET"));
        }
        done.store(true, Ordering::Release);
    });
    eprintln!("{rounds} snapshots, {seen} changed or vanished files counted");
}

/// For writing, without following a link or waiting at a pipe.
fn unblocked() -> fs::OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    let mut options = fs::OpenOptions::new();
    options.write(true).custom_flags(flags.bits().cast_signed());
    options
}
