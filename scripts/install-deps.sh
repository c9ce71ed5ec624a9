#!/usr/bin/env bash
# Installs the dependencies on a fresh Debian 12 or 13 (as root), and builds the project; quick when nothing is missing:
#
#     scripts/install-deps.sh quickstart     packages to build it and to run scripts/quickstart.sh
#     scripts/install-deps.sh test           these, and the packages for the tests
#
# Where the host's Node is absent or too old, as Debian's is, Node 24 and its npm come out of the npm registry into
# tools/node, pinned there with their hashes. Only this project uses them: for the build, the tests and the daemons.
# Debian's npm fetches them, and is installed for that where there is none.
#
# A package is installed only if the program it provides is absent, so another vendor's containerd stays; nothing is
# removed or upgraded to make room, and no service is started: the scripts run their own. Services that Debian enables
# at the next boot (containerd, and docker-registry on port 5000) stay enabled.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/node-env.sh
. scripts/node-env.sh

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
  fincore util-linux-extra
  setfacl acl
  xz xz-utils
  shellcheck shellcheck
)
# Needed by scripts/vm.sh, whose guests have this architecture only, and by containers in the guests.
readonly VM_NEEDS=(
  qemu-system-x86_64 qemu-system-x86
  cpio cpio
  depmod kmod
  busybox busybox-static
)
# Removed at every exit.
TRASH=()
trap '((${#TRASH[@]} == 0)) || rm -rf "${TRASH[@]}"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '==> %s\n' "$*" >&2; }

fail() {
  printf 'install-deps: %s\n' "$*" >&2
  exit 1
}

is_there() {
  if [[ $1 == /* ]]; then [[ -e $1 ]]; else command -v "$1" >/dev/null; fi
}

# Prints the packages that provide the missing entries of a list of pairs.
missing_packages() {
  while (($# >= 2)); do
    is_there "$1" || printf '%s\n' "$2"
    shift 2
  done
}

# Prints the folder of this Node's own headers, so that node-gyp need not download them: its prefix, or Debian's libnode-dev.
node_prefix() {
  local prefix major
  prefix=$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")
  major=$(node -p 'process.versions.node.split(".")[0]')
  grep -qE "NODE_MAJOR_VERSION $major\$" "$prefix/include/node/node_version.h" 2>/dev/null && printf '%s' "$prefix"
}

# Installs without letting maintainer scripts start services (Debian policy: exit status 101 forbids it).
apt_install() {
  [[ $EUID -eq 0 ]] || fail "must run as root to install: $*"
  command -v apt-get >/dev/null || fail "apt-get is missing, this is no Debian; install by hand: $*"
  say "apt-get install $*"
  local policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    TRASH+=("$policy")
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq --yes --no-install-recommends --no-remove -o Dpkg::Use-Pty=0 install "$@" >&2
}

# Installs the Node of FOLDER/package.json, unless it is there. A daemon that starts during the installation finds the
# earlier one, but for the instant between two renames.
install_node_package() {
  local folder=$1 stage node
  node=$(node_package "$folder")/bin/node
  cmp --quiet "$folder/package-lock.json" "$folder/node_modules/.installed-lock" && [[ -x $node ]] && return
  command -v npm >/dev/null || apt_install npm
  say "npm ci ($folder)"
  stage=$(mktemp -d "$folder/node_modules.XXXXXX")
  TRASH+=("$stage")
  cp "$folder/package.json" "$folder/package-lock.json" "$stage"
  (cd "$stage" && npm ci --no-fund --no-audit --include=optional >&2)
  cp "$stage/package-lock.json" "$stage/node_modules/.installed-lock"
  [[ ! -e $folder/node_modules ]] || mv -T "$folder/node_modules" "$stage/old"
  mv -T "$stage/node_modules" "$folder/node_modules"
  "$node" --version >/dev/null ||
    fail "npm has no Node that runs on this $(uname -m): install Node $(node_floor) or newer, with npm"
}

# Makes `node` the one that obd-ts runs on, here and in what npm runs.
install_node() {
  if ! is_node_recent node || ! command -v npm >/dev/null; then install_node_package tools/node; fi
  use_node
}

# `npm run` and `npx` look into node_modules/.bin first.
link_node() {
  local own link=node_modules/.bin/node
  own=$(node_package tools/node)/bin/node
  if [[ $(command -v node) -ef $own ]]; then
    ln -sfn "../../${own#"$PWD/"}" "$link"
  else
    rm -f "$link"
  fi
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
  local folder needs=("${QUICKSTART_NEEDS[@]}")
  case ${1-} in
    quickstart) ;;
    test)
      needs+=("${TEST_NEEDS[@]}")
      [[ $(uname -m) != x86_64 ]] || needs+=("${VM_NEEDS[@]}")
      ;;
    *) fail 'usage: scripts/install-deps.sh quickstart|test' ;;
  esac
  export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
  install_node
  [[ $1 != test ]] || for folder in tools/node tools/node/floor; do install_node_package "$folder"; done
  install_packages "${needs[@]}"
  local prefix
  ! prefix=$(node_prefix) || export npm_config_nodedir=$prefix
  install_node_modules
  link_node
  say 'npm run build'
  npm run --silent build >&2
}

main "$@"
