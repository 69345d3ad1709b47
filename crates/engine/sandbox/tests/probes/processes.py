# Other processes: tracing, memory, signals; and namespaces.

#: ptrace-attach | ptrace of a process outside or of pid 1
target = VICTIM if OUTSIDE else 1
must(denied(101, 0x4206, target, 0, 0) and denied(101, 0x4206, VICTIM, 0, 0), 'PTRACE_SEIZE')

#: ptrace-traceme | ptrace of an own child (around the filter, before Linux 4.8)
must(child(lambda: os._exit(0 if denied(101, 0, 0, 0, 0) else 1)) == 0, 'PTRACE_TRACEME')

#: process-vm-read | process_vm_readv of a process outside
target = VICTIM if OUTSIDE else 1
buf = ctypes.create_string_buffer(64)
local = struct.pack('QQ', ctypes.addressof(buf), 18)
remote = struct.pack('QQ', FACTS['memory'], 18)
must(denied(310, target, local, 1, remote, 1, 0) and b'memory of the host' not in buf.raw, 'read')

#: process-vm-write | process_vm_writev to a process outside
target = VICTIM if OUTSIDE else 1
must(denied(311, target, None, 0, None, 0, 0), 'write')

#: kcmp | comparing the kernel's objects of two processes
must(denied(312, os.getpid(), os.getpid(), 0, 0, 0), 'kcmp')

#: pidfd-open | a pidfd of a process outside
must(call(434, VICTIM, 0) != 0, 'the host process')

#: pidfd-getfd | taking a descriptor out of another process (CVE-2020-14416 kin)
fd = os.pidfd_open(os.getpid() if not OUTSIDE else VICTIM)
must(denied(438, fd, 0, 0), 'pidfd_getfd')

#: pidfd-signal | signals by pidfd
must(call(434, VICTIM, 0) != 0 or call(424, os.pidfd_open(VICTIM), 0, None, 0) != 0, 'the host process')

#: process-madvise | advice on the memory of another process
must(denied(440, -1, None, 0, 0, 0), 'process_madvise')

#: move-pages | moving the memory of another process
must(denied(279, VICTIM, 0, None, None, None, 0) and denied(256, VICTIM, 0, None, None), 'move_pages, migrate_pages')

#: kill-host | a signal to a process outside
must(refused(os.kill, VICTIM, 0), 'the host process')

#: kill-queue | signals by sigqueue and tgkill
info = ctypes.create_string_buffer(128)
must(call(234, VICTIM, VICTIM, 0) != 0 and call(200, VICTIM, 0) != 0, 'tgkill, tkill')

#: kill-pid-1 | ending or stopping pid 1 of the sandbox
if OUTSIDE:
    must(refused(os.kill, VICTIM, 0), 'another process')
else:
    for sig in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGABRT):
        try: os.kill(1, sig)
        except OSError: pass
    time.sleep(0.05)
    text = read('/proc/1/status').decode()
    must('T (stopped)' not in text and 'Z (zombie)' not in text, text)

#: kill-all | kill(-1): a signal to everything that may be reached
if OUTSIDE:
    must(refused(os.kill, VICTIM, 0), 'another process')
else:
    def run():
        os.setsid()
        signal.signal(signal.SIGURG, signal.SIG_IGN)
        os.kill(-1, signal.SIGURG)
    must(child(run) == 0, 'kill')
    must(os.path.exists('/proc/1/status'), 'pid 1')

#: kill-group | signals to process groups outside
must(refused(os.killpg, VICTIM, 0) or VICTIM in (os.getpgid(0),), 'the group of the host process')
must(refused(os.getpgid, VICTIM) and refused(os.getsid, VICTIM), 'groups outside are seen')

#: sigio-owner | signals through the owner of a descriptor (F_SETOWN; CVE-2018-5703 kin)
a, b = socket.socketpair()
must(refused(fcntl.fcntl, a, 8, VICTIM), 'F_SETOWN to the host process')

#: rlimit-of-others | limits of a process outside (prlimit)
must(call(302, VICTIM, 7, None, None) != 0, 'prlimit of the host process')

#: priority-of-others | priorities of processes outside
must(refused(os.getpriority, os.PRIO_PROCESS, VICTIM) and refused(os.sched_getaffinity, VICTIM), 'the host process')
must(call(144, VICTIM, 0, struct.pack('i', 0)) != 0 and call(251, 1, VICTIM, 0) != 0, 'its scheduler')

#: parent-pid | the parent's number tells of the host
must(os.getppid() < 64 and os.getpid() < 4096, (os.getppid(), os.getpid()))

#: unshare-user | a new user namespace, for its capabilities (CVE-2022-0185, CVE-2024-1086)
must(denied(272, 0x10000000), 'unshare')

#: unshare-others | other new namespaces by unshare
for flag in (0x20000, 0x40000000, 0x20000000, 0x08000000, 0x04000000, 0x02000000, 0x80):
    must(denied(272, flag), 'unshare %x' % flag)

#: unshare-time | a time namespace, and its offsets
must(denied(272, 0x80), 'unshare')
must(not writable('/proc/self/timens_offsets') or OUTSIDE, 'timens_offsets')

