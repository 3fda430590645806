"""How a model ranks: its prompt, and where its verdict is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from server.core.model_kind import named_for_ranking
from server.core.resources import templates_directory
from server.engine.llama import Head, LoadError
from server.engine.llama.token_types import StoredRows, TypedEmbeddings
from server.library.discovery import model_of
from server.library.gguf import read_tensors
from server.library.header import StoredTensor
from server.prompt.pairs import Ends, PairPrompt, PlainPairs, TemplatePairs
from server.prompt.ranking_families import RankingFamily, ranking_family
from server.worker.serve.opening import OpenedModel

_TEMPLATE = "tokenizer.chat_template.rerank"
_TOKENS, _TYPES = "token_embd.weight", "token_types.weight"
# Names of a classifier's outputs that speak for a document.
_FOR = {"yes", "true", "relevant", "positive", "label_1", "1"}
# llama.cpp makes probabilities of the outputs of these (llm_graph_context::build_pooling).
_PROBABILITIES = {"qwen3", "qwen3vl"}
_INSTRUCTION = re.compile(r"(?<=<Instruct>: )[^\n{}]+(?=\n)")


@dataclass(frozen=True, slots=True)
class RankingMethod:
    """How a model is asked, where its verdict is, and what its users should know of it.

    ``typed`` is for models that tell the two texts of a pair apart.
    """

    pairs: PairPrompt
    head: Head
    typed: TypedEmbeddings | None = None
    warnings: Sequence[str] = ()


def ranks(opened: OpenedModel) -> bool:
    """Whether a model was made to rank.

    Its file says so or, where a converter left the head out, its name does.
    """
    model = opened.model
    if model.made_to_rank:
        return True
    return model.pooling is None and named_for_ranking(*_names(opened))


def ranking_method(opened: OpenedModel) -> RankingMethod:
    """How ``opened`` ranks.

    Raises:
        LoadError: It has no head, and it is not known how it is asked in words; or the head sorts
            texts into other classes.
        FamilyError: A file of data is wrong.
        InvalidGguf, OSError: The file cannot be read any more.
    """
    directories = [templates_directory(), *map(Path, opened.request.settings.template_dirs)]
    family = ranking_family(directories, _names(opened))
    if opened.header.tensors.classifies:
        pairs = _pairs(opened, family)
        typed = _typed(opened) if isinstance(pairs, PlainPairs) else None
        return RankingMethod(pairs=pairs, head=_classifier(opened), typed=typed)
    if not opened.model.reads_in_parts or family is None:
        raise LoadError(
            "this reranker's head is missing from the file (cls.output.weight), and how to ask it "
            "in words is not known; convert it with a newer llama.cpp"
        )
    yes, no = _word(opened, family.yes), None if family.no is None else _word(opened, family.no)
    head = Head(yes=yes, no=no, words=True)
    words = f"{family.yes!r} and {family.no!r}" if family.no else f"{family.yes!r}"
    warning = (
        f"The file has no classifier (cls.output.weight): scores come from the logits of {words}."
    )
    return RankingMethod(pairs=_pairs(opened, family), head=head, warnings=[warning])


def _names(opened: OpenedModel) -> list[str]:
    return [opened.header.name or "", Path(opened.request.path).name]


def _pairs(opened: OpenedModel, family: RankingFamily | None) -> PairPrompt:
    """The file's own template, that of its family, or the separators of its vocabulary."""
    vocabulary = opened.model.vocabulary
    if own := opened.model.metadata.get(_TEMPLATE):
        found = _INSTRUCTION.search(own)
        template = _INSTRUCTION.sub("{instruction}", own, count=1)
        return TemplatePairs(vocabulary, template, found[0] if found else "")
    if family is not None:
        return TemplatePairs(vocabulary, family.template, family.instruction)
    return PlainPairs(vocabulary, Ends(*vocabulary.pair_ends))


def _classifier(opened: OpenedModel) -> Head:
    classes = [name.casefold() for name in opened.model.classes]
    probabilities = opened.header.architecture in _PROBABILITIES
    match classes:
        case [_]:
            return Head(yes=0, no=None, words=False)
        case [first, _]:
            # Without names the second speaks for a document, as in classifiers of two classes.
            yes = 0 if first in _FOR else 1
            return Head(yes=yes, no=1 - yes, words=False, probabilities=probabilities)
    raise LoadError(
        f"this model sorts texts into {len(classes)} classes ({', '.join(classes)[:100]}); "
        "it does not rank them"
    )


def _word(opened: OpenedModel, word: str) -> int:
    """The token of ``word``. Raises LoadError where it is none."""
    tokens = opened.model.vocabulary.tokenize(word, parse_special=False)
    if len(tokens) != 1:
        raise LoadError(f"this reranker's head is missing, and {word!r} is no token of its own")
    return tokens[0]


def _typed(opened: OpenedModel) -> TypedEmbeddings | None:
    """The embeddings of a model whose tokenizer gives the texts of a pair different types.

    Of those that llama.cpp reads, that is BERT's own, WordPiece. RoBERTa and its kin have one type.
    """
    if opened.header.text("tokenizer.ggml.model") != "bert":
        return None
    stored: dict[str, StoredRows] = {}
    for path in model_of(Path(opened.request.path)).files:
        for name, tensor in read_tensors(path).items():
            if name in (_TOKENS, _TYPES) and len(tensor.shape) == 2:
                stored[name] = _stored_rows(path, tensor)
    if _TOKENS not in stored or len(stored.get(_TYPES, ())) < 2:
        return None
    return TypedEmbeddings(stored[_TOKENS], stored[_TYPES])


def _stored_rows(path: Path, tensor: StoredTensor) -> StoredRows:
    width, rows = tensor.shape
    data = np.memmap(path, np.uint8, "r", tensor.offset, (rows, tensor.bytes // rows))
    return StoredRows(data, width, tensor.type)
