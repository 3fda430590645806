"""`dragoman chat`: a conversation in the terminal with a running server."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from typing import Annotated, Any

import typer

from server.cli.console import CommandError, err, out
from server.cli.health import Url
from server.cli.server_client import Client, ServerError, local_client
from server.core.near_names import choices
from server.core.settings import load

_HELP = """\
/system TEXT  set the system prompt and start over; without TEXT, remove it
/model [ID]   list the models, or switch to another
/raw          switch between chat and raw mode, where the model continues your text
/new          start a new conversation
/help         show this list
/exit         leave, like Ctrl-D; Ctrl-C stops an answer"""

_RAW_TOKENS = 128


class Conversation:
    """The messages so far, the model and the mode."""

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self.model = model
        self.raw = False
        self.messages: list[dict[str, Any]] = []

    def command(self, line: str) -> str:
        """Run the command in ``line``, which begins with a slash; returns the reply to the user."""
        name, _, text = line.partition(" ")
        text = text.strip()
        match name:
            case "/system":
                self.messages = [{"role": "system", "content": text}] if text else []
                return "system prompt set" if text else "no system prompt"
            case "/model":
                return self._switch_model(text)
            case "/raw":
                self.raw = not self.raw
                return "raw: the model continues your text" if self.raw else "chat"
            case "/new":
                self.messages = [m for m in self.messages if m["role"] == "system"]
                return "new conversation"
            case "/help":
                return _HELP
            case _:
                return f"unknown command {name}\n{_HELP}"

    def say(self, text: str) -> Generator[tuple[str, str]]:
        """Send ``text``; yields the answer's pieces as ("reasoning" or "content", piece).

        The conversation keeps the received part of an answer that was stopped. A turn whose answer
        failed is not kept, so that it can be said again. Raises ServerError.
        """
        if self.raw:
            body = {"model": self.model, "prompt": text, "max_tokens": _RAW_TOKENS}
            for event in self._client.stream("/v1/completions", body):
                for choice in event["choices"]:
                    yield "content", choice["text"]
            return
        turn = [*self.messages, {"role": "user", "content": text}]
        answer = ""
        try:
            body = {"model": self.model, "messages": turn}
            for event in self._client.stream("/v1/chat/completions", body):
                for choice in event["choices"]:
                    delta = choice["delta"]
                    if reasoning := delta.get("reasoning_content"):
                        yield "reasoning", reasoning
                    if content := delta.get("content"):
                        answer += content
                        yield "content", content
        except ServerError:
            answer = ""
            raise
        finally:
            if answer:
                self.messages = [*turn, {"role": "assistant", "content": answer}]

    def _switch_model(self, name: str) -> str:
        known = models_by_name(self._client)
        if not name:
            ids = dict.fromkeys(known.values())
            return "\n".join(f"{'*' if other == self.model else ' '} {other}" for other in ids)
        if name not in known:
            return f"the server has no model {name!r}. {choices(name, known)}"
        self.model = known[name]
        return f"model {self.model}"


def models_by_name(client: Client) -> dict[str, str]:
    """The ids of the server's models, by id and by alias; ids come first, broken models last."""
    entries = client.get("/v1/models")["data"]
    entries.sort(key=lambda entry: entry.get("state") == "failed")
    ids = {entry["id"]: entry["id"] for entry in entries}
    return ids | {alias: entry["id"] for entry in entries for alias in entry.get("aliases", [])}


def chat(
    model: Annotated[
        str | None, typer.Argument(help="Model id (default: the server's first).")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue text instead of chatting.")] = False,
    url: Url = None,
) -> None:
    """Talk to a model of a running server in the terminal.

    The exit code is 1 if an answer failed.
    """
    client = local_client(load(), url)
    try:
        known = models_by_name(client)
    except ServerError as error:
        raise CommandError(f"{error}\nStart a server with: dragoman serve") from error
    if not known:
        raise CommandError("the server has no models")
    if model is not None and model not in known:
        raise CommandError(f"the server has no model {model!r}. {choices(model, known)}")
    conversation = Conversation(client, known[model or next(iter(known))])
    if system:
        conversation.command(f"/system {system}")
    if raw:
        conversation.command("/raw")
    with suppress(ImportError):
        import readline  # noqa: F401, PLC0415 importing it gives input() line editing, where there is one
    err.print(f"{conversation.model} at {client.url}, /help for help", style="dim", markup=False)
    failed = 0
    for line in _lines():
        failed += not _turn(conversation, line)
    if failed:
        raise typer.Exit(1)


def _lines() -> Iterator[str]:
    """Lines from the keyboard or a pipe until its end or /exit."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt)
        except KeyboardInterrupt:
            err.print()
            continue
        except EOFError:
            return
        if line.strip() == "/exit":
            return
        if line.strip():
            yield line


def _turn(conversation: Conversation, line: str) -> bool:
    """Run a command, or print the answer to ``line``; False if that failed."""
    answering = False
    try:
        if line.startswith("/"):
            out.print(conversation.command(line), style="dim", markup=False)
            return True
        with closing(conversation.say(line)) as pieces:
            for kind, piece in pieces:
                style = "dim italic" if kind == "reasoning" else None
                out.print(piece, end="", style=style, markup=False)
                answering = True
        out.print()
    except KeyboardInterrupt:
        err.print("\nstopped", style="dim")
    except ServerError as error:
        if answering:
            out.print()
        err.print(str(error), style="red", markup=False)
        return False
    return True
