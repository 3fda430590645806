"""The fold of reply events: parts in order, calls of every kind, usage counted once per prompt."""

from __future__ import annotations

from server.core.events import TokenLogprob, Usage
from server.core.reply import (
    AnswerFinished,
    AnswerStarted,
    ContentDelta,
    ReasoningDelta,
    ReasoningPart,
    ReplyEvent,
    ToolCallArguments,
    ToolCallInput,
    ToolCallStart,
    fold,
    message_of,
)
from server.core.request import Message, TextPart, ToolCall


def usage(prompt: int = 5, completion: int = 3, **more: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion, **more)


def test_parts_stand_in_the_order_in_which_they_were_written() -> None:
    (answer,) = fold(
        [
            ReasoningDelta("Let me "),
            ReasoningDelta("look."),
            ContentDelta("I'll ask."),
            ToolCallStart(0, "a", "weather"),
            ToolCallArguments(0, '{"city": '),
            ToolCallArguments(0, '"Oslo"}'),
            ContentDelta(" Done."),
        ]
    ).answers
    assert answer.parts == [
        ReasoningPart("Let me look."),
        TextPart("I'll ask."),
        ToolCall(id="a", name="weather", arguments='{"city": "Oslo"}'),
        TextPart(" Done."),
    ]
    assert answer.text == "I'll ask. Done."
    assert answer.finish_reason is None


def test_the_input_of_a_free_form_tool_is_kept_as_it_is() -> None:
    (answer,) = fold(
        [
            ToolCallStart(0, "a", "patch", kind="custom"),
            ToolCallInput(0, "*** Begin"),
            ToolCallInput(0, '\n"x"'),
        ]
    ).answers
    assert answer.calls == [
        ToolCall(id="a", name="patch", arguments='*** Begin\n"x"', kind="custom")
    ]


def test_arguments_find_their_call_among_several() -> None:
    (answer,) = fold(
        [
            ToolCallStart(0, "a", "f"),
            ToolCallStart(1, "b", "g"),
            ToolCallArguments(1, "[1"),
            ToolCallArguments(0, "{}"),
            ToolCallArguments(1, "]"),
        ]
    ).answers
    assert [call.arguments for call in answer.calls] == ["{}", "[1]"]


def test_answers_are_told_apart_and_sorted() -> None:
    reply = fold(
        [
            AnswerStarted(1),
            AnswerStarted(0),
            ContentDelta("second", 1),
            ContentDelta("first", 0),
            AnswerFinished(reason="length", usage=usage(), answer=0),
            AnswerFinished(reason="stop", usage=usage(), answer=1),
        ]
    )
    assert [answer.text for answer in reply.answers] == ["first", "second"]
    assert [answer.finish_reason for answer in reply.answers] == ["length", "stop"]


def test_the_stop_string_that_ended_an_answer_is_known() -> None:
    (answer,) = fold([AnswerFinished(reason="stop", usage=usage(), stop="END")]).answers
    assert answer.stop == "END"


def test_logprobs_come_from_the_content_and_from_the_end() -> None:
    tokens = [TokenLogprob(number, b"x", -0.5) for number in range(3)]
    (answer,) = fold(
        [
            ContentDelta("x", logprobs=tokens[:1]),
            ContentDelta("x", logprobs=tokens[1:2]),
            AnswerFinished(reason="stop", usage=usage(), logprobs=tokens[2:]),
        ]
    ).answers
    assert answer.logprobs == tokens


def test_a_prompt_counts_once_with_what_its_first_answer_found_in_the_cache() -> None:
    total = fold(
        [
            AnswerFinished(
                reason="stop", usage=usage(cached_tokens=4, image_tokens=3), answer=1, prompt=0
            ),
            AnswerFinished(
                reason="stop", usage=usage(cached_tokens=1, image_tokens=3), answer=0, prompt=0
            ),
            AnswerFinished(
                reason="stop", usage=usage(7, 2, reasoning_tokens=1), answer=2, prompt=1
            ),
        ]
    ).usage
    assert total == usage(12, 8, cached_tokens=1, image_tokens=3, reasoning_tokens=1)


def test_the_message_of_a_call_alone_has_no_content() -> None:
    events: list[ReplyEvent] = [ToolCallStart(0, "a", "f"), ToolCallArguments(0, "{}")]
    assert message_of(events) == Message(
        role="assistant",
        content=None,
        tool_calls=[ToolCall(id="a", name="f", arguments="{}")],
    )


def test_no_events_are_an_empty_message() -> None:
    assert message_of([]) == Message(role="assistant", content="")
