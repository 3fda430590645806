"""Images in the bodies of each family, in the spellings that clients have for them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import msgspec
import pytest

from server.core.errors import UnsupportedParameter
from server.core.events import Event, Failed
from server.core.model_info import ModelState
from server.core.request import (
    ChatPrompt,
    GenerationRequest,
    ImagePart,
    Message,
    TextPart,
    images_of,
)
from tests.api.fakes import FakePool

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
JPEG = b"\xff\xd8\xff\xe0 a photo"
BASE64 = base64.b64encode(PNG).decode()
URI = f"data:image/png;base64,{BASE64}"


class Family(NamedTuple):
    """How a family's request asks about a list of parts, and how its errors name a place."""

    path: str
    body: Callable[[list[Any]], dict[str, Any]]
    text: Callable[[str], dict[str, Any]]
    place: str

    def image(self, uri: str) -> dict[str, Any]:
        """An image in the family's own form."""
        match self.path:
            case "/v1/chat/completions":
                return {"type": "image_url", "image_url": {"url": uri}}
            case "/v1/responses":
                return {"type": "input_image", "image_url": uri}
            case _:
                kind, data = uri.removeprefix("data:").split(";base64,")
                source = {"type": "base64", "media_type": kind, "data": data}
                return {"type": "image", "source": source}

    def said(self, response: httpx.Response) -> str:
        """The message of an error, which names its place."""
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        if self.path != "/v1/messages":
            assert error["param"].startswith(self.place), error
            assert error["param"] in error["message"]
        message: str = error["message"]
        return message


