#!/usr/bin/env bash
# Brings a kernel to where obd-blockd can use its TCMU transport, and says what it lacks if it cannot.
set -euo pipefail

readonly CONFIGFS=/sys/kernel/config
# module, its option in the kernel's configuration, what is there once it is loaded or if it is built in
readonly NEEDS=(
  target_core_mod CONFIG_TARGET_CORE "$CONFIGFS/target"
  target_core_user CONFIG_TCM_USER2 /sys/module/target_core_user
  tcm_loop CONFIG_LOOPBACK_TARGET /sys/module/tcm_loop
  sd_mod CONFIG_BLK_DEV_SD /sys/bus/scsi/drivers/sd
)

usage() {
  cat <<'TEXT'
Usage: scripts/setup-tcmu.sh [--check]

Loads target_core_user, tcm_loop and sd_mod, and mounts configfs if it is not mounted. Changes nothing that is there
already, so it can be run at each boot. With --check it only says what is missing.

Exit status: 0 the TCMU transport can be used, 1 something is missing, 2 wrong usage.

Examples:
  scripts/setup-tcmu.sh
  scripts/setup-tcmu.sh --check || echo 'no TCMU here'

To have the modules loaded at each boot:
  printf '%s\n' target_core_user tcm_loop sd_mod >/etc/modules-load.d/obd-ts-tcmu.conf
TEXT
}

MISSING=0
missing() {
  printf 'missing: %s\n' "$*" >&2
  MISSING=1
}

mount_configfs() {
  grep -qs " $CONFIGFS configfs " /proc/mounts && return
  if [[ ! -d $CONFIGFS ]]; then
    ((ONLY_CHECK)) || modprobe --quiet configfs || true
  fi
  if [[ ! -d $CONFIGFS ]]; then
    missing "this kernel ($(uname -r)) has no configfs: use one with CONFIG_CONFIGFS_FS"
  elif ((ONLY_CHECK)); then
    missing "configfs is not mounted: mount -t configfs configfs $CONFIGFS"
  else
    mount -t configfs configfs "$CONFIGFS" || missing "configfs cannot be mounted at $CONFIGFS"
  fi
}

need() {
  local module=$1 option=$2 path=$3
  [[ -e $path ]] && return
  if ! modprobe --quiet --dry-run "$module" 2>/dev/null; then
    missing "the module $module is not installed for kernel $(uname -r): use a kernel with $option=m;" \
      'Debian: linux-image-amd64, not its cloud variant; Ubuntu: linux-modules-extra'
  elif ((ONLY_CHECK)); then
    missing "the module $module is not loaded: modprobe $module"
  elif ! modprobe "$module"; then
    missing "the module $module cannot be loaded; dmesg may say why"
  elif [[ ! -e $path ]]; then
    missing "the module $module is loaded, and there is no $path: is configfs mounted at $CONFIGFS?"
  fi
}

ONLY_CHECK=0
case ${1-} in
  '') ;;
  --check) ONLY_CHECK=1 ;;
  --help | -h) usage && exit ;;
  *) usage >&2 && exit 2 ;;
esac
(($# <= 1)) || { usage >&2 && exit 2; }
((EUID == 0)) || { missing 'it takes root' && exit 1; }
export PATH=$PATH:/usr/sbin:/sbin
command -v modprobe >/dev/null || { missing 'modprobe: apt-get install kmod' && exit 1; }

mount_configfs
for ((i = 0; i < ${#NEEDS[@]}; i += 3)); do need "${NEEDS[@]:i:3}"; done
((MISSING)) && exit 1
echo 'TCMU can be used'
