"""Families: their files, and which one a model gets."""

from pathlib import Path

import pytest

from server.core.resources import templates_directory
from server.core.sampling import Sampling
from server.prompt.families.choice import ModelFacts, select_family
from server.prompt.families.definitions import Family, FamilyError, Selection, load_families

BUILT_IN = load_families([templates_directory()])
SIDECAR_KEYS = set(Family.__struct_fields__) - {"name", "path", "template"}
SIDECAR = 'description = "d"\nsource = "s"\n'


def facts(**changes: object) -> ModelFacts:
    known = {"architecture": "llama", "names": ["x"], "kind": "instruct", "special_texts": set()}
    return ModelFacts(**{**known, **changes})  # type: ignore[arg-type]


def chosen(**changes: object) -> str | None:
    family = select_family(BUILT_IN, facts(**changes), None).family
    return family.name if family else None


def test_the_families_that_need_no_template_of_the_model_are_there() -> None:
    assert set(BUILT_IN) >= {
        "alpaca",
        "chatml",
        "command-r",
        "deepseek",
        "gemma",
        "granite",
        "human-assistant",
        "llama-2",
        "llama-3",
        "mistral",
        "phi-3",
        "transcript",
        "vicuna",
        "zephyr",
    }
    assert all(family.source and family.description for family in BUILT_IN.values())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('stop = ["x"]', "`stop`"),
        ("stops = 3", "$.stops"),
        ("[selection]\narchitecture = []", "`architecture` - at `$.selection`"),
        ('[selection]\nnames = ["("]', "$.selection.names"),
        ("[sampling]\ntemperature = 0.5", "`source`"),
        ('[sampling]\nsource = "s"\ntemprature = 0.5', "`temprature` - at `$.sampling`"),
        ("[capabilities]\ntelepathy = true", "`telepathy` - at `$.capabilities`"),
        ('[reply]\nrezoning = "x"', "`rezoning`"),
        ("[", "line 3"),
    ],
)
def test_a_wrong_key_is_an_error_that_names_file_and_key(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"{SIDECAR}{text}\n")

    with pytest.raises(FamilyError) as error:
        load_families([tmp_path])

    assert str(path) in str(error.value)
    assert problem in str(error.value)


def test_a_template_without_a_sidecar_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("x")

    with pytest.raises(FamilyError, match=r"there is no mine\.toml beside it"):
        load_families([tmp_path])


@pytest.mark.parametrize("model", ["x[1].gguf", "x[1]-00001-of-00002.gguf"])
def test_a_sidecar_beside_its_model_is_no_family(tmp_path: Path, model: str) -> None:
    (tmp_path / model).touch()
    (tmp_path / "x[1].toml").write_text("context = 2048\n")
    (tmp_path / "mine.toml").write_text(SIDECAR)
    assert set(load_families([tmp_path])) == {"mine"}


def test_a_template_makes_it_a_family_although_a_model_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    (tmp_path / "x.jinja").write_text("{{ messages }}")
    (tmp_path / "x.toml").write_text(SIDECAR)
    assert set(load_families([tmp_path])) == {"x"}


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FamilyError, match="no such folder"):
        load_families([tmp_path / "typo"])


def test_a_family_of_the_user_replaces_the_built_in_one_and_is_tried_first(tmp_path: Path) -> None:
    (tmp_path / "zephyr.toml").write_text(f"{SIDECAR}[selection]\nnames = ['hermes']\n")
    (tmp_path / "zephyr.jinja").write_text("mine")

    families = load_families([templates_directory(), tmp_path])

    assert families["zephyr"].template == "mine"
    choice = select_family(families, facts(names=["Nous-Hermes"]), None)
    assert choice.family is families["zephyr"]


def test_the_configured_family_wins_over_the_models_own_template() -> None:
    choice = select_family(BUILT_IN, facts(template="x", template_sha256="0"), "vicuna")

    assert not choice.own_template
    assert choice.family is BUILT_IN["vicuna"]


def test_a_configured_family_that_does_not_exist_is_an_error_that_lists_them() -> None:
    with pytest.raises(FamilyError, match=r"no family 'vicunia'; there are: alpaca, chatml"):
        select_family(BUILT_IN, facts(), "vicunia")


