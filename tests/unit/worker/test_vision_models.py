"""Models that see images, loaded in their worker."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from server.core.errors import InvalidImage
from server.core.request import CacheScope, ChatPrompt, ImagePart, Message, TextPart
from server.core.worker_settings import ProjectorFile, WorkerSettings
from server.engine.llama import LoadError
from server.engine.vision import picture_source
from server.engine.vision.pictures import Picture, decode
from server.worker.protocol import Load, Render
from server.worker.serve.load import GenerationModel, load
from server.worker.serve.prepare import render
from tests.tiny_vision import KINDS, write_vision_model
from tests.unit.engine.vision_rig import image

pytestmark = pytest.mark.process

TEMPLATE = (
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}"
)


def loaded(folder: Path, kind: str, eyes: Path | None = None, **settings: int) -> GenerationModel:
    model, projector = write_vision_model(folder, kind, chat_template=TEMPLATE)
    file = ProjectorFile(path=str(eyes or projector), kind=KINDS[kind].name, memory_bytes=1)
    wanted = WorkerSettings(
        safe_mode=True,
        parallel=2,
        threads=1,
        projector=file,
        **settings,  # type: ignore[arg-type]
    )
    request = Load(model_id="tiny", path=str(model), settings=wanted)
    found = load(request, lambda _: None)
    assert isinstance(found, GenerationModel)
    return found


def tokens(model: GenerationModel, *parts: TextPart | ImagePart) -> int:
    prompt = ChatPrompt(messages=[Message(role="user", content=[*parts])])
    rendered = render(model, Render(id=1, prompt=prompt)).prompt
    assert rendered is not None
    return len(rendered.tokens)


@pytest.mark.parametrize(
    ("kind", "size"), [("causal", 16), ("whole", 4 + 2), ("tiles", 5 * 4 + 13), ("plane", 12 + 2)]
)
def test_prompts_count_images_exactly(tmp_path: Path, kind: str, size: int) -> None:
    model = loaded(tmp_path, kind)
    assert model.info.projector == KINDS[kind].name
    text = tokens(model, TextPart("what is it?"))
    assert tokens(model, TextPart("what is it?"), image(1)) == text + size


def test_what_is_known_of_an_image_is_known_to_its_key_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = Counter[bytes]()

    def watched(data: bytes, *, most_side: int) -> Picture:
        unpacked[data] += 1
        return decode(data, most_side=most_side)

    monkeypatch.setattr(picture_source, "decode", watched)
    model, part = loaded(tmp_path, "causal"), image(1)
    prompt = ChatPrompt(messages=[Message(role="user", content=[part])])
    for key in ("one", "one", "other"):
        render(model, Render(id=1, prompt=prompt, scope=CacheScope(api_key=key)))
    assert unpacked == {part.data: 2}


def test_low_detail_shrinks_an_image_first(tmp_path: Path) -> None:
    model = loaded(tmp_path, "plane")
    large = image(1, 1024, 512)
    assert tokens(model, TextPart("x"), large) > 3 * tokens(
        model, TextPart("x"), ImagePart(large.data, "low")
    )


def test_an_image_that_cannot_be_read_is_refused_by_its_place(tmp_path: Path) -> None:
    model = loaded(tmp_path, "causal")
    with pytest.raises(InvalidImage) as caught:
        tokens(model, TextPart("x"), ImagePart(b"no image"))
    assert caught.value.at == ("messages", 0, "content", 1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "tiles"])
def test_strips_are_images_too(tmp_path: Path, kind: str) -> None:
    model = loaded(tmp_path, kind)
    for width, height in ((10_000, 10), (1, 2000)):
        assert tokens(model, TextPart("x"), image(1, width, height)) > tokens(model, TextPart("x"))


def test_a_strip_that_cannot_be_cut_into_tiles_is_refused_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(InvalidImage, match="no image of 10000 x 10 pixels") as caught:
        tokens(loaded(tmp_path, "tiles"), TextPart("x"), image(1, 10_000, 10))
    assert caught.value.at == ("messages", 0, "content", 1)


def test_whole_images_fit_a_physical_batch_whatever_the_settings(tmp_path: Path) -> None:
    model = loaded(tmp_path, "whole", batch_size=2, ubatch_size=2)
    assert model.context.cells_together >= 4


def test_a_projector_of_another_model_is_named_with_the_way_out(tmp_path: Path) -> None:
    broken = tmp_path / "mmproj-broken.gguf"
    broken.write_bytes(b"GGUF")
    with pytest.raises(
        LoadError, match=r"the projector mmproj-broken\.gguf cannot be used: .+ is served"
    ):
        loaded(tmp_path, "causal", eyes=broken)
