#!/usr/bin/env bash
# In llguidance 1.9.1 the lexer decides between alternatives, not the grammar. Of
#     start: call | TEXT
# where TEXT is a regular expression that excludes calls only once their name is complete, the call
# can never be written: its first literal is also a beginning of TEXT, the longest match goes on as
# TEXT, and where TEXT ends there is no way back. One terminal for the whole beginning of the call,
# marked lazy, makes the same language work.
#
# Seen (first run): without lazy, `{"name": "f", "arguments": 1}` is refused; with it, accepted.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet llguidance==1.9.1 numpy==2.4.0

"$folder/venv/bin/python" - <<'PYTHON'
from llguidance import LLMatcher, LLTokenizer

TEXT = r'TEXT: /(?s:.+)/ & ~/\{"name": "f"(?s:.*)/'
LITERALS = r"""
start: call | TEXT
call: "{\"name\": " "\"f\", \"arguments\": " NUMBER "}"
NUMBER: /[0-9]/
"""
ONE_LAZY_TERMINAL = r"""
start: call | TEXT
call: head NUMBER "}"
head[lazy]: /\{"name": "f", "arguments": /
NUMBER: /[0-9]/
"""
tokenizer = LLTokenizer("byte")


def accepts(grammar: str, text: str) -> bool:
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar + TEXT))
    assert not matcher.get_error(), matcher.get_error()
    taken = matcher.try_consume_tokens(list(text.encode()))
    return taken == len(text) and matcher.is_accepting()


CALL = '{"name": "f", "arguments": 1}'
seen = [accepts(LITERALS, CALL), accepts(ONE_LAZY_TERMINAL, CALL)]
plain = [accepts(LITERALS, '{"city": "Oslo"}'), accepts(ONE_LAZY_TERMINAL, '{"city": "Oslo"}')]
print("the call, in literals and behind one lazy terminal:", seen)
assert plain == [True, True]
assert seen == [False, True], "the behaviour has changed"
PYTHON
