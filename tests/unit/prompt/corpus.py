"""The published chat templates that the tests render, if they lie beside this checkout."""

from functools import cache
from pathlib import Path

import pytest

from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.probe import probe
from server.prompt.template.chat_template import ChatTemplate

CORPUS = Path(__file__).parents[4] / "shared" / "corpus"
TEMPLATES = {path.stem: path for path in sorted((CORPUS / "templates").glob("*.jinja"))}

BOS, EOS = "<bos>", "<eos>"

each_template = pytest.mark.parametrize(
    "name",
    list(TEMPLATES)
    or [pytest.param("", marks=pytest.mark.skip(reason="needs ../shared/corpus/templates"))],
)


@cache
def template(name: str) -> ChatTemplate:
    source = TEMPLATES[name].read_text(encoding="utf-8")
    return ChatTemplate(source, bos_token=BOS, eos_token=EOS, name=name)


@cache
def capabilities(name: str) -> Capabilities:
    return probe(template(name))
