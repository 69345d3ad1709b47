//! Escape probes: each tries a known way out of a sandbox, from inside, as root inside; all must fail. As root's sandboxes and as
//! a normal user's. A host without Python fails these tests, it does not skip them.

#![expect(
    clippy::unwrap_used,
    reason = "tests with a main of their own; a panic is how they fail"
)]

#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod support;

use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixListener};

use prism_runtime::Isolation::Sandboxed;
use prism_runtime::{Image, Runtime, Scratch};
use prism_types::{ExitStatus, StopCause};
use support::{Node, id};

/// A way out: its name, what it stands for, and Python that calls `must(<it failed>, <what>)`.
struct Probe {
    name: &'static str,
    #[expect(dead_code, reason = "says which hole the probe stands for")]
    stands_for: &'static str,
    python: &'static str,
}

const fn probe(name: &'static str, stands_for: &'static str, python: &'static str) -> Probe {
    Probe {
        name,
        stands_for,
        python,
    }
}

/// What every probe begins with.
const PRELUDE: &str = r#"
import ctypes, errno, fcntl, os, socket, stat, struct, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
bad, checks = [], 0
def must(ok, what):
    global checks
    checks += 1
    if not ok: bad.append(what)
def refused(f, *a, codes=None):
    try: r = f(*a)
    except OSError as e: return codes is None or e.errno in codes
    return False
def call(number, *args):
    ctypes.set_errno(0)
    r = libc.syscall(ctypes.c_long(number), *args)
    return 0 if r >= 0 else ctypes.get_errno()
def denied(number, *args): return call(number, *args) in (errno.EPERM, errno.EACCES, errno.ENOSYS)
def write(path, text):
    with open(path, 'w') as f: f.write(text)
def read(path, n=1 << 16):
    with open(path, 'rb') as f: return f.read(n)
def unreachable(path):
    try: return read(path) == b''
    except OSError: return True
canary = os.environ['CANARY']
"#;

const EPILOGUE: &str = r#"
assert checks > 0
print('HELD' if not bad else 'ESCAPED ' + '; '.join(map(str, bad)))
"#;

