//! Documents: the index, its descriptors, manifests and configurations.

use std::fs;

use serde_json::json;

use super::kit::{self, Layout, named, sha};
use super::{good_layer, refused};

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
