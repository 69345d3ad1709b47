//! The JSON documents of an image: which manifest is ours, which layers it has, how it starts.
//!
//! Every document is bounded in size and checked against its digest before it is parsed.
//! Used by the loader of images.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::error::ImageError;
use super::source::{DOCUMENT_MAX, Source};
use super::stream::hex;

/// The most layers of one image, as elsewhere in the field.
const LAYERS_MAX: usize = 127;
/// The most manifests looked at in one index.
const MANIFESTS_MAX: usize = 1024;
/// An index may point to an index, which may point to manifests.
const INDEX_DEPTH_MAX: u32 = 3;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct DockerEntry {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Config {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    config: Option<Start>,
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

/// How the image wants to be started, as its author wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, Deserialize)]
pub struct Start {
    /// `NAME=value` each.
    #[serde(rename = "Env", default, deserialize_with = "or_empty")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(rename = "Entrypoint", default, deserialize_with = "or_empty")]
    pub entrypoint: Vec<String>,
    /// Default arguments, or the whole command when there is no entry point.
    #[serde(rename = "Cmd", default, deserialize_with = "or_empty")]
    pub cmd: Vec<String>,
    /// Working directory inside the image; empty means `/`.
    #[serde(rename = "WorkingDir", default, deserialize_with = "or_empty")]
    pub workdir: String,
    /// `user[:group]`, by name or number of the image's own /etc/passwd; empty means root.
    #[serde(rename = "User", default, deserialize_with = "or_empty")]
    pub user: String,
}

fn or_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Where a layer is, and what it must be.
#[derive(Debug)]
pub(super) struct Layer {
    /// Its file in the layout.
    pub(super) blob: String,
    /// Digest (hex) and size of that file, when the manifest states them.
    pub(super) stored: Option<(String, u64)>,
    /// Digest (hex) of the unpacked tar stream.
    pub(super) diff: String,
}

/// An image of a layout, not loaded yet.
#[derive(Debug)]
pub(super) struct Found {
    /// Names the layout gives it.
    pub(super) names: Vec<String>,
    /// `sha256:<hex>` of its manifest; of its configuration in a `docker save` archive.
    pub(super) digest: String,
    /// Bottom layer first.
    pub(super) layers: Vec<Layer>,
    pub(super) start: Start,
}

/// The image of `source` to load: the only one, or the one called `wanted`.
pub(super) fn find(source: &Source, wanted: Option<&str>) -> Result<Found, ImageError> {
    if let Some(bytes) = source.document("index.json")? {
        check_layout_version(source)?;
        return find_oci(source, &bytes, wanted);
    }
    match source.document("manifest.json")? {
        Some(bytes) => find_docker(source, &bytes, wanted),
        None => Err(ImageError::layout(
            &source.label,
            "no index.json (OCI layout) and no manifest.json (docker save) in it",
        )),
    }
}

fn check_layout_version(source: &Source) -> Result<(), ImageError> {
    #[derive(Deserialize)]
    struct Marker {
        #[serde(rename = "imageLayoutVersion")]
        version: String,
    }
    let Some(bytes) = source.document("oci-layout")? else {
        return Err(source.wrong("oci-layout", "missing: this is not an OCI image layout"));
    };
    let marker: Marker = parse(source, "oci-layout", &bytes)?;
    if marker.version.starts_with("1.") {
        return Ok(());
    }
    Err(source.wrong(
        "oci-layout",
        format!("version {:?} is not supported", marker.version),
    ))
}

fn find_oci(source: &Source, bytes: &[u8], wanted: Option<&str>) -> Result<Found, ImageError> {
    let index: Index = parse(source, "index.json", bytes)?;
    if index.manifests.len() > MANIFESTS_MAX {
        return Err(source.wrong("index.json", format!("more than {MANIFESTS_MAX} manifests")));
    }
    let mut images: Vec<&Descriptor> = index.manifests.iter().filter(|it| it.is_ours()).collect();
    if let (Some(wanted), true) = (wanted, images.len() > 1) {
        images.retain(|image| image.names().iter().any(|name| same_name(name, wanted)));
    }
    let descriptor = match images.as_slice() {
        [one] => *one,
        [] => return Err(source.wrong("index.json", no_match(&index, wanted))),
        many => {
            let names: Vec<String> = many.iter().flat_map(|image| image.names()).collect();
            let why = format!("holds {} images: name one of {names:?}", many.len());
            return Err(source.wrong("index.json", why));
        }
    };
    let names = descriptor.names();
    let (hex, bytes) = manifest_bytes(source, descriptor, 0)?;
    let name = format!("manifest sha256:{hex}");
    let manifest: Manifest = parse(source, &name, &bytes)?;
    let (_, config) = document(source, &manifest.config)?;
    let config: Config = parse(source, "image configuration", &config)?;
    let mut layers = Vec::new();
    for (layer, diff) in manifest
        .layers
        .iter()
        .zip(diffs(source, &config, &manifest.layers)?)
    {
        let hex = layer.hex(source)?;
        let blob = format!("blobs/sha256/{hex}");
        layers.push(Layer {
            blob,
            stored: Some((hex, layer.size)),
            diff,
        });
    }
    let start = start(source, config)?;
    Ok(Found {
        names,
        digest: format!("sha256:{hex}"),
        layers,
        start,
    })
}

fn no_match(index: &Index, wanted: Option<&str>) -> String {
    match wanted {
        Some(wanted) if index.manifests.iter().filter(|it| it.is_ours()).count() > 1 => {
            format!("holds several images, none of them called {wanted:?}")
        }
        _ => format!("no image for linux/{}", architecture()),
    }
}

/// Follows indexes down to the one manifest for this machine.
fn manifest_bytes(
    source: &Source,
    descriptor: &Descriptor,
    depth: u32,
) -> Result<(String, Vec<u8>), ImageError> {
    let (hex, bytes) = document(source, descriptor)?;
    let name = format!("sha256:{hex}");
    let is_index = match descriptor.media_type.as_str() {
        "application/vnd.oci.image.index.v1+json"
        | "application/vnd.docker.distribution.manifest.list.v2+json" => true,
        "application/vnd.oci.image.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v2+json" => false,
        other => return Err(source.wrong(&name, format!("media type {other:?} is not an image"))),
    };
    if !is_index {
        return Ok((hex, bytes));
    }
    if depth + 1 >= INDEX_DEPTH_MAX {
        return Err(source.wrong(&name, "indexes inside indexes, too deep"));
    }
    let index: Index = parse(source, &name, &bytes)?;
    let ours = index
        .manifests
        .iter()
        .take(MANIFESTS_MAX)
        .find(|it| it.is_ours());
    match ours {
        Some(next) => manifest_bytes(source, next, depth + 1),
        None => Err(source.wrong(&name, format!("no image for linux/{}", architecture()))),
    }
}

fn find_docker(source: &Source, bytes: &[u8], wanted: Option<&str>) -> Result<Found, ImageError> {
    let entries: Vec<DockerEntry> = parse(source, "manifest.json", bytes)?;
    let tags = |entry: &DockerEntry| entry.repo_tags.clone().unwrap_or_default();
    let mut images: Vec<&DockerEntry> = entries.iter().collect();
    if let (Some(wanted), true) = (wanted, images.len() > 1) {
        images.retain(|entry| tags(entry).iter().any(|tag| same_name(tag, wanted)));
    }
    let [entry] = images.as_slice() else {
        let names: Vec<String> = entries.iter().flat_map(tags).collect();
        let why = format!("holds {} images: name one of {names:?}", entries.len());
        return Err(source.wrong("manifest.json", why));
    };
    let Some(bytes) = source.document(&entry.config)? else {
        return Err(source.wrong(&entry.config, "missing"));
    };
    let hex = hex(&Sha256::digest(&bytes));
    let promised = entry.config.rsplit('/').next().unwrap_or_default();
    if promised.strip_suffix(".json").unwrap_or(promised) != hex {
        return Err(mismatch(source, &entry.config, "digest", &hex, promised));
    }
    let config: Config = parse(source, &entry.config, &bytes)?;
    let diffs = diffs(source, &config, &entry.layers)?;
    let layers = entry.layers.iter().zip(diffs);
    let layers = layers.map(|(blob, diff)| Layer {
        blob: blob.clone(),
        stored: None,
        diff,
    });
    let layers = layers.collect();
    let start = start(source, config)?;
    Ok(Found {
        names: tags(entry),
        digest: format!("sha256:{hex}"),
        layers,
        start,
    })
}

/// The unpacked digests, one per layer.
fn diffs<T>(source: &Source, config: &Config, layers: &[T]) -> Result<Vec<String>, ImageError> {
    let ids = config.rootfs.diff_ids.as_deref().unwrap_or_default();
    let what = "image configuration";
    if ids.len() != layers.len() {
        let why = format!("{} diff ids for {} layers", ids.len(), layers.len());
        return Err(source.wrong(what, why));
    }
    if ids.is_empty() || ids.len() > LAYERS_MAX {
        let why = format!("{} layers (1 to {LAYERS_MAX} are allowed)", ids.len());
        return Err(source.wrong(what, why));
    }
    ids.iter().map(|id| digest_hex(source, id)).collect()
}

fn start(source: &Source, config: Config) -> Result<Start, ImageError> {
    let wrong = |why: String| source.wrong("image configuration", why);
    let other_os = !config.os.is_empty() && config.os != "linux";
    let other_arch = !config.architecture.is_empty() && config.architecture != architecture();
    if other_os || other_arch {
        let image = format!("{}/{}", config.os, config.architecture);
        let here = architecture();
        return Err(wrong(format!(
            "the image is for {image:?}, this machine is linux/{here}"
        )));
    }
    let start = config.config.unwrap_or_default();
    let lists = start.env.iter().chain(&start.entrypoint).chain(&start.cmd);
    if lists
        .chain([&start.workdir, &start.user])
        .any(|text| text.contains('\0'))
    {
        return Err(wrong("a value contains a NUL character".to_owned()));
    }
    let nameless = |pair: &&String| pair.find('=').is_none_or(|at| at == 0);
    if let Some(bad) = start.env.iter().find(nameless) {
        return Err(wrong(format!(
            "environment entry {bad:?} is not NAME=value"
        )));
    }
    if !start.workdir.is_empty() && !start.workdir.starts_with('/') {
        return Err(wrong(format!(
            "working directory {:?} is not absolute",
            start.workdir
        )));
    }
    Ok(start)
}

impl Descriptor {
    /// For this machine, as far as the descriptor says; attestations are for no machine.
    fn is_ours(&self) -> bool {
        self.platform.as_ref().is_none_or(|platform| {
            platform.os == "linux" && platform.architecture == architecture()
        })
    }

    fn names(&self) -> Vec<String> {
        let keys = [
            "io.containerd.image.name",
            "org.opencontainers.image.ref.name",
        ];
        let annotations = self.annotations.iter();
        let found = annotations.flat_map(|all| keys.iter().filter_map(|key| all.get(*key)));
        found.take(1).cloned().collect()
    }

    fn hex(&self, source: &Source) -> Result<String, ImageError> {
        digest_hex(source, &self.digest)
    }
}

/// The hex of `sha256:<64 hex>`, the only digests that are accepted.
fn digest_hex(source: &Source, digest: &str) -> Result<String, ImageError> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    let valid = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if hex.len() == 64 && hex.bytes().all(valid) {
        return Ok(hex.to_owned());
    }
    let shown: String = digest.chars().take(80).collect();
    Err(source.wrong(&shown, "not a digest of the form sha256:<64 hex digits>"))
}

/// A JSON document by its descriptor, checked against size and digest.
fn document(source: &Source, at: &Descriptor) -> Result<(String, Vec<u8>), ImageError> {
    let hex = at.hex(source)?;
    let name = format!("blobs/sha256/{hex}");
    let Some(mut slice) = source.blob(&name)? else {
        return Err(source.wrong(&name, "missing"));
    };
    if slice.size() != at.size {
        let found = slice.size().to_string();
        return Err(mismatch(
            source,
            &name,
            "size",
            &found,
            &at.size.to_string(),
        ));
    }
    if at.size > DOCUMENT_MAX {
        return Err(source.wrong(&name, format!("larger than {DOCUMENT_MAX} bytes")));
    }
    let mut bytes = Vec::new();
    slice
        .read_to_end(&mut bytes)
        .map_err(|error| source.wrong(&name, format!("cannot read it: {error}")))?;
    let found = super::stream::hex(&Sha256::digest(&bytes));
    if found != hex {
        return Err(mismatch(source, &name, "digest", &found, &hex));
    }
    Ok((hex, bytes))
}

pub(super) fn mismatch(
    source: &Source,
    blob: &str,
    what: &'static str,
    found: &str,
    expected: &str,
) -> ImageError {
    ImageError::Mismatch {
        file: source.label.clone(),
        blob: blob.escape_debug().to_string(),
        what,
        found: found.to_owned(),
        expected: expected.escape_debug().to_string(),
    }
}

fn parse<'a, T: Deserialize<'a>>(
    source: &Source,
    name: &str,
    bytes: &'a [u8],
) -> Result<T, ImageError> {
    serde_json::from_slice(bytes)
        .map_err(|error| source.wrong(name, format!("not the expected JSON: {error}")))
}

fn same_name(one: &str, other: &str) -> bool {
    let parse = super::name::ImageName::parse;
    match (parse(one), parse(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// This machine's architecture as the OCI specification spells it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