/// The numbers are x86-64's; newer calls have the same number everywhere.
const PROBES: &[Probe] = &[
    probe(
        "inherited-fds",
        "leaked descriptors (CVE-2024-21626, CVE-2016-9962)",
        r#"
here = set(os.listdir('/proc/self/fd'))
live = {fd for fd in here if os.path.lexists('/proc/self/fd/' + fd)}
must(live <= {'0', '1', '2', '3'}, live)
for fd in range(64):
    try: os.fchdir(fd)
    except OSError: continue
    must(not os.path.exists(canary), 'fd %d is a directory outside' % fd)
must(True, '')
"#,
    ),
    probe(
        "cwd",
        "a working directory outside of the root (CVE-2024-21626)",
        r#"
must(os.getcwd() == '/work', os.getcwd())
up = '/proc/self/cwd' + '/..' * 20
must(unreachable(up + canary), 'reached the host by ..')
must(os.stat(up).st_ino == os.stat('/').st_ino, 'another root above')
"#,
    ),
    probe(
        "proc-1-root",
        "/proc/<pid>/root of a process outside",
        r#"
for pid in [p for p in os.listdir('/proc') if p.isdigit()] + ['self', 'thread-self']:
    for link in ('root', 'cwd'):
        must(unreachable('/proc/%s/%s%s' % (pid, link, canary)), pid)
must(sorted(p for p in os.listdir('/proc') if p.isdigit()) == sorted({'1', str(os.getpid())}), os.listdir('/proc'))
"#,
    ),
    probe(
        "kcore",
        "reading the kernel's memory",
        r#"
for f in ('/proc/kcore', '/dev/mem', '/dev/kmem', '/dev/port', '/proc/kpagecount'):
    must(unreachable(f), f)
must(unreachable('/proc/keys') and unreachable('/proc/timer_list'), 'keys, timers')
must(all(l.split()[0].strip(b'0') == b'' for l in read('/proc/kallsyms').splitlines()[:100]), 'kernel addresses')
"#,
    ),
    probe(
        "release-agent",
        "cgroup v1 release_agent (CVE-2022-0492)",
        r#"
os.makedirs('/work/cg', exist_ok=True)
for kind, opts in ((b'cgroup', b'memory'), (b'cgroup', b'rdma'), (b'cgroup2', b'')):
    must(libc.mount(b'none', b'/work/cg', kind, 0, opts) != 0, kind)
must(denied(272, 0x10000000 | 0x00020000 | 0x02000000), 'unshare')
must(not any('release_agent' in files for _, _, files in os.walk('/sys')), 'release_agent in /sys')
"#,
    ),
    probe(
        "core-pattern",
        "a core_pattern that runs on the host",
        r#"
must(refused(write, '/proc/sys/kernel/core_pattern', '|/work/x'), 'core_pattern')
import resource
must(resource.getrlimit(resource.RLIMIT_CORE) == (0, 0), 'core limit')
"#,
    ),
    probe(
        "uevent-helper",
        "/sys/kernel/uevent_helper",
        r#"
must(refused(write, '/sys/kernel/uevent_helper', '/work/x'), 'uevent_helper')
os.makedirs('/work/sys', exist_ok=True)
must(libc.mount(b'sysfs', b'/work/sys', b'sysfs', 0, None) != 0, 'sysfs mounts')
must(os.listdir('/sys') == [], 'sysfs is here')
"#,
    ),
    probe(
        "binfmt-misc",
        "a binfmt_misc interpreter that the host runs",
        r#"
must(refused(write, '/proc/sys/fs/binfmt_misc/register', ':x:M::xx::/work/x:'), 'register')
os.makedirs('/work/b', exist_ok=True)
must(libc.mount(b'x', b'/work/b', b'binfmt_misc', 0, None) != 0, 'mount')
"#,
    ),
    probe(
        "sysrq",
        "/proc/sysrq-trigger",
        r#"
must(refused(write, '/proc/sysrq-trigger', 'h'), 'sysrq')
must(refused(write, '/proc/sys/kernel/sysrq', '1'), 'sysrq setting')
"#,
    ),
    probe(
        "mknod",
        "making a node of the host's disk or memory",
        r#"
for name, kind, dev in (('disk', stat.S_IFBLK, (254, 0)), ('sda', stat.S_IFBLK, (8, 0)), ('mem', stat.S_IFCHR, (1, 1)), ('kmsg', stat.S_IFCHR, (1, 11))):
    for where in ('/work/', '/dev/', '/tmp/'):
        try: os.mknod(where + name, kind | 0o600, os.makedev(*dev))
        except OSError: must(True, ''); continue
        must(refused(os.open, where + name, os.O_RDONLY), name)
"#,
    ),
    probe(
        "mount",
        "mounting, or undoing the mounts that hold",
        r#"
os.makedirs('/work/m', exist_ok=True)
must(libc.mount(b'tmpfs', b'/work/m', b'tmpfs', 0, None) != 0, 'tmpfs')
must(libc.mount(b'/usr', b'/work/m', None, 4096, None) != 0, 'bind')
must(libc.mount(None, b'/usr', None, 32 | 4096, None) != 0, 'remount')
must(libc.mount(b'proc', b'/work/m', b'proc', 0, None) != 0, 'proc')
for at in (b'/proc', b'/usr', b'/dev', b'/proc/keys', b'/'):
    must(libc.umount2(at, 2) != 0, at)
must(denied(430, b'tmpfs', 0) and denied(428, -100, b'/', 1) and denied(442, -100, b'/', 0, None, 0), 'new mount api')
must(refused(write, '/usr/bin/x', 'x') and refused(write, '/usr/bin/python3', 'x'), 'write to /usr')
"#,
    ),
    probe(
        "ptrace",
        "tracing or writing to a process outside or pid 1",
        r#"
must(denied(101, 16, 1, 0, 0) and denied(101, 0x4206, 1, 0, 0), 'ptrace 1')
must(denied(310, 1, None, 0, None, 0, 0) and denied(311, 1, None, 0, None, 0, 0), 'process_vm')
for f in ('mem', 'environ', 'maps', 'syscall'):
    must(unreachable('/proc/1/' + f), f)
must(denied(312, 1, os.getpid(), 0, 0, 0), 'kcmp')
must(denied(438, 0, 0, 0), 'pidfd_getfd')
"#,
    ),
    probe(
        "bpf",
        "bpf, perf and userfaultfd as kernel attack surface",
        r#"
attr = ctypes.create_string_buffer(128)
must(denied(321, 0, attr, 72) and denied(321, 5, attr, 72), 'bpf')
must(denied(298, attr, 0, -1, -1, 0), 'perf_event_open')
must(denied(323, 0) , 'userfaultfd')
"#,
    ),
    probe(
        "userns-nesting",
        "new user namespaces for their capabilities (CVE-2022-0185 and kin)",
        r#"
for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x08000000, 0x04000000, 0x02000000):
    must(denied(272, flag), 'unshare %x' % flag)
    must(call(56, flag | 17, None, None, None, None) == errno.EPERM, 'clone %x' % flag)
must(call(435, None, 0) == errno.ENOSYS, 'clone3')
for kind in ('user', 'mnt', 'net', 'pid'):
    fd = os.open('/proc/self/ns/' + kind, os.O_RDONLY)
    must(denied(308, fd, 0), 'setns ' + kind)
"#,
    ),
    probe(
        "abstract-sockets",
        "abstract unix sockets of the host (CVE-2020-15257)",
        r#"
s = socket.socket(socket.AF_UNIX)
must(refused(s.connect, '\0' + os.environ['ABSTRACT']), 'abstract socket')
must(os.environ['ABSTRACT'] not in read('/proc/net/unix').decode(), 'listed')
"#,
    ),
    probe(
        "docker-sock",
        "a container engine's socket",
        r#"
for at in ('/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock', '/run/crio/crio.sock', '/run/podman/podman.sock', '/run/systemd/private', '/run/dbus/system_bus_socket'):
    must(not os.path.lexists(at), at)
must(set(os.listdir('/run')) <= {'shm'}, os.listdir('/run'))
"#,
    ),
    probe(
        "metadata-ip",
        "a cloud's metadata service",
        r#"
for family, at in ((socket.AF_INET, ('169.254.169.254', 80)), (socket.AF_INET, ('169.254.170.2', 80)), (socket.AF_INET6, ('fd00:ec2::254', 80)), (socket.AF_INET6, ('fe80::1', 80, 0, 1))):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(1)
    must(refused(s.connect, at, codes=(errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EHOSTUNREACH)), at)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
must(refused(s.sendto, b'x', ('8.8.8.8', 53)), 'udp')
"#,
    ),
    probe(
        "host-ports",
        "services on the host's loopback and addresses",
        r#"
for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET, os.environ['ADDRESS']), (socket.AF_INET6, '::1'), (socket.AF_INET6, '::ffff:127.0.0.1')):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(1)
    must(refused(s.connect, (host, int(os.environ['PORT']))), host)
