//! The files API against links, pipes, devices, other file systems and races.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

mod kit;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use prism_sandbox::files::{FileError, FileKind, RootDir, WriteOptions};
use rustix::fs::{CWD, FileType, Mode};

const OPTIONS: WriteOptions = WriteOptions {
    mode: None,
    owner: None,
    bytes_max: 1 << 20,
};

struct World {
    dir: kit::Scratch,
    root: RootDir,
}

/// `outside/secret` and, beside it, `root` with links that point at it.
fn world() -> World {
    let dir = kit::scratch();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let at = dir.path().join("root");
    fs::create_dir(&at).unwrap();
    fs::create_dir(at.join("d")).unwrap();
    fs::write(at.join("d/f"), "inside").unwrap();
    symlink(&outside, at.join("abs")).unwrap();
    symlink("../outside", at.join("up")).unwrap();
    symlink("../../../../../../../../etc", at.join("etc-up")).unwrap();
    symlink(outside.join("secret"), at.join("file-link")).unwrap();
    symlink("/d/f", at.join("good")).unwrap();
    symlink("/d/new", at.join("dangling")).unwrap();
    symlink("loop", at.join("loop")).unwrap();
    rustix::fs::mknodat(
        CWD,
        at.join("pipe"),
        FileType::Fifo,
        Mode::from_raw_mode(0o666),
        0,
    )
    .unwrap();
    let root = RootDir::open(&at).unwrap();
    World { dir, root }
}

impl World {
    fn write(&self, path: &str, content: &str) -> Result<u64, FileError> {
        self.root
            .write(OsStr::new(path), &mut content.as_bytes(), &OPTIONS)
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
        self.root.read(OsStr::new(path), 1 << 20)
    }

    fn untouched(&self, case: &str) {
        let outside = self.dir.path().join("outside");
        assert_eq!(kit::names(&outside), ["secret"], "{case}");
        assert_eq!(
            fs::read(outside.join("secret")).unwrap(),
            b"secret",
            "{case}"
        );
        assert_eq!(kit::names(self.dir.path()), ["outside", "root"], "{case}");
    }
}

#[test]
fn plain_use() {
    let world = world();
    assert_eq!(world.read("/d/f").unwrap(), b"inside");
    assert_eq!(world.read("d/f").unwrap(), b"inside");
    assert_eq!(world.read("good").unwrap(), b"inside");
    assert_eq!(world.read("/d/../../../d/f").unwrap(), b"inside");
    assert_eq!(world.write("/x/y/z", "new").unwrap(), 3);
    assert_eq!(world.read("x/y/z").unwrap(), b"new");
    world.write("dangling", "made").unwrap();
    assert_eq!(world.read("d/new").unwrap(), b"made");
    world.write("good", "through").unwrap();
    assert_eq!(world.read("d/f").unwrap(), b"through");
    assert_eq!(
        world.root.stat(OsStr::new("good")).unwrap().target.unwrap(),
        "/d/f"
    );
    let at = world.dir.path().join("root/d/f");
    fs::set_permissions(&at, fs::Permissions::from_mode(0o4750)).unwrap();
    world.write("d/f", "again").unwrap();
    assert_eq!(
        fs::metadata(&at).unwrap().permissions().mode() & 0o7777,
        0o750
    );
    let listing = world.root.list(OsStr::new("/"), 100).unwrap();
    let names: Vec<&OsStr> = listing
        .entries
        .iter()
        .map(|entry| entry.name.as_os_str())
        .collect();
    assert_eq!(
        names,
        [
            "abs",
            "d",
            "dangling",
            "etc-up",
            "file-link",
            "good",
            "loop",
            "pipe",
            "up",
            "x"
        ]
    );
    assert!(!listing.truncated && world.root.list(OsStr::new("/"), 3).unwrap().truncated);
    assert_eq!(listing.entries[7].kind, FileKind::Special);
    world.root.mkdir(OsStr::new("/m/n/"), None).unwrap();
    world.root.mkdir(OsStr::new("/m/n"), None).unwrap();
    assert!(world.root.remove(OsStr::new("/m"), false).is_err());
    world.root.remove(OsStr::new("/m"), true).unwrap();
    world.root.remove(OsStr::new("/abs"), true).unwrap();
    world.root.remove(OsStr::new("x"), true).unwrap();
    assert!(world.root.stat(OsStr::new("x")).is_err());
    assert_eq!(
        world.root.stat(OsStr::new("/")).unwrap().kind,
        FileKind::Directory
    );
    let weird = OsStr::from_bytes(b"w\xff\n");
    world
        .root
        .write(weird, &mut b"w".as_slice(), &OPTIONS)
        .unwrap();
    assert_eq!(world.root.read(weird, 1).unwrap(), b"w");
    world.untouched("plain use");
    kit::again_as_user("plain_use");
}

