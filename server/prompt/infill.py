"""Prompts that have a model fill a gap in a text, as data in ``templates/infill``.

Which tokens mark what is before the gap, what is behind it and the gap itself, and in which order
they come, differs from family to family; so does the form of other files that a model was shown in
training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from server.core.errors import InvalidRequest
from server.core.request import TextPrompt
from server.core.vocabulary import Vocabulary
from server.prompt.families.named import NamedFamily, check_places, named_families

_FOLDER = "infill"
# llama.cpp's server has these names, too; models were trained with some name in their place.
_REPOSITORY, _CURRENT = "myproject", "filename"
# Stands before a text so that the vocabulary puts its own space before this, not before the text
# (Code Llama's `encode_infilling`).
_SHIELD = "\u263a"


class InfillForm(NamedFamily, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a family's models are asked to fill a gap.

    Attributes:
        controls: The texts in it that are control tokens; a vocabulary must have all of them.
        template: The prompt, with ``{prefix}``, ``{suffix}`` and ``{files}`` in their places.
        names: As in `NamedFamily`; without any, all models that have the tokens.
        repository: What stands before the first of other files, with ``{name}``.
        file: Another file, with ``{name}`` and ``{text}``.
        current: What stands behind other files and names the one with the gap.
    """

    controls: list[str]
    template: str
    names: list[str] = msgspec.field(default_factory=list)
    repository: str = ""
    file: str = "{name}\n{text}\n"
    current: str = ""

    def __post_init__(self) -> None:
        check_places(self.template, ("{prefix}", "{suffix}", "{files}"))


def infill_form(
    directories: Sequence[Path], vocabulary: Vocabulary, names: Sequence[str]
) -> InfillForm | None:
    """The form for the model of these ``names``; later directories come first.

    Forms that name models come before those that only want tokens. A model without one may still
    have tokens of the usual order (`Vocabulary.fill_in_the_middle`).

    Raises:
        FamilyError: A file is wrong.
    """
    known = {token.text for token in vocabulary.special_tokens}
    for directory in reversed(directories):
        forms = named_families(directory / _FOLDER, InfillForm)
        for form in sorted(forms, key=lambda form: not form.names):
            if known.issuperset(form.controls) and (form.fits(names) or not form.names):
                return form
    return None


def infill_tokens(prompt: TextPrompt, vocabulary: Vocabulary, form: InfillForm | None) -> list[int]:
    """The tokens of a prompt with a suffix, without BOS.

    Raises:
        InvalidRequest: The model has no tokens for a gap.
    """
    ids = {token.text: token.id for token in vocabulary.special_tokens}
    if form is None:
        form, ids = _usual_form(vocabulary)
    tokens: list[int] = []
    for piece in _pieces(form, prompt):
        if piece.control:
            tokens.append(ids[piece.text])
        elif piece.text:
            tokens += _spelt(vocabulary, piece.text, prompt, spaced=piece.prefix or not tokens)
    return tokens


def infill_ends(vocabulary: Vocabulary, form: InfillForm | None) -> list[int]:
    """The tokens of the form, none of which belongs to what fills a gap."""
    if form is None:
        return list(vocabulary.fill_in_the_middle or ())
    return [token.id for token in vocabulary.special_tokens if token.text in form.controls]


def _usual_form(vocabulary: Vocabulary) -> tuple[InfillForm, dict[str, int]]:
    """Prefix, suffix and gap, each behind its token; and these tokens by their texts."""
    if vocabulary.fill_in_the_middle is None:
        raise InvalidRequest(
            "The model has no fill-in-the-middle tokens, so it cannot take a suffix.",
            at=("suffix",),
        )
    controls = [vocabulary.text(token) for token in vocabulary.fill_in_the_middle]
    before, behind, gap = controls
    template = f"{{files}}{before}{{prefix}}{behind}{{suffix}}{gap}"
    form = InfillForm(description="", source="", controls=controls, template=template)
    return form, dict(zip(controls, vocabulary.fill_in_the_middle, strict=True))


class _Piece(msgspec.Struct):
    """A control token, or the text between two of them; ``prefix``: the text before the gap."""

    text: str = ""
    control: bool = False
    prefix: bool = False


def _pieces(form: InfillForm, prompt: TextPrompt) -> list[_Piece]:
    """The form, filled with the texts of ``prompt``, in which nothing is replaced."""
    names = "|".join(map(re.escape, sorted(form.controls, key=len, reverse=True)))
    split = re.compile(rf"({names}|\{{(?:files|prefix|suffix|name|text)\}})")
    row = [_Piece()]

    def add(template: str, texts: dict[str, str]) -> None:
        for part in split.split(template):
            if part in form.controls:
                row.extend([_Piece(part, control=True), _Piece()])
            elif part == "{files}":
                add_files()
            else:
                row[-1].text += texts.get(part, part)
                row[-1].prefix |= part == "{prefix}"

    def add_files() -> None:
        if not prompt.files:
            return
        add(form.repository, {"{name}": _REPOSITORY})
        for file in prompt.files:
            add(form.file, {"{name}": file.name, "{text}": file.text})
        add(form.current, {"{name}": _CURRENT})

    add(form.template, {"{prefix}": prompt.text, "{suffix}": prompt.suffix or ""})
    return row


def _spelt(vocabulary: Vocabulary, text: str, prompt: TextPrompt, *, spaced: bool) -> list[int]:
    """The tokens of ``text``, with the space that the vocabulary puts in front if ``spaced``."""
    parse = not prompt.literal
    if not spaced and vocabulary.add_space_prefix:
        shield = vocabulary.tokenize(_SHIELD, parse_special=False)
        tokens = vocabulary.tokenize(_SHIELD + text, parse_special=parse)
        if tokens[: len(shield)] == shield:
            return tokens[len(shield) :]
    return vocabulary.tokenize(text, parse_special=parse)
