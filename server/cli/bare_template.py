"""A chat template without a model, for the commands that only need that."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from server.chat.capabilities import Capabilities, probe
from server.chat.completeness import check_complete
from server.chat.family import ModelFacts, load_families, select_family
from server.chat.normalize import normalize, template_variables
from server.chat.reply.derive import resolve_reply_format
from server.chat.reply.format import ReplyFormat
from server.chat.template import ChatTemplate
from server.config import Settings
from server.resources import templates_directory
from server.types import ChatPrompt


class BareTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """A template, what it can express, and what a matching family adds to that."""

    template: ChatTemplate
    capabilities: Capabilities
    family_reply: Mapping[str, Any] | None

    @classmethod
    def open(
        cls, source: str, name: str, settings: Settings, *, bos: str = "", eos: str = ""
    ) -> Self:
        """Compile and probe ``source``; ``name`` is what families may recognise it by.

        Raises ConversationError where it is no valid template.
        """
        facts = ModelFacts(
            architecture="",
            names=[name],
            kind="instruct",
            special_texts=(),
            template=source,
            template_sha256=hashlib.sha256(source.encode()).hexdigest(),
        )
        families = load_families([templates_directory(), *map(Path, settings.template_dirs)])
        family = select_family(families, facts, None).family
        template = ChatTemplate(source, bos_token=bos, eos_token=eos)
        capabilities = probe(template)
        if family:
            capabilities = msgspec.structs.replace(capabilities, **family.capabilities)
        return cls(
            template=template,
            capabilities=capabilities,
            family_reply=family.reply if family else None,
        )

    def render(self, prompt: ChatPrompt) -> str:
        """The native prompt; raises ConversationError where the template cannot express it."""
        chat = normalize(prompt, self.capabilities)
        variables = template_variables(prompt.template_kwargs, self.template)
        generation = prompt.add_generation_prompt
        check_complete(chat, self.template, add_generation_prompt=generation, variables=variables)
        return self.template.render(
            chat.messages,
            tools=chat.tools,
            add_generation_prompt=generation,
            variables=variables,
        )

    def reply_format(self) -> ReplyFormat | None:
        """Where reasoning and tool calls are in a reply; None: all is content."""
        return resolve_reply_format(self.template, self.capabilities, self.family_reply)