#[test]
fn hostile_paths_are_refused() {
    let long = "x".repeat(4097);
    let component = "y".repeat(256);
    let deep = "z/".repeat(300) + "f";
    let cases: Vec<(&str, &str, &str)> = vec![
        ("empty", "", "empty"),
        ("NUL", "d/f\0x", "NUL"),
        ("too long", &long, "longer"),
        ("long component", &component, "longer"),
        ("link out, absolute", "abs/secret", "no such"),
        ("link out, upwards", "up/secret", "no such"),
        ("link to a file outside", "file-link", "no such"),
        ("link to etc", "etc-up/passwd", "no such"),
        ("climbing", "../outside/secret", "no such"),
        ("climbing more", "d/../../../../outside/secret", "no such"),
        (
            "percent is no escape",
            "d/%2e%2e/%2e%2e/outside/secret",
            "no such",
        ),
        ("look-alike dots", "d/\u{2025}/outside", "no such"),
        ("a loop", "loop", "ymbolic link"),
        ("a pipe", "pipe", "pipe, socket or device"),
        ("a directory", "d", "is a directory"),
        ("below a file", "d/f/g", "ot a directory"),
        ("a file as directory", "d/f/", "ot a directory"),
    ];
    for (case, path, expected) in &cases {
        let world = world();
        let said = world.read(path).unwrap_err().to_string();
        assert!(said.contains(expected), "read {case}: {said}");
        let listed = world.root.list(OsStr::new(path), 10);
        assert!(listed.is_err() || *case == "a directory", "list {case}");
        world.untouched(case);
    }
    let writes: Vec<(&str, &str, &str)> = vec![
        ("empty", "", "empty"),
        ("NUL", "a\0b", "NUL"),
        ("too long", &long, "longer"),
        ("too deep", &deep, "deep"),
        ("the root", "/", "directory"),
        ("here", ".", "name of a file"),
        ("the parent", "..", "name of a file"),
        ("ends with a parent", "d/..", "name of a file"),
        ("ends as a directory", "d/new/", "directory"),
        ("onto a directory", "d", "is a directory"),
        ("onto a pipe", "pipe", "pipe, socket or device"),
        ("onto a loop", "loop", "ymbolic link"),
        ("below a file", "d/f/g", "ot a directory"),
        ("below a pipe", "pipe/g", "ot a directory"),
    ];
    for (case, path, expected) in &writes {
        let world = world();
        let said = world.write(path, "bad").unwrap_err().to_string();
        assert!(said.contains(expected), "write {case}: {said}");
        world.untouched(case);
        let left = kit::names(&world.dir.path().join("root/d"));
        assert_eq!(left, ["f"], "write {case}");
    }
}

