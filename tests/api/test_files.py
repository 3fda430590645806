"""``/v1/files``: what the SDK uploads, lists, fetches and deletes, and what is refused."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types import FileObject

from server.api import remote_contents
from server.app import create_app
from server.core.request import ChatPrompt, TextPart, images_of
from server.core.settings import Settings
from server.store.file_folder import FileFolder
from tests.api.batching import removed_once_open
from tests.api.fakes import FakePool
from tests.api.wire import assert_error

FILES = "/v1/files"
DAY = 86_400


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A store and a folder of its own, and two keys."""
    return Settings(
        store_url=f"sqlite:///{tmp_path}/store.db",
        files_dir=tmp_path / "files",
        api_keys=["one", "two"],
        max_file_bytes=1 << 20,
        files_max_bytes=3 << 20,
    )


@pytest.fixture
async def sdk(settings: Settings) -> AsyncIterator[AsyncOpenAI]:
    """The SDK, with the first key."""
    app = create_app(settings, FakePool())
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as client:
        yield AsyncOpenAI(
            api_key="one", base_url="http://127.0.0.1:8000/v1", http_client=client, max_retries=0
        )
    await app.state.context.store.close()


def kept_in(settings: Settings) -> list[Path]:
    """Where the contents of all files lie."""
    return list(settings.files_dir.glob("*/*"))


def strict(file: FileObject) -> FileObject:
    """The file, valid in strict mode."""
    return FileObject.model_validate(file.model_dump(), strict=True)


async def test_a_file_comes_back_as_it_was_sent(sdk: AsyncOpenAI, settings: Settings) -> None:
    data = bytes(range(256)) * 3000 + b"\r\n--not a boundary\r\n"
    made = strict(await sdk.files.create(file=("a b ü.bin", data), purpose="user_data"))
    assert (made.bytes, made.filename, made.purpose) == (len(data), "a b ü.bin", "user_data")
    assert made.status == "processed"
    assert made.expires_at is None
    assert strict(await sdk.files.retrieve(made.id)) == made
    assert (await sdk.files.content(made.id)).content == data
    (kept,) = kept_in(settings)
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert (await sdk.files.delete(made.id)).deleted
    assert kept_in(settings) == []
    with pytest.raises(openai.NotFoundError):
        await sdk.files.retrieve(made.id)


