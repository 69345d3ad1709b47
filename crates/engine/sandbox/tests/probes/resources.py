# What is shared between processes: memory, queues, priorities, limits, clocks; and files.

#: sysv-shm | shared memory of the host (System V)
must(libc.shmget(FACTS['key'], 0, 0) < 0, 'found by its key')
must(len(read('/proc/sysvipc/shm').splitlines()) <= 1, 'listed')

#: sysv-msg | message queues of the host (System V)
must(libc.msgget(FACTS['key'], 0) < 0 and len(read('/proc/sysvipc/msg').splitlines()) <= 1, 'found')

#: sysv-sem | semaphores of the host (System V)
must(libc.semget(FACTS['key'], 0, 0) < 0 and len(read('/proc/sysvipc/sem').splitlines()) <= 1, 'found')

#: posix-shm | shared memory of the host (/dev/shm)
must(empty(FACTS['shm']), FACTS['shm'])
must(not any(n.startswith('prism-host') for n in os.listdir('/dev/shm')), os.listdir('/dev/shm'))

#: posix-mq | message queues of the host (POSIX)
must(call(240, FACTS['mq'].encode()[1:], 0, 0, None) != 0, 'opened')

#: raise-nofile | a higher limit of open files
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
must(hard <= 4096, hard)
try: resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1)); raised = True
except (OSError, ValueError): raised = False
must(not raised, 'raised')

#: raise-nproc | a higher limit of processes
soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
must(0 <= hard <= 4096, hard)
try: resource.setrlimit(resource.RLIMIT_NPROC, (hard + 1, hard + 1)); raised = True
except (OSError, ValueError): raised = False
must(not raised, 'raised')

#: core-dumps | core dumps: files of any size, and the host's core handler (CVE-2025-4598 kin)
must(resource.getrlimit(resource.RLIMIT_CORE) == (0, 0), resource.getrlimit(resource.RLIMIT_CORE))
ended = child(lambda: os.abort())
must(not os.WCOREDUMP(ended) and not [n for n in os.listdir('.') if n.startswith('core')], 'a core')

#: mlock | locking memory without bound | none
soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
must(0 <= hard <= 64 << 20, hard)

#: nice | a higher priority | root
must(refused(os.setpriority, os.PRIO_PROCESS, 0, -1), 'nice -1')
must(refused(os.nice, -5), 'nice')

#: realtime | a real-time schedule that starves the host | root
for policy, param in ((1, 1), (2, 50)):
    must(refused(os.sched_setscheduler, 0, policy, os.sched_param(param)), policy)
attr = struct.pack('IIQiIQQQ', 48, 6, 0, 0, 0, 10_000_000, 30_000_000, 30_000_000)
must(call(314, 0, attr, 0) == errno.EPERM, 'deadline')

#: io-priority | real-time input and output | root
must(call(251, 1, 0, 1 << 13) == errno.EPERM, 'ioprio_set')

#: affinity-of-others | affinity of a process outside
must(refused(os.sched_setaffinity, VICTIM, os.sched_getaffinity(0)), 'the host process')

#: clocks | a clock of another process, or one that wakes the host
must(call(229, (~VICTIM << 3) | 2, ctypes.create_string_buffer(16)) != 0 and refused(time.clock_gettime, (~VICTIM << 3) | 2), 'its processor time')
must(call(222, 8, None, ctypes.byref(ctypes.c_int())) != 0, 'CLOCK_REALTIME_ALARM')

#: cachestat | what of the host's files is cached (CVE-2019-5489) | root
path = '/usr/bin/env'
fd = os.open(path, os.O_RDONLY)
must(denied(451, fd, struct.pack('QQ', 0, 4096), ctypes.create_string_buffer(40), 0), 'cachestat')

#: symlink-out | a symbolic link that leads out
at = os.path.join(HERE, 'link')
for target in (CANARY, '/proc/1' + '/root' + CANARY, '/..' * 8 + CANARY, os.path.join('/proc/self/root', '..') + CANARY):
    os.symlink(target, at)
    must(empty(at), target)
    os.unlink(at)

