"""`make bench`: measures, compares and writes the results to docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from server.core.settings import load
from tests.benchmark import document, peer, prefixes, shape_session
from tests.benchmark.bandwidth import read_bandwidth
from tests.benchmark.comparison import Row, compare
from tests.benchmark.document import Circumstances, Section
from tests.benchmark.session import WORKLOADS, Experiment, Plan, Session
from tests.benchmark.shapes import model_file
from tests.benchmark.tool_model import with_tools
from tests.e2e.server import BASE, CHECKOUT, INSTRUCT, MODELS

_USUAL = (*WORKLOADS, *prefixes.WORKLOADS, *shape_session.USUAL)
_EVERYTHING = tuple(dict.fromkeys([*_USUAL, *shape_session.WORKLOADS]))


def main() -> None:
    options = _options()
    options.output.mkdir(parents=True, exist_ok=True)
    for model in (options.model, options.gemma):
        if not model.is_file():
            sys.exit(f"there is no file {model}: run `make models`")
    binary = options.llama_server or peer.install(load().cache_dir)
    repeats = options.repeats or (1 if options.quick else 3)
    of_shapes = [name for name in options.workloads if name in shape_session.WORKLOADS]
    if len(of_shapes) < len(options.workloads):
        _measure_usual(options, binary, repeats)
    if of_shapes:
        _measure_shapes(options, binary, repeats, of_shapes)


def _measure_usual(options: argparse.Namespace, binary: Path, repeats: int) -> None:
    plan = Plan(
        model=options.model,
        gemma=options.gemma,
        agent=with_tools(options.model, load().cache_dir),
        peer=binary,
        workloads=[name for name in options.workloads if name in WORKLOADS],
        repeats=repeats,
        quick=options.quick,
    )
    experiments = list(plan.experiments())
    on_disk = [name for name in options.workloads if name in prefixes.WORKLOADS]
    before = _Before(os.getloadavg()[0], time.monotonic())
    session = Session()
    session.run(experiments)
    rows = [
        *compare(session.samples, session.starts),
        *prefixes.measure(on_disk, quick=options.quick),
    ]
    circumstances = before.circumstances(options, binary, experiments)
    _publish(options.output, document.RESULTS, circumstances, rows, session)


def _measure_shapes(
    options: argparse.Namespace, binary: Path, repeats: int, workloads: Sequence[str]
) -> None:
    names = [shape_session.WORKLOADS[workload] for workload in workloads]
    models = {name: model_file(name, load().cache_dir) for name in names}
    experiments = shape_session.experiments(models, binary, repeats, quick=options.quick)
    before = _Before(os.getloadavg()[0], time.monotonic())
    bandwidth = {threads: read_bandwidth(threads) for threads in shape_session.thread_counts()}
    session = Session()
    session.run(experiments)
    circumstances = before.circumstances(options, binary, experiments, bandwidth)
    rows = list(shape_session.rows(session, models, bandwidth))
    _publish(options.output, document.SHAPES, circumstances, rows, session)


class _Before(NamedTuple):
    """The load average and the monotonic time when the measurements began."""

    load_average: float
    began: float

    def circumstances(
        self,
        options: argparse.Namespace,
        binary: Path,
        experiments: Sequence[Experiment],
        bandwidth: dict[int, float] | None = None,
    ) -> Circumstances:
        """Those of the measurements, which have just ended."""
        return Circumstances(
            machine=document.machine(),
            load_average=self.load_average,
            software=document.software(peer.version(binary)),
            command=_command(options),
            commands=_commands(experiments),
            minutes=(time.monotonic() - self.began) / 60,
            bandwidth=bandwidth or {},
        )


def _publish(
    folder: Path,
    section: Section,
    circumstances: Circumstances,
    rows: Sequence[Row],
    session: Session,
) -> None:
    document.write(folder, section, circumstances, rows, session)
    print("\n".join(document.markdown(rows)))


def _command(options: argparse.Namespace) -> str:
    """The command of this session, as far as it changes what is measured."""
    arguments = ["--quick"] if options.quick else []
    if tuple(options.workloads) != _USUAL:
        arguments += ["--workloads", *options.workloads]
    if options.repeats:
        arguments += ["--repeats", str(options.repeats)]
    return " ".join(["python -m tests.benchmark", *arguments])


def _commands(experiments: Sequence[Experiment]) -> dict[str, str]:
    """How each server was started, in the first experiment that it takes part in."""
    return {
        server.name: server.shown()
        for experiment in reversed(experiments)
        for server, _ in experiment.servers
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=__doc__)
    parser.add_argument("--workloads", nargs="+", choices=_EVERYTHING, default=_USUAL)
    parser.add_argument("--repeats", type=int, help="rounds (default: 3, or 1 with --quick)")
    parser.add_argument(
        "--quick", action="store_true", help="one round; without models of shapes, in 6 minutes"
    )
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
