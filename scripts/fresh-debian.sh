#!/usr/bin/env bash
# README's two commands (git clone, scripts/quickstart.sh) on a Debian that was made a moment ago:
#
#     scripts/fresh-debian.sh bookworm|trixie none|apt
#
#     none   there is no Node and no npm
#     apt    nodejs and npm of that Debian are installed
#
# The Debian is mmdebstrap's minimal one with ca-certificates and git, in separate mount and process namespaces on this
# kernel. It gets the committed files of this tree. apt and npm are configured as on this host: mirror, proxies, registry,
# certificates. The exit status is 0 only if the quickstart's is.
#
# Needs root, mmdebstrap and the Internet; takes 5 to 15 minutes and 4 GB of /var/tmp. Removes all it made.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
readonly CERTIFICATES=/etc/ssl/certs/ca-certificates.crt
readonly SECONDS_MAX=3000

DIR=''
CHILD=''

say() { printf '==> %s\n' "$*" >&2; }

fail() {
  printf 'fresh-debian: %s\n' "$*" >&2
  exit 1
}

# The kernel removes the mounts with the namespace, and the namespace with its first process.
finish() {
  local status=$?
  trap '' INT TERM
  trap - EXIT
  if [[ -n $CHILD ]]; then
    kill -KILL "$CHILD" 2>/dev/null || true
    wait "$CHILD" 2>/dev/null || true
  fi
  [[ -z $DIR ]] || rm -rf --one-file-system "$DIR"
  exit "$status"
}

# The host's Debian repositories, as one-line entries for another release: bookworm-security becomes trixie-security.
sources_for() {
  local own
  own=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  # shellcheck disable=SC2016 # apt-get fills in $(...)
  apt-get indextargets --format 'deb [signed-by='"$KEYRING"'] $(REPO_URI) $(RELEASE) main' \
    'Created-By: Packages' 'Origin: Debian' 'Component: main' "Architecture: $(dpkg --print-architecture)" |
    sed -E "s/ $own(-security|-updates)? main\$/ $1\\1 main/" | grep -E " $1(-security|-updates)? main\$" | sort -u
}

acquire_settings() {
  apt-config dump Acquire | grep -E '^Acquire::(http|https|Check-|Retries|ForceIPv)' || true
}

# make_root RELEASE PACKAGES
make_root() {
  local sources
  sources=$(sources_for "$1")
  [[ -n $sources ]] || fail 'apt knows no Debian mirror: run apt-get update, or add one to /etc/apt/sources.list.d'
  acquire_settings >"$DIR/apt.conf"
  mmdebstrap --mode=root --variant=minbase --include="$2" --aptopt="$DIR/apt.conf" "$1" "$DIR/root" - \
    <<<"$sources" >"$DIR/log" 2>&1 || fail "mmdebstrap failed: $(tail -n 20 "$DIR/log")"
}

# How this host reaches its npm registry.
configure_npm() {
  local own
  own=$(npm config get userconfig 2>/dev/null || echo ~/.npmrc)
  # The new Debian lacks this host's folder of headers.
  [[ ! -e $own ]] || grep -v '^nodedir' "$own" >"$DIR/root/root/.npmrc" || true
  [[ ! -e $CERTIFICATES ]] || cp "$CERTIFICATES" "$DIR/root$CERTIFICATES"
  cp --dereference /etc/resolv.conf /etc/hosts "$DIR/root/etc/"
}

# Runs README's commands as the first process of new namespaces. pivot_root sets the new root, because runc sets another
# one inside, which a chroot does not allow.
run_inside() {
  # shellcheck disable=SC2016 # the inner shell expands it
  timeout --kill-after=10 "$SECONDS_MAX" unshare --mount --pid --fork --kill-child --propagation private bash -euc '
    root=$1 tree=$2
    mount --bind "$root" "$root"
    mkdir "$root/mnt/host" "$root/mnt/tree"
    mount --bind "$tree" "$root/mnt/tree"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/run"
    mount -t proc proc "$root/proc"
    cd "$root"
    pivot_root . mnt/host
    cd /
    umount --lazy /mnt/host
    exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
      ${NODE_EXTRA_CA_CERTS:+NODE_EXTRA_CA_CERTS="$NODE_EXTRA_CA_CERTS"} \
      bash -euc "
        cd /root
        git -c safe.directory=\* clone --quiet /mnt/tree obd-ts && cd obd-ts
        scripts/quickstart.sh"
  ' _ "$DIR/root" "$PWD" </dev/null &
  CHILD=$!
  wait "$CHILD" || return
  CHILD=''
}

main() {
  local packages=ca-certificates,git start=$SECONDS
  case "$#${1-}${2-}" in
    2bookwormnone | 2trixienone) ;;
    2bookwormapt | 2trixieapt) packages+=,nodejs,npm ;;
    *) fail 'usage: scripts/fresh-debian.sh bookworm|trixie none|apt' ;;
  esac
  [[ $EUID -eq 0 ]] || fail 'must run as root: it makes a Debian and mounts'
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  DIR=$(mktemp -d /var/tmp/obd-fresh.XXXXXX)
  say "$1: mmdebstrap, with $packages"
  make_root "$1" "$packages"
  configure_npm
  say "$1: git clone, scripts/quickstart.sh"
  start=$SECONDS
  run_inside || fail "$1, Node: $2: the quickstart failed (exit status $?)"
  say "$1, Node: $2: passed in $((SECONDS - start)) s"
}

main "$@"
