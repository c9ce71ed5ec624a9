# Sourced by the scripts that make images of Debian's own packages: sample-image.sh, and make-image.sh of the benchmark of
# cold starts. Needs root, apt, mmdebstrap, umoci, and WORK, a folder for temporary files; fail() ends the script.
# shellcheck shell=bash

readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# Runs a verbose command; prints its output only if it fails.
quietly() {
  "$@" >"$WORK/log" 2>&1 || fail "$1 failed: $(tail -n 40 "$WORK/log")"
}

# The host's Debian sources as one-line entries; what others publish (nodejs.org, docker.com) stays out.
debian_sources() {
  # shellcheck disable=SC2016 # apt-get fills in $(...)
  apt-get indextargets --format 'deb [signed-by='"$KEYRING"'] $(REPO_URI) $(RELEASE) $(COMPONENT)' \
    'Created-By: Packages' 'Origin: Debian' 'Component: main' "Architecture: $(dpkg --print-architecture)" |
    sort -u
}

debian_codename() {
  sed -n 's/^VERSION_CODENAME=//p' /etc/os-release
}

# The host's apt settings to reach its mirror, such as proxies. Never becomes part of the image.
acquire_settings() {
  apt-config dump Acquire | grep -E '^Acquire::(http|https|Check-|Retries|ForceIPv)' || true
}

# Configures apt to work on the tree in $1 from outside, so that the host's network set-up applies.
write_apt_config() {
  local rootfs=$1
  acquire_settings
  cat <<CONFIG
Dir "$rootfs";
Dir::State::status "$rootfs/var/lib/dpkg/status";
DPkg::Chroot-Directory "$rootfs";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
CONFIG
}

# Installs packages in the tree $1. In a separate mount namespace: nothing can be left mounted.
install_in() {
  local rootfs=$1
  shift
  write_apt_config "$rootfs" >"$WORK/apt.conf"
  # shellcheck disable=SC2016 # expanded by the inner shell
  APT_CONFIG="$WORK/apt.conf" quietly unshare --mount --propagation private bash -euc '
    mount -t proc proc "$1/proc"
    shift
    apt-get -qq update
    apt-get -qq --yes -o Dpkg::Use-Pty=0 install "$@"' _ "$rootfs" "$@"
  rm -rf "$rootfs"/var/lib/apt/lists/* "$rootfs"/var/cache/apt/*.bin \
    "$rootfs"/var/cache/apt/archives/*.deb "$rootfs"/var/log/{dpkg.log,apt} \
    "$rootfs"/var/cache/ldconfig/aux-cache
}

# Writes a minimal Debian, of the host's own release and mirror, to the tar file $1.
make_base() {
  local sources
  sources=$(debian_sources)
  if [[ -z $sources ]]; then
    apt-get -qq update
    sources=$(debian_sources)
  fi
  [[ -n $sources ]] || fail 'apt knows no Debian mirror: add one to /etc/apt/sources.list.d'
  acquire_settings >"$WORK/base.conf"
  # shellcheck disable=SC2016 # $1 is mmdebstrap's
  # usr-is-merged says that /usr is merged already; the alternative, usrmerge, would bring all of perl.
  quietly mmdebstrap --mode=root --variant=minbase --include=usr-is-merged \
    --hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr --aptopt="$WORK/base.conf" \
    --customize-hook='rm -rf "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/var/lib/apt/lists/*' \
    "$(debian_codename)" "$1" - <<<"$sources"
}
