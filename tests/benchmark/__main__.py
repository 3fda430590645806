"""`make bench`: measures, compares and writes the results to docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from server.core.settings import load
from tests.benchmark import document, peer, prefixes
from tests.benchmark.comparison import compare
from tests.benchmark.session import WORKLOADS, Plan, Session
from tests.e2e.server import BASE, CHECKOUT, INSTRUCT, MODELS

_EVERYTHING = (*WORKLOADS, *prefixes.WORKLOADS)


def main() -> None:
    options = _options()
    options.output.mkdir(parents=True, exist_ok=True)
    for model in (options.model, options.gemma):
        if not model.is_file():
            sys.exit(f"there is no file {model}: run `make models`")
    binary = options.llama_server or peer.install(load().cache_dir)
    repeats = options.repeats or (1 if options.quick else 3)
    on_disk = [name for name in options.workloads if name in prefixes.WORKLOADS]
    plan = Plan(
        model=options.model,
        gemma=options.gemma,
        peer=binary,
        workloads=[name for name in options.workloads if name in WORKLOADS],
        repeats=repeats,
        quick=options.quick,
    )
    experiments = list(plan.experiments())
    load_average = os.getloadavg()[0]
    began = time.monotonic()
    session = Session()
    session.run(experiments)
    disk_rows = prefixes.measure(on_disk, quick=options.quick)
    arguments = [f"--{name}" for name in ("quick",) if options.quick]
    if tuple(options.workloads) != _EVERYTHING:
        arguments += ["--workloads", *options.workloads]
    if options.repeats:
        arguments += ["--repeats", str(options.repeats)]
    circumstances = document.Circumstances(
        machine=document.machine(),
        load_average=load_average,
        software=document.software(peer.version(binary)),
        command=" ".join(["python -m tests.benchmark", *arguments]),
        commands={
            server.name: server.shown()
            for experiment in reversed(experiments)
            for server, _ in experiment.servers
        },
        minutes=(time.monotonic() - began) / 60,
    )
    rows = [*compare(session.samples, session.starts), *disk_rows]
    document.write(options.output, circumstances, rows, session.samples, session.starts)
    print("\n".join(document.markdown(rows)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=__doc__)
    parser.add_argument("--workloads", nargs="+", choices=_EVERYTHING, default=_EVERYTHING)
    parser.add_argument("--repeats", type=int, help="rounds (default: 3, or 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="one round, within 6 minutes")
    parser.add_argument("--model", type=Path, default=MODELS / f"{INSTRUCT}.gguf")
    parser.add_argument("--gemma", type=Path, default=MODELS / f"{BASE}.gguf")
    parser.add_argument(
        "--llama-server", type=Path, help="its path (default: it is built, once, in the cache)"
    )
    parser.add_argument(
        "--output", type=Path, default=CHECKOUT / "docs", help="folder for the results"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
