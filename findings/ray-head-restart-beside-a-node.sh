#!/usr/bin/env bash
# ray 2.60.0: a head that was killed cannot be started again while a node agent of its cluster runs
# on the same machine. `ray start --head` looks for a raylet whose command line names the head's
# address, and takes the node's for a head that still runs: nothing asks whether anything listens
# there. So what keeps a cluster alive over the loss of its head (nodes that wait for it to come
# back) keeps the head from coming back. It starts once the file `ray_current_cluster` in the
# folder of its --temp-dir is removed.
#
# Seen (first run): ConnectionError, "Ray is trying to start at ADDRESS, but is already running at
# ADDRESS", while no port of the head is open; without the file it starts.
set -euo pipefail

folder=$(mktemp -d)
node=
head=
trap 'kill $node $head 2> /dev/null || true; sleep 3; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray==2.60.0"

ray=$folder/venv/bin/ray
port=26379
# Nodes cannot use a loopback address.
address=$(hostname --all-ip-addresses | cut --delimiter=' ' --fields=1)
export RAY_USAGE_STATS_ENABLED=0
common=(--node-ip-address="$address" --num-cpus=0 --object-store-memory=80000000)
as_head=("$ray" start --head --block --port=$port --include-dashboard=false
    --temp-dir="$folder/head" "${common[@]}")

# Start what follows in a process group of its own, and wait until it runs.
run() {
    local log=$1
    shift
    setsid "$@" > "$log" 2>&1 &
    started=$!
    for _ in $(seq 180); do
        if grep --quiet "runtime started" "$log"; then return; fi
        if ! kill -0 "$started" 2> /dev/null; then return; fi
        sleep 1
    done
}

run "$folder/first.log" "${as_head[@]}"
head=$started
run "$folder/node.log" "$ray" start --block --address="$address:$port" "${common[@]}"
node=$started
kill -9 -- "-$head"
sleep 2
! (exec 3<> "/dev/tcp/$address/$port") 2> /dev/null || { echo "the head still listens"; exit 1; }

run "$folder/second.log" "${as_head[@]}"
grep --only-matching "Ray is trying to start at.*already running at [0-9.:]*" "$folder/second.log" \
    || { echo "the behaviour has changed"; exit 1; }

rm "$folder/head/ray_current_cluster"
run "$folder/third.log" "${as_head[@]}"
head=$started
grep --quiet "runtime started" "$folder/third.log" && echo "without the file it starts"
