"""From a canonical prompt to the tokens a model reads: what a worker asks this package for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Self

import msgspec

from server.core.errors import PLACE, InvalidRequest, UnsupportedParameter
from server.core.model_info import ModelKind
from server.core.model_kind import KindVerdict, detect_kind
from server.core.native_prompt import RenderedPrompt
from server.core.reply_format import ReplyFormat
from server.core.request import ChatPrompt, Prompt, ToolChoice, image_places
from server.core.sampling import Sampling
from server.core.vocabulary import Vocabulary
from server.grammar.lark import Spelling
from server.prompt.families.choice import Choice, ModelFacts, select_family
from server.prompt.families.definitions import Family
from server.prompt.guard.guard import Piece
from server.prompt.guard.segments import segments
from server.prompt.messages.normalize import check_variables, effective_variables
from server.prompt.messages.parts import message_text
from server.prompt.model_template import ModelTemplate, family_template, valid_templates
from server.prompt.raw_prompt import raw_prompt, with_one_bos
from server.prompt.template.chat_template import (
    DEFAULT_TEMPLATE,
    select_template,
    templates_in,
)
from server.reply.grammar import ReplyGrammar, reply_grammar
from server.reply.prefix import reply_prefix

_SILENT = Sampling()


class BuiltPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt ready for the engine.

    Attributes:
        rendered: The prompt and its tokens.
        stops: Texts that end the answer, besides the end-of-generation tokens.
        reply_prefix: The end of the prompt, if it already belongs to the reply.
        strip_leading_space: Whether one space in front of the answer belongs to the format.
        tools_active: Whether the reply may contain tool calls.
    """

    rendered: RenderedPrompt
    stops: list[str] = []
    reply_prefix: str = ""
    strip_leading_space: bool = False
    tools_active: bool = False


