#!/usr/bin/env bash
# llguidance 1.9.1 keeps the integers of a JSON Schema as doubles. An integer beyond 2^53 that no
# double equals is enforced as its neighbour: the one value that the schema allows is refused, and
# another one is accepted. Grammars made from such a schema compile without a word.
#
# Seen (first run): const 9007199254740993 refuses 9007199254740993 and accepts 9007199254740992;
# minimum 9007199254740993 accepts 9007199254740992.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet llguidance==1.9.1 numpy==2.4.0

"$folder/venv/bin/python" - <<'PYTHON'
from llguidance import LLMatcher, LLTokenizer

tokenizer = LLTokenizer("byte")


def accepts(schema: dict[str, object], text: str) -> bool:
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(schema))
    assert not matcher.get_error(), matcher.get_error()
    taken = matcher.try_consume_tokens(list(text.encode()))
    return taken == len(text) and matcher.is_accepting()


value = 2**53 + 1
seen = [
    accepts({"const": value}, str(value)),
    accepts({"const": value}, str(value - 1)),
    accepts({"type": "integer", "minimum": value}, str(value - 1)),
]
print("the const itself, its neighbour, less than the minimum:", seen)
assert seen == [False, True, True], "the behaviour has changed"
PYTHON
