"""A chat template with a model's tokenizer and guard, and prompts as tokens."""

from __future__ import annotations

import contextlib
import os.path
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import msgspec

from server.core.errors import ConversationError, InvalidRequest
from server.core.request import ChatPrompt
from server.core.vocabulary import Vocabulary
from server.prompt.context_length import check_context_length
from server.prompt.families.definitions import Family, FamilyError
from server.prompt.guard.disguise import Masked
from server.prompt.guard.guard import Guard, TextPiece
from server.prompt.guard.segments import user_characters
from server.prompt.known_template import KnownTemplate
from server.prompt.messages.images import (
    ImageForm,
    PlacedImage,
    Standing,
    images_in,
    with_stand_ins,
)
from server.prompt.messages.probing_conversations import TOOL_SCHEMA, example_conversations
from server.prompt.template.chat_template import DEFAULT_TEMPLATE, ChatTemplate
from server.reply.control_tokens import control_tokens


class Rendering(msgspec.Struct, frozen=True, kw_only=True):
    """A rendered prompt: its text, its tokens and images, and which characters are the user's.

    ``users`` has one entry per character, or is empty if the sources were not asked for.
    ``opened_at`` is the character at which the template opens the reply, if it was asked for.
    """

    text: str
    pieces: list[TextPiece | PlacedImage]
    users: list[bool]
    opened_at: int | None = None


class ModelTemplate(KnownTemplate, frozen=True, kw_only=True):
    """One of a model's templates, with the model's tokenizer and guard."""

    vocabulary: Vocabulary
    guard: Guard

    @classmethod
    def open(
        cls, template: ChatTemplate, vocabulary: Vocabulary, family: Family | None, *, guard: bool
    ) -> Self:
        """Probe the template.

        Args:
            template: One of the model's templates.
            vocabulary: The model's tokenizer.
            family: The family with data about this template.
            guard: Whether text of a request is kept from becoming control tokens.
        """
        known = KnownTemplate.learn(template, family)
        reply_format = known.reply_format
        texts = [template.source, *_example_prompts(template)]
        texts += family.literals() if family else []
        texts += control_tokens(reply_format) if reply_format else []
        marker = known.images.marker if known.images else None
        return cls(
            **msgspec.structs.asdict(known),
            vocabulary=vocabulary,
            guard=Guard(vocabulary, texts, enabled=guard, image_marker=marker),
        )

    def render(
        self,
        prompt: ChatPrompt,
        *,
        context: int | None = None,
        sources: bool = False,
        opening: bool = False,
    ) -> Rendering:
        """The native prompt, and its tokens without BOS.

        Args:
            prompt: The conversation.
            context: The number of tokens that fit; None for no limit.
            sources: Whether to find out which characters came from the request; renders twice.
            opening: Whether to find out where the reply is opened; renders twice.

        Raises:
            ConversationError: The template cannot express the conversation.
            InvalidRequest: It has too many private-use characters for a disguise.
            ContextLengthExceeded: The prompt certainly has more tokens than ``context``.
        """
        standing = with_stand_ins(prompt, self.guard.mask.unused)
        if self.images and standing.places:
            # Some templates leave images out, or write them otherwise, where texts stand.
            with contextlib.suppress(ConversationError):
                return self._rendering(
                    standing, self.images, context, sources=sources, opening=opening
                )
        return self._rendering(standing, None, context, sources=sources, opening=opening)

    def _rendering(
        self,
        standing: Standing,
        form: ImageForm | None,
        context: int | None,
        *,
        sources: bool,
        opening: bool,
    ) -> Rendering:
        """The prompt, whose images the template gets in its ``form``; None: as stand-ins."""
        chat = self.fit(standing.prompt, standing.places if form else ())
        strings = (chat.messages, chat.tools, chat.variables)
        with chat.locating():
            masked = self.guard.mask.apply(*strings, standing.places)
            disguised = self._render(standing.prompt, masked)
        marker = form.marker if form else ""
        images = images_in(disguised, standing, chat.image_parts, marker)
        text = masked.lift(disguised)
        check_context_length(text, self.vocabulary, context, ("prompt",))
        pieces = self._pieces(disguised, text, images)
        opened_at = None
        if opening and standing.prompt.add_generation_prompt:
            with contextlib.suppress(ConversationError):
                closed = msgspec.structs.replace(standing.prompt, add_generation_prompt=False)
                without = self._render(closed, masked)
                # By characters, as is meant here.
                opened_at = len(os.path.commonprefix([disguised, without]))  # noqa: RUF071
        if sources:
            # A template that compares texts may render something else in full disguise.
            with contextlib.suppress(InvalidRequest):
                full = self.guard.mask.apply_to_everything(*strings)
                again = self._render(standing.prompt, full)
                disguised = again if full.lift(again) == text else disguised
        users = user_characters(disguised, text) if sources else []
        return Rendering(text=text, pieces=pieces, users=users, opened_at=opened_at)

    def _pieces(
        self, disguised: str, text: str, images: Sequence[PlacedImage]
    ) -> list[TextPiece | PlacedImage]:
        """The prompt's tokens, each stretch between images for itself, as llama.cpp has them."""
        pieces: list[TextPiece | PlacedImage] = []
        start = 0
        for image in (*images, None):
            end = len(text) if image is None else image.start
            found = self.guard.tokenize(disguised[start:end], text[start:end])
            pieces += [TextPiece(start + each.start, start + each.end, each.ids) for each in found]
            if image is not None:
                pieces.append(image)
                start = image.end
        return pieces

    def _render(self, prompt: ChatPrompt, masked: Masked) -> str:
        try:
            rendered = self.template.render(
                masked.messages,
                tools=masked.tools,
                variables=masked.variables,
                add_generation_prompt=prompt.add_generation_prompt,
                continue_final_message=prompt.continue_final_message,
                sight=masked.sight,
            )
        except ConversationError as error:
            raise type(error)(masked.lift(error.template), at=error.at) from error
        return masked.settle(rendered)


def valid_templates(
    sources: Mapping[str, str], vocabulary: Vocabulary
) -> tuple[dict[str, ChatTemplate], list[str]]:
    """The templates that compile, and a warning about each that does not."""
    compiled: dict[str, ChatTemplate] = {}
    warnings = []
    for name, source in sources.items():
        try:
            compiled[name] = _compiled(name, source, vocabulary)
        except ConversationError as error:
            warnings.append(f"{error.message} It is not used.")
    return compiled, warnings


def family_template(family: Family, vocabulary: Vocabulary) -> ChatTemplate:
    """The template of a family that has one.

    Raises:
        FamilyError: It does not compile; the message names the file.
    """
    assert family.template
    try:
        return _compiled(DEFAULT_TEMPLATE, family.template, vocabulary)
    except ConversationError as error:
        path = family.path.with_suffix(".jinja")
        raise FamilyError(f"{path}: {error.message}") from error


def _compiled(name: str, source: str, vocabulary: Vocabulary) -> ChatTemplate:
    def text(token: int | None) -> str:
        return "" if token is None else vocabulary.text(token)

    bos, eos = text(vocabulary.bos), text(vocabulary.eos)
    return ChatTemplate(source, bos_token=bos, eos_token=eos, name=name)


def _example_prompts(template: ChatTemplate) -> Iterator[str]:
    """Prompts that show the control tokens which the template puts together from pieces."""
    for messages in example_conversations():
        for tools in (None, [TOOL_SCHEMA]):
            with contextlib.suppress(ConversationError):
                yield template.render(messages, tools=tools)
