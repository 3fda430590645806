"""Nearly valid requests, drawn by hypothesis."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.e2e.server import BASE, INSTRUCT
from tests.fuzz.made import NO_FILE

# Rerankers with random weights, which the campaign writes.
JUDGE, ENCODER = "judge", "cross-encoder"
POST_PATHS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1,
        "model": INSTRUCT,
    },
    "/v1/responses": {"input": "Hi", "max_output_tokens": 1, "store": False, "model": INSTRUCT},
    "/v1/messages": {
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1,
        "model": INSTRUCT,
    },
    "/v1/completions": {"prompt": "Hi", "max_tokens": 1, "model": INSTRUCT},
    "/v1/embeddings": {"input": "Hi", "model": INSTRUCT},
    "/v1/rerank": {"query": "Hi", "documents": ["Hi"], "model": JUDGE},
    "/rerank": {"query": "Hi", "texts": ["Hi"], "model": ENCODER},
    "/v1/score": {"text_1": "Hi", "text_2": ["Hi"], "model": JUDGE},
    "/tokenize": {"content": "Hi", "model": INSTRUCT},
    "/detokenize": {"tokens": [5], "model": INSTRUCT},
    "/v1/chat/completions/input_tokens": {
        "messages": [{"role": "user", "content": "Hi"}],
        "model": INSTRUCT,
    },
    "/v1/batches": {
        "input_file_id": json.loads(NO_FILE),
        "endpoint": "/v1/completions",
        "completion_window": "24h",
    },
    "/infill": {"input_prefix": "a", "input_suffix": "b", "max_tokens": 1, "model": INSTRUCT},
    "/apply-template": {"messages": [{"role": "user", "content": "Hi"}], "model": INSTRUCT},
}

texts = st.text(max_size=20) | st.sampled_from(
    ["", "\0", "<|im_end|>", "<bos>", "\u202e", "e\u0301" * 30, "𝄞", "A" * 300, "{{ 7 * 7 }}"]
)
numbers = st.sampled_from(
    [0, 1, -1, 2, 0.5, 128, 2**31, 2**63, -(2**63), 1e308, 1e-308, 10**30, -0.0]
) | st.integers(-5, 5)
scalars = st.none() | st.booleans() | numbers | texts
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)

_FILE = {"file_id": json.loads(NO_FILE)}
_files = st.sampled_from(
    [
        {"type": "file", "file": _FILE},
        {"type": "input_file", **_FILE},
        {"type": "document", "source": {"type": "file", **_FILE}},
    ]
)
_contents = texts | st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "refusal", "image_url", "x"])})
    | st.fixed_dictionaries({"type": st.just("text"), "text": texts})
    | _files,
    max_size=2,
)
_calls = st.lists(
    st.fixed_dictionaries(
        {
            "id": texts,
            "type": st.just("function"),
            "function": st.fixed_dictionaries({"name": texts, "arguments": texts}),
        }
    ),
    max_size=2,
)
_messages = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(
                ["user", "assistant", "system", "developer", "tool", "function"]
            ),
            "content": _contents | st.none(),
        },
        optional={
            "name": texts,
            "tool_calls": _calls,
            "tool_call_id": texts,
            "refusal": texts,
            "function_call": st.fixed_dictionaries({"name": texts, "arguments": texts}),
            "reasoning": texts,
        },
    ),
    max_size=4,
)
_tokens = st.lists(st.integers(-2, 60_000) | numbers, max_size=20)
schemas: st.SearchStrategy[Any] = st.recursive(
    st.booleans()
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["object", "array", "string", "integer", "null", "x"])},
        optional={
            "minimum": numbers,
            "maxLength": numbers,
            "pattern": texts,
            "enum": st.lists(scalars, max_size=3),
            "format": st.sampled_from(["date", "uuid", "x"]),
            "$ref": st.sampled_from(["#", "#/$defs/a", "http://127.0.0.1:1/"]),
        },
    ),
    lambda inner: (
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(texts, inner, max_size=2)},
            optional={"required": st.lists(texts, max_size=2), "additionalProperties": inner},
        )
        | st.fixed_dictionaries({"anyOf": st.lists(inner, max_size=3)})
        | st.fixed_dictionaries({"type": st.just("array"), "items": inner})
    ),
    max_leaves=4,
)
_names = st.sampled_from(["f", "g", "a.b", "a b", ""])
_functions = st.fixed_dictionaries(
    {"name": _names},
    optional={"parameters": schemas, "input_schema": schemas, "strict": st.booleans()},
)
_patterns = st.text("ab01()[]{}*+?|.^$\\-,", max_size=12)
_grammars = st.fixed_dictionaries(
    {"syntax": st.sampled_from(["lark", "regex"]), "definition": _patterns}
)
_free_form = st.fixed_dictionaries(
    {"name": _names},
    optional={
        "format": st.builds(lambda grammar: {"type": "grammar", "grammar": grammar}, _grammars)
        | st.builds(lambda grammar: {"type": "grammar", **grammar}, _grammars)
    },
)
# Functions and free-form tools as chat completions, responses and messages write them.
_tools = st.lists(
    st.builds(lambda tool: {"type": "function", "function": tool}, _functions)
    | st.builds(lambda tool: {"type": "custom", "custom": tool}, _free_form)
    | st.builds(lambda tool: {"type": "function", **tool}, _functions)
    | st.builds(lambda tool: {"type": "custom", **tool}, _free_form)
    | _functions
    | st.just({"type": "web_search"}),
    max_size=3,
)
_choices = st.sampled_from(
    [
        "none",
        "auto",
        "required",
        "any",
        {"type": "any"},
        {"type": "function", "function": {"name": "f"}},
        {"type": "function", "name": "h"},
        {"type": "custom", "custom": {"name": "f"}},
        {"type": "tool", "name": "f"},
    ]
)
_formats = st.builds(
    lambda schema: {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, schemas
) | st.builds(lambda kind: {"type": kind}, st.sampled_from(["text", "json_object", "x"]))

# Values for the fields that need more than a value of some type.
FITTING: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from([INSTRUCT, BASE, JUDGE, ENCODER, "x", "../x", ""]),
    "messages": _messages,
    "prompt": texts | _tokens | st.lists(texts, max_size=3) | st.lists(_tokens, max_size=3),
    "input": texts | _tokens | st.lists(texts, max_size=3) | st.lists(_tokens, max_size=3),
    "max_tokens": st.integers(-1, 3),
    "max_completion_tokens": st.integers(-1, 3),
    "n": st.integers(-1, 3),
    "best_of": st.integers(-1, 3),
    "tools": _tools,
    "tool_choice": _choices,
    "functions": st.lists(_functions, max_size=3),
    "function_call": st.sampled_from(["none", "auto", {"name": "f"}]),
    "reasoning_effort": st.sampled_from(["none", "low", "max", "x"]),
    "reasoning_budget": st.integers(-2, 3),
    "reasoning": st.fixed_dictionaries(
        {}, optional={"effort": texts, "enabled": st.booleans(), "max_tokens": numbers}
    ),
    "thinking": st.fixed_dictionaries(
        {"type": st.sampled_from(["enabled", "disabled", "x"])}, optional={"budget_tokens": numbers}
    ),
    "chat_template_kwargs": st.dictionaries(
        st.sampled_from(["enable_thinking", "x"]), scalars, max_size=2
    ),
    "output_format": _formats,
    "max_output_tokens": st.integers(-1, 3),
    "stop_sequences": texts | st.lists(texts, max_size=5),
    "response_format": _formats,
    "regex": _patterns,
    "lark": st.builds(lambda body: f"start: {body}", _patterns),
    "grammar": st.builds(lambda body: f"root ::= {body}", _patterns),
    "choice": st.lists(texts, max_size=3),
    "logit_bias": st.dictionaries(st.integers(-1, 60_000).map(str), numbers, max_size=3),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    "stop": texts | st.lists(texts, max_size=5),
    "logprobs": st.booleans() | st.integers(-1, 6),
    "content": texts | st.lists(texts | st.integers(-2, 60_000), max_size=5),
    "tokens": _tokens,
    "query": texts,
    "documents": st.lists(texts | st.dictionaries(texts, texts, max_size=2), max_size=3),
    "texts": st.lists(texts, max_size=3),
    "text_1": texts | st.lists(texts, max_size=3),
    "text_2": texts | st.lists(texts, max_size=3),
}


@dataclass(frozen=True)
class Body:
    """A path and the body to post to it."""

    path: str
    content: bytes


@st.composite
def bodies(draw: st.DrawFn, fields: dict[str, list[str]]) -> Body:
    """A valid request with up to three fields changed, and sometimes cut or garbled.

    ``fields`` are the names of each path's parameters.
    """
    path = draw(st.sampled_from(sorted(POST_PATHS)))
    body = dict(POST_PATHS[path])
    for name in draw(st.lists(st.sampled_from(fields[path]), max_size=3, unique=True)):
        fitting = FITTING.get(name, numbers | st.booleans() | texts)
        body[name] = draw(fitting if draw(st.integers(0, 5)) else values)
    content = json.dumps(body).encode("utf-8", "replace")
    match draw(st.integers(0, 30)):
        case 0:
            content = content[: draw(st.integers(0, len(content)))]
        case 1:
            place = draw(st.integers(0, len(content)))
            content = content[:place] + draw(st.binary(max_size=4)) + content[place:]
        case 2:
            content = draw(st.binary(max_size=40))
    return Body(path, content)
