//! Layers: paths, kinds of entries, headers, sizes, and what they are compressed with.

use std::io::Write;

use super::kit::{self, LayerOf, Layout, Tar, gzip, pax_records, zstd};
use super::refused;

type LayerCase = (&'static str, Vec<u8>, &'static str);

fn paths() -> Vec<LayerCase> {
    let deep = "d/".repeat(129) + "f";
    let long = vec![b'x'; 300];
    let longer = "0123456789/".repeat(400).into_bytes();
    let t = Tar::new;
    vec![
        ("absolute path", t().file("/tmp/x", b"x").end(), "absolute"),
        (
            "absolute path by pax",
            t().pax(&[("path", b"/x")]).file("a", b"").end(),
            "absolute",
        ),
        (
            "climbs at once",
            t().file("../sentinel", b"x").end(),
            "'..'",
        ),
        (
            "climbs in the middle",
            t().file("a/../../sentinel", b"x").end(),
            "'..'",
        ),
        ("climbs at the end", t().dir("a/..").end(), "'..'"),
        (
            "climbs by pax",
            t().pax(&[("path", b"../x")]).file("a", b"").end(),
            "'..'",
        ),
        (
            "climbs by a long name",
            t().raw(b'L', b"n", b"", 0, b"../x\0").file("a", b"").end(),
            "'..'",
        ),
        (
            "through a link to the root",
            t().symlink("a", "/").file("a/x", b"x").end(),
            "not a directory",
        ),
        (
            "through a link upwards",
            t().symlink("a", "../..").file("a/x", b"x").end(),
            "not a directory",
        ),
        (
            "through links in links",
            t().dir("b")
                .symlink("b/c", "/tmp")
                .symlink("a", "b")
                .file("a/c/x", b"")
                .end(),
            "not a directory",
        ),
        (
            "directory through a link",
            t().symlink("a", "/tmp").dir("a/x").end(),
            "not a directory",
        ),
        (
            "whiteout through a link",
            t().symlink("a", "/tmp").file("a/.wh.x", b"").end(),
            "not a directory",
        ),
        (
            "opaque through a link",
            t().symlink("a", "/tmp").file("a/.wh..wh..opq", b"").end(),
            "not a directory",
        ),
        (
            "below a file",
            t().file("a", b"").file("a/b", b"").end(),
            "not a directory",
        ),
        (
            "below a whiteout",
            t().file(".wh.a", b"").file("a/b", b"").end(),
            "not a directory",
        ),
        (
            "the root as a link",
            t().symlink("./", "/tmp").end(),
            "name is empty",
        ),
        (
            "the root as a file",
            t().file(".", b"").end(),
            "name is empty",
        ),
        ("no name", t().file("", b"x").end(), "name is empty"),
        (
            "NUL in the name",
            t().pax(&[("path", b"a\0b")]).file("a", b"").end(),
            "NUL",
        ),
        (
            "component too long",
            t().pax(&[("path", &long)]).file("a", b"").end(),
            "longer than",
        ),
        (
            "path too long",
            t().pax(&[("path", &longer)]).file("a", b"").end(),
            "longer than",
        ),
        (
            "too deep",
            t().pax(&[("path", deep.as_bytes())]).file("a", b"").end(),
            "deep",
        ),
        (
            "file replaces directory",
            t().dir("a").file("a", b"").end(),
            "replace a directory",
        ),
        (
            "link replaces directory",
            t().dir("a").symlink("a", "/").end(),
            "replace a directory",
        ),
        (
            "whiteout of nothing",
            t().file(".wh.", b"").end(),
            "whiteout",
        ),
        ("whiteout of .", t().file("a/.wh..", b"").end(), "whiteout"),
        (
            "whiteout of ..",
            t().file("a/.wh...", b"").end(),
            "whiteout",
        ),
        (
            "whiteout of a whiteout",
            t().file(".wh..wh.x", b"").end(),
            "whiteout",
        ),
        (
            "below a whiteout's name",
            t().file(".wh.a/b", b"").end(),
            "whiteout",
        ),
    ]
}

