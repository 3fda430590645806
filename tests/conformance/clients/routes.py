"""litellm's ways to the server's APIs; prints what each answered as JSON.

Arguments: the server's URL, the model's id.
"""

from __future__ import annotations

import asyncio
import json
import sys

import litellm

TOOL = {
    "type": "function",
    "function": {
        "name": "paint",
        "description": "Paint a wall.",
        "parameters": {
            "type": "object",
            "properties": {"red": {"type": "integer", "minimum": 0, "maximum": 255}},
            "required": ["red"],
            "additionalProperties": False,
        },
    },
}
QUESTION = [{"role": "user", "content": "Name a colour."}]


async def main(url: str, model: str) -> None:
    """Ask over each route; a tool is forced, so that its call has to come back."""
    litellm.suppress_debug_info = True
    common = {"api_key": "unused", "max_retries": 0}
    chat = await litellm.acompletion(
        model=f"anthropic/{model}",
        api_base=url,
        messages=QUESTION,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "paint"}},
        max_tokens=60,
        **common,
    )
    stream = await litellm.acompletion(
        model=f"anthropic/{model}",
        api_base=url,
        messages=QUESTION,
        max_tokens=8,
        stream=True,
        **common,
    )
    streamed = [chunk.choices[0].delta.content or "" async for chunk in stream]
    response = await litellm.aresponses(
        model=f"openai/{model}",
        api_base=f"{url}/v1",
        input="Name a colour.",
        max_output_tokens=16,
        **common,
    )
    # Anthropic's API in front, the Responses API behind.
    message = await litellm.anthropic_messages(
        model=f"openai/{model}",
        api_base=f"{url}/v1",
        messages=QUESTION,
        max_tokens=16,
        **common,
    )
    (call,) = chat.choices[0].message.tool_calls
    told = {
        "call": [call.function.name, json.loads(call.function.arguments)],
        "streamed": "".join(streamed),
        "response": response.output[0].content[0].text,
        "message": message["content"][0]["text"],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
