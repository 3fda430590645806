"""A whole API family, as small as one can be: it asks with a line of text and gets lines back."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from pydantic import BaseModel

from server.api.family import ErrorShape, Family, Frame, Operation, ParsedRequest
from server.core.errors import DragomanError, InvalidRequest, path_text
from server.core.model_info import ModelInfo
from server.core.reply import AnswerFinished, ContentDelta, Reply, ReplyEvent
from server.core.request import ChatPrompt, GenerationRequest, Message


class Ask(BaseModel):
    model: str
    say: str
    live: bool = False


class Said(BaseModel):
    said: str


class Encoder:
    def __init__(self, info: ModelInfo) -> None:
        self.model = info.model_id

    def frames(self, event: ReplyEvent) -> Iterator[Frame]:
        if isinstance(event, ContentDelta):
            yield Frame(msgspec.json.encode({"said": event.text}), event="said")
        elif isinstance(event, AnswerFinished):
            yield Frame(event.reason.encode(), event="end")

    def end(self) -> Iterator[Frame]:
        yield Frame(self.model.encode(), event="by")

    def whole(self, reply: Reply) -> bytes:
        return msgspec.json.encode({"said": reply.answers[0].text})


def parse(body: Ask) -> ParsedRequest:
    if not body.say:
        raise InvalidRequest("Say something.", at=("say",))
    prompt = ChatPrompt(messages=[Message(role="user", content=body.say)])
    requests = [GenerationRequest(prompt=prompt)]
    return ParsedRequest(
        model=body.model, requests=requests, stream=body.live, encoder=Encoder, locate=locate
    )


def locate(at: tuple[str | int, ...]) -> tuple[str | int, ...]:
    return ("say",) if at[:1] == ("messages",) else at


def error_body(error: DragomanError) -> dict[str, str]:
    return {"oops": error.worded(path_text(error.at)), "where": path_text(error.at)}


def error_frame(error: DragomanError) -> Frame:
    return Frame(msgspec.json.encode(error_body(error)), event="oops")


FAMILY = Family(
    errors=ErrorShape(body=error_body, frame=error_frame, schema=Said),
    operations=[
        Operation(path="/toy", summary="Say something.", body=Ask, answer=Said, parse=parse)
    ],
)
