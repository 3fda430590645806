"""Ratios, verdicts, and the document about them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from server.benchmark.report import Summary
from tests.benchmark import document
from tests.benchmark.comparison import Row, compare
from tests.benchmark.document import RESULTS, SHAPES, Circumstances, write
from tests.benchmark.session import (
    OURS,
    OURS_ONE_THREAD,
    PEER,
    PEER_TUNED,
    Plan,
    Sample,
    Session,
    Start,
)

CIRCUMSTANCES = Circumstances(
    machine="A machine",
    load_average=0.1,
    software="versions",
    command="make bench",
    commands={OURS: "dragoman serve"},
    minutes=3,
)


def sample(
    server: str,
    workload: str,
    experiment: str = "main",
    *,
    failed: int = 0,
    valid: int | None = None,
    **numbers: float,
) -> Sample:
    zeros = dict.fromkeys(("prompt_tokens", "cached_tokens", "completion_tokens"), 0)
    rates = {"tokens_per_second": 0.0, "characters_per_second": 0.0, "seconds": 1.0}
    known = {"workload": workload, "requests": 4, "failed": failed} | zeros | rates
    summary = msgspec.convert(known | numbers, Summary)
    return Sample(experiment=experiment, server=server, summary=summary, valid=valid)


def rows(*samples: Sample, starts: list[Start] | None = None) -> dict[str, Row]:
    return {row.label: row for row in compare(samples, starts or [])}


def test_we_are_compared_with_the_better_peer_by_medians() -> None:
    ours = [sample(OURS, "c8", tokens_per_second=rate) for rate in (1.0, 110.0, 500.0)]
    peers = [
        sample(PEER, "c8", tokens_per_second=90.0),
        sample(PEER_TUNED, "c8", tokens_per_second=100.0),
    ]
    row = rows(*ours, *peers)["c8: tokens/s"]
    assert row.values == {OURS: 110, PEER: 90, PEER_TUNED: 100}
    assert (row.ratio, row.target, row.met) == ("1.10", "≥ 1.05", True)


def test_less_is_better_for_times() -> None:
    slow = rows(sample(OURS, "returning", ttft_p50=2.0), sample(PEER, "returning", ttft_p50=1.0))
    row = slow["returning: TTFT p50, s"]
    assert (row.ratio, row.met, row.gain) == ("2.00", False, 0.5)


def test_our_failure_is_a_lost_target() -> None:
    found = rows(
        sample(OURS, "c8", tokens_per_second=110.0),
        sample(OURS, "c8", failed=1, tokens_per_second=110.0),
        sample(PEER, "c8", tokens_per_second=1.0),
    )
    assert found["c8: tokens/s"].values[OURS] is None
    assert found["c8: tokens/s"].met is False


def test_a_peer_that_fails_is_no_opponent() -> None:
    found = rows(
        sample(OURS, "c8", tokens_per_second=50.0),
        sample(PEER, "c8", failed=2, tokens_per_second=100.0),
        sample(PEER_TUNED, "c8", tokens_per_second=40.0),
    )
    assert found["c8: tokens/s"].ratio == "1.25"


@pytest.mark.parametrize(("failed", "met"), [(0, True), (1, False)])
def test_overflow_must_answer_everybody(failed: int, met: bool) -> None:
    found = rows(
        sample(OURS, "overflow", "overflow", failed=failed),
        sample(PEER, "overflow", "overflow", failed=4),
    )
    row = found["overflow: answered, %"]
    assert row.values == {OURS: 100 - 25 * failed, PEER: 0}
    assert row.met is met


def test_json_must_be_valid_on_every_model() -> None:
    found = rows(sample(OURS, "json", valid=4), sample(OURS, "json", "gemma", valid=3))
    row = found["json: valid against the schema, %"]
    assert (row.values[OURS], row.met) == (87.5, False)


@pytest.mark.parametrize(("ours", "met"), [(259e6, True), (270e6, False)])
def test_memory_may_exceed_the_peers_by_a_fixed_amount(ours: float, met: bool) -> None:
    starts = [
        Start(experiment="main", server=name, cold_start=1.5, resident_bytes=int(size))
        for name, size in ((OURS, ours), (PEER, 200e6))
    ]
    found = rows(starts=starts)
    assert found["memory after the first answer, MB"].met is met


def test_memory_for_sliding_windows_is_shown_without_a_target() -> None:
    starts = [
        Start(experiment="gemma", server=name, cold_start=1.0, resident_bytes=size)
        for name, size in ((OURS, 900_000_000), (PEER, 300_000_000))
    ]
    row = rows(starts=starts)["Gemma memory after the first answer, MB"]
    assert (row.ratio, row.target, row.met) == ("+600 MB", "", None)


@pytest.mark.parametrize(("ours", "met"), [(1.19, True), (1.21, False)])
def test_a_start_is_compared_for_each_model(ours: float, met: bool) -> None:
    starts = [
        Start(experiment=experiment, server=server, cold_start=seconds, resident_bytes=None)
        for experiment, server, seconds in [
            ("main", OURS, 1.0),
            ("main", PEER, 1.0),
            ("gemma", OURS, ours),
            ("gemma", PEER, 1.0),
        ]
    ]
    found = rows(starts=starts)
    assert found["start to first token, s"].met is True
    assert found["Gemma start to first token, s"].met is met


@pytest.mark.parametrize(("ours", "met"), [(45.0, True), (44.0, False)])
def test_beside_a_neighbour_we_are_compared_with_one_thread(ours: float, met: bool) -> None:
    found = rows(
        sample(OURS, "single", "neighbour", tokens_per_second=ours),
        sample(OURS_ONE_THREAD, "single", "neighbour", tokens_per_second=50.0),
    )
    [row] = found.values()
    assert row.met is met
    assert OURS_ONE_THREAD not in row.values


def test_what_was_not_measured_is_not_in_the_table() -> None:
    assert rows() == {}


def test_losses_are_shown_and_the_rest_of_the_page_stays(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Before\n{RESULTS.begin}\nold\n{RESULTS.end}\nafter\n")
    session = Session()
    session.samples += [
        sample(OURS, "single", tokens_per_second=70.0),
        sample(PEER, "single", tokens_per_second=100.0),
        sample(PEER_TUNED, "single", failed=1),
    ]
    write(tmp_path, RESULTS, CIRCUMSTANCES, compare(session.samples, []), session)
    text = page.read_text()
    assert "| single: tokens/s | 70 | 100 | fails | 0.70 | ≥ 1.00 | **no** |" in text
    assert "Targets met: 0 of 1." in text
    assert text.startswith("# Before\n")
    assert text.endswith(f"{RESULTS.end}\nafter\n")
    assert "old" not in text
    raw = msgspec.json.decode((tmp_path / "benchmarks.json").read_bytes())
    assert [entry["server"] for entry in raw["samples"]] == [OURS, PEER, PEER_TUNED]
    assert (tmp_path / "benchmarks.png").read_bytes().startswith(b"\x89PNG")


def test_each_section_leaves_the_other_as_it_is(tmp_path: Path) -> None:
    session = Session()
    session.samples.append(sample(OURS, "single", tokens_per_second=70.0))
    measured = compare(session.samples, [])
    bandwidth = structs.replace(CIRCUMSTANCES, bandwidth={1: 8e9, 2: 12e9})
    write(tmp_path, RESULTS, CIRCUMSTANCES, measured, session)
    write(tmp_path, SHAPES, bandwidth, measured, session)
    write(tmp_path, RESULTS, CIRCUMSTANCES, [], session)
    _, results, shapes = (tmp_path / "benchmarks.md").read_text().split("generated by `make bench`")
    assert "single" not in results
    assert "| single: tokens/s | 70 |" in shapes
    assert "Reads from memory: 8.0 GB/s with 1 thread, 12.0 GB/s with 2 threads." in shapes
    assert {file.name for file in tmp_path.iterdir()} == {
        "benchmarks.md",
        *(f"benchmarks{part}.{kind}" for part in ("", "-shapes") for kind in ("json", "png")),
    }


def test_what_is_published_names_no_folder_of_the_machine() -> None:
    path = Path("/secret/folder/llama-server")
    plan = Plan(path, path, path, path, ["c8", "overflow", "neighbour"], 1, quick=False)
    commands = [server.shown() for each in plan.experiments() for server, _ in each.servers]
    assert "dragoman serve MODEL.gguf --port PORT --kv-tokens 32768 --ctx-size 8192" in commands
    assert not any("/" in command for command in commands)


def test_a_quick_session_leaves_the_tuned_peer_what_tuning_helps() -> None:
    path = Path("model")
    plan = Plan(path, path, path, path, ["single", "c8", "prefix16"], 1, quick=True)
    [experiment] = plan.experiments()
    assert [list(names) for _, names in experiment.servers] == [
        ["single", "c8", "prefix16"],
        ["single", "c8", "prefix16"],
        ["c8"],
    ]


def test_the_machine_is_described() -> None:
    assert "cores" in document.machine()


@pytest.mark.parametrize(("computed", "met"), [(1.04, True), (1.06, False)])
def test_an_agent_s_session_is_judged_by_what_is_computed_again(computed: float, met: bool) -> None:
    samples = [
        sample(OURS, "agent-messages", "agent", computed=computed, ttft_p50=0.3, ttft_p95=0.4),
        sample(PEER, "agent-messages", "agent", computed=2.0, ttft_p50=1.0, ttft_p95=1.0),
    ]
    rows = {row.label: row for row in compare(samples, [])}
    assert rows["agent, messages: prompt tokens computed / new"].met is met
    assert rows["agent, messages: TTFT p50, s"].ratio == "0.30"
    assert rows["agent, messages: TTFT p95, s"].met is True
