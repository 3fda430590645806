"""A sequence as the scheduler sees it: a prompt and the answer that grows behind it."""

from __future__ import annotations

from dataclasses import dataclass, field

from server.core.request import CacheScope
from server.engine.adapters import Activation, Adapters
from server.engine.spans import ImageSpan, Keys, Spans


@dataclass(eq=False, slots=True)
class SequenceState:
    """One sequence's contents, and how far they are computed.

    ``order`` is its place in order of arrival. At cell ``turn_border`` the prompt opens the answer,
    0 if that is not known. The first ``computed`` cells of ``spans`` lie in KV cells under
    ``sequence_id``, which is None while the sequence waits. ``cached`` is how many of them the
    prefix cache provided at the first admission. ``scores_prompt``: the logits of every prompt
    token are wanted. ``drafts`` are guessed tokens to verify in the next step. ``adapters`` are
    applied to all of it, or from its ``activation`` on. One that ``gives_way`` stands behind all
    others.
    """

    order: int
    scope: CacheScope
    spans: Spans
    prompt_length: int
    turn_border: int = 0
    scores_prompt: bool = False
    sequence_id: int | None = None
    computed: int = 0
    cached: int | None = None
    preempted: bool = False
    priority: int = 0
    gives_way: bool = False
    drafts: list[int] = field(default_factory=list)
    adapters: Adapters | None = None
    activation: Activation | None = None

    @property
    def place(self) -> tuple[bool, int, int]:
        """Its place among others: the greatest priority first, then in order of arrival.

        Those that give way stand behind all others.
        """
        return self.gives_way, -self.priority, self.order

    @property
    def uncomputed(self) -> int:
        """The number of cells still to compute."""
        return self.spans.length - self.computed

    @property
    def next_image(self) -> ImageSpan | None:
        """The image that has the cells to be computed next, if they are an image's."""
        found = self.spans.image_from(self.computed)
        return found[1] if found is not None and found[0] <= self.computed else None

    @property
    def waits(self) -> bool:
        """Whether nothing of it can be computed until an image is encoded."""
        image = self.next_image
        return image is not None and image.embeddings is None

    @property
    def run(self) -> int:
        """How many cells of one kind come next: the rest of an image's, or tokens up to one.

        They end where other adapters begin to apply.
        """
        end = self.spans.length
        if self._awaits_activation:
            assert self.activation is not None
            end = self.activation.start
        found = self.spans.image_from(self.computed)
        if found is not None:
            start, image = found
            end = min(end, start + len(image) if start <= self.computed else start)
        return end - self.computed

    @property
    def _awaits_activation(self) -> bool:
        return self.activation is not None and self.computed < self.activation.start

    @property
    def next_adapters(self) -> Adapters | None:
        """Those that the next cells are computed with."""
        if self._awaits_activation:
            assert self.activation is not None
            return self.activation.before
        return self.adapters

    def cache_keys(self, end: int | None = None) -> Keys:
        """The keys of cells [0, end) by which caches know them."""
        keys = self.spans.keys(0, end)
        if self.activation is None or len(keys) <= self.activation.start:
            return keys
        keys = keys.copy()
        keys[self.activation.start] = self.activation.key
        return keys

    @property
    def whole(self) -> int:
        """How many cells are computed without those of an image that are not all."""
        found = self.spans.image_from(self.computed)
        return self.computed if found is None else min(found[0], self.computed)

    @property
    def reusable(self) -> int:
        """How many cells may come from the prefix cache: all but those whose logits are needed."""
        return 0 if self.scores_prompt else self.spans.length - 1

    @property
    def in_prompt(self) -> bool:
        """Whether part of the prompt is still to be computed."""
        return self.computed < self.prompt_length