def test_a_configured_family_without_a_template_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SIDECAR)

    with pytest.raises(FamilyError, match="has no template"):
        select_family(load_families([tmp_path]), facts(), "mine")


def test_the_models_own_template_is_kept_with_the_data_of_a_matching_family() -> None:
    own = "{{'<|im_start|>'}}{{'<|im_end|>'}}"

    by_architecture = select_family(BUILT_IN, facts(template=own, architecture="qwen2"), None)
    by_name = select_family(BUILT_IN, facts(template=own, names=["SmolLM2 135M"]), None)

    assert by_architecture.own_template
    assert by_architecture.family is BUILT_IN["chatml"]
    assert by_name.own_template
    assert by_name.family is BUILT_IN["chatml"]


def test_a_family_has_no_data_about_a_template_without_its_markers() -> None:
    choice = select_family(BUILT_IN, facts(template="[INST]", architecture="qwen2"), None)

    assert choice.own_template
    assert choice.family is None


def test_a_template_is_recognised_by_its_hash_or_replaced_where_it_is_known_to_be_broken(
    tmp_path: Path,
) -> None:
    (tmp_path / "good.toml").write_text(f"{SIDECAR}[selection]\ntemplate_sha256 = ['aa']\n")
    (tmp_path / "fix.toml").write_text(f"{SIDECAR}[selection]\nbroken_template_sha256 = ['bb']\n")
    (tmp_path / "fix.jinja").write_text("fixed")
    families = load_families([tmp_path])

    good = select_family(families, facts(template="x", template_sha256="aa"), None)
    broken = select_family(families, facts(template="x", template_sha256="bb"), None)

    assert good.own_template
    assert good.family is families["good"]
    assert not broken.own_template
    assert broken.family is families["fix"]


def test_a_base_model_gets_the_transcript_whatever_its_architecture_and_tokens() -> None:
    tokens = {"<start_of_turn>", "<end_of_turn>"}

    assert chosen(kind="base", architecture="gemma3", special_texts=tokens) == "transcript"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Llama-2-7b-chat", "llama-2"),
        ("Meta-Llama-3-8B-Instruct", "llama-3"),
        ("Mistral-7B-Instruct-v0.2", "mistral"),
        ("gemma-2b-it", "gemma"),
        ("Phi-3-mini-4k-instruct", "phi-3"),
        ("zephyr-7b-beta", "zephyr"),
        ("vicuna-13b-v1.5", "vicuna"),
        ("alpaca-native-7b", "alpaca"),
        ("c4ai-command-r-v01", "command-r"),
        ("DeepSeek-V3", "deepseek"),
        ("granite-3.0-2b-instruct", "granite"),
        ("Qwen1.5-7B-Chat", "chatml"),
        ("Yi-34B-Chat", "chatml"),
    ],
)
def test_without_a_template_the_name_selects_the_family(name: str, family: str) -> None:
    assert chosen(names=["", f"{name}.Q4_K_M.gguf"]) == family


def test_without_a_telling_name_the_architecture_and_the_control_tokens_select_it() -> None:
    tokens = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}

    assert chosen(architecture="llama", special_texts=tokens) == "llama-3"


def test_a_guess_says_that_it_is_one() -> None:
    by_tokens = select_family(BUILT_IN, facts(special_texts={"<|im_start|>", "<|im_end|>"}), None)
    blind = select_family(BUILT_IN, facts(), None)

    assert by_tokens.family is BUILT_IN["chatml"]
    assert "family chatml is a guess" in (by_tokens.warning or "")
    assert blind.family is BUILT_IN["human-assistant"]
    assert "family human-assistant is a guess" in (blind.warning or "")


def test_sampling_defaults_come_with_the_family() -> None:
    gemma = BUILT_IN["gemma"].sampling

    assert type(gemma) is Sampling
    assert gemma == Sampling(temperature=1.0, top_k=64, top_p=0.95)


def test_the_readme_of_the_families_names_every_key() -> None:
    text = (templates_directory() / "README.md").read_text(encoding="utf-8")
    sidecar = SIDECAR_KEYS - {"selection", "sampling", "capabilities", "reply"}

    for key in sidecar | set(Selection.__struct_fields__):
        assert f"`{key}`" in text
    assert all(f"`[{table}]`" in text for table in SIDECAR_KEYS - sidecar)
