"""A chat template with its verdicts and reply format, and prompts as text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import msgspec

from server.core.errors import ConversationError, InvalidRequest
from server.core.reply_format import ReplyFormat
from server.core.request import ChatPrompt
from server.prompt.families.definitions import Family
from server.prompt.format_discovery.resolve import resolve_reply_format
from server.prompt.guard.mask import private_characters, unused_characters
from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.completeness import check_complete
from server.prompt.messages.efforts import Efforts
from server.prompt.messages.image_probe import image_form
from server.prompt.messages.images import ImageForm, in_form, shown_images, with_stand_ins
from server.prompt.messages.normalize import NormalizedChat, normalize, template_variables
from server.prompt.messages.probe import probe
from server.prompt.messages.tool_turns import GENERIC_CALLS
from server.prompt.template.chat_template import ChatTemplate
from server.prompt.template.content import with_texts
from server.prompt.template.limits import TemplateLimitExceeded


class FittedChat(NormalizedChat, frozen=True, kw_only=True):
    """A conversation that reaches the prompt completely, with the template's further variables.

    ``image_parts`` are the stand-ins of those images that are parts of content, in order.
    """

    variables: dict[str, Any]
    image_parts: list[str]

    @contextmanager
    def locating(self) -> Iterator[None]:
        """Errors about one of ``messages`` are about the request's message it came from."""
        try:
            yield
        except InvalidRequest as error:
            match error.at:
                case ("messages", int(place)):
                    raise error.moved(self.origin(place)) from error
            raise


class KnownTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """A template with its verdicts and reply format.

    Attributes:
        template: The template.
        capabilities: What it can express.
        reply_format: None if replies are content only.
        efforts: What it knows of effort in reasoning.
        indent_labels: Lines of a message that begin with one of these are indented.
        images: How it takes images; None if as text alone.
    """

    template: ChatTemplate
    capabilities: Capabilities
    reply_format: ReplyFormat | None
    indent_labels: list[str]
    efforts: Efforts = Efforts()
    images: ImageForm | None = None

    @classmethod
    def learn(cls, template: ChatTemplate, family: Family | None) -> KnownTemplate:
        """Probe ``template``; ``family`` has data about it."""
        capabilities = probe(template)
        if family:
            capabilities = msgspec.structs.replace(capabilities, **family.capabilities)
        family_reply = family.reply if family else None
        reply_format = resolve_reply_format(template, capabilities, family_reply)
        if reply_format is None or reply_format.calls is None:
            # If the form of calls is unknown, tools, calls and results are better put in words.
            in_words = msgspec.structs.replace(
                capabilities, tools=False, tool_calls=False, tool_results=False
            )
            in_words_format = resolve_reply_format(template, in_words, family_reply)
            if in_words_format and in_words_format.calls:
                capabilities, reply_format = in_words, in_words_format
        return KnownTemplate(
            template=template,
            capabilities=capabilities,
            reply_format=reply_format,
            efforts=Efforts.of(template),
            images=image_form(template, capabilities),
            indent_labels=family.indent_labels if family else [],
        )

    def fit(self, prompt: ChatPrompt, stand_ins: Collection[str] = ()) -> FittedChat:
        """Shape the conversation to what the template can express.

        If the template fails on the tools' schemas, they are described in words.

        Args:
            prompt: The conversation, with stand-ins for its images.
            stand_ins: Those that the template is to get as parts where it takes some.

        Raises:
            ConversationError: The template cannot express it.
        """
        try:
            return self._fit(prompt, self.capabilities, stand_ins)
        except TemplateLimitExceeded:
            raise
        except ConversationError:
            if not (prompt.tools and self.capabilities.tools):
                raise
            in_words = msgspec.structs.replace(self.capabilities, tools=False)
            with suppress(ConversationError):
                return self._fit(prompt, in_words, stand_ins)
            raise

    def _fit(
        self, prompt: ChatPrompt, capabilities: Capabilities, stand_ins: Collection[str]
    ) -> FittedChat:
        calls = self.reply_format.calls if self.reply_format else None
        chat = normalize(prompt, capabilities, calls or GENERIC_CALLS)
        image_parts: list[str] = []
        if self.images and stand_ins:
            shaped = [in_form(message, self.images, stand_ins) for message in chat.messages]
            image_parts = [image for _, images in shaped for image in images]
            messages = [message for message, _ in shaped]
            chat = msgspec.structs.replace(chat, messages=messages)
        variables = template_variables(self.efforts.applied(prompt.template_kwargs), self.template)
        check_complete(
            chat,
            self.template,
            add_generation_prompt=prompt.add_generation_prompt,
            variables=variables,
        )
        return FittedChat(
            messages=[self._indented(message) for message in chat.messages],
            tools=chat.tools,
            sources=chat.sources,
            variables=variables,
            image_parts=image_parts,
        )

    def text(self, prompt: ChatPrompt) -> str:
        """The native prompt; an image is the template's marker, or a word where it has none.

        Raises:
            ConversationError: The template cannot express the conversation.
        """
        standing = with_stand_ins(prompt, self._unused)
        if self.images and standing.places:
            text, parts = self._text(standing.prompt, standing.places)
            if text.count(self.images.marker) >= parts:
                return shown_images(text, standing.places)
        text, _ = self._text(standing.prompt, ())
        return shown_images(text, standing.places)

    def _text(self, prompt: ChatPrompt, stand_ins: Collection[str]) -> tuple[str, int]:
        """The native prompt, and how many images the template got as parts."""
        chat = self.fit(prompt, stand_ins)
        with chat.locating():
            text = self.template.render(
                chat.messages,
                tools=chat.tools,
                variables=chat.variables,
                add_generation_prompt=prompt.add_generation_prompt,
                continue_final_message=prompt.continue_final_message,
            )
        return text, len(chat.image_parts)

    def _unused(self, count: int, text: str) -> list[str]:
        taken = private_characters(f"{self.template.source}\n{text}")
        return unused_characters(count, taken)

    def _indented(self, message: dict[str, Any]) -> dict[str, Any]:
        if not self.indent_labels or message.get("content") is None:
            return message
        labels = re.compile(f"^(?={'|'.join(map(re.escape, self.indent_labels))})", re.MULTILINE)
        return {**message, "content": with_texts(message["content"], partial(labels.sub, " "))}
