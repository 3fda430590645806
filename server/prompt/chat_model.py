"""From a canonical prompt to the tokens a model reads: what a worker asks this package for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Self

import msgspec

from server.core.errors import InvalidRequest
from server.core.model_info import ModelKind
from server.core.model_kind import KindVerdict, detect_kind
from server.core.native_prompt import RenderedPrompt
from server.core.pieces import ImageReader
from server.core.request import ChatPrompt, Prompt, TextPrompt
from server.core.sampling import Sampling
from server.core.vocabulary import Vocabulary
from server.grammar.lark import Spelling
from server.grammar.leniency import Weaknesses
from server.prompt.built_prompt import BuiltPrompt
from server.prompt.families.choice import Choice, ModelFacts, select_family
from server.prompt.families.definitions import Family
from server.prompt.infill import InfillForm, infill_ends
from server.prompt.messages.normalize import check_variables, effective_variables
from server.prompt.model_template import ModelTemplate, Rendering, family_template, valid_templates
from server.prompt.open_reply import open_reply
from server.prompt.prompt_pieces import (
    Images,
    displayed_tokens,
    opening_tokens,
    pieces_of,
    read_images,
    shown_segments,
    shown_text,
    with_ends,
)
from server.prompt.raw_prompt import raw_prompt
from server.prompt.template.chat_template import (
    DEFAULT_TEMPLATE,
    select_template,
    templates_in,
)
from server.reply.grammar import ReplyGrammar, reply_grammar

_SILENT = Sampling()


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
        infill: The form of prompts that have a gap filled, if its family has one; may be set.
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
        self.infill: InfillForm | None = None
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
        self,
        prompt: Prompt,
        *,
        context: int | None = None,
        with_segments: bool = False,
        with_opening: bool = False,
        read_image: ImageReader | None = None,
    ) -> BuiltPrompt:
        """Turn ``prompt`` into tokens.

        Args:
            prompt: The request's prompt.
            context: The number of tokens that fit. Only text that certainly exceeds it is refused
                (see `check_context_length`); the result may still have more tokens.
            with_segments: Whether to find out where each token came from, for display.
            with_opening: Whether to find out where a chat's reply is opened.
            read_image: Reads the images of a chat; None: the model sees none.

        Raises:
            InvalidRequest: The prompt, or an image in it, cannot be honoured by this model.
            ConversationError: Its template cannot express the conversation.
            ContextLengthExceeded: It certainly has more tokens than ``context``.
        """
        if isinstance(prompt, ChatPrompt):
            images = read_images(prompt, read_image)
            return self._build_chat(
                prompt, images, context, with_segments=with_segments, with_opening=with_opening
            )
        text, piece = raw_prompt(prompt, self._vocabulary, context, self.infill)
        users = [True] * len(text) if with_segments else []
        built = self._built(Rendering(text=text, pieces=[piece], users=users), {})
        if isinstance(prompt, TextPrompt) and prompt.suffix is not None:
            return msgspec.structs.replace(built, ends=infill_ends(self._vocabulary, self.infill))
        return built

    def with_usable_tools(self, prompt: Prompt) -> Prompt:
        """``prompt``, without tools if this model may call one but never would.

        A base model calls tools only where ``tool_choice`` requires a call.
        """
        if not isinstance(prompt, ChatPrompt) or not prompt.tools:
            return prompt
        unable = self._family is not None and not self._family.tools
        if unable and prompt.tool_choice.mode == "auto":
            return msgspec.structs.replace(prompt, tools=[])
        return prompt

    def reply_grammar(
        self,
        prompt: Prompt,
        reply_prefix: str,
        content: str | None,
        weaknesses: Weaknesses = MappingProxyType({}),
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
        self,
        prompt: ChatPrompt,
        images: Images,
        context: int | None,
        *,
        with_segments: bool,
        with_opening: bool,
    ) -> BuiltPrompt:
        if prompt.tool_choice.mode == "none":
            prompt = msgspec.structs.replace(prompt, tools=[])
        template = self._templates[select_template(self._templates, tools=bool(prompt.tools))]
        reply_format = template.reply_format
        if self.strict_parameters:
            check_variables(prompt.template_kwargs, template.template)
        if prompt.tools and (reply_format is None or reply_format.calls is None):
            raise InvalidRequest(
                "It is not known how this model writes tool calls, so it cannot be given tools.",
                at=("tools",),
            )
        rendering = template.render(
            prompt, context=context, sources=with_segments, opening=with_opening
        )
        opened = prompt.add_generation_prompt or prompt.continue_final_message
        rendering = with_ends(rendering, self._vocabulary, opened=opened)
        stops = [
            *(self._family.stops if self._family else []),
            *(reply_format.stops if reply_format else []),
        ]
        return msgspec.structs.replace(
            self._built(rendering, images),
            stops=list(dict.fromkeys(stops)),
            reply_prefix=open_reply(prompt, rendering.text, reply_format),
            strip_leading_space=bool(self._family and self._family.strip_leading_space),
            tools_active=bool(prompt.tools),
            opening=opening_tokens(rendering, self._vocabulary),
        )

    def _built(self, rendering: Rendering, images: Images) -> BuiltPrompt:
        pieces = pieces_of(rendering.pieces, images)
        return BuiltPrompt(
            rendered=RenderedPrompt(
                prompt=shown_text(rendering),
                tokens=displayed_tokens(pieces),
                segments=shown_segments(rendering, images, self._vocabulary, self._controls),
            ),
            pieces=pieces,
        )
