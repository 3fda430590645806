"""The formats of JSON Schema as regular expressions (2020-12 Validation, section 7.3).

Each matches the texts of its format and no others, with these exceptions: years are 0001 to 9999,
as readers know them; leap seconds stand with time zones of whole quarters of an hour, as all that
exist are; of a label of a host name that is an encoded international one (``xn--``), no expression
tells whether it can be decoded.
"""

from __future__ import annotations

from server.grammar.keywords import Schema
from server.grammar.patterns import anchored

_HEX = "[0-9a-fA-F]"

# --- RFC 3339, section 5.6 and appendix A ---

_YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    f"|{_LEAP_YEAR}-02-29)"
)
_FRACTION = r"(?:\.[0-9]+)?"
_HOURS = "(?:[01][0-9]|2[0-3])"
_OFFSET = f"(?:[zZ]|[+-]{_HOURS}:[0-5][0-9])"


def _leap_seconds() -> str:
    """The times of 23:59:60 in UTC, with each time zone in which that may be written."""
    ways = [f"23:59:60{_FRACTION}[zZ]"]
    for offset in range(0, 24 * 60, 15):
        for sign, ahead in ((r"\+", offset), ("-", -offset)):
            hour, minute = divmod((24 * 60 - 1 + ahead) % (24 * 60), 60)
            zone = f"{sign}{offset // 60:02}:{offset % 60:02}"
            ways.append(f"{hour:02}:{minute:02}:60{_FRACTION}{zone}")
    return "|".join(ways)


_TIME = f"(?:{_HOURS}:[0-5][0-9]:[0-5][0-9]{_FRACTION}{_OFFSET}|{_leap_seconds()})"
_DAYS = "(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)"
_SECONDS = "T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)"
_DURATION = f"P(?:{_DAYS}(?:{_SECONDS})?|{_SECONDS}|[0-9]+W)"

# --- RFC 2673, section 3.2; RFC 4291, section 2.2; RFC 1123, section 2.1 ---

_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"(?:{_BYTE}\.){{3}}{_BYTE}"
_GROUP = f"{_HEX}{{1,4}}"
_LAST_GROUPS = f"(?:{_GROUP}:{_GROUP}|{_IPV4})"


def _before(most: int) -> str:
    """At most that many groups of an address, in front of ``::``."""
    return f"(?:(?:{_GROUP}:){{0,{most - 1}}}{_GROUP})?" if most else ""


_IPV6 = "(?:{})".format(
    "|".join(
        [
            f"(?:{_GROUP}:){{6}}{_LAST_GROUPS}",
            *(f"{_before(5 - n)}::(?:{_GROUP}:){{{n}}}{_LAST_GROUPS}" for n in range(5, -1, -1)),
            f"{_before(6)}::{_GROUP}",
            f"{_before(7)}::",
        ]
    )
)
_ALNUM = "[A-Za-z0-9]"
_ALNUM_HYPHEN = "[A-Za-z0-9-]"
# RFC 5891, section 4.2.3.1: hyphens in the third and fourth place are those of ``xn--`` alone.
_LABEL = (
    f"(?:{_ALNUM}(?:{_ALNUM}|{_ALNUM_HYPHEN}{{1,2}}{_ALNUM}"
    f"|{_ALNUM_HYPHEN}(?:{_ALNUM}{_ALNUM_HYPHEN}|-{_ALNUM}){_ALNUM_HYPHEN}{{0,58}}{_ALNUM})?"
    f"|xn--{_ALNUM_HYPHEN}{{0,58}}{_ALNUM})"
)
_HOSTNAME = rf"{_LABEL}(?:\.{_LABEL})*"

# --- RFC 5321, section 4.1.2 ---

_ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_QUOTED = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_ADDRESS = rf"\[(?:{_IPV4}|[iI][pP][vV]6:{_IPV6})\]"
_EMAIL = rf"(?:{_ATOM}(?:\.{_ATOM})*|{_QUOTED})@(?:{_HOSTNAME}|{_ADDRESS})"

# --- RFC 3986, appendix A; RFC 3987, section 2.2 ---

