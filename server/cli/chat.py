"""`dragoman chat`: a conversation in the terminal with a running server."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from server.cli.console import CommandError, err, out
from server.cli.conversation import CommandRefused, Conversation, names_of_models
from server.cli.health import Url
from server.cli.known_names import local_names
from server.cli.options import takes_sampling
from server.cli.server_client import Client, ServerError, local_client
from server.cli.terminal import Wrapped, lines, pause, waiting
from server.core.model_names import find_name
from server.core.near_names import choices
from server.core.settings import load

# How often a busy server is asked again, and the longest pause in seconds; choices.
_ATTEMPTS = 5
_LONGEST_PAUSE = 30.0
_BUSY = {429, 503}

System = Annotated[str | None, typer.Option(metavar="TEXT", help="System prompt.")]
Raw = Annotated[bool, typer.Option("--raw", help="Continue text instead of chatting.")]


@takes_sampling
def chat(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Model id (default: the server's first).",
            autocompletion=local_names,
        ),
    ] = None,
    system: System = None,
    raw: Raw = False,
    url: Url = None,
    *,
    sampling: dict[str, float],
) -> None:
    """Talk to a model of a running server in the terminal.

    /help lists what can be done in a conversation. The exit code is 1 if an answer failed.
    """
    client = local_client(load(), url)
    try:
        names = names_of_models(client)
    except ServerError as error:
        raise CommandError(f"{error}\nWithout a server: dragoman run MODEL") from error
    if not names:
        raise CommandError("the server has no models; get one with: dragoman pull")
    found = next(iter(names.values())) if model is None else find_name(model, names)
    if found is None:
        raise CommandError(f"the server has no model {model!r}. {choices(model or '', names)}")
    talk(conversation(client, found, system=system, raw=raw, sampling=sampling))


def conversation(
    client: Client, model: str, *, system: str | None, raw: bool, sampling: dict[str, float]
) -> Conversation:
    """A new conversation as the options of a command want it."""
    new = Conversation(client, model, sampling)
    if system:
        new.command(f"/system {system}")
    new.raw = raw
    return new


def talk(conversation: Conversation) -> None:
    """Answer what is typed until its end; raises typer.Exit if an answer failed."""
    place = f"{conversation.model} at {conversation.address}"
    err.print(f"{place}, /help for help", style="dim", markup=False)
    failed = 0
    for line in lines():
        if line.startswith("/"):
            _command(conversation, line)
        else:
            failed += not answer(conversation, line)
    if failed:
        raise typer.Exit(1)


def _command(conversation: Conversation, line: str) -> None:
    try:
        out.print(conversation.command(line), style="dim", markup=False)
    except (CommandRefused, ServerError) as error:
        err.print(str(error), style="red", markup=False)


def answer(conversation: Conversation, text: str) -> bool:
    """Print the answer to ``text``; False if that failed. A busy server is asked again."""
    for attempt in range(1, _ATTEMPTS + 1):
        printed = Wrapped()
        answering = False
        try:
            answers_at_once = conversation.state() in {"ready", None}
            doing = "" if answers_at_once else f"loading {conversation.model}"
            with waiting(doing) as spinner, closing(conversation.say(text)) as pieces:
                for kind, piece in pieces:
                    if spinner is not None:
                        spinner.stop()
                    printed.print(piece, "dim italic" if kind == "reasoning" else None)
                    answering = True
            printed.end()
        except KeyboardInterrupt:
            if answering:
                printed.end()
            err.print("stopped", style="dim")
        except ServerError as error:
            if answering:
                printed.end()
            elif attempt < _ATTEMPTS and _may_pass(error, conversation):
                seconds = min(error.retry_after or 2.0**attempt, _LONGEST_PAUSE)
                pause(seconds, f"{error} Trying again in {seconds:.0f} s.")
                continue
            err.print(str(error), style="red", markup=False)
            return False
        return True
    return False


def _may_pass(error: ServerError, conversation: Conversation) -> bool:
    """Whether the same request may be answered later: not by a model whose file is broken."""
    is_broken = error.retry_after is None and conversation.state() == "failed"
    return error.status in _BUSY and not is_broken
