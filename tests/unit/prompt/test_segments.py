"""The tokens of a prompt by their source."""

from server.prompt.guard.guard import TextPiece
from server.prompt.guard.segments import segments, user_characters
from tests.unit.fake_vocabulary import FakeVocabulary


class Spelled(FakeVocabulary):
    """Tokens 0, 1, … stand for the given bytes."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__()
        self._pieces = pieces

    def piece(self, token: int) -> bytes:
        return self._pieces[token]


def users(marks: str) -> list[bool]:
    return [mark == "u" for mark in marks]


def found(
    text: str, marks: str, *pieces: bytes, controls: frozenset[int] = frozenset()
) -> list[tuple[str, list[int], str]]:
    ids = [*range(len(pieces))]
    result = segments(
        text, users(marks), [TextPiece(0, len(text), ids)], Spelled(*pieces), controls
    )
    assert "".join(segment.text for segment in result) == text
    assert [token for segment in result for token in segment.ids] == ids
    return [(s.text, s.ids, "control" if s.control else s.source) for s in result]


def test_a_token_with_characters_of_both_is_the_users() -> None:
    assert found("ab cd", "tttuu", b"ab", b" cd") == [("ab", [0], "template"), (" cd", [1], "user")]


def test_each_control_token_stands_alone() -> None:
    assert found("<a><a>x", "ttttttu", b"<a>", b"<a>", b"x", controls=frozenset({0, 1})) == [
        ("<a>", [0], "control"),
        ("<a>", [1], "control"),
        ("x", [2], "user"),
    ]


def test_a_character_of_several_tokens_is_not_torn() -> None:
    first, second = "é".encode()[:1], "é".encode()[1:]

    assert found("aéb", "tut", b"a" + first, second + b"b") == [("aéb", [0, 1], "user")]
    assert found("éb", "ut", first, second, b"b") == [("é", [0, 1], "user"), ("b", [2], "template")]


def test_the_space_spm_adds_and_the_white_space_a_control_token_swallows_are_allowed_for() -> None:
    assert found("<a>\nhi", "ttttuu", b"<a>", b" hi", controls=frozenset({0})) == [
        ("<a>\n", [0], "control"),
        ("hi", [1], "user"),
    ]


def test_a_bos_that_was_added_has_no_text() -> None:
    assert found("hi", "uu", b"<s>", b"hi", controls=frozenset({0})) == [
        ("", [0], "control"),
        ("hi", [1], "user"),
    ]


def test_tokens_that_do_not_spell_their_text_stay_together() -> None:
    assert found("Hi", "tu", b"h", b"i") == [("Hi", [0, 1], "user")]


def test_an_empty_prompt_has_no_segments() -> None:
    assert segments("", [], [], FakeVocabulary(), frozenset()) == []


def test_characters_never_disguised_belong_to_the_user_between_two_of_the_users() -> None:
    text = 'a: "b c" d'
    disguised = 'a: "\ue000 \ue001" \ue002'

    assert user_characters(disguised, text) == users("ttttuuuuuu")
