from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.core.request import CacheScope
from server.prompt.turn_reader import Reading
from server.prompt.written_answers import WrittenAnswers
from tests.unit.fake_vocabulary import FakeVocabulary

SCOPE = CacheScope()
TURN, END, CALL = 0, 1, 2
# A token of one byte, which no text in UTF-8 has.
NO_TEXT = 7
_PAIRS = 1 << 21


class PairVocabulary(FakeVocabulary):
    """Besides characters, has a token for every pair of ASCII letters; it cuts texts into pairs."""

    size = _PAIRS + 128 * 128

    def __init__(self) -> None:
        special = [("<turn>", "control"), ("<end>", "control"), ("<call>", "user_defined")]
        super().__init__(special, eos="<end>")  # type: ignore[arg-type]

    def pair(self, text: str) -> int:
        return _PAIRS + ord(text[0]) * 128 + ord(text[1])

    def piece(self, token: int) -> bytes:
        if token == NO_TEXT:
            return b"\xff"
        if token < _PAIRS:
            return super().piece(token)
        return bytes(divmod(token - _PAIRS, 128))

    def pairs(self, text: str) -> list[int]:
        """``text`` as a tokenizer would cut it."""
        whole = len(text) // 2 * 2
        pairs = [self.pair(text[i : i + 2]) for i in range(0, whole, 2)]
        return pairs + self.letters(text[whole:])

    def letters(self, text: str) -> list[int]:
        """``text`` as a model may write it."""
        return self.tokenize(text, parse_special=False)

    def spelled(self, text: str) -> list[int]:
        """``text`` in characters only, as the guard cuts it."""
        return [token for letter in text for token in self.letters(letter)]


VOCABULARY = PairVocabulary()


def memory(most_tokens: int = 1000) -> WrittenAnswers:
    return WrittenAnswers(VOCABULARY, most_tokens=most_tokens)


def said(tokens: list[int]) -> bytes:
    return b"".join(VOCABULARY.piece(token) for token in tokens)


def no_message(_: Sequence[int], __: str) -> None:
    """A reading that makes no message of any turn, so that only equal bytes say the same."""


def in_lower_case(tokens: Sequence[int], _: str) -> bytes:
    """A reading for which capital letters make no difference."""
    return said([*tokens]).lower()


def remember(
    answers: WrittenAnswers,
    prompt: list[int],
    answer: list[int],
    scope: CacheScope = SCOPE,
    reading: Reading = no_message,
) -> None:
    tokens = np.array(prompt + answer, dtype=np.int32)
    answers.remember(scope, reading, "", tokens, len(prompt))


def put_back(
    answers: WrittenAnswers, prompt: list[int], reading: Reading = no_message
) -> list[int]:
    return answers.put_back(SCOPE, reading, prompt)


ASKED = [TURN, *VOCABULARY.pairs("u:hi"), END, TURN, *VOCABULARY.pairs("a:")]
WRITTEN = [*VOCABULARY.letters("hel"), *VOCABULARY.pairs("lo")]
HISTORY = [*ASKED, *VOCABULARY.pairs("hello"), END, TURN, *VOCABULARY.pairs("u:more")]


def test_an_answer_comes_back_in_the_tokens_it_was_written_in() -> None:
    answers = memory()
    remember(answers, ASKED, WRITTEN)
    prompt = put_back(answers, HISTORY)
    assert prompt[: len(ASKED) + len(WRITTEN)] == ASKED + WRITTEN
    assert prompt[len(ASKED) + len(WRITTEN) :] == HISTORY[len(ASKED) + 3 :]


def test_all_answers_of_a_conversation_come_back() -> None:
    answers = memory()
    remember(answers, ASKED, WRITTEN)
    second = [*ASKED, *WRITTEN, END, TURN, *VOCABULARY.pairs("u:and"), END, *ASKED[-2:]]
    remember(answers, second, VOCABULARY.letters("bye"))
    text = VOCABULARY.pairs("hello"), VOCABULARY.pairs("u:and"), VOCABULARY.pairs("bye")
    history = [*ASKED, *text[0], END, TURN, *text[1], END, *ASKED[-2:], *text[2], END]
    assert put_back(answers, history) == [*second, *VOCABULARY.letters("bye"), END]


