//! Hostile and broken images: every one is refused with a reason, and leaves nothing behind.

#![expect(
    clippy::too_many_lines,
    reason = "a table of cases reads best in one piece"
)]
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

mod kit;

use std::fs;
use std::path::Path;

use kit::{LayerOf, Layout, Tar, docker_save, gzip, named, names, pax_records, sha, zstd};
use prism_sandbox::image::{ImageError, ImageStore, Limits};
use serde_json::json;

type LayerCase = (&'static str, Vec<u8>, &'static str);

const LIMITS: Limits = Limits {
    entries_max: 300,
    bytes_max: 8 << 20,
    ratio_max: 100,
    ratio_floor_bytes: 1 << 20,
};

/// Loads and expects the refusal, in words, and an untouched store and neighbourhood.
fn refused(case: &str, path: &Path, name: Option<&str>, expected: &str) {
    let dir = kit::scratch();
    let sentinel = dir.path().join("sentinel");
    fs::write(&sentinel, "same").unwrap();
    let store = ImageStore::open_with(dir.path().join("store"), LIMITS).unwrap();
    let error = match store.load(path, name) {
        Ok(_) => panic!("{case}: was loaded"),
        Err(error) => error.to_string(),
    };
    assert!(
        error.contains(expected),
        "{case}: said {error:?}, not {expected:?}"
    );
    assert!(
        error.len() < 1500 && !error.contains('\0'),
        "{case}: {error}"
    );
    for part in ["layers", "tmp", "images"] {
        let left = names(&dir.path().join("store").join(part));
        assert!(left.is_empty(), "{case}: left {left:?} in {part}");
    }
    assert_eq!(names(dir.path()), ["sentinel", "store"], "{case}");
    assert_eq!(fs::read(&sentinel).unwrap(), b"same", "{case}");
}

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
    std::io::Write::write_all(&mut wide, &good).unwrap();
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

fn good_layer() -> LayerOf {
    LayerOf::plain(Tar::new().file("a", b"x").end())
}

type DocumentCase = (&'static str, fn(&mut Layout), &'static str);

fn indexes() -> Vec<DocumentCase> {
    vec![
        (
            "no index",
            |l| l.files.retain(|(path, _)| path != "index.json"),
            "no index.json",
        ),
        (
            "no marker",
            |l| l.files.retain(|(path, _)| path != "oci-layout"),
            "missing",
        ),
        (
            "future layout",
            |l| l.put("oci-layout", br#"{"imageLayoutVersion":"2.0"}"#),
            "not supported",
        ),
        ("index is no JSON", |l| l.put("index.json", b"{"), "JSON"),
        (
            "index is no text",
            |l| l.put("index.json", &[0xff; 64]),
            "JSON",
        ),
        (
            "index nested deep",
            |l| l.put("index.json", "[".repeat(100_000).as_bytes()),
            "JSON",
        ),
        (
            "index nested in an ignored field",
            |l| {
                let deep = format!(
                    "{{\"x\":{}{},\"manifests\":[]}}",
                    "[".repeat(5000),
                    "]".repeat(5000)
                );
                l.put("index.json", deep.as_bytes());
            },
            "no image for linux",
        ),
        (
            "index too large",
            |l| l.put("index.json", &vec![b' '; 5 << 20]),
            "larger than",
        ),
        (
            "index of nothing",
            |l| l.index(vec![]),
            "no image for linux",
        ),
        (
            "only other machines",
            |l| {
                let mut image = l.image(&[good_layer()], |_| {}, |_| {});
                image["platform"] = json!({"os": "plan9", "architecture": "mips"});
                l.index(vec![image]);
            },
            "no image for linux",
        ),
        (
            "two images, no choice",
            |l| {
                let image = l.image(&[good_layer()], |_| {}, |_| {});
                l.index(vec![
                    named(image.clone(), Some("a:1")),
                    named(image, Some("b:1")),
                ]);
            },
            "name one of",
        ),
        (
            "indexes for ever",
            |l| {
                let mut inner = l.image(&[good_layer()], |_| {}, |_| {});
                for _ in 0..4 {
                    let index = json!({"manifests": [inner]}).to_string();
                    inner = l.blob(index.as_bytes(), "application/vnd.oci.image.index.v1+json");
                }
                l.index(vec![inner]);
            },
            "too deep",
        ),
    ]
}

fn descriptors() -> Vec<DocumentCase> {
    vec![
        (
            "manifest missing",
            |l| {
                l.index(vec![
                    json!({"mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{}", "0".repeat(64)), "size": 5}),
                ])
            },
            "missing",
        ),
        (
            "size lies",
            |l| {
                let mut image = l.image(&[good_layer()], |_| {}, |_| {});
                image["size"] = json!(7);
                l.index(vec![image]);
            },
            "size is",
        ),
        (
            "size is negative",
            |l| {
                let mut image = l.image(&[good_layer()], |_| {}, |_| {});
                image["size"] = json!(-7);
                l.index(vec![image]);
            },
            "JSON",
        ),
        (
            "digest climbs",
            |l| {
                l.index(vec![
                    json!({"mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": "sha256:../../../etc/passwd", "size": 5}),
                ])
            },
            "not a digest",
        ),
        (
            "digest in capitals",
            |l| {
                l.index(vec![
                    json!({"mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{}", "A".repeat(64)), "size": 5}),
                ])
            },
            "not a digest",
        ),
        (
            "another algorithm",
            |l| {
                l.index(vec![
                    json!({"mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha512:{}", "0".repeat(128)), "size": 5}),
                ])
            },
            "not a digest",
        ),
        (
            "unknown media type",
            |l| {
                let mut image = l.image(&[good_layer()], |_| {}, |_| {});
                image["mediaType"] = json!("application/vnd.docker.distribution.manifest.v1+json");
                l.index(vec![image]);
            },
            "not an image",
        ),
    ]
}

