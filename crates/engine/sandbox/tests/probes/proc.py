# /proc and /sys.

#: proc-1-root | /proc/<pid>/root of a process outside
for pid in processes() + ['self', 'thread-self']:
    for link in ('root', 'cwd'):
        must(empty('/proc/%s/%s%s' % (pid, link, CANARY)), pid)

#: proc-pids | processes outside are seen in /proc
must(str(VICTIM) not in processes() or int(VICTIM) < 10, 'the host process is seen')
must(len(processes()) < 8, processes())

#: proc-task-walk | processes outside by way of hidden names in /proc (a number that is not listed)
must(not os.path.exists('/proc/%d/status' % VICTIM) or b'python' not in read('/proc/%d/cmdline' % VICTIM), 'host process')
must(empty('/proc/%d/root%s' % (VICTIM, CANARY)), 'its root')

#: kcore | /proc/kcore, the kernel's memory | none
must(empty('/proc/kcore'), '/proc/kcore')

#: dev-mem | /dev/mem, /dev/kmem and /dev/port
for f in ('/dev/mem', '/dev/kmem', '/dev/port'):
    must(not openable(f), f)
must(not os.path.exists('/dev/kmsg') and not os.path.exists('/dev/mem'), 'named')

#: kallsyms | addresses of the kernel (to defeat its randomisation) | none
must(all(line.split()[0].strip(b'0') == b'' for line in read('/proc/kallsyms').splitlines()[:100]), 'kernel addresses')
must(all(line.split()[-1].strip(b'0x') == b'' for line in (read('/proc/modules') if os.path.exists('/proc/modules') else b'').splitlines()[:100]), 'module addresses')

#: kpagecount | /proc/kpage*: physical memory of others | root
for f in ('/proc/kpagecount', '/proc/kpageflags', '/proc/kpagecgroup'):
    must(not openable(f), f)

