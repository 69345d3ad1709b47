# Capabilities, identities, and programs that gain privilege.

#: capabilities | capabilities that are left over (CVE-2022-24769, CVE-2022-29162)
s = status()
must(all(int(s[k], 16) == 0 for k in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')), s)

#: capabilities-across-exec | capabilities regained by exec as root inside
out = subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True).stdout
s = status(out)
must(all(int(s[k], 16) == 0 for k in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')), s)

#: no-new-privs | no_new_privs not set
must(status()['NoNewPrivs'] == '1', 'of this process')
must('NoNewPrivs:\t1' in subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True).stdout, 'after exec')
must(libc.prctl(38, 0, 0, 0, 0) != 0, 'set back')

#: seccomp-on | no filter, or one that can be taken off
must(status()['Seccomp'] == '2', status()['Seccomp'])
must(libc.prctl(22, 0, 0, 0, 0) != 0 and call(317, 0xff, 0, None) != 0, 'set back')
must(status()['Seccomp'] == '2', 'after trying')

#: seccomp-listener | a supervisor of its own for the filter, that lets calls through (CVE-2022-30594)
program = struct.pack('HBBI', 6, 0, 0, 0x7fff0000)
buf = ctypes.create_string_buffer(program)
prog = struct.pack('HxxxxxxQ', 1, ctypes.addressof(buf))
# A filter that allows everything, on top: the strictest one counts.
r = call(317, 1, 0, prog)
must(libc.mount(b'tmpfs', HERE.encode() if not OUTSIDE else fresh('x').encode(), b'tmpfs', 0, None) != 0, 'mounted')
must(denied(321, 5, ctypes.create_string_buffer(128), 72) and denied(425, 8, ctypes.create_string_buffer(256)), 'bpf, io_uring')

#: seccomp-inherit | a child or thread without the filter
import threading
found = []
t = threading.Thread(target=lambda: found.append(status(read('/proc/thread-self/status').decode())['Seccomp']))
t.start(); t.join()
must(found == ['2'], found)
must(child(lambda: os._exit(0 if status()['Seccomp'] == '2' else 1)) == 0, 'a child')

#: prctl-capbset | the bounding set and ambient capabilities widened
for cap in (0, 1, 6, 7, 12, 21):
    must(libc.prctl(23, cap, 0, 0, 0) == 0, 'cap %d in the bounding set' % cap)
    must(libc.prctl(47, 2, cap, 0, 0) != 0, 'ambient cap %d' % cap)

#: capset | setting capabilities
header = struct.pack('Ii', 0x20080522, 0)
want = struct.pack('IIIIII', 1 << 21, 1 << 21, 0, 0, 0, 0)
must(call(126, header, want) == errno.EPERM, 'CAP_SYS_ADMIN')

#: keepcaps-securebits | secure bits and keeping capabilities over a change of ids
must(libc.prctl(28, 0x2f, 0, 0, 0) != 0, 'securebits')

#: setuid | other users' ids | root
for f, args in ((os.setuid, (1,)), (os.setgid, (1,)), (os.setgroups, ([1, 2],)), (os.setresuid, (1, 1, 1)), (os.setreuid, (1, 1))):
    must(refused(f, *args), f)

#: setfsuid | files as another user | root
libc.setfsuid(1); must(libc.setfsuid(-1) != 1, 'setfsuid')
libc.setfsgid(1); must(libc.setfsgid(-1) != 1, 'setfsgid')

#: chown | giving files to others | root
at = os.path.join(HERE, 'owned'); open(at, 'w').close()
for ids in ((1, 1), (65534, 65534), (1000, -1), (-1, 1000)):
    must(refused(os.chown, at, *ids) or not ROOT, ids)
os.unlink(at)

#: setuid-programs | set-user-id programs of the host (su, mount, sudo, pkexec: CVE-2021-4034)
found = [p for d in ('/usr/bin', '/usr/sbin', '/usr/libexec') if os.path.isdir(d) for p in (os.path.join(d, n) for n in os.listdir(d)) if os.path.isfile(p) and os.stat(p).st_mode & stat.S_ISUID]
for p in found or ['/usr/bin/env']:
    must(os.statvfs(p).f_flag & os.ST_NOSUID, p)
before = status()['Uid']
must(subprocess.run(['sh', '-c', 'exec 2>&1; mount -t tmpfs x /tmp; su -c id nobody < /dev/null; true'] if not OUTSIDE else ['true'], capture_output=True, timeout=30).returncode in (0, 1, 2, 126, 127), '')

#: own-setuid | a set-user-id program of its own making
at = os.path.join(HERE, 'suid')
with open(at, 'wb') as f: f.write(read('/usr/bin/env', 1 << 22))
os.chmod(at, 0o6755)
must(os.statvfs(at).f_flag & os.ST_NOSUID, 'runs with its owner')
must('NoNewPrivs:\t1' in subprocess.run([at, 'cat', '/proc/self/status'], capture_output=True, text=True).stdout, 'no_new_privs is off')
os.unlink(at)

#: file-capabilities | a program with file capabilities (CVE-2018-18955 kin)
at = os.path.join(HERE, 'caps')
with open(at, 'wb') as f: f.write(read('/usr/bin/env', 1 << 22))
os.chmod(at, 0o755)
value = struct.pack('IIIII', 0x02000001, 1 << 21 | 1 << 1, 0, 0, 0)
must(refused(os.setxattr, at, 'security.capability', value), 'security.capability')
s = status(subprocess.run([at, 'cat', '/proc/self/status'], capture_output=True, text=True).stdout)
must(int(s['CapEff'], 16) == 0, s['CapEff'])
os.unlink(at)

#: trusted-xattrs | attributes that only the host's root may set (overlay's redirects, CVE-2021-3493) | root
at = os.path.join(HERE, 'x'); open(at, 'w').close()
for name in ('trusted.overlay.redirect', 'trusted.overlay.opaque', 'security.prism', 'trusted.x'):
    must(refused(os.setxattr, at, name, b'/'), name)
os.unlink(at)

#: shocker | open_by_handle_at on a guessed handle (CVE-2014-3519 kin) | root
handle = ctypes.create_string_buffer(struct.pack('IiQ', 8, 1, 2), 128)
for at in ('/', '/usr', HERE, '/proc'):
    fd = os.open(at, os.O_RDONLY)
    must(denied(304, fd, handle, 0), at)

#: shocker-own-handle | open_by_handle_at on a handle that the kernel gave out | root
handle = ctypes.create_string_buffer(struct.pack('Ii', 120, 0), 128)
mount_id = ctypes.c_int()
call(303, -100, b'/usr', handle, ctypes.byref(mount_id), 0)
must(denied(304, os.open('/usr', os.O_RDONLY), handle, 0), 'opened')

#: dac-override | files that their owner closed to all
at = os.path.join(HERE, 'closed'); open(at, 'w').close(); os.chmod(at, 0)
must(refused(os.open, at, os.O_RDONLY), 'read')
os.unlink(at)

#: dumpable | a dumpable process can be read by others of the same user
must(not openable('/proc/1/mem') and not openable('/proc/1/environ') if not OUTSIDE else not openable('/proc/%d/environ' % VICTIM), 'pid 1 is dumpable')

#: inherited-secrets | secrets in the inherited environment (vm0#501)
known = {'PATH', 'MODE', 'HERE', 'FACTS', 'LC_CTYPE', 'PWD', 'OLDPWD', 'SHLVL', '_'}
must(set(os.environ) <= known, sorted(set(os.environ) - known))
raw = {part.split(b'=')[0].decode() for part in read('/proc/self/environ').split(b'\0') if part}
must(raw <= known, sorted(raw - known))
