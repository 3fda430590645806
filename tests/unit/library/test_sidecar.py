from __future__ import annotations

from pathlib import Path

import pytest

from server.core.sampling import Sampling
from server.core.worker_settings import WorkerSettings
from server.library.sidecar import InvalidSidecar, Sidecar, read_sidecar


def sidecar(tmp_path: Path, text: str) -> Sidecar:
    path = tmp_path / "tiny.toml"
    path.write_text(text, encoding="utf-8")
    return read_sidecar(path)


def test_every_key_reaches_the_worker(tmp_path: Path) -> None:
    read = sidecar(
        tmp_path,
        """
        aliases = ["small", "gpt-4o-mini"]
        family = "chatml"
        context = 4096
        kind = "base"
        threads = 3
        gpu_layers = 0
        guard = false
        [sampling]
        temperature = 1
        top_k = 20
        logit_bias = { 5 = -100 }
        """,
    )
    assert read.aliases == ["small", "gpt-4o-mini"]
    assert read.applied_to(WorkerSettings(parallel=4)) == WorkerSettings(
        parallel=4,
        family="chatml",
        ctx_size=4096,
        kind="base",
        threads=3,
        gpu_layers=0,
        guard=False,
        sampling=Sampling(temperature=1, top_k=20, logit_bias={5: -100}),
    )


def test_without_a_sidecar_the_servers_settings_apply(tmp_path: Path) -> None:
    settings = WorkerSettings(ctx_size=512, guard=False, sampling=Sampling(top_k=3))
    assert read_sidecar(tmp_path / "none.toml").applied_to(settings) == settings


def test_sampling_defaults_are_put_over_the_servers_one_by_one(tmp_path: Path) -> None:
    settings = WorkerSettings(sampling=Sampling(temperature=0.2, top_p=0.5))
    merged = sidecar(tmp_path, "[sampling]\ntemperature = 1.5").applied_to(settings)
    assert merged.sampling == Sampling(temperature=1.5, top_p=0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("contxt = 5", "tiny.toml: unknown key 'contxt'; did you mean 'context'?"),
        ("zzz = 5", "tiny.toml: unknown key 'zzz'; known are aliases, "),
        ("[sampling]\ntemprature = 1", "unknown key 'sampling.temprature'; did you mean"),
        ("context = 'long'", "tiny.toml: context: Expected `int"),
        ("context = 0", "tiny.toml: context: Expected `int` >= 1"),
        ("context = 1.5", "tiny.toml: context: Expected `int"),
        ("threads = -1", "tiny.toml: threads: "),
        ("guard = 1", "tiny.toml: guard: Expected `bool"),
        ("kind = 'poem'", "tiny.toml: kind: Invalid enum value 'poem'; known are base, "),
        ("aliases = 'one'", "tiny.toml: aliases: Expected `array`"),
        ("aliases = ['']", "tiny.toml: aliases[0]: "),
        ("sampling = 3", "tiny.toml: sampling: Expected `object`"),
        ("[sampling]\ntop_k = 'many'", "tiny.toml: sampling.top_k: Expected `int"),
        ("[sampling]\ntemperature = -1", "tiny.toml: sampling.temperature: -1.0 must be from 0"),
        ("[sampling]\ntemperature = nan", "tiny.toml: sampling.temperature: nan"),
        ("[sampling]\nrepeat_penalty = inf", "tiny.toml: sampling.repeat_penalty: inf"),
        ("[sampling]\ntop_p = 1.1", "tiny.toml: sampling.top_p: 1.1 must be from 0 to 1"),
        ("[sampling]\npresence_penalty = -2.5", "must be from -2 to 2"),
        ("context = ", "tiny.toml: Invalid value"),
        ("context = 1\ncontext = 2", "tiny.toml: Cannot overwrite a value"),
    ],
)
def test_a_wrong_key_or_value_names_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidSidecar) as caught:
        sidecar(tmp_path, text)
    assert said in str(caught.value)


def test_a_sidecar_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidSidecar, match=r"tiny\.toml: 'utf-8' codec"):
        read_sidecar(tmp_path / "tiny.toml")


def test_a_folder_in_place_of_a_sidecar_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").mkdir()
    with pytest.raises(InvalidSidecar, match=r"tiny\.toml: Is a directory"):
        read_sidecar(tmp_path / "tiny.toml")
