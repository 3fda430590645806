"""What a cluster takes while it is asked nothing: ``python -m tests.cluster.on_ray.idle``.

A head and one further machine, both on this one, serve a tiny model. For each it prints the
processor time that is used, in cores, and the memory, where pages that processes share are divided
among them (PSS). The processes of a replica are told from those of Ray.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.cluster.benchmark import cpu_seconds
from tests.cluster.on_ray.machines import MODEL, TEMPLATE, Cluster, address, descendants
from tests.tiny_models import write_tiny_model

_SETTLE_SECONDS = 20.0
_OF_REPLICAS = ("server.cluster.replica", "server.worker")


class Use(NamedTuple):
    """Processor time so far, and memory."""

    seconds: float
    bytes: int


def memory(pid: int) -> int:
    """The memory of a process, with its part of what it shares."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def used(cluster: Cluster) -> Mapping[str, Use]:
    """What each part of each machine has used."""
    found: dict[str, Use] = defaultdict(lambda: Use(0.0, 0))
    processes = [("head, front", cluster.pid("head", "front"))]
    for machine in ("head", "second"):
        top = cluster.pid(machine)
        processes.append((f"{machine}, Ray", top))
        for pid, line in descendants(top).items():
            part = "replica" if any(each in line for each in _OF_REPLICAS) else "Ray"
            processes.append((f"{machine}, {part}", pid))
    for part, pid in processes:
        with suppress(OSError):  # it has just ended
            before = found[part]
            found[part] = Use(before.seconds + cpu_seconds(pid), before.bytes + memory(pid))
    return found


def main() -> None:
    """Measure, and print one line for each part."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    if (own := address()) is None:
        sys.exit("this machine is in no network, which Ray needs")
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()
        model = folder / f"models/{MODEL}.gguf"
        write_tiny_model(model, "full attention", chat_template=TEMPLATE)
        cluster = Cluster(folder, own, folder / "models")
        cluster.write()
        try:
            cluster.begin({"second": []})
            time.sleep(_SETTLE_SECONDS)
            before, begun = used(cluster), time.monotonic()
            time.sleep(seconds)
            after, took = used(cluster), time.monotonic() - begun
        finally:
            cluster.down()
    for part, use in sorted(after.items()):
        cores = (use.seconds - before[part].seconds) / took
        print(f"{part}: {cores:.3f} cores, {use.bytes / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