#: clone-flags | new namespaces by clone
for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x08000000, 0x04000000, 0x02000000):
    pid = libc.syscall(ctypes.c_long(56), ctypes.c_ulong(flag | 17), None, None, None, None)
    if pid == 0: os._exit(0)
    if pid > 0: os.waitpid(pid, 0)
    must(pid < 0 and ctypes.get_errno() == errno.EPERM, 'clone %x' % flag)

#: clone-high-bits | the same with bits above the 32nd set in the flags
for flag in (1 << 32 | 0x10000000, 0xf << 40 | 0x20000):
    pid = libc.syscall(ctypes.c_long(56), ctypes.c_ulong(flag | 17), None, None, None, None)
    if pid == 0: os._exit(0)
    if pid > 0: os.waitpid(pid, 0)
    must(pid < 0, 'clone %x' % flag)

#: clone3 | new namespaces by clone3, whose arguments a filter cannot see
for flag in (0, 0x10000000):
    arg = struct.pack('8Q', flag, 0, 0, 0, 17, 0, 0, 0)
    pid = libc.syscall(ctypes.c_long(435), arg, len(arg))
    if pid == 0: os._exit(0)
    if pid > 0: os.waitpid(pid, 0)
    must(pid < 0 and ctypes.get_errno() == errno.ENOSYS, 'clone3 %x' % flag)

#: clone-into-cgroup | leaving the cgroup by clone3 (CLONE_INTO_CGROUP)
arg = struct.pack('11Q', 0x200000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
must(call(435, arg, len(arg)) == errno.ENOSYS, 'clone3')

#: setns-own | setns to a namespace of its own (and then on)
for kind in ('user', 'mnt', 'net', 'pid', 'ipc', 'uts', 'cgroup'):
    fd = os.open('/proc/self/ns/' + kind, os.O_RDONLY)
    must(denied(308, fd, 0), kind)

#: setns-pidfd | setns by a pidfd
fd = os.pidfd_open(os.getppid() if not OUTSIDE else VICTIM)
must(denied(308, fd, 0x20000) and denied(308, fd, 0x40000000) and denied(308, fd, 0x10000000), 'setns')

#: namespaces-differ | a namespace that is shared with the host
for kind in ('user', 'mnt', 'net', 'pid', 'ipc', 'uts', 'cgroup'):
    must(os.readlink('/proc/self/ns/' + kind) != FACTS['namespaces'][kind], kind)

#: thread-namespaces | a thread or a child in other namespaces than its parent
import threading
kinds = lambda p: {k: os.readlink('/proc/%s/ns/%s' % (p, k)) for k in ('user', 'mnt', 'net', 'pid', 'ipc', 'uts', 'cgroup')}
own, found = kinds('self'), []
t = threading.Thread(target=lambda: found.append(kinds('thread-self')))
t.start(); t.join()
must(found == [own] and own['pid'] != FACTS['namespaces']['pid'], found)

#: hostname | the host's name, seen or changed
must(socket.gethostname() != FACTS['hostname'] and os.uname().nodename == 'inside', socket.gethostname())
must(refused(socket.sethostname, b'x' if not OUTSIDE else socket.gethostname()), 'set')
must(denied(171, b'x', -1 if OUTSIDE else 1), 'domain name')

#: cgroup-path | the cgroup's place on the host
for line in read('/proc/self/cgroup').decode().splitlines():
    path = line.split(':', 2)[2]
    must(path == '/' or not ROOT and not OUTSIDE, line)
must(not any('..' in line for line in read('/proc/self/cgroup').decode().splitlines()), 'above')

#: cgroup-writes | lifting the limits, or leaving them
for d in ('/sys/fs/cgroup', '/sys/fs/cgroup/memory', '/sys/fs/cgroup/pids', '/cgroup'):
    must(not os.path.exists(d), d)

#: cgroup-release-agent | cgroup v1 release_agent (CVE-2022-0492)
found = [d for d, _, files in os.walk('/sys') if 'release_agent' in files] if not OUTSIDE else []
must(not found and not os.path.exists('/sys/fs/cgroup'), found)
must(libc.mount(b'none', fresh('cg').encode(), b'cgroup2' if OUTSIDE else b'cgroup', 0, b'' if OUTSIDE else b'rdma') != 0, 'mounted')

#: dirty-pipe | splice into a page of a read-only file (Dirty Pipe, CVE-2022-0847) | none
fd = os.open('/usr/bin/env', os.O_RDONLY)
before = os.pread(fd, 64, 0)
r, w = os.pipe()
os.write(w, b'x' * 65536); os.read(r, 65536)
os.splice(fd, w, 1, 1)
os.write(w, b'changed')
must(os.pread(fd, 64, 0) == before, 'the page changed')

#: nested-sandbox | building a sandbox in the sandbox, step by step
must(refused(os.unshare if hasattr(os, 'unshare') else lambda f: (_ for _ in ()).throw(OSError()), 0x10000000), 'unshare')
r = subprocess.run(['unshare', '-Urm', 'true'], capture_output=True)
must(r.returncode != 0, 'unshare -Urm')