fn configurations() -> Vec<DocumentCase> {
    vec![
        (
            "for another machine",
            |l| image(l, |config| config["architecture"] = json!("s390x"), |_| {}),
            "the image is for",
        ),
        (
            "for another system",
            |l| image(l, |config| config["os"] = json!("windows"), |_| {}),
            "the image is for",
        ),
        (
            "too few diff ids",
            |l| image(l, |config| config["rootfs"]["diff_ids"] = json!([]), |_| {}),
            "diff ids",
        ),
        (
            "wrong diff id",
            |l| {
                image(
                    l,
                    |config| {
                        config["rootfs"]["diff_ids"] =
                            json!([format!("sha256:{}", "1".repeat(64))]);
                    },
                    |_| {},
                )
            },
            "unpacked digest",
        ),
        (
            "diff id climbs",
            |l| {
                image(
                    l,
                    |config| config["rootfs"]["diff_ids"] = json!(["../../x"]),
                    |_| {},
                )
            },
            "not a digest",
        ),
        (
            "environment without name",
            |l| image(l, |config| config["config"]["Env"] = json!(["=x"]), |_| {}),
            "NAME=value",
        ),
        (
            "environment with NUL",
            |l| {
                image(
                    l,
                    |config| config["config"]["Env"] = json!(["A=\0"]),
                    |_| {},
                )
            },
            "NUL",
        ),
        (
            "environment of numbers",
            |l| image(l, |config| config["config"]["Env"] = json!([1]), |_| {}),
            "JSON",
        ),
        (
            "relative directory",
            |l| {
                image(
                    l,
                    |config| config["config"]["WorkingDir"] = json!("../x"),
                    |_| {},
                )
            },
            "not absolute",
        ),
        (
            "no layers",
            |l| {
                image(
                    l,
                    |config| config["rootfs"]["diff_ids"] = json!([]),
                    |manifest| manifest["layers"] = json!([]),
                )
            },
            "0 layers",
        ),
        (
            "layers without end",
            |l| {
                let id = format!("sha256:{}", sha(&good_layer().tar));
                image(
                    l,
                    |config| config["rootfs"]["diff_ids"] = json!(vec![id; 200]),
                    |manifest| {
                        let layer = manifest["layers"][0].clone();
                        manifest["layers"] = json!(vec![layer; 200]);
                    },
                );
            },
            "200 layers",
        ),
        (
            "layer missing",
            |l| {
                let hex = sha(&good_layer().blob);
                l.files.retain(|(path, _)| !path.ends_with(&hex));
            },
            "missing",
        ),
        (
            "layer swapped",
            |l| {
                let hex = sha(&good_layer().blob);
                let mut other = good_layer().blob;
                other[0] = b'b';
                l.put(&format!("blobs/sha256/{hex}"), &other);
            },
            "digest is",
        ),
        (
            "layer longer than promised",
            |l| {
                let hex = sha(&good_layer().blob);
                l.put(
                    &format!("blobs/sha256/{hex}"),
                    &[good_layer().blob, vec![0; 512]].concat(),
                );
            },
            "size is",
        ),
        (
            "configuration swapped",
            |l| {
                let at = l
                    .files
                    .iter()
                    .position(|(_, bytes)| bytes.starts_with(b"{\"architecture"))
                    .unwrap();
                l.files[at].1[2] ^= 1;
            },
            "digest is",
        ),
        (
            "name with capitals and spaces",
            |l| rename(l, "No Name"),
            "not valid",
        ),
        ("name climbs", |l| rename(l, "../../x"), "not valid"),
        (
            "name of the built-in image",
            |l| rename(l, "host"),
            "built-in",
        ),
    ]
}

