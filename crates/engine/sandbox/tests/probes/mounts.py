# Every way to mount, to undo a mount, and to change the root.

#: mount-tmpfs | mount of a new file system
must(libc.mount(b'tmpfs', fresh('m').encode(), b'tmpfs', 0, None) != 0, 'tmpfs')

#: mount-bind | a bind mount of what is read-only
must(libc.mount(b'/usr', fresh('m').encode(), None, 4096, None) != 0, 'bind')
must(libc.mount(b'/', fresh('r').encode(), None, 4096 | 16384, None) != 0, 'recursive bind')

#: mount-remount | remounting what is read-only for writing
if OUTSIDE: libc.mount(b'/usr', b'/usr', None, 4096, None)
must(libc.mount(None, b'/usr', None, 32 | 4096, None) != 0, 'remount /usr')
must(libc.mount(None, b'/proc', None, 32 | 4096, None) != 0, 'remount /proc')

#: mount-move | moving a mount away (what is under a mask shows)
at = fresh('m').encode()
if OUTSIDE: libc.mount(b'tmpfs', at, b'tmpfs', 0, None)
must(libc.mount(at if OUTSIDE else b'/dev', fresh('n').encode(), None, 8192, None) != 0, 'moved')

#: mount-propagation | making a mount shared, so that others follow (runc's rootfs propagation)
must(libc.mount(None, b'/', None, 1 << 20 | 16384, None) != 0, 'shared')
info = read('/proc/self/mountinfo', 1 << 20).decode()
must('shared:' not in info and 'master:' not in info, 'a mount is propagated to or from outside')

#: mount-proc | another /proc, without masks | root
must(libc.mount(b'proc', fresh('m').encode(), b'proc', 0, None) != 0, 'proc')

#: mount-cgroup | a cgroup tree, to write to it (CVE-2022-0492) | root
for kind, opts in ((b'cgroup2', b''),) if OUTSIDE else ((b'cgroup', b'memory'), (b'cgroup', b'rdma'), (b'cgroup', b'none,name=x'), (b'cgroup2', b'')):
    must(libc.mount(b'none', fresh('cg' + opts.decode()[:3]).encode(), kind, 0, opts) != 0, kind)

#: mount-overlay | overlayfs in a namespace of its own (CVE-2021-3493, CVE-2023-0386)
a, b, c, d = (fresh(n) for n in 'abcd')
opts = 'lowerdir=%s,upperdir=%s,workdir=%s,userxattr' % (a, b, c)
must(libc.mount(b'overlay', d.encode(), b'overlay', 0, opts.encode()) != 0, 'overlay')

#: mount-fuse | a file system that answers as it likes (CVE-2022-0185's neighbours) | root
must(not openable('/dev/fuse'), '/dev/fuse')
must(libc.mount(b'x', fresh('m').encode(), b'fuse', 0, b'fd=0,rootmode=40000,user_id=0,group_id=0') != 0, 'fuse')

#: mount-bpf-mqueue | the file systems of bpf and message queues
for kind in (b'bpf', b'mqueue', b'ramfs', b'devpts'):
    must(libc.mount(b'x', fresh(kind.decode()).encode(), kind, 0, None) != 0, kind)

#: mount-disk | mounting the host's disk | root
for disk in (b'none',) if OUTSIDE else (b'/dev/vda', b'/dev/sda', b'/dev/nvme0n1', b'/dev/loop0', b'none'):
    for kind in (b'devtmpfs',) if OUTSIDE else (b'ext4', b'devtmpfs'):
        ctypes.set_errno(0)
        r = libc.mount(disk, fresh('d%d' % checks).encode(), kind, 1, None)
        must(r != 0 and ctypes.get_errno() in (errno.EPERM, errno.EACCES), disk)

#: umount | undoing a mount
if OUTSIDE:
    at = fresh('m').encode()
    libc.mount(b'tmpfs', at, b'tmpfs', 0, None)
    must(libc.umount2(at, 2) != 0, 'umount')
for at in (b'/proc', b'/usr', b'/dev', b'/proc/keys', b'/proc/kcore', b'/'):
    must(OUTSIDE or libc.umount2(at, 2) != 0, at)

#: fsopen | the new mount API: fsopen (CVE-2022-0185)
must(denied(430, b'tmpfs', 0) and denied(430, b'ext4', 0), 'fsopen')
must(denied(431, -1, 0, None, None, 0) and denied(432, -1, 0, 0), 'fsconfig, fsmount')
must(denied(433, -100, b'/', 0), 'fspick')

#: open-tree | the new mount API: open_tree and move_mount
must(denied(428, -100, b'/', 1), 'open_tree')
must(denied(429, -1, b'', -100, b'/tmp', 4), 'move_mount')
must(denied(467, -100, b'/', 1, None, 0), 'open_tree_attr')

#: mount-setattr | the new mount API: mount_setattr (CVE-2022-0500 kin)
attr = struct.pack('QQQQ', 0, 1, 0, 0)
must(denied(442, -100, b'/proc', 0, attr, 32), 'mount_setattr')

#: statmount | reading the host's mounts
must(denied(457, None, None, 0, 0) and denied(458, None, None, 0, 0), 'statmount, listmount')

#: chroot | double chroot
must(refused(os.chroot, fresh('jail'), codes=(errno.EPERM,)), 'chroot')

#: pivot-root | pivot_root
must(denied(155, b'.', b'.') , 'pivot_root')

#: nosuid-nodev | mounts without nosuid and nodev
for at in ('/', '/usr', '/work', '/proc', '/tmp', '/var/tmp', '/dev/shm'):
    flags = os.statvfs(at if os.path.exists(at) else '/').f_flag
    must(flags & os.ST_NOSUID, at + ' lets programs gain privilege')
    must(flags & os.ST_NODEV, at + ' lets devices be opened')
must(os.statvfs('/dev').f_flag & os.ST_NOSUID, '/dev')

#: read-only-host | writing to the host's programs and libraries
for at in ('/usr', '/usr/bin', '/usr/lib', '/usr/local'):
    must(os.statvfs(at).f_flag & os.ST_RDONLY, at)
    must(refused(os.mkdir, at + '/prism-probe') or os.rmdir(at + '/prism-probe'), at)

#: host-etc | accounts, keys and settings of the host
for f in ('/etc/shadow', '/etc/gshadow', '/etc/sudoers', '/etc/ssh/ssh_host_rsa_key', '/etc/ssh/sshd_config', '/etc/machine-id', '/etc/fstab', '/etc/crontab', *('/root/' + f for f in ('.ssh', '.bashrc', '.profile')), '/home/user', '/var/lib/dpkg', '/var/log/dpkg.log'):
    must(not os.path.lexists(f), f)

#: engine-sockets | a container engine's socket (docker.sock)
at = ('/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock', '/run/crio/crio.sock', '/run/podman/podman.sock', '/run/systemd/private', '/run/dbus/system_bus_socket', '/var/lib/docker', '/var/lib/kubelet', '/var/run/secrets')
for f in at:
    must(not os.path.lexists(f), f)
must(set(os.listdir('/run')) <= {'shm'}, os.listdir('/run'))

#: superblock-options | the scratch space's own limits are lifted by a remount
at = fresh('s').encode() if OUTSIDE else b'/'
if OUTSIDE: libc.mount(b'tmpfs', at, b'tmpfs', 0, b'size=1m')
must(libc.mount(None, at, None, 32, b'size=2m') != 0, 'remounted')
must(libc.mount(b'x', fresh('m').encode(), b'tmpfs', 0, b'size=100%') != 0, 'a tmpfs of any size')
