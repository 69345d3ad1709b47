# Device nodes, terminals and ioctls.

#: mknod-disk | making a node of the host's disk | root
for name, dev in (('vda', (254, 0)), ('sda', (8, 0)), ('nvme', (259, 0)), ('loop', (7, 0)), ('ram', (1, 0)), ('sr', (11, 0)), ('dm', (253, 0))):
    for where in (HERE, '/dev', '/tmp'):
        at = os.path.join(where, 'probe-' + name)
        try: os.mknod(at, stat.S_IFBLK | 0o600, os.makedev(*dev))
        except OSError: must(True, ''); continue
        must(False, at)
        os.unlink(at)
        break

#: mknod-memory | making nodes of memory, ports and the kernel's log | root
for name, dev in (('mem', (1, 1)), ('port', (1, 4)), ('kmsg', (1, 11)), ('oldmem', (1, 12))):
    for where in (HERE, '/dev', '/dev/shm'):
        at = os.path.join(where, 'probe-' + name)
        try: os.mknod(at, stat.S_IFCHR | 0o600, os.makedev(*dev))
        except OSError: must(True, ''); continue
        must(False, at)
        os.unlink(at)
        break

#: mknod-control | making nodes of control devices: fuse, tun, kvm, loop-control, vhost, uinput, autofs | root
for name, dev in (('fuse', (10, 229)), ('tun', (10, 200)), ('kvm', (10, 232)), ('loopctl', (10, 237)), ('vhost', (10, 238)), ('uinput', (10, 223)), ('autofs', (10, 235)), ('btrfs', (10, 234)), ('rtc', (254, 0)), ('tty1', (4, 1)), ('console', (5, 1)), ('ptmx', (5, 2)), ('vsock', (10, 241))):
    at = os.path.join(HERE, 'probe-' + name)
    try: os.mknod(at, stat.S_IFCHR | 0o600, os.makedev(*dev))
    except OSError: must(True, ''); continue
    must(refused(os.open, at, os.O_RDWR | os.O_NONBLOCK), at)
    os.unlink(at)

#: mknod-mknodat | mknodat by a directory descriptor, and with the old call | root
fd = os.open(HERE, os.O_RDONLY)
for number, args in ((259, (fd, b'probe-a', 0o20600, 0x101)), (133, (HERE.encode() + b'/probe-b', 0o20600, 0x101)), (259, (fd, b'probe-c', 0o60600, 0x800))):
    must(call(number, *args) != 0, number)

#: whiteout | character device 0:0, a whiteout that hides files of lower layers | none
try: os.mknod(os.path.join(HERE, 'whiteout'), stat.S_IFCHR | 0o600, 0); made = True
except OSError: made = False
must(not made or refused(os.open, os.path.join(HERE, 'whiteout'), os.O_RDONLY), 'a device that opens')

#: dev-contents | devices of the host in /dev
allowed = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0)}
for name in os.listdir('/dev'):
    st = os.stat('/dev/' + name) if os.path.exists('/dev/' + name) else os.lstat('/dev/' + name)
    must(not stat.S_ISBLK(st.st_mode), name)
    if stat.S_ISCHR(st.st_mode) and name not in ('ptmx', 'stdin', 'stdout', 'stderr'):
        must((os.major(st.st_rdev), os.minor(st.st_rdev)) in allowed, name)

#: dev-writes | changing /dev (a symbolic link in place of a device, CVE-2019-19921 kin) | root
for f in ('/dev/null', '/dev/zero', '/dev/urandom'):
    must(os.path.exists(f) and (OUTSIDE or refused(os.unlink, f)), f)
must(refused(os.symlink, '/x', '/dev/prism-probe') or os.unlink('/dev/prism-probe'), 'a link in /dev')
must(refused(os.mkdir, '/dev/prism-dir') or os.rmdir('/dev/prism-dir'), 'a directory in /dev')

