#!/usr/bin/env bash
# Brings a fresh Debian 12 or 13 (root, Node >= 20) to where the project runs, and the project to where it is
# built; quick when nothing is missing:
#
#     scripts/install-deps.sh quickstart     what building it and scripts/quickstart.sh need
#     scripts/install-deps.sh test           and what the tests need besides
#
# A package is installed only if what it is needed for is absent, so another vendor's containerd stays; nothing is
# removed or upgraded to make room, and no service is started: the scripts run their own. What Debian enables at the
# next boot (containerd, and docker-registry on port 5000) is left as Debian has it.
set -euo pipefail
cd "$(dirname "$0")/.."

# "what must be there" "the package that brings it"; a word without a slash is a command.
readonly QUICKSTART_NEEDS=(
  g++ g++
  make make
  python3 python3
  /usr/include/lz4.h liblz4-dev
  /usr/include/zstd.h libzstd-dev
  containerd containerd
  runc runc
  docker-registry docker-registry
  skopeo skopeo
  umoci umoci
  mmdebstrap mmdebstrap
  losetup mount
  findmnt util-linux
  /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
)
readonly TEST_NEEDS=(
  git git
  ps procps
  mkfs.ext4 e2fsprogs
  fio fio
  nbdinfo libnbd-bin
  fusermount3 fuse3
  qemu-nbd qemu-utils
  setfattr attr
  setfacl acl
  xz xz-utils
  shellcheck shellcheck
)
# Of scripts/vm.sh, whose guests are of this architecture alone, and of containers in them.
readonly VM_NEEDS=(
  qemu-system-x86_64 qemu-system-x86
  cpio cpio
  depmod kmod
  busybox busybox-static
)
readonly NODE_MAJOR_MIN=20

say() { printf '==> %s\n' "$*" >&2; }

fail() {
  printf 'install-deps: %s\n' "$*" >&2
  exit 1
}

node_major() { node -p 'process.versions.node.split(".")[0]'; }

check_host() {
  { command -v node && command -v npm; } >/dev/null || fail "Node is missing: install Node $NODE_MAJOR_MIN or newer, with npm"
  (($(node_major) >= NODE_MAJOR_MIN)) ||
    fail "Node $(node --version) is too old: obd-ts needs Node $NODE_MAJOR_MIN or newer"
}

is_there() {
  if [[ $1 == /* ]]; then [[ -e $1 ]]; else command -v "$1" >/dev/null; fi
}

# Prints the packages that bring whatever of the list (pairs) is missing.
missing_packages() {
  while (($# >= 2)); do
    is_there "$1" || printf '%s\n' "$2"
    shift 2
  done
}

# Where this node's own headers are, so that node-gyp need not download them: beside it, or Debian's libnode-dev.
node_prefix() {
  local prefix major
  prefix=$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")
  major=$(node_major)
  grep -qE "NODE_MAJOR_VERSION $major\$" "$prefix/include/node/node_version.h" 2>/dev/null && printf '%s' "$prefix"
}

# Installs without letting maintainer scripts start services (Debian policy: exit status 101 forbids it).
apt_install() {
  [[ $EUID -eq 0 ]] || fail "must run as root to install: $*"
  command -v apt-get >/dev/null || fail "apt-get is missing, this is no Debian; install by hand: $*"
  say "apt-get install $*"
  local policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    # shellcheck disable=SC2064 # the path is known now
    trap "rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq --yes --no-install-recommends --no-remove -o Dpkg::Use-Pty=0 install "$@" >&2
}

install_packages() {
  local packages
  mapfile -t packages < <(missing_packages "$@" | sort -u)
  node_prefix >/dev/null || packages+=(libnode-dev)
  ((${#packages[@]} == 0)) || apt_install "${packages[@]}"
}

install_node_modules() {
  local installed=node_modules/.package-lock.json
  [[ $installed -nt package-lock.json && $installed -nt package.json ]] && return
  say 'npm ci'
  npm ci --no-fund --no-audit >&2
}

main() {
  local needs=("${QUICKSTART_NEEDS[@]}")
  case ${1-} in
    quickstart) ;;
    test)
      needs+=("${TEST_NEEDS[@]}")
      [[ $(uname -m) != x86_64 ]] || needs+=("${VM_NEEDS[@]}")
      ;;
    *) fail 'usage: scripts/install-deps.sh quickstart|test' ;;
  esac
  export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
  check_host
  install_packages "${needs[@]}"
  local prefix
  ! prefix=$(node_prefix) || export npm_config_nodedir=$prefix
  install_node_modules
  say 'npm run build'
  npm run --silent build >&2
}

main "$@"
