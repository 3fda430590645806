"""Images as real clients send them, to a small random model that sees."""

from __future__ import annotations

import base64
import io
import os
import signal
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from PIL import Image

from tests.conformance.node_packages import run_node
from tests.e2e.server import Server, running_server
from tests.tiny_vision import write_vision_model
from tests.unit.engine.vision_rig import image

pytest.importorskip("pydantic_ai", reason="not installed: pip install '.[clients]'")
pytest.importorskip("langchain_openai", reason="not installed: pip install '.[clients]'")

from anthropic import Anthropic, AsyncAnthropic
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI
from pydantic import SecretStr
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

pytestmark = pytest.mark.process

MODEL = "seeing"
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'image' %}<image>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
PNG = image(1).data
BASE64 = base64.b64encode(PNG).decode()
URI = f"data:image/png;base64,{BASE64}"
QUESTION = "what is this?"
# With positions in two dimensions, an image of 40 x 30 pixels takes 12 cells between two markers.
IMAGE_TOKENS = 14


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models")
    write_vision_model(folder, "plane", name=MODEL, chat_template=TEMPLATE)
    with running_server("--models-dir", str(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def text_tokens(seeing: Server) -> int:
    """Tokens of the question without the image."""
    with Anthropic(base_url=seeing.url, api_key="unused") as anthropic:
        counted = anthropic.messages.count_tokens(
            model=MODEL, messages=[{"role": "user", "content": QUESTION}]
        )
        return counted.input_tokens


@pytest.fixture
def openai(seeing: Server) -> Iterator[OpenAI]:
    with seeing.client() as client:
        yield client


@pytest.fixture
def anthropic(seeing: Server) -> Iterator[Anthropic]:
    with Anthropic(base_url=seeing.url, api_key="unused", max_retries=0) as client:
        yield client


def test_all_families_see_the_same_prompt(
    openai: OpenAI, anthropic: Anthropic, text_tokens: int
) -> None:
    parts: list[Any] = [
        {"type": "text", "text": QUESTION},
        {"type": "image_url", "image_url": {"url": URI}},
    ]
    chat = openai.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": parts}], max_tokens=6, temperature=0
    )
    items: list[Any] = [
        {"type": "input_text", "text": QUESTION},
        {"type": "input_image", "image_url": URI, "detail": "auto"},
    ]
    asked: list[Any] = [{"role": "user", "content": items}]
    response = openai.responses.create(
        model=MODEL, input=asked, max_output_tokens=16, temperature=0
    )
    blocks: list[Any] = [
        {"type": "text", "text": QUESTION},
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": BASE64},
        },
    ]
    turns: list[Any] = [{"role": "user", "content": blocks}]
    message = anthropic.messages.create(model=MODEL, max_tokens=6, messages=turns)
    counted = anthropic.messages.count_tokens(model=MODEL, messages=turns)
    expected = text_tokens + IMAGE_TOKENS
    assert chat.usage
    assert response.usage
    assert chat.usage.prompt_tokens == response.usage.input_tokens == expected
    assert chat.usage.prompt_tokens_details
    assert chat.usage.prompt_tokens_details.image_tokens == IMAGE_TOKENS - 2  # without markers
    assert counted.input_tokens == expected
    assert message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0) == expected
    assert response.output_text.startswith(chat.choices[0].message.content or "none")
    # What the image was turned into is not computed again.
    assert response.usage.input_tokens_details.cached_tokens == expected - 1


def test_stored_images_come_back_and_are_found_in_the_cache(
    openai: OpenAI, text_tokens: int
) -> None:
    content: list[Any] = [
        {"type": "input_image", "image_url": URI, "detail": "auto"},
        {"type": "input_text", "text": QUESTION},
    ]
    asked: list[Any] = [{"role": "user", "content": content}]
    response = openai.responses.create(model=MODEL, input=asked, max_output_tokens=16)
    more = openai.responses.create(
        model=MODEL, input="and now?", previous_response_id=response.id, max_output_tokens=16
    )
    assert more.usage
    assert more.usage.input_tokens_details.cached_tokens >= text_tokens + IMAGE_TOKENS - 1
    [item] = openai.responses.input_items.list(response.id).data
    assert item.type == "message"
    assert [part.model_dump(exclude_none=True) for part in item.content] == content


