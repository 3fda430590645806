#!/usr/bin/env bash
# ray 2.60.0: a head whose usage statistics and dashboard are off (`--disable-usage-stats
# --include-dashboard=false`) still asks the network which cloud it runs in, at each start: by HTTP
# at 169.254.169.254, and for the name metadata.google.internal. Without a dashboard, Ray starts its
# process for the usage statistics alone, and that collects what it would report before it looks
# whether reports are wanted (`UsageStatsHead.run`).
#
# Seen in a network that leads nowhere: the neighbour 169.254.169.254 is looked for.
set -euo pipefail

if [ "${1:-}" != inside ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    python3 -m venv "$folder/venv"
    "$folder/venv/bin/pip" install --quiet "ray[default]==2.60.0"
    unshare --net --map-root-user "$0" inside "$folder"
    exit
fi

# A network of one address, whose default route ends in a device that nobody listens to.
folder=$2
ip link set lo up
ip link add outside type veth peer name nowhere
for device in outside nowhere; do
    ip link set "$device" up
done
ip address add 10.99.0.1/24 dev outside
ip route add default dev outside

"$folder/venv/bin/ray" start --head --block --disable-usage-stats --include-dashboard=false \
    --node-ip-address=10.99.0.1 --num-cpus=0 --object-store-memory=80000000 \
    --temp-dir="$folder/ray" > "$folder/log" 2>&1 &
head=$!
trap 'kill $head 2> /dev/null || true; wait $head || true' EXIT
for _ in $(seq 180); do
    if ip neighbour show dev outside | grep "^169.254.169.254 "; then
        echo "a head without usage statistics asks for the metadata of a cloud"
        exit
    fi
    sleep 1
done
echo "the behaviour has changed"
exit 1
