#!/usr/bin/env bash
# A cluster of three servers and three workers on this machine. Submits an array of tasks, kills the leader in the middle, cuts a worker
# off for longer than it may be silent, lets both come back, and counts what was recorded: every task once.
#
#   examples/cluster/run.sh [--namespaces] [--store=etcd] [TASKS]
#
# 100,000 tasks unless said; needs prismd and prismctl in PATH. Without --namespaces all are processes beside each other on loopback, and
# a worker is cut off by stopping it. With it each is a machine of its own (machines.sh): that needs root, iproute2 and iptables.
# With --store=etcd the state is kept in an etcd that the script starts; that needs etcd and etcdctl in PATH, and openssl for machines.
set -euo pipefail

store=raft machines=
while [[ ${1:-} == -* ]]; do
    case $1 in
        --store=raft | --store=etcd) store=${1#--store=} ;;
        --namespaces) machines=1 ;;
        *)
            echo "$1: expected --namespaces, --store=raft or --store=etcd, then a number of tasks" >&2
            exit 2
            ;;
    esac
    shift
done
tasks=${1:-100000}
source=$(dirname "$(readlink -f "$0")")
if [ -n "$machines" ] && [ -z "${CLUSTER_INSIDE:-}" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "--namespaces: only root may make network namespaces; run it as root, or without --namespaces" >&2
        exit 2
    fi
    args=(--namespaces "--store=$store" "$tasks")
    # All links are made in a namespace of this script's own: what the machine has is not touched, and nothing is left over.
    CLUSTER_INSIDE=1 exec unshare --net "$source/run.sh" "${args[@]}"
fi

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
# What is harmless to repeat: on a busy machine there may be nobody to answer for a moment.
again() {
    for _ in $(seq 30); do
        if "$@" 2> again.txt; then return; fi
        sleep 1
    done
    cat again.txt >&2
    exit 1
}
# Where things are, and how a worker is cut off: on loopback, unless machines.sh says otherwise.
into() { :; }
address() { echo 127.0.0.1; }
cut_off() { kill -STOP "${pid[$1]}"; }
heal() { kill -CONT "${pid[$1]}"; }
etcd_url() { echo "http://127.0.0.1:$1"; }
port=0
# shellcheck source=machines.sh
[ -z "$machines" ] || . "$source/machines.sh"

daemon() {
    local name=$1
    shift
    # The names of servers are contexts of prismctl; each writes its own.
    # shellcheck disable=SC2046
    $(into "$name") prismd --name="$name" --data-dir="$name" --allow-plain --pressure-threshold=0.97 "$@" \
        > "$name.txt" 2>> "$name.log" &
    pid[$name]=$!
}
keep=()
server() { daemon "$1" --api="$(address "$1"):$port" --serf="$(address "$1"):0" "${keep[@]}" "${@:2}"; }
token() { prismctl --context s1 server join-token "${@:2}" > "token-$1"; }
peers() { prismctl --context "$1" peer ls; }
leader() { peers "$1" | awk '$3 == "leader" { print $1 }'; }
completed() { prismctl --context "$1" job get many -o json | grep -o '"completed": *[0-9]*' | head -1 | grep -o '[0-9]*$'; }
results() { prismctl --context "$other" job results many -o ndjson > results.ndjson; }
state_of() { prismctl --context "$1" node ls | awk -v name="$2" '$1 == name { print $2 }'; }

# shellcheck source=etcd.sh
[ "$store" = raft ] || . "$source/etcd.sh"

say "three servers"
server s1 --bootstrap
wait_for 'prismctl --context s1 info'
join=$(sed -n 's/^ *members *come to \([^;]*\);.*/\1/p' s1.txt)
for n in 2 3; do
    again token "s$n" --role server
    server "s$n" --join="$join" --token-file="token-s$n"
done
for n in 2 3; do wait_for "prismctl --context s$n info"; done
wait_for '[ "$(peers s1 | grep -c -E "leader|voter|follows")" = 3 ]'
peers s1

say "three workers"
for n in 1 2 3; do
    again token "w$n"
    daemon "w$n" --role=worker --join="$join" --token-file="token-w$n"
done
wait_for '[ "$(prismctl --context s1 node ls | grep -c HEALTHY)" = 6 ]'
again prismctl --context s1 node ls

cat > many.yaml <<END
job: many
command: ["true"]
array: $tasks
isolation: none
retries: 10
resources: {cpu: 100m, memory: 16Mi}
END
say "$tasks tasks, submitted to s2"
begin=$SECONDS
again prismctl --context s2 job submit many.yaml --key many
wait_for "[ \"\$(completed s3)\" -gt $((tasks / 10)) ]"

led=$(leader s3)
say "the leader, $led, is killed"
kill -9 "${pid[$led]}"
other=s2
if [ "$led" = s2 ]; then other=s3; fi
wait_for "[ -n \"\$(leader $other)\" ] && [ \"\$(leader $other)\" != $led ]"
say "$(leader $other) leads"

say "w2 is cut off until it is given up"
cut_off w2
wait_for "[ \"\$(state_of $other w2)\" = OFFLINE ]"
prismctl --context "$other" info | sed -n '/^nodes /,/^jobs /{/^jobs /!p}'
sleep 5
say "w2 is let back, and $led comes back"
heal w2
server "$led" --join="$join"
wait_for "[ \"\$(state_of $other w2)\" = HEALTHY ]"
say "w2 is there again"
again prismctl --context "$other" job wait many
again results
recorded=$(wc -l < results.ndjson)
distinct=$(grep -o '"index": *[0-9]*' results.ndjson | sort -u | wc -l)
peers "$other"
say "$recorded results of $tasks tasks, $distinct of them distinct, after $((SECONDS - begin)) s"
[ "$recorded" = "$tasks" ] && [ "$distinct" = "$tasks" ]
