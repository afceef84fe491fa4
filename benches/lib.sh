# shellcheck shell=bash
# Shared by the scripts beside it: disk images, network namespaces, clusters of
# `lagan up`, and their removal. Needs root, iproute2, curl, jq, util-linux,
# xfsprogs or e2fsprogs.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAGAN=${LAGAN:-$HERE/../target/release/lagan}
TOOLS=${TOOLS:-$HERE/../target/release}
IMAGE_FS=${IMAGE_FS:-xfs}
IMAGE_SIZE=${IMAGE_SIZE:-8G}
NET=10.231.8
BRIDGE=lgb0
NODES="1 2 3"

die() { echo "${0##*/}: $*" >&2; exit 1; }
note() { echo "-- $*" >&2; }

# work_dir: makes $WORK; everything that a run leaves is in it or named lgb*.
work_dir() {
  [ "$(id -u)" = 0 ] || die "must run as root"
  local tool
  for tool in curl ip jq losetup "mkfs.$IMAGE_FS"; do
    command -v "$tool" >/dev/null || die "$tool is missing"
  done
  [ -x "$LAGAN" ] || die "$LAGAN: build it first (cargo build --release --workspace)"
  WORK=$(mktemp -d "${BENCH_DIR:-/var/tmp}/lagan-bench.XXXXXX") || exit 1
  trap clean_up EXIT
  trap 'exit 130' INT TERM HUP
}

# image_new NAME: a new file system on a new image, mounted at $WORK/NAME.
image_new() {
  mkdir -p "$WORK/$1"
  fallocate -l "$IMAGE_SIZE" "$WORK/$1.img" || die "no room for an image of $IMAGE_SIZE"
  "mkfs.$IMAGE_FS" -q "$WORK/$1.img" || exit 1
  mount -o loop "$WORK/$1.img" "$WORK/$1" || exit 1
}
image_end() {
  mountpoint -q "$WORK/$1" && { umount "$WORK/$1" || umount -l "$WORK/$1"; }
  rm -f "$WORK/$1.img"
}

net_up() {
  local n
  ip link add $BRIDGE type bridge && ip addr add $NET.254/24 dev $BRIDGE &&
    ip link set $BRIDGE up || die "a network named $BRIDGE exists: is another run under way?"
  for n in $NODES; do
    ip netns add lgb$n
    ip link add lgbv$n type veth peer name eth0 netns lgb$n
    ip link set lgbv$n master $BRIDGE up
    ip -n lgb$n addr add $NET.$n/24 dev eth0
    ip -n lgb$n link set eth0 up
    ip -n lgb$n link set lo up
  done
}
net_down() {
  local n
  for n in $NODES; do
    ip netns del lgb$n 2>/dev/null
    ip link del lgbv$n 2>/dev/null
  done
  ip link del $BRIDGE 2>/dev/null
}

# lagan_up [OPTION...]: three servers in namespaces on $WORK/lagan, mounts at
# $WORK/lagan-a and -b.
lagan_up() {
  image_new lagan
  net_up
  mkdir -p "$WORK/lagan-a" "$WORK/lagan-b"
  "$LAGAN" up "$WORK/lagan/c" --detach --servers 3 --copies 3 --s3 none \
    --netns lgb1,lgb2,lgb3 --addrs $NET.1,$NET.2,$NET.3 \
    --mount "$WORK/lagan-a" --mount "$WORK/lagan-b" "$@" >&2 || die "lagan up failed"
}
lagan_down() {
  [ -e "$WORK/lagan/c/cluster.json" ] && "$LAGAN" down "$WORK/lagan/c" >&2
  net_down
  image_end lagan
}

# lagan_entry NAME FIELD: of the processes in cluster.json.
lagan_entry() {
  jq -r --arg n "$1" ".processes[] | select(.name == \$n) | $2" "$WORK/lagan/c/cluster.json"
}
# A server's machine dies: nothing leaves it any more, then its process is gone.
lagan_die() {
  ip link set "lgbv${1#server-}" down
  kill -9 "$(lagan_entry "$1" .pid)"
}
lagan_revive() {
  local argv
  ip link set "lgbv${1#server-}" up
  mapfile -t argv < <(lagan_entry "$1" '.argv[]')
  setsid "${argv[@]}" </dev/null >>"$(lagan_entry "$1" .log)" 2>&1 &
}
lagan_status() { "$LAGAN" --cluster "$WORK/lagan/c" status --json; }
lagan_healthy() {
  for _ in $(seq 60); do
    lagan_status >/dev/null 2>&1 && return 0
    sleep 1
  done
  note "not healthy after 60 s"
}

# memory_of: peak resident set of each process of the cluster, one JSON line each.
memory_of() {
  local name pid
  while read -r name pid; do
    awk -v n="$name" '/^VmHWM/ {printf "{\"w\":\"memory\",\"label\":\"lagan\",\"name\":\"%s\",\"peak_mib\":%d}\n", n, $2/1024}' \
      "/proc/$pid/status" 2>/dev/null
  done < <(jq -r '.processes[] | "\(.name) \(.pid)"' "$1/cluster.json")
}

# peer SYSTEM COMMAND...: another file system's own script, on its image.
peer_script() { if [ "$1" = plain ]; then echo "${PEERS:-}/local.sh"; else echo "${PEERS:-}/$1.sh"; fi; }
peer() {
  local system=$1
  shift
  BENCH_DIR=$WORK/$system bash "$(peer_script "$system")" "$@" >&2
}

clean_up() {
  trap - EXIT
  [ -n "${DRIVER:-}" ] && kill "$DRIVER" 2>/dev/null
  local s c
  for s in gluster moosefs plain; do
    mountpoint -q "$WORK/$s" && { peer $s down; image_end $s; }
  done
  for c in "$WORK"/*/c "$WORK"/c; do
    [ -e "$c/cluster.json" ] && "$LAGAN" down "$c" >&2
  done
  net_down
  image_end lagan
  image_end floor
  rm -rf --one-file-system "$WORK"
}