#: hard-link-out | a hard link to a file of the host
at = os.path.join(HERE, 'hard')
for target in ('/usr/bin/env', '/proc/self/exe', CANARY, '/proc/1' + '/root' + CANARY):
    linked = not refused(os.link, target, at)
    must(not linked, target)
    if linked: os.unlink(at)

#: hard-link-proc | a hard link to a descriptor (linkat with AT_EMPTY_PATH)
fd = os.open('/usr/bin/env' if not OUTSIDE else CANARY, os.O_RDONLY)
at = os.path.join(HERE, 'linked')
r = call(265, fd, b'', -100, at.encode(), 0x1000)
s = call(265, -100, b'/proc/self/fd/%d' % fd, -100, at.encode() + b'2', 0x400)
must(r != 0 and s != 0, 'linked')

#: symlink-race | a directory swapped for a link while a path is walked, 5,000 times (CVE-2021-30465, CVE-2017-1002101)
a, b = os.path.join(HERE, 'race'), os.path.join(HERE, 'race-link')
os.makedirs(a, exist_ok=True)
os.symlink(os.path.dirname(CANARY), b)
swap = lambda: libc.syscall(ctypes.c_long(316), -100, a.encode(), -100, b.encode(), 2)
pid = os.fork()
if pid == 0:
    if OUTSIDE: swap(); time.sleep(60)
    while True: swap()
if OUTSIDE: time.sleep(0.1)
hit = 0
for _ in range(5000):
    hit += not empty(a + '/canary')
os.kill(pid, 9); os.waitpid(pid, 0)
must(hit == 0, '%d of 5000 went through' % hit)

#: rename-escape | a directory moved out from under a working directory
deep = os.path.join(HERE, 'one/two/three')
os.makedirs(deep)
pid = os.fork()
if pid == 0:
    os.chdir(deep)
    os.rename(os.path.join(HERE, 'one/two'), os.path.join(HERE, 'two'))
    os._exit(1 if not empty('../' * 30 + CANARY.lstrip('/')) else 0)
must(os.waitpid(pid, 0)[1] == 0, 'left the root')

#: deleted-directory | a working directory that is gone (CVE-2024-21626 kin)
gone = fresh('gone')
os.chdir(gone)
os.rmdir(gone)
must(refused(os.getcwd) and empty('..' + CANARY) and empty('../' * 30 + CANARY.lstrip('/')), 'led somewhere')

#: bind-over-files | files that the runtime writes into (hosts, resolv.conf, hostname) lead to the host's own
before = {f: os.stat(f).st_dev for f in ('/etc/passwd', '/etc/hosts', '/etc/resolv.conf') if os.path.exists(f)}
must(all(dev != os.stat('/usr').st_dev or OUTSIDE for dev in before.values()) and not OUTSIDE or os.stat('/etc/passwd').st_dev != os.stat('/usr').st_dev, before)

#: upper-layer-paths | the writable layer seen from inside by another way | none
for at in ('/upper', '/b', '/m', '/l', '/skel', '/merged', '/empty', '/work/work', '/work/upper'):
    must(not os.path.lexists(at) or OUTSIDE, at)
must(len({os.stat(d).st_dev for d in ('/', '/work', '/tmp')}) == 1 and not OUTSIDE or os.stat('/').st_dev != os.stat('/proc').st_dev, 'mounts')

#: fifo-and-sockets | a fifo or socket of the host in a shared directory
must(not any(stat.S_ISFIFO(os.lstat(p).st_mode) or stat.S_ISSOCK(os.lstat(p).st_mode) for d in ('/tmp', '/run', '/var/tmp', os.path.dirname(FACTS['unix']) if OUTSIDE else '/work') for p in (os.path.join(d, n) for n in os.listdir(d))), 'found')

#: tmp-shared | a temporary directory shared with the host
for d in ('/tmp', '/var/tmp', '/dev/shm'):
    must(not any(n.startswith(('prism-', 'systemd-', 'ssh-')) for n in os.listdir(d)), os.listdir(d)[:5])

#: host-processes-names | names and users of the host
import pwd
names = {u.pw_name for u in pwd.getpwall()}
must(names <= {'root', 'nobody', 'nogroup', 'daemon'}, sorted(names)[:9])
