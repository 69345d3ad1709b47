# The network: addresses outside, kinds of sockets, and other ways to be heard.

#: interfaces | a network interface of the host
names = [n for _, n in socket.if_nameindex()]
must(set(names) <= {'lo'} and not os.path.exists('/sys/class/net'), names)

#: routes | a route that leads out | route
must(len(read('/proc/net/route').splitlines()) <= 1, 'IPv4 routes')
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
must(refused(s.connect, ('192.0.2.77', 9)), 'a route to anywhere')

#: metadata-v4 | a cloud's metadata service at 169.254.169.254 | route
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
must(refused(s.connect, ('169.254.169.254', 80), codes=(errno.ENETUNREACH,)), 'a route')
if not OUTSIDE:
    s = socket.socket()
    s.settimeout(2)
    must(refused(s.connect, ('169.254.169.254', 80), codes=(errno.ENETUNREACH,)), 'a connection')

#: metadata-tasks | metadata services of tasks and pods (169.254.170.2, 169.254.170.23, 100.100.100.200, 168.63.129.16) | route
for at in ('169.254.170.2', '169.254.170.23', '100.100.100.200', '168.63.129.16', '192.0.0.192', '169.254.42.42'):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    must(refused(s.connect, (at, 80), codes=(errno.ENETUNREACH,)), at)

#: metadata-v6 | metadata over IPv6 (fd00:ec2::254, fd20:ce::254) and link-local addresses | route
for at in (('fd00:ec2::254', 80), ('fd20:ce::254', 80), ('fe80::a9fe:a9fe', 80, 0, 1), ('fe80::1', 80, 0, 1), ('64:ff9b::a9fe:a9fe', 80), ('::ffff:169.254.169.254', 80), ('2002:a9fe:a9fe::1', 80)):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    must(refused(s.connect, at, codes=(errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EHOSTUNREACH)), at)

#: metadata-forms | metadata addresses written in other ways (SSRF) | route
for at in ('2852039166', '0xa9fea9fe', '0251.0376.0251.0376', '169.16689662'):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    must(refused(s.connect, (socket.inet_ntoa(socket.inet_aton(at)), 80), codes=(errno.ENETUNREACH,)), at)

#: dns | a name server, for names or to carry data out | route
for at in ('8.8.8.8', '1.1.1.1', '192.0.2.53'):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    must(refused(s.sendto, b'\0' * 12, (at, 53)) if not OUTSIDE else refused(s.connect, (at, 53)), at)
must(not os.path.exists('/run/systemd/resolve') and b'nameserver' not in read('/etc/resolv.conf'), 'a name server is set')

#: host-loopback | services on the host's loopback
s = socket.socket(); s.settimeout(2)
must(refused(s.connect, ('127.0.0.1', FACTS['tcp'])), '127.0.0.1')
s = socket.socket(); s.settimeout(2)
must(refused(s.connect, ('127.8.8.8', FACTS['tcp'])), '127.8.8.8')
s = socket.socket(); s.settimeout(2)
must(refused(s.connect, ('0.0.0.0', FACTS['tcp'])), '0.0.0.0')

#: host-loopback-v6 | services on the host's IPv6 loopback
s = socket.socket(socket.AF_INET6); s.settimeout(2)
must(refused(s.connect, ('::1', FACTS['tcp6'])), '::1')
s = socket.socket(socket.AF_INET6); s.settimeout(2)
must(refused(s.connect, ('::ffff:127.0.0.1', FACTS['tcp'])), '::ffff:127.0.0.1')

#: host-address | services on the host's own address
s = socket.socket(); s.settimeout(2)
must(refused(s.connect, (FACTS['address'], FACTS['tcp'])), FACTS['address'])

#: host-udp | datagrams to the host
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)
must(refused(s.connect, (FACTS['address'], FACTS['udp'])), 'connected')
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('127.0.0.1', FACTS['udp'])); s.send(b'x'); time.sleep(0.01)
must(refused(s.send, b'x', codes=(errno.ECONNREFUSED,)), 'loopback')

#: tcp-fast-open | data in the first packet (MSG_FASTOPEN) | none
s = socket.socket(); s.settimeout(2)
must(refused(s.sendto, b'x', 0x20000000, ('127.0.0.1', FACTS['tcp'])), 'sent')

#: multipath-and-sctp | other protocols over IP: MPTCP, SCTP, DCCP, UDP-Lite
found = []
for kind, proto in ((1, 262), (1, 132), (6, 33), (2, 136)):
    try: s = socket.socket(socket.AF_INET, kind, proto)
    except OSError: continue
    s.settimeout(2)
    if not refused(s.connect, (FACTS['address'] if kind == 1 else '192.0.2.77', FACTS['tcp'])): found.append(proto)
must(not found, found)

#: abstract-stream | abstract sockets of the host (CVE-2020-15257)
s = socket.socket(socket.AF_UNIX)
must(refused(s.connect, '\0' + FACTS['abstract']), 'connected')

#: abstract-others | abstract datagram and packet sockets of the host
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
must(refused(s.sendto, b'x', '\0' + FACTS['abstract'] + '-dgram'), 'datagram')
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
must(refused(s.connect, '\0' + FACTS['abstract'] + '-seq'), 'packet')

#: abstract-list | abstract sockets of the host are seen
must(FACTS['abstract'] not in read('/proc/net/unix', 1 << 22).decode(), 'listed')

