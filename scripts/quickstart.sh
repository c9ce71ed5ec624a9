#!/usr/bin/env bash
# Demonstrates obd-ts on a real image, with nothing but Debian packages:
#
#     scripts/quickstart.sh [--json FILE] [--keep]
#     scripts/quickstart.sh --stop DIR
#
# Makes an image of three layers (Debian, python3, a Flask application), pushes it to a private registry, converts
# it, and runs its command twice under a private containerd: lazily from the converted image through obd-ts, then
# from the plain image through containerd's overlayfs snapshotter after a full pull. Prints one table.
#
#   --json FILE   writes the table's figures to FILE as well
#   --keep        leaves registry, containerd and the daemons running, and says how to use and stop them
#   --stop DIR    stops what --keep left running, and removes it
#
# For Debian 12 and 13, as root; missing packages are installed, Node too. Everything that runs or is mounted belongs to
# one directory under /var/tmp and is removed on every exit; the exit status is not 0 if anything is left. The plain
# image is kept in $OBD_TS_CACHE (default /var/cache/obd-ts) for the next run.
#
# Figures: "fetched" and "requests" are counted from the registry's access log, from before the pull until the
# container has exited. Times begin before the pull, with a cold page cache. "First output" is the first byte that
# the container writes.
set -euo pipefail
SCRIPT=$(realpath -- "$0")
CALLED_FROM=$PWD
cd "$(dirname "$SCRIPT")/.."
# shellcheck source=scripts/private-services.sh
. scripts/private-services.sh
# shellcheck source=scripts/node-env.sh
. scripts/node-env.sh

JSON_FILE=''
KEEP=no
DIR=''
CHILD=''
declare -A FIGURE

usage() { sed -n '/^#  *scripts/,/^#$/s/^# \{0,1\}//p; /^#   --/,/^#$/s/^# \{0,1\}//p' "$SCRIPT"; }

# The absolute path of one that is relative to the caller's directory.
absolute() { (cd "$CALLED_FROM" && realpath -m -- "$1"); }

# Runs a command in a new process group; the wait lets the script handle a signal at once.
step() {
  setsid "$@" &
  CHILD=$!
  wait "$CHILD"
  CHILD=''
}

end_child() {
  [[ -n $CHILD ]] || return 0
  kill -TERM -- "-$CHILD" 2>/dev/null || true
  wait "$CHILD" 2>/dev/null || true
  CHILD=''
}

# Stops and removes DIR; fails, naming what is left, if anything is.
tear_down() {
  local left
  stop_services "$1"
  left=$(leftovers "$1")
  if [[ -n $left ]]; then
    printf 'quickstart: left behind in %s, see stop.log there:\n%s\n' "$1" "$left" >&2
    return 1
  fi
  rm -rf --one-file-system "$1"
  say 'stopped; no process, mount, loop device or cgroup of this run is left'
}

finish() {
  local status=$?
  trap '' INT TERM
  trap - EXIT
  end_child
  if [[ -n $DIR && ! ($KEEP == yes && $status -eq 0) ]]; then
    ((status == 0 || status > 128)) || show_logs
    tear_down "$DIR" || status=1
  fi
  exit "$status"
}

# After a failure: prints the end of each daemon's log.
show_logs() {
  local name
  for name in blockd snapshotter containerd; do
    [[ -s $DIR/$name.log ]] || continue
    printf -- '--- end of %s.log\n' "$name" >&2
    tail -n 15 "$DIR/$name.log" >&2
  done
}

prepare_host() {
  step scripts/install-deps.sh quickstart
  use_node
  export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
  [[ -e /dev/fuse && -e /dev/loop-control ]] && grep -qw overlay /proc/filesystems ||
    modprobe -a fuse loop overlay ext4 ||
    fail 'this kernel lacks fuse, loop or overlay: run "dist/bin/obdctl.js doctor" for details'
}

