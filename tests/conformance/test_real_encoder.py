"""Embeddings of a published encoder, beside the same computed from its published files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from server.core.embeddings import Reading
from server.core.errors import ContextLengthExceeded
from server.engine.llama import LlamaEmbedder, LlamaModel
from server.worker.serve.text_reader import TextReader
from tests.real_encoder import RealEncoder, published_embeddings

# It computes for ten seconds where nothing else runs.
pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]

# Of each language a beginning and an end of sentences.
LANGUAGES = {
    "English": (
        ["The cat sat", "Café prices rose", "I'm sure it rained"],
        ["on the mat.", "in 2024!"],
    ),
    "German": (
        ["Die Katze saß", "Größere Häuser standen", "Übung"],
        ["auf der Matte.", "früher hier."],
    ),
    "French": (
        ["Le chat était assis", "Où êtes-vous", "Ça"],
        ["sur le tapis.", "à l'été dernier ?"],
    ),
    "Spanish": (
        ["El gato se sentó", "¿Dónde está", "Mañana lloverá"],
        ["en la alfombra.", "el niño?"],
    ),
    "Russian": (["Кошка сидела", "Ёлка стояла", "Мы ехали"], ["на коврике.", "под Москвой."]),
    "Greek": (["Η γάτα κάθισε", "Πού είναι", "Χθες έβρεξε"], ["στο χαλάκι.", "το σχολείο;"]),
    "Arabic": (["جلست القطة", "أين تقع", "هطل المطر"], ["على السجادة.", "المدرسة الآن؟"]),
    "Hindi": (["बिल्ली बैठी थी", "स्कूल कहाँ है", "कल बारिश हुई"], ["चटाई पर।", "दिल्ली में।"]),
    "Korean": (["고양이가 앉았다", "학교는 어디에", "어제 비가 왔다"], ["매트 위에.", "서울에서."]),
    "Japanese": (
        ["猫が座った", "学校はどこですか", "昨日は雨だった"],
        ["マットの上に。", "東京で。"],
    ),
    "Chinese": (["猫坐在", "学校在哪里", "昨天下雨了"], ["垫子上。", "北京。"]),
    "Vietnamese": (
        ["Con mèo ngồi", "Trường học ở đâu", "Hôm qua trời mưa"],
        ["trên thảm.", "ở Hà Nội."],
    ),
}
MIDDLES = ["", ", 𝄞 ☃, ", " — 3.14% @#$ e\u0301 "]
TEXTS = [
    *(
        f"{beginning}{middle} {end}"
        for beginnings, ends in LANGUAGES.values()
        for beginning, middle, end in product(beginnings, MIDDLES, ends)
    ),
    "a" * 101,
    "\u202eabc\u0000def\ufffd\u00ad",
    "",
]


@pytest.fixture(scope="module")
def published() -> RealEncoder:
    try:
        return RealEncoder()
    except ModuleNotFoundError:
        pytest.fail("the encoder is not installed: run `make develop`")


@pytest.fixture(scope="module")
def model(published: RealEncoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaModel]:
    path = tmp_path_factory.mktemp("encoder") / "all-MiniLM-L6-v2.gguf"
    published.write(path)
    loaded = LlamaModel(str(path), safe_mode=True)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def reader(model: LlamaModel, published: RealEncoder) -> TextReader:
    return TextReader(model.vocabulary, None, most=published.context)


def test_texts_of_twelve_languages_have_the_published_tokens(
    published: RealEncoder, reader: TextReader
) -> None:
    assert len(LANGUAGES) == 12
    assert len(TEXTS) > 200
    for text in TEXTS:
        ours = reader.read(0, text, Reading()).tokens
        assert ours == published.tokenizer.encode(text).ids, text


def test_their_embeddings_are_the_published_ones(
    published: RealEncoder, reader: TextReader, model: LlamaModel
) -> None:
    long = " ".join(TEXTS[::7]) * 3
    with pytest.raises(ContextLengthExceeded):
        reader.read(0, long, Reading())
    texts = [*TEXTS, long]
    tokens = [reader.read(0, text, Reading(truncate="end")).tokens for text in texts]
    assert len(tokens[-1]) == published.context
    embedder = LlamaEmbedder(
        model, most_tokens=published.context, threads=2, flash_attention="auto", kv_type="f16"
    )
    ours = np.concatenate(
        [_embedded(embedder, tokens[at : at + 8]) for at in range(0, len(texts), 8)]
    )
    embedder.close()
    cosines = (published_embeddings(texts) * ours).sum(axis=1)
    assert cosines.min() > 0.9999


def _embedded(embedder: LlamaEmbedder, texts: list[list[int]]) -> NDArray[np.float32]:
    if sum(map(len, texts)) <= embedder.most_tokens:
        return embedder.embed(texts)
    return np.concatenate([embedder.embed([text]) for text in texts])
