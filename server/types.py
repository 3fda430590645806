"""The canonical request and the events that answer it.

Every API family converts its wire format to `GenerationRequest` and folds `Event`s back; none knows
another. These types cross the border between the API process and a worker as MessagePack (msgspec).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from server.errors import ErrorInfo

Role = Literal["system", "developer", "user", "assistant", "tool"]
ModelKind = Literal["base", "instruct", "chat"]
FinishReason = Literal["stop", "length"]


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A function call by the assistant; ``arguments`` is JSON text, as OpenAI sends it."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn. ``content`` is a string, text parts in order, or None."""

    role: Role
    content: str | list[str] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] = []
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function the model may call; ``parameters`` is a JSON Schema object."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool = False


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What the model must do with the tools; ``name`` only with mode ``named``."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str | None = None
    parallel: bool = True


class ChatPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="chat"):
    """A conversation, rendered by the model's chat template.

    ``template_kwargs`` are variables for the template (``enable_thinking``, …), checked against the
    template's own undeclared variables. With ``continue_final_message`` the last assistant message
    is left open and continued.
    """

    messages: list[Message]
    tools: list[Tool] = []
    tool_choice: ToolChoice = ToolChoice()
    template_kwargs: dict[str, Any] = {}
    add_generation_prompt: bool = True
    continue_final_message: bool = False


class TextPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    """A native prompt, given as it is: no template; control tokens in it are honoured."""

    text: str
    suffix: str | None = None


class TokensPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="tokens"):
    """Token ids, given as they are; nothing is added, not even BOS."""

    ids: list[int]


Prompt = ChatPrompt | TextPrompt | TokensPrompt


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Sampling parameters; None means the request is silent, so a family's default may apply."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    logit_bias: dict[int, float] = {}
    seed: int | None = None

    def over(self, defaults: Sampling) -> Sampling:
        """These parameters, with ``defaults`` where they are silent."""
        merged = {
            name: getattr(defaults, name) if value is None else value
            for name in self.__struct_fields__
            for value in (getattr(self, name),)
        }
        return Sampling(**merged)


class Constraint(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer must match.

    ``body`` is JSON text for ``json_schema`` (the schema) and ``choice`` (a list of strings), the
    expression or grammar text for ``regex``, ``lark`` and ``gbnf``, empty for ``json_object``.
    """

    kind: Literal["json_object", "json_schema", "regex", "choice", "lark", "gbnf"]
    body: str = ""


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt to generate ``n`` answers for.

    ``max_tokens`` None means up to the context's end. ``logprobs`` is the number of alternatives to
    report per token (0: only the chosen one), None for no logprobs at all. ``echo`` asks for the
    prompt's own tokens (with logprobs, if asked). ``prediction`` is text the answer probably
    repeats. ``cache_scope`` separates prefix cache entries between API keys.
    """

    id: int
    prompt: Prompt
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    stop: list[str] = []
    n: int = 1
    logprobs: int | None = None
    echo: bool = False
    constraint: Constraint | None = None
    prediction: str | None = None
    ignore_eos: bool = False
    cache_scope: str = ""


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A token with its raw log-probability (natural log; None for the first prompt token).

    ``piece`` is the token's own bytes, possibly a part of a UTF-8 character. ``top`` holds the most
    probable alternatives as (id, bytes, logprob), best first.
    """

    id: int
    piece: bytes
    logprob: float | None
    top: list[tuple[int, bytes, float]] = []


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts of one finished answer; times in seconds."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0
    queue_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0


class Accepted(msgspec.Struct, frozen=True, kw_only=True, tag="accepted"):
    """The request passed every check and is queued: from here on a stream may begin.

    ``reply_prefix`` is the part of the generation prompt that already belongs to the reply (such as
    an opened reasoning block), to be fed to the reply parser first. ``tools_active`` says whether
    the reply may hold tool calls.
    """

    id: int
    prompt_tokens: int
    reply_prefix: str = ""
    tools_active: bool = False


class PromptScored(msgspec.Struct, frozen=True, kw_only=True, tag="scored"):
    """Answer to ``echo``: the prompt's text and its tokens, with logprobs when asked for."""

    id: int
    text: str
    tokens: list[TokenLogprob]


class Delta(msgspec.Struct, frozen=True, kw_only=True, tag="delta"):
    """New text of answer ``index``: whole UTF-8 characters only, never part of a stop string.

    ``tokens`` is how many tokens were generated since the last delta of this answer; ``logprobs``
    has one entry for each of them when logprobs were asked for.
    """

    id: int
    index: int
    text: str
    tokens: int
    logprobs: list[TokenLogprob] = []


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """Answer ``index`` is complete. A request is over when all its ``n`` answers are."""

    id: int
    index: int
    reason: FinishReason
    usage: Usage


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The whole request failed; no more events follow for it."""

    id: int
    error: ErrorInfo


Event = Accepted | PromptScored | Delta | Finished | Failed


class Segment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run of the native prompt: where it came from, and the tokens it became.

    ``control`` is true for a control token; ``source`` says who wrote the characters. ``pieces``
    is ``text`` cut where its tokens meet, one string per token; a character that several tokens
    share is in the first one's. It is empty where the tokens do not spell the text.
    """

    text: str
    ids: list[int]
    control: bool
    source: Literal["user", "template"]
    pieces: list[str] = []


class RenderedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt as the model gets it: its text, its token ids, and where each piece came from."""

    prompt: str
    tokens: list[int]
    segments: list[Segment]
