//! The smallest image: an OCI layout in a directory, with one layer that holds one file.

use std::path::Path;

use prism_e2e::Place;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What it is loaded as.
pub const NAME: &str = "small:1";

/// Writes the layout into a place and answers its path.
pub fn write(place: &Place) -> String {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    header.set_mode(0o644);
    layer
        .append_data(&mut header, "etc/small", &b"ok\n"[..])
        .expect("memory can be written");
    let layer = layer.into_inner().expect("memory can be written");
    let diff = format!("sha256:{}", hex(&layer));
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    });
    let layer = blob(place, "application/vnd.oci.image.layer.v1.tar", &layer);
    let config = blob(
        place,
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    let manifest = blob(place, kind, manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    place.write("image/index.json", index.to_string());
    let marker = place.write("image/oci-layout", r#"{"imageLayoutVersion": "1.0.0"}"#);
    let dir = Path::new(&marker).parent().expect("a file has a directory");
    dir.to_string_lossy().into_owned()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn blob(place: &Place, kind: &str, bytes: &[u8]) -> Value {
    let digest = hex(bytes);
    place.write(&format!("image/blobs/sha256/{digest}"), bytes);
    json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()})
}
