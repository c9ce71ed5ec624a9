#!/usr/bin/env bash
# Puts the Node that obd-ts runs on first in PATH: the host's own where that is new enough (`engines` in package.json),
# else the one that scripts/install-deps.sh brings out of the npm registry (tools/node).
#
#     eval "$(scripts/node-env.sh)"     in a shell
#     . scripts/node-env.sh             in a script, which then calls use_node
#
# `npm run` and `npx` need neither: install-deps.sh puts a link to that Node into node_modules/.bin.

NODE_ENV_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The oldest Node that obd-ts runs on: "22.20".
node_floor() { sed -nE 's/^ *"node": ">=([0-9.]+)".*/\1/p' "$NODE_ENV_ROOT/package.json"; }

# Whether this program is a Node that is new enough.
is_node_recent() {
  local version
  version=$("$1" --version 2>/dev/null) || return 1
  printf '%s\n' "$(node_floor)" "${version#v}" | sort --check=quiet --version-sort
}

# node_package FOLDER: where the npm package of Node that FOLDER's package.json asks for is, or will be.
node_package() {
  local machine
  case $(uname -m) in
    x86_64) machine=x64 ;;
    aarch64) machine=arm64 ;;
    *) machine=$(uname -m) ;;
  esac
  printf '%s/%s/node_modules/node-linux-%s' "$NODE_ENV_ROOT" "$1" "$machine"
}

# Prints the directories that come first in PATH, each with a colon after it: none where the host's Node will do.
node_directories() {
  local package
  is_node_recent node && return
  package=$(node_package tools/node)
  [[ ! -x $package/bin/node ]] ||
    printf '%s:%s:' "$package/bin" "$NODE_ENV_ROOT/tools/node/node_modules/.bin"
}

use_node() {
  PATH=$(node_directories)$PATH
  export PATH
}

# shellcheck disable=SC2016 # the caller's shell expands it
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then printf 'export PATH=%q"$PATH"\n' "$(node_directories)"; fi