_ESCAPED = f"%{_HEX}{{2}}"
_UNRESERVED = "A-Za-z0-9._~-"
_DELIMITERS = "!$&'()*+,;="
_BEYOND_ASCII = (
    r"\u{a0}-\u{d7ff}\u{f900}-\u{fdcf}\u{fdf0}-\u{ffef}"
    + "".join(rf"\u{{{plane:x}0000}}-\u{{{plane:x}fffd}}" for plane in range(1, 14))
    + r"\u{e1000}-\u{efffd}"
)
_PRIVATE = r"\u{e000}-\u{f8ff}\u{f0000}-\u{ffffd}\u{100000}-\u{10fffd}"


def _identifiers(more: str = "", more_in_query: str = "") -> tuple[str, str]:
    """An absolute identifier, and a reference; ``more`` are characters beyond RFC 3986's."""
    own = f"{more}{_DELIMITERS}{_UNRESERVED}"
    segment = f"(?:[:@{own}]|{_ESCAPED})"
    user = f"(?:(?:[:{own}]|{_ESCAPED})*@)?"
    literal = rf"\[(?:{_IPV6}|[vV]{_HEX}+\.[:{_DELIMITERS}{_UNRESERVED}]+)\]"
    authority = f"//{user}(?:{literal}|(?:[{own}]|{_ESCAPED})*)(?::[0-9]*)?"
    further = f"(?:/{segment}*)*"
    absolute = f"/(?:{segment}+{further})?"
    without_colon = f"(?:[@{own}]|{_ESCAPED})+"
    query = rf"(?:\?(?:[/?:@{more_in_query}{own}]|{_ESCAPED})*)?(?:#(?:[/?:@{own}]|{_ESCAPED})*)?"
    scheme = "[A-Za-z][A-Za-z0-9+.-]*:"
    uri = f"{scheme}(?:{authority}{further}|{absolute}|{segment}+{further}|){query}"
    relative = f"(?:{authority}{further}|{absolute}|{without_colon}{further}|){query}"
    return uri, f"(?:{uri}|{relative})"


_URI, _URI_REFERENCE = _identifiers()
_IRI, _IRI_REFERENCE = _identifiers(_BEYOND_ASCII, _PRIVATE)

# --- RFC 6570, section 2; RFC 6901; draft-handrews-relative-json-pointer-01 ---

_VARIABLE = f"(?:[A-Za-z0-9_]|{_ESCAPED})(?:\\.?(?:[A-Za-z0-9_]|{_ESCAPED}))*"
_SPECIFICATION = rf"{_VARIABLE}(?::[1-9][0-9]{{0,3}}|\*)?"
_LITERAL = rf"(?:[!#$&(-;=?-\[\]_a-z~{_BEYOND_ASCII}{_PRIVATE}]|{_ESCAPED})"
_URI_TEMPLATE = rf"(?:{_LITERAL}|\{{[+#./;?&=,!@|]?{_SPECIFICATION}(?:,{_SPECIFICATION})*\}})*"
_POINTER = "(?:/(?:[^/~]|~[01])*)*"

_EXPRESSIONS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}[tT]{_TIME}",
    "duration": _DURATION,
    "email": _EMAIL,
    "hostname": _HOSTNAME,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "uuid": f"{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}",
    "uri": _URI,
    "uri-reference": _URI_REFERENCE,
    "iri": _IRI,
    "iri-reference": _IRI_REFERENCE,
    "uri-template": _URI_TEMPLATE,
    "json-pointer": _POINTER,
    "relative-json-pointer": f"(?:0|[1-9][0-9]*)(?:#|{_POINTER})",
}

# The most characters of a text (RFC 1123, section 2.1; RFC 5321, section 4.5.3.1).
_LONGEST = {"hostname": 253, "email": 254}

NOT_ENFORCED = {"regex", "idn-email", "idn-hostname"}
"""The formats of the standard that no regular expression tells."""


def as_pattern(schema: Schema) -> None:
    """Put a pattern in the place of ``format``, which the compiler enforces only nearly.

    Formats that the standard does not know, such as int32, are annotations.
    """
    form = schema.pop("format", None)
    if form not in _EXPRESSIONS:
        return
    limits: Schema = {"pattern": anchored(f"^(?:{_EXPRESSIONS[form]})$")}
    if form in _LONGEST:
        limits["maxLength"] = _LONGEST[form]
    if limits.keys() & schema.keys():
        schema["allOf"] = [*schema.get("allOf", ()), limits]
    else:
        schema |= limits
