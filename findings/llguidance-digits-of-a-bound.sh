#!/usr/bin/env bash
# llguidance 1.9.1 compares a number with a bound digit by digit, and lets it end at any digit but
# those of the bound itself: with `maximum: 0.95` a model cannot write 0.9, though it can write 0.8,
# 0.90 and 0.95. So the most natural value near a limit is replaced by another without a word
# (99.9 under a limit of 99.99). A second alternative that lists the shorter numbers,
# `anyOf: [{maximum: 0.95}, {enum: [0.9]}]`, lets them through. Seen with maximum, exclusiveMaximum
# and negative minima; whole numbers are not concerned.
#
# Seen (first run): 0.9 refused; 0.8, 0.90 and 0.95 accepted; all of them with the alternative.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet llguidance==1.9.1 numpy==2.4.0

"$folder/venv/bin/python" - <<'PYTHON'
import json

from llguidance import LLMatcher, LLTokenizer

BOUND = {"type": "number", "maximum": 0.95}
TEXTS = ("0.8", "0.9", "0.90", "0.95")
tokenizer = LLTokenizer("byte")


def accepted(schema: object) -> list[str]:
    grammar = json.dumps({"grammars": [{"json_schema": schema}]})
    found = []
    for text in TEXTS:
        matcher = LLMatcher(tokenizer, grammar, log_level=0)
        if matcher.consume_tokens(tokenizer.tokenize_str(text)) and matcher.is_accepting():
            found.append(text)
    return found


alone = accepted(BOUND)
together = accepted({"anyOf": [BOUND, {"enum": [0.9]}]})
print("maximum 0.95:", alone)
print("with the alternative:", together)
assert alone == ["0.8", "0.90", "0.95"], "has changed"
assert together == list(TEXTS)
PYTHON
