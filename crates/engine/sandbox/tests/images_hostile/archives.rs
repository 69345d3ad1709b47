//! What holds an image: a directory, an archive, and the name it is asked for by.

use std::fs;
use std::path::Path;

use prism_sandbox::image::{ImageError, ImageStore};
use serde_json::json;

use super::kit::{self, Layout, Tar, docker_save, gzip, sha};
use super::{good_layer, refused};

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
