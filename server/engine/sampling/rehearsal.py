"""A process that tries grammars out, so that one that never ends or eats memory harms only it.

`matcher.GrammarCompiler` runs this file. A message in either direction is a 4-byte little-endian
length and UTF-8 text: a grammar in, llguidance's complaint out, empty if there is none. The process
compiles over a vocabulary of single bytes and takes some random steps; one control token stands for
all those that a grammar names by id. A grammar that takes more CPU seconds than the first argument
kills the process, which the other side sees.
"""

from __future__ import annotations

import math
import random
import re
import struct
import sys
import time

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

# Choices: enough steps to enter nested parts, a hundred times as long as a mask usually takes, and
# far more memory than a usual schema needs.
_STEPS = 24
_SLOW_STEP_SECONDS = 0.1
_MEMORY_BYTES = 2 * 1024**3
_END = 256
_CONTROL = 257
_CONTROL_IDS = re.compile(r"<\[[\d^,*-]+\]>")


class _Bytes:
    """The 256 bytes, an end and a control token, in the form that TokenizerWrapper expects."""

    eos_token_id = _END
    bos_token_id = None
    tokens = [bytes([value]) for value in range(256)] + [b"\xff<end>", b"\xff<control>"]
    special_token_ids = [_END, _CONTROL]  # noqa: RUF012

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def complaint(tokenizer: LLTokenizer, limits: LLParserLimits, grammar: str) -> str:
    """Why ``grammar`` cannot be used; empty if it can."""
    grammar = _CONTROL_IDS.sub(f"<[{_CONTROL}]>", grammar)
    matcher = LLMatcher(tokenizer, grammar, limits=limits, log_level=0)
    choose = random.Random(0)  # noqa: S311
    for _ in range(_STEPS):
        if matcher.is_error() or matcher.is_stopped():
            break
        begun = time.thread_time()
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        allowed = [token for token in (*range(_END), _CONTROL) if mask >> token & 1]
        if matcher.is_error() or not allowed:
            break
        matcher.consume_token(choose.choice(allowed))
        if time.thread_time() - begun > _SLOW_STEP_SECONDS:
            return "the grammar is too complex: a single step takes too long"
    return str(matcher.get_error())


def _limit_resources(cpu_seconds: float) -> None:
    try:
        import resource  # noqa: PLC0415 - there is none on Windows, where wall time alone bounds
    except ImportError:
        return
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + cpu_seconds), most))
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    memory = _MEMORY_BYTES if most == resource.RLIM_INFINITY else min(_MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (memory, most))


def main() -> None:
    """Answer grammars until the input ends."""
    cpu_seconds = float(sys.argv[1])
    limits = LLParserLimits(verbose_errors=False)
    tokenizer = LLTokenizer(TokenizerWrapper(_Bytes()), slices=[])
    while header := sys.stdin.buffer.read(4):
        (length,) = struct.unpack("<I", header)
        grammar = sys.stdin.buffer.read(length).decode()
        _limit_resources(cpu_seconds)
        answer = complaint(tokenizer, limits, grammar).encode()
        sys.stdout.buffer.write(struct.pack("<I", len(answer)) + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
