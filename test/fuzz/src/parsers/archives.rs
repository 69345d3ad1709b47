//! Parsers of archives: layers in tar, compressed and not, OCI documents, whole images, snapshots. Small limits keep one
//! input cheap.

use std::fs;
use std::io::Write;
use std::path::Path;

use prism_sandbox::image::{ImageStore, Limits};
use prism_sandbox::snapshot::restore;
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{Feed, Parser, said};

const LIMITS: Limits = Limits {
    entries_max: 64,
    bytes_max: 1 << 20,
    ratio_max: 100,
    ratio_floor_bytes: 1 << 16,
};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// A tar with one of each kind of entry.
fn tar(pax: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    if pax {
        let records = [
            ("path", b"dir/renamed".as_slice()),
            ("mtime", b"1.5"),
            ("SCHILY.xattr.user.a", b"b"),
        ];
        // Writing to memory does not fail.
        let _ = builder.append_pax_extensions(records);
    }
    for (kind, path, link) in [
        (tar::EntryType::Directory, "dir/", ""),
        (tar::EntryType::Regular, "dir/file", ""),
        (tar::EntryType::Symlink, "link", "dir/file"),
        (tar::EntryType::Link, "hard", "dir/file"),
        (tar::EntryType::Regular, "dir/.wh.gone", ""),
    ] {
        let mut header = tar::Header::new_gnu();
        let content: &[u8] = if kind == tar::EntryType::Regular {
            b"content"
        } else {
            b""
        };
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        let _ = header.set_path(path);
        if !link.is_empty() {
            let _ = header.set_link_name(link);
        }
        header.set_cksum();
        let _ = builder.append(&header, content);
    }
    builder.into_inner().unwrap_or_default()
}

/// A long name of GNU's kind, and an old sparse file.
fn gnu() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o644);
    header.set_cksum();
    let _ = builder.append_data(&mut header, "n".repeat(150), b"abc".as_slice());
    builder.into_inner().unwrap_or_default()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing to memory does not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

fn tars() -> Vec<Vec<u8>> {
    vec![tar(false), tar(true), gnu()]
}

/// An input as a layer of an image whose documents are right, so that only the layer is judged.
fn layer(media: &'static str, checksums: bool) -> Feed {
    let place = Place::new();
    Box::new(move |input| {
        let mut input = input.to_vec();
        if checksums {
            mend(&mut input);
        }
        let config = json!({"architecture": arch(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&input))]}}).to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": format!("sha256:{}", hex(config.as_bytes())), "size": config.len()},
            "layers": [{"mediaType": media, "digest": format!("sha256:{}", hex(&input)), "size": input.len()}],
        })
        .to_string();
        let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{}", hex(manifest.as_bytes())), "size": manifest.len()}]});
        place.layout(
            &[&input, config.as_bytes(), manifest.as_bytes()],
            index.to_string().as_bytes(),
        );
        place.load(&place.dir.path().join("layout"))
    })
}

