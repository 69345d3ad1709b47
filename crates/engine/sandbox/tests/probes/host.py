# What a sandbox must not reach: a process on the host that holds things for the probes to look for. It prints what it holds as
# one line of JSON, and ends with its standard input.
import ctypes, json, os, socket, sys, tempfile

libc = ctypes.CDLL(None, use_errno=True)
me = os.getpid()
name = 'prism-host-%d' % me
keep = []

canary = os.path.join(tempfile.mkdtemp(prefix='prism-canary-'), 'canary')
with open(canary, 'w') as f:
    f.write('secret of the host\n')
os.chmod(os.path.dirname(canary), 0o755)


def listen(family, kind, at):
    s = socket.socket(family, kind)
    s.bind(at)
    if kind != socket.SOCK_DGRAM:
        s.listen()
    keep.append(s)
    return s.getsockname()


facts = {
    'victim': me,
    'canary': canary,
    'tcp': listen(socket.AF_INET, socket.SOCK_STREAM, ('0.0.0.0', 0))[1],
    'udp': listen(socket.AF_INET, socket.SOCK_DGRAM, ('0.0.0.0', 0))[1],
    'tcp6': 0,
    'unix': canary + '.sock',
    'abstract': name,
}
try:
    facts['tcp6'] = listen(socket.AF_INET6, socket.SOCK_STREAM, ('::1', 0))[1]
except OSError:
    pass  # no IPv6 here
listen(socket.AF_UNIX, socket.SOCK_STREAM, facts['unix'])
listen(socket.AF_UNIX, socket.SOCK_STREAM, '\0' + name)
listen(socket.AF_UNIX, socket.SOCK_DGRAM, '\0' + name + '-dgram')
listen(socket.AF_UNIX, socket.SOCK_SEQPACKET, '\0' + name + '-seq')

probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    probe.connect(('192.0.2.77', 9))
    facts['address'], facts['route'] = probe.getsockname()[0], True
except OSError:
    facts['address'], facts['route'] = '127.0.0.2', False

key = 0x5052_0000 | me & 0xffff
facts['key'] = key
segment = libc.shmget(key, 4096, 0o1666)
queue = libc.msgget(key, 0o1666)
sems = libc.semget(key, 1, 0o1666)
facts['sysv'] = min(segment, queue, sems) >= 0
facts['shm'] = '/dev/shm/' + name
try:
    with open(facts['shm'], 'w') as f:
        f.write('shared memory of the host\n')
except OSError:
    facts['shm'] = canary
facts['mq'] = '/' + name
facts['mq_made'] = libc.syscall(240, facts['mq'].encode()[1:], 0o102, 0o666, None) >= 0
facts['hostname'] = socket.gethostname()
memory = ctypes.create_string_buffer(b'memory of the host')
facts['memory'] = ctypes.addressof(memory)
facts['namespaces'] = {n: os.readlink('/proc/self/ns/' + n) for n in os.listdir('/proc/self/ns')}
print(json.dumps(facts), flush=True)
sys.stdin.read()
libc.shmctl(segment, 0, None)
libc.msgctl(queue, 0, None)
libc.semctl(sems, 0, 0)
libc.syscall(241, facts['mq'].encode()[1:])
for path in (facts['unix'], facts['shm'], canary):
    if os.path.exists(path):
        os.unlink(path)
os.rmdir(os.path.dirname(canary))