drop_page_cache() {
  sync
  { echo 3 >/proc/sys/vm/drop_caches; } 2>/dev/null
}

# Waits until the registry has logged all its responses, then prints the log's size.
settled_log_bytes() {
  local before=-1 now
  now=$(stat -c %s "$DIR/registry.log")
  while ((now != before)); do
    before=$now
    sleep 0.3
    now=$(stat -c %s "$DIR/registry.log")
  done
  printf '%s' "$now"
}

seconds_between() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", b - a }'; }

# Sum of the sizes of an image's layers in the registry.
compressed_bytes() {
  skopeo inspect --raw --tls-verify=false "docker://$1" |
    node -p 'JSON.parse(require("fs").readFileSync(0)).layers.reduce((sum, layer) => sum + layer.size, 0)'
}

# measure WAY REFERENCE SNAPSHOTTER PULL...: pulls with PULL..., runs the image's command, fills in FIGURE[WAY.*].
measure() {
  local way=$1 reference=$2 snapshotter=$3 log_from start pulled first first_at
  shift 3
  say "$way: $*"
  log_from=$(settled_log_bytes)
  drop_page_cache || FIGURE[page_cache_dropped]=false
  mkfifo "$DIR/$way.output"

  start=$EPOCHREALTIME
  step "$@" >"$DIR/$way.pull" || fail "pulling $reference failed: $(tail -n 5 "$DIR/$way.pull")"
  pulled=$EPOCHREALTIME
  ctr_in "$DIR" run --rm --snapshotter "$snapshotter" "$reference" "$way" >"$DIR/$way.output" &
  CHILD=$!
  exec 3<"$DIR/$way.output"
  IFS= read -r -N 1 -u 3 first || fail "the container printed nothing"
  first_at=$EPOCHREALTIME
  printf '%s' "$first" >&2
  cat <&3 >&2
  exec 3<&-
  wait "$CHILD" || fail "the container failed"
  CHILD=''

  FIGURE[$way.compressed]=$(compressed_bytes "$reference")
  FIGURE[$way.pull_seconds]=$(seconds_between "$start" "$pulled")
  FIGURE[$way.first_output_seconds]=$(seconds_between "$start" "$first_at")
  count_traffic "$way" "$log_from" "$(settled_log_bytes)"
}

