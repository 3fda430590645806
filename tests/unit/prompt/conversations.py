"""Conversations for the corpus tests. Every text in them is a needle that occurs only once."""

from itertools import count

from hypothesis import strategies as st

from server.core.request import Message, TextPart, Tool, ToolCall

OPENAI_ID = "call_abcdefghijklmnopqrstuvwx"

WEATHER = Tool(
    name="toolweather",
    description="tooldescription",
    parameters={
        "type": "object",
        "properties": {"toolparameter": {"type": "string", "description": "toolparameterhelp"}},
        "required": ["toolparameter"],
    },
)
BARE = Tool(name="toolbare")


def system(text: str) -> Message:
    return Message(role="system", content=text)


def developer(text: str) -> Message:
    return Message(role="developer", content=text)


def user(text: str, name: str | None = None) -> Message:
    return Message(role="user", content=text, name=name)


def assistant(text: str | None = None, reasoning: str | None = None) -> Message:
    return Message(role="assistant", content=text, reasoning_content=reasoning)


def calling(*calls: ToolCall, text: str | None = None, reasoning: str | None = None) -> Message:
    return Message(
        role="assistant", content=text, tool_calls=list(calls), reasoning_content=reasoning
    )


def call(name: str, id_: str = OPENAI_ID, arguments: str = '{"argkey": "argvalue"}') -> ToolCall:
    return ToolCall(id=id_, name=name, arguments=arguments)


def result(text: str, id_: str = OPENAI_ID) -> Message:
    return Message(role="tool", content=text, tool_call_id=id_)


def parts(role: str, *texts: str) -> Message:
    return Message(
        role=role,  # type: ignore[arg-type]
        content=[TextPart(text) for text in texts],
        tool_call_id=OPENAI_ID if role == "tool" else None,
    )


_PAIR = (
    call("callnamea", "first_long_identity", '{"keya": "valuea"}'),
    call("callnameb", "second_long_identity", '{"keyb": {"keyc": ["valueb", 1]}}'),
)

CONVERSATIONS: dict[str, tuple[list[Message], list[Tool]]] = {
    "plain": ([user("texta")], []),
    "system": ([system("texta"), user("textb")], []),
    "tools": ([user("texta")], [WEATHER, BARE]),
    "system and tools": ([system("texta"), user("textb")], [WEATHER]),
    "developer": ([developer("texta"), user("textb")], []),
    "system and developer": ([system("texta"), developer("textb"), user("textc")], [WEATHER]),
    "late systems": (
        [
            *(system("texta"), user("textb"), assistant("textc"), system("textd"), user("texte")),
            developer("textf"),
        ],
        [],
    ),
    "turns": (
        [system("texta"), user("textb"), assistant("textc"), user("textd"), assistant("texte")],
        [WEATHER],
    ),
    "same role twice": (
        [user("texta"), user("textb"), assistant("textc"), assistant("textd"), user("texte")],
        [],
    ),
    "assistant first": ([assistant("texta"), user("textb")], []),
    "assistant after system": ([system("texta"), assistant("textb"), user("textc")], []),
    "system alone": ([system("texta")], []),
    "content parts": (
        [
            parts("system", "texta", "textb"),
            parts("user", "textc", "textd"),
            parts("assistant", "texte", "textf"),
            parts("user", "textg"),
        ],
        [],
    ),
    "author names": ([user("texta", name="authorname"), assistant("textb"), user("textc")], []),
    "open call": ([user("texta"), calling(call("callname")), result("textb")], [WEATHER]),
    "closed call": (
        [user("texta"), calling(call("callname")), result("textb"), assistant("textc")],
        [WEATHER],
    ),
    "call without tools": (
        [user("texta"), calling(call("callname")), result("textb"), assistant("textc"), user("d")],
        [],
    ),
    "open call with text": (
        [system("texta"), user("textb"), calling(call("callname"), text="textc"), result("textd")],
        [WEATHER],
    ),
    "closed call with text and reasoning": (
        [
            *(system("texta"), user("textb")),
            calling(call("callname"), text="textc", reasoning="thought"),
            *(result("textd"), assistant("texte", reasoning="thought"), user("textf")),
        ],
        [WEATHER],
    ),
    "parallel calls": (
        [
            *(user("texta"), calling(*_PAIR, text="textb")),
            *(result("textc", "second_long_identity"), result("textd", "first_long_identity")),
        ],
        [WEATHER],
    ),
    "closed parallel calls": (
        [
            *(user("texta"), calling(*_PAIR)),
            *(result("textc", "second_long_identity"), result("textd", "first_long_identity")),
            *(assistant("texte"), user("textf")),
        ],
        [WEATHER],
    ),
    "rounds of calls": (
        [
            *(user("texta"), calling(call("callnamea", "1")), result("textb", "1")),
            *(calling(call("callnameb", "2")), result("textc", "2"), assistant("textd")),
            *(user("texte"), calling(call("callnamec", "3", "{}")), result("textf", "3")),
        ],
        [WEATHER],
    ),
    "user after result": (
        [user("texta"), calling(call("callname")), result("textb"), user("textc")],
        [WEATHER],
    ),
    "result in parts": (
        [user("texta"), calling(call("callname")), parts("tool", "textb", "textc")],
        [WEATHER],
    ),
    "unanswered call": (
        [user("texta"), calling(call("callname"), text="textb"), user("textc")],
        [WEATHER],
    ),
}


def needles(messages: list[Message], tools: list[Tool]) -> set[str]:
    """Every text, name, key and value in a conversation, except reasoning and ids."""
    found: set[str] = set()
    for message in messages:
        content = message.content
        parts = [TextPart(content or "")] if not isinstance(content, list) else content
        texts = {part.text for part in parts if isinstance(part, TextPart)}
        found |= {*texts, message.name or ""}
        for made in message.tool_calls:
            words = {"argkey", "argvalue", "keya", "valuea", "keyb", "keyc", "valueb"}
            found |= {made.name} | {word for word in words if word in made.arguments}
    for tool in tools:
        found |= {tool.name, tool.description or ""}
        found |= set((tool.parameters or {}).get("properties", {}))
    return found - {""}


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Any conversation with a user's message; its texts are different needles."""
    numbers = count()

    def needle() -> str:
        return f"needle{next(numbers)}q"

    def exchange() -> list[Message]:
        calls = [
            call(needle(), needle(), f'{{"{needle()}": ["{needle()}", 1]}}')
            for _ in range(draw(st.integers(1, 3)))
        ]
        text = needle() if draw(st.booleans()) else None
        return [calling(*calls, text=text), *(result(needle(), made.id) for made in calls)]

    messages: list[Message] = []
    kinds = ["system", "developer", "user", "parts", "assistant", "exchange"]
    for kind in [*draw(st.lists(st.sampled_from(kinds), max_size=6)), "user"]:
        if kind == "exchange":
            messages += exchange()
        elif kind == "parts":
            messages.append(parts("user", needle(), needle()))
        else:
            messages.append(Message(role=kind, content=needle()))  # type: ignore[arg-type]
    return messages
