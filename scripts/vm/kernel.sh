#!/usr/bin/env bash
# Prints the folder of a Debian kernel for scripts/vm.sh, and makes it first if it is missing:
#
#     scripts/vm/kernel.sh 6.1|6.12
#
#     CACHE/SERIES_VERSION_RECIPE/vmlinuz      VERSION is that of the Debian package
#                                /initrd.gz    busybox, the modules that mount the guest's root, and vm/init
#                                /modules/     for the guest's /usr/lib/modules: what storage and containers can need
#
# The packages come from this host's own mirror, are checked by Debian's keys, and not installed.
# A folder is complete or absent. Folders of other versions of these scripts are ignored.
set -euo pipefail

CACHE=${OBD_VM_CACHE:-/var/cache/obd-ts-vm}
HERE=$(cd "$(dirname "$0")" && pwd)
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# The parts of the kernel's tree that come along; all of it is three times as large.
readonly MODULE_PATHS=(
  arch block crypto lib fs mm net/core net/9p net/bridge net/netfilter net/ipv4 net/ipv6 net/802 net/llc
  drivers/block drivers/target drivers/scsi drivers/uio drivers/virtio drivers/md drivers/net/veth.ko
  drivers/net/veth.ko.xz drivers/char/hw_random drivers/char/virtio_console.ko drivers/char/virtio_console.ko.xz
)
# Loaded by the initramfs, with what they depend on.
readonly BOOT_MODULES=(configfs virtio_pci virtio_blk 9pnet_virtio 9p overlay ext4 crc32c_generic virtio_console virtio_rng)

fail() {
  printf 'vm: %s\n' "$*" >&2
  exit 1
}

# The address of the Debian mirror in this host's apt sources.
mirror() {
  local release
  # shellcheck source=/dev/null
  release=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME-}")
  # shellcheck disable=SC2016 # apt fills them in
  apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    awk -v release="$release" '($1 == release || $1 ~ /^(old)?stable$/) && $2 == "main" { print $3; exit }'
}

# fetch SUITE PACKAGE...: downloads packages of that suite, on any release of the host, into the current folder. For
# "linux-image-amd64" it downloads the kernel that this package depends on.
fetch() {
  local suite=$1 uri package names=()
  shift
  uri=$(mirror)
  [[ -n $uri ]] || fail "cannot fetch a kernel: no Debian mirror is among apt's sources"
  printf 'deb [signed-by=%s] %s %s main\n' "$KEYRING" "$uri" "$suite" >sources.list
  mkdir -p apt/lists/partial apt/archives/partial
  local apt_options=(
    -qq -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o Acquire::Languages=none -o APT::Sandbox::User=root
    -o Dir::State="$PWD/apt" -o Dir::State::status=/dev/null -o Dir::Cache="$PWD/apt"
    -o Dir::Etc::SourceList="$PWD/sources.list" -o Dir::Etc::SourceParts=/dev/null
  )
  apt-get "${apt_options[@]}" update >&2
  for package in "$@"; do
    if [[ $package == linux-image-amd64 ]]; then
      package=$(apt-cache "${apt_options[@]}" depends "$package" | awk '/Depends: linux-image/ { print $2; exit }')
    fi
    names+=("$package")
  done
  apt-get "${apt_options[@]}" download "${names[@]}" >&2
}

# Copies the modules that come along from the unpacked package $1 to the folder $2.
copy_modules() {
  local from=$1 to=$2 path
  mkdir -p "$to/kernel"
  cp "$from"/modules.{order,builtin,builtin.modinfo} "$to/"
  for path in "${MODULE_PATHS[@]}"; do
    [[ ! -e $from/kernel/$path ]] || (cd "$from" && cp -r --parents "kernel/$path" "$to")
  done
  # Busybox loads none that are compressed, and the guest has better to do.
  find "$to" -name '*.ko.xz' -print0 | xargs -0 -r -P 2 -n 64 xz -d
}

# make_initrd ROOT RELEASE BUSYBOX TARGET: ROOT/lib/modules/RELEASE holds the modules.
make_initrd() {
  local root=$1 release=$2 busybox=$3 target=$4 tree=$PWD/initrd module path
  mkdir -p "$tree"/{bin,dev,lower,modules,newroot,proc,sys,upper}
  cp "$busybox" "$tree/bin/busybox"
  cp "$HERE/init" "$tree/init"
  chmod 755 "$tree/init"
  for module in "${BOOT_MODULES[@]}"; do
    # A built-in module prints "builtin", a missing one an error.
    modprobe --dirname "$root" --set-version "$release" --show-depends "$module" 2>/dev/null |
      sed -n 's/^insmod \([^ ]*\).*/\1/p'
  done | awk '!seen[$0]++' >order
  while read -r path; do
    cp "$path" "$tree/modules/"
    basename "$path" >>"$tree/modules/order"
  done <order
  (cd "$tree" && find . | cpio --quiet -o -H newc | gzip -1) >"$target"
}

# make SERIES SUITE RECIPE: makes the folder and prints its path.
make() {
  local series=$1 suite=$2 recipe=$3 work package version modules release result
  work=$(mktemp -d "$CACHE/.new.XXXXXX")
  # shellcheck disable=SC2064 # the path is known now
  trap "rm -rf '$work'" EXIT
  cd "$work"
  printf 'vm: fetching the kernel of Debian "%s"\n' "$suite" >&2
  fetch "$suite" linux-image-amd64 busybox-static
  package=$(echo linux-image-*.deb)
  version=$(dpkg-deb --field "$package" Version)
  [[ $version == "$series".* ]] || fail "Debian \"$suite\" has a kernel $version, not $series"
  dpkg-deb --extract "$package" linux
  dpkg-deb --extract busybox-static_*.deb busybox
  # Debian 12 has them in /lib, Debian 13 in /usr/lib.
  modules=$(dirname "$(find linux -name modules.order)")
  release=$(basename "$modules")
  copy_modules "$modules" "$work/root/lib/modules/$release"
  depmod --basedir "$work/root" "$release"
  mkdir result
  make_initrd "$work/root" "$release" "$(find busybox -path '*/bin/busybox')" "$work/result/initrd.gz"
  cp "linux/boot/vmlinuz-$release" result/vmlinuz
  mv "root/lib/modules/$release" result/modules
  result=$CACHE/${series}_${version}_$recipe
  mv -T result "$result"
  printf '%s\n' "$result"
}

main() {
  local series=${1-} suite recipe found
  case $series in
    6.1) suite=bookworm ;;
    6.12) suite=trixie ;;
    *) fail "there is no kernel \"$series\": 6.1 and 6.12 are known" ;;
  esac
  recipe=$(cat "$HERE"/* | sha256sum | cut -c 1-8)
  mkdir -p "$CACHE"
  # Others wait while one makes it.
  exec 9>"$CACHE/lock"
  flock 9
  found=$(find "$CACHE" -maxdepth 1 -name "${series}_*_$recipe" | sort -V | tail -n 1)
  if [[ -n $found ]]; then printf '%s\n' "$found"; else make "$series" "$suite" "$recipe"; fi
}

main "$@"
