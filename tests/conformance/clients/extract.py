"""Structured extraction with instructor; prints what it extracted as JSON.

Arguments: the server's URL, the model's id, instructor's mode.
"""

from __future__ import annotations

import json
import sys

import instructor
from openai import OpenAI
from pydantic import BaseModel, ConfigDict, Field


class City(BaseModel):
    """What is said about a city."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=30)
    inhabitants: int = Field(ge=0, le=100_000_000)


def main(url: str, model: str, mode: str) -> None:
    """Extract a city, once, without a second try."""
    with OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        city = instructor.from_openai(client, mode=instructor.Mode[mode]).chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Canberra has 467194 inhabitants."}],
            response_model=City,
            max_retries=0,
            temperature=0,
            max_tokens=100,
        )
    print(json.dumps(city.model_dump()))


if __name__ == "__main__":
    main(*sys.argv[1:])