def _messages(content: list[Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


CHAT = Family(
    "/v1/chat/completions",
    lambda content: {"model": "test", "messages": _messages(content)},
    lambda text: {"type": "text", "text": text},
    "messages[0].content",
)
RESPONSES = Family(
    "/v1/responses",
    lambda content: {"model": "test", "input": _messages(content)},
    lambda text: {"type": "input_text", "text": text},
    "input[0].content",
)
MESSAGES = Family(
    "/v1/messages",
    lambda content: {"model": "test", "max_tokens": 9, "messages": _messages(content)},
    lambda text: {"type": "text", "text": text},
    "messages[0].content",
)
each_family = pytest.mark.parametrize("family", [CHAT, RESPONSES, MESSAGES], ids=lambda f: f.path)


def prompt(pool: FakePool) -> list[Message]:
    last = pool.client.requests[-1].prompt
    assert isinstance(last, ChatPrompt)
    return last.messages


def images(pool: FakePool) -> list[ImagePart]:
    return [part for _, part in images_of(prompt(pool))]


@pytest.fixture(autouse=True)
def sight(pool: FakePool) -> None:
    """The model sees images."""
    pool.see()


@each_family
async def test_images_and_texts_keep_their_order(
    http: httpx.AsyncClient, pool: FakePool, family: Family
) -> None:
    jpeg = f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}"
    content = [family.text("a"), family.image(URI), family.text("b"), family.image(jpeg)]
    response = await http.post(family.path, json=family.body(content))
    assert response.status_code == 200, response.text
    assert "x-dragoman-ignored" not in response.headers
    expected = [TextPart("a"), ImagePart(PNG), TextPart("b"), ImagePart(JPEG)]
    assert prompt(pool)[-1].content == expected


SPELLINGS = {
    "an object": {"type": "image_url", "image_url": {"url": URI}},
    "a plain string": {"type": "image_url", "image_url": URI},
    "Responses": {"type": "input_image", "image_url": URI, "detail": "auto"},
    "Responses with an object": {"type": "input_image", "image_url": {"url": URI}},
    "Messages": {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": BASE64},
    },
    "Messages with a URI": {"type": "image", "source": {"type": "url", "url": URI}},
    "Messages with a URI as data": {"type": "image", "source": {"type": "base64", "data": URI}},
    "MCP": {"type": "image", "data": BASE64, "mimeType": "image/png"},
    "LangChain": {"type": "image", "base64": BASE64, "mime_type": "image/png"},
    "Hugging Face": {"type": "image", "image": URI},
    "Hugging Face with a URL": {"type": "image", "url": URI},
    "an address without a type": {"image_url": URI},
    "an image without a type": {"image": URI},
    "Base64 alone": {"type": "image_url", "image_url": {"url": BASE64}},
}


@each_family
@pytest.mark.parametrize("part", SPELLINGS.values(), ids=SPELLINGS)
async def test_every_spelling_of_an_image_is_read(
    http: httpx.AsyncClient, pool: FakePool, family: Family, part: dict[str, Any]
) -> None:
    response = await http.post(family.path, json=family.body([part]))
    assert response.status_code == 200, response.text
    assert images(pool) == [ImagePart(PNG)]
    assert "x-dragoman-ignored" not in response.headers


URL_SAFE = base64.urlsafe_b64encode(PNG).decode()
URIS = {
    "with a charset": f"data:image/png;charset=utf-8;base64,{BASE64}",
    "with a name": f"data:image/png;name=a.png;base64,{BASE64}",
    "in capitals": f"DATA:IMAGE/PNG;BASE64,{BASE64}",
    "in URL-safe Base64": f"data:image/png;base64,{URL_SAFE}",
    "without padding": f"data:image/png;base64,{BASE64.rstrip('=')}",
    "with a comma in a name": f'data:image/png;name="a,b.png";base64,{BASE64}',
    "with a quote in a name": f'data:image/png;name=5";base64,{BASE64}',
    "without its scheme": f"image/png;base64,{BASE64}",
    "with bytes as Python shows them": f"data:image/png;base64,{BASE64.encode()!r}",
    "in lines": f"data:image/png;base64,{BASE64[:76]}\r\n{BASE64[76:]}\n",
    "in pages": f"data:image/png;base64,{BASE64[:76]}\f{BASE64[76:]}\v",
    "percent-encoded Base64": f"data:image/png;base64,{quote(BASE64)}",
    "percent-encoded bytes": "data:image/png," + "".join(f"%{byte:02x}" for byte in PNG),
    "without saying that it is Base64": f"data:image/png,{BASE64}",
    "without a type": f"data:;base64,{BASE64}",
    "of no particular type": f"data:application/octet-stream;base64,{BASE64}",
    "begun twice": f"data:image/png;base64,{URI}",
    "begun very often": "data:image/png;base64," * 5_000 + BASE64,
    "between spaces": f" {URI} ",
}


@pytest.mark.parametrize("uri", URIS.values(), ids=URIS)
async def test_every_form_of_a_data_uri_is_read(
    http: httpx.AsyncClient, pool: FakePool, uri: str
) -> None:
    assert URL_SAFE != BASE64
    response = await http.post(CHAT.path, json=CHAT.body([CHAT.image(uri)]))
    assert response.status_code == 200, response.text
    assert images(pool) == [ImagePart(PNG)]


@pytest.mark.parametrize(
    ("family", "part", "place"),
    [
        (CHAT, CHAT.image(URI.replace("png", "jpeg")), "messages.content.image_url.url"),
        (RESPONSES, RESPONSES.image(URI.replace("png", "webp")), "input[0].content[0].image_url"),
        (MESSAGES, MESSAGES.image(URI.replace("png", "gif")), "messages.content.source.media_type"),
        (
            CHAT,
            CHAT.image(URI.replace("image/png", "text/plain")),
            "messages.content.image_url.url",
        ),
    ],
)
async def test_a_wrong_media_type_is_named_and_the_image_served(
    http: httpx.AsyncClient, pool: FakePool, family: Family, part: dict[str, Any], place: str
) -> None:
    response = await http.post(family.path, json=family.body([part]))
    assert response.headers["x-dragoman-ignored"] == place
    assert images(pool) == [ImagePart(PNG)]


@each_family
@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("data:image/png;base64,###", "the data is not Base64"),
        ("data:image/png;base64", "needs a comma"),
        ("image/png;base64,###", "the data is not Base64"),
        ("data:image/png;base64,", "the image is empty"),
        ("data:application/pdf;base64,JVBERi0xLjQK", "'application/pdf' is no image"),
        ("naïve", "neither Base64 nor a data: URI"),
        ("file:///etc/hostname", "no image is read from 'file' addresses"),
        ("gs://bucket/a.png", "no image is read from 'gs' addresses"),
        ("blob:http://localhost/1", "no image is read from 'blob' addresses"),
        ("https://pictures.example/a.png", "not fetched from 'pictures.example'"),
        ("http://[broken/a.png", "images are not fetched from"),
    ],
)
async def test_what_is_no_image_is_named_with_its_place(
    http: httpx.AsyncClient, pool: FakePool, family: Family, uri: str, problem: str
) -> None:
    part = {"type": "image", "source": {"type": "url", "url": uri}}
    if family != MESSAGES:
        part = family.image(uri)
    said = family.said(await http.post(family.path, json=family.body([family.text("a"), part])))
    assert said.startswith(f"{family.place}[1].")
    assert problem in said
    assert not pool.client.requests


