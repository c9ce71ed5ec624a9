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
# shellcheck source=scripts/debian-image.sh
. "$(dirname "$0")/debian-image.sh"

readonly SAMPLE=sample

fail() {
  printf 'sample-image: %s\n' "$*" >&2
  exit 1
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
  key=$({ cat "$0" "$(dirname "$0")/debian-image.sh" /etc/os-release; uname -m; } | sha256sum | cut -c1-16)
  printf '%s/sample-%s' "${OBD_TS_CACHE:-/var/cache/obd-ts}" "$key"
}

main() {
  [[ $# -eq 1 && ($1 == --cached || $1 != -*) ]] || fail "usage: scripts/sample-image.sh DIR | --cached"
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
  local destination=$1
  [[ ! -e $destination ]] || fail "$destination exists already"

  mkdir -p "$(dirname "$destination")"
  WORK=$(mktemp -d "$(dirname "$(realpath -m "$destination")")/.sample.XXXXXX")
  trap 'rm -rf --one-file-system "$WORK"' EXIT
  trap 'exit 130' INT TERM

  export DEBIAN_FRONTEND=noninteractive LC_ALL=C

  local layout=$WORK/layout rootfs=$WORK/bundle/rootfs image
  image=$layout:$SAMPLE
  make_base "$WORK/base.tar"

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