must([n for _, n in socket.if_nameindex()] == ['lo'], socket.if_nameindex())
a = socket.socket(); a.bind(('127.0.0.1', 0)); a.listen()
b = socket.create_connection(a.getsockname())
"#,
    ),
    probe(
        "cgroup-writes",
        "lifting the limits",
        r#"
must(os.listdir('/sys') == [], 'cgroups are mounted')
for line in read('/proc/self/cgroup').decode().splitlines():
    path = line.split(':', 2)[2]
    must('prism' not in path or os.environ['MODE'] == 'user', line)
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
must(hard <= 1024, hard)
try: resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1)); must(False, 'raised a limit')
except (OSError, ValueError): must(True, '')
"#,
    ),
    probe(
        "setuid",
        "set-user-id programs and leftover capabilities",
        r#"
def status(): return dict(l.split(':\t', 1) for l in read('/proc/self/status').decode().splitlines())
def check(s):
    must(all(int(s[k], 16) == 0 for k in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')), s)
    must(s['NoNewPrivs'] == '1' and s['Seccomp'] == '2', s)
check(status())
inner = subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True).stdout
check(dict(l.split(':\t', 1) for l in inner.splitlines()))
must(refused(os.setuid, 1) and refused(os.setgid, 1) and refused(os.setgroups, [1]), 'other ids')
must(refused(os.chown, '/work', 1, 1), 'chown')
for at in ('/', '/usr', '/work', '/proc', '/dev'):
    must(os.statvfs(at).f_flag & os.ST_NOSUID, at)
"#,
    ),
    probe(
        "device-nodes",
        "devices of the host in /dev",
        r#"
allowed = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0)}
for name in os.listdir('/dev'):
    st = os.stat('/dev/' + name) if os.path.exists('/dev/' + name) else os.lstat('/dev/' + name)
    must(not stat.S_ISBLK(st.st_mode), name)
    if stat.S_ISCHR(st.st_mode) and name not in ('ptmx', 'stdin', 'stdout', 'stderr'):
        must((os.major(st.st_rdev), os.minor(st.st_rdev)) in allowed, name)
