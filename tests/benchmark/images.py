"""Images beside llama-server: `python -m tests.benchmark.images [equal] [times]`.

- *equal*: greedy answers of random-weight models that see, one for each way in which images enter a
  prompt, token by token: for one image, several, images between texts, and a second turn.
- *times*: with an encoder of random weights beside the instruct model: the first answer, a second
  turn with the same image, eight requests that share one, and a stream beside an encoding.
"""

from __future__ import annotations

import argparse
import base64
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx

from server.core.settings import load
from tests.benchmark import peer
from tests.e2e.server import INSTRUCT, MODELS, running_server
from tests.tiny_vision import KINDS, Shape, write_projector, write_vision_model
from tests.unit.engine.vision_rig import image

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: "
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% else %}<image>{% endif %}"
    "{% endfor %}{% endif %}\n{% endfor %}assistant:"
)
_TOKENS = 16


def message(*parts: str | int, role: str = "user") -> dict[str, Any]:
    """A message of texts and of images, each by its seed."""
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else _image(part) for part in parts
    ]
    return {"role": role, "content": content}


def _image(seed: int) -> dict[str, Any]:
    data = base64.b64encode(image(seed, 40 + seed, 30).data).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


CONVERSATIONS = {
    "one image": [message("look", 1, "what is it?")],
    "several images": [message("compare", 1, 2, "which is larger?")],
    "images between texts": [message("first", 1, "then", 3, "last", 1, "so?")],
    "a second turn": [
        message("look", 1, "what is it?"),
        {"role": "assistant", "content": "a cat"},
        message("and", 2, "this?"),
    ],
}


def answer(url: str, model: str, messages: list[dict[str, Any]]) -> tuple[int, bytes]:
    """The number of prompt tokens, and a greedy answer, whose every token but controls is a byte.

    llama-server has no bytes for control tokens, several for the tokens of one character, and
    leaves an unfinished one out.
    """
    body = {
        "model": model,
        "messages": messages,
        "temperature": 0,
        "max_tokens": _TOKENS,
        "logprobs": True,
    }
    response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120)
    response.raise_for_status()
    found = response.json()
    tokens = [bytes(token["bytes"]) for token in found["choices"][0]["logprobs"]["content"]]
    text = b"".join(token for token in tokens if not token.startswith(b"<"))
    return found["usage"]["prompt_tokens"], text


def compare(binary: Path) -> int:
    """Print, for each kind and conversation, whether both servers answer alike; how many do not."""
    differing = 0
    for kind in KINDS:
        with TemporaryDirectory() as name:
            folder = Path(name)
            model, eyes = write_vision_model(folder, kind, chat_template=TEMPLATE)
            exact = (
                "-ctk",
                "f32",
                "-ctv",
                "f32",
                "-fa",
                "off",
                "-c",
                "1024",
                "-np",
                "1",
                "-t",
                "2",
            )
            environment = {
                "DRAGOMAN_MODELS_DIR": name,
                "DRAGOMAN_KV_TYPE": "f32",
                "DRAGOMAN_FLASH_ATTENTION": "off",
            }
            with (
                running_server(**environment) as ours,
                peer.serving(binary, model, "--mmproj", str(eyes), "--jinja", *exact) as theirs,
            ):
                for title, conversation in CONVERSATIONS.items():
                    mine = answer(ours.url, model.stem, conversation)
                    other = answer(theirs, model.stem, conversation)
                    unfinished = len(mine[1]) - len(other[1])
                    equal = (mine[0], mine[1][: len(other[1])]) == other and unfinished <= 3
                    differing += not equal
                    verdict = "equal" if equal else f"{mine} is not {other}"
                    print(f"{kind:8} {title:22} {mine[0]:5} tokens  {verdict}", flush=True)
    return differing


# 256 tokens an image, as Gemma 3 has; an encoder of a tenth of SigLIP's base size, since this is to
# end on a laptop.
_ENCODER = Shape(side=256, patch=16, width=384, feed_forward=1536, layers=6, heads=6, results=576)
_ROUNDS = 3
_SHARING = 8


class Timed(NamedTuple):
    """Seconds from the request to each of an answer's tokens."""

    arrivals: list[float]

    @property
    def first(self) -> float:
        return self.arrivals[0]

    @property
    def longest_gap(self) -> float:
        return max(later - earlier for earlier, later in pairwise(self.arrivals))


def timed(url: str, messages: list[dict[str, Any]], tokens: int = 8) -> Timed:
    """Stream a greedy answer of so many tokens."""
    body = {
        "model": INSTRUCT,
        "messages": messages,
        "temperature": 0,
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
    }
    began = time.perf_counter()
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=600) as response:
        return Timed(
            [
                time.perf_counter() - began
                for line in response.iter_lines()
                if '"content":"' in line and '"content":""' not in line
            ]
        )


def measure(url: str, seed: int) -> Iterator[tuple[str, float]]:
    """What is measured of one server in one round, in seconds; no other round has its images."""
    first = [message("look", seed, "what is it?")]
    second = [*first, {"role": "assistant", "content": "a cat"}, message("and its colour?")]
    yield "first answer", timed(url, first).first
    yield "second turn", timed(url, second).first
    began = time.perf_counter()
    shared = [[message("look", seed + 1, f"question {number}")] for number in range(_SHARING)]
    with ThreadPoolExecutor(_SHARING) as pool:
        list(pool.map(partial(timed, url), shared))
    yield "eight that share an image", time.perf_counter() - began
    with ThreadPoolExecutor(2) as pool:
        stream = pool.submit(timed, url, [message("tell me a story")], 200)
        time.sleep(0.5)
        pool.submit(timed, url, [message("look", seed + 2, "what is it?")]).result()
        yield "longest gap of a stream beside an image", stream.result().longest_gap


def compare_times(binary: Path, rounds: int) -> None:
    """Print the median seconds of both servers, which take turns, and how they compare."""
    with TemporaryDirectory() as name:
        model = Path(name) / f"{INSTRUCT}.gguf"
        model.symlink_to((MODELS / model.name).resolve())
        eyes = write_projector(Path(name) / "mmproj.gguf", "causal", _ENCODER)
        cells = ("-c", "8192", "-np", "8", "--kv-unified")
        with (
            running_server(DRAGOMAN_MODELS_DIR=name, DRAGOMAN_KV_TOKENS="8192") as ours,
            peer.serving(binary, model, "--mmproj", str(eyes), "--jinja", *cells) as theirs,
        ):
            urls = {"dragoman": ours.url, "llama-server": theirs}
            for url in urls.values():
                timed(url, [message("hello")])
            measured: dict[str, dict[str, list[float]]] = {}
            for number in range(1, rounds + 1):
                for server, url in urls.items():
                    for what, seconds in measure(url, 10 * number):
                        print(f"round {number}, {server}: {what} {seconds:.2f} s", file=sys.stderr)
                        measured.setdefault(what, {}).setdefault(server, []).append(seconds)
    for what, by_server in measured.items():
        mine, other = (median(by_server[server]) for server in urls)
        print(f"{what:42} {mine:7.2f} s  llama-server {other:7.2f} s  ratio {mine / other:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.images", description=__doc__)
    parser.add_argument("parts", nargs="*", default=["equal", "times"])
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="of the times (default: 3)")
    parser.add_argument("--llama-server", type=Path, help="its path (default: it is built)")
    options = parser.parse_args()
    binary = options.llama_server or peer.install(load().cache_dir)
    if "equal" in options.parts and compare(binary):
        raise SystemExit(1)
    if "times" in options.parts:
        compare_times(binary, options.rounds)


if __name__ == "__main__":
    main()
