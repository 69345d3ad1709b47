//! Archives and images for the tests, built byte by byte so that they can lie.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A temporary directory that goes even when it holds directories closed to their own user.
pub struct Scratch(std::path::PathBuf);

pub fn scratch() -> Scratch {
    Scratch(tempfile::tempdir().unwrap().keep())
}

impl Scratch {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let parent = fs::File::open(self.0.parent().unwrap()).unwrap();
        let name = self.0.file_name().unwrap();
        // A failed test says why it failed, not why its rubbish stays.
        let _ = prism_sys::beneath::remove_tree(&parent, name);
    }
}

/// A tar archive under construction.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn dir(self, path: &str) -> Self {
        self.raw(b'5', path.as_bytes(), b"", 0o755, b"")
    }

    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.raw(b'0', path.as_bytes(), b"", 0o644, content)
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(b'2', path.as_bytes(), target.as_bytes(), 0o777, b"")
    }

    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.raw(b'1', path.as_bytes(), target.as_bytes(), 0o644, b"")
    }

    pub fn raw(self, kind: u8, path: &[u8], link: &[u8], mode: u32, content: &[u8]) -> Self {
        let size = format!("{:011o}\0", content.len());
        self.sized(kind, path, link, mode, size.as_bytes(), content)
    }

    /// With a size field of the caller's choice.
    pub fn sized(
        mut self,
        kind: u8,
        path: &[u8],
        link: &[u8],
        mode: u32,
        size: &[u8],
        content: &[u8],
    ) -> Self {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8], max: usize| {
            let length = bytes.len().min(max);
            block[at..at + length].copy_from_slice(&bytes[..length]);
        };
        put(0, path, 100);
        put(100, format!("{mode:07o}\0").as_bytes(), 8);
        put(108, b"0001750\0", 8);
        put(116, b"0001750\0", 8);
        put(124, size, 12);
        put(136, b"14726450000\0", 12);
        put(148, b"        ", 8);
        put(156, &[kind], 1);
        put(157, link, 100);
        put(257, b"ustar\x0000", 8);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let data = pax_records(records);
        self.raw(b'x', b"PaxHeader", b"", 0o644, &data)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

pub fn pax_records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest + 1..)
            .find(|all| *all == rest + all.to_string().len())
            .unwrap();
        data.extend_from_slice(format!("{length} {key}=").as_bytes());
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    data
}

pub fn sha(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A layer: the plain tar, and the blob it is stored as.
#[derive(Clone)]
pub struct LayerOf {
    pub tar: Vec<u8>,
    pub blob: Vec<u8>,
}

impl LayerOf {
    pub fn plain(tar: Vec<u8>) -> Self {
        Self {
            blob: tar.clone(),
            tar,
        }
    }
}

/// The parts of an OCI layout, as files.
#[derive(Clone)]
pub struct Layout {
    pub files: Vec<(String, Vec<u8>)>,
}

impl Layout {
    pub fn empty() -> Self {
        let marker = br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec();
        Self {
            files: vec![("oci-layout".to_owned(), marker)],
        }
    }

    /// A well-formed layout of one image.
    pub fn of(layers: &[LayerOf], name: Option<&str>) -> Self {
        let mut layout = Self::empty();
        let descriptor = layout.image(layers, |_| {}, |_| {});
        layout.index(vec![named(descriptor, name)]);
        layout
    }

    /// Adds an image whose configuration and manifest may be changed; returns its descriptor.
    pub fn image(
        &mut self,
        layers: &[LayerOf],
        config: impl FnOnce(&mut Value),
        manifest: impl FnOnce(&mut Value),
    ) -> Value {
        let diffs: Vec<String> = layers
            .iter()
            .map(|layer| format!("sha256:{}", sha(&layer.tar)))
            .collect();
        let mut document = json!({
            "architecture": arch(), "os": "linux",
            "config": { "Env": ["PATH=/bin"], "Cmd": ["sh"], "Entrypoint": null, "WorkingDir": "/w", "User": "1:1" },
            "rootfs": { "type": "layers", "diff_ids": diffs },
        });
        config(&mut document);
        let config = self.blob(
            &document.to_string().into_bytes(),
            "application/vnd.oci.image.config.v1+json",
        );
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| self.blob(&layer.blob, "application/vnd.oci.image.layer.v1.tar"))
            .collect();
        let mut document = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        manifest(&mut document);
        self.blob(
            &document.to_string().into_bytes(),
            "application/vnd.oci.image.manifest.v1+json",
        )
    }

    pub fn blob(&mut self, bytes: &[u8], media_type: &str) -> Value {
        let hex = sha(bytes);
        self.put(&format!("blobs/sha256/{hex}"), bytes);
        json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len() })
    }

    pub fn put(&mut self, path: &str, bytes: &[u8]) {
        self.files.retain(|(known, _)| known != path);
        self.files.push((path.to_owned(), bytes.to_vec()));
    }

    pub fn index(&mut self, manifests: Vec<Value>) {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        self.put("index.json", index.to_string().as_bytes());
    }

    pub fn write(&self, dir: &Path) {
        for (path, bytes) in &self.files {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    pub fn archive(&self) -> Vec<u8> {
        let files = self.files.iter();
        files
            .fold(Tar::new().dir("blobs/"), |tar, (path, bytes)| {
                tar.file(path, bytes)
            })
            .end()
    }
}

pub fn named(mut descriptor: Value, name: Option<&str>) -> Value {
    if let Some(name) = name {
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    }
    descriptor
}

/// A `docker save` archive in the old form.
pub fn docker_save(layers: &[Vec<u8>], tag: &str) -> Vec<u8> {
    let diffs: Vec<String> = layers
        .iter()
        .map(|tar| format!("sha256:{}", sha(tar)))
        .collect();
    let config = json!({ "architecture": arch(), "os": "linux", "config": {}, "rootfs": { "diff_ids": diffs } });
    let config = config.to_string().into_bytes();
    let name = format!("{}.json", sha(&config));
    let paths: Vec<String> = (0..layers.len())
        .map(|at| format!("l{at}/layer.tar"))
        .collect();
    let manifest = json!([{ "Config": name, "RepoTags": [tag], "Layers": paths }]).to_string();
    let mut tar = Tar::new().file(&name, &config);
    for (at, layer) in layers.iter().enumerate() {
        tar = match layers[..at].iter().position(|earlier| earlier == layer) {
            Some(same) => tar.symlink(&paths[at], &format!("../l{same}/layer.tar")),
            None => tar.file(&paths[at], layer),
        };
    }
    tar.file("manifest.json", manifest.as_bytes()).end()
}

/// Names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Runs one test of this file again as an ordinary user, when this process is root.
pub fn again_as_user(test: &str) {
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // The test program may lie where that user cannot look; a copy is readable by all.
    let dir = scratch();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), open).unwrap();
    let program = dir.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = std::process::Command::new(&program)
        .args(["--exact", test, "--test-threads=1"])
        .env("TMPDIR", "/tmp")
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "as a user: {said}{errors}");
}