/// Layouts that are wrong in their documents. Each change starts from a good one.
#[test]
fn hostile_documents_are_refused() {
    let cases: Vec<DocumentCase> = [indexes(), descriptors(), configurations()].concat();
    for (case, change, expected) in cases {
        let mut layout = Layout::of(&[good_layer()], Some("x:1"));
        change(&mut layout);
        let dir = kit::scratch();
        layout.write(dir.path());
        refused(case, dir.path(), None, expected);
        if !matches!(case, "no index" | "no marker") {
            let archive = dir.path().join("archive.tar");
            fs::write(&archive, layout.archive()).unwrap();
            refused(&format!("{case}, as an archive"), &archive, None, expected);
        }
    }
}

fn image(
    layout: &mut Layout,
    config: impl FnOnce(&mut serde_json::Value),
    manifest: impl FnOnce(&mut serde_json::Value),
) {
    let image = layout.image(&[good_layer()], config, manifest);
    layout.index(vec![named(image, Some("x:1"))]);
}

fn rename(layout: &mut Layout, name: &str) {
    let image = layout.image(&[good_layer()], |_| {}, |_| {});
    layout.index(vec![named(image, Some(name))]);
}

/// Links and pipes in a layout directory are not followed and do not block.
#[test]
fn tricks_in_a_layout_directory_are_refused() {
    use std::os::unix::fs::symlink;
    type Trick = fn(&Path);
    let cases: Vec<(&str, Trick, &str)> = vec![
        (
            "index is a link",
            |dir| {
                fs::rename(dir.join("index.json"), dir.join("real")).unwrap();
                symlink("real", dir.join("index.json")).unwrap();
            },
            "links are not followed",
        ),
        (
            "blobs is a link",
            |dir| {
                fs::rename(dir.join("blobs"), dir.join("real")).unwrap();
                symlink("real", dir.join("blobs")).unwrap();
            },
            "cannot open",
        ),
        (
            "layer is a link",
            |dir| {
                let layer = dir.join("blobs/sha256").join(sha(&good_layer().blob));
                fs::rename(&layer, dir.join("real")).unwrap();
                symlink(dir.join("real"), &layer).unwrap();
            },
            "links are not followed",
        ),
        (
            "layer is a pipe",
            |dir| {
                let layer = dir.join("blobs/sha256").join(sha(&good_layer().blob));
                fs::remove_file(&layer).unwrap();
                let mode = rustix::fs::Mode::from_raw_mode(0o644);
                rustix::fs::mknodat(rustix::fs::CWD, &layer, rustix::fs::FileType::Fifo, mode, 0)
                    .unwrap();
            },
            "not a regular file",
        ),
        (
            "layer is a directory",
            |dir| {
                let layer = dir.join("blobs/sha256").join(sha(&good_layer().blob));
                fs::remove_file(&layer).unwrap();
                fs::create_dir(&layer).unwrap();
            },
            "not a regular file",
        ),
    ];
    for (case, trick, expected) in cases {
        let dir = kit::scratch();
        Layout::of(&[good_layer()], Some("x:1")).write(dir.path());
        trick(dir.path());
        refused(case, dir.path(), None, expected);
    }
    refused(
        "no such file",
        Path::new("/nonexistent/image"),
        None,
        "cannot open",
    );
    refused(
        "a device",
        Path::new("/dev/zero"),
        None,
        "neither a file nor a directory",
    );
}

