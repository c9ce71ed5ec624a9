#!/usr/bin/env bash
# Makes the image that the quickstart and the end-to-end tests convert, from Debian's own packages:
#
#     scripts/sample-image.sh DIR        an OCI layout in DIR, one image tagged "sample", three layers
#     scripts/sample-image.sh --cached   the same in $OBD_TS_CACHE (default /var/cache/obd-ts), made if it is not
#                                        there yet; prints its path
#
#     1  a minimal Debian (mmdebstrap, variant minbase, of the host's own release and mirror)
#     2  python3
#     3  a small web application on python3-flask, and the image's command
#
# umoci makes each layer of the changes that apt-get made in the unpacked image, like an image builder. Needs root, apt, mmdebstrap, umoci; takes half a minute. DIR appears only when it is complete.
set -euo pipefail

readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
readonly SAMPLE=sample

fail() {
  printf 'sample-image: %s\n' "$*" >&2
  exit 1
}

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

write_application() {
  local app=$1/srv/app
  mkdir -p "$app/templates"
  cat >"$app/app.py" <<'PYTHON'
"""A shop's front page. Prints the answer to its first request, then how it was made."""
import json
import platform
import sqlite3
import sys
from importlib.metadata import version

from flask import Flask, render_template

app = Flask(__name__)


def stock():
    db = sqlite3.connect(":memory:")
    db.execute("create table stock (name text, pieces integer)")
    db.executemany("insert into stock values (?, ?)", [("bolts", 120), ("nuts", 340)])
    return db.execute("select name, pieces from stock order by name").fetchall()


@app.route("/")
def front_page():
    return render_template("front.html", stock=stock())


if __name__ == "__main__":
    answer = app.test_client().get("/")
    print(answer.status, answer.get_data(as_text=True).strip(), flush=True)
    made_with = {"python": platform.python_version(), "flask": version("flask")}
    print(json.dumps(made_with), flush=True)
    sys.exit(0 if answer.status_code == 200 else 1)
PYTHON
  printf '%s\n' '{% for name, pieces in stock %}{{ pieces }} {{ name }}{{ ", " if not loop.last }}{% endfor %}' \
    >"$app/templates/front.html"
}

# The folder of the image: another one for each version of this script, release and machine.
cached_layout() {
  local key
  key=$({ cat "$0" /etc/os-release; uname -m; } | sha256sum | cut -c1-16)
  printf '%s/sample-%s' "${OBD_TS_CACHE:-/var/cache/obd-ts}" "$key"
}

main() {
  [[ $# -eq 1 ]] || fail "usage: scripts/sample-image.sh DIR | --cached"
  if [[ $1 == --cached ]]; then
    local layout
    layout=$(cached_layout)
    [[ -d $layout ]] || make_image "$layout"
    printf '%s\n' "$layout"
  else
    make_image "$1"
  fi
}

make_image() {
  [[ $EUID -eq 0 ]] || fail 'must run as root: it makes device nodes and runs packages'\'' scripts in a chroot'
  local destination=$1 sources
  [[ ! -e $destination ]] || fail "$destination exists already"
  sources=$(debian_sources)
  if [[ -z $sources ]]; then
    apt-get -qq update
    sources=$(debian_sources)
  fi
  [[ -n $sources ]] || fail 'apt knows no Debian mirror: add one to /etc/apt/sources.list.d'

  mkdir -p "$(dirname "$destination")"
  WORK=$(mktemp -d "$(dirname "$(realpath -m "$destination")")/.sample.XXXXXX")
  trap 'rm -rf --one-file-system "$WORK"' EXIT
  trap 'exit 130' INT TERM

  export DEBIAN_FRONTEND=noninteractive LC_ALL=C

  local layout=$WORK/layout rootfs=$WORK/bundle/rootfs image
  image=$layout:$SAMPLE
  acquire_settings >"$WORK/base.conf"
  # shellcheck disable=SC2016 # $1 is mmdebstrap's
  # usr-is-merged says that /usr is merged already; the alternative, usrmerge, would bring all of perl.
  quietly mmdebstrap --mode=root --variant=minbase --include=usr-is-merged \
    --hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr --aptopt="$WORK/base.conf" \
    --customize-hook='rm -rf "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/var/lib/apt/lists/*' \
    "$(debian_codename)" "$WORK/base.tar" - <<<"$sources"

  quietly umoci init --layout "$layout"
  quietly umoci new --image "$image"
  quietly umoci raw add-layer --image "$image" --history.created_by 'mmdebstrap --variant=minbase' "$WORK/base.tar"
  quietly umoci unpack --image "$image" "$WORK/bundle"
  install_in "$rootfs" python3
  quietly umoci repack --refresh-bundle --image "$image" --history.created_by 'apt-get install python3' "$WORK/bundle"
  install_in "$rootfs" python3-flask
  write_application "$rootfs"
  quietly umoci repack --image "$image" --history.created_by 'apt-get install python3-flask; cp app' "$WORK/bundle"
  quietly umoci config --image "$image" --config.cmd python3 --config.cmd /srv/app/app.py \
    --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  quietly umoci gc --layout "$layout"
  mv -T "$layout" "$destination"
}

main "$@"
