#!/usr/bin/env bash
# Makes one of the images that the benchmark of cold starts runs, from Debian's packages and npm's express:
#
#     bench/coldstart/make-image.sh NAME     prints DIR:image, an image of an OCI layout in $OBD_TS_CACHE (default
#                                            /var/cache/obd-ts); made if it is not there yet
#
#     jvm      Tomcat with its first page
#     nodejs   a web server on express
#     pandas   Python with pandas, and a table that it groups
#     nginx    nginx with its first page
#     layers   120 layers with a few small files each
#     model    20 files of model weights, 1 GiB of random bytes: one of 200 MiB, the others of 43 MiB
#
# Each has a minimal Debian as its first layer, and /srv/start, which prints "ready" and a checksum once it has started.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/debian-image.sh
. scripts/debian-image.sh

readonly SCRIPTS=(bench/coldstart/make-image.sh scripts/debian-image.sh)
readonly LAYERS=120 FILES_PER_LAYER=20 MODEL_FILES=20

fail() {
  printf 'make-image: %s\n' "$*" >&2
  exit 1
}

# Ends the layer that the changes in the unpacked image make.
end_layer() {
  quietly umoci repack --refresh-bundle --image "$IMAGE" --history.created_by "$1" "$WORK/bundle"
}

packages() {
  install_in "$ROOTFS" "$@"
  end_layer "apt-get install $*"
}

# Writes /srv/start from standard input.
start_script() {
  mkdir -p "$ROOTFS/srv"
  cat >"$ROOTFS/srv/start"
  chmod 755 "$ROOTFS/srv/start"
}

# The end of the start script of a server: waits for its first page at a port.
first_page() {
  cat <<BASH
until (: <>/dev/tcp/127.0.0.1/$1) 2>/dev/null; do sleep 0.02; done
exec 3<>/dev/tcp/127.0.0.1/$1
printf 'GET / HTTP/1.0\r\n\r\n' >&3
read -r status <&3
echo "ready \${status%\$'\r'} \$(sed '1,/^\r\$/d' <&3 | cksum)"
BASH
}

fill_jvm() {
  packages default-jre-headless
  packages tomcat10
  { cat <<'BASH'; first_page 8080; } | start_script
#!/bin/bash
echo starting
export CATALINA_HOME=/usr/share/tomcat10 CATALINA_BASE=/var/lib/tomcat10 CATALINA_TMPDIR=/tmp
"$CATALINA_HOME/bin/catalina.sh" run >/tmp/log 2>&1 &
BASH
}

fill_nginx() {
  packages nginx
  { cat <<'BASH'; first_page 80; } | start_script
#!/bin/bash
echo starting
nginx -g 'daemon off;' >/tmp/log 2>&1 &
BASH
}

fill_nodejs() {
  packages nodejs
  mkdir -p "$ROOTFS/srv"
  (cd "$ROOTFS/srv" && quietly npm install --no-fund --no-audit express@5)
  cat >"$ROOTFS/srv/server.js" <<'JAVASCRIPT'
const { createHash } = require('node:crypto');
const express = require('express');

console.log('starting');
const app = express();
app.get('/', (_, response) => response.json({ stock: { bolts: 120, nuts: 340 } }));
const server = app.listen(8080, async () => {
  const response = await fetch('http://127.0.0.1:8080/');
  const hash = createHash('sha256').update(await response.text());
  console.log(`ready ${response.status} ${hash.digest('hex')}`);
  process.exit();
});
JAVASCRIPT
  start_script <<'SH'
#!/bin/sh
exec node /srv/server.js
SH
}

fill_pandas() {
  packages python3
  packages python3-pandas
  start_script <<'PYTHON'
#!/usr/bin/python3
import pandas

table = pandas.DataFrame({"what": ["bolts", "nuts"] * 500, "pieces": range(1000)})
print("ready", table.groupby("what").pieces.sum().to_json(), flush=True)
PYTHON
}

fill_layers() {
  local layer file
  start_script <<'SH'
#!/bin/sh
echo "ready $(cat /srv/layer-*/* | cksum)"
SH
  end_layer 'a start script'
  for ((layer = 3; layer <= LAYERS; layer++)); do
    rm -rf "$WORK/layer"
    mkdir -p "$WORK/layer/srv/layer-$layer"
    for ((file = 0; file < FILES_PER_LAYER; file++)); do
      head -c 8192 /dev/urandom | base64 >"$WORK/layer/srv/layer-$layer/$file"
    done
    tar -C "$WORK/layer" --owner=0 --group=0 -cf "$WORK/layer.tar" srv
    quietly umoci raw add-layer --image "$IMAGE" "$WORK/layer.tar"
  done
}

fill_model() {
  local file mib
  mkdir -p "$ROOTFS/srv/model"
  # Headers of all files at once, then one whole file.
  start_script <<'SH'
#!/bin/sh
cd /srv/model
for file in *; do dd if=$file of=/tmp/$file bs=64k count=1 2>/dev/null & done
wait
cat /tmp/*.bin | cksum
echo "ready $(cksum <00.bin)"
SH
  for ((file = 0; file < MODEL_FILES; file++)); do
    mib=$((file == 0 ? 200 : 43))
    head -c ${mib}M /dev/urandom >"$(printf '%s/srv/model/%02d.bin' "$ROOTFS" "$file")"
    ((file % 5 < 4)) || end_layer 'model weights'
  done
}

main() {
  local name=${1-} key destination
  declare -F "fill_$name" >/dev/null || fail "usage: bench/coldstart/make-image.sh NAME"
  key=$({ cat "${SCRIPTS[@]}" /etc/os-release; uname -m; } | sha256sum | cut -c1-16)
  destination=${OBD_TS_CACHE:-/var/cache/obd-ts}/coldstart/images/$name-$key/layout
  if [[ ! -d $destination ]]; then
    [[ $EUID -eq 0 ]] || fail 'must run as root: it runs the scripts of packages in a chroot'
    mkdir -p "$(dirname "$destination")"
    WORK=$(mktemp -d "$(dirname "$destination")/.layout.XXXXXX")
    trap 'rm -rf --one-file-system "$WORK"' EXIT
    trap 'exit 130' INT TERM
    export DEBIAN_FRONTEND=noninteractive LC_ALL=C
    IMAGE=$WORK/layout:image
    ROOTFS=$WORK/bundle/rootfs
    make_base "$WORK/base.tar"
    quietly umoci init --layout "$WORK/layout"
    quietly umoci new --image "$IMAGE"
    quietly umoci raw add-layer --image "$IMAGE" --history.created_by 'mmdebstrap --variant=minbase' "$WORK/base.tar"
    quietly umoci unpack --image "$IMAGE" "$WORK/bundle"
    "fill_$name"
    [[ $name == layers ]] || end_layer 'a start script'
    quietly umoci config --image "$IMAGE" --config.cmd /srv/start \
      --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    quietly umoci gc --layout "$WORK/layout"
    mv -T "$WORK/layout" "$destination"
  fi
  printf '%s:image\n' "$destination"
}

main "$@"