#: pagemap | physical addresses by /proc/self/pagemap (rowhammer) | root
with open('/proc/self/pagemap', 'rb', buffering=0) as f:
    f.seek(id(bad) // 4096 * 8)
    entry = struct.unpack('Q', f.read(8))[0]
must(entry & (1 << 55) - 1 == 0, 'a physical frame number')

#: proc-keys | /proc/keys, keys of the host
must(empty('/proc/keys'), '/proc/keys')

#: timer-list | /proc/timer_list and what tells of all processes | root
for f in ('/proc/timer_list', '/proc/timer_stats', '/proc/sched_debug', '/proc/latency_stats'):
    must(empty(f), f)

#: masked-directories | runc's list of masked directories
for d in ('/proc/acpi', '/proc/asound', '/proc/scsi', '/sys/firmware', '/sys/devices/virtual/powercap'):
    must(not os.access(d, os.R_OK) or os.listdir(d) == [], d)

#: masked-path-race | a masked path whose mask is replaced (CVE-2025-31133)
for f in ('/proc/kcore', '/proc/keys', '/proc/timer_list'):
    if os.path.exists(f):
        st = os.stat(f)
        must(stat.S_ISCHR(st.st_mode) and (os.major(st.st_rdev), os.minor(st.st_rdev)) == (1, 3), f)
    must(refused(os.unlink, '/dev/null') if not OUTSIDE else False, 'the mask may be removed')

#: core-pattern | a core_pattern that runs on the host (CVE-2025-52881) | root
must(not writable('/proc/sys/kernel/core_pattern'), 'core_pattern')

#: modprobe-path | /proc/sys/kernel/modprobe, a program that the kernel runs | root
for f in ('modprobe', 'poweroff_cmd', 'hotplug'):
    must(not writable('/proc/sys/kernel/' + f), f)

#: usermodehelper | the capabilities of programs that the kernel runs | root
must(not writable('/proc/sys/kernel/usermodehelper/bset'), 'bset')

#: uevent-helper | /sys/kernel/uevent_helper
must(not writable('/sys/kernel/uevent_helper') and not os.path.exists('/sys/kernel/uevent_seqnum'), 'uevent_helper')

#: binfmt-misc | a binfmt_misc interpreter that the host runs (CVE-2023-2640 kin)
must(not writable('/proc/sys/fs/binfmt_misc/register'), 'register')
at = fresh('binfmt')
must(libc.mount(b'x', at.encode(), b'binfmt_misc', 0, None) != 0, 'mounted')

#: sysrq | /proc/sysrq-trigger | none
must(not writable('/proc/sysrq-trigger'), 'sysrq-trigger')
must(not writable('/proc/sys/kernel/sysrq'), 'the setting')

#: proc-sys | settings of the host's kernel | root
for f in ('kernel/hostname', 'kernel/domainname', 'kernel/panic', 'kernel/randomize_va_space', 'vm/drop_caches', 'vm/overcommit_memory', 'fs/protected_symlinks', 'fs/suid_dumpable'):
    must(not writable('/proc/sys/' + f), f)

#: proc-sys-user | limits on namespaces, which also root of a user namespace may set | none
for f in ('max_user_namespaces', 'max_pid_namespaces', 'max_mnt_namespaces'):
    must(not writable('/proc/sys/user/' + f), f)

#: proc-sys-net | settings of the network | root
for f in ('ipv4/ip_forward', 'ipv4/conf/all/route_localnet', 'core/somaxconn', 'ipv4/ping_group_range'):
    must(not writable('/proc/sys/net/' + f), f)

#: pid-namespace-sysctl | choosing the next process number (ns_last_pid), to be taken for another
must(not writable('/proc/sys/kernel/ns_last_pid'), 'ns_last_pid')

#: proc-writes | the other files of /proc that change the host
for f in ('/proc/irq/default_smp_affinity', '/proc/mtrr', '/proc/fs/ext4', '/proc/pressure/memory', '/proc/slabinfo', '/proc/acpi/wakeup'):
    must(not writable(f), f)

#: oom-score | being the last that the kernel kills
must(not writable('/proc/self/oom_score_adj'), 'oom_score_adj')

#: loginuid | another login identity in the audit log
must(not writable('/proc/self/loginuid') and not writable('/proc/self/attr/current') and not writable('/proc/self/attr/exec'), 'loginuid, attr')
must(not writable('/proc/self/coredump_filter') and not writable('/proc/self/timerslack_ns'), 'other settings of its own')

#: uid-map | a wider map of users
for f in ('uid_map', 'gid_map', 'setgroups', 'projid_map'):
    must(not writable('/proc/self/' + f), f)
must(len(read('/proc/self/uid_map').splitlines()) == 1, 'the map')
must(read('/proc/self/uid_map').split()[1] != b'0' or not ROOT, 'root outside is root inside')

#: proc-1-environ | secrets in the environment of pid 1 (bobbit#225)
target = VICTIM if OUTSIDE else 1
must(empty('/proc/%d/environ' % target), 'environ')

#: proc-1-mem | memory of pid 1
target = VICTIM if OUTSIDE else 1
for f in ('mem', 'maps', 'syscall', 'stack', 'pagemap', 'auxv', 'io', 'personality'):
    must(not openable('/proc/%d/%s' % (target, f)) or empty('/proc/%d/%s' % (target, f)), f)

#: proc-1-exe | overwriting the runtime through /proc/<pid>/exe (CVE-2019-5736)
target = VICTIM if OUTSIDE else 1
must(refused(os.open, '/proc/%d/exe' % target, os.O_RDONLY) and refused(os.readlink, '/proc/%d/exe' % target), 'its program')

#: proc-1-fd | descriptors of pid 1
target = VICTIM if OUTSIDE else 1
# Their numbers may be known, but not what they are.
for fd in range(64):
    at = '/proc/%d/fd/%d' % (target, fd)
    must(refused(os.readlink, at) and refused(os.open, at, os.O_RDONLY | os.O_NONBLOCK), at)

#: proc-1-map-files | mapped files of pid 1
target = VICTIM if OUTSIDE else 1
must(refused(os.listdir, '/proc/%d/map_files' % target), 'map_files')

#: proc-1-ns | namespaces of pid 1, to enter them
target = VICTIM if OUTSIDE else 1
for kind in ('user', 'mnt', 'net', 'pid', 'ipc', 'uts', 'cgroup'):
    must(refused(os.open, '/proc/%d/ns/%s' % (target, kind), os.O_RDONLY), kind)

#: self-exe | overwriting the own program, which is the host's (CVE-2019-5736)
must(not os.access(sys.executable, os.W_OK) and os.statvfs(sys.executable).f_flag & os.ST_RDONLY, sys.executable)
must(refused(os.open, '/proc/self/exe', os.O_WRONLY), 'opened')

#: self-mem | writing through /proc/self/mem over a read-only mapping of a file (Dirty COW, CVE-2016-5195) | none
fd = os.open(sys.executable, os.O_RDONLY)
before = os.pread(fd, 4096, 0)
page = libc.mmap
page.restype, page.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
at = page(None, 4096, 1, 2, fd, 0)
try:
    with open('/proc/self/mem', 'r+b', buffering=0) as f:
        f.seek(at)
        f.write(b'changed')
except OSError:
    pass
must(os.pread(fd, 4096, 0) == before, 'the file changed')

#: sys-empty | /sys of the host
must(os.listdir('/sys') == [], os.listdir('/sys')[:8])

#: sys-mount | mounting /sys anew | root
at = fresh('sys')
must(libc.mount(b'sysfs', at.encode(), b'sysfs', 0, None) != 0, 'sysfs')
must(libc.mount(b'x', at.encode(), b'debugfs', 0, None) != 0, 'debugfs')
must(libc.mount(b'x', at.encode(), b'tracefs', 0, None) != 0, 'tracefs')
must(libc.mount(b'x', at.encode(), b'securityfs', 0, None) != 0, 'securityfs')

#: sys-kernel-debug | debugfs and tracefs
for d in ('/sys/kernel/debug', '/sys/kernel/tracing', '/sys/kernel/security', '/sys/fs/bpf', '/sys/kernel'):
    must(not os.path.exists(d), d)

#: efivars | variables of the firmware
must(not os.path.exists('/sys/firmware') and not os.path.exists('/sys/class') and not os.path.exists('/sys/block'), 'firmware, devices')

#: procfs-overmount | another file system over /proc (CVE-2019-16884, CVE-2023-28642)
kinds = {line.split(' ')[4]: line.split(' - ')[1].split(' ')[0] for line in read('/proc/self/mountinfo', 1 << 20).decode().splitlines()}
must(kinds['/proc'] == 'proc', kinds)
must(libc.mount(b'x', b'/proc', b'tmpfs', 0, None) != 0 if not OUTSIDE else libc.mount(b'x', fresh('p').encode(), b'tmpfs', 0, None) != 0, 'mounted over')

#: mountinfo | the mount table tells of the host's directories
info = read('/proc/self/mountinfo', 1 << 20).decode()
must(os.path.dirname(CANARY) not in info, 'the canary')
must(not any(line.split(' - ')[1].startswith(('cgroup', 'sysfs', 'debugfs', 'securityfs', 'bpf')) for line in info.splitlines()), 'file systems of the kernel')
