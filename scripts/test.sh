#!/usr/bin/env bash
# Everything that proves this project, on a fresh Debian 12 or 13, as root:
#
#     scripts/test.sh
#
# Installs what is missing, builds, then runs
#
#     npm run check                    format, lint, layering, types, prose, unused code, unit tests
#     npm run test:unit                once more on the other supported Nodes: the oldest, or the one that is brought
#     npm run test:e2e                 a real containerd, runc, registry and kernel; the quickstart is one of these tests
#     npm run test:trust -- --quick    attempts to make obd-ts lie, harm or give up
#     npm run test:fetch               wrong bytes from a registry, with a fifth of the changes
#     npm run test:prefetch            starts with foreknowledge, right or wrong, with a fifth of the changes in hot blobs
#     npm run test:vm -- --quick       the kernel transports, on the kernels of Debian 12 and 13, in short
#
# The scripts themselves are linted first. A part that fails does not stop the others. Skipped tests are listed with
# their reasons. docs/testing.md has the long forms.
#
# The last line is `N passed, N failed, N skipped`; the exit status is 0 only if nothing failed.
set -euo pipefail
[[ $# -eq 0 ]] || { echo 'test: usage: scripts/test.sh, without arguments; single tests: docs/hacking.md' >&2 && exit 2; }
cd "$(dirname "$0")/.."
# shellcheck source=scripts/node-env.sh
. scripts/node-env.sh

# No part takes so long, not even the guests on a busy machine; only a hang does.
readonly PART_SECONDS_MAX=3000

# Lines printed of a failed test's output: the error and where it was thrown.
readonly FAILURE_LINES_MAX=25

REPORTS=$(mktemp -d)
trap 'rm -rf "$REPORTS"' EXIT

# For sed: prints the output of test:vm, in which the kernel precedes each line, and reports it as node:test would.
readonly VM_REPORT="h
s/^([0-9.]+) (ok|not ok) (.*)/\2 1 - \1 \3/w $REPORTS/vm.tap
s/^([0-9.]+) skipped (.*): ([^:]*)$/ok 1 - \1 \2 # SKIP \3/w $REPORTS/vm.tap
s/^([0-9.]+ vm: (the guest died|not done).*)/not ok 1 - \1/w $REPORTS/vm.tap
s/^[0-9.]+ (    .*|# [a-z]+ [0-9]+)$/\1/w $REPORTS/vm.tap
g"

# The same for test:trust. The output of a failed case comes before its line.
readonly TRUST_REPORT="h
s/^(    .*|# [a-z]+ [0-9]+)\$/\1/w $REPORTS/trust.tap
s/^not ok (.*)/    \1/w $REPORTS/trust.tap
s/^FAILED (.*)/not ok 1 - \1/w $REPORTS/trust.tap
s/^ok (.*)/ok 1 - \1/w $REPORTS/trust.tap
s/^skipped (.*): ([^:]*)\$/ok 1 - \1 # SKIP \2/w $REPORTS/trust.tap
g"

PASSED=0
FAILED=0
SKIPPED=0
FAILURES=()

say() { printf '==> %s\n' "$*" >&2; }

# Sum of node:test's own totals ("# pass 12") in the reports of one part.
total() {
  local report=$REPORTS/$1.tap
  [[ -e $report ]] || { echo 0 && return; }
  awk -v name="$2" '$1 == "#" && $2 == name { sum += $3 } END { print sum + 0 }' "$report"
}

# Runs one part. Tests of node:test are counted one by one; any other part counts as one.
part() {
  local name=$1 status=0 failed
  shift
  say "$name: $*"
  # The reporters reach node through the environment, so that the command is exactly the one that people type.
  NODE_OPTIONS="--test-reporter=spec --test-reporter-destination=stdout \
    --test-reporter=tap --test-reporter-destination=$REPORTS/$name.tap" \
    timeout --kill-after=30 "$PART_SECONDS_MAX" "$@" || status=$?
  failed=$(($(total "$name" fail) + $(total "$name" cancelled)))
  PASSED=$((PASSED + $(total "$name" pass)))
  SKIPPED=$((SKIPPED + $(total "$name" skipped) + $(total "$name" todo)))
  if ((status == 0)); then
    PASSED=$((PASSED + 1))
  else
    FAILED=$((FAILED + (failed > 0 ? failed : 1)))
    FAILURES+=("$name: exit status $status$( ((status != 124)) || echo ', too slow')")
  fi
}

# Each skipped test with its reason, once.
skipped_tests() {
  sed -nE 's/^ *ok [0-9]+ - (.*) # (SKIP|TODO) ?(.*)$/  skipped: \1: \3/p' "$REPORTS"/*.tap 2>/dev/null | sort -u
}

# Each failed test with its report from node:test, so that the end of a log is enough to begin from.
failed_tests() {
  awk -v most="$FAILURE_LINES_MAX" '
    /^ *not ok / { sub(/^ *not ok [0-9]+ - /, ""); print "  failed: " $0; left = most; next }
    /^ *(ok|#|\.\.\.)/ { left = 0 }
    left-- > 0 && !/^ *(---|duration_ms:|type:)/ { print "  " $0 }
  ' "$REPORTS"/*.tap 2>/dev/null
}

scripts/install-deps.sh test
use_node
part shellcheck shellcheck --external-sources scripts/*.sh scripts/vm/* .ci/run
part check npm run --silent check
# The unit tests once more, on the other Nodes: the oldest that is supported, and the one that install-deps.sh brings. The
# add-ons use Node-API, so that one build serves all.
for folder in tools/node/floor tools/node; do
  OBD_NODE=$(node_package "$folder")/bin/node
  version=$("$OBD_NODE" --version)
  [[ $version == "$(node --version)" ]] || part "unit-$version" env OBD_NODE="$OBD_NODE" npm run --silent test:unit
done
part e2e npm run --silent test:e2e
# shellcheck disable=SC2016 # the inner shell expands it
part trust env --unset=NODE_OPTIONS bash -o pipefail -c \
  'npm run --silent test:trust -- --quick | sed -uE "$0"' "$TRUST_REPORT"
part fetch env OBD_FETCH_CHANGES=2000 npm run --silent test:fetch
part prefetch env OBD_HOT_ROUNDS=2000 OBD_WRONG_PAIRS=3 npm run --silent test:prefetch
if [[ $(uname -m) == x86_64 ]]; then
  # Not fuse, which is the same on any kernel and was tested on this one.
  # shellcheck disable=SC2016 # the inner shell expands it
  part vm bash -o pipefail -c 'npm run --silent test:vm -- --quick ublk tcmu nbd | sed -uE "$0"' "$VM_REPORT"
else
  echo "ok 1 - vm # SKIP its kernels are for x86-64, this is $(uname -m)" >"$REPORTS/vm.tap"
  SKIPPED=$((SKIPPED + 1))
fi

echo
skipped_tests
failed_tests
((${#FAILURES[@]} == 0)) || printf '  %s\n' "${FAILURES[@]}"
printf '%d passed, %d failed, %d skipped\n' "$PASSED" "$FAILED" "$SKIPPED"
((FAILED == 0))
