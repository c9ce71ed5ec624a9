# Sourced by the scripts that run obd-ts end to end: a private registry, containerd, obd-blockd and obd-snapshotter,
# all under one directory DIR. The host's own services are not touched.
#
#   DIR/registry.log    the registry's access log: shows the fetches, independently of our own counters
#   DIR/NAME.log        the output of each service
#   DIR/pids/NAME       its process id
#
# stop_services() may be called at any time, also on a half-started or half-stopped DIR, and is the only way to undo. Order matters: containers, then images (so that the snapshotter unmounts and detaches unused devices), then the
# daemons from the top down. force_away() removes the rest, and leftovers() lists what remains.
#
# DIR must be short: the path of a unix socket has at most 107 bytes.
# shellcheck shell=bash

readonly START_SECONDS_MAX=20
readonly STOP_SECONDS_MAX=10

say() { printf '==> %s\n' "$*" >&2; }

fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# The namespace in containerd, in runc's state and in the cgroup tree: one per DIR, so that runs do not collide.
namespace_of() { printf 'obd-ts-%s' "${1##*.}"; }

ctr_in() {
  local dir=$1
  shift
  ctr --address "$dir/containerd.sock" --namespace "$(namespace_of "$dir")" "$@"
}

# Starts a daemon in a new session, so that an interrupt from the terminal reaches the script alone.
start_service() {
  local dir=$1 name=$2
  shift 2
  mkdir -p "$dir/pids"
  setsid "$@" >>"$dir/$name.log" 2>&1 </dev/null &
  printf '%s\n' $! >"$dir/pids/$name"
}

# Waits until a command succeeds; fails at once, with the end of its log, if the service has died.
await_service() {
  local dir=$1 name=$2 deadline=$((SECONDS + START_SECONDS_MAX))
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ! kill -0 "$(<"$dir/pids/$name")" 2>/dev/null || ((SECONDS > deadline)); then
      fail "$name did not start: $(tail -n 20 "$dir/$name.log")"
    fi
    sleep 0.1
  done
}

start_registry() {
  local dir=$1
  cat >"$dir/registry.yml" <<YAML
version: 0.1
log: {level: info, accesslog: {disabled: false}}
storage: {filesystem: {rootdirectory: $dir/registry}}
http: {addr: 127.0.0.1:0}
YAML
  start_service "$dir" registry docker-registry serve "$dir/registry.yml"
  await_service "$dir" registry registry_address "$dir"
}

# host:port of the registry, which picked the port itself.
registry_address() {
  grep -oE 'listening on 127\.0\.0\.1:[0-9]+' "$1/registry.log" | cut -d' ' -f3
}

# With DIR/containerd.toml, if there is one.
start_containerd() {
  local dir=$1
  [[ -e $dir/containerd.toml ]] || cat >"$dir/containerd.toml" <<TOML
version = 2
root = "$dir/containerd"
state = "$dir/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$dir/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "$dir/opt"
[proxy_plugins.obd-ts]
type = "snapshot"
address = "$dir/snapshotter.sock"
TOML
  start_service "$dir" containerd containerd --config "$dir/containerd.toml"
  await_service "$dir" containerd ctr_in "$dir" version
}

start_obd() {
  local dir=$1
  # This transport runs on any kernel, and force_away can remove its devices.
  cat >"$dir/blockd.toml" <<TOML
socket = "$dir/blockd.sock"
nbd_socket = "$dir/nbd.sock"
state_dir = "$dir/blockd"
transport = "fuse"
TOML
  cat >"$dir/snapshotter.toml" <<TOML
socket = "$dir/snapshotter.sock"
root = "$dir/snapshotter"
blockd_socket = "$dir/blockd.sock"
containerd_socket = "$dir/containerd.sock"
TOML
  start_service "$dir" blockd dist/bin/obd-blockd.js --config "$dir/blockd.toml"
  await_service "$dir" blockd test -S "$dir/blockd.sock"
  start_service "$dir" snapshotter dist/bin/obd-snapshotter.js --config "$dir/snapshotter.toml"
  await_service "$dir" snapshotter test -S "$dir/snapshotter.sock"
}

# The session that a process belongs to, or nothing if it is gone.
session_of() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  # shellcheck disable=SC2086 # "pid (name) state parent group session": fields after the name
  set -- ${stat##*) }
  printf '%s' "$4"
}