def test_an_opening_that_the_tokenizer_joins_with_the_answer_comes_back_too() -> None:
    answers = memory()
    prompt = [TURN, *VOCABULARY.letters("a:x")]
    remember(answers, prompt, VOCABULARY.letters("yz"))
    history = [TURN, *VOCABULARY.pairs("a:xyz"), END]
    assert put_back(answers, history) == [*prompt, *VOCABULARY.letters("yz"), END]


def test_of_an_answer_that_was_changed_the_unchanged_beginning_comes_back() -> None:
    answers = memory()
    remember(answers, ASKED, VOCABULARY.letters("abcdefgh"))
    history = [*ASKED, *VOCABULARY.pairs("abcdXfgh"), END]
    expected = [*ASKED, *VOCABULARY.letters("abcd"), *VOCABULARY.pairs("Xfgh"), END]
    assert put_back(answers, history) == expected


def test_text_that_spells_a_special_token_never_becomes_one() -> None:
    answers = memory()
    remember(answers, ASKED, [CALL, *VOCABULARY.letters("f()")])
    history = [*ASKED, *VOCABULARY.spelled("<call>f()"), END]
    assert put_back(answers, history) == history


def test_bytes_that_are_no_text_are_never_taken_for_a_special_token() -> None:
    answers = memory()
    zeros = VOCABULARY.letters("\0\0\0")
    remember(answers, ASKED, [NO_TEXT, *VOCABULARY.letters("\2"), *zeros, *zeros])
    history = [*ASKED, CALL, *zeros, END]
    assert put_back(answers, history) == history


def test_answers_of_one_scope_are_not_put_into_prompts_of_another() -> None:
    answers = memory()
    remember(answers, ASKED, WRITTEN, CacheScope(api_key="another"))
    assert put_back(answers, HISTORY) == HISTORY


def test_the_tokens_written_last_count() -> None:
    answers = memory()
    remember(answers, ASKED, VOCABULARY.letters("hello"))
    remember(answers, ASKED, WRITTEN)
    assert put_back(answers, HISTORY)[: len(ASKED + WRITTEN)] == ASKED + WRITTEN


def test_the_oldest_answers_are_forgotten() -> None:
    answers = memory(most_tokens=20)
    remember(answers, ASKED, WRITTEN)
    remember(answers, ASKED, VOCABULARY.letters("something else"))
    assert put_back(answers, HISTORY) == HISTORY
    remember(answers, ASKED, WRITTEN)
    assert put_back(answers, HISTORY) != HISTORY


def test_without_a_special_token_before_it_an_answer_is_not_kept() -> None:
    answers = memory()
    prompt = VOCABULARY.pairs("user hi assistant ")
    remember(answers, prompt, WRITTEN)
    history = [*prompt, *VOCABULARY.pairs("hello")]
    assert put_back(answers, history) == history


SHOUTED = VOCABULARY.letters("HELLO")
SHOUTING = [*ASKED, *SHOUTED, *HISTORY[len(ASKED) + 3 :]]


def shouting(*prompts: list[int]) -> WrittenAnswers:
    answers = memory()
    for prompt in prompts:
        remember(answers, prompt, SHOUTED, reading=in_lower_case)
    return answers


def test_a_turn_that_is_the_same_message_comes_back_as_it_was_written() -> None:
    assert put_back(shouting(ASKED), HISTORY, in_lower_case) == SHOUTING


def test_a_turn_that_says_something_else_stays_as_it_is() -> None:
    history = [*ASKED, *VOCABULARY.pairs("hello!"), END]
    assert put_back(shouting(ASKED), history, in_lower_case) == history