fn kinds() -> Vec<LayerCase> {
    let long = "x/".repeat(2100);
    let t = Tar::new;
    let attribute = |name: &str| {
        let key = format!("SCHILY.xattr.{name}");
        t().pax(&[(key.as_str(), b"/etc")]).dir("a").end()
    };
    vec![
        (
            "hard link to an absolute path",
            t().hardlink("a", "/etc/passwd").end(),
            "absolute",
        ),
        (
            "hard link upwards",
            t().hardlink("a", "../sentinel").end(),
            "'..'",
        ),
        (
            "hard link through a link",
            t().symlink("l", "/etc").hardlink("a", "l/passwd").end(),
            "hard link",
        ),
        (
            "hard link to nothing",
            t().hardlink("a", "b").end(),
            "hard link",
        ),
        (
            "hard link to a directory",
            t().dir("d").hardlink("a", "d").end(),
            "hard link",
        ),
        (
            "hard link to the root",
            t().hardlink("a", ".").end(),
            "hard link",
        ),
        (
            "hard link to itself",
            t().file("a", b"x").hardlink("a", "./a").end(),
            "hard link",
        ),
        (
            "hard link to a whiteout",
            t().file(".wh.w", b"").hardlink("a", "w").end(),
            "hard link",
        ),
        (
            "character device",
            t().raw(b'3', b"dev/null", b"", 0o666, b"").end(),
            "device",
        ),
        (
            "block device",
            t().raw(b'4', b"dev/sda", b"", 0o666, b"").end(),
            "device",
        ),
        (
            "volume label",
            t().raw(b'V', b"label", b"", 0, b"").end(),
            "type 'V'",
        ),
        (
            "multi-volume",
            t().raw(b'M', b"a", b"", 0, b"").end(),
            "type 'M'",
        ),
        (
            "unprintable type",
            t().raw(1, b"a", b"", 0, b"").end(),
            "type '?'",
        ),
        (
            "symbolic link to nothing",
            t().symlink("a", "").end(),
            "symbolic link",
        ),
        (
            "symbolic link with NUL",
            t().pax(&[("linkpath", b"a\0b")]).symlink("a", "b").end(),
            "symbolic link",
        ),
        (
            "endless symbolic link",
            t().pax(&[("linkpath", long.as_bytes())])
                .symlink("a", "b")
                .end(),
            "symbolic link",
        ),
        (
            "overlay redirect",
            attribute("trusted.overlay.redirect"),
            "reserved",
        ),
        (
            "overlay opaque",
            attribute("user.overlay.opaque"),
            "reserved",
        ),
        (
            "overlay metacopy",
            attribute("user.overlay.metacopy"),
            "reserved",
        ),
        (
            "old sparse",
            t().raw(b'S', b"a", b"", 0, b"").end(),
            "sparse",
        ),
        (
            "new sparse",
            t().pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"a"),
                ("GNU.sparse.realsize", b"99999999999999"),
            ])
            .file("s", b"0\n")
            .end(),
            "sparse",
        ),
        (
            "sparse 0.1",
            t().pax(&[("GNU.sparse.map", b"0,1")]).file("s", b"x").end(),
            "sparse",
        ),
    ]
}