# From the registry's access log: `host - - [time] "METHOD path HTTP/1.1" status bytes ...`.
count_traffic() {
  local way=$1 from=$2 to=$3 requests bytes
  read -r requests bytes < <(head -c "$to" "$DIR/registry.log" | tail -c +$((from + 1)) |
    awk '$6 == "\"GET" || $6 == "\"HEAD" { requests++ } $6 == "\"GET" { bytes += $10 }
         END { printf "%d %d\n", requests, bytes }')
  FIGURE[$way.requests]=$requests
  FIGURE[$way.fetched]=$bytes
  FIGURE[$way.share]=$(awk -v a="$bytes" -v b="${FIGURE[$way.compressed]}" 'BEGIN { printf "%.4f", a / b }')
}

mib() { awk -v bytes="$1" 'BEGIN { printf "%.1f MiB", bytes / 1048576 }'; }
percent() { awk -v share="$1" 'BEGIN { printf "%.1f %%", 100 * share }'; }
row() { printf '  %-24s %18s %24s\n' "$@"; }

print_table() {
  echo
  row '' 'lazy (obd-ts)' 'full pull (overlayfs)'
  row 'compressed size' "$(mib "${FIGURE[lazy.compressed]}")" "$(mib "${FIGURE[full.compressed]}")"
  row 'fetched' "$(mib "${FIGURE[lazy.fetched]}")" "$(mib "${FIGURE[full.fetched]}")"
  row 'share of the image' "$(percent "${FIGURE[lazy.share]}")" "$(percent "${FIGURE[full.share]}")"
  row 'requests' "${FIGURE[lazy.requests]}" "${FIGURE[full.requests]}"
  row 'time to pull' "${FIGURE[lazy.pull_seconds]} s" "${FIGURE[full.pull_seconds]} s"
  row 'time to first output' "${FIGURE[lazy.first_output_seconds]} s" "${FIGURE[full.first_output_seconds]} s"
  echo
  echo '  Counted from the access log of a registry on this machine, so the network costs nothing here.'
  if [[ ${FIGURE[page_cache_dropped]} == true ]]; then
    echo '  The page cache was dropped before each pull.'
  else
    echo '  The page cache could not be dropped (no write access to /proc/sys/vm): the second run had it warm.'
  fi
  echo
}

json_of() {
  printf '{"compressedBytes": %s, "fetchedBytes": %s, "fetchedShare": %s, "requests": %s' \
    "${FIGURE[$1.compressed]}" "${FIGURE[$1.fetched]}" "${FIGURE[$1.share]}" "${FIGURE[$1.requests]}"
  printf ', "pullSeconds": %s, "firstOutputSeconds": %s}' \
    "${FIGURE[$1.pull_seconds]}" "${FIGURE[$1.first_output_seconds]}"
}

write_json() {
  printf '{\n  "lazy": %s,\n  "full": %s,\n  "pageCacheDropped": %s\n}\n' \
    "$(json_of lazy)" "$(json_of full)" "${FIGURE[page_cache_dropped]}" >"$1.tmp"
  mv -- "$1.tmp" "$1"
}

print_how_to_use() {
  cat <<TEXT
Left running in $DIR. To use it:

  export CONTAINERD_ADDRESS=$DIR/containerd.sock CONTAINERD_NAMESPACE=$(namespace_of "$DIR")
  ctr images list
  ctr run --rm -t --snapshotter obd-ts $1:obd shell sh
  dist/bin/obdctl.js devices --blockd $DIR/blockd.sock

To stop and remove it:

  scripts/quickstart.sh --stop $DIR
TEXT
}

parse_arguments() {
  while (($# > 0)); do
    case $1 in
      --json) JSON_FILE=$(absolute "${2:?--json needs a file}") && shift ;;
      --keep) KEEP=yes ;;
      --stop)
        local dir
        dir=$(absolute "${2:?--stop needs the directory that --keep printed}")
        [[ -d $dir/pids ]] || fail "$dir is not a directory that --keep left"
        tear_down "$dir"
        exit
        ;;
      --help | -h) usage && exit ;;
      *) usage >&2 && exit 2 ;;
    esac
    shift
  done
}

main() {
  parse_arguments "$@"
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  prepare_host

  local layout repository
  DIR=$(mktemp -d /var/tmp/obd.XXXXXX)
  say 'the sample image, made once and kept'
  step scripts/sample-image.sh --cached >"$DIR/layout"
  layout=$(<"$DIR/layout")
  start_registry "$DIR"
  repository=$(registry_address "$DIR")/sample
  say "pushing and converting $repository:plain"
  step skopeo --insecure-policy copy --quiet --dest-tls-verify=false "oci:$layout:sample" "docker://$repository:plain"
  step dist/bin/obdconv.js "docker://$repository:plain" "docker://$repository:obd" >&2
  start_obd "$DIR"
  start_containerd "$DIR"

  FIGURE[page_cache_dropped]=true
  measure lazy "$repository:obd" obd-ts dist/bin/obdctl.js rpull --plain-http \
    --address "$DIR/containerd.sock" --namespace "$(namespace_of "$DIR")" "$repository:obd"
  measure full "$repository:plain" overlayfs ctr --address "$DIR/containerd.sock" \
    --namespace "$(namespace_of "$DIR")" images pull --plain-http --snapshotter overlayfs "$repository:plain"
  print_table
  [[ -z $JSON_FILE ]] || write_json "$JSON_FILE"
  [[ $KEEP == no ]] || print_how_to_use "$repository"
}

main "$@"
