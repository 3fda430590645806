"""The tables of docs/compatibility.md, from schemas, pinned versions and the tests' own tables."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from anthropic.types.beta import message_create_params as beta_message_params
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params
from pydantic import BaseModel

from server.api.anthropic.schemas.messages_request import MessagesRequest
from server.api.native.token_schemas import DetokenizeBody, TokenizeBody
from server.api.openai.responses.schemas.request import ResponsesRequest
from server.api.openai.schemas.base import GenerationFields
from server.api.openai.schemas.chat_request import ChatCompletionRequest
from server.api.openai.schemas.completions import CompletionRequest
from server.api.openai.schemas.embeddings import EmbeddingRequest
from server.api.openai.schemas.infill import InfillRequest
from server.api.ranking.schemas import RerankRequest, ScoreRequest
from tests.conformance.bad_constraints import CONSTRAINTS, PROMPTS
from tests.conformance.bad_inputs import FIELDS, SCENARIOS, TRANSPORT, BadInput
from tests.conformance.recorded import LIBRARIES, RECORDED, Sent

ROOT = Path(__file__).parent.parent
_ACCEPTED_AND_IGNORED = "Accepted and ignored."
HONOURED, REFUSED, IGNORED, ABSENT = "honoured", "refused", "ignored", ""

_REMARKS = {
    "best_of": "not with `stream`",
    "max_tokens": "more than the context holds means up to its end",
    "messages": "text, images, refusals and files that are text; audio is refused",
    "modalities": "`text` alone",
    "reasoning_effort": "the nearest level that the template knows, or its switch; else ignored",
    "stream_options": "`include_obfuscation` is ignored",
    "suffix": "where the vocabulary can fill in the middle, else refused",
    "tool_choice": "a named function is called exactly once",
    "tools": "functions and custom tools; those that OpenAI runs are left out, and named",
}
_ANTHROPIC_REMARKS = {
    "compaction": "a summary in place of an answer",
    "context_management": "old results and thoughts are cleared, long conversations summed up",
    "max_tokens": "more than the context holds ends where it does",
    "mcp_servers": "no server of tools is asked here",
    "messages": "text and images; documents that are made of these, and files that are text",
    "output_config": "`effort`: the nearest level that the template knows",
    "system": "text and images",
    "thinking": "where the template knows it",
    "tools": "those that the client runs",
}
_OURS = "constraints.txt"
_APART = "tests/conformance/clients/requirements.txt"
_NODE = "tests/conformance/node/package.json"
_PROGRAMS = "tests/conformance/agents/package.json"
_HELLO = "an answer, with what `dragoman connect` prints"
_STRICT = "every answer in strict mode, whole and streamed; `parse`, `stream`; a tool loop"
_LANGCHAIN = "`with_structured_output` both ways, a tool loop, streaming"
_SCORES = "`local-completions` gives the accuracy of llama.cpp by itself"
_AGENTS = "a tool loop and an answer under a schema, whole and streamed, over chat and responses"
_ROUTES = "its routes to messages and responses, and Anthropic's API in front of responses"
_RERANKING = "its routes to rerankers of Cohere, Jina and vLLM"
_SESSION = "a file is edited"
_RESPONSES = "the Responses API: whole, streamed, `parse`, a tool loop, counts of tokens"
_MESSAGES = "messages whole and streamed, `parse`, a tool loop, counts of tokens, stops, the cache"
# Name, package, where its version is pinned, what is tried, by which test.
_CLIENTS = [
    ("openai (Python)", "openai", _OURS, _STRICT, "test_openai.py"),
    ("openai (Python)", "openai", _OURS, _RESPONSES, "test_responses.py"),
    ("anthropic (Python)", "anthropic", _OURS, _MESSAGES, "test_anthropic.py"),
    ("openai (Python), an older one", "openai", _APART, "through instructor", "test_instructor.py"),
    ("openai (Node)", "openai", _NODE, "the same from one script", "test_node.py"),
    ("Vercel AI SDK", "ai", _NODE, "text, objects, a tool loop, streaming", "test_node.py"),
    ("… its openai", "@ai-sdk/openai", _NODE, "the same over the Responses API", "test_node.py"),
    ("… its anthropic", "@ai-sdk/anthropic", _NODE, "the same over messages", "test_node.py"),
    ("instructor", "instructor", _APART, "extraction by schema and by tool", "test_instructor.py"),
    (
        "pydantic-ai",
        "pydantic-ai-slim",
        _OURS,
        "native and tool output, a tool loop; over chat, responses and messages",
        "test_frameworks.py",
    ),
    ("langchain-openai", "langchain-openai", _OURS, _LANGCHAIN, "test_frameworks.py"),
    ("langchain-anthropic", "langchain-anthropic", _OURS, _LANGCHAIN, "test_frameworks.py"),
    ("openai-agents", "openai-agents", _APART, _AGENTS, "test_openai_agents.py"),
    ("litellm", "litellm", _APART, _ROUTES, "test_litellm.py"),
    ("… its reranking", "litellm", _APART, _RERANKING, "test_rerank_clients.py"),
    ("cohere", "cohere", _APART, "reranking in both versions of the API", "test_rerank_clients.py"),
    ("lm-eval", "lm_eval", _APART, _SCORES, "test_evaluation.py"),
    (
        "Codex",
        "@openai/codex",
        _PROGRAMS,
        f"{_SESSION} by patch; compaction, a dead worker, a full queue, silence; `--oss`",
        "test_codex.py",
    ),
    (
        "Claude Code",
        "@anthropic-ai/claude-code",
        _PROGRAMS,
        f"{_SESSION}; compaction, a dead worker, a full queue",
        "test_claude_code.py",
    ),
    (
        "OpenCode",
        "opencode-ai",
        _PROGRAMS,
        f"{_SESSION}; over chat, responses and messages",
        "test_opencode.py",
    ),
    (
        "Qwen Code",
        "@qwen-code/qwen-code",
        _PROGRAMS,
        f"{_SESSION}; a dead worker, a full queue",
        "test_qwen_code.py",
    ),
    (
        "goose",
        "@aaif/goose-binary-linux-x64",
        _PROGRAMS,
        f"{_SESSION}; compaction, a dead worker, a full queue",
        "test_goose.py",
    ),
    ("Cline", "cline", _PROGRAMS, _HELLO, "test_connect.py"),
    ("Continue", "@continuedev/cli", _PROGRAMS, _HELLO, "test_connect.py"),
    (
        "Open WebUI",
        "open-webui",
        "tests/conformance/clients/open-webui.txt",
        "models, answers whole and streamed, titles, a tool; with `make open-webui` only",
        "test_open_webui.py",
    ),
]


def _sdk_parameters(module: ModuleType, name: str) -> set[str]:
    return set(typing.get_type_hints(getattr(module, name)))


_Endpoints = dict[str, tuple[type[BaseModel], set[str]]]

_ENDPOINTS: _Endpoints = {
    "/v1/chat/completions": (
        ChatCompletionRequest,
        _sdk_parameters(chat_create_params, "CompletionCreateParamsStreaming"),
    ),
    "/v1/completions": (
        CompletionRequest,
        _sdk_parameters(completion_create_params, "CompletionCreateParamsStreaming"),
    ),
    "/v1/embeddings": (
        EmbeddingRequest,
        _sdk_parameters(embedding_create_params, "EmbeddingCreateParams"),
    ),
    "/v1/responses": (
        ResponsesRequest,
        _sdk_parameters(response_create_params, "ResponseCreateParamsStreaming"),
    ),
}
_ANTHROPIC: _Endpoints = {
    "/v1/messages": (
        MessagesRequest,
        # ``betas`` is the package's name for a header.
        _sdk_parameters(beta_message_params, "MessageCreateParamsStreaming") - {"betas"},
    ),
}
# Of Cohere's, Jina's and TEI's fields those that the schema does not have.
_RANKING: _Endpoints = {
    "/v1/rerank": (RerankRequest, {"max_chunks_per_doc", "max_query_length", "priority"}),
    "/v1/score": (ScoreRequest, {"priority"}),
}
_RANKING_REMARKS = {
    "max_tokens_per_doc": "the most tokens read of a document; also `max_doc_length`",
    "text_1": "also `queries`, `data_1`",
    "text_2": "also `documents`, `items`, `data_2`",
    "top_n": "how many of the best to list; also `top_k`",
    "truncation_direction": "`right`; another one is ignored, and named",
}
_TOKENS: _Endpoints = {
    "/tokenize": (TokenizeBody, set()),
    "/detokenize": (DetokenizeBody, set()),
}
_INFILL: _Endpoints = {"/infill": (InfillRequest, set())}
_TOKENS_REMARKS = {
    "add_special": "whether BOS and its kin are added; also `add_special_tokens`, beside `prompt`",
    "content": "a text, or texts and tokens in order; also `prompt`",
    "tokens": "the answer has `bytes`, too, where they are no whole characters",
}
_OPENAI = set[str]().union(*(names for _, names in _ENDPOINTS.values()))


def _status(model: type[BaseModel], known: set[str], name: str) -> str:
    """What becomes of parameter ``name`` of a request of this kind; the SDK knows ``known``."""
    if name not in model.model_fields:
        lenient = model.model_config.get("extra") == "allow"
        return IGNORED if lenient and name in known else ABSENT
    if (model.model_fields[name].description or "").endswith("; refused."):
        return REFUSED
    if issubclass(model, GenerationFields) and name in model.UNSUPPORTED:
        return REFUSED
    ignored = issubclass(model, GenerationFields) and name in model.IGNORED
    if ignored or model.model_fields[name].description == _ACCEPTED_AND_IGNORED:
        return IGNORED
    return HONOURED


def _parameters(names: set[str], endpoints: _Endpoints, remarks: dict[str, str]) -> str:
    rows = [
        f"| Parameter | {' | '.join(f'`{path}`' for path in endpoints)} | Remark |",
        "| --- |" + " --- |" * (len(endpoints) + 1),
    ]
    for name in sorted(names):
        cells = [_status(model, known, name) for model, known in endpoints.values()]
        rows.append(f"| `{name}` | {' | '.join(cells)} | {remarks.get(name) or _described(name)} |")
    return "\n".join(rows)


def _described(name: str) -> str:
    """What the schema itself says, in Markdown."""
    endpoints = (_ENDPOINTS | _RANKING | _TOKENS | _INFILL).values()
    fields = (model.model_fields.get(name) for model, _ in endpoints)
    text = next((field.description for field in fields if field and field.description), "")
    text = text.removeprefix(_ACCEPTED_AND_IGNORED)
    return text.replace("``", "`").replace("|", "\\|")


def openai_parameters() -> str:
    """Every parameter of OpenAI's, by endpoint."""
    return _parameters(_OPENAI, _ENDPOINTS, _REMARKS)


