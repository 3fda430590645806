"""Summaries that stand for conversations: how a model is asked for one, and how one comes back."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from server.api.family import Model
from server.api.prompt_size import most_tokens
from server.api.surplus import surplus
from server.core.errors import ContextLengthExceeded, InvalidRequest
from server.core.reply import Reply
from server.core.request import (
    ChatPrompt,
    GenerationRequest,
    Message,
    ToolChoice,
    with_messages,
)

SUMMARY_TASK = (
    "Sum up this conversation so that it can go on from your summary alone: what was asked for, "
    "what was found out and done, what was decided, and what is left to do. Keep names, paths, "
    "numbers and errors exactly. Write only the summary."
)
_MOST_TOKENS = 2048
"""A choice: some pages."""
_MOST_SHARE = 8
"""A summary has at most an eighth of the context. A choice: room for what comes next."""
_WORTH_CHARACTERS = 8
"""A choice: a conversation is summed up where it has twice its summary's characters at least."""


def summed_up(summary: str) -> str:
    """What the model reads in place of the conversation that ``summary`` stands for."""
    return f"This is a summary of the conversation so far:\n\n{summary}"


def most_summary_tokens(context: int) -> int:
    """The most tokens of a summary that a model with this ``context`` goes on from."""
    return min(_MOST_TOKENS, max(context // _MOST_SHARE, 1))


def lowered(beyond: int, context: int) -> int:
    """The tokens beyond which a conversation is made shorter, where ``beyond`` are asked for.

    No more than three quarters of the context, which is what the defaults of Anthropic's API are of
    its own: what never fits would never be made shorter.
    """
    return min(beyond, context * 3 // 4)


def for_a_summary(
    request: GenerationRequest, most: int | None, *, with_tools: bool = False
) -> GenerationRequest:
    """``request``, whose last message asks for a summary of at most ``most`` tokens (None: any).

    Without what is about the form of an answer, and unless it is ``with_tools`` without them; its
    few tokens are no thoughts.
    """
    assert isinstance(request.prompt, ChatPrompt)
    prompt = msgspec.structs.replace(
        request.prompt,
        tools=request.prompt.tools if with_tools else [],
        tool_choice=ToolChoice(),
        add_generation_prompt=True,
        continue_final_message=False,
    )
    return msgspec.structs.replace(
        request,
        prompt=prompt,
        max_tokens=most,
        min_tokens=0,
        stop=[],
        stop_token_ids=[],
        reasoning_budget=0,
        ignore_eos=False,
        logprobs=None,
        constraint=None,
    )


async def is_to_be_summed_up(
    model: Model,
    prompt: ChatPrompt,
    beyond: int,
    *,
    staying: Collection[str] = ("system", "developer"),
) -> bool:
    """Whether ``prompt`` has more than ``beyond`` tokens, and much to sum up.

    Messages of the roles that are ``staying`` stand beside a summary, not in it. Raises what
    `Model.count` raises.
    """
    most = lowered(beyond, model.context)
    said = [message for message in prompt.messages if message.role not in staying]
    worth = most_summary_tokens(model.context) * _WORTH_CHARACTERS
    if most_tokens(ChatPrompt(messages=said)) < worth or most_tokens(prompt) <= most:
        return False
    return await model.count(prompt) > most


async def summary_of(model: Model, request: GenerationRequest, task: str = SUMMARY_TASK) -> Reply:
    """The model's summary of the conversation of ``request``, which it may go on from.

    The model sees its tools, so that the prefix cache has the conversation behind them; if it calls
    some instead of writing, it is asked again without. Of a conversation that is too long itself,
    the oldest messages are left out. Raises what `Model.reply` raises.
    """
    assert isinstance(request.prompt, ChatPrompt)
    messages = [*request.prompt.messages, Message(role="user", content=task)]
    asked = with_messages(request, messages)
    try:
        reply = await _summary(model, asked, with_tools=True)
    except InvalidRequest as error:
        # Where the form of calls is unknown, tools are taken only with a choice of none.
        if error.at != ("tools",):
            raise
    else:
        if reply.answers[0].text.strip() or not reply.answers[0].calls:
            return reply
    return await _summary(model, asked, with_tools=False)


async def _summary(model: Model, request: GenerationRequest, *, with_tools: bool) -> Reply:
    most = most_summary_tokens(model.context)
    while True:
        asked = for_a_summary(request, most, with_tools=with_tools)
        try:
            return await model.reply(asked)
        except ContextLengthExceeded as error:
            assert isinstance(request.prompt, ChatPrompt)
            messages = request.prompt.messages
            dropped = surplus(messages, error, max_tokens=most, summed_up=True)
            if not dropped:
                raise
            kept = [each for at, each in enumerate(messages) if at not in dropped]
            request = with_messages(request, kept)
