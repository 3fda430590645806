"""Prompts that have a model fill a gap, in the forms of families."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.core.errors import InvalidRequest
from server.core.request import SourceFile, TextPrompt
from server.core.resources import templates_directory
from server.core.vocabulary import SpecialToken
from server.prompt.families.definitions import FamilyError
from server.prompt.infill import InfillForm, infill_ends, infill_form, infill_tokens
from tests.unit.fake_vocabulary import FakeVocabulary

FOLDERS = [templates_directory()]
NAMES = sorted(path.stem for path in (FOLDERS[0] / "infill").glob("*.toml"))
FILES = [SourceFile("a.py", "A"), SourceFile("b.py", "B")]


def form_named(name: str) -> tuple[InfillForm, FakeVocabulary]:
    """A form, as a model with its control tokens and name gets it."""
    import tomllib

    table = tomllib.loads((FOLDERS[0] / "infill" / f"{name}.toml").read_text("utf-8"))
    vocabulary = FakeVocabulary([(text, "control") for text in table["controls"]])
    names = [pattern.strip("\\b") for pattern in table.get("names", [])]
    form = infill_form(FOLDERS, vocabulary, names[:1] or ["x"])
    assert form is not None
    assert form.description == table["description"]
    return form, vocabulary


def filled(name: str, prompt: TextPrompt) -> str:
    form, vocabulary = form_named(name)
    return "".join(vocabulary.texts(infill_tokens(prompt, vocabulary, form)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("codegemma", "<|fim_prefix|>x=<|fim_suffix|>;<|fim_middle|>"),
        ("codellama", "▁<PRE>x=▁<SUF>;▁<MID>"),
        ("codestral", "[SUFFIX];[PREFIX]x="),
        ("deepseek-coder", "<｜fim▁begin｜>x=<｜fim▁hole｜>;<｜fim▁end｜>"),
        ("granite", "<|fim_prefix|>x=<|fim_suffix|>;<|fim_middle|>"),
        ("mellum", "<fim_suffix>;<fim_prefix>x=<fim_middle>"),
        ("qwen-coder", "<|fim_prefix|>x=<|fim_suffix|>;<|fim_middle|>"),
        ("seed-coder", "<[fim-suffix]>;<[fim-prefix]>x=<[fim-middle]>"),
        ("starcoder", "<fim_prefix>x=<fim_suffix>;<fim_middle>"),
        ("starcoder2", "<fim_prefix>x=<fim_suffix>;<fim_middle>"),
    ],
)
def test_every_family_has_its_order(name: str, expected: str) -> None:
    assert filled(name, TextPrompt(text="x=", suffix=";")) == expected
    assert name in NAMES


def test_every_family_is_tried() -> None:
    assert len(NAMES) == 10


@pytest.mark.parametrize(
    ("name", "before"),
    [
        (
            "qwen-coder",
            (
                "<|repo_name|>myproject\n<|file_sep|>a.py\nA\n<|file_sep|>b.py\nB\n"
                "<|file_sep|>filename\n<|fim_prefix|>x="
            ),
        ),
        (
            "starcoder2",
            (
                "<repo_name>myproject<file_sep>a.py\nA\n<file_sep>b.py\nB\n<file_sep>filename\n"
                "<fim_prefix>x="
            ),
        ),
        ("deepseek-coder", "#a.py\nA\n#b.py\nB\n#filename\n<｜fim▁begin｜>x="),
        ("codegemma", "a.py\nA\n<|file_separator|>b.py\nB\n<|file_separator|>filename\n"),
        ("codellama", "a.py\nA\nb.py\nB\n▁<PRE>x="),
        ("codestral", "[SUFFIX];[PREFIX]+++++ a.py\nA\n+++++ b.py\nB\n+++++ filename\nx="),
    ],
)
def test_other_files_stand_where_models_saw_them_in_training(name: str, before: str) -> None:
    found = filled(name, TextPrompt(text="x=", suffix=";", files=FILES))
    assert found.startswith(before)


def test_a_vocabulary_with_the_usual_tokens_needs_no_family() -> None:
    texts = ["<P>", "<S>", "<M>"]
    vocabulary = FakeVocabulary([(text, "control") for text in texts], fill_in_the_middle=(0, 1, 2))
    assert infill_form(FOLDERS, vocabulary, ["x"]) is None
    prompt = TextPrompt(text="x=", suffix=";", files=FILES[:1])
    found = vocabulary.texts(infill_tokens(prompt, vocabulary, None))
    assert found == ["a.py\nA\n", "<P>", "x=", "<S>", ";", "<M>"]
    assert infill_ends(vocabulary, None) == [0, 1, 2]


def test_without_such_tokens_a_suffix_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no fill-in-the-middle tokens") as caught:
        infill_tokens(TextPrompt(text="x", suffix=";"), FakeVocabulary(), None)
    assert caught.value.at == ("suffix",)


def test_literal_texts_have_no_control_tokens_and_others_do() -> None:
    form, vocabulary = form_named("qwen-coder")
    middle = vocabulary.id("<|fim_middle|>")
    for literal, count in ((True, 1), (False, 3)):
        prompt = TextPrompt(text="<|fim_middle|>", suffix="<|fim_middle|>", literal=literal)
        assert infill_tokens(prompt, vocabulary, form).count(middle) == count


def test_nothing_is_replaced_in_the_texts() -> None:
    prompt = TextPrompt(text="{suffix}{name}", suffix="{prefix}", files=[SourceFile("{text}", "a")])
    found = filled("qwen-coder", prompt)
    assert "<|file_sep|>{text}\na\n" in found
    assert "<|fim_prefix|>{suffix}{name}<|fim_suffix|>{prefix}<|fim_middle|>" in found


class SpacedVocabulary(FakeVocabulary):
    """Puts a space in front of each text, as Llama's tokenizer does."""

    add_space_prefix = True

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        return super().tokenize(f" {text}", parse_special=parse_special)