#: unix-path | a socket of the host by its path
s = socket.socket(socket.AF_UNIX)
must(refused(s.connect, FACTS['unix']), 'connected')

#: net-tables | connections of the host are seen
for f in ('tcp', 'tcp6', 'udp'):
    must((':%04X ' % FACTS['tcp']).encode() not in read('/proc/net/' + f, 1 << 22) and (':%04X ' % FACTS['udp']).encode() not in read('/proc/net/' + f, 1 << 22), f)

#: packet-sockets | raw packets (CVE-2016-8655, CVE-2020-14386)
for kind in (2, 3, 10):
    must(refused(socket.socket, 17, kind, 0x300, codes=(errno.EPERM,)) and not (OUTSIDE and not ROOT), kind)

#: raw-sockets | raw IP: spoofed SYN, ICMP redirects | root
for family, proto in ((2, 1), (2, 255), (2, 6), (10, 58), (10, 255)):
    must(refused(socket.socket, family, socket.SOCK_RAW, proto), (family, proto))

#: ping-sockets | ICMP without privilege | none
s = None
try: s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1)
except OSError: pass
must(s is None or refused(s.sendto, struct.pack('BBHHH', 8, 0, 0, 0, 0), (FACTS['address'], 0)), 'sent')

#: vsock | the hypervisor, by vsock
must(refused(socket.socket, 40, socket.SOCK_STREAM, 0, codes=(errno.EPERM,)), 'AF_VSOCK')

#: alg-sockets | the kernel's ciphers (AF_ALG, CVE-2019-8912)
must(refused(socket.socket, 38, socket.SOCK_SEQPACKET, 0, codes=(errno.EPERM,)), 'AF_ALG')

#: netlink-nft | nftables by netlink (CVE-2022-1015, CVE-2023-32233, CVE-2024-1086)
must(refused(socket.socket, 16, socket.SOCK_RAW, 12, codes=(errno.EPERM,)), 'NETLINK_NETFILTER')

#: netlink-others | other netlink families: audit, uevents, xfrm, generic, crypto, connector, sock_diag
for proto in (4, 6, 9, 11, 15, 16, 18, 20, 21, 22):
    must(refused(socket.socket, 16, socket.SOCK_RAW, proto, codes=(errno.EPERM,)), proto)

#: netlink-route-writes | making interfaces, addresses and routes by netlink | root
s = socket.socket(16, socket.SOCK_RAW, 0)
body = struct.pack('BxHiII', 0, 0, 0x7fffff, 0, 0)
s.send(struct.pack('IHHII', 16 + len(body), 16, 5, 1, 0) + body)
answer = s.recv(4096)
must(struct.unpack('IHHIIi', answer[:20])[5] == -errno.EPERM, 'RTM_NEWLINK: %r' % answer[:20])

#: socket-families | other families: bluetooth, CAN, TIPC, KCM, SMC, XDP, RDS, AX.25, NFC, RXRPC, QIPCRTR
for family in (3, 4, 5, 9, 19, 21, 23, 24, 26, 28, 29, 30, 31, 33, 37, 39, 41, 42, 43, 44, 45):
    for kind in (1, 2, 3, 5):
        must(refused(socket.socket, family, kind, 0, codes=(errno.EPERM,)), (family, kind))

#: socket-high-bits | a forbidden family with bits above the 32nd set
must(call(41, ctypes.c_ulong(1 << 32 | 17), 3, 0x300) == errno.EPERM and call(41, ctypes.c_ulong(7 << 33 | 16), 3, 12) == errno.EPERM, 'socket')

#: socket-options | options that need privilege: marks, devices, forced buffers, transparent proxies, filters attached | root
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for level, name, value in ((1, 36, 1), (1, 32, 1 << 24), (1, 33, 1 << 24), (0, 19, 1), (1, 12, 7)):
    must(refused(s.setsockopt, level, name, value), (level, name))

#: socket-pair-credentials | another's identity over a socket (SCM_CREDENTIALS) | root
a, b = socket.socketpair()
b.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
for cred in ((1, 0, 0), (os.getpid(), 1, 1)):
    must(refused(a.sendmsg, [b'x'], [(socket.SOL_SOCKET, 2, struct.pack('iII', *cred))]), cred)

#: low-ports | ports of the host's services
s = socket.socket()
if OUTSIDE: must(refused(s.bind, (FACTS['address'], 0)), 'an address of the host')
else:
    must(refused(s.bind, (FACTS['address'], 0)) or FACTS['address'].startswith('127.'), 'an address of the host')
    s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()
    socket.create_connection(s.getsockname())

#: interface-ioctls | changing an interface by ioctl | root
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
# Of an interface that is not there: who may, is told so.
for request in (0x8914, 0x8916, 0x8922, 0x8924):
    must(refused(fcntl.ioctl, s, request, b'prism-none'.ljust(40, b'\0'), codes=(errno.EPERM,)), hex(request))

#: setsockopt-iptables | rules of iptables (CVE-2021-22555) | root
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for name in (64, 65):
    must(refused(s.setsockopt, 0, name, b'\0' * 96, codes=(errno.EPERM, errno.ENOPROTOOPT)), name)
must(refused(s.getsockopt, 0, 64, 84, codes=(errno.EPERM, errno.ENOPROTOOPT)), 'the rules')