def anthropic_parameters() -> str:
    """Every parameter of Anthropic's messages, those of its betas included."""
    (_, names), *_ = _ANTHROPIC.values()
    return _parameters(names, _ANTHROPIC, _ANTHROPIC_REMARKS)


def ranking_parameters() -> str:
    """Every parameter of reranking and scoring."""
    names = set[str]().union(
        *(known | model.model_fields.keys() for model, known in _RANKING.values())
    )
    return _parameters(names, _RANKING, _RANKING_REMARKS)


def token_parameters() -> str:
    """Every parameter of the paths that turn text into tokens and back."""
    names = set[str]().union(*(model.model_fields for model, _ in _TOKENS.values()))
    return _parameters(names, _TOKENS, _TOKENS_REMARKS)


def infill_parameters() -> str:
    """The parameters of a gap, beside those of a completion."""
    names = InfillRequest.model_fields.keys() - GenerationFields.model_fields.keys()
    return _parameters(set(names), _INFILL, {})


def own_parameters() -> str:
    """Every parameter that OpenAI does not have."""
    known = set[str]().union(*(model.model_fields for model, _ in _ENDPOINTS.values()))
    return _parameters(known - _OPENAI, _ENDPOINTS, _REMARKS)


def clients() -> str:
    """The clients that run against the server in the tests, with their versions."""
    rows = ["| Client | Version | What is tried | Where |", "| --- | --- | --- | --- |"]
    for name, package, file, tried, test in _CLIENTS:
        version = _version(package, file)
        rows.append(f"| {name} | {version} | {tried} | `tests/conformance/{test}` |")
    return "\n".join(rows)


