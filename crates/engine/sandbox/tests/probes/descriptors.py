# Descriptors, the working directory and the root.

#: inherited-fds | leaked descriptors (CVE-2016-9962)
extra = [os.open('/etc', os.O_RDONLY)] if OUTSIDE else []
live = set()
for fd in range(4096):
    try: os.fstat(fd)
    except OSError: continue
    live.add(fd)
kinds = {fd: os.readlink('/proc/self/fd/%d' % fd) for fd in live if os.path.lexists('/proc/self/fd/%d' % fd)}
must(all(fd < 8 for fd in live), kinds)
must(all(k.startswith(('pipe:', '/dev/null', HERE)) for k in kinds.values()), kinds)

#: inherited-directories | a leaked descriptor of a directory outside (CVE-2024-21626)
extra = [os.open('/', os.O_RDONLY)] if OUTSIDE else []
for fd in range(4096):
    here = os.open('.', os.O_RDONLY)
    try: os.fchdir(fd)
    except OSError: continue
    finally: os.close(here)
    must(empty('.' + CANARY), 'descriptor %d is a directory outside' % fd)
must(True, '')

#: leaked-event-fds | the runtime's own event descriptors reach the program
kinds = [os.readlink('/proc/self/fd/' + fd) for fd in os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + fd)]
if OUTSIDE: kinds.append(os.readlink('/proc/self/fd/%d' % os.eventfd(0)))
must(not any('anon_inode' in k or 'socket' in k for k in kinds), kinds)

#: leaked-namespace-fds | a descriptor of a namespace of the host, for setns (CVE-2023-25809 and kin)
kinds = [os.readlink('/proc/self/fd/' + fd) for fd in os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + fd)]
if OUTSIDE: kinds.append(os.readlink('/proc/self/fd/%d' % os.open('/proc/self/ns/net', os.O_RDONLY)))
must(not any(k.split(':')[0] in ('mnt', 'net', 'pid', 'user', 'uts', 'ipc', 'cgroup', 'time') for k in kinds), kinds)

#: cwd | a working directory outside of the root (CVE-2024-21626)
os.chdir('/proc/self/cwd')
must(empty('/proc/self/cwd' + '/..' * 20 + CANARY), 'reached the host by ..')
must(os.getcwd().startswith('/work') or OUTSIDE, os.getcwd())

#: dot-dot-at-root | .. above the root
must(empty('/..' * 40 + CANARY) and empty(CANARY), 'the canary')
must(os.stat('/..').st_ino == os.stat('/').st_ino, 'another root above')

#: fchdir-escape | chroot breakout by a directory that stays open outside
fd = os.open('/', os.O_RDONLY | os.O_DIRECTORY)
jail = fresh('jail')
done = refused(os.chroot, jail, codes=(errno.EPERM,))
if not done:
    os.fchdir(fd)
must(done, 'chroot was allowed')

#: openat2-flags | openat2 without its limits from a directory descriptor
fd = os.open('/', os.O_PATH)
how = struct.pack('QQQ', os.O_RDONLY, 0, 0)
r = libc.syscall(ctypes.c_long(437), fd, ('../' * 20 + CANARY.lstrip('/')).encode(), how, 24)
must(r < 0, 'opened the canary')

#: proc-fd-reopen | a read-only descriptor of the host's file opened anew for writing through /proc/self/fd | root
fd = os.open('/usr/bin/env', os.O_RDONLY)
must(not writable('/proc/self/fd/%d' % fd) and not writable('/dev/fd/%d' % fd), '/usr/bin/env')
must(not writable('/proc/thread-self/fd/%d' % fd), 'by the thread')

#: memfd-exec | a program without a file, to get around mount options
fd = os.memfd_create('x')
os.write(fd, b'#!/bin/sh\nid -u > /dev/null; grep NoNewPrivs /proc/self/status\n')
out = subprocess.run(['/proc/self/fd/%d' % fd], capture_output=True, text=True, pass_fds=[fd]).stdout
must('NoNewPrivs:\t1' in out, 'new privileges in %r' % out)

#: scm-rights | a descriptor of the host's received over a socket
s = socket.socket(socket.AF_UNIX)
must(refused(s.connect, FACTS['unix']), 'a socket of the host by path')
must(refused(s.connect, '/proc/1/root' + FACTS['unix']), 'by the root of pid 1')

#: standard-streams | standard input, output and error lead to the host's files (CVE-2024-23651 and kin)
for fd in (0, 1, 2, *([os.open('/etc', os.O_RDONLY)] if OUTSIDE else [])):
    st = os.fstat(fd)
    must(not stat.S_ISREG(st.st_mode) and not stat.S_ISDIR(st.st_mode) and not stat.S_ISBLK(st.st_mode), fd)
    must(not os.isatty(fd), 'a terminal at %d' % fd)
