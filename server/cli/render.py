"""`dragoman render`: prints the exact native prompt of a conversation."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import msgspec
import typer

from server.cli.bare_template import open_bare_template
from server.cli.console import CommandError
from server.cli.files import conversation, read_json, read_template
from server.cli.local_models import find_adapted, vocabulary_worker
from server.cli.options import FOLDERS, takes_settings
from server.core.native_prompt import RenderedPrompt
from server.core.request import ChatPrompt, Prompt, TextPrompt, TokensPrompt, images_of
from server.core.settings import Settings
from server.library.registry import LibraryModel
from server.prompt.known_template import KnownTemplate
from server.prompt.messages.normalize import check_variables
from server.prompt.template.chat_template import ChatTemplate, select_template, templates_in
from server.worker.supervise.client import ModelClient

_GIVEN_FAMILY = "given"


class _Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """The conversation to render, as OpenAI's clients send it."""

    messages: list[Any]
    tools: list[Any] | None
    add_generation_prompt: bool
    template_kwargs: dict[str, Any]

    @property
    def prompt(self) -> ChatPrompt:
        """The canonical prompt; raises InvalidRequest if this is not a conversation."""
        return conversation(
            self.messages,
            self.tools,
            add_generation_prompt=self.add_generation_prompt,
            template_kwargs=self.template_kwargs,
        )

    def render_raw(self, template: ChatTemplate) -> str:
        """The prompt without normalisation: the template gets the messages as they are."""
        return template.render(
            self.messages,
            tools=self.tools,
            add_generation_prompt=self.add_generation_prompt,
            variables=self.template_kwargs,
        )


@takes_settings(*FOLDERS, "template_dirs", "guard")
def render(
    settings: Settings,
    *,
    messages: Annotated[Path, typer.Option(metavar="FILE.json", help="The conversation.")],
    model: Annotated[
        str | None, typer.Option(help="Model id or GGUF file; a file without weights is enough.")
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jinja", help="Chat template to use instead of the model's."),
    ] = None,
    tools: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Tools in OpenAI's format.")
    ] = None,
    no_generation_prompt: Annotated[
        bool, typer.Option("--no-generation-prompt", help="Do not open the assistant's turn.")
    ] = False,
    kwargs: Annotated[
        str, typer.Option(metavar="JSON", help="Template variables, as one JSON object.")
    ] = "{}",
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Print prompt, tokens and segments as one JSON object.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Pass the messages to the template unchanged.")
    ] = False,
    bos: Annotated[str, typer.Option(help="BOS text, for a template without a model.")] = "",
    eos: Annotated[str, typer.Option(help="EOS text, for a template without a model.")] = "",
) -> None:
    """Print the native prompt of a conversation.

    The output is the exact prompt, without a newline after it.
    """
    try:
        template_kwargs = msgspec.json.decode(kwargs, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise CommandError(f"--kwargs: {error}", exit_code=2) from error
    asked = _Conversation(
        messages=read_json(messages, list[Any]),
        tools=read_json(tools, list[Any]) if tools else None,
        add_generation_prompt=not no_generation_prompt,
        template_kwargs=template_kwargs,
    )
    source = read_template(template) if template else None
    if model is not None:
        found, _ = find_adapted(settings, model)
        rendered = asyncio.run(_with_model(settings, found, asked, source, raw=raw))
        text = _tokens(asked, rendered) if tokens else rendered.prompt
    elif source is None:
        raise CommandError("give --model, --template or both", exit_code=2)
    elif tokens:
        raise CommandError("--tokens needs --model: a template has no tokens", exit_code=2)
    elif raw:
        text = asked.render_raw(ChatTemplate(source, bos_token=bos, eos_token=eos))
    else:
        assert template is not None
        bare = open_bare_template(source, template.stem, settings, bos=bos, eos=eos)
        text = _bare_text(bare, asked)
    sys.stdout.buffer.write(text.encode())
    sys.stdout.flush()


def _bare_text(bare: KnownTemplate, asked: _Conversation) -> str:
    check_variables(asked.template_kwargs, bare.template)
    return bare.text(asked.prompt)


def _tokens(asked: _Conversation, rendered: RenderedPrompt) -> str:
    """Prompt, tokens and segments as JSON; raises CommandError where there are images."""
    if any(images_of(asked.prompt.messages)):
        raise CommandError(
            "--tokens cannot count images, since no weights are read; POST /apply-template of a "
            "running server does"
        )
    return msgspec.json.encode(rendered).decode() + "\n"


async def _with_model(
    settings: Settings,
    model: LibraryModel,
    asked: _Conversation,
    source: str | None,
    *,
    raw: bool,
) -> RenderedPrompt:
    """The prompt for ``model``, from its own template or from ``source``."""
    prompt: Prompt | None = None if raw else asked.prompt
    with _given_template(model, source) if source else nullcontext(model) as used:
        async with vocabulary_worker(settings, used) as client:
            if prompt is None:
                template = await _template(client, model, source, asked)
                prompt = TextPrompt(text=asked.render_raw(template))
            return await client.render(prompt)


@contextmanager
def _given_template(model: LibraryModel, source: str) -> Iterator[LibraryModel]:
    """``model`` with the template of the command line, as a temporary family."""
    with TemporaryDirectory(prefix="dragoman-") as folder:
        family = Path(folder) / _GIVEN_FAMILY
        family.with_suffix(".jinja").write_text(source, encoding="utf-8")
        family.with_suffix(".toml").write_text(
            'description = "A template of the command line"\nsource = "the command line"\n',
            encoding="utf-8",
        )
        settings = msgspec.structs.replace(
            model.settings,
            family=_GIVEN_FAMILY,
            template_dirs=[*model.settings.template_dirs, folder],
        )
        yield msgspec.structs.replace(model, settings=settings)


async def _template(
    client: ModelClient, model: LibraryModel, source: str | None, asked: _Conversation
) -> ChatTemplate:
    """The template that renders ``asked``, with the model's BOS and EOS."""
    header = model.header
    metadata = header.metadata if header else {}
    if source is None:
        texts = {key: value for key, value in metadata.items() if isinstance(value, str)}
        sources = templates_in(texts)
        source = sources[select_template(sources, tools=bool(asked.tools))]
    edges = {}
    for name in ("bos", "eos"):
        token = header.integer(f"tokenizer.ggml.{name}_token_id") if header else None
        if token is not None:
            text = await client.render(TokensPrompt(ids=[token]))
            edges[f"{name}_token"] = text.prompt
    return ChatTemplate(source, **edges)
