"""Talks to a container as a client would: `talk.py URL KEY`."""

from __future__ import annotations

import sys
import time

import openai
from openai import OpenAI

START_SECONDS = 120


def main(url: str, key: str) -> None:
    """Wait for the server, list models, stream a chat, and check that a wrong key is refused."""
    started = time.monotonic()
    client = OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=300)
    while True:
        try:
            models = sorted(model.id for model in client.models.list())
            break
        except openai.APIConnectionError:
            if time.monotonic() - started > START_SECONDS:
                raise
            time.sleep(0.05)
    print(f"answers after {time.monotonic() - started:.1f} s; models: {', '.join(models)}")

    chat_model = next(model for model in models if "instruct" in model.lower())
    stream = client.chat.completions.create(
        model=chat_model,
        messages=[{"role": "user", "content": "What is the capital of Australia?"}],
        temperature=0,
        max_tokens=60,
        stream=True,
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    answer = "".join(pieces)
    print(f"{chat_model}: {answer}")
    assert len(pieces) > 3, "the answer did not come in pieces"
    assert "Canberra" in answer, "the answer is wrong"
    print(f"first answer complete after {time.monotonic() - started:.1f} s")

    try:
        OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0).models.list()
    except openai.AuthenticationError:
        print("a wrong key is refused")
    else:
        raise AssertionError("a wrong key is accepted")


if __name__ == "__main__":
    main(*sys.argv[1:])
