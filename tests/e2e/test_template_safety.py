"""Hostile chat templates fail their own requests with a clear error, and affect nothing else.

Each misbehaves only at certain words of a user, so that its model loads.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.server import Server, running_server
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.process

HOSTILE, HARMLESS = "hostile", "harmless"
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_AT_WORD = "{{% if messages[-1].content == '{word}' %}}{action}{{% endif %}}"
_LOOP = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
    "{% endfor %}{% endfor %}{% endfor %}"
)
_ALLOCATE = (
    "{% set kept = [] %}{% for a in range(99999) %}"
    "{% set _ = kept.append(('%d' % a) * 39999) %}{% endfor %}"
)
_GROW = "{% for a in range(99999) %}{{ 'text' * 9999 }}{% endfor %}"
_REFUSE = "{{ raise_exception('Only poems are answered here.') }}"
_ACTIONS = {"loop": _LOOP, "allocate": _ALLOCATE, "grow": _GROW, "refuse": _REFUSE}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a hostile and a harmless model, both loaded."""
    folder = tmp_path_factory.mktemp("models")
    actions = (_AT_WORD.format(word=word, action=action) for word, action in _ACTIONS.items())
    hostile = "".join(actions) + _CHATML
    for name, template in ((HOSTILE, hostile), (HARMLESS, _CHATML)):
        write_tiny_model(folder / f"{name}.gguf", "full attention", chat_template=template)
    with running_server("--threads", "1", DRAGOMAN_MODELS_DIR=str(folder)) as started:
        for name in (HOSTILE, HARMLESS):
            assert chat(started, name, "Hello").status_code == 200
        yield started


def chat(server: Server, model: str, text: str) -> httpx.Response:
    messages = [{"role": "user", "content": text}]
    body = {"model": model, "messages": messages, "max_tokens": 1}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)


def assert_refused(answer: httpx.Response, says: str) -> None:
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert says in error["message"]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("loop", "chat template did not finish within 2 seconds"),
        ("allocate", "chat template takes more than 256 MiB of memory"),
        ("grow", "chat template makes a text of more than"),
        ("refuse", "refuses this conversation: Only poems are answered here."),
    ],
)
def test_a_misbehaving_template_is_a_clear_error(server: Server, word: str, says: str) -> None:
    worker = server.worker_pids()[HARMLESS]
    assert_refused(chat(server, HOSTILE, word), says)
    assert server.worker_pids()[HARMLESS] == worker
    assert chat(server, HOSTILE, "Hello").status_code == 200


def test_another_model_answers_while_a_template_loops(server: Server) -> None:
    worker = server.worker_pids()[HARMLESS]
    with ThreadPoolExecutor(1) as aside:
        answered = 0
        looping = aside.submit(chat, server, HOSTILE, "loop")
        while not looping.done():
            assert chat(server, HARMLESS, "Hello").status_code == 200
            answered += not looping.done()
        assert_refused(looping.result(), "did not finish")
    assert answered
    assert server.worker_pids()[HARMLESS] == worker
