#!/usr/bin/env bash
# A cluster of three servers and three workers, as processes of this machine. Submits an array of tasks, kills the leader in the middle,
# stops a worker for longer than it may be silent, and counts what was recorded: every task once.
#
#   examples/cluster/run.sh [--store=etcd] [TASKS]
#
# 100,000 tasks unless said; needs prismd and prismctl in PATH. With --store=etcd the state is kept in an etcd that the script starts;
# that needs etcd and etcdctl in PATH, too.
set -euo pipefail

store=raft
case ${1:-} in
    --store=raft | --store=etcd)
        store=${1#--store=}
        shift
        ;;
    --*)
        echo "$1: expected --store=raft or --store=etcd, then a number of tasks" >&2
        exit 2
        ;;
esac
tasks=${1:-100000}
here=$(mktemp -d)
export HOME=$here XDG_STATE_HOME=$here/state XDG_CONFIG_HOME=$here/config
cd "$here"
declare -A pid
finish() {
    code=$?
    set +e
    for p in "${pid[@]}"; do kill -CONT "$p"; kill "$p"; done 2> /dev/null
    wait
    if [ "$code" = 0 ]; then rm -rf "$here"; else echo "logs are in $here" >&2; fi
    exit "$code"
}
trap finish EXIT
say() { printf '%(%T)T  %s\n' -1 "$*"; }
wait_for() {
    for _ in $(seq 600); do
        if eval "$1" > /dev/null 2>&1; then return; fi
        sleep 0.2
    done
    echo "not in two minutes: $1" >&2
    exit 1
}
daemon() {
    local name=$1
    shift
    # The names of servers are contexts of prismctl; each writes its own.
    prismd --name="$name" --data-dir="$name" --allow-plain --pressure-threshold=0.97 "$@" > "$name.txt" 2>> "$name.log" &
    pid[$name]=$!
}
keep=()
server() { daemon "$1" --api=127.0.0.1:0 --serf=127.0.0.1:0 "${keep[@]}" "${@:2}"; }
peers() { prismctl --context "$1" peer ls; }
leader() { peers "$1" | awk '$3 == "leader" { print $1 }'; }
completed() { prismctl --context "$1" job get many -o json | grep -o '"completed": *[0-9]*' | head -1 | grep -o '[0-9]*$'; }

if [ "$store" = etcd ]; then
    say "an etcd"
    export ETCDCTL_API=3
    # Ports that another program has make it end: others are tried.
    for port in $(seq 42379 10 42479); do
        at=http://127.0.0.1:$port peer=http://127.0.0.1:$((port + 1))
        etcd --data-dir=etcd --listen-client-urls="$at" --advertise-client-urls="$at" --listen-peer-urls="$peer" \
            --initial-advertise-peer-urls="$peer" --initial-cluster="default=$peer" > etcd.log 2>&1 &
        pid[etcd]=$!
        for _ in $(seq 50); do
            if ! kill -0 "${pid[etcd]}" 2> /dev/null; then break; fi
            if etcdctl --endpoints="$at" endpoint health > /dev/null 2>&1; then break 2; fi
            sleep 0.2
        done
        wait "${pid[etcd]}" || rm -rf etcd
    done
    keep=(--store=etcd --etcd-endpoints="$at")
fi

say "three servers"
server s1 --bootstrap
wait_for 'prismctl --context s1 info'
join=$(sed -n 's/^ *members *come to \([^;]*\);.*/\1/p' s1.txt)
for n in 2 3; do
    prismctl --context s1 server join-token --role server > "token-s$n" 2> /dev/null
    server "s$n" --join="$join" --token-file="token-s$n"
done
wait_for '[ "$(peers s1 | grep -c -E "leader|voter|follows")" = 3 ]'
peers s1

say "three workers"
for n in 1 2 3; do
    prismctl --context s1 server join-token > "token-w$n" 2> /dev/null
    daemon "w$n" --role=worker --join="$join" --token-file="token-w$n"
done
wait_for '[ "$(prismctl --context s1 node ls | grep -c HEALTHY)" = 6 ]'
prismctl --context s1 node ls

cat > many.yaml <<END
job: many
command: ["true"]
array: $tasks
isolation: none
retries: 10
resources: {cpu: 100m, memory: 16Mi}
END
say "$tasks tasks, submitted to s2"
prismctl --context s2 job submit many.yaml
wait_for "[ \"\$(completed s3)\" -gt $((tasks / 10)) ]"

led=$(leader s3)
say "the leader, $led, is killed"
kill -9 "${pid[$led]}"
other=s2
if [ "$led" = s2 ]; then other=s3; fi
wait_for "[ -n \"\$(leader $other)\" ] && [ \"\$(leader $other)\" != $led ]"
say "$(leader $other) leads"

say "w2 is stopped for 20 s"
kill -STOP "${pid[w2]}"
sleep 20
kill -CONT "${pid[w2]}"

say "$led comes back"
server "$led" --join="$join"
prismctl --context "$other" job wait many
prismctl --context "$other" job results many -o ndjson > results.ndjson
recorded=$(wc -l < results.ndjson)
distinct=$(grep -o '"index": *[0-9]*' results.ndjson | sort -u | wc -l)
peers "$other"
say "$recorded results of $tasks tasks, $distinct of them distinct"
[ "$recorded" = "$tasks" ] && [ "$distinct" = "$tasks" ]