def agents() -> str:
    """What agents send first, as the tests record it."""
    return _sent("Agent", RECORDED)


def libraries() -> str:
    """What libraries make of a sentence and a function, as the tests record it."""
    return _sent("Library", LIBRARIES)


def _sent(who: str, recorded: Mapping[str, Sent]) -> str:
    rows = [f"| {who} | Path | Bytes | Keys | Tools |", "| --- | --- | ---: | --- | --- |"]
    for agent, sent in recorded.items():
        keys = ", ".join(f"`{key}`" for key in sorted(sent.keys))
        tools = ", ".join(f"`{tool}`" for tool in sent.tools)
        rows.append(f"| {agent} | `{sent.path}` | {sent.size:,} | {keys} | {tools} |")
    return "\n".join(rows)


def _version(package: str, file: str) -> str:
    text = (ROOT / file).read_text(encoding="utf-8")
    if file.endswith(".json"):
        described = json.loads(text)
        needed = described["dependencies"] | described.get("optionalDependencies", {})
        return str(needed[package])
    found = re.search(rf"^{package}==(\S+)$", text, re.MULTILINE)
    assert found is not None, f"{package} is not pinned in {file}"
    return found[1]


def bad_inputs() -> str:
    """Every bad input that is tried, with its answer."""
    rows = ["| Row | Input | Answer |", "| --- | --- | --- |"]
    cases = TRANSPORT | FIELDS | CONSTRAINTS | PROMPTS
    for row in sorted(cases.keys() | SCENARIOS.keys()):
        rows += [f"| {row} | {_cell(case.name)} | {_answer(case)} |" for case in cases.get(row, [])]
        rows += [f"| {row} | {name} | {answer} |" for name, answer in SCENARIOS.get(row, [])]
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _answer(case: BadInput) -> str:
    return f"{case.status} `{case.code}`" if case.code else str(case.status)
