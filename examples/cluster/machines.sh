# Sourced by run.sh: each server and worker is a machine, a network namespace with one address, and all of them hang on a switch.
#
#   s1 10.81.0.1   s2 10.81.0.2   s3 10.81.0.3   w1 10.81.0.4
#        |              |              |              |
#   -----+--------------+------ lan ---+--------------+------ this script, 10.81.0.254
#                                      |
#                              router 10.81.0.9 (translates addresses)
#                       192.168.82.1 |     | 192.168.83.1
#                       192.168.82.2 w2    w3 192.168.83.2
#
# Nobody on the lan knows a way to w2 and w3: they are behind address translation. Off loopback the API speaks TLS, so that is what
# prismctl uses here. w2 is cut off by rules in the router that drop all its packets, both ways, and close no connection.
declare -A space where
port=8008

into() { echo nsenter "--net=/proc/${space[$1]}/ns/net"; }
# shellcheck disable=SC2046
on() { $(into "$1") "${@:2}"; }
address() { echo "${where[$1]}"; }
etcd_url() { echo "https://10.81.0.254:$1"; }
cut_off() {
    on router iptables -I FORWARD -s "${where[$1]}" -j DROP
    on router iptables -I FORWARD -d "${where[$1]}" -j DROP
}
heal() {
    on router iptables -D FORWARD -s "${where[$1]}" -j DROP
    on router iptables -D FORWARD -d "${where[$1]}" -j DROP
}

# A machine is there as long as the process that holds its namespace.
machine() {
    unshare --net sleep infinity &
    pid[machine-$1]=$! space[$1]=$! where[$1]=$2
    wait_for "[ \"\$(readlink /proc/$!/ns/net)\" != \"\$(readlink /proc/self/ns/net)\" ]"
    on "$1" ip link set lo up
}
plug() {
    ip link add "to-$1" master lan type veth peer name out netns "${space[$1]}"
    ip link set "to-$1" up
    on "$1" ip addr add "${where[$1]}/24" dev out
    on "$1" ip link set out up
}
behind_router() {
    on router ip link add "$1" type veth peer name out netns "${space[$1]}"
    on router ip addr add "${where[$1]%.*}.1/24" dev "$1"
    on router ip link set "$1" up
    on "$1" ip addr add "${where[$1]}/24" dev out
    on "$1" ip link set out up
    on "$1" ip route add default via "${where[$1]%.*}.1"
}

ip link set lo up
ip link add lan type bridge
ip addr add 10.81.0.254/24 dev lan
ip link set lan up
for n in 1 2 3; do
    machine "s$n" "10.81.0.$n"
    plug "s$n"
done
machine w1 10.81.0.4
plug w1
machine router 10.81.0.9
plug router
on router sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
on router iptables -t nat -A POSTROUTING -o out -j MASQUERADE
for n in 2 3; do
    machine "w$n" "192.168.8$n.2"
    behind_router "w$n"
done
