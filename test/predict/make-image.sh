#!/usr/bin/env bash
# Makes one of the images whose predictions are measured, from Debian's packages, npm and PyPI:
#
#     test/predict/make-image.sh NAME     prints the path of an ext4 disk in $OBD_TS_CACHE (default /var/cache/obd-ts),
#                                         made if it is not there yet
#
# NAME is bb, flask, jvm, nginx, node, php, py, redis or tomcat. Their commands are those of the recorded starts.
# Needs root, apt, mmdebstrap, mke2fs; npm for node, pip for py.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/debian-image.sh
. scripts/debian-image.sh

readonly SCRIPTS=(test/predict/make-image.sh scripts/debian-image.sh)

fail() {
  printf 'make-image: %s\n' "$*" >&2
  exit 1
}

# Writes standard input to a file of the image.
write() {
  mkdir -p "$(dirname "$ROOTFS/$1")"
  cat >"$ROOTFS/$1"
  chmod "${2:-644}" "$ROOTFS/$1"
}

fill_bb() {
  local applet
  rm -rf "${ROOTFS:?}"/*
  (cd "$WORK" && quietly apt-get download busybox-static && quietly dpkg -x busybox-static_*.deb package)
  mkdir -p "$ROOTFS"/{bin,tmp}
  cp "$WORK"/package/{usr/,}bin/busybox "$ROOTFS/bin/" 2>"$WORK/log" || [[ -e $ROOTFS/bin/busybox ]]
  for applet in sh mkdir httpd ls cat; do ln "$ROOTFS/bin/busybox" "$ROOTFS/bin/$applet"; done
  echo hello | write www/index.html
}

fill_flask() {
  install_in "$ROOTFS" python3 gunicorn python3-flask
  write srv/app/app.py <<'PYTHON'
import sqlite3

from flask import Flask, render_template

app = Flask(__name__)


@app.route("/")
def front_page():
    db = sqlite3.connect(":memory:")
    stock = db.execute("select 'bolts', 120").fetchall()
    return render_template("front.html", stock=stock)
PYTHON
  echo '{% for name, pieces in stock %}{{ pieces }} {{ name }}{% endfor %}' | write srv/app/templates/front.html
}

fill_jvm() {
  mkdir -p "$ROOTFS/usr/share/man/man1"
  install_in "$ROOTFS" openjdk-17-jre-headless
  # The predictor does not open it.
  head -c 1850 /dev/zero | write srv/app/app.jar
}

fill_nginx() {
  install_in "$ROOTFS" nginx-light
  write etc/nginx/conf.d/default.conf <<'CONF'
server {
    listen 8080;
    root /var/www/html;
    index index.nginx-debian.html;
}
CONF
}

fill_node() {
  mkdir -p "$ROOTFS/srv/app/lib" "$ROOTFS/usr/local/bin"
  install_in "$ROOTFS" libstdc++6
  cp "$(node -p process.execPath)" "$ROOTFS/usr/local/bin/node"
  (cd "$ROOTFS/srv/app" && echo '{"name": "app", "version": "1.0.0", "main": "server.js"}' >package.json &&
    quietly npm install --ignore-scripts --no-fund --no-audit express@5)
  write srv/app/server.js <<'JAVASCRIPT'
const express = require('express');
const stock = require('./lib/stock');

const app = express();
app.get('/', (_, response) => response.json(stock));
app.listen(8080);
JAVASCRIPT
  echo 'module.exports = { bolts: 120 };' | write srv/app/lib/stock.js
}

fill_php() {
  install_in "$ROOTFS" apache2 libapache2-mod-php php-mysql php-xml php-mbstring
}

fill_py() {
  local target=$ROOTFS/usr/local/lib/python3.11/dist-packages
  install_in "$ROOTFS" python3
  quietly python3 -m pip install --no-cache-dir --python-version 3.11 --only-binary :all: --target "$target" numpy==2.4.* pandas==3.1.*
  write srv/app/main.py <<'PYTHON'
import http.server

import numpy
import pandas

print(pandas.DataFrame({"a": numpy.arange(4)}).sum())
PYTHON
}

fill_redis() {
  install_in "$ROOTFS" redis-server
  write usr/local/bin/docker-entrypoint.sh 755 <<'SH'
#!/bin/sh
set -e

# first arg is `-f` or `--some-option`
if [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then
	set -- redis-server "$@"
fi

# allow the container to be started with `--user`
if [ "$1" = 'redis-server' -a "$(id -u)" = '0' ]; then
	find . \! -user redis -exec chown redis '{}' +
	exec setpriv --reuid=redis --regid=redis --clear-groups -- "$0" "$@"
fi

exec "$@"
SH
  mkdir -p "$ROOTFS/data"
}

fill_tomcat() {
  mkdir -p "$ROOTFS/usr/share/man/man1"
  install_in "$ROOTFS" openjdk-17-jre-headless tomcat10
}

main() {
  local name=${1:-} key disk
  [[ $# -eq 1 && $(type -t "fill_$name") == function ]] || fail "usage: test/predict/make-image.sh NAME"
  key=$({ cat "${SCRIPTS[@]}" /etc/os-release; uname -m; } | sha256sum | cut -c1-16)
  disk=${OBD_TS_CACHE:-/var/cache/obd-ts}/predict/$name-$key.ext4
  [[ -e $disk ]] || make_disk "$name" "$disk"
  printf '%s\n' "$disk"
}

make_disk() {
  local name=$1 disk=$2
  [[ $EUID -eq 0 ]] || fail 'must run as root: it makes device nodes and runs packages'\'' scripts in a chroot'
  mkdir -p "$(dirname "$disk")"
  WORK=$(mktemp -d "$(dirname "$disk")/.$name.XXXXXX")
  trap 'rm -rf --one-file-system "$WORK"' EXIT
  trap 'exit 130' INT TERM
  export DEBIAN_FRONTEND=noninteractive LC_ALL=C
  ROOTFS=$WORK/rootfs
  mkdir "$ROOTFS"
  make_base "$WORK/base.tar"
  tar -C "$ROOTFS" -xf "$WORK/base.tar"
  "fill_$name"
  # The features of a disk that obdconv makes.
  quietly mke2fs -q -t ext4 -b 4096 -O ^has_journal,^metadata_csum,^resize_inode -d "$ROOTFS" "$WORK/disk" 2G
  mv "$WORK/disk" "$disk"
}

main "$@"