must(refused(os.unlink, '/dev/null') and refused(write, '/dev/x', 'x'), 'changing /dev')
must(os.statvfs('/work').f_flag & os.ST_NODEV, '/work')
"#,
    ),
    probe(
        "open-by-handle",
        "open_by_handle_at on a guessed handle (shocker)",
        r#"
handle = struct.pack('IiQ', 8, 1, 2)
buf = ctypes.create_string_buffer(handle, 64)
for at in ('/', '/usr', '/work', '/proc'):
    fd = os.open(at, os.O_RDONLY)
    must(denied(304, fd, buf, 0), at)
"#,
    ),
    probe(
        "proc-exe",
        "overwriting the runtime through /proc/<pid>/exe (CVE-2019-5736)",
        r#"
must(refused(os.open, '/proc/1/exe', os.O_RDONLY) and refused(os.open, '/proc/1/exe', os.O_WRONLY), 'pid 1 program')
must(refused(os.readlink, '/proc/1/exe'), 'its name')
for fd in range(64):
    link = '/proc/1/fd/%d' % fd
    must(refused(os.readlink, link) and refused(os.open, link, os.O_RDONLY), link)
must(refused(os.listdir, '/proc/1/map_files'), 'its memory')
must(refused(os.open, '/proc/self/exe', os.O_WRONLY), 'own program')
must(os.readlink('/proc/self/exe').startswith('/usr/bin/python3'), 'program')
"#,
    ),
    probe(
        "tiocsti",
        "typing into the terminal of whoever started it (CVE-2016-2568 and kin)",
        r#"
import pty
master, slave = pty.openpty() if os.path.exists('/dev/pts/ptmx') else (0, 0)
for request in (0x5412, 0x541c):
    must(refused(fcntl.ioctl, slave, request, b'x', codes=(errno.EPERM,)), hex(request))
high = ctypes.c_ulong(0x5412 | 1 << 32)
must(call(16, slave, high, b'x') == errno.EPERM, 'with high bits')
"#,
    ),
    probe(
        "keyrings",
        "keys of the host (not namespaced by kind)",
        r#"
must(denied(250, 0, -3, 0) and denied(250, 1, None), 'keyctl')
must(denied(248, b'user', b'x', b'y', 1, -3) and denied(249, b'user', b'x', None, 0), 'add_key, request_key')
"#,
    ),
    probe(
        "io-uring",
        "io_uring as a way around the filter",
        r#"
params = ctypes.create_string_buffer(256)
must(denied(425, 8, params) and denied(426, 0, 1, 0, 0, None, 0) and denied(427, 0, 0, None, 0), 'io_uring')
"#,
    ),
    probe(
        "chroot",
        "double chroot and pivot_root",
        r#"
os.makedirs('/work/jail', exist_ok=True)
must(refused(os.chroot, '/work/jail'), 'chroot')
must(denied(155, b'/work', b'/work/jail'), 'pivot_root')
must(unreachable('/..' * 12 + canary) and unreachable(canary), 'canary')
must(os.stat('/..').st_ino == os.stat('/').st_ino, 'above /')
"#,
    ),
    probe(
        "socket-families",
        "packet, vsock, crypto and netlink sockets",
        r#"
for family, kind, proto in ((17, 3, 0), (40, 1, 0), (38, 5, 0), (16, 3, 9), (16, 3, 12), (16, 3, 15), (29, 3, 1), (31, 3, 1)):
    must(refused(socket.socket, family, kind, proto, codes=(errno.EPERM,)), family)
must(refused(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1, codes=(errno.EPERM,)), 'raw')
"#,
    ),
    probe(
        "kernel-control",
        "modules, reboot, clocks, swap, logs, ports",
        r#"
must(denied(175, None, 0, b'') and denied(313, 0, b'', 0) and denied(176, b'x', 0), 'modules')
must(denied(169, 0, 0, 0, None) and denied(246, 0, 0, None, 0), 'reboot, kexec')
must(denied(167, b'/x', 0) and denied(164, None, None) and denied(227, 0, None), 'swap, clocks')
must(denied(103, 3, None, 0) and denied(172, 3) and denied(173, 0, 1, 1) and denied(163, None), 'syslog, iopl, acct')
must(denied(135, 0x0040000) and denied(179, 0, None, 0, None), 'personality, quotactl')
must(refused(write, '/proc/sys/kernel/hostname', 'x') and refused(write, '/proc/sys/vm/drop_caches', '1'), 'settings')
must(refused(socket.sethostname, 'x'), 'host name')
"#,
    ),
    probe(
        "signals",
        "signals to processes outside",
        r#"
must(refused(os.kill, int(os.environ['HOST_PID']), 0), 'host process')
for sig in (9, 19, 15):
    try: os.kill(1, sig)
    except OSError: pass
must(os.path.exists('/proc/1/status'), 'pid 1')
must('T (stopped)' not in read('/proc/1/status').decode(), 'pid 1 stopped')
"#,
    ),
    probe(
        "other-architectures",
        "system calls by another architecture's numbers",
        r#"
import mmap
for code in (b'\xb8\x14\x00\x00\x00\xcd\x80\xc3', b'\xb8\x27\x00\x00\x40\x0f\x05\xc3'):
    pid = os.fork()
    if pid == 0:
        m = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        m.write(code)
        at = ctypes.addressof(ctypes.c_char.from_buffer(m))
        ctypes.CFUNCTYPE(ctypes.c_long)(at)()
        os._exit(0)
    _, st = os.waitpid(pid, 0)
    must(os.WIFSIGNALED(st) and os.WTERMSIG(st) in (31, 11), st)
"#,
    ),
];