class ChatModel:
    """A model's kind, its templates, and its prompts.

    Attributes:
        kind: Whether the model continues text or answers.
        kind_reasons: The reasons for ``kind``, for users.
        family: Name of the family whose data is used, or None.
        template_source: ``gguf`` or ``family <name>``.
        template_sha256: Hash of the template in use.
        capabilities: What the template can express.
        template_variables: Variables of the template that a request may set.
        reply_format: Where reasoning and tool calls are in a reply; None if it is content only.
        sampling: Defaults for parameters that a request leaves out.
        warnings: Faults and guesses that the user should know of.
        strict_parameters: Whether to refuse variables that the template does not know, rather than
            leave them out; may be set.
    """

    def __init__(
        self,
        *,
        vocabulary: Vocabulary,
        verdict: KindVerdict,
        choice: Choice,
        templates: dict[str, ModelTemplate],
        sampling: Sampling,
        warnings: list[str],
    ) -> None:
        self._vocabulary = vocabulary
        self._family = choice.family
        self._templates = templates
        main = templates[select_template(templates, tools=False)]
        self._controls = main.guard.controls
        self.kind: ModelKind = verdict.kind
        self.kind_reasons = verdict.reasons
        self.family = choice.family.name if choice.family else None
        self.template_source = "gguf" if choice.own_template else f"family {self.family}"
        self.template_sha256 = main.template.sha256
        self.capabilities = main.capabilities
        self.template_variables = sorted(effective_variables(main.template))
        # A separate template for tools also shows how calls are written.
        self.reply_format = templates[select_template(templates, tools=True)].reply_format
        self._spelling = Spelling(vocabulary)
        self.sampling = sampling.over(choice.family.sampling) if choice.family else sampling
        self.warnings = warnings
        self.strict_parameters = False

    @classmethod
    def open(
        cls,
        metadata: Mapping[str, str],
        vocabulary: Vocabulary,
        file_name: str,
        *,
        families: Mapping[str, Family],
        family: str | None = None,
        kind: ModelKind | None = None,
        guard: bool = True,
        sampling: Sampling = _SILENT,
    ) -> Self:
        """Choose and probe a model's templates.

        Args:
            metadata: The GGUF file's key-values, as text.
            vocabulary: The model's tokenizer.
            file_name: Name of the model's file.
            families: All families, by name.
            family: The configured family; it overrides the choice.
            kind: The configured kind; it overrides the verdict.
            guard: Whether text of a request is kept from becoming control tokens.
            sampling: The configured sampling defaults; they override the family's.

        Raises:
            FamilyError: The family cannot be used.
        """
        sources = templates_in(metadata)
        eos = None if vocabulary.eos is None else vocabulary.text(vocabulary.eos)
        verdict = detect_kind(metadata, file_name, eos, has_template=bool(sources))
        if kind is not None:
            verdict = verdict.configured(kind)
        compiled, warnings = valid_templates(sources, vocabulary)
        own = compiled[select_template(compiled, tools=False)] if compiled else None
        facts = ModelFacts(
            architecture=metadata.get("general.architecture", ""),
            names=[metadata.get("general.name", ""), file_name],
            kind=verdict.kind,
            special_texts={token.text for token in vocabulary.special_tokens},
            template=own.source if own else None,
            template_sha256=own.sha256 if own else None,
        )
        choice = select_family(families, facts, family)
        if not choice.own_template:
            assert choice.family
            compiled = {DEFAULT_TEMPLATE: family_template(choice.family, vocabulary)}
        templates = {
            name: ModelTemplate.open(template, vocabulary, choice.family, guard=guard)
            for name, template in compiled.items()
        }
        warnings += [choice.warning] if choice.warning else []
        return cls(
            vocabulary=vocabulary,
            verdict=verdict,
            choice=choice,
            templates=templates,
            sampling=sampling,
            warnings=warnings,
        )

    def build(
        self, prompt: Prompt, *, context: int | None = None, with_segments: bool = False
    ) -> BuiltPrompt:
        """Turn ``prompt`` into tokens.

        Args:
            prompt: The request's prompt.
            context: The number of tokens that fit. Only text that certainly exceeds it is refused
                (see `check_context_length`); the result may still have more tokens.
            with_segments: Whether to find out where each token came from, for display.

        Raises:
            InvalidRequest: The prompt cannot be honoured by this model.
            ConversationError: Its template cannot express the conversation.
            ContextLengthExceeded: It certainly has more tokens than ``context``.
        """
        if isinstance(prompt, ChatPrompt):
            return self._build_chat(prompt, context, with_segments)
        text, piece = raw_prompt(prompt, self._vocabulary, context)
        users = [True] * len(text) if with_segments else []
        return BuiltPrompt(rendered=self._rendered(text, [piece], users))

    def reply_grammar(
        self,
        prompt: Prompt,
        reply_prefix: str,
        content: str | None,
        weaknesses: Mapping[str, int] = MappingProxyType({}),
    ) -> ReplyGrammar | None:
        """The grammar of a reply: calls match the tools' schemas, content matches ``content``.

        Args:
            prompt: The prompt.
            reply_prefix: The reply prefix that `build` found.
            content: A grammar for the content; None if it is free.
            weaknesses: How weak the schemas of some tools are made, by their names.

        Raises:
            InvalidConstraint: A tool's arguments cannot be enforced; the message names the tool.
        """
        if not isinstance(prompt, ChatPrompt):
            return None if content is None else ReplyGrammar(content, [])
        return reply_grammar(
            self.reply_format,
            prefix=reply_prefix,
            tools=prompt.tools if prompt.tool_choice.mode != "none" else (),
            choice=prompt.tool_choice,
            content=content,
            spelling=self._spelling,
            weaknesses=weaknesses,
        )

    def _build_chat(
        self, prompt: ChatPrompt, context: int | None, with_segments: bool
    ) -> BuiltPrompt:
        _check_pictures(prompt)
        if prompt.tool_choice.mode == "none":
            prompt = msgspec.structs.replace(prompt, tools=[])
        template = self._templates[select_template(self._templates, tools=bool(prompt.tools))]
        reply_format = template.reply_format
        if self.strict_parameters:
            check_variables(prompt.template_kwargs, template.template)
        if prompt.tools:
            self._check_tools(prompt.tool_choice, reply_format)
        rendering = template.render(prompt, context=context, sources=with_segments)
        pieces = rendering.pieces
        if pieces:
            first, *others = pieces
            ids = with_one_bos(first.ids, self._vocabulary)
            pieces = [msgspec.structs.replace(first, ids=ids), *others]
        if prompt.add_generation_prompt or prompt.continue_final_message:
            pieces = self._without_eos(pieces)
        stops = [
            *(self._family.stops if self._family else []),
            *(reply_format.stops if reply_format else []),
        ]
        return BuiltPrompt(
            rendered=self._rendered(rendering.text, pieces, rendering.users),
            stops=list(dict.fromkeys(stops)),
            reply_prefix=_reply_prefix(prompt, rendering.text, reply_format),
            strip_leading_space=bool(self._family and self._family.strip_leading_space),
            tools_active=bool(prompt.tools),
        )

    def _check_tools(self, choice: ToolChoice, reply_format: ReplyFormat | None) -> None:
        if self._family and not self._family.tools and choice.mode == "auto":
            raise InvalidRequest(
                f"The model is a {self.kind} model, prompted by the family {self.family}: it "
                "cannot decide by itself when to call a tool. Set tool_choice to require a call or "
                "to name a function, so that its output is constrained to a call.",
                at=("tools",),
            )
        if reply_format is None or reply_format.calls is None:
            raise InvalidRequest(
                "It is not known how this model writes tool calls, so it cannot be given tools.",
                at=("tools",),
            )

    def _rendered(
        self, text: str, pieces: Sequence[Piece], users: Sequence[bool]
    ) -> RenderedPrompt:
        return RenderedPrompt(
            prompt=text,
            tokens=[token for piece in pieces for token in piece.ids],
            segments=segments(text, users, pieces, self._vocabulary, self._controls)
            if users
            else [],
        )

    def _without_eos(self, pieces: list[Piece]) -> list[Piece]:
        """The pieces without a trailing EOS, which would end the reply before it begins."""
        if not pieces or pieces[-1].ids[-1:] != [self._vocabulary.eos]:
            return pieces
        return [*pieces[:-1], msgspec.structs.replace(pieces[-1], ids=pieces[-1].ids[:-1])]


def _check_pictures(prompt: ChatPrompt) -> None:
    at = next(image_places(prompt.messages), None)
    if at is not None:
        raise UnsupportedParameter(f"{PLACE}: this model has no projector for pictures.", at=at)


def _reply_prefix(prompt: ChatPrompt, text: str, reply_format: ReplyFormat | None) -> str:
    """The end of the native prompt ``text`` that the reply's parser must read first."""
    if reply_format is None:
        return ""
    start, end = reply_format.reasoning_edges
    if prompt.continue_final_message and start:
        written = message_text(prompt.messages[-1])
        if written.rfind(start) > written.rfind(end):
            return start
    return reply_prefix(text, reply_format)
