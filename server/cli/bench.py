"""`dragoman bench`: measures any OpenAI endpoint, this server's or another's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from server.benchmark.report import Summary, summarize, table
from server.benchmark.target import Target
from server.benchmark.timed_client import Endpoint
from server.benchmark.workloads import WORKLOADS, run_workload
from server.cli.console import CommandError, err, out
from server.cli.conversation import names_of_models
from server.cli.formatting import columns
from server.cli.server_client import Client, local_client
from server.core.settings import load

# Workloads that need no facts about the server, nor a context of more than 4,096 tokens.
_USUAL = [
    name for name in WORKLOADS if name not in {"overflow", "deep"} and not name.startswith("agent")
]


def bench(
    url: Annotated[str, typer.Argument(metavar="URL", help="Address of the server.")],
    model: Annotated[
        str | None, typer.Option(help="Model id (default: the server's first).")
    ] = None,
    workload: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"Workload to run: {', '.join(WORKLOADS)}. May be repeated "
            "(default: all but overflow, deep and the agents').",
        ),
    ] = None,
    kv_tokens: Annotated[
        int | None,
        typer.Option(min=64, help="KV cells of the server; `overflow` asks for twice as many."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON array; times are in seconds.")
    ] = False,
) -> None:
    """Measure an OpenAI endpoint with fixed workloads.

    The exit code is 1 if a request failed.
    """
    names = workload or _USUAL
    for name in names:
        if name not in WORKLOADS:
            known = ", ".join(WORKLOADS)
            raise CommandError(f"unknown workload {name!r}; known are: {known}", exit_code=2)
    if "overflow" in names and kv_tokens is None:
        raise CommandError("overflow needs --kv-tokens: the KV cells of the server", exit_code=2)
    settings = load()
    key = settings.api_keys[0] if settings.api_keys else None
    client = local_client(settings, url)
    target = Target(
        endpoint=Endpoint(client.url, key, trust=client.trust),
        model=model or _first_model(client),
        kv_tokens=kv_tokens or 0,
    )
    summaries = asyncio.run(_measure(target, names))
    if as_json:
        out.print(msgspec.json.encode(summaries).decode(), markup=False)
    else:
        _print_table(table(summaries))
    if any(summary.failed for summary in summaries):
        raise typer.Exit(1)


def _first_model(client: Client) -> str:
    known = names_of_models(client)
    if not known:
        raise CommandError("the server has no models")
    return next(iter(known))


async def _measure(target: Target, names: Sequence[str]) -> list[Summary]:
    warm_up = await target.ask([{"role": "user", "content": "Hello"}], 4)
    if warm_up.error is not None:
        raise CommandError(warm_up.error)
    # New prompts each time, so that the server has no prefix of the last run cached.
    seed = int(time.time())
    summaries = []
    for number, name in enumerate(names):
        err.print(f"{name} ...", style="dim", markup=False)
        summaries.append(summarize(await run_workload(name, target, seed + 1000 * number)))
    return summaries


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    if not out.is_terminal:
        out.print(columns(rows), markup=False)
        return
    heading, *body = rows
    grid = Table(*heading)
    for row in body:
        grid.add_row(*row)
    out.print(grid)