#: dev-console | /dev/console and the pty of the host behind it (CVE-2025-52565)
must(not os.path.lexists('/dev/console') or not openable('/dev/console'), '/dev/console')
must(not any(os.path.exists('/dev/pts/%d' % n) for n in range(256)), 'a terminal')
must(not os.path.exists('/dev/tty0') and not os.path.exists('/dev/ttyS0') and not os.path.exists('/dev/vcs'), 'consoles')

#: dev-shared | the devices that are there are the kernel's own, not files of the host | root
for f in ('/dev/null', '/dev/full', '/dev/random'):
    must(stat.S_ISCHR(os.stat(f).st_mode), f)
must(refused(os.chmod, '/dev/null', 0o666), 'chmod')
must(refused(os.chown, '/dev/null', 0, 0), 'chown')

#: dev-kvm | virtual machines and accelerators
for f in ('/dev/kvm', '/dev/net/tun', '/dev/vhost-net', '/dev/vfio', '/dev/dri', '/dev/nvidia0', '/dev/mapper', '/dev/loop-control', '/dev/snd', '/dev/input', '/dev/bus', '/dev/cpu', '/dev/hpet', '/dev/vsock'):
    must(not os.path.lexists(f), f)

#: tiocsti | typing into the terminal of whoever started it (CVE-2016-2568, CVE-2017-5226)
if OUTSIDE:
    import pty
    fd = pty.openpty()[1]
else: fd = 0
for request in (0x5412, 0x541c):
    must(refused(fcntl.ioctl, fd, request, b'x', codes=(errno.EPERM,)), hex(request))

#: tiocsti-high-bits | the same with bits above the 32nd set in the request (CVE-2019-10063) | root
if OUTSIDE:
    import pty
    fd = pty.openpty()[1]
else: fd = 0
for high in (1 << 32, 0xdead << 32, 1 << 63):
    must(call(16, fd, ctypes.c_ulong(0x5412 | high), b'x') == errno.EPERM, hex(high))

#: tiocsctty | taking over a terminal of the host
os.setsid()
must(refused(os.open, '/dev/tty', os.O_RDWR), '/dev/tty')
names = ['/dev/pts/%d' % n for n in range(32)] + ['/dev/tty%d' % n for n in range(8)] + ['/dev/console']
if OUTSIDE:
    import pty
    names = [os.ttyname(pty.openpty()[1])]
must(not any(openable(n) for n in names), 'a terminal')

#: ioctl-immutable | ioctls on files of the host (immutable flag, freezing, trimming) | root
fd = os.open('/usr/bin/env', os.O_RDONLY)
flags = ctypes.create_string_buffer(8)
call(16, fd, 0x80086601, flags)
must(call(16, fd, 0x40086602, flags) != 0, 'FS_IOC_SETFLAGS')
if not OUTSIDE:
    for request in (0xc0045877, 0xc0045878, 0xc0185879):
        must(call(16, os.open('/usr', os.O_RDONLY), request, ctypes.create_string_buffer(64)) != 0, hex(request))

#: ioctl-namespace | ioctls on namespaces: the parent's user namespace (NS_GET_USERNS, NS_GET_PARENT) | none
fd = os.open('/proc/self/ns/user', os.O_RDONLY)
must(refused(fcntl.ioctl, fd, 0xb701) and refused(fcntl.ioctl, fd, 0xb702), 'the namespace around')
must(refused(fcntl.ioctl, os.open('/proc/self/ns/pid', os.O_RDONLY), 0xb702), 'the pid namespace around')
must(refused(fcntl.ioctl, os.open('/proc/self/ns/uts', os.O_RDONLY), 0xb701) or ROOT or not OUTSIDE, 'who owns it')

#: raw-io | iopl and ioperm | none
must(denied(172, 0) and denied(173, 0, 1, 0), 'ports')

#: loop-attach | attaching a file as a disk | root
must(not openable('/dev/loop0') and not openable('/dev/loop-control'), 'loop devices')