# Ids of the processes that work on DIR: those whose command line has its name, which mktemp made for this run
# alone, and those in its containers. Never this script's own session.
pids_on() {
  local dir=$1 pid own session
  own=$(session_of "$$")
  for pid in $(grep -lsF -e "$dir/" /proc/[0-9]*/cmdline | cut -d/ -f3) $(container_pids "$dir"); do
    session=$(session_of "$pid")
    [[ -z $session || $session == "$own" ]] || printf '%s\n' "$pid"
  done
}

cgroups_on() {
  find /sys/fs/cgroup -depth -maxdepth 4 -type d -path "*/$(namespace_of "$1")*" 2>/dev/null || true
}

container_pids() {
  local cgroup
  for cgroup in $(cgroups_on "$1"); do cat "$cgroup/cgroup.procs" 2>/dev/null || true; done | sort -u
}

# Mount points under DIR, innermost first.
mounts_on() {
  findmnt --noheadings --raw --output TARGET | grep -F -- "$1/" | sort -r || true
}

loops_on() {
  losetup --noheadings --raw --list --output NAME,BACK-FILE | grep -F -- "$1/" | cut -d' ' -f1 || true
}

# await_end PID...: waits until these processes have ended; fails after STOP_SECONDS_MAX. A zombie has no command line.
await_end() {
  local pid deadline=$((SECONDS + STOP_SECONDS_MAX))
  for pid in "$@"; do
    while grep -qs . "/proc/$pid/cmdline"; do
      ((SECONDS < deadline)) || return 1
      sleep 0.1
    done
  done
}

stop_service() {
  local file=$1/pids/$2 pid
  [[ -f $file ]] || return 0
  pid=$(<"$file")
  # The id may be another process's by now.
  if grep -qsF -e "$1/" "/proc/$pid/cmdline"; then
    kill -TERM "$pid" 2>/dev/null || true
    await_end "$pid" || kill -KILL "$pid" 2>/dev/null || true
  fi
  rm -f "$file"
}

remove_containers() {
  local dir=$1 id reference
  ctr_in "$dir" --timeout 5s version >/dev/null 2>&1 || return 0
  for id in $(ctr_in "$dir" tasks list --quiet); do
    ctr_in "$dir" tasks kill --signal SIGKILL "$id" || true
    ctr_in "$dir" tasks delete --force "$id" || true
  done
  for id in $(ctr_in "$dir" containers list --quiet); do ctr_in "$dir" containers delete "$id" || true; done
  for reference in $(ctr_in "$dir" images list --quiet); do
    ctr_in "$dir" images remove --sync "$reference" || true
  done
}

stop_services() {
  local dir=$1 name
  remove_containers "$dir" >>"$dir/stop.log" 2>&1
  for name in snapshotter containerd blockd registry; do stop_service "$dir" "$name"; done
  force_away "$dir" >>"$dir/stop.log" 2>&1
  cgroups_on "$dir" | xargs --no-run-if-empty rmdir 2>/dev/null || true
  rmdir "/run/containerd/runc/$(namespace_of "$dir")" 2>/dev/null || true
}

# Removes what a dead daemon left: mounts (twice: a busy one may free another), loops, processes.
force_away() {
  local dir=$1 each turn pids
  for turn in 1 2; do
    mapfile -t pids < <(pids_on "$dir")
    for each in "${pids[@]}"; do
      echo "killing $each: $(tr '\0' ' ' <"/proc/$each/cmdline" 2>/dev/null)"
      kill -KILL "$each" 2>/dev/null || true
    done
    await_end "${pids[@]}" || true
    for each in $(mounts_on "$dir"); do umount "$each" || ((turn < 2)) || umount --lazy "$each" || true; done
    for each in $(loops_on "$dir"); do losetup --detach "$each" || true; done
  done
}

# Prints one line for each process, mount or loop device of DIR that remains.
leftovers() {
  local dir=$1
  pids_on "$dir" | sed 's/^/process /'
  mounts_on "$dir" | sed 's/^/mount /'
  loops_on "$dir" | sed 's/^/loop device /'
  cgroups_on "$dir" | sed 's/^/cgroup /'
}
