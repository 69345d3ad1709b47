# System calls that reach deep into the kernel, and what a sandbox has no business with.

#: bpf | bpf (CVE-2021-3490, CVE-2022-23222) | root
attr = ctypes.create_string_buffer(struct.pack('IIII', 2, 4, 8, 1), 128)
must(denied(321, 0, attr, 72) and denied(321, 5, attr, 72), 'bpf')

#: perf | perf_event_open (CVE-2022-1729, CVE-2023-5717)
must(denied(298, None, 0, -1, -1, 0), 'perf_event_open')

#: userfaultfd | userfaultfd, to win races in the kernel (CVE-2021-22555 kin)
must(denied(323, 1) and not openable('/dev/userfaultfd'), 'userfaultfd')

#: io-uring | io_uring, which does what the filter forbids (CVE-2022-29582, CVE-2023-2598)
params = ctypes.create_string_buffer(256)
must(denied(425, 8, params), 'io_uring_setup')
must(denied(426, -1, 1, 0, 0, None, 0) and denied(427, -1, 0, None, 0), 'enter, register')

#: keyctl | session and user keyrings of the host (CVE-2016-0728)
must(denied(250, 0, -3, 0) and denied(250, 0, -4, 0), 'keyctl')

#: add-key | adding a key, by which the quota of others is used up (CVE-2017-15951 kin)
must(denied(248, b'user', b'prism-probe', b'y', 1, -1), 'add_key')

#: request-key | request_key, which starts a program on the host
must(denied(249, b'user', b'prism-no-such-key', None, 0), 'request_key')

#: init-module | loading a module | none
must(denied(175, None, 0, b''), 'init_module')
must(denied(313, -1, b'', 0), 'finit_module')

#: delete-module | unloading a module | none
must(denied(176, b'prism-no-such-module', 0), 'delete_module')

#: kexec | another kernel | none
must(denied(246, 0, 0, None, 0xffff0000) and denied(320, -1, -1, 0, None, 0xffff), 'kexec')

#: reboot | reboot | root
must(denied(169, 0, 0, 0, None), 'reboot')

#: swapon | swap on a file of its own | root
must(denied(167, b'/prism-no-such-file', 0) and denied(168, b'/prism-no-such-file'), 'swapon, swapoff')

#: settime | the clock
must(denied(164, None, None), 'settimeofday')
must(denied(227, 0, None), 'clock_settime')

#: adjtime | the speed of the clock
must(denied(159, None) and denied(305, 0, None), 'adjtimex, clock_adjtime')

#: syslog | the kernel's log | root
must(denied(103, 10, None, 0), 'its size')
must(denied(103, 3, None, 0) and not openable('/proc/kmsg') and not openable('/dev/kmsg'), 'its text')

#: acct | process accounting to a file | root
must(denied(163, b'/prism/no/such/file'), 'acct')

#: quotactl | quotas of file systems
must(denied(179, 0x80000700, None, 0, None) and denied(443, -1, 0x80000700, 0, None), 'quotactl')

#: personality | personalities: no randomisation, old layouts
for p in (0x0040000, 0x0100000, 0x0400000, 8, 0x0020000):
    must(denied(135, p), hex(p))

#: vhangup | hanging up terminals | root
os.setsid()
must(denied(153), 'vhangup')

#: modify-ldt | modify_ldt (CVE-2015-5157 kin)
must(denied(154, 0, ctypes.create_string_buffer(16), 16), 'modify_ldt')

#: lookup-dcookie-and-old | calls that nothing needs any more
for number in (134, 139, 156, 174, 177, 178, 180, 181, 183, 184, 185, 212):
    must(denied(number, None, None, None), number)
must(denied(139, 1, 0, 0), 'sysfs')

#: fanotify | watching all files of a mount
must(denied(300, 0, 0) and denied(300, 0x200, 0), 'fanotify_init')
must(denied(301, -1, 1, 0, -100, None), 'fanotify_mark')

#: memory-policy | binding memory to nodes
must(denied(237, None, 0, 0, None, 0, 0) and denied(238, 0, None, 0), 'mbind, set_mempolicy')

#: ustat | statistics of any device
must(denied(136, 0x800, ctypes.create_string_buffer(64)), 'ustat')

#: secret-memory | memory that the kernel cannot see
must(denied(447, 0), 'memfd_secret')

#: lsm-calls | settings of security modules
must(denied(459, 100, None, None, 0) and denied(460, 100, None, 0, 0), 'lsm_get_self_attr, lsm_set_self_attr')

#: unknown-calls | calls that the filter does not know yet
for number in (471, 480, 511, 600, 4095):
    must(call(number) == errno.ENOSYS, number)
must(denied(467, -100, b'/', 1, None, 0), 'the newest that it knows')

#: ia32-calls | system calls by 32-bit numbers (int 0x80), which another filter would have to check
# getpid
must(killed(machine_code(b'\xb8\x14\x00\x00\x00\xcd\x80\xc3')), 'int 0x80')

#: ia32-mount | mount by its 32-bit number (21 there is access here)
must(killed(machine_code(b'\xb8\x15\x00\x00\x00\x31\xdb\x31\xc9\x31\xd2\xcd\x80\xc3')), 'int 0x80')

#: x32-calls | system calls by x32 numbers (bit 30)
must(killed(machine_code(b'\xb8\x27\x00\x00\x40\x0f\x05\xc3')), 'getpid')

#: x32-negative | numbers that are negative or huge
must(killed(machine_code(b'\xb8\xff\xff\xff\xff\x0f\x05\xc3')) and killed(machine_code(b'\xb8\x9c\x00\x00\xc0\x0f\x05\xc3')), 'numbers')

#: landlock | landlock's own rules cannot be taken back | root
at = os.path.join(HERE, 'node')
must(call(259, -100, at.encode(), 0o20600, 0x103) != 0, 'a device node by mknodat')
must(refused(os.mknod, at, 0o60600, 0x700), 'a block device')

#: speculation | settings against speculative execution (prctl)
must(status().get('Seccomp') == '2', 'no filter')

#: core-scheduling-and-mm | prctl that changes the memory map of a process (PR_SET_MM)
must(libc.prctl(35, 8, 0x10000, 0, 0) != 0 and libc.prctl(35, 13, -1, 0, 0) != 0, 'PR_SET_MM')
must(refused(os.readlink, '/proc/1/exe') if not OUTSIDE else refused(os.readlink, '/proc/%d/exe' % VICTIM), 'the program of pid 1')

#: io-flusher | prctl that takes from the reserves of memory (PR_SET_IO_FLUSHER) | none
must(libc.prctl(57, 1, 0, 0, 0) != 0, 'PR_SET_IO_FLUSHER')

#: nfs-and-handles | nfsservctl, name_to_handle_at with connectable handles
must(denied(180, 0, None, None), 'nfsservctl')
must(denied(304, -100, None, 0), 'open_by_handle_at')

#: set-tid-robust | robust lists of other processes
head, size = ctypes.c_long(), ctypes.c_long()
must(call(274, VICTIM, ctypes.byref(head), ctypes.byref(size)) != 0, 'get_robust_list')
