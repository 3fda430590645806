#!/usr/bin/env bash
# Builds the container on a bare Debian, without Docker, and talks to it: make container-test
#
# Needs root, buildah, debootstrap and iproute2, and the test models (make models). Package indexes
# are this machine's own: what pip is configured with here is handed in as build secrets. Work is
# kept in CONTAINER_WORK, so that a second run builds on the first one's base.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=${CONTAINER_WORK:-${XDG_CACHE_HOME:-$HOME/.cache}/dragoman/container}
port=${CONTAINER_PORT:-18733}
key=secret
base=localhost/dragoman-base
image=localhost/dragoman
python=.venv/bin/python

for tool in buildah debootstrap ip unshare; do
    command -v "$tool" > /dev/null || { echo "needed: $tool" >&2; exit 2; }
done
mkdir -p "$work"

store() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }
say() { printf '\n== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

make_base() {
    say "base image: a minimal Debian"
    local mirror container
    mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2> /dev/null || true; } \
        | awk '/^(URIs:|deb) / { print $2; exit }')
    rm -rf "$work/rootfs"
    debootstrap --variant=minbase bookworm "$work/rootfs" "$mirror" > "$work/debootstrap.log"
    container=$(store from scratch)
    store copy --quiet "$container" "$work/rootfs" /
    store commit --quiet "$container" "$base" > /dev/null
    store rm "$container" > /dev/null
    rm -rf "$work/rootfs"
}

build() {
    say "build"
    local authorities=${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}
    {
        echo "[global]"
        echo "cert = /etc/ssl/certs/ca-certificates.crt"
        # Where this machine's pip looks for packages; folders of this machine mean nothing inside.
        "$python" -m pip config list | sed -nE "s/^global\.([a-z-]*(index|host)[a-z-]*)='(.*)'$/\1 = \3/p" | grep -v file: || true
    } > "$work/pip.conf"
    store build --format docker --isolation chroot --network host --layers --quiet \
        --build-arg "BASE_IMAGE=$base" \
        --secret "id=pip.conf,src=$work/pip.conf" \
        --secret "id=ca-certificates,src=$authorities" \
        --tag "$image" . > /dev/null
    rm "$work/pip.conf"
}

in_container() { # options of buildah run, --, command
    store run --isolation chroot --network host --volume "$work/models:/models:ro" "$@"
}

serve_and_talk() { # the container's log goes to $1; runs inside a network namespace of its own
    local log=$1 pid code=0
    ip link set lo up
    in_container --env "DRAGOMAN_API_KEYS=$key" --env "DRAGOMAN_PORT=$port" \
        "$container" -- dragoman serve > "$log" 2>&1 &
    pid=$!
    "$python" tests/container/talk.py "http://127.0.0.1:$port" "$key" || code=$?
    in_container --env "DRAGOMAN_PORT=$port" "$container" -- dragoman health || code=$?
    in_container --env "DRAGOMAN_PORT=$port" "$container" -- dragoman-health || code=$?
    # The newest is the server itself; buildah's own process around it has the same command line.
    kill -TERM "$(pgrep --newest --full 'dragoman serve' --uid 10001)"
    wait "$pid" || code=$?
    return "$code"
}

mkdir -p "$work/models"
cp --update --dereference models/*.gguf "$work/models/"
store inspect --type image "$base" > /dev/null 2>&1 || make_base
build
container=$(store from "$image")
trap 'store rm "$container" > /dev/null' EXIT

say "not root"
[ "$(in_container "$container" -- id -u)" = 10001 ] || fail "it runs as root"

say "no key, no service"
if in_container "$container" -- dragoman serve > "$work/refused.log" 2>&1; then
    fail "it listens on every address without an API key"
fi
grep -q DRAGOMAN_ALLOW_UNAUTHENTICATED "$work/refused.log" || fail "it does not say what to do"

say "without a network, with a read-only models folder: serve, answer, end on SIGTERM"
export work port key image container python
export -f store in_container serve_and_talk
unshare --net bash -euo pipefail -c 'serve_and_talk "$work/serve.log"' || {
    tail -n 20 "$work/serve.log" >&2
    fail "the server did not answer, or did not end well"
}

say "nothing but JSON in the log"
"$python" -c 'import json, sys; [json.loads(line) for line in sys.stdin]' < "$work/serve.log"

say "image size"
store images --format '{{.Size}}' "$image"
say "all is well"
