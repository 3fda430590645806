"""The message of `dragoman serve` when it is ready."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence

from server import __version__
from server.cli.formatting import drafter
from server.core.model_info import ModelEntry, ModelInfo
from server.core.settings import Settings, socket_path


def banner(url: str, settings: Settings, models: Sequence[ModelEntry]) -> str:
    """Plain text: the address, the models, keys and guard, and a first request to try."""
    loaded = [model.info for model in models if model.state == "ready" and model.info]
    on_demand = [model.id for model in models if model.state in {"unloaded", "loading"}]
    failed = [model for model in models if model.state == "failed"]
    lines = [f"dragoman {__version__} at {url}", ""]
    for info in loaded:
        lines += [*_model(info), ""]
    if on_demand:
        lines += ["Loaded on first use:", *(f"  {name}" for name in on_demand), ""]
    if failed:
        lines += ["Not served:", *(f"  {model.id}: {model.reason}" for model in failed), ""]
    if socket_path(url) is None:
        lines += [f"page   {url}/ in a browser, to talk to the models and see their prompts"]
    lines += [
        f"keys   {_authentication(settings)}",
        f"guard  {_guard(settings, loaded)}",
        f"disk   {_disk(settings)}",
        "",
    ]
    if loaded or on_demand:
        model_id = loaded[0].model_id if loaded else on_demand[0]
        path, body = _first_request(loaded[0] if loaded else None)
        lines += ["Try it:", *_curl(url, f"/v1/{path}", settings, {"model": model_id, **body})]
    else:
        lines += [f"No models: put GGUF files into {settings.models_dir}, or see: dragoman pull"]
    return "\n".join(lines)


def _model(info: ModelInfo) -> Iterator[str]:
    yield info.model_id
    if info.generates:
        yield f"  kind      {info.kind} ({'; '.join(info.kind_reasons)})"
    else:
        yield f"  made for  {'ranking' if info.ranks else 'embeddings'}"
    yield f"  weights   {info.quantization}, {info.parameters / 1e6:,.0f} million parameters"
    yield f"  context   {info.context} tokens ({info.context_source})"
    if info.generates:
        yield f"  template  {info.template_source}"
    if info.projector:
        yield f"  images    read ({info.projector})"
    if info.draft:
        yield f"  drafts    by {drafter(info.draft)}"
    if info.generates and info.declined is None:
        yield "  answers   repeat: a greedy or seeded request gets the same one each time"
    elif info.generates:
        yield f"  answers   may differ in rounding: {info.declined}"
    yield f"  threads   {info.threads}"
    if info.safe_mode:
        yield (
            "  safe mode: this build of llama.cpp crashes on this processor with repacked weights, "
            "so they are not repacked"
        )
    for warning in info.warnings:
        yield f"  warning   {warning}"


def _authentication(settings: Settings) -> str:
    if settings.keys_file is not None:
        return f"every request needs one of the API keys in {settings.keys_file}"
    if settings.api_keys:
        count = len(settings.api_keys)
        return f"every request needs {'the API key' if count == 1 else f'one of {count} API keys'}"
    if settings.loopback:
        return "none; only this machine can reach the server"
    return "NONE: everyone who can reach the server can use it"


def _guard(settings: Settings, loaded: Sequence[ModelInfo]) -> str:
    unguarded = [info.model_id for info in loaded if not info.guard]
    if settings.guard and not unguarded:
        return "on: user text never becomes control tokens"
    where = f" for {', '.join(unguarded)}" if unguarded and settings.guard else ""
    return f"OFF{where}: user text may become control tokens and take over the conversation"


def _disk(settings: Settings) -> str:
    if settings.prefix_disk_bytes(100) == 0:
        return "no prompts: cached prefixes end with the process"
    return f"up to {settings.prefix_disk} of cached prompts in {settings.prefixes_dir}"


def _first_request(model: ModelInfo | None) -> tuple[str, dict[str, object]]:
    """Path and body of a request that suits the model; a model not yet loaded is asked to chat."""
    if model is not None and model.ranks:
        documents = ["The cat sat on the mat.", "Canberra is a city."]
        return "rerank", {"query": "Where did the cat sit?", "documents": documents}
    if model is not None and not model.generates:
        return "embeddings", {"input": "The cat sat on the mat."}
    if model is not None and model.kind == "base":
        return "completions", {"prompt": "The cat sat on the", "max_tokens": 32}
    question = {"role": "user", "content": "What is the capital of Australia?"}
    return "chat/completions", {"messages": [question], "temperature": 0}


def _curl(url: str, path: str, settings: Settings, body: dict[str, object]) -> Iterator[str]:
    at_socket = socket_path(url)
    if at_socket:
        local = f"http{'s' if settings.secure else ''}://localhost{path}"
        yield f"  curl --unix-socket {shlex.quote(at_socket)} {local} \\"
    else:
        yield f"  curl {url}{path} \\"
    if settings.tls_certificate:
        # One that this machine made itself is trusted by nothing else here.
        yield f"    --cacert {shlex.quote(str(settings.tls_certificate))} \\"
    if settings.api_keys or settings.keys_file:
        yield '    -H "authorization: Bearer $DRAGOMAN_API_KEY" \\'
    yield '    -H "content-type: application/json" \\'
    yield f"    -d {shlex.quote(json.dumps(body))}"