@pytest.mark.parametrize("family", ["chat", "responses", "messages"])
async def test_pydantic_ai_sends_images(seeing: Server, text_tokens: int, family: str) -> None:
    model: Model
    client: AsyncAnthropic | AsyncOpenAI
    if family == "messages":
        claude = AnthropicProvider(base_url=seeing.url, api_key="unused")
        model, client = (
            AnthropicModel(MODEL, provider=claude),
            cast("AsyncAnthropic", claude.client),
        )
    else:
        kind = OpenAIChatModel if family == "chat" else OpenAIResponsesModel
        provider = OpenAIProvider(base_url=f"{seeing.url}/v1", api_key="unused")
        model, client = kind(MODEL, provider=provider), provider.client
    async with client:
        agent = Agent(model, model_settings=ModelSettings(max_tokens=16), retries=0)
        result = await agent.run([QUESTION, BinaryContent(PNG, media_type="image/png")])
    assert result.usage.input_tokens == text_tokens + IMAGE_TOKENS


@pytest.mark.parametrize("family", ["chat", "responses", "messages"])
def test_langchain_sends_images(seeing: Server, text_tokens: int, family: str) -> None:
    chat: ChatOpenAI | ChatAnthropic
    if family == "messages":
        chat = ChatAnthropic(
            model_name=MODEL,
            base_url=seeing.url,
            api_key=SecretStr("unused"),
            max_tokens_to_sample=16,
            timeout=100,
            stop=None,
        )
    else:
        chat = ChatOpenAI(
            model=MODEL,
            base_url=f"{seeing.url}/v1",
            api_key=SecretStr("unused"),
            max_completion_tokens=16,
            use_responses_api=family == "responses",
        )
    picture = {"type": "image", "base64": BASE64, "mime_type": "image/png"}
    answered = chat.invoke([HumanMessage([{"type": "text", "text": QUESTION}, picture])])
    assert isinstance(answered, AIMessage)
    assert answered.usage_metadata
    assert answered.usage_metadata["input_tokens"] == text_tokens + IMAGE_TOKENS


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("node")
def test_sdks_for_node_send_images(seeing: Server, text_tokens: int, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    told = run_node("node", "images.mjs", seeing.url, MODEL, str(file))
    assert told.returncode == 0, told.stderr[-4000:]
    assert told.stdout.split() == [str(text_tokens + IMAGE_TOKENS)] * 5


def written(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def empty_png(width: int, height: int) -> bytes:
    """A PNG file that states a size and has no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return PNG[:8] + body + PNG[PNG.index(b"IEND") - 4 :]


TURNED = Image.Exif()
TURNED[0x0112] = 6
NOISE = Image.effect_noise((200, 150), 90).convert("RGB")
SEEN = {
    "CMYK": written(NOISE.convert("CMYK"), "JPEG"),
    "of 16 bits": written(NOISE.convert("I;16"), "PNG"),
    "animated": written(NOISE, "GIF", save_all=True, append_images=[NOISE.rotate(90)]),
    "turned": written(NOISE, "JPEG", exif=TURNED),
    "a picture and an archive": written(NOISE, "PNG") + b"PK\x03\x04",
    "a strip": written(NOISE.resize((10_000, 10)), "PNG"),
    "one pixel": written(NOISE.resize((1, 1)), "PNG"),
}
REFUSED = {
    **{
        f"half a {kind}": (whole := written(NOISE, kind))[: len(whole) // 2]
        for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP")
    },
    "without pixels": empty_png(0, 4),
    "larger than is read": empty_png(60_000, 60_000),
    "without its pixels": empty_png(4, 4),
    "no image": b"\x89PNG and so on",
}


def asked(server: Server, data: bytes) -> httpx.Response:
    image = {"type": "image_url", "image_url": {"url": base64.b64encode(data).decode()}}
    messages = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, image]}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 1}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)


def test_odd_files_are_seen_or_refused_and_the_worker_goes_on(seeing: Server) -> None:
    assert asked(seeing, PNG).status_code == 200
    workers = seeing.worker_pids()
    for name, data in SEEN.items():
        assert asked(seeing, data).status_code == 200, name
    for name, data in REFUSED.items():
        response = asked(seeing, data)
        assert response.status_code == 400, name
        error = response.json()["error"]
        assert (error["code"], error["param"]) == ("invalid_image", "messages[0].content[1]"), name
    assert asked(seeing, PNG).status_code == 200
    assert seeing.worker_pids() == workers


def test_a_new_worker_gets_the_files_that_the_last_one_held(seeing: Server) -> None:
    counted = asked(seeing, PNG).json()["usage"]["prompt_tokens"]
    (worker,) = seeing.worker_pids().values()
    os.kill(worker, signal.SIGKILL)
    for _ in range(2):
        assert asked(seeing, PNG).json()["usage"]["prompt_tokens"] == counted