/// What leads out from the host's view leads inside from the sandbox's: it is written there.
#[test]
fn writes_through_links_stay_inside() {
    for path in [
        "abs/new",
        "up/new",
        "etc-up/new",
        "file-link",
        "../../new",
        "d/../../../new",
    ] {
        let world = world();
        let outcome = world.write(path, "evil");
        world.untouched(path);
        if let Err(error) = outcome {
            assert!(!matches!(error, FileError::Path { .. }), "{path}: {error}");
        }
    }
    let world = world();
    for path in ["/", ".", "..", "d/..", "//", "/./"] {
        assert!(
            world.root.remove(OsStr::new(path), true).is_err(),
            "removed {path}"
        );
    }
    let _ = world.root.remove(OsStr::new("abs/secret"), true);
    let _ = world.root.remove(OsStr::new("up/secret"), true);
    let _ = world.root.mkdir(OsStr::new("up/made"), None);
    world.root.remove(OsStr::new("abs"), true).unwrap();
    world.untouched("removal");
}

#[test]
fn sizes_are_bounded_and_a_failed_write_changes_nothing() {
    let world = world();
    let small = WriteOptions {
        bytes_max: 4,
        ..OPTIONS
    };
    let error = world
        .root
        .write(OsStr::new("d/f"), &mut std::io::repeat(1), &small)
        .unwrap_err();
    assert!(matches!(error, FileError::TooLarge { max: 4, .. }));
    assert_eq!(world.read("d/f").unwrap(), b"inside");
    assert_eq!(kit::names(&world.dir.path().join("root/d")), ["f"]);
    assert!(matches!(
        world.root.read(OsStr::new("d/f"), 5),
        Err(FileError::TooLarge { .. })
    ));
    assert_eq!(world.root.read(OsStr::new("d/f"), 6).unwrap(), b"inside");
    let sparse = fs::File::create(world.dir.path().join("root/huge")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    assert!(matches!(
        world.root.read(OsStr::new("huge"), 1 << 20),
        Err(FileError::TooLarge { .. })
    ));
}

/// This process has powers over these that a sandbox must not borrow through a link.
#[test]
fn kernel_file_systems_and_devices_are_refused() {
    let root = RootDir::open(Path::new("/")).unwrap();
    for path in [
        "/proc/self/environ",
        "/proc/self/root/etc/passwd",
        "/proc/1/root",
        "/proc/sys/kernel/hostname",
        "/proc/self/fd/0",
        "/proc/self/cwd",
        "/proc/version",
        "/sys/kernel/mm",
        "/proc",
    ] {
        assert!(root.read(OsStr::new(path), 1 << 20).is_err(), "read {path}");
        assert!(root.list(OsStr::new(path), 10).is_err(), "listed {path}");
        assert!(
            root.write(OsStr::new(path), &mut b"x".as_slice(), &OPTIONS)
                .is_err(),
            "wrote {path}"
        );
    }
    let below = root.write(
        OsStr::new("/proc/sys/kernel/hostname"),
        &mut b"x".as_slice(),
        &OPTIONS,
    );
    assert!(
        matches!(below, Err(FileError::NotStorage { .. })),
        "{below:?}"
    );
    for path in ["/dev/null", "/dev/zero", "/dev/tty", "/dev/full"] {
        assert!(root.read(OsStr::new(path), 10).is_err(), "read {path}");
    }
}

#[test]
fn a_socket_is_refused() {
    let world = world();
    let at = world.dir.path().join("root/socket");
    let _listener = std::os::unix::net::UnixListener::bind(&at).unwrap();
    assert!(matches!(world.read("socket"), Err(FileError::Kind { .. })));
    assert!(matches!(
        world.write("socket", "x"),
        Err(FileError::Kind { .. })
    ));
}

/// A directory becomes a link to the outside and back, 10,000 times, during reads and writes.
#[test]
fn a_flipping_directory_never_leads_outside() {
    let world = world();
    let at = world.dir.path().join("root");
    let outside = world.dir.path().join("outside");
    fs::create_dir(at.join("flip")).unwrap();
    fs::write(at.join("flip/secret"), "inside").unwrap();
    symlink(&outside, at.join("flop")).unwrap();
    let done = AtomicBool::new(false);
    let attempts = AtomicU32::new(0);
    let (mut reads, mut writes) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut flips = 0;
            while flips < 10_000 || attempts.load(Ordering::Relaxed) < 500 {
                flips += 1;
                rustix::fs::renameat_with(
                    CWD,
                    at.join("flip"),
                    CWD,
                    at.join("flop"),
                    rustix::fs::RenameFlags::EXCHANGE,
                )
                .unwrap();
                std::thread::yield_now();
            }
            done.store(true, Ordering::Release);
        });
        let reader = scope.spawn(|| {
            let mut read = 0_u32;
            while !done.load(Ordering::Acquire) {
                if let Ok(bytes) = world.read("flip/secret") {
                    assert_eq!(bytes, b"inside");
                    read += 1;
                }
            }
            read
        });
        while !done.load(Ordering::Acquire) {
            attempts.fetch_add(1, Ordering::Relaxed);
            for path in ["flip/new", "flip/deeper/new"] {
                writes += u32::from(world.write(path, "x").is_ok());
            }
            let _ = world.root.remove(OsStr::new("flip/deeper"), true);
            let _ = world.root.mkdir(OsStr::new("flip/made"), None);
        }
        reads += reader.join().unwrap();
    });
    world.untouched("flip");
    eprintln!("flips 10000, reads {reads}, writes {writes}");
}

