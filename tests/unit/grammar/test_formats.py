"""Formats of strings: the texts of each, and no others."""

from __future__ import annotations

import ipaddress
import json
import random
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from llguidance import LLMatcher

from server.grammar.conversion import schema_grammar
from tests.unit.grammar.subjects import matcher, matches


def subject(name: str) -> LLMatcher:
    made = matcher(schema_grammar({"type": "string", "format": name}))
    assert not made.is_error(), made.get_error()
    return made


def allows(made: LLMatcher, text: str) -> bool:
    attempt = made.deep_copy()
    written = json.dumps(text, ensure_ascii=False).encode()
    return bool(attempt.consume_tokens(list(written)) and attempt.is_accepting())


def test_dates_are_those_of_the_calendar() -> None:
    made = subject("date")
    for year in (1, 4, 100, 400, 1900, 2000, 2023, 2024, 2100, 9996):
        for month in range(14):
            for day in range(33):
                text = f"{year:04}-{month:02}-{day:02}"
                try:
                    real = bool(date(year, month, day))
                except ValueError:
                    real = False
                assert allows(made, text) is real, text
    assert not allows(made, "0000-01-01")


def test_leap_seconds_are_the_last_of_a_day_in_utc() -> None:
    made = subject("time")
    last = datetime(2016, 12, 31, 23, 59, tzinfo=UTC)
    for quarters in range(-95, 96):
        zone = timezone(timedelta(minutes=15 * quarters))
        local = last.astimezone(zone).isoformat()
        assert allows(made, f"{local[11:17]}60{local[19:]}"), local
        later = (last + timedelta(minutes=1)).astimezone(zone).isoformat()
        assert not allows(made, f"{later[11:17]}60{later[19:]}"), later


def test_addresses_are_those_that_python_reads() -> None:
    made = subject("ipv6")
    choose = random.Random(0)
    parts = ["", "", ":", "0", "1", "ab", "FFFF", "12345", "g", "1.2.3.4", "256.1.1.1", "1.2.3"]
    for _ in range(4000):
        text = ":".join(choose.choices(parts, k=choose.randint(1, 9)))
        assert allows(made, text) is is_address(text), text


def is_address(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


GOOD_AND_BAD = {
    "date-time": (
        ["2024-02-29T23:59:60Z", "1999-12-31t00:00:00.123-08:30"],
        ["2023-02-29T00:00:00Z"],
    ),
    "duration": (["P1Y2M", "PT1H", "P4W", "P1DT12H"], ["P", "PT", "P1YT", "P1D2H", "P1Y2W", "1D"]),
    "email": (
        ['"a b"@x.org', "a@[IPv6:::1]", r'"\""@x', "a.b+c@d-e.org"],
        [".a@b", "a@b..c", "@b"],
    ),
    "hostname": (
        ["a", "a-b.c", "x" * 63, "www.xn--mnchen-3ya.de", f"xn--{'a' * 59}"],
        ["-a", "a-", "a..b", "x" * 64, "a_b", "ab--c", "", "xn--", "xn--a-", f"xn--{'a' * 60}"],
    ),
    "uuid": (["123e4567-E89b-12d3-a456-426614174000"], ["123e4567e89b12d3a456426614174000"]),
    "uri": (
        ["urn:a", "http://[::1]:80/a?b#c", "a:%41"],
        ["//a", "a", "a:%4", "a:b c", "http://[1]"],
    ),
    "uri-reference": (["", "a/b?c", "//h", "#f", "x:y"], ["\\a", "a b", "1:2", "#a#b"]),
    "iri": (["http://é.org/日?ü"], ["é:a", "http://a b"]),
    "iri-reference": (["日/é"], ["日 本"]),
    "uri-template": (["/a{?b,c*}{/d:3}", "x"], ["{", "{a", "a}", "{a b}", "{:1}"]),
    "json-pointer": (["", "/a~0b/~1", "/"], ["a", "/~", "/~2"]),
    "relative-json-pointer": (["0", "1/a", "12#"], ["01", "/a", "-1", "0##"]),
}


@pytest.mark.parametrize("name", GOOD_AND_BAD)
def test_a_format_allows_its_texts_and_no_others(name: str) -> None:
    made = subject(name)
    good, bad = GOOD_AND_BAD[name]
    for text in good:
        assert allows(made, text), text
    for text in bad:
        assert not allows(made, text), text


def test_a_format_stands_beside_a_pattern_and_lengths() -> None:
    made = schema_grammar(
        {"type": "string", "format": "hostname", "pattern": "^a", "minLength": 3, "maxLength": 260}
    )
    assert matches(made, '"a.b"')
    assert matches(made, f'"{"a." * 126}a"')
    for text in ('"b.a"', '"ab"', '"a.-"', f'"{"a." * 127}a"'):
        assert not matches(made, text), text
