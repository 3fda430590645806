"""Chat templates: from messages to a model's native prompt, as the model's authors render it.

The reference is ``render_jinja_template`` of Hugging Face transformers
(https://huggingface.co/docs/transformers/chat_templating): every template that it renders gives the
same prompt here. Some published templates need more and get it: lists that they may change,
``from_json``, and Firefunction's ``datetime`` and ``functions``.
"""

from __future__ import annotations

import copy
import hashlib
import json
import secrets
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from jinja2 import Template, TemplateSyntaxError, meta, nodes

from server.core.errors import PLACE, ConversationError
from server.prompt.template.limits import (
    TemplateLimitExceeded,
    check_length,
    run_limited,
    text_limit,
)
from server.prompt.template.sandbox import TemplateEnvironment, TemplateRefusal
from server.prompt.template.sight import Sight, look_through

DEFAULT_TEMPLATE = "default"

_METADATA_KEY = "tokenizer.chat_template"
_REASONING_NAMES = ("reasoning_content", "thinking", "reasoning")
_DEFINED_TESTS = {"defined", "undefined"}
_DEFAULT_FILTERS = {"default", "d"}
_RESERVED_VARIABLES = {
    *("messages", "add_generation_prompt", "continue_final_message"),
    # Content under each name that templates know: nothing would check that the prompt shows it.
    *("tools", "custom_tools", "available_tools", "functions", "documents"),
    "datetime",
}
"""Variables no request may set; the server sets some of them."""


class ChatTemplate:
    """A compiled chat template.

    Attributes:
        source: The template's text.
        sha256: Hash of the source, in hexadecimal.
        name: The template's name among the model's templates.
        variables: The variables a request may set: names that the template looks up and that
            neither Jinja, the server nor the template itself provides.
    """

    def __init__(
        self, source: str, *, bos_token: str = "", eos_token: str = "", name: str = DEFAULT_TEMPLATE
    ) -> None:
        """Compile the template.

        Raises:
            ConversationError: It is not valid Jinja, or takes too long to compile.
        """
        self.source = source
        self.sha256 = hashlib.sha256(source.encode()).hexdigest()
        self.name = name
        self._bos_token = bos_token
        self._eos_token = eos_token
        try:
            self._compiled, names = run_limited(
                lambda: _compile(source), text=text_limit(len(source))
            )
        except TemplateLimitExceeded:
            raise
        except TemplateSyntaxError as error:
            raise ConversationError(
                f"The chat template {name!r} is not valid: line {error.lineno}: {error.message}"
            ) from error
        except Exception as error:
            raise ConversationError(f"The chat template {name!r} is not valid: {error}") from error
        self.variables = frozenset(
            variable
            for variable in names - _RESERVED_VARIABLES - self._compiled.environment.globals.keys()
            if not variable.endswith("_token")
        )

    def render(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] = {},
        sight: Sight | None = None,
    ) -> str:
        """The native prompt for a conversation. The arguments are left unchanged.

        Args:
            messages: The conversation, in the shape this template takes; at least one message.
            tools: Functions as OpenAI describes them; None or empty leaves the variable undefined.
            add_generation_prompt: Whether to open the assistant's turn at the end.
            continue_final_message: Whether to end the prompt where the last message's text ends.
            variables: Further variables for the template.
            sight: What the template looks through, if the texts are in disguise.

        Raises:
            ConversationError: The template refuses the conversation, with its own words if it has
                any, fails on it or takes too much time or memory. Where the last message cannot be
                continued, the error's place is that message's index in ``messages``.
        """
        values = copy.deepcopy(dict(variables))
        values["messages"] = _with_reasoning_names(copy.deepcopy(messages))
        values["add_generation_prompt"] = add_generation_prompt and not continue_final_message
        if tools:
            values["tools"] = copy.deepcopy(tools)
        if not continue_final_message:
            return self._run(values, sight)
        tag = f"CONTINUE{secrets.token_hex(8)} "
        text = _append_to_last(values["messages"], tag)
        return _cut_at_tag(self._run(values, sight), tag, text, len(messages) - 1)

    def _run(self, values: dict[str, Any], sight: Sight | None) -> str:
        limit = text_limit(_input_size(values))
        values.setdefault("bos_token", self._bos_token)
        values.setdefault("eos_token", self._eos_token)
        # Firefunction's format, cut to minutes: a prompt that changes each second is never cached.
        values.setdefault("datetime", datetime.now().strftime("%Y-%m-%d %H:%M:00"))  # noqa: DTZ005
        values.setdefault(
            "functions", json.dumps(values.get("tools", []), ensure_ascii=False, indent=4)
        )
        try:
            return run_limited(lambda: _generate(self._compiled, values, sight), text=limit)
        except ConversationError:
            raise
        except TemplateRefusal as error:
            raise ConversationError(
                f"The model's chat template refuses this conversation: {error.message}"
            ) from error
        except Exception as error:
            raise ConversationError(
                f"The model's chat template fails on this conversation: {error}"
            ) from error