async def test_a_file_that_is_removed_while_it_is_sent_comes_whole(
    sdk: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who asks after it was removed is told that there is none."""
    made = await sdk.files.create(file=("a", b"0123456789"), purpose="user_data")
    removed_once_open(monkeypatch)
    assert (await sdk.files.content(made.id)).content == b"0123456789"
    with pytest.raises(openai.NotFoundError):
        await sdk.files.content(made.id)


async def test_parts_of_a_file_are_sent(sdk: AsyncOpenAI) -> None:
    made = await sdk.files.create(file=("a", b"0123456789"), purpose="user_data")
    part = await sdk.files.content(made.id, extra_headers={"range": "bytes=2-4"})
    assert (part.response.status_code, part.content) == (206, b"234")


async def test_files_are_listed_by_page_order_and_purpose(sdk: AsyncOpenAI) -> None:
    names = []
    for number in range(5):
        purpose: Any = "batch" if number % 2 else "user_data"
        names.append((await sdk.files.create(file=(f"{number}", b"x"), purpose=purpose)).id)
    assert [file.id async for file in sdk.files.list(limit=2)] == names[::-1]
    assert [file.id async for file in sdk.files.list(limit=2, order="asc")] == names
    page = await sdk.files.list(limit=2, order="asc", after=names[1])
    assert [file.id for file in page.data] == names[2:4]
    assert page.has_more
    assert page.to_dict()["object"] == "list"
    batches = [file.id async for file in sdk.files.list(purpose="batch")]
    assert batches == [names[3], names[1]]
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.files.list(after="file-unknown")
    assert caught.value.param == "after"


async def test_a_key_sees_its_own_files_alone(sdk: AsyncOpenAI) -> None:
    made = await sdk.files.create(file=("a", b"x"), purpose="user_data")
    other = sdk.with_options(api_key="two")
    assert (await other.files.list()).data == []
    for call in (other.files.retrieve, other.files.delete, other.files.content):
        with pytest.raises(openai.NotFoundError):
            await call(made.id)


async def test_files_expire_when_their_owner_says(sdk: AsyncOpenAI) -> None:
    batch = await sdk.files.create(file=("a", b"x"), purpose="batch")
    assert batch.expires_at == batch.created_at + 30 * DAY
    stated = await sdk.files.create(
        file=("a", b"x"),
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )
    assert stated.expires_at == stated.created_at + 7200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "purpose"),
        ({"purpose": "songs"}, "purpose"),
        ({"purpose": "batch_output"}, "purpose"),
        ({"purpose": "batch", "expires_after[seconds]": "7200"}, "expires_after.anchor"),
        (
            {
                "purpose": "batch",
                "expires_after[anchor]": "created_at",
                "expires_after[seconds]": "60",
            },
            "expires_after.seconds",
        ),
        (
            {
                "purpose": "batch",
                "expires_after[anchor]": "last_active_at",
                "expires_after[seconds]": "7200",
            },
            "expires_after.anchor",
        ),
    ],
)
async def test_a_wrong_field_is_refused_and_nothing_is_kept(
    settings: Settings, fields: dict[str, str], param: str
) -> None:
    answer = await post(settings, data=fields, files={"file": ("a", b"x")})
    assert_error(answer, 400, param=param)
    assert kept_in(settings) == []


async def post(settings: Settings, **request: Any) -> httpx.Response:
    """The answer to an upload."""
    app = create_app(settings, FakePool())
    transport = httpx.ASGITransport(app)
    headers = {"authorization": "Bearer one", **request.pop("headers", {})}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        answer = await client.post(FILES, headers=headers, **request)
    await app.state.context.store.close()
    return answer


async def test_an_unknown_field_is_named(settings: Settings) -> None:
    sent = {"purpose": "user_data", "project": "p"}
    answer = await post(settings, data=sent, files={"file": ("a", b"x")})
    assert answer.status_code == 200
    assert answer.headers["x-dragoman-ignored"] == "project"


async def test_a_file_over_the_limit_is_refused(settings: Settings) -> None:
    sent = {"purpose": "user_data"}
    answer = await post(settings, data=sent, files={"file": ("a", b"x" * ((1 << 20) + 1))})
    assert_error(answer, 413, code="payload_too_large", param="file")
    for _ in range(3):
        answer = await post(settings, data=sent, files={"file": ("a", b"x" * (1 << 20))})
        assert answer.status_code == 200
    answer = await post(settings, data=sent, files={"file": ("a", b"x")})
    assert "files_max_bytes" in assert_error(answer, 413, code="payload_too_large", param="file")
    assert len(kept_in(settings)) == 3


FORM = "multipart/form-data; boundary=b"
PURPOSE = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"", 400),
        ("multipart/form-data; boundary=" + "b" * 500, b"", 400),
        (FORM, b"", 400),
        (FORM, b"nonsense", 400),
        (FORM, PURPOSE + b"--b--\r\n", 400),
        (FORM, PURPOSE + FILE, 400),
        (FORM, PURPOSE + FILE[:-20], 400),
        (FORM, PURPOSE + FILE + FILE + b"--b--\r\n", 400),
        (FORM, FILE + PURPOSE[:-2] + b"x" * 70_000 + b"\r\n--b--\r\n", 400),
        (FORM, FILE + PURPOSE * 70 + b"--b--\r\n", 200),
        (FORM, FILE + PURPOSE.replace(b'"purpose"', b'"\xff\xfe"') + b"--b--\r\n", 400),
        (FORM, FILE + PURPOSE + b"--b--\r\nepilogue", 200),
    ],
)
async def test_a_malformed_form_is_refused(
    settings: Settings, kind: str, body: bytes, status: int
) -> None:
    answer = await post(settings, content=body, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    assert len(kept_in(settings)) == (status == 200)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\r\nset-cookie: b", "x" * 600, "", "ü€"])
async def test_a_name_of_a_file_is_only_shown(sdk: AsyncOpenAI, name: str) -> None:
    made = await sdk.files.create(file=(name or "a", b"x"), purpose="user_data")
    assert len(made.filename) <= 255
    assert "/" not in made.filename
    answer = await sdk.files.with_raw_response.content(made.id)
    assert answer.content == b"x"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("switch", ["files", "store"])
async def test_without_files_nothing_is_taken_and_nothing_found(
    settings: Settings, switch: str
) -> None:
    app = create_app(settings.model_copy(update={switch: False, "api_keys": []}), FakePool())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        answer = await http.post(FILES, data={"purpose": "batch"}, files={"file": ("a", b"x")})
        assert_error(answer, 400, code="unsupported_parameter")
        assert (await http.get(FILES)).json()["data"] == []
        assert_error(await http.get(f"{FILES}/file-a"), 404, code="not_found", param="id")


async def test_an_image_that_is_removed_while_it_is_read_is_seen(
    http: httpx.AsyncClient, pool: FakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.see()
    key = {"authorization": "Bearer one"}
    file = {"file": ("a.png", b"\x89PNG\r\n\x1a\n of a cat")}
    made = await http.post(FILES, data={"purpose": "vision"}, files=file, headers=key)
    content = [{"type": "input_image", "file_id": made.json()["id"]}]
    body = {"model": "test", "input": [{"role": "user", "content": content}]}
    removed_once_open(monkeypatch)
    for status in (200, 404):
        answered = await http.post("/v1/responses", json=body, headers=key)
        assert answered.status_code == status, answered.text


async def test_images_are_read_from_the_files_of_their_key(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    pool.see()
    data = b"\x89PNG\r\n\x1a\n of a cat"
    mine, yours = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
    form = {"purpose": "vision"}
    made = await http.post(FILES, data=form, files={"file": ("a.png", data)}, headers=mine)
    name = made.json()["id"]
    content = [{"type": "input_image", "file_id": name, "detail": "low"}]
    body: dict[str, Any] = {"model": "test", "input": [{"role": "user", "content": content}]}
    answered = await http.post("/v1/responses", json=body, headers=mine)
    assert answered.status_code == 200, answered.text
    source = {"type": "image", "source": {"type": "file", "file_id": name}}
    messages = [{"role": "user", "content": [source]}]
    body = {"model": "test", "max_tokens": 9, "messages": messages}
    assert (await http.post("/v1/messages", json=body, headers=mine)).status_code == 200
    for request in pool.client.requests:
        assert isinstance(request.prompt, ChatPrompt)
        assert [image.data for _, image in images_of(request.prompt.messages)] == [data]
    refused = await http.post("/v1/messages", json=body, headers=yours)
    assert refused.status_code == 404
    place = "messages[0].content[0].source.file_id"
    assert refused.json()["error"]["message"].startswith(f"{place}: there is no file")
    assert len(pool.client.requests) == 2


def saying(*content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


def said(pool: FakePool) -> str:
    """What the model reads last."""
    prompt = pool.client.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    content = prompt.messages[-1].content
    assert content is not None
    parts = [TextPart(content)] if isinstance(content, str) else content
    return "".join(part.text for part in parts if isinstance(part, TextPart))


def input_file(name: str) -> dict[str, Any]:
    return {"input": saying({"type": "input_file", "file_id": name})}


def chat_file(name: str) -> dict[str, Any]:
    return {"messages": saying({"type": "file", "file": {"file_id": name}})}


def document(name: str) -> dict[str, Any]:
    block = {"type": "document", "source": {"type": "file", "file_id": name}, "title": "t"}
    return {"max_tokens": 9, "messages": saying(block)}


def result(name: str) -> dict[str, Any]:
    block = document(name)["messages"][0]["content"][0]
    call = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    answer = {"type": "tool_result", "tool_use_id": "c", "content": [block]}
    turns = [*saying("hi"), {"role": "assistant", "content": [call]}, *saying(answer)]
    return {"max_tokens": 9, "messages": turns}


@pytest.mark.parametrize(
    ("path", "body", "place", "read"),
    [
        ("/v1/responses", input_file, "input[0].content[0]", "a.csv\nname,ü\n"),
        ("/v1/chat/completions", chat_file, "messages[0].content[0]", "a.csv\nname,ü\n"),
        ("/v1/messages", document, "messages[0].content[0]", "t\nname,ü\n"),
        ("/v1/messages", result, "messages[2].content[0].content[0]", "t\nname,ü\n"),
    ],
)
async def test_texts_are_read_from_the_files_of_their_key(
    http: httpx.AsyncClient, pool: FakePool, path: str, body: Any, place: str, read: str
) -> None:
    mine, yours = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))

    async def stored(data: bytes) -> str:
        form = {"purpose": "user_data"}
        made = await http.post(FILES, data=form, files={"file": ("a.csv", data)}, headers=mine)
        return str(made.json()["id"])

    text, pdf = await stored("name,ü\n".encode()), await stored(b"%PDF-1.7\n")
    answered = await http.post(path, json={"model": "test", **body(text)}, headers=mine)
    assert answered.status_code == 200, answered.text
    assert "x-dragoman-ignored" not in answered.headers
    assert said(pool) == read
    refused = await http.post(path, json={"model": "test", **body(pdf)}, headers=mine)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith(f"{place}: of files only text")
    foreign = await http.post(path, json={"model": "test", **body(text)}, headers=yours)
    assert foreign.status_code == 404
    assert "there is no file" in foreign.json()["error"]["message"]


@pytest.mark.parametrize(
    ("part", "field"),
    [({"type": {}}, "type"), ({"type": "file", "file": []}, "file"), ({"type": "file"}, "file")],
)
async def test_what_is_no_file_is_refused(
    http: httpx.AsyncClient, part: dict[str, Any], field: str
) -> None:
    key = {"authorization": "Bearer one"}
    body = {"model": "test", "messages": saying(part)}
    refused = await http.post("/v1/chat/completions", json=body, headers=key)
    assert_error(refused, 400, param=f"messages[0].content[0].{field}")


async def test_a_file_whose_contents_come_with_it_is_not_looked_for(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    part = {"type": "input_file", "file_id": "file-1", "file_data": "aGk=", "filename": "a"}
    body = {"model": "test", "input": saying(part)}
    key = {"authorization": "Bearer one"}
    answered = await http.post("/v1/responses", json=body, headers=key)
    assert "x-dragoman-ignored" not in answered.headers
    assert said(pool) == "a\nhi"


async def test_items_have_the_ids_of_files_beside_their_contents(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    pool.see()
    key = {"authorization": "Bearer one"}
    parts = []
    for kind, data in (("input_file", b"hi"), ("input_image", b"\x89PNG\r\n\x1a\n of a cat")):
        form = {"purpose": "user_data"}
        made = await http.post(FILES, data=form, files={"file": ("a", data)}, headers=key)
        parts.append({"type": kind, "file_id": made.json()["id"]})
    body = {"model": "test", "input": saying(*parts)}
    made = await http.post("/v1/responses", json=body, headers=key)
    path = f"/v1/responses/{made.json()['id']}/input_items"
    (item,) = (await http.get(path, headers=key)).json()["data"]
    assert [part["file_id"] for part in item["content"]] == [part["file_id"] for part in parts]
    assert item["content"][0]["file_data"] == "aGk="
    assert item["content"][1]["image_url"].startswith("data:image/png;base64,")
    for part in parts:
        await http.delete(f"{FILES}/{part['file_id']}", headers=key)
    again = {"model": "test", "input": [item]}
    answered = await http.post("/v1/responses", json=again, headers=key)
    assert answered.status_code == 200, answered.text
    assert "x-dragoman-ignored" not in answered.headers
    assert said(pool) == "a\nhi"


async def test_a_file_takes_room_wherever_it_is_named(
    http: httpx.AsyncClient, settings: Settings
) -> None:
    """Else a short body with one file many times over would fill the memory."""
    key = {"authorization": "Bearer one"}
    data = b"x" * settings.max_file_bytes
    form = {"purpose": "user_data"}
    made = await http.post(FILES, data=form, files={"file": ("a", data)}, headers=key)
    part = {"type": "input_file", "file_id": made.json()["id"]}
    places = settings.max_body_bytes // len(data) + 1
    body = {"model": "test", "input": saying(*[dict(part) for _ in range(places)])}
    refused = await http.post("/v1/responses", json=body, headers=key)
    assert "have more than" in assert_error(refused, 400, param="input[0].content[0].file_id")


async def test_files_that_are_read_at_once_have_the_room_of_one_body(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(remote_contents, "_AT_ONCE", 2)
    opened = FileFolder.open

    def counted(folder: FileFolder, file_id: str) -> BinaryIO | None:
        file = opened(folder, file_id)
        assert file is not None
        whole = BytesIO(file.read())
        file.close()
        whole.read = lambda *_: read.append(file_id) or whole.getvalue()  # type: ignore[method-assign, func-returns-value]
        return whole

    url = f"sqlite:///{tmp_path}/store.db"
    settings = Settings(store_url=url, files_dir=tmp_path / "files", max_body_bytes=150_000)
    app = create_app(settings, FakePool())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        parts = []
        for name in ("a", "b"):
            file = {"file": (name, b"x" * 100_000)}
            made = await http.post(FILES, data={"purpose": "user_data"}, files=file)
            parts.append({"type": "input_file", "file_id": made.json()["id"]})
        monkeypatch.setattr(FileFolder, "open", counted)
        body = {"model": "test", "input": saying(*parts)}
        refused = await http.post("/v1/responses", json=body)
    await app.state.context.store.close()
    assert refused.status_code == 400
    assert "have more than 150000 bytes" in refused.json()["error"]["message"]
    assert len(read) <= 1
