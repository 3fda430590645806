"""Opening a model file: all that every kind of model needs, and the facts about it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec

from server import __version__
from server.core.model_info import EmbeddingInfo, ModelInfo, RankingInfo
from server.core.resources import templates_directory
from server.core.worker_settings import WorkerSettings
from server.engine.llama import LlamaModel, build_description
from server.engine.llama.projector import Projector
from server.library.file_facts import FileFacts, file_facts, model_file_facts
from server.library.header import GgufHeader
from server.library.model_header import read_model_at
from server.library.mtp import drafts_itself, has_head, head_problem
from server.prompt.chat_model import ChatModel
from server.prompt.embedding_families import EmbeddingFamily, embedding_family
from server.prompt.families.definitions import load_families
from server.prompt.infill import infill_form
from server.prompt.messages.capabilities import Capabilities
from server.worker.protocol import Load, Progress
from server.worker.serve.hardware import physical_cores
from server.worker.serve.layout import Layout, gpu_layers, lay_out
from server.worker.serve.vision import holding, open_projector

Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A model of any kind, before anything is computed with it.

    ``files`` are what it was loaded from, as they were before. ``prompts`` is being made on a
    thread of its own: templates are tried out in Python, while llama.cpp lays out its memory.
    """

    request: Load
    files: list[FileFacts]
    header: GgufHeader
    model: LlamaModel
    prompts: Future[ChatModel]
    layout: Layout
    threads: int
    projector: Projector | None = None
    embedding_family: EmbeddingFamily | None = None

    @property
    def chat(self) -> ChatModel:
        """The model's prompts, once they are made. Raises FamilyError."""
        return self.prompts.result()

    @property
    def head_problem(self) -> str | None:
        """Why its own head (MTP) was not loaded, although the file states one that could draft."""
        if self.request.settings.draft is not None or not has_head(self.header):
            return None
        return head_problem(self.header)

    def _unused_file(self, *, generates: bool) -> list[str]:
        """A warning about a file that was to draft for the model."""
        draft = self.request.settings.draft
        if draft is None or self.request.vocabulary_only:
            return []
        why = "its state cannot be cut back" if generates else "it does not generate"
        return [f"{Path(draft.path).name} does not draft for this model: {why}"]

    def info(
        self,
        *,
        generates: bool,
        kv_cells: int = 0,
        embedding: EmbeddingInfo | None = None,
        ranking: RankingInfo | None = None,
        drafter: str | None = None,
        head_problem: str | None = None,
        declined: str | None = None,
        warnings: Sequence[str] = (),
    ) -> ModelInfo:
        """The facts that the API process gets about the model.

        ``drafter`` is what drafts for it, ``head_problem``, why its own head (MTP) does not.
        ``declined``: as in `LlamaContext`.
        """
        header, model, chat, settings = self.header, self.model, self.chat, self.request.settings
        unused = self._unused_file(generates=generates) if drafter is None else []
        if head_problem:
            unused.append(f"the model's own head (MTP) does not draft: {head_problem}")
        if settings.gpu_layers and not gpu_layers(model, settings):
            unused.append("gpu_layers has no effect: llama.cpp finds no GPU that it can use")
        return ModelInfo(
            model_id=self.request.model_id,
            path=self.request.path,
            architecture=header.architecture,
            parameters=model.parameters,
            quantization=header.quantization,
            file_bytes=header.file_bytes,
            vocabulary=model.vocabulary.size,
            kind=chat.kind,
            kind_reasons=chat.kind_reasons,
            context=self.layout.context,
            context_source=self.layout.source,
            context_train=model.context_train,
            kv_cells=kv_cells,
            parallel=settings.parallel,
            threads=self.threads,
            gpu_layers=gpu_layers(model, settings),
            family=chat.family,
            template_source=chat.template_source,
            template_sha256=chat.template_sha256,
            capabilities=_verdicts(chat.capabilities),
            template_variables=chat.template_variables,
            generates=generates,
            embedding=embedding,
            ranking=ranking,
            projector=settings.projector.kind if settings.projector else None,
            draft=drafter,
            declined=declined,
            reply_format=chat.reply_format,
            sampling=chat.sampling,
            guard=settings.guard,
            safe_mode=settings.safe_mode,
            fingerprint=_fingerprint(Path(self.request.path), chat.template_sha256),
            memory_bytes=self.layout.memory_bytes,
            warnings=[*chat.warnings, *warnings, *unused],
        )


def open_model(request: Load, report: Report) -> OpenedModel:
    """Open what ``request`` names. Raises LoadError, InvalidGguf or OSError."""
    settings = request.settings
    path = Path(request.path)
    header = read_model_at(path)
    files = model_file_facts(path)
    model = LlamaModel(
        request.path,
        vocabulary_only=request.vocabulary_only,
        safe_mode=settings.safe_mode,
        with_head=drafts_itself(header, settings) and not request.vocabulary_only,
        gpu_layers=settings.gpu_layers,
        progress=lambda fraction: report(Progress(stage="weights", fraction=fraction)),
    )
    threads = settings.threads or physical_cores()
    projector = None
    if settings.projector is not None and not request.vocabulary_only:
        files += file_facts([Path(settings.projector.path)])
        on_gpu = gpu_layers(model, settings) > 0
        projector = open_projector(settings.projector, model, threads, on_gpu=on_gpu)
        settings = holding(settings, projector)
        request = msgspec.structs.replace(request, settings=settings)
    report(Progress(stage="template", fraction=1.0))
    names = [header.name or "", path.name]
    layout = lay_out(header, model, settings)
    family = embedding_family(_directories(settings), names)
    # Last: from here on two threads want the interpreter, until llama.cpp makes its context.
    prompts = ThreadPoolExecutor(1, "templates").submit(
        _open_prompts, settings, header, model, names
    )
    return OpenedModel(
        request=request,
        files=files,
        header=header,
        model=model,
        prompts=prompts,
        layout=layout,
        threads=threads,
        projector=projector,
        embedding_family=family,
    )


def _open_prompts(
    settings: WorkerSettings, header: GgufHeader, model: LlamaModel, names: Sequence[str]
) -> ChatModel:
    """The prompts of a model of these ``names``, the last of which is its file's."""
    directories = _directories(settings)
    # llama.cpp leaves arrays out of its metadata.
    tags = {"general.tags": " ".join(header.tags)}
    chat = ChatModel.open(
        model.metadata | tags,
        model.vocabulary,
        names[-1],
        families=load_families(directories),
        family=settings.family,
        kind=settings.kind,
        guard=settings.guard,
        sampling=settings.sampling,
    )
    chat.infill = infill_form(directories, model.vocabulary, names)
    chat.strict_parameters = settings.strict_parameters
    return chat


def _directories(settings: WorkerSettings) -> list[Path]:
    """Where families are looked for, in order."""
    return [templates_directory(), *map(Path, settings.template_dirs)]


def _verdicts(capabilities: Capabilities) -> dict[str, bool]:
    """The verdicts on what the template can express, by name."""
    found = msgspec.structs.asdict(capabilities)
    return {name: verdict for name, verdict in found.items() if isinstance(verdict, bool)}


def _fingerprint(path: Path, template_sha256: str) -> str:
    """Changes when the model file, its template or the build changes."""
    status = path.stat()
    facts = (status.st_size, status.st_mtime_ns, template_sha256, build_description(), __version__)
    return "fp_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