#[test]
fn hostile_archives_are_refused() {
    let layer = good_layer().tar;
    let good = docker_save(std::slice::from_ref(&layer), "x:1");
    let layout = Layout::of(&[good_layer()], Some("x:1"));
    let docker = |layer: &str| {
        let config =
            json!({"os": "linux", "rootfs": {"diff_ids": [format!("sha256:{}", "1".repeat(64))]}})
                .to_string();
        let name = format!("{}.json", sha(config.as_bytes()));
        let manifest =
            json!([{"Config": name, "RepoTags": ["x:1"], "Layers": [layer]}]).to_string();
        Tar::new()
            .file(&name, config.as_bytes())
            .file("manifest.json", manifest.as_bytes())
    };
    let base = || Tar(layout.archive()[..layout.archive().len() - 1024].to_vec());
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "truncated"),
        ("text", b"not an archive\n".repeat(99), "not a tar"),
        ("cut", good[..good.len() - 1700].to_vec(), "truncated"),
        (
            "an archive of something else",
            Tar::new().file("a", b"x").end(),
            "no index.json",
        ),
        (
            "the same name twice",
            base().file("index.json", b"{}").end(),
            "occurs twice",
        ),
        ("a member climbs", base().file("../x", b"").end(), "'..'"),
        (
            "a member is absolute",
            base().file("/x", b"").end(),
            "absolute",
        ),
        (
            "a member is a device",
            base().raw(b'3', b"n", b"", 0, b"").end(),
            "device",
        ),
        (
            "a member is a pipe",
            base().raw(b'6', b"n", b"", 0, b"").end(),
            "not allowed",
        ),
        (
            "a member is sparse",
            base().raw(b'S', b"n", b"", 0, b"").end(),
            "sparse",
        ),
        (
            "a link to the machine",
            docker("l").symlink("l", "/etc/passwd").end(),
            "absolute",
        ),
        (
            "a link upwards",
            docker("l").symlink("l", "../../etc/passwd").end(),
            "'..'",
        ),
        (
            "links in a circle",
            docker("l").symlink("l", "m").symlink("m", "l").end(),
            "too many links",
        ),
        (
            "docker layer climbs",
            docker("../../etc/passwd").end(),
            "'..'",
        ),
        (
            "docker layer is absolute",
            docker("/etc/passwd").end(),
            "absolute",
        ),
        (
            "docker layer is missing",
            docker("nowhere").end(),
            "missing",
        ),
        (
            "docker layer differs",
            docker("l").file("l", &layer).end(),
            "unpacked digest",
        ),
        (
            "docker configuration differs",
            {
                let manifest = json!([{"Config": format!("{}.json", "0".repeat(64)), "RepoTags": ["x:1"], "Layers": ["l"]}]);
                Tar::new()
                    .file(&format!("{}.json", "0".repeat(64)), b"{}")
                    .file("manifest.json", manifest.to_string().as_bytes())
                    .end()
            },
            "digest is",
        ),
        (
            "docker without images",
            Tar::new().file("manifest.json", b"[]").end(),
            "0 images",
        ),
        (
            "gzip bomb",
            gzip(&Tar::new().file("a", &vec![0; 7 << 20]).end()),
            "100 times",
        ),
        ("gzip in gzip", gzip(&gzip(&good)), "more than once"),
        ("gzip cut", gzip(&good)[..300].to_vec(), "truncated"),
        (
            "members without end",
            (0..301)
                .fold(Tar::new(), |tar, at| tar.file(&format!("f{at}"), b""))
                .end(),
            "entries",
        ),
    ];
    for (case, bytes, expected) in cases {
        let dir = kit::scratch();
        let path = dir.path().join("image.tar");
        fs::write(&path, bytes).unwrap();
        refused(case, &path, None, expected);
    }
}

#[test]
fn bad_names_are_refused() {
    let dir = kit::scratch();
    let store = ImageStore::open(dir.path()).unwrap();
    let long = "a".repeat(256);
    let tag = format!("a:{}", "t".repeat(129));
    for name in [
        "",
        ":",
        "a:",
        ":tag",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/../b",
        "a/..",
        "a b",
        "a\0b",
        "ä",
        "a:b:c",
        "a@sha256:x",
        "-a",
        "a-",
        ".a",
        "a:-x",
        "a:b/c",
        "host",
        "host:latest",
        "a\n",
        &long,
        &tag,
    ] {
        let error = store.resolve(name).unwrap_err();
        assert!(
            matches!(error, ImageError::Name { .. }),
            "{name:?}: {error}"
        );
    }
    assert!(matches!(
        store.resolve("a").unwrap_err(),
        ImageError::NotFound(_)
    ));
}