fn every_probe_fails_to_escape() {
    let node = Node::new();
    let canary = node.dir.join("canary");
    std::fs::write(&canary, "secret of the host\n").unwrap();
    let name = format!("prism-canary-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract = UnixListener::bind_addr(&address).unwrap();
    let port = TcpListener::bind("0.0.0.0:0").unwrap();
    let env = [
        ("CANARY", canary.to_str().unwrap().to_owned()),
        ("ABSTRACT", name),
        ("PORT", port.local_addr().unwrap().port().to_string()),
        ("ADDRESS", own_address()),
        ("HOST_PID", std::process::id().to_string()),
        (
            "MODE",
            if support::is_root() { "root" } else { "user" }.to_owned(),
        ),
    ];
    let mut batch = Vec::new();
    for probe in PROBES {
        let text = format!("{PRELUDE}{}{EPILOGUE}", probe.python);
        let mut launch = node.task(probe.name, Sandboxed, "");
        let program = launch.program.as_mut().unwrap();
        program.argv = vec!["python3".into(), "-c".into(), text];
        program
            .env
            .extend(env.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        batch.push(launch);
    }
    // The same again as programs in running sandboxes, which come in by another way.
    let again: Vec<_> = batch.clone();
    node.rt().launch(batch).unwrap();
    let mut failures = Vec::new();
    let mut check = |name: &str, inside: &str| {
        let report = node.wait_exit(&id(name));
        let (out, err) = (node.stdout(name), node.output(name, "stderr"));
        if report.exit != ExitStatus::Code(0) || out != "HELD\n" {
            let err = String::from_utf8_lossy(&err);
            failures.push(format!("{inside} {name}: {out} {err} {report:?}"));
        }
    };
    for probe in PROBES {
        check(probe.name, "task");
    }
    for (n, launch) in again.into_iter().enumerate() {
        let sandbox = format!("box-{n}");
        node.rt().launch(vec![node.sandbox(&sandbox)]).unwrap();
        let name = format!("in-{}", launch.id);
        let mut exec = node.exec(&name, &sandbox, &["x"]);
        exec.program = launch.program.unwrap();
        node.rt().exec(exec).unwrap();
        check(&name, "exec");
        node.rt()
            .stop(&[id(&sandbox)], prism_types::Millis(0))
            .unwrap();
    }
    assert!(
        failures.is_empty(),
        "{} escaped:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(canary.exists());
}

/// An address of this host that is not loopback, if it has one.
fn own_address() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let known = socket
        .connect("192.0.2.1:9")
        .and_then(|()| socket.local_addr());
    known.map_or_else(|_| "127.0.0.2".into(), |a| a.ip().to_string())
}

/// A working directory that is a leaked descriptor of whoever started it (CVE-2024-21626).
fn a_directory_by_descriptor_leads_nowhere() {
    let node = Node::new();
    for fd in 0..24 {
        let name = format!("fd{fd}");
        let mut launch = node.task(
            &name,
            Sandboxed,
            "pwd -P; ls /proc/self/cwd/../../../../../home",
        );
        launch.program.as_mut().unwrap().cwd = format!("/proc/self/fd/{fd}");
        let report = node.run(launch);
        if report.cause != StopCause::StartFailed {
            let out = node.stdout(&name);
            assert!(!out.contains("unreachable"), "{fd}: {out}");
            assert!(
                out.starts_with('/') && out.lines().count() == 1,
                "{fd}: {out}"
            );
        }
    }
}

/// Images whose /dev, /proc, /tmp, /work or /run lead out (CVE-2019-19921, CVE-2023-27561, CVE-2021-30465).
fn links_in_images_lead_nowhere() {
    let node = Node::new();
    let outside = node.dir.join("outside");
    std::fs::create_dir(&outside).unwrap();
    let image = node.dir.join("image");
    std::fs::create_dir_all(image.join("etc")).unwrap();
    for name in ["dev", "proc", "run", "tmp", "work", "home"] {
        symlink(&outside, image.join(name)).unwrap();
    }
    let mut launch = node.sandbox("links");
    launch.image = Image::Layers(vec![image.clone()]);
    launch.files = vec![prism_runtime::InlineFile {
        path: "file".into(),
        content: b"x".as_slice().into(),
        mode: 0o644,
    }];
    node.rt().launch(vec![launch]).unwrap();
    node.wait_start(&id("links"));
    let root = node.rt().root(&id("links")).unwrap();
    assert!(
        std::fs::symlink_metadata(root.join("dev/null")).is_ok(),
        "/dev is there"
    );
    assert!(
        std::fs::symlink_metadata(root.join("work/file")).is_ok(),
        "/work/file is there"
    );
    assert_eq!(
        std::fs::read_dir(&outside).unwrap().count(),
        0,
        "something was made outside"
    );
    // The same in the upper layer of a scratch directory, as a hostile archive would have it.
    let scratch = node.dir.join("scratch");
    std::fs::create_dir_all(scratch.join("upper")).unwrap();
    for name in ["dev", "proc", "usr", "run", "tmp", "work", "home"] {
        symlink(&outside, scratch.join("upper").join(name)).unwrap();
    }
    let mut launch = node.task("upper", Sandboxed, "true");
    launch.scratch = Scratch::Disk { dir: scratch };
    let report = node.run(launch);
    assert_eq!(report.cause, StopCause::StartFailed, "{report:?}");
    assert!(report.detail.contains("not a directory"), "{report:?}");
    assert_eq!(
        std::fs::read_dir(&outside).unwrap().count(),
        0,
        "something was made outside"
    );
}

fn main() {
    support::run(
        "escape",
        &[
            ("every_probe_fails_to_escape", every_probe_fails_to_escape),
            (
                "a_directory_by_descriptor_leads_nowhere",
                a_directory_by_descriptor_leads_nowhere,
            ),
            ("links_in_images_lead_nowhere", links_in_images_lead_nowhere),
        ],
        &[],
    );
}