def templates_in(metadata: Mapping[str, str]) -> dict[str, str]:
    """The chat templates in a GGUF file, by name; the unnamed one is ``default``.

    Args:
        metadata: The file's key-values whose values are strings.
    """
    found = {}
    for key, value in metadata.items():
        if key == _METADATA_KEY:
            found[DEFAULT_TEMPLATE] = value
        elif key.startswith(_METADATA_KEY + "."):
            found[key.removeprefix(_METADATA_KEY + ".")] = value
    return {name: source for name, source in found.items() if source.strip()}


def select_template(names: Collection[str], *, tools: bool) -> str:
    """Choose the one of a model's templates that renders a conversation.

    ``tool_use`` renders conversations with tools. A model without a ``default`` template uses the
    first by name, and one for tools or documents (``rag``) only if it has no other.

    Raises:
        ConversationError: There is no template.
    """
    if not names:
        raise ConversationError("The model has no chat template.")
    if tools and "tool_use" in names:
        return "tool_use"
    if DEFAULT_TEMPLATE in names:
        return DEFAULT_TEMPLATE
    return min(names, key=lambda name: (name in {"tool_use", "rag"}, name))


def _compile(source: str) -> tuple[Template, set[str]]:
    environment = TemplateEnvironment()
    tree = environment.parse(source)
    names = meta.find_undeclared_variables(tree) - (_assigned(tree) - _optional(tree))
    return environment.from_string(source), names


def _assigned(tree: nodes.Template) -> set[str]:
    """Names that the template assigns; Jinja reports those that only some branches assign."""
    return {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}


def _optional(tree: nodes.Template) -> set[str]:
    """Names that the template may assign a default to: ``x is defined``, ``x | default(…)``."""
    tests = (test.node for test in tree.find_all(nodes.Test) if test.name in _DEFINED_TESTS)
    filters = (call.node for call in tree.find_all(nodes.Filter) if call.name in _DEFAULT_FILTERS)
    return {node.name for node in (*tests, *filters) if isinstance(node, nodes.Name)}


def _generate(template: Template, values: dict[str, Any], sight: Sight | None) -> str:
    look_through(sight)
    pieces = []
    length = 0
    for piece in template.generate(values):
        length += len(piece)
        check_length(length)
        pieces.append(piece)
    return "".join(pieces)


def _input_size(values: dict[str, Any]) -> int:
    return len(json.dumps(values, ensure_ascii=False, default=str))


def _with_reasoning_names(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reasoning under each name that templates read; transformers does the same."""
    for message in messages:
        reasoning = next(
            (message[name] for name in _REASONING_NAMES if message.get(name) is not None), None
        )
        if reasoning is not None:
            message.setdefault("thinking", reasoning)
            message["reasoning_content"] = reasoning
    return messages


def _append_to_last(messages: list[dict[str, Any]], tag: str) -> str:
    """Append the tag to the last message's text, and return the text without it."""
    content = messages[-1].get("content")
    if isinstance(content, str):
        messages[-1]["content"] = content + tag
        return content
    for part in reversed(content or []):
        if part["type"] == "text":
            text: str = part["text"]
            part["text"] = text + tag
            return text
    raise ConversationError(
        "There is no text to continue: continue_final_message needs a last message with content.",
        at=("messages", len(messages) - 1),
    )


def _cut_at_tag(prompt: str, tag: str, text: str, index: int) -> str:
    """The prompt up to the tag.

    The tag ends in a space. Where that is gone the template trims content, and would have trimmed
    the white space before the tag.
    """
    end = prompt.rfind(tag.strip())
    if end < 0 or text.strip() not in prompt:
        raise ConversationError(
            f"{PLACE} cannot be continued: the model's chat template changes its text.",
            at=("messages", index),
        )
    return prompt[:end] if prompt.startswith(tag, end) else prompt[:end].rstrip()
