"""Finding out what a chat template can express, by rendering needles and searching for them.

Most templates silently drop what they do not know. Neither a template's name nor the absence of an
error therefore proves anything; only the rendered text does. ``normalize.py`` acts on the verdicts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec

from server.core.errors import ConversationError
from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.probing_conversations import (
    ASSISTANT,
    ASSISTANT2,
    AUTHOR,
    CUT_OFF,
    DESCRIPTION,
    FREE_IDS,
    KEY,
    NAME,
    NAME2,
    NAMED_IDS,
    REASONING,
    RESULT,
    SHORT_IDS,
    SYSTEM,
    SYSTEM2,
    TOOL_SCHEMA,
    USER,
    USER2,
    VALUE,
    VALUE2,
    CallStyle,
    in_parts,
    turn,
    turn_in_parts,
    user_turn,
)
from server.prompt.template.chat_template import ChatTemplate
from server.prompt.template.limits import TemplateLimitExceeded


def probe(template: ChatTemplate) -> Capabilities:
    """Find out what the template can express. It renders some forty tiny conversations.

    After a render over the limits (``template/limits.py``) there are no more; open verdicts are
    false.
    """
    return Capabilities(**_Probe(template).verdicts())


class _Probe:
    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._usable = True
        self._parts_only = False
        plain = self._render([user_turn(USER)])
        if plain is None or USER not in plain:
            self._parts_only = True
            plain = self._render([user_turn(USER)])
        self._plain = plain or ""

    def verdicts(self) -> dict[str, Any]:
        renders = USER in self._plain
        if not renders:
            return {}
        string_content = not self._parts_only
        found: dict[str, Any] = {"renders": True, "string_content": string_content}
        found |= self._turn_verdicts()
        found |= self._tool_verdicts()
        style = next(self._call_styles(), None)
        if style is not None:
            found |= self._call_verdicts(style)
            # Some describe the tools in the first message, which they take for a user's.
            found["assistant_first"] &= self._shows(
                [style.calling(), style.result(), user_turn(USER)],
                *(NAME, VALUE, USER),
                tools=[TOOL_SCHEMA],
            )
        found |= self._result_verdicts(style)
        found["reasoning"] = self._shows_reasoning(style)
        return found

    def _turn_verdicts(self) -> dict[str, bool]:
        user, user2 = user_turn(USER), user_turn(USER2)
        system, system2 = turn("system", SYSTEM), turn("system", SYSTEM2)
        assistant, assistant2 = turn("assistant", ASSISTANT), turn("assistant", ASSISTANT2)
        system_role = self._shows([system, user], SYSTEM, USER) and self._shows(
            [system, user], SYSTEM, USER, tools=[TOOL_SCHEMA]
        )
        return {
            "system_role": system_role,
            "lasting_system": self._shows(
                [system, user, assistant], SYSTEM, USER, add_generation_prompt=False
            ),
            "content_parts": self._shows_parts(system_role),
            # A template that writes any role's name shows it too, but no model was trained on it.
            "developer_role": "developer" in self._template.source
            and self._shows([turn("developer", SYSTEM), user], SYSTEM, USER),
            "several_systems": self._shows([system, system2, user], SYSTEM, SYSTEM2, USER),
            "late_system": self._keeps_order([user, system], USER, SYSTEM)
            and self._keeps_order(
                [user, assistant, system, user2, assistant2], USER, ASSISTANT, SYSTEM, USER2
            )
            and self._keeps_order([user, assistant, system, user2], ASSISTANT, SYSTEM, USER2),
            "author_names": self._shows([{**user, "name": AUTHOR}], AUTHOR, USER),
            "consecutive_users": self._shows([user, user2], USER, USER2),
            "consecutive_assistants": self._shows(
                [user, assistant, assistant2, user2], ASSISTANT, ASSISTANT2, USER2
            ),
            "assistant_first": self._shows([assistant, user], ASSISTANT, USER),
            "continuation": self._continues(),
        }

    def _shows_parts(self, system_role: bool) -> bool:
        """Whether two parts reach the prompt in each role, and not as a printed list."""
        turns = [
            turn_in_parts("user", USER, USER2),
            turn_in_parts("assistant", ASSISTANT, ASSISTANT2),
            turn_in_parts("user", USER2),
        ]
        needles = [USER, USER2, ASSISTANT, ASSISTANT2]
        if system_role:
            turns.insert(0, turn_in_parts("system", SYSTEM, SYSTEM2))
            needles += [SYSTEM, SYSTEM2]
        text = self._render(turns)
        return (
            text is not None
            and all(needle in text for needle in needles)
            and not (f"'{USER}'" in text or f'"{USER}"' in text)
        )

    def _continues(self) -> bool:
        text = self._render(
            [user_turn(USER), turn("assistant", ASSISTANT)],
            add_generation_prompt=False,
            continue_final_message=True,
        )
        return text is not None and text.endswith(ASSISTANT)

    def _tool_verdicts(self) -> dict[str, bool]:
        def described(parameters: dict[str, Any]) -> dict[str, Any]:
            function = {"name": NAME, "description": DESCRIPTION, "parameters": parameters}
            return {"type": "function", "function": function}

        bare = {"type": "function", "function": {"name": NAME}}
        plain = {"type": "object", "properties": {KEY: {"type": "string"}}}
        bare_parameters = [described({"type": "object"}), described(plain)]
        return {
            "tools": self._shows(
                [user_turn(USER)], NAME, DESCRIPTION, KEY, USER, tools=[TOOL_SCHEMA]
            ),
            "bare_tools": self._shows([user_turn(USER)], NAME, USER, tools=[bare]),
            "bare_parameters": self._shows(
                [user_turn(USER)], NAME, DESCRIPTION, KEY, USER, tools=bare_parameters
            ),
        }

    def _call_styles(self) -> Iterator[CallStyle]:
        """The ways to write a call that this template shows, the most common first."""
        contents: tuple[dict[str, Any], ...] = ({"content": ""}, {"content": None}, {})
        ids = (FREE_IDS, SHORT_IDS, NAMED_IDS)
        for with_result, id_pair, as_object, content in itertools.product(
            (True, False), ids, (True, False), contents
        ):
            style = CallStyle(ids=id_pair, as_object=as_object, content=content)
            if self._shows_call(style, with_result=with_result):
                yield style

    def _shows_call(self, style: CallStyle, *, with_result: bool = True) -> bool:
        turns = [user_turn(USER), style.calling()]
        if with_result:
            turns.append(style.result())
        text = self._render(turns)
        if text is None or not all(needle in text for needle in (NAME, KEY, VALUE)):
            return False
        encoded_twice = f'\\"{KEY}' in text
        printed = f"'{KEY}': " in text or text.count("None") > self._plain.count("None")
        return not (encoded_twice or printed)

    def _call_verdicts(self, style: CallStyle) -> dict[str, Any]:
        user, final = user_turn(USER), turn("assistant", ASSISTANT2)
        calls, result = style.calling(), style.result()
        contents: dict[str, dict[str, Any]] = {
            "empty": {"content": ""},
            "null": {"content": None},
            "absent": {},
        }
        found: dict[str, Any] = {
            f"{name}_content_with_calls": self._shows_call(
                msgspec.structs.replace(style, content=content)
            )
            for name, content in contents.items()
        }
        speaking = {**calls, "content": ASSISTANT}
        after = [result, final, user_turn(USER2)]
        text_first = [user, turn("assistant", ASSISTANT), calls]
        pair = [user, style.calling(2), result, style.result(1)]
        return found | {
            "tool_calls": True,
            "object_arguments": style.as_object,
            "free_arguments": self._shows([user, _cut_off(calls), result], NAME, CUT_OFF),
            "free_call_ids": style.ids is FREE_IDS,
            "short_call_ids": style.ids is SHORT_IDS or style.ids is FREE_IDS,
            "content_with_calls": self._shows([user, speaking, result], ASSISTANT, NAME, VALUE)
            and self._shows([user, speaking, *after], ASSISTANT, NAME, VALUE, ASSISTANT2),
            "text_before_calls": self._shows([*text_first, result], ASSISTANT, NAME, VALUE)
            and self._shows([*text_first, *after], ASSISTANT, NAME, VALUE, ASSISTANT2),
            "parallel_calls": self._shows(pair, NAME, NAME2, VALUE, VALUE2)
            and self._count(pair, VALUE2) == self._count([user, calls, result], VALUE),
            "user_after_results": self._shows(
                [user, calls, result, user_turn(USER2)], NAME, VALUE, USER2
            ),
        }

    def _result_verdicts(self, style: CallStyle | None) -> dict[str, bool]:
        if "tool" not in self._template.source:
            return {}
        calling = style.calling() if style else turn("assistant", ASSISTANT)
        answer = (style or CallStyle()).result()
        turns = [user_turn(USER), calling]
        text = self._render([*turns, answer])
        unnamed = text is not None and RESULT in text
        named = self._shows([*turns, {**answer, "name": NAME}], RESULT)
        if unnamed and text is not None:
            unnamed = text.count("None") <= self._plain.count("None")
        after = [answer | {"name": NAME}, turn("assistant", ASSISTANT2), user_turn(USER2)]
        return {
            "tool_results": named and self._shows([*turns, *after], RESULT, ASSISTANT2, USER2),
            "unnamed_results": unnamed,
        }

    def _shows_reasoning(self, style: CallStyle | None) -> bool:
        """Whether reasoning reaches the prompt, if need be with thinking switched on."""
        thought = {"reasoning_content": REASONING}
        spoken = [user_turn(USER), {**turn("assistant", ASSISTANT), **thought}]
        turns = [spoken, [user_turn(USER), *spoken[1:], user_turn(USER2)]]
        if style is not None:
            turns.append([user_turn(USER), {**style.calling(), **thought}, style.result()])
        switches = {"thinking", "enable_thinking"} & self._template.variables
        return any(
            self._shows(messages, REASONING, variables=variables, add_generation_prompt=False)
            for variables in ({}, dict.fromkeys(switches, True))
            for messages in turns
        )

    def _count(self, messages: list[dict[str, Any]], needle: str) -> int:
        return (self._render(messages) or "").count(needle)

    def _shows(self, messages: list[dict[str, Any]], *needles: str, **options: Any) -> bool:
        text = self._render(messages, **options)
        return text is not None and all(needle in text for needle in needles)

    def _keeps_order(self, messages: list[dict[str, Any]], *needles: str) -> bool:
        """Whether the prompt shows the needles in this order: some templates move system text."""
        text = self._render(messages) or ""
        places = [text.find(needle) for needle in needles]
        return places[0] >= 0 and places == sorted(places)

    def _render(self, messages: list[dict[str, Any]], **options: Any) -> str | None:
        """The prompt; None if the template fails."""
        if not self._usable:
            return None
        if self._parts_only:
            messages = [in_parts(message) for message in messages]
        try:
            return self._template.render(messages, **options)
        except TemplateLimitExceeded:
            self._usable = False
            return None
        except ConversationError:
            return None


def _cut_off(calling: dict[str, Any]) -> dict[str, Any]:
    """The message with the first part of its call's arguments."""
    call = calling["tool_calls"][0]
    function = {**call["function"], "arguments": CUT_OFF}
    return {**calling, "tool_calls": [{**call, "function": function}]}