@each_family
@pytest.mark.parametrize("kind", ["image_url", "input_image", "image"])
async def test_a_part_without_an_image_is_named(
    http: httpx.AsyncClient, family: Family, kind: str
) -> None:
    said = family.said(await http.post(family.path, json=family.body([{"type": kind}])))
    assert "there is no image here" in said


@pytest.mark.parametrize(
    ("part", "detail"),
    [
        ({"image_url": {"url": URI, "detail": "low"}}, "low"),
        ({"image_url": {"url": URI, "detail": "original"}}, "high"),
        ({"image_url": URI, "detail": "high"}, "high"),
        ({"image_url": {"url": URI}}, "auto"),
    ],
)
async def test_detail_is_read_beside_the_image_or_in_it(
    http: httpx.AsyncClient, pool: FakePool, part: dict[str, Any], detail: str
) -> None:
    response = await http.post(CHAT.path, json=CHAT.body([{"type": "image_url", **part}]))
    assert "x-dragoman-ignored" not in response.headers
    assert [image.detail for image in images(pool)] == [detail]


async def test_a_detail_that_is_not_known_is_named(http: httpx.AsyncClient, pool: FakePool) -> None:
    part = {"type": "image_url", "image_url": {"url": URI, "detail": "ultra"}}
    response = await http.post(CHAT.path, json=CHAT.body([part]))
    assert response.headers["x-dragoman-ignored"] == "messages.content.image_url.detail"
    assert images(pool) == [ImagePart(PNG, "auto")]


async def test_results_of_tools_have_images_in_chat_completions(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    mcp = {"type": "image", "data": BASE64, "mimeType": "image/png"}
    messages = [
        {"role": "system", "content": [CHAT.text("s"), CHAT.image(URI)]},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": [CHAT.text("seen"), mcp]},
    ]
    response = await http.post(CHAT.path, json={"model": "test", "messages": messages})
    assert response.status_code == 200, response.text
    assert [at[1] for at, _ in images_of(prompt(pool))] == [0, 3]


async def test_results_of_tools_have_images_in_responses(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    items = [
        {"role": "user", "content": "hi"},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "c",
            "output": [RESPONSES.text("seen"), RESPONSES.image(URI)],
        },
    ]
    response = await http.post(RESPONSES.path, json={"model": "test", "input": items})
    assert response.status_code == 200, response.text
    assert prompt(pool)[-1].role == "tool"
    assert prompt(pool)[-1].content == [TextPart("seen"), ImagePart(PNG)]


@pytest.mark.parametrize("is_error", [True, False])
async def test_results_of_tools_have_images_in_messages(
    http: httpx.AsyncClient, pool: FakePool, is_error: bool
) -> None:
    result = {"type": "tool_result", "tool_use_id": "c", "content": [MESSAGES.image(URI)]}
    body = MESSAGES.body([{**result, "is_error": is_error}, MESSAGES.text("so?")])
    use = {"type": "tool_use", "id": "c", "name": "look", "input": {}}
    body["messages"] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [use]},
        *body["messages"],
    ]
    response = await http.post(MESSAGES.path, json=body)
    assert response.status_code == 200, response.text
    said = [TextPart("Error:")] if is_error else []
    assert [message.content for message in prompt(pool)[2:]] == [[*said, ImagePart(PNG)], "so?"]


