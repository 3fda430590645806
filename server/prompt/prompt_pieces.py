"""Rendered prompts, with their images, as the engine gets them and as people see them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile

import msgspec

from server.core.errors import InvalidImage
from server.core.native_prompt import Segment
from server.core.pieces import ImageReader, Piece, TokenRun
from server.core.request import ChatPrompt, ImagePlace, images_of, unseen
from server.core.vocabulary import Vocabulary
from server.prompt.guard.guard import TextPiece
from server.prompt.guard.segments import segments
from server.prompt.messages.images import SHOWN, PlacedImage
from server.prompt.model_template import Rendering
from server.prompt.raw_prompt import with_one_bos

IMAGE_CELL = -1
"""Stands for a KV cell of an image among the tokens of a prompt; llama.cpp's null token."""

Images = Mapping[ImagePlace, Sequence[Piece]]
"""What each image of a request is for the model."""


def read_images(prompt: ChatPrompt, read: ImageReader | None) -> Images:
    """The images of ``prompt``; ``read`` is None for a model without a projector.

    Raises:
        UnsupportedParameter: The model cannot see images.
        InvalidImage: One cannot be read.
    """
    found: dict[ImagePlace, Sequence[Piece]] = {}
    for at, part in images_of(prompt.messages):
        if read is None:
            raise unseen(at)
        try:
            found[at] = read(part)
        except InvalidImage as error:
            raise error.moved(at) from error
    return found


def displayed_tokens(pieces: Iterable[Piece]) -> list[int]:
    """The token ids of ``pieces``, with `IMAGE_CELL` for each cell of an image."""
    tokens: list[int] = []
    for piece in pieces:
        tokens += piece.ids if isinstance(piece, TokenRun) else [IMAGE_CELL] * piece.cells
    return tokens


def with_ends(rendering: Rendering, vocabulary: Vocabulary, *, opened: bool) -> Rendering:
    """With one BOS; an ``opened`` prompt without a trailing EOS, which would end the reply."""
    pieces = list(rendering.pieces)
    if pieces and isinstance(pieces[0], PlacedImage):
        pieces.insert(0, TextPiece(0, 0, []))
    if pieces and isinstance(first := pieces[0], TextPiece):
        ids = with_one_bos(first.ids, vocabulary)
        pieces[0] = msgspec.structs.replace(first, ids=ids)
    last = pieces[-1] if pieces else None
    if opened and isinstance(last, TextPiece) and last.ids[-1:] == [vocabulary.eos]:
        pieces[-1] = msgspec.structs.replace(last, ids=last.ids[:-1])
    return msgspec.structs.replace(rendering, pieces=pieces)


def opening_tokens(rendering: Rendering, vocabulary: Vocabulary) -> int:
    """How many tokens at the end open the reply; 0 where that is not known.

    By itself the text may begin with another token: with a space, or with one that it shares with
    the turn before. What follows is the same.
    """
    last, at = rendering.pieces[-1] if rendering.pieces else None, rendering.opened_at
    if at is None or not isinstance(last, TextPiece):
        return 0
    ids = vocabulary.tokenize(rendering.text[at:], parse_special=True)
    pairs = zip(reversed(ids), reversed(last.ids), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def pieces_of(placed: Iterable[TextPiece | PlacedImage], images: Images) -> list[Piece]:
    """A rendered prompt with its images, for the engine."""
    pieces: list[Piece] = []
    for each in placed:
        if isinstance(each, PlacedImage):
            pieces += images[each.at]
        elif each.ids:
            pieces.append(TokenRun(tuple(each.ids)))
    return pieces


def shown_text(rendering: Rendering) -> str:
    """The text of a prompt, with words in the place of images."""
    text, start = "", 0
    for image in rendering.pieces:
        if isinstance(image, PlacedImage):
            text += rendering.text[start : image.start] + _shown(rendering, image)
            start = image.end
    return text + rendering.text[start:]


def shown_segments(
    rendering: Rendering, images: Images, vocabulary: Vocabulary, controls: Collection[int]
) -> list[Segment]:
    """The prompt in segments, each image one of them; none if the sources were not asked for."""
    found: list[Segment] = []
    for piece in rendering.pieces if rendering.users else []:
        if isinstance(piece, TextPiece):
            found += segments(rendering.text, rendering.users, [piece], vocabulary, controls)
        else:
            tokens = displayed_tokens(images[piece.at])
            text = _shown(rendering, piece)
            found.append(Segment(text=text, ids=tokens, control=False, source="image"))
    return found


def _shown(rendering: Rendering, image: PlacedImage) -> str:
    """What the template wrote for an image; a stand-in, which is one character, says nothing."""
    written = rendering.text[image.start : image.end]
    return written if len(written) > 1 else SHOWN
