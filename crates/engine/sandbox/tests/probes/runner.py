# Runs probes, each in a process of its own, and prints a line for each: name, verdict, what it found.
# A probe calls must(<the way out is closed>, <what>); one open way makes the verdict ESCAPED. Outside of a sandbox (a control)
# the same probes run with OUTSIDE set, and are written so that finding the way open does no harm.
import array, ctypes, errno, fcntl, json, mmap, os, resource, signal, socket, stat, struct, subprocess, sys, time

libc = ctypes.CDLL(None, use_errno=True)
OUTSIDE = 'OUTSIDE' in os.environ
ROOT = os.environ['MODE'] == 'root'
HERE = os.environ['HERE']
FACTS = json.loads(os.environ['FACTS'])
CANARY = FACTS['canary']
VICTIM = FACTS['victim']
bad, checks = [], 0


def must(ok, what):
    """Notes one check: whether a way out is closed."""
    global checks
    checks += 1
    if not ok:
        bad.append(str(what)[:300])


def refused(f, *a, codes=None):
    """Whether a call fails, with one of these errors if they are given."""
    try:
        f(*a)
    except OSError as e:
        return codes is None or e.errno in codes
    return False


def call(number, *args):
    """A system call; its error, or 0."""
    ctypes.set_errno(0)
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    r = libc.syscall(ctypes.c_long(number), *args)
    return 0 if r >= 0 else ctypes.get_errno()


def denied(number, *args):
    """Whether a system call is refused for want of the right to make it, whatever its arguments are."""
    return call(number, *args) in (errno.EPERM, errno.EACCES, errno.ENOSYS)


def writable(path):
    """Whether a file can be opened for writing; nothing is written."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def openable(path):
    """Whether a file can be opened for reading."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def read(path, n=1 << 16):
    with open(path, 'rb') as f:
        return f.read(n)


def empty(path):
    """Whether a file says nothing."""
    try:
        return read(path, 4096) == b''
    except OSError:
        return True


def fresh(name):
    """A new directory of the probe's own."""
    path = os.path.join(HERE, name + str(os.getpid()))
    os.makedirs(path)
    return path


def status(text=None):
    text = text or read('/proc/self/status').decode()
    return dict(line.split(':\t', 1) for line in text.splitlines() if ':\t' in line)


def child(f):
    """Runs a function in a process of its own; how that ended (a wait status)."""
    pid = os.fork()
    if pid == 0:
        try:
            f()
        except BaseException:
            os._exit(99)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def machine_code(code):
    """Runs machine code in a process of its own; how that ended."""
    def run():
        m = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        m.write(code)
        ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()
    return child(run)


def killed(ended):
    """Whether the kernel killed it for a system call (or for an instruction that it does not have)."""
    return os.WIFSIGNALED(ended) and os.WTERMSIG(ended) in (signal.SIGSYS, signal.SIGSEGV)


def processes():
    return [p for p in os.listdir('/proc') if p.isdigit()]


def one(name, source):
    signal.alarm(60)
    try:
        exec(compile(source, name, 'exec'), globals())
        if checks == 0:
            return 'BROKEN\tno checks'
    except BaseException as e:
        return 'BROKEN\t%s: %s; %s' % (type(e).__name__, e, '; '.join(bad))
    return 'ESCAPED\t%s' % '; '.join(bad) if bad else 'HELD\t%d checks' % checks


def main():
    os.makedirs(HERE, exist_ok=True)
    os.chdir(HERE)
    with open(sys.argv[1]) as f:
        probes = json.load(f)
    for name, source in probes:
        from_it, to_it = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(from_it)
            said = one(name, source)
            os.write(to_it, said.replace('\n', ' ')[:2000].encode(errors='replace'))
            os._exit(0)
        os.close(to_it)
        said = b''
        while part := os.read(from_it, 4096):
            said += part
        os.close(from_it)
        ended = os.waitpid(pid, 0)[1]
        print('%s\t%s' % (name, said.decode() or 'DIED\twait status %#x' % ended), flush=True)


main()
