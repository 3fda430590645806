"""A conversation with a model of a running server, and the commands that shape it."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from server.api.image_parts import data_uri, image_type
from server.cli.server_client import Client, ServerError
from server.core.model_names import all_names, find_name
from server.core.near_names import choices
from server.core.sampling import PARAMETERS

HELP = """\
/system TEXT      set the system prompt and start over; without TEXT, remove it
/set              list the settings of answers
/set NAME VALUE   set one, as in: /set temperature 0.2; without VALUE, the model's own holds again
/model [ID]       list the models, or switch to another
/raw              switch between chat and raw mode, where the model continues your text
/image FILE       send an image with the next message; several are sent together
/new              start a new conversation
/save FILE        write the conversation to a file
/load FILE        go on with a conversation from a file
/help             show this list
/exit             leave, like Ctrl-D; Ctrl-C stops an answer

A text of several lines begins and ends with three quotation marks: \"""."""

_RAW_TOKENS = 128
_LIMIT = "max_tokens"
# Statuses of requests that would be refused again as they are.
_REFUSED = {400, 413, 422}
_THINK = "think"
_SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


class SavedConversation(msgspec.Struct, forbid_unknown_fields=True):
    """What `/save` writes."""

    model: str
    messages: list[dict[str, Any]]
    settings: dict[str, Any] = {}


class CommandRefused(Exception):
    """A command of the conversation cannot be carried out; the message says why."""


class Conversation:
    """The messages so far, the model, the mode and the settings of answers."""

    def __init__(
        self, client: Client, model: str, settings: dict[str, float] | None = None
    ) -> None:
        self._client = client
        self.model = model
        self.raw = False
        self.messages: list[dict[str, Any]] = []
        self.settings: dict[str, float] = settings or {}
        self._images: list[str] = []

    @property
    def address(self) -> str:
        """The server's address."""
        return self._client.url

    def command(self, line: str) -> str:
        """Run the command in ``line``, which begins with a slash; returns the reply to the user.

        Raises CommandRefused, and ServerError where the server is asked.
        """
        name, _, text = line.partition(" ")
        commands: dict[str, Callable[[str], str]] = {
            "/system": self._set_system,
            "/set": lambda words: self._set(*words.split(maxsplit=1)),
            "/model": self._switch_model,
            "/raw": self._switch_raw,
            "/image": self._attach,
            "/new": self._start_over,
            "/clear": self._start_over,
            "/save": lambda file: self._save(_file(file)),
            "/load": lambda file: self._load(_file(file)),
            "/help": lambda _: HELP,
            "/?": lambda _: HELP,
        }
        if name not in commands:
            raise CommandRefused(f"unknown command {name}; /help lists them")
        return commands[name](text.strip())

    def say(self, text: str) -> Generator[tuple[str, str]]:
        """Send ``text``; yields the answer's pieces as ("reasoning" or "content", piece).

        The conversation keeps the received part of an answer that was stopped. A turn whose answer
        failed is not kept, so that it can be said again, without the images if the server refused
        it. Raises ServerError.
        """
        if self.raw:
            yield from self._continue(text)
            return
        turn = [*self.messages, {"role": "user", "content": self._content(text)}]
        answer = ""
        try:
            body = {"model": self.model, "messages": turn, **self.settings}
            for event in self._client.stream("/v1/chat/completions", body):
                for choice in event["choices"]:
                    delta = choice["delta"]
                    if reasoning := delta.get("reasoning_content"):
                        yield "reasoning", reasoning
                    if content := delta.get("content"):
                        answer += content
                        yield "content", content
        except ServerError as error:
            answer = ""
            if self._images and error.status in _REFUSED:
                self._images = []
                text = f"{error}\nThe next message goes without images."
                raise ServerError(text, status=error.status) from error
            raise
        finally:
            if answer:
                self.messages = [*turn, {"role": "assistant", "content": answer}]
                self._images = []

    def _continue(self, text: str) -> Iterator[tuple[str, str]]:
        body = {"model": self.model, "prompt": text, _LIMIT: _RAW_TOKENS, **self._sampling}
        for event in self._client.stream("/v1/completions", body):
            for choice in event["choices"]:
                yield "content", choice["text"]

    def state(self) -> str | None:
        """The model's state, like ``ready`` or ``failed``; None where the server does not tell."""
        try:
            state: str | None = self._client.get(f"/v1/models/{quote(self.model)}").get("state")
        except ServerError:
            return None
        return state

    @property
    def _sampling(self) -> dict[str, float]:
        """The settings that completions know."""
        return {name: value for name, value in self.settings.items() if name != _THINK}

    def _content(self, text: str) -> str | list[dict[str, Any]]:
        """What the user says: the attached images, then ``text``."""
        if not self._images:
            return text
        images = [{"type": "image_url", "image_url": {"url": uri}} for uri in self._images]
        return [*images, {"type": "text", "text": text}]

    def _attach(self, name: str) -> str:
        if self.raw:
            raise CommandRefused("raw mode continues text; /raw switches back to chat")
        if not name:
            raise CommandRefused("name a file, as in: /image cat.png")
        file = Path(name.strip("'\"")).expanduser()
        try:
            data = file.read_bytes()
        except OSError as error:
            raise CommandRefused(f"{file} cannot be read: {error.strerror}") from error
        if image_type(data) is None:
            raise CommandRefused(f"{file} is no PNG, JPEG, WebP, GIF or BMP")
        self._images.append(data_uri(data))
        count = len(self._images)
        return f"{count} image{'s' if count > 1 else ''} for the next message"

    def _set_system(self, text: str) -> str:
        self.messages = [{"role": "system", "content": text}] if text else []
        return "system prompt set" if text else "no system prompt"

    def _switch_raw(self, _: str) -> str:
        self.raw = not self.raw
        return "raw: the model continues your text" if self.raw else "chat"

    def _start_over(self, _: str) -> str:
        self.messages = [m for m in self.messages if m["role"] == "system"]
        self._images = []
        return "new conversation"

    def _set(self, name: str = "", value: str = "") -> str:
        if name == "system":
            return self._set_system(value)
        if name == "parameter":  # as Ollama has it
            return self._set(*value.split(maxsplit=1))
        if not name:
            known = [*PARAMETERS, _LIMIT, _THINK]
            stated = [f"{key} = {_shown(value)}" for key, value in self.settings.items()]
            return "\n".join([*stated, f"settings: {', '.join(known)}"])
        name = name.replace("-", "_")
        if not value:
            check_setting_name(name)
            self.settings.pop(name, None)
            return f"{name} is the model's own"
        self.settings[name] = setting(name, value)
        return f"{name} = {_shown(self.settings[name])}"

    def _switch_model(self, name: str) -> str:
        names = names_of_models(self._client)
        if not name:
            ids = dict.fromkeys(names.values())
            return "\n".join(f"{'*' if other == self.model else ' '} {other}" for other in ids)
        found = find_name(name, names)
        if found is None:
            raise CommandRefused(f"the server has no model {name!r}. {choices(name, names)}")
        self.model = found
        return f"model {self.model}"

    def _save(self, file: Path) -> str:
        if file.exists():
            _read(file)  # any other file is somebody's work
        saved = SavedConversation(self.model, self.messages, self.settings)
        try:
            text = json.dumps(msgspec.to_builtins(saved), ensure_ascii=False, indent=2)
            file.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise CommandRefused(f"{file} cannot be written: {error.strerror}") from error
        return f"saved {len(self.messages)} messages to {file}"

    def _load(self, file: Path) -> str:
        saved = _read(file)
        known = find_name(saved.model, names_of_models(self._client))
        self.model = known or self.model
        self.messages, self.settings = saved.messages, saved.settings
        note = "" if known else f"; the server has no {saved.model}"
        return f"{len(self.messages)} messages, model {self.model}{note}"


