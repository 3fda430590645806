"""Images beside llama-server: `python -m tests.benchmark.images [equal] [times]`.

- *equal*: greedy answers of random-weight models that see, one for each way in which images enter a
  prompt, token by token: for one image, several, images between texts, and a second turn.
- *times*: with an encoder of random weights beside the instruct model: the first answer, a second
  turn with the same image, eight requests that share one, and a stream beside an encoding.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
from PIL import Image

from server.api.image_parts import data_uri
from server.benchmark.target import Target
from server.benchmark.timed_client import Answer, Endpoint
from server.core.request import ImagePart
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


def message(*parts: str | ImagePart, role: str = "user") -> dict[str, Any]:
    """A message of texts and of images."""
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_uri(part.data)}}
        for part in parts
    ]
    return {"role": role, "content": content}


@cache
def photo(seed: int) -> ImagePart:
    """A JPEG file as a phone makes it: 4,000 x 3,000 pixels in soft colours, with some noise."""
    chance = np.random.default_rng(seed)
    soft = Image.fromarray(chance.integers(0, 256, (48, 64, 3)).astype(np.uint8))
    pixels = np.asarray(soft.resize((4000, 3000), Image.Resampling.BICUBIC)).astype(np.int16)
    pixels += chance.integers(-8, 9, pixels.shape, dtype=np.int16)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return ImagePart(buffer.getvalue())


ONE, TWO, THREE = (image(seed, 40 + seed, 30) for seed in (1, 2, 3))
CONVERSATIONS = {
    "one image": [message("look", ONE, "what is it?")],
    "several images": [message("compare", ONE, TWO, "which is larger?")],
    "images between texts": [message("first", ONE, "then", THREE, "last", ONE, "so?")],
    "a second turn": [
        message("look", ONE, "what is it?"),
        {"role": "assistant", "content": "a cat"},
        message("and", TWO, "this?"),
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


def timed(url: str, messages: list[dict[str, Any]], tokens: int = 8) -> Answer:
    """Stream a greedy answer of so many tokens."""
    target = Target(endpoint=Endpoint(url), model=INSTRUCT)
    answer = asyncio.run(target.ask(messages, tokens, ignore_eos=True))
    assert answer.error is None, answer.error
    return answer


def until_first(url: str, messages: list[dict[str, Any]]) -> float:
    """Seconds to the first token of an answer."""
    first = timed(url, messages).first
    assert first is not None
    return first


def measure(url: str, seed: int) -> Iterator[tuple[str, float]]:
    """What is measured of one server in one round, in seconds; no other round has its images."""
    first = [message("look", photo(seed), "what is it?")]
    second = [*first, {"role": "assistant", "content": "a cat"}, message("and its colour?")]
    yield "first answer", until_first(url, first)
    yield "second turn", until_first(url, second)
    image = photo(seed + 1)
    shared = [[message("look", image, f"question {number}")] for number in range(_SHARING)]
    began = time.perf_counter()
    with ThreadPoolExecutor(_SHARING) as pool:
        list(pool.map(partial(timed, url), shared))
    yield "eight that share an image", time.perf_counter() - began
    other = photo(seed + 2)
    with ThreadPoolExecutor(2) as pool:
        stream = pool.submit(timed, url, [message("tell me a story")], 200)
        time.sleep(0.5)
        pool.submit(timed, url, [message("look", other, "what is it?")]).result()
        yield "longest gap of a stream beside an image", max(stream.result().gaps)


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
