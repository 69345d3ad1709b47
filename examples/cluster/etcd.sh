# Sourced by run.sh: an etcd of one member, and in `keep` what servers are told of it. Off loopback it speaks TLS, and is known by an
# authority that is made here.
say "an etcd"
export ETCDCTL_API=3
about=() known=()
if [ -n "$machines" ]; then
    at=$(etcd_url 0)
    host=${at#https://} host=${host%:*}
    {
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=etcd-authority \
            -keyout ca.key -out ca.pem -addext keyUsage=critical,keyCertSign
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=etcd -keyout etcd.key -out etcd.csr
        printf 'subjectAltName=IP:%s\nextendedKeyUsage=serverAuth\n' "$host" > etcd.ext
        openssl x509 -req -in etcd.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -extfile etcd.ext -out etcd.pem
    } 2> openssl.log
    about=(--cert-file=etcd.pem --key-file=etcd.key)
    known=(--cacert=ca.pem)
    keep=(--etcd-ca=ca.pem)
fi
# Ports that another program has make it end: others are tried.
for try in $(seq 42379 10 42479); do
    at=$(etcd_url "$try") peer=http://127.0.0.1:$((try + 1))
    etcd --data-dir=etcd --listen-client-urls="$at" --advertise-client-urls="$at" --listen-peer-urls="$peer" \
        --initial-advertise-peer-urls="$peer" --initial-cluster="default=$peer" "${about[@]}" > etcd.log 2>&1 &
    pid[etcd]=$!
    for _ in $(seq 50); do
        if ! kill -0 "${pid[etcd]}" 2> /dev/null; then break; fi
        if etcdctl --endpoints="$at" "${known[@]}" endpoint health > /dev/null 2>&1; then break 2; fi
        sleep 0.2
    done
    wait "${pid[etcd]}" || rm -rf etcd
done
keep+=(--store=etcd --etcd-endpoints="$at")
