//! Images that should work: formats, names, whiteouts, owners, reuse, garbage, parallel loads.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

mod kit;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kit::{LayerOf, Layout, Tar, docker_save, gzip, named, names, zstd};
use prism_sandbox::image::{ImageStore, LoadedImage};

fn base_layer() -> Vec<u8> {
    Tar::new()
        .dir("./")
        .dir("bin")
        .file("bin/sh", b"#!")
        .raw(b'0', b"bin/su", b"", 0o6755, b"setuid")
        .hardlink("bin/bash", "bin/sh")
        .symlink("sh", "/bin/sh")
        .dir("gone")
        .file("gone/x", b"x")
        .dir("replaced")
        .file("replaced/old", b"old")
        .file("removed", b"r")
        .raw(b'5', b"tmp", b"", 0o1777, b"")
        .raw(b'5', b"closed", b"", 0o500, b"")
        .file("closed/in", b"in")
        .raw(b'6', b"pipe", b"", 0o600, b"")
        .end()
}

fn top_layer() -> Vec<u8> {
    Tar::new()
        .file(".wh.removed", b"")
        .file(".wh.gone", b"")
        .file("replaced/.wh..wh..opq", b"")
        .file("replaced/new", b"new")
        .file("deep/er/still", b"implied parents")
        .file("twice", b"first")
        .file("twice", b"second")
        .symlink("was-link", "/nowhere")
        .dir("was-link")
        .file("was-link/inside", b"i")
        .raw(b'0', b".wh..wh.plnk/1.2", b"", 0, b"")
        .pax(&[
            ("SCHILY.xattr.user.note", b"kept"),
            ("SCHILY.xattr.security.capability", b"dropped"),
        ])
        .file("noted", b"")
        .end()
}

