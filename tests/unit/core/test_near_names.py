"""Names that are near to one that nothing has."""

from __future__ import annotations

import pytest

from server.core.near_names import choices, listed, nearest

KNOWN = ["SmolLM2-135M-Instruct.Q4_1", "gemma-3-270m-q4_k_m", "gemma-3-270m"]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("gemma-3-270m-q4_k_n", "gemma-3-270m-q4_k_m"),
        ("smollm2", "SmolLM2-135M-Instruct.Q4_1"),
        ("GEMMA-3-270M", "gemma-3-270m-q4_k_m"),
        ("smolm2-135m-instruct.q4_1", "SmolLM2-135M-Instruct.Q4_1"),
    ],
)
def test_parts_other_cases_and_typing_errors_are_near(name: str, first: str) -> None:
    assert nearest(name, KNOWN)[0] == first


def test_a_name_unlike_all_others_gets_the_list_up_to_five() -> None:
    assert choices("zzz", ["b", "a"]) == "There are: a, b."
    assert choices("zzz", list("hgfedcba")) == "There are: a, b, c, d, e and 3 more."
    assert choices("zzz", []) == "There are none."
    assert choices("", ["a"]) == "There are: a."


def test_near_names_are_offered() -> None:
    assert choices("gemma-3-270", KNOWN) == "Did you mean 'gemma-3-270m-q4_k_m' or 'gemma-3-270m'?"


def test_a_list_says_how_many_more_there_are() -> None:
    assert listed(list("abcde")) == "a, b, c, d, e"
    assert listed(list("abcdefgh")) == "a, b, c, d, e and 3 more"