def test_a_turn_after_another_prompt_stays_as_it_is() -> None:
    other = [TURN, *VOCABULARY.pairs("u:ho"), END, *ASKED[-3:]]
    history = [*other, *HISTORY[len(ASKED) :]]
    assert put_back(shouting(ASKED), history, in_lower_case) == history


def test_a_user_who_says_what_the_model_wrote_is_not_put_into_its_words() -> None:
    """Llama's turns, for example, have the role before the special token that opens the text."""

    def turn(role: str) -> list[int]:
        return [TURN, *VOCABULARY.letters(role), CALL]

    asked = [*turn("u"), *VOCABULARY.pairs("hi"), END]
    history = [*asked, *turn("u"), *VOCABULARY.pairs("hello"), END]
    answers = shouting([*asked, *turn("a")])
    assert put_back(answers, history, in_lower_case) == history
    returning = [*asked, *turn("a"), *VOCABULARY.pairs("hello"), END]
    assert put_back(answers, returning, in_lower_case) != returning


def test_a_turn_that_is_still_open_stays_as_it_is() -> None:
    history = [*ASKED, *VOCABULARY.pairs("hello")]
    assert put_back(shouting(ASKED), history, in_lower_case) == history


def test_of_equal_answers_each_comes_back_after_its_own_prompt() -> None:
    again = [*SHOUTING, END, *ASKED[-3:]]
    history = [*HISTORY, END, *ASKED[-3:], *VOCABULARY.pairs("hello"), END]
    prompt = put_back(shouting(ASKED, again), history, in_lower_case)
    assert prompt == [*again, *SHOUTED, END]


def test_an_answer_comes_back_in_its_own_tokens_where_a_later_one_says_the_same() -> None:
    answers = shouting(ASKED)
    later = [*SHOUTING, END, *ASKED[-3:]]
    remember(answers, later, VOCABULARY.pairs("HELLO"), reading=in_lower_case)
    history = [*ASKED, *VOCABULARY.pairs("HELLO"), END]
    assert put_back(answers, history, in_lower_case) == [*ASKED, *SHOUTED, END]


def test_a_forgotten_answer_does_not_come_back() -> None:
    answers = memory(most_tokens=20)
    remember(answers, ASKED, SHOUTED, reading=in_lower_case)
    remember(answers, ASKED, VOCABULARY.letters("something else"), reading=in_lower_case)
    assert put_back(answers, HISTORY, in_lower_case) == HISTORY


texts = st.text("ab", max_size=6)


@given(st.lists(texts, min_size=1, max_size=4), st.lists(texts, max_size=6), st.data())
def test_prompts_say_the_same_after_as_before(
    written: list[str], turns: list[str], data: st.DataObject
) -> None:
    answers = memory()
    for text in written:
        cut = data.draw(st.integers(0, len(text)))
        answer = [*VOCABULARY.letters(text[:cut]), *VOCABULARY.pairs(text[cut:])]
        remember(answers, [TURN, *VOCABULARY.pairs("a:")], answer)
    prompt = [token for turn in turns for token in (TURN, *VOCABULARY.pairs("a:" + turn), END)]
    after = put_back(answers, prompt)
    assert said(after) == said(prompt)
    assert [t for t in after if t < 3] == [t for t in prompt if t < 3]


def test_an_answer_after_an_image_comes_back_behind_the_same_image_alone() -> None:
    answers, image, other = memory(), [-1 << 31, -5, -1], [-1 << 31, -6, -1]
    asked = [TURN, *image, *VOCABULARY.pairs("what"), END, TURN]
    remember(answers, asked, VOCABULARY.letters("Cat"), reading=in_lower_case)
    again = [*asked, *VOCABULARY.pairs("cat"), END]
    assert answers.put_back(SCOPE, in_lower_case, again)[: len(asked) + 3] == [
        *asked,
        *VOCABULARY.letters("Cat"),
    ]
    elsewhere = [TURN, *other, *VOCABULARY.pairs("what"), END, TURN, *VOCABULARY.pairs("cat"), END]
    assert answers.put_back(SCOPE, in_lower_case, elsewhere) == elsewhere