fn check(image: &LoadedImage) {
    let [top, base] = image.layers.as_slice() else {
        panic!("{:?}", image.layers)
    };
    assert_eq!(fs::read(base.join("bin/bash")).unwrap(), b"#!");
    assert_eq!(fs::metadata(base.join("bin/sh")).unwrap().nlink(), 2);
    assert_eq!(
        fs::read_link(base.join("sh")).unwrap(),
        Path::new("/bin/sh")
    );
    let mode = |path: PathBuf| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(base.join("bin/su")), 0o755, "setuid and setgid go");
    assert_eq!(mode(base.join("tmp")), 0o1777);
    assert_eq!(mode(base.join("closed")), 0o500);
    assert!(
        fs::symlink_metadata(base.join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    let owner = fs::metadata(base.join("bin/sh")).unwrap();
    let root = rustix::process::geteuid().is_root();
    let expected = if root {
        0o1750
    } else {
        rustix::process::geteuid().as_raw()
    };
    assert_eq!(owner.uid(), expected);
    assert_eq!(owner.mtime(), 0o14_726_450_000);
    for hidden in ["removed", "gone"] {
        let whiteout = fs::symlink_metadata(top.join(hidden)).unwrap();
        assert!(
            whiteout.file_type().is_char_device() && whiteout.rdev() == 0,
            "{hidden}"
        );
    }
    let mut value = [0; 8];
    let opaque = |path: &Path, value: &mut [u8; 8]| {
        rustix::fs::getxattr(path, "user.overlay.opaque", &mut *value)
            .map(|length| value[..length].to_vec())
    };
    assert_eq!(opaque(&top.join("replaced"), &mut value).unwrap(), b"y");
    assert!(opaque(&top.join("deep"), &mut value).is_err());
    assert_eq!(fs::read(top.join("twice")).unwrap(), b"second");
    assert_eq!(fs::read(top.join("was-link/inside")).unwrap(), b"i");
    assert!(!top.join(".wh..wh.plnk").exists());
    let length = rustix::fs::getxattr(top.join("noted"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..length], b"kept");
    assert!(rustix::fs::getxattr(top.join("noted"), "security.capability", &mut value).is_err());
}

#[test]
fn every_format_gives_the_same_layers() {
    let dir = kit::scratch();
    let (base, top) = (base_layer(), top_layer());
    let layers = [
        LayerOf {
            tar: base.clone(),
            blob: gzip(&base),
        },
        LayerOf {
            tar: top.clone(),
            blob: zstd(&top),
        },
    ];
    let layout = Layout::of(&layers, Some("demo:1"));
    let at = dir.path().join("layout");
    layout.write(&at);
    fs::write(dir.path().join("oci.tar"), layout.archive()).unwrap();
    fs::write(dir.path().join("oci.tar.gz"), gzip(&layout.archive())).unwrap();
    fs::write(dir.path().join("oci.tar.zst"), zstd(&layout.archive())).unwrap();
    fs::write(
        dir.path().join("docker.tar"),
        docker_save(&[base, top], "demo:1"),
    )
    .unwrap();
    let mut seen: Vec<Vec<String>> = Vec::new();
    for form in [
        "layout",
        "oci.tar",
        "oci.tar.gz",
        "oci.tar.zst",
        "docker.tar",
    ] {
        let store_dir = dir.path().join(format!("store-{form}"));
        let store = ImageStore::open(&store_dir).unwrap();
        let image = store.load(&dir.path().join(form), None).unwrap();
        assert_eq!(image.name.as_str(), "demo:1", "{form}");
        check(&image);
        assert_eq!(store.resolve("demo:1").unwrap(), image);
        assert!(names(&store_dir.join("tmp")).is_empty(), "{form}");
        seen.push(names(&store_dir.join("layers")));
        if form != "docker.tar" {
            assert_eq!(image.config.env, ["PATH=/bin"]);
            assert_eq!(image.config.cmd, ["sh"]);
            assert!(image.config.entrypoint.is_empty());
            assert_eq!(
                (image.config.workdir.as_str(), image.config.user.as_str()),
                ("/w", "1:1")
            );
        }
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
    kit::again_as_user("every_format_gives_the_same_layers");
}

/// The kernel agrees: mounted as an overlay, the layers show what the image means.
#[test]
fn an_overlay_over_the_layers_hides_what_the_whiteouts_say() {
    let dir = kit::scratch();
    let layers = [LayerOf::plain(base_layer()), LayerOf::plain(top_layer())];
    Layout::of(&layers, Some("demo:1")).write(&dir.path().join("layout"));
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    let image = store.load(&dir.path().join("layout"), None).unwrap();
    let lower: Vec<&str> = image
        .layers
        .iter()
        .map(|layer| layer.to_str().unwrap())
        .collect();
    for part in ["m", "u", "w"] {
        fs::create_dir(dir.path().join(part)).unwrap();
    }
    let root = rustix::process::geteuid().is_root();
    let variants: &[(&str, &str)] = if root {
        &[("-m", ""), ("-Urm", ",userxattr")]
    } else {
        &[("-Urm", ",userxattr")]
    };
    for (flags, options) in variants {
        let script = format!(
            "mount -t overlay overlay -o lowerdir={},upperdir=u,workdir=w{options} m && cd m && \
             ls -A . replaced && cat twice",
            lower.join(":")
        );
        let output = std::process::Command::new("unshare")
            .args([flags, "sh", "-c", &script])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if !root && said.contains("unshare") {
            eprintln!("skipped: user namespaces are not available here: {said}");
            return;
        }
        let shown = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(output.status.success(), "{flags}: {said}");
        assert!(
            lines.contains(&"was-link") && lines.contains(&"new"),
            "{flags}: {shown}"
        );
        for hidden in ["removed", "gone", "old"] {
            assert!(!lines.contains(&hidden), "{flags}: {hidden} shows: {shown}");
        }
        assert!(shown.ends_with("second"), "{flags}: {shown}");
    }
    kit::again_as_user("an_overlay_over_the_layers_hides_what_the_whiteouts_say");
}

#[test]
fn names_select_list_and_remove() {
    let dir = kit::scratch();
    let mut layout = Layout::empty();
    let one = layout.image(
        &[LayerOf::plain(Tar::new().file("one", b"").end())],
        |_| {},
        |_| {},
    );
    let two = layout.image(
        &[LayerOf::plain(Tar::new().file("two", b"").end())],
        |_| {},
        |_| {},
    );
    let mut foreign = one.clone();
    foreign["platform"] = serde_json::json!({"os": "linux", "architecture": "s390x"});
    layout.index(vec![
        foreign,
        named(one, Some("docker.io/library/one")),
        named(two, Some("reg.example:5000/two:v2")),
    ]);
    let at = dir.path().join("layout");
    layout.write(&at);
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    assert!(store.load(&at, Some("three")).is_err());
    let image = store.load(&at, Some("one:latest")).unwrap();
    assert!(image.layers[0].join("one").exists());
    store.load(&at, Some("reg.example:5000/two:v2")).unwrap();
    let list = store.list().unwrap();
    let listed: Vec<&str> = list.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(listed, ["one:latest", "reg.example:5000/two:v2"]);
    assert_eq!(store.resolve("library/one").unwrap(), image);
    store.remove("one").unwrap();
    assert!(store.remove("one").is_err() && store.resolve("one").is_err());
    assert_eq!(
        store.collect_garbage(&image.layers).unwrap().layers,
        0,
        "still in use"
    );
    assert_eq!(store.collect_garbage(&[]).unwrap().layers, 1);
    assert!(!image.layers[0].exists());
    assert!(
        store.resolve("reg.example:5000/two:v2").unwrap().layers[0]
            .join("two")
            .exists()
    );
}

#[test]
fn a_layer_is_unpacked_once_and_never_twice_in_one_image() {
    let dir = kit::scratch();
    let (a, b) = (
        Tar::new().file("a", b"").end(),
        Tar::new().file("b", b"").end(),
    );
    fs::write(
        dir.path().join("i.tar"),
        docker_save(&[a.clone(), b, a], "i:1"),
    )
    .unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    let image = store.load(&dir.path().join("i.tar"), None).unwrap();
    assert_eq!(image.layers.len(), 2);
    assert!(image.layers[0].join("a").exists() && image.layers[1].join("b").exists());
    let before = fs::metadata(&image.layers[0]).unwrap().ino();
    let again = store
        .load(&dir.path().join("i.tar"), Some("other"))
        .unwrap();
    assert_eq!(fs::metadata(&again.layers[0]).unwrap().ino(), before);
    assert!(store.resolve("i:1").is_ok());
}

#[test]
fn a_crash_leaves_only_work_that_the_next_one_clears() {
    let dir = kit::scratch();
    let at = dir.path().join("layout");
    Layout::of(&[LayerOf::plain(base_layer())], Some("demo:1")).write(&at);
    let half = dir.path().join("store/tmp/half/fs/closed");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("x"), "x").unwrap();
    fs::set_permissions(&half, fs::Permissions::from_mode(0o0)).unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    assert!(names(&dir.path().join("store/tmp")).is_empty());
    store.load(&at, None).unwrap();
    kit::again_as_user("a_crash_leaves_only_work_that_the_next_one_clears");
}

#[test]
fn parallel_loads_agree() {
    let dir = kit::scratch();
    let at = dir.path().join("layout");
    Layout::of(
        &[LayerOf::plain(base_layer()), LayerOf::plain(top_layer())],
        Some("demo:1"),
    )
    .write(&at);
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (store, at) = (&store, &at);
            scope.spawn(move || {
                let image = store.load(at, Some(&format!("demo-{number}"))).unwrap();
                check(&image);
                store.collect_garbage(&[]).unwrap();
            });
        }
    });
    assert_eq!(store.list().unwrap().len(), 6);
    assert_eq!(names(&dir.path().join("store/layers")).len(), 2);
}