async def test_system_text_has_images_in_messages(http: httpx.AsyncClient, pool: FakePool) -> None:
    image, text = MESSAGES.image(URI), MESSAGES.text
    later = {"type": "mid_conv_system", "content": [text("b"), image]}
    body = MESSAGES.body([text("hi"), later]) | {"system": [image, text(""), text("a")]}
    response = await http.post(MESSAGES.path, json=body)
    assert response.status_code == 200, response.text
    assert "x-dragoman-ignored" not in response.headers
    assert [(message.role, message.content) for message in prompt(pool)] == [
        ("system", [ImagePart(PNG), TextPart("a")]),
        ("user", "hi"),
        ("system", [TextPart("b"), ImagePart(PNG)]),
    ]


async def test_a_wrong_type_of_an_image_in_system_text_is_named(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    jpeg = MESSAGES.image(URI.replace("png", "jpeg"))
    response = await http.post(MESSAGES.path, json=MESSAGES.body(["hi"]) | {"system": [jpeg]})
    assert response.headers["x-dragoman-ignored"] == "system.source.media_type"
    assert images(pool) == [ImagePart(PNG)]


async def test_images_of_ollamas_form_stand_before_the_text(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    message = {"role": "user", "content": "what is this?", "images": [BASE64, URI]}
    response = await http.post(CHAT.path, json={"model": "test", "messages": [message]})
    assert "x-dragoman-ignored" not in response.headers
    expected = [ImagePart(PNG), ImagePart(PNG), TextPart("what is this?")]
    assert prompt(pool)[-1].content == expected


async def test_a_wrong_image_of_ollamas_form_is_named(http: httpx.AsyncClient) -> None:
    message = {"role": "user", "content": "", "images": [BASE64, "/tmp/a.png!"]}
    response = await http.post(CHAT.path, json={"model": "test", "messages": [message]})
    assert response.json()["error"]["param"] == "messages[0].images[1]"


@each_family
async def test_too_many_images_are_refused(
    http: httpx.AsyncClient, pool: FakePool, family: Family
) -> None:
    response = await http.post(family.path, json=family.body([family.image(URI)] * 501))
    assert response.status_code == 400
    assert "501 images; at most 500" in response.json()["error"]["message"]
    assert not pool.client.requests


def refusing(at: tuple[str | int, ...]) -> Callable[[GenerationRequest], Iterator[Event]]:
    """A worker that refuses the image at a canonical place."""

    def script(_: GenerationRequest) -> Iterator[Event]:
        error = UnsupportedParameter("{place}: this model cannot see images.", at=at)
        yield Failed(id=1, error=error.info)

    return script


THOUGHT = {"type": "thinking", "thinking": "hm"}


@pytest.mark.parametrize(
    ("family", "body", "at", "place"),
    [
        (CHAT, CHAT.body([CHAT.text("a"), CHAT.image(URI)]), (0, 1), "messages[0].content[1]"),
        (
            CHAT,
            {
                "model": "test",
                "messages": [
                    {"role": "assistant", "content": [THOUGHT, CHAT.text("a"), CHAT.image(URI)]},
                    {"role": "user", "content": [CHAT.image(URI)], "images": [BASE64]},
                ],
            },
            (0, 1),
            "messages[0].content[2]",
        ),
        (
            CHAT,
            {
                "model": "test",
                "messages": [{"role": "user", "content": [CHAT.image(URI)], "images": [BASE64]}],
            },
            (0, 1),
            "messages[0].content[0]",
        ),
        (
            CHAT,
            {"model": "test", "messages": [{"role": "user", "content": "", "images": [BASE64]}]},
            (0, 0),
            "messages[0].images[0]",
        ),
        (RESPONSES, RESPONSES.body([RESPONSES.image(URI)]), (0, 0), "input[0].content[0]"),
        (
            RESPONSES,
            {**RESPONSES.body([RESPONSES.image(URI)]), "instructions": "be brief"},
            (1, 0),
            "input[0].content[0]",
        ),
        (MESSAGES, MESSAGES.body([MESSAGES.text("a"), MESSAGES.image(URI)]), (0, 1), None),
        (
            MESSAGES,
            MESSAGES.body(["a"])
            | {"system": [MESSAGES.text("x-anthropic-billing-header: b"), MESSAGES.image(URI)]},
            (0, 0),
            "system[1]",
        ),
    ],
)
async def test_what_a_worker_refuses_is_named_as_the_client_wrote_it(
    http: httpx.AsyncClient,
    pool: FakePool,
    family: Family,
    body: dict[str, Any],
    at: tuple[int, int],
    place: str | None,
) -> None:
    pool.client.script = refusing(("messages", at[0], "content", at[1]))
    response = await http.post(family.path, json=body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    if place is not None and family != MESSAGES:
        assert error["param"] == place
    assert error["message"].startswith(place or "messages[0].content[1]")


async def test_tokens_of_images_are_counted_by_the_worker(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    body = MESSAGES.body([MESSAGES.image(URI)])
    del body["max_tokens"]
    assert (await http.post("/v1/messages/count_tokens", json=body)).status_code == 200
    body = RESPONSES.body([RESPONSES.image(URI)])
    assert (await http.post("/v1/responses/input_tokens", json=body)).status_code == 200
    body = CHAT.body([CHAT.image(URI)])
    assert (await http.post("/apply-template", json=body)).status_code == 200
    for rendered in pool.client.rendered:
        assert isinstance(rendered, ChatPrompt)
        assert [part for _, part in images_of(rendered.messages)] == [ImagePart(PNG)]
    assert len(pool.client.rendered) == 3


@each_family
@pytest.mark.parametrize("state", ["unloaded", "ready"])
async def test_a_model_that_sees_no_images_is_not_loaded_to_say_so(
    http: httpx.AsyncClient, pool: FakePool, family: Family, state: ModelState
) -> None:
    pool.client.info = msgspec.structs.replace(pool.client.info, projector=None)
    pool.state = state
    pool.opening_error = AssertionError("the model is opened")
    body = family.body([family.text("a"), family.image(URI)])
    for path in (family.path, f"{family.path}/count_tokens", f"{family.path}/input_tokens"):
        response = await http.post(path, json=body)
        if response.status_code not in {404, 405}:
            said = family.said(response)
            assert said.startswith(f"{family.place}[1]: this model sees no images")


@pytest.mark.parametrize("role", ["system", "assistant"])
async def test_roles_without_images_in_ollamas_form_have_them_named(
    http: httpx.AsyncClient, pool: FakePool, role: str
) -> None:
    messages = [{"role": role, "content": "a", "images": 1.5}, {"role": "user", "content": "b"}]
    response = await http.post(CHAT.path, json={"model": "test", "messages": messages})
    assert response.status_code == 200, response.text
    assert response.headers["x-dragoman-ignored"] == "messages.images"
    assert images(pool) == []


async def test_lists_of_models_say_which_see_images(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    listed = (await http.get("/v1/models")).json()
    assert listed["data"][0]["projector"] == "mlp"
    assert listed["models"][0]["input_modalities"] == ["text", "image"]
    pool.client.info = msgspec.structs.replace(pool.client.info, projector=None)
    listed = (await http.get("/v1/models")).json()
    assert listed["data"][0]["projector"] is None
    assert listed["models"][0]["input_modalities"] == ["text"]