def test_only_the_text_before_the_gap_has_the_vocabularys_own_space() -> None:
    form, _ = form_named("codellama")
    vocabulary = SpacedVocabulary([(text, "control") for text in form.controls])
    tokens = infill_tokens(TextPrompt(text="x=", suffix=" ;"), vocabulary, form)
    assert vocabulary.texts(tokens) == ["▁<PRE>", " x=", "▁<SUF>", " ;", "▁<MID>"]


def test_no_token_of_the_form_belongs_to_the_answer() -> None:
    form, vocabulary = form_named("starcoder2")
    ends = {vocabulary.text(token) for token in infill_ends(vocabulary, form)}
    assert ends == set(form.controls)


def test_names_decide_between_families_of_the_same_tokens() -> None:
    special = [SpecialToken(0, text, "control") for text in ("[SUFFIX]", "[PREFIX]")]
    vocabulary = FakeVocabulary([(token.text, token.type) for token in special])
    assert infill_form(FOLDERS, vocabulary, ["Mistral-7B-v0.3"]) is None
    assert infill_form(FOLDERS, vocabulary, ["Codestral-22B"]) is not None
    starcoder, vocabulary = form_named("starcoder")
    assert infill_form(FOLDERS, vocabulary, ["granite-8b-code"]) == starcoder
    assert infill_form(FOLDERS, vocabulary, ["Mellum-4b"]) != starcoder


def test_a_wrong_form_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "infill").mkdir()
    (tmp_path / "infill" / "mine.toml").write_text(
        'description = "d"\nsource = "s"\ncontrols = []\ntemplate = "{prefix}{suffix}"\n'
    )
    with pytest.raises(FamilyError, match=r"mine\.toml: there is no \{files\}"):
        infill_form([*FOLDERS, tmp_path], FakeVocabulary(), ["x"])
