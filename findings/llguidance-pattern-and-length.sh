#!/usr/bin/env bash
# llguidance 1.9.1 must know whether any text matches `pattern` and `maxLength` together, and gives
# up after a fixed amount of work. Of usual patterns some are given up on at some lengths: a host
# name of labels with dots is taken with maxLength 63, and refused with 256 ("Unable to determine if
# regex is empty"), though either keyword alone is taken and every host name shows that texts match.
# A server that passes schemas on refuses the whole request; the error comes when the grammar is
# compiled, so it can be caught and one of the two keywords dropped.
#
# Seen (first run): refused with 256 and 2000, accepted with 63, and without one of the two.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet llguidance==1.9.1 numpy==2.4.0

"$folder/venv/bin/python" - <<'PYTHON'
import json

from llguidance import LLMatcher, LLTokenizer

HOST = r"^(?:[a-z]+\.)+[a-z]{2,}$"
tokenizer = LLTokenizer("byte")


def complaint(**keywords: object) -> str:
    schema = {"type": "string", **keywords}
    grammar = json.dumps({"grammars": [{"json_schema": schema}]})
    return LLMatcher(tokenizer, grammar, log_level=0).get_error()


alone = [complaint(pattern=HOST), complaint(maxLength=256), complaint(pattern=HOST, maxLength=63)]
together = [complaint(pattern=HOST, maxLength=most) for most in (256, 2000)]
print("alone, and with maxLength 63:", alone)
print("with maxLength 256 and 2000:", [each[-90:] for each in together])
assert alone == ["", "", ""]
assert all("Unable to determine if regex is empty" in each for each in together), "has changed"
PYTHON
