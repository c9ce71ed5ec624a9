#!/usr/bin/env bash
# Runs a command on a stock Debian kernel, as root, with this host's files and this working tree around it:
#
#     scripts/vm.sh [-k 6.1|6.12] [-t SECONDS] COMMAND
#
# Boots Debian 12's kernel (6.1) or Debian 13's (6.12, the default) under QEMU's software emulation, runs COMMAND with
# bash in the current folder, prints what it prints, and exits with its status; 124 if it took longer than SECONDS (1800),
# 125 if the guest died under it. If the emulator broke the guest, the script says so and starts COMMAND again in a new one.
#
# The guest sees the host's / read-only below a tmpfs: nothing that COMMAND does is seen outside. /scratch is an empty
# ext4, for files that tmpfs cannot hold. There is no network but the loopback. It is 5 to 10 times slower than the host.
#
# The kernels come from the host's own Debian mirror into ${OBD_VM_CACHE:-/var/cache/obd-ts-vm}, when they are missing.
set -euo pipefail

readonly RUNS_MAX=3
# A boot takes 10 seconds, several times that on a busy host.
readonly BOOT_SECONDS_MAX=120
readonly LAST_LINES_MAX=24
readonly STATUS_TIMED_OUT=124
readonly STATUS_GUEST_DIED=125

# The emulator races with the kernel when it patches its code, at boot and at each switch of a static branch: rarely, a CPU
# meets a breakpoint that was removed already, and the guest ends in "Oops: int3". A loop that switches one
# (kernel.sched_schedstats, next to a busy process) gets there within minutes. All CPU flags and thread modes that avoid
# this are slower. KVM is not used even if it exists: nested, it may not work.
readonly BROKEN_BY_EMULATOR='int3: 0000'
# An old one, which has the CRC instruction that we use, but not the fast string moves of newer ones and of `max`: the kernel
# would copy with them, and the emulator moves them byte by byte. tcmu's suite, on both kernels: 421 s instead of 542 s.
readonly PROCESSOR=Nehalem
readonly KERNEL_OPTIONS="console=ttyS0 quiet panic=-1 reboot=t mitigations=off nokaslr no_timer_check tsc=reliable \
nowatchdog audit=0 random.trust_cpu=on cryptomgr.notests"

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
RUN=
QEMU_PID=
QEMU_STATUS=

fail() {
  printf 'vm: %s\n' "$*" >&2
  exit 2
}

# shellcheck disable=SC2317 # the trap calls it
cleanup() {
  [[ -z $QEMU_PID ]] || { kill "$QEMU_PID" && wait "$QEMU_PID"; } 2>/dev/null || true
  [[ -z $RUN ]] || rm -rf "$RUN"
}