fn headers() -> Vec<LayerCase> {
    let t = Tar::new;
    let nine = (0..9)
        .fold(t(), |tar, at| tar.pax(&[("comment", &[at])]))
        .file("a", b"")
        .end();
    let global = pax_records(&[("path", b"b")]);
    let mut checksum = t().file("a", b"").file("b", b"").end();
    checksum[513] ^= 1;
    let whole = t().file("a", &[7; 2000]).end();
    let big = vec![b'x'; 2 << 20];
    let many = (0..301)
        .fold(t(), |tar, at| tar.file(&format!("f{at}"), b""))
        .end();
    let implied = (0..200)
        .fold(t(), |tar, at| tar.file(&format!("d{at}/f"), b""))
        .end();
    let heavy = (0..9)
        .fold(t(), |tar, at| {
            tar.file(&format!("f{at}"), &vec![7; 1 << 20])
        })
        .end();
    let size = |field: &[u8]| t().sized(b'0', b"a", b"", 0o644, field, b"").end();
    vec![
        (
            "path twice",
            t().pax(&[("path", b"a"), ("path", b"b")])
                .file("c", b"")
                .end(),
            "given twice",
        ),
        (
            "path in two headers",
            t().pax(&[("path", b"a")])
                .pax(&[("path", b"b")])
                .file("c", b"")
                .end(),
            "given twice",
        ),
        (
            "pax and long name",
            t().raw(b'L', b"n", b"", 0, b"x")
                .pax(&[("path", b"b")])
                .file("c", b"")
                .end(),
            "given twice",
        ),
        (
            "negative size",
            t().pax(&[("size", b"-1")]).file("c", b"").end(),
            "number",
        ),
        (
            "size beyond the end",
            t().pax(&[("size", b"4000000")]).file("c", b"").end(),
            "truncated",
        ),
        (
            "size of 8 EiB",
            t().pax(&[("size", b"9223372036854775807")])
                .file("c", b"")
                .end(),
            "more than",
        ),
        (
            "size beyond 64 bits",
            t().pax(&[("size", b"99999999999999999999")])
                .file("c", b"")
                .end(),
            "number",
        ),
        ("size not octal", size(b"0000000009z\0"), "size"),
        ("size negative in binary", size(&[0xff; 12]), "size"),
        (
            "size enormous in binary",
            size(&[
                0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ]),
            "header: size",
        ),
        (
            "a directory with content",
            t().raw(b'5', b"a", b"", 0o755, b"x").end(),
            "only files",
        ),
        (
            "a link with content",
            t().raw(b'2', b"a", b"b", 0o755, b"x").end(),
            "only files",
        ),
        (
            "broken record",
            t().raw(b'x', b"p", b"", 0, b"99 path=a\n")
                .file("a", b"")
                .end(),
            "broken record",
        ),
        (
            "record of length 0",
            t().raw(b'x', b"p", b"", 0, b"0 path=a\n")
                .file("a", b"")
                .end(),
            "broken record",
        ),
        (
            "record without end",
            t().raw(b'x', b"p", b"", 0, b"9 path=a!")
                .file("a", b"")
                .end(),
            "broken record",
        ),
        (
            "record key not text",
            t().raw(b'x', b"p", b"", 0, b"8 \xff\xfe=a\n")
                .file("a", b"")
                .end(),
            "broken record",
        ),
        (
            "nonsense time",
            t().pax(&[("mtime", b"never")]).file("a", b"").end(),
            "time",
        ),
        (
            "huge extended header",
            t().raw(b'x', b"p", b"", 0, &big).file("a", b"").end(),
            "larger than",
        ),
        (
            "huge long name",
            t().raw(b'L', b"p", b"", 0, &big).file("a", b"").end(),
            "larger than",
        ),
        ("headers without end", nine, "more than 8"),
        (
            "global path",
            t().raw(b'g', b"p", b"", 0, &global).file("a", b"").end(),
            "global",
        ),
        ("wrong checksum", checksum, "checksum"),
        ("no tar", b"hello".repeat(200), "not a tar"),
        ("short and no tar", b"hello".to_vec(), "not a tar"),
        ("nothing at all", Vec::new(), "truncated"),
        ("cut in the content", whole[..1500].to_vec(), "truncated"),
        ("cut in the padding", whole[..2520].to_vec(), "truncated"),
        (
            "cut in the header",
            [&whole[..2560], b"abc".as_slice()].concat(),
            "truncated",
        ),
        ("too many entries", many, "more than 300 entries"),
        (
            "too many implied directories",
            implied,
            "more than 300 entries",
        ),
        ("too many bytes", heavy, "more than 8388608 bytes"),
    ]
}

#[test]
fn hostile_layers_are_refused() {
    let cases: Vec<LayerCase> = [paths(), kinds(), headers()].concat();
    assert!(cases.len() >= 80, "{}", cases.len());
    for (case, tar, expected) in cases {
        let dir = kit::scratch();
        Layout::of(&[LayerOf::plain(tar)], Some("x:1")).write(dir.path());
        refused(case, dir.path(), None, expected);
    }
}

#[test]
fn hostile_compression_is_refused() {
    let good = Tar::new().file("a", b"x").end();
    let zeros = Tar::new().file("z", &vec![0; 7 << 20]).end();
    let mut damaged = gzip(&Tar::new().file("a", &[3; 5000]).end());
    let checksum = damaged.len() - 6;
    damaged[checksum] ^= 0xff;
    let cut = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() - 9);
        bytes
    };
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(30).unwrap();
    wide.write_all(&good).unwrap();
    let wide = wide.finish().unwrap();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("gzip in gzip", gzip(&gzip(&good)), "more than once"),
        ("zstd in gzip", gzip(&zstd(&good)), "more than once"),
        ("gzip in zstd", zstd(&gzip(&good)), "more than once"),
        ("xz", b"\xfd7zXZ\0aaaaaaaaaaaa".to_vec(), "xz compression"),
        ("bzip2", b"BZh91AY&SY".to_vec(), "bzip2 compression"),
        ("gzip bomb", gzip(&zeros), "100 times"),
        ("zstd bomb", zstd(&zeros), "100 times"),
        ("gzip cut", cut(gzip(&good)), "truncated"),
        ("zstd cut", cut(zstd(&good)), "truncated"),
        ("gzip damaged", damaged, "damaged"),
        ("zstd window of 1 GiB", wide, "damaged"),
        (
            "rubbish after gzip",
            [gzip(&good), b"rubbish that goes on".to_vec()].concat(),
            "damaged",
        ),
    ];
    for (case, blob, expected) in cases {
        let tar = if case.contains("bomb") {
            zeros.clone()
        } else {
            good.clone()
        };
        let dir = kit::scratch();
        Layout::of(&[LayerOf { tar, blob }], Some("x:1")).write(dir.path());
        refused(case, dir.path(), None, expected);
    }
}
