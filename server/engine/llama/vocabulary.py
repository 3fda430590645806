"""A model's tokenizer."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import llama_cpp
from llguidance import LLTokenizer

from server.core.vocabulary import SpecialToken, TokenType
from server.engine.llama.big_stack import with_big_stack
from server.engine.llama.token_attributes import token_attributes

if TYPE_CHECKING:
    from server.engine.llama.word_pieces import WordPieces

_SPECIAL_TYPES: dict[int, TokenType] = {
    llama_cpp.LLAMA_TOKEN_ATTR_CONTROL: "control",
    llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN: "unknown",
    llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED: "user_defined",
}
_SPECIAL_BITS = sum(_SPECIAL_TYPES)
# Tokenizers that keep every byte; others fold whole words or runs of white space into one token.
_VERBATIM_TYPES = {llama_cpp.LLAMA_VOCAB_TYPE_SPM, llama_cpp.LLAMA_VOCAB_TYPE_BPE}
# Tokens that absorb the white space beside them.
_STRIPPING_BITS = llama_cpp.LLAMA_TOKEN_ATTR_LSTRIP | llama_cpp.LLAMA_TOKEN_ATTR_RSTRIP
_WHITE_SPACE = b" \t\n\v\f\r"
# Shorter texts do not overflow a default stack of a few megabytes; a choice.
_BIG_STACK_FROM_CHARACTERS = 8_000
_KEYS = "tokenizer.ggml."
# A choice: reading so many takes a millisecond.
_SAMPLED_PIECES = 1024


class LlamaVocabulary:
    """A model's tokenizer (see `server.core.vocabulary.Vocabulary`)."""

    def __init__(self, model: Any, metadata: Mapping[str, str]) -> None:
        """``model`` is a llama_model pointer, valid as long as this is used."""
        self._pointer = llama_cpp.llama_model_get_vocab(model)
        self.size = int(llama_cpp.llama_vocab_n_tokens(self._pointer))
        self._stated = {
            key.removeprefix(_KEYS): value
            for key, value in metadata.items()
            if key.startswith(_KEYS)
        }
        self.bos = self._stated_token(llama_cpp.llama_vocab_bos, "bos", "cls")
        self.eos = self._stated_token(llama_cpp.llama_vocab_eos, "eos")
        self.add_bos = self.bos is not None and bool(
            llama_cpp.llama_vocab_get_add_bos(self._pointer)
        )
        self._type = llama_cpp.llama_vocab_type(self._pointer)
        is_spm = self._type == llama_cpp.LLAMA_VOCAB_TYPE_SPM
        self.add_space_prefix = (
            metadata.get("tokenizer.ggml.add_space_prefix", str(is_spm).lower()) == "true"
        )
        #: Whether the first token of a text has a space that the text does not begin with.
        self.begins_with_space = (
            self.add_space_prefix or self._type == llama_cpp.LLAMA_VOCAB_TYPE_WPM
        )
        self._pieces: dict[int, bytes] = {}

    def _token_or_none(self, getter: Callable[[Any], int]) -> int | None:
        token = int(getter(self._pointer))
        return None if token == llama_cpp.LLAMA_TOKEN_NULL else token

    def _stated_token(self, getter: Callable[[Any], int], *names: str) -> int | None:
        """The token, if the file names it under one of ``names``.

        Otherwise llama.cpp has a default, which stands for some word in other vocabularies.
        """
        stated = any(f"{name}_token_id" in self._stated for name in names)
        return self._token_or_none(getter) if stated else None

    @cached_property
    def special_tokens(self) -> list[SpecialToken]:
        """All CONTROL, UNKNOWN and USER_DEFINED tokens, by id."""
        special = token_attributes(self._pointer, self.size) & _SPECIAL_BITS
        tokens = special.nonzero()[0]
        found = []
        for token, bits in zip(tokens.tolist(), special[tokens].tolist(), strict=True):
            kind = next(name for bit, name in _SPECIAL_TYPES.items() if bits & bit)
            found.append(SpecialToken(token, self.text(token), kind))
        return found

    @cached_property
    def end_of_generation_tokens(self) -> frozenset[int]:
        """Every token that ends an answer."""
        # llama.cpp makes each token that it knows by its text a control token; others end answers
        # only where the file names them. So its default counts only where it is no text.
        candidates = {token.id for token in self.special_tokens} | self._named_tokens
        is_end = llama_cpp.llama_vocab_is_eog
        return frozenset(token for token in candidates if is_end(self._pointer, token))

    @property
    def _named_tokens(self) -> set[int]:
        """The tokens that the file names by their ids, as BOS, EOS or any other."""
        stated = [value for key, value in self._stated.items() if key.endswith("_token_id")]
        digits = len(str(self.size))  # a hostile file states more than Python reads as a number
        return {int(value) for value in stated if value.isdecimal() and len(value) <= digits}

    @cached_property
    def fill_in_the_middle(self) -> tuple[int, int, int] | None:
        """The prefix, suffix and middle tokens, where the vocabulary has all three."""
        tokens = tuple(
            self._token_or_none(getter)
            for getter in (
                llama_cpp.llama_vocab_fim_pre,
                llama_cpp.llama_vocab_fim_suf,
                llama_cpp.llama_vocab_fim_mid,
            )
        )
        prefix, suffix, middle = tokens
        if prefix is None or suffix is None or middle is None:
            return None
        return prefix, suffix, middle

    def guidance_tokenizer(self) -> Any:
        """The tokenizer in llguidance's form; building it takes 0.2 s at 49k, 1.6 s at 262k tokens.

        A grammar may end with any end-of-generation token, not only EOS. CONTROL and UNKNOWN tokens
        are not text; a leading byte that UTF-8 never contains tells llguidance so. USER_DEFINED
        tokens are text; llguidance's own adapter would ban them (``<b>``, say) from every string.
        """
        ends = sorted(self.end_of_generation_tokens)
        no_text = {each.id for each in self.special_tokens if each.type != "user_defined"}
        return LLTokenizer.from_llamacpp(
            tokens=[
                b"\xff" * (token in no_text) + self._read_piece(token) for token in range(self.size)
            ],
            vocab_ptr=self._pointer,
            tokenize_fptr=ctypes.cast(
                llama_cpp.llama_cpp._lib.llama_tokenize,  # noqa: SLF001 - it asks for the address
                ctypes.c_void_p,
            ).value,
            eos_token=ends or llama_cpp.llama_vocab_eos(self._pointer),
            slices=None,
        )

    def text(self, token: int) -> str:
        """The token as the vocabulary writes it: ``<|im_end|>``, for example."""
        raw: bytes | None = llama_cpp.llama_vocab_get_text(self._pointer, token)
        return (raw or b"").decode("utf-8", "replace")

    def piece(self, token: int) -> bytes:
        """The bytes the token stands for in text, control tokens included."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token)
        return piece

    def _read_piece(self, token: int) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = llama_cpp.llama_token_to_piece(self._pointer, token, buffer, size, 0, True)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def tokenize(self, text: str, *, parse_special: bool, add_special: bool = False) -> list[int]:
        """Token ids of ``text``.

        ``add_special`` adds the tokens that the vocabulary wants around a text: BOS and EOS, or
        [CLS] and [SEP]. With ``parse_special``, control tokens in the text are recognised.
        """
        if len(text) >= _BIG_STACK_FROM_CHARACTERS:
            return with_big_stack(lambda: self._tokenize(text, parse_special, add_special))
        return self._tokenize(text, parse_special, add_special)

    def fewest_tokens(self, text: str, limit: int) -> int:
        """A lower bound of the number of tokens in ``text``, found without tokenising it.

        It is the text's bytes divided by those of the longest piece; 0 if that is not more than
        ``limit``, and where tokens may stand for text of any length.
        """
        if self._type not in _VERBATIM_TYPES:
            return 0
        encoded = text.encode()
        if len(encoded) <= limit * self._long_piece:
            return 0
        longest, ignored = self._longest_piece
        fewest = -(-len(encoded.translate(None, ignored)) // longest)
        return fewest if fewest > limit else 0

    @cached_property
    def _long_piece(self) -> int:
        """The length in bytes of the longest piece among some that are spread over the vocabulary.

        Reading all takes 0.45 s with 262k tokens, and few texts are so long that it is needed.
        """
        sample = range(0, self.size, max(1, self.size // _SAMPLED_PIECES))
        return max([1, *(len(self._read_piece(token)) for token in sample)])

    @cached_property
    def _longest_piece(self) -> tuple[int, bytes]:
        """The length of the longest piece in bytes, and the bytes that may belong to no token.

        BPE drops bytes that have no token of their own; white space may be absorbed by a token
        beside it.
        """
        longest, ignored, absorbed = 1, set(range(256)), set[int]()
        for token in range(self.size):
            piece = self._read_piece(token) or self.text(token).encode()
            longest = max(longest, len(piece))
            if len(piece) == 1:
                ignored.discard(piece[0])
            if llama_cpp.llama_vocab_get_attr(self._pointer, token) & _STRIPPING_BITS:
                absorbed.update(_WHITE_SPACE)
        return longest, bytes(ignored | absorbed)

    @cached_property
    def _word_pieces(self) -> WordPieces | None:
        """BERT's tokenizer, if the vocabulary is of its kind and names its unknown token."""
        unknown = int(self._stated.get("unknown_token_id", self.size))
        if self._type != llama_cpp.LLAMA_VOCAB_TYPE_WPM or unknown >= self.size:
            return None
        # Embedding alone needs the library, which takes 30 ms to import.
        from server.engine.llama.word_pieces import WordPieces  # noqa: PLC0415

        tokens = [self.text(token) for token in range(self.size)]
        special = [token.id for token in self.special_tokens]
        return WordPieces(tokens, unknown=unknown, special=special)

    def _tokenize(self, text: str, parse_special: bool, add_special: bool) -> list[int]:
        if self._word_pieces is not None:
            ids = self._word_pieces.ids(text, parse_special=parse_special)
            return self._between_ends(ids) if add_special else ids
        raw = text.encode("utf-8")
        room = len(raw) + 2
        while True:
            tokens = (llama_cpp.llama_token * room)()
            count = llama_cpp.llama_tokenize(
                self._pointer, raw, len(raw), tokens, room, add_special, parse_special
            )
            if count >= 0:
                return list(tokens[:count])
            room = -count

    def _between_ends(self, ids: list[int]) -> list[int]:
        """BERT's text: between [CLS] and [SEP]."""
        start = [] if self.bos is None else [self.bos]
        return [*start, *ids, *self._separator]

    @cached_property
    def pair_ends(self) -> tuple[list[int], list[int], list[int]]:
        """The tokens before, between and after two texts that a model reads as a pair.

        BERT has ``[CLS] a [SEP] b [SEP]``, RoBERTa and its kin ``<s> a </s></s> b </s>``.
        llama.cpp's server leaves the last one out for BERT, which was trained with it.
        """
        eos = [] if self.eos is None else [self.eos]
        start = [] if self.bos is None else [self.bos]
        if self._type == llama_cpp.LLAMA_VOCAB_TYPE_WPM or not self._adds_eos:
            return start, self._separator, self._separator
        # Files of before llama.cpp knew the key are of XLM-R, whose separator is EOS.
        doubles = llama_cpp.llama_vocab_get_add_sep(self._pointer) or (
            "add_sep_token" not in self._stated and self._type == llama_cpp.LLAMA_VOCAB_TYPE_UGM
        )
        return start, [*eos, *((self._separator or eos) if doubles else [])], eos

    @property
    def _adds_eos(self) -> bool:
        return bool(llama_cpp.llama_vocab_get_add_eos(self._pointer))

    @cached_property
    def _separator(self) -> list[int]:
        """The separator of BERT and its kin, if the file names one."""
        # llama.cpp and GGUF's writer both spell the key like this.
        sep = self._stated_token(llama_cpp.llama_vocab_sep, "seperator", "sep")
        return [] if sep is None else [sep]

    def is_end_of_generation(self, token: int) -> bool:
        """Whether generating the token ends an answer."""
        return token in self.end_of_generation_tokens

    def is_control(self, token: int) -> bool:
        """Whether the token is a control token."""
        return bool(llama_cpp.llama_vocab_is_control(self._pointer, token))