def setting(name: str, value: str) -> float:
    """The value that ``value`` stands for. Raises CommandRefused for a wrong name or value."""
    check_setting_name(name)
    if name == _THINK:
        if value.lower() not in _SWITCH:
            raise CommandRefused(f"{name}: {value!r} is neither on nor off")
        return _SWITCH[value.lower()]
    parameter = PARAMETERS.get(name)
    kind = int if parameter is None else parameter.kind
    try:
        number = kind(value)
    except ValueError as error:
        what = "a whole number" if kind is int else "a number"
        raise CommandRefused(f"{name}: {value!r} is not {what}") from error
    if parameter is None and number < 1:
        raise CommandRefused(f"{name}: {value} must be 1 or more")
    if parameter is not None and not parameter.holds(number):
        raise CommandRefused(f"{name}: {value} must be {parameter.range_text}")
    return number


def check_setting_name(name: str) -> None:
    """Raises CommandRefused unless answers have such a setting."""
    known = [*PARAMETERS, _LIMIT, _THINK]
    if name not in known:
        raise CommandRefused(f"there is no setting {name!r}. {choices(name, known)}")


def names_of_models(client: Client) -> dict[str, str]:
    """The ids of the server's models by each of their names, those that cannot be served last."""
    entries = client.get("/v1/models")["data"]
    entries.sort(key=lambda entry: entry.get("state") == "failed")
    ids = {entry["id"]: entry["id"] for entry in entries}
    return ids | all_names({entry["id"]: entry.get("aliases", []) for entry in entries})


def _file(text: str) -> Path:
    if not text:
        raise CommandRefused("name a file, as in: /save talk.json")
    file = Path(text).expanduser()
    return file if file.suffix else file.with_suffix(".json")


def _read(file: Path) -> SavedConversation:
    """What is saved in ``file``; raises CommandRefused."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=SavedConversation)
    except OSError as error:
        raise CommandRefused(
            f"{file} cannot be read: {error.strerror} (/model ID switches to another model)"
        ) from error
    except msgspec.DecodeError as error:
        raise CommandRefused(f"{file} is no saved conversation: {error}") from error


def _shown(value: float) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else f"{value:g}"
