#!/usr/bin/env bash
# `npm run test:vm [-- NAME...]`: the transports, or those that are named, on the kernels of Debian 12 (nbd, tcmu, fuse) and
# Debian 13 (ublk as well), each in a machine of its own (scripts/vm.sh), both at a time. Every line is preceded by its
# kernel. The exit status is 0 if it is on both.
#
# Needs what scripts/install-deps.sh test installs, and the project built. OBD_KILLS and OBD_CYCLES go through.
set -euo pipefail
cd "$(dirname "$0")/.."

# Minutes on a quiet machine; only a hang gets there.
readonly SECONDS_MAX=$((1400 + 300 * ${OBD_KILLS:-0}))

readonly SETTINGS="${OBD_KILLS:+OBD_KILLS=$OBD_KILLS} ${OBD_CYCLES:+OBD_CYCLES=$OBD_CYCLES}"

# start_on KERNEL NAMES: starts it, as the job $!.
start_on() {
  scripts/vm.sh -k "$1" -t "$SECONDS_MAX" "$SETTINGS npm run --silent test:transports -- $2" \
    > >(exec sed -u "s/^/$1 /") 2>&1 &
}

# Both at once would wait for the same download.
for kernel in 6.1 6.12; do scripts/vm/kernel.sh "$kernel" >/dev/null; done
start_on 6.1 "$*"
pids=("$!")
start_on 6.12 "$*"
pids+=("$!")
trap 'kill "${pids[@]}" 2>/dev/null; wait; exit 143' INT TERM
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=1; done
exit "$status"