# The files that host and guest exchange: share/command, share/started, share/status. New for each run.
prepare() {
  rm -rf "${RUN:?}"/*
  mkdir "$RUN/share"
  {
    printf 'export PATH=%q HOME=%q\ncd -- %q || exit\n' "$PATH" "$HOME" "$PWD"
    printf '%s\n' "$1"
  } >"$RUN/share/command"
  truncate -s 8G "$RUN/scratch.img"
  mkfs.ext4 -q -F -E lazy_itable_init=1,nodiscard -O ^has_journal "$RUN/scratch.img"
}

# boot KERNEL_FOLDER SECONDS: returns when the guest has ended.
boot() {
  local kernel=$1 seconds=$2 printer
  # -chardev stdio drops output where stdin is at its end, and a file would be truncated: so a pipe.
  exec 3> >(exec cat)
  printer=$!
  timeout --kill-after=5 "$seconds" qemu-system-x86_64 \
    -accel tcg,thread=multi -machine pc,usb=off,vmport=off,hpet=off -cpu "$PROCESSOR" -smp 2 -m 3G \
    -nodefaults -no-user-config -display none -no-reboot \
    -kernel "$kernel/vmlinuz" -initrd "$kernel/initrd.gz" -append "$KERNEL_OPTIONS modules=$kernel/modules" \
    -serial file:"$RUN/console" \
    -fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap \
    -device virtio-9p-pci,fsdev=root,mount_tag=root \
    -fsdev local,id=share,path="$RUN/share",security_model=none,multidevs=remap \
    -device virtio-9p-pci,fsdev=share,mount_tag=share \
    -drive if=none,id=scratch,file="$RUN/scratch.img",format=raw,cache=unsafe,aio=threads,discard=unmap \
    -device virtio-blk-pci,drive=scratch -device virtio-rng-pci \
    -device virtio-serial-pci -chardev file,id=out,path=/dev/stdout -device virtserialport,chardev=out,name=out \
    </dev/null >&3 3>&- 2>"$RUN/qemu.log" &
  QEMU_PID=$!
  exec 3>&-
  local turns=$((BOOT_SECONDS_MAX * 2))
  while [[ ! -e $RUN/share/started ]] && ((turns-- > 0)) && kill -0 "$QEMU_PID" 2>/dev/null; do sleep 0.5; done
  [[ -e $RUN/share/started ]] || kill "$QEMU_PID" 2>/dev/null || true
  QEMU_STATUS=0
  wait "$QEMU_PID" || QEMU_STATUS=$?
  QEMU_PID=
  wait "$printer"
}

# Prints the console, from the first error if there is one: the first lines of the kernel's report matter.
last_words() {
  local lines from
  : >>"$RUN/console"
  lines=$(wc -l <"$RUN/console")
  from=$(awk '/BUG:|Oops|int3:|panic/ { print NR; exit }' "$RUN/console")
  from=${from:-$((lines < LAST_LINES_MAX ? 1 : lines - LAST_LINES_MAX + 1))}
  tail -n "$LAST_LINES_MAX" "$RUN/qemu.log" | sed 's/^/    /'
  sed -n "$from,$((from + LAST_LINES_MAX - 1))s/^/    /p" "$RUN/console"
}

main() {
  local series=6.12 seconds=1800 kernel option
  while getopts k:t: option; do
    case $option in
      k) series=$OPTARG ;;
      t) seconds=$OPTARG ;;
      *) fail 'usage: scripts/vm.sh [-k 6.1|6.12] [-t SECONDS] COMMAND' ;;
    esac
  done
  shift $((OPTIND - 1))
  (($# == 1)) || fail 'usage: scripts/vm.sh [-k 6.1|6.12] [-t SECONDS] COMMAND'
  [[ $seconds =~ ^[1-9][0-9]*$ ]] || fail "-t takes seconds, not \"$seconds\""
  kernel=$("$HERE/vm/kernel.sh" "$series")

  RUN=$(mktemp -d /var/tmp/obd-vm.XXXXXX)
  local attempt
  for ((attempt = 1; attempt <= RUNS_MAX; attempt++)); do
    prepare "$1"
    boot "$kernel" "$seconds"
    [[ ! -e $RUN/share/status ]] || exit "$(<"$RUN/share/status")"
    ((QEMU_STATUS != STATUS_TIMED_OUT)) || break
    if [[ ! -e $RUN/share/started ]]; then
      printf 'vm: boot %d of %d did not reach the command\n' "$attempt" "$RUNS_MAX" >&2
    elif grep -q "$BROKEN_BY_EMULATOR" "$RUN/console"; then
      printf 'vm: the emulator broke guest %d of %d (%s)\n' "$attempt" "$RUNS_MAX" "$BROKEN_BY_EMULATOR" >&2
    else
      break
    fi
  done
  if ((QEMU_STATUS == STATUS_TIMED_OUT)); then
    printf 'vm: not done after %d seconds\n' "$seconds" >&2
    exit "$STATUS_TIMED_OUT"
  fi
  printf 'vm: the guest died. Its last words:\n' >&2
  last_words >&2
  exit "$STATUS_GUEST_DIED"
}

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
main "$@"
