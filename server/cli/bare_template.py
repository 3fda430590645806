"""A chat template without a model, for the commands that need no more."""

from __future__ import annotations

import hashlib
from pathlib import Path

from server.core.resources import templates_directory
from server.core.settings import Settings
from server.prompt.families.choice import ModelFacts, select_family
from server.prompt.families.definitions import load_families
from server.prompt.known_template import KnownTemplate
from server.prompt.template.chat_template import ChatTemplate


def open_bare_template(
    source: str, name: str, settings: Settings, *, bos: str = "", eos: str = ""
) -> KnownTemplate:
    """Compile and probe ``source``; families may match ``name``.

    Raises ConversationError if it is not a valid template.
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
    return KnownTemplate.learn(ChatTemplate(source, bos_token=bos, eos_token=eos), family)
