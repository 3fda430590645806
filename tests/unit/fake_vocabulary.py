"""A tokenizer of characters and given special tokens, matching them as llama.cpp does."""

from collections.abc import Sequence

from server.core.vocabulary import SpecialToken, TokenType

_FIRST_CHARACTER = 100_000


class FakeVocabulary:
    """Ids below 100,000 are the special tokens in order, those above single characters."""

    add_space_prefix = False
    size = _FIRST_CHARACTER + 0x110000

    def __init__(
        self,
        special: Sequence[tuple[str, TokenType]] = (),
        *,
        bos: str | None = None,
        eos: str | None = None,
        add_bos: bool = False,
        fill_in_the_middle: tuple[int, int, int] | None = None,
        swallows_right: Sequence[str] = (),
    ) -> None:
        self.special_tokens = [
            SpecialToken(number, text, kind) for number, (text, kind) in enumerate(special)
        ]
        self._by_text = {token.text: token for token in self.special_tokens}
        self.bos = None if bos is None else self._by_text[bos].id
        self.eos = None if eos is None else self._by_text[eos].id
        self.add_bos = add_bos
        self.fill_in_the_middle = fill_in_the_middle
        self._swallows_right = swallows_right
        self.calls: list[str] = []

    def text(self, token: int) -> str:
        if token < _FIRST_CHARACTER:
            return self.special_tokens[token].text
        return chr(token - _FIRST_CHARACTER)

    def piece(self, token: int) -> bytes:
        return self.text(token).encode()

    def id(self, text: str) -> int:
        return self._by_text[text].id

    def texts(self, tokens: Sequence[int]) -> list[str]:
        """The tokens as texts, neighbouring characters joined."""
        found: list[str] = []
        was_special = True
        for token in tokens:
            is_special = token < _FIRST_CHARACTER
            if is_special or was_special:
                found.append("")
            found[-1] += self.text(token)
            was_special = is_special
        return found

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        self.calls.append(text)
        parts: list[str | int] = [text]
        for token in sorted(self.special_tokens, key=lambda token: -len(token.text)):
            if token.type == "user_defined" or parse_special:
                parts = [piece for part in parts for piece in self._split(part, token)]
        ids: list[int] = []
        for part in parts:
            ids += [part] if isinstance(part, int) else [_FIRST_CHARACTER + ord(c) for c in part]
        return ids

    def fewest_tokens(self, text: str, limit: int) -> int:
        longest = max([1, *(len(token.text) for token in self.special_tokens)])
        fewest = -(-len(text) // longest)
        return fewest if fewest > limit else 0

    def _split(self, part: str | int, token: SpecialToken) -> list[str | int]:
        if isinstance(part, int):
            return [part]
        first, *others = part.split(token.text)
        pieces: list[str | int] = [first]
        for other in others:
            swallow = token.text in self._swallows_right
            pieces += [token.id, other.lstrip() if swallow else other]
        return pieces

    def is_end_of_generation(self, token: int) -> bool:
        return token == self.eos