/// In a user namespace, with a file system mounted inside it: the host's root has no number there.
#[test]
fn files_in_a_user_namespace_belong_to_its_users() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut inside = std::process::Command::new("unshare")
        .args(["-U", "-m", "cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // It answers once it is in its namespaces.
    use std::io::{Read, Write};
    let mut stdin = inside.stdin.take().unwrap();
    stdin.write_all(b"x").unwrap();
    inside
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0])
        .unwrap();
    let pid = inside.id().to_string();
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{map}"), "0 1000000 65536").unwrap();
    }
    let dir = kit::scratch();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let at = dir.path().to_str().unwrap();
    let mounted = std::process::Command::new("nsenter")
        .args([
            "-t", &pid, "-U", "-m", "-S", "0", "-G", "0", "mount", "-t", "tmpfs", "t", at,
        ])
        .status()
        .unwrap();
    assert!(mounted.success());
    let root = RootDir::open(Path::new(&format!("/proc/{pid}/root"))).unwrap();
    let path = format!("{at}/made/by/host");
    root.write(OsStr::new(&path), &mut b"hello".as_slice(), &OPTIONS)
        .unwrap();
    let owned = WriteOptions {
        owner: Some((1_001_000, 1_001_000)),
        mode: Some(0o600),
        ..OPTIONS
    };
    let path_owned = format!("{at}/made/by/user");
    root.write(OsStr::new(&path_owned), &mut b"hi".as_slice(), &owned)
        .unwrap();
    let seen = |path: &str| fs::metadata(format!("/proc/{pid}/root{path}")).unwrap();
    assert_eq!(seen(&path).uid(), 1_000_000);
    assert_eq!(seen(&format!("{at}/made")).uid(), 1_000_000);
    assert_eq!(
        (seen(&path_owned).uid(), seen(&path_owned).mode() & 0o777),
        (1_001_000, 0o600)
    );
    assert_eq!(root.read(OsStr::new(&path_owned), 10).unwrap(), b"hi");
    root.remove(OsStr::new(&format!("{at}/made")), true)
        .unwrap();
    assert!(
        root.remove(OsStr::new(at), true).is_err(),
        "a mount point stays"
    );
    // This thread is itself again.
    let mine = kit::scratch();
    fs::write(mine.path().join("f"), "").unwrap();
    assert_eq!(fs::metadata(mine.path().join("f")).unwrap().uid(), 0);
    drop(stdin);
    inside.wait().unwrap();
}
