#!/usr/bin/env bash
# `npm run test:vm [-- [--quick] NAME...]`: the transports, or the named ones, on the kernels of Debian 12 (nbd, tcmu,
# fuse) and Debian 13 (ublk as well), each in a separate machine (scripts/vm.sh), both at a time. Every line is preceded
# by its kernel. The exit status is 0 if all checks pass on both. --quick tests nbd and tcmu with the daemon on 6.1 only:
# they are much the same in 6.12, whose guest has ublk to test as well. And fewer devices come and go: one descriptor
# left behind fails that check, as do a few threads.
#
# Needs what scripts/install-deps.sh test installs, and the project built. OBD_KILLS and OBD_CYCLES go through.
set -euo pipefail
cd "$(dirname "$0")/.."

# 16 minutes on a quiet machine, 24 were seen on a busy one; only a hang gets there.
readonly SECONDS_MAX=$((2700 + 300 * ${OBD_KILLS:-0}))

declare -A PIDS
declare -A SHORT=()
if [[ ${1:-} == --quick ]]; then
  SHORT[6.12]='--short nbd --short tcmu'
  OBD_CYCLES=${OBD_CYCLES:-8}
  shift
fi

readonly SETTINGS="${OBD_KILLS:+OBD_KILLS=$OBD_KILLS} ${OBD_CYCLES:+OBD_CYCLES=$OBD_CYCLES}"

# start_on KERNEL NAMES
start_on() {
  scripts/vm.sh -k "$1" -t "$SECONDS_MAX" "$SETTINGS npm run --silent test:transports -- ${SHORT[$1]:-} $2" \
    > >(exec sed -u "s/^/$1 /") 2>&1 &
  PIDS[$1]=$!
}

# Both at once would wait for the same download.
for kernel in 6.1 6.12; do scripts/vm/kernel.sh "$kernel" >/dev/null; done
trap 'kill "${PIDS[@]}" 2>/dev/null; wait; exit 143' INT TERM
for kernel in 6.1 6.12; do start_on "$kernel" "$*"; done
failed=0
for kernel in "${!PIDS[@]}"; do
  status=0
  wait "${PIDS[$kernel]}" || status=$?
  # Also for a guest that died, or a suite that broke off: neither can print it.
  ((status == 0)) || { failed=1 && printf '%s not ok the suite: exit status %d\n' "$kernel" "$status"; }
done
exit "$failed"
