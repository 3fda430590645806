"""The container's files say what the README promises of them; `make container-test` builds it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def image() -> str:
    """The Dockerfile without comments, an instruction a line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    return text.replace("\\\n", " ")


def instructions(image: str, name: str) -> list[str]:
    return re.findall(rf"^{name} +(.+)$", image, flags=re.MULTILINE)


def test_labels_name_licence_version_and_commit(image: str) -> None:
    words = shlex.split(" ".join(instructions(image, "LABEL")))
    labels = dict(word.split("=", 1) for word in words)
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}licenses"] == "Apache-2.0"
    assert labels[f"{prefix}version"] == "${VERSION}"
    assert labels[f"{prefix}revision"] == "${REVISION}"
    assert {"VERSION=", "REVISION="} <= {
        each.replace('"', "") for each in instructions(image, "ARG")
    }


def test_a_build_argument_chooses_a_gpu(image: str) -> None:
    assert 'GPU=""' in instructions(image, "ARG")
    [compiling] = [each for each in instructions(image, "RUN") if "llama-cpp-python" in each]
    assert "${GPU:+-DGGML_$GPU=ON}" in compiling


def test_the_health_check_is_the_script_that_starts_no_python(image: str) -> None:
    assert 'CMD ["dragoman-health"]' in instructions(image, "HEALTHCHECK")[0]
    copied = [each.split()[-2:] for each in instructions(image, "COPY")]
    assert ["container/health.sh", "/usr/local/bin/dragoman-health"] in copied


def test_the_example_limits_memory_wants_a_key_and_keeps_every_volume(image: str) -> None:
    example = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    assert re.search(r"^    mem_limit: \d+g$", example, flags=re.MULTILINE)
    assert "DRAGOMAN_API_KEYS: ${DRAGOMAN_API_KEYS:?" in example
    volumes = set(re.findall(r'"(/\w+)"', instructions(image, "VOLUME")[0]))
    assert set(re.findall(r"^      - \w+:(/\w+)$", example, flags=re.MULTILINE)) == volumes
    [command] = re.findall(r"^docker run .+$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r" -v [\w-]+:(/\w+)", command)) == volumes