/// Puts the right checksums into headers, without which nearly every change would only be a wrong checksum.
fn mend(input: &mut [u8]) {
    for header in input.chunks_exact_mut(512) {
        if &header[257..262] != b"ustar" {
            continue;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{:06o}\0 ", sum % 0o1_000_000).as_bytes());
    }
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Where images are put together and loaded.
struct Place {
    dir: TempDir,
    store: ImageStore,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let store = ImageStore::open_with(dir.path().join("store"), LIMITS)
            .expect("a fresh store can be opened");
        Self { dir, store }
    }

    fn layout(&self, blobs: &[&[u8]], index: &[u8]) {
        let layout = self.dir.path().join("layout");
        let _ = fs::remove_dir_all(&layout);
        let at = layout.join("blobs/sha256");
        fs::create_dir_all(&at).expect("our own directory can be written");
        for blob in blobs {
            fs::write(at.join(hex(blob)), blob).expect("our own directory can be written");
        }
        fs::write(
            layout.join("oci-layout"),
            b"{\"imageLayoutVersion\": \"1.0.0\"}",
        )
        .expect("it can be written");
        fs::write(layout.join("index.json"), index).expect("it can be written");
    }

    fn load(&self, path: &Path) -> String {
        let answer = match self.store.load(path, Some("fuzz:1")) {
            Ok(_) => {
                // So that the next one is unpacked too.
                let _ = self.store.remove("fuzz:1");
                let _ = self.store.collect_garbage(&[]);
                "ok".to_owned()
            }
            Err(e) => e.to_string(),
        };
        answer.replace(&*self.dir.path().to_string_lossy(), "")
    }
}

/// An input as the manifest of an image, named by its right digest.
fn manifest() -> Feed {
    let place = Place::new();
    Box::new(move |input| {
        let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{}", hex(input)), "size": input.len()}]});
        place.layout(&[input, b"{}", &tar(false)], index.to_string().as_bytes());
        let one = place.load(&place.dir.path().join("layout"));
        place.layout(&[input], input);
        format!("{one} {}", place.load(&place.dir.path().join("layout")))
    })
}

fn manifests() -> Vec<Vec<u8>> {
    let layer = hex(&tar(false));
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": format!("sha256:{}", hex(b"{}")), "size": 2}, "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": format!("sha256:{layer}"), "size": 4096}]});
    let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{layer}"), "size": 5, "platform": {"architecture": "amd64", "os": "linux"}, "annotations": {"org.opencontainers.image.ref.name": "a:1"}}]});
    vec![
        manifest.to_string().into_bytes(),
        index.to_string().into_bytes(),
    ]
}

/// An input as a whole archive in a file.
fn archive() -> Feed {
    let place = Place::new();
    Box::new(move |input| {
        let path = place.dir.path().join("image.tar");
        let mut input = input.to_vec();
        mend(&mut input);
        fs::write(&path, input).expect("our own directory can be written");
        place.load(&path)
    })
}

fn archives() -> Vec<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let documents = manifests();
    for (path, content) in [
        (
            "oci-layout",
            b"{\"imageLayoutVersion\": \"1.0.0\"}".as_slice(),
        ),
        ("index.json", &documents[1]),
        (
            "manifest.json",
            b"[{\"Config\": \"c.json\", \"RepoTags\": [\"a:1\"], \"Layers\": [\"l.tar\"]}]",
        ),
        ("c.json", b"{}"),
        ("l.tar", &tar(false)),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let _ = builder.append_data(&mut header, path, content);
    }
    let plain = builder.into_inner().unwrap_or_default();
    vec![gzip(&plain), plain]
}

fn snapshot() -> Feed {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    Box::new(move |input| {
        let (path, upper) = (dir.path().join("archive"), dir.path().join("upper"));
        fs::write(&path, input).expect("our own directory can be written");
        let answer = said(restore(&path, &upper, None, LIMITS));
        // It may hold directories that are closed to us; then the next one says that it is not empty, which is no panic.
        let _ = fs::remove_dir_all(&upper);
        answer.replace(&*dir.path().to_string_lossy(), "")
    })
}

fn snapshots() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let (upper, out) = (dir.path().join("upper"), dir.path().join("out"));
    let made = fs::create_dir_all(upper.join("a/b"))
        .and_then(|()| fs::write(upper.join("a/file"), b"content"))
        .and_then(|()| std::os::unix::fs::symlink("a/file", upper.join("link")));
    made.expect("our own directory can be written");
    let mut all = tars();
    if prism_sandbox::snapshot::snapshot(&upper, &out, None, LIMITS).is_ok() {
        all.extend(fs::read(&out));
    }
    all
}

pub(super) const LAYER: Parser = Parser {
    name: "layer-tar",
    seeds: tars,
    make: || layer("application/vnd.oci.image.layer.v1.tar", true),
    quick: 150,
};
pub(super) const GZIP: Parser = Parser {
    name: "layer-gzip",
    seeds: || tars().iter().map(|t| gzip(t)).collect(),
    make: || layer("application/vnd.oci.image.layer.v1.tar+gzip", false),
    quick: 150,
};
pub(super) const ZSTD: Parser = Parser {
    name: "layer-zstd",
    seeds: || {
        tars()
            .iter()
            .filter_map(|t| zstd::encode_all(&t[..], 1).ok())
            .collect()
    },
    make: || layer("application/vnd.oci.image.layer.v1.tar+zstd", false),
    quick: 150,
};
pub(super) const MANIFEST: Parser = Parser {
    name: "image-documents",
    seeds: manifests,
    make: manifest,
    quick: 150,
};
pub(super) const ARCHIVE: Parser = Parser {
    name: "image-archive",
    seeds: archives,
    make: archive,
    quick: 300,
};
pub(super) const SNAPSHOT: Parser = Parser {
    name: "snapshot",
    seeds: snapshots,
    make: snapshot,
    quick: 300,
};
