"""The prefixes and answers on disk of the model that this worker serves."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import xxhash

from server.core.model_info import ModelInfo
from server.core.prefix_folder import written_whole
from server.core.worker_settings import WorkerSettings
from server.engine.disk.embedding_files import EmbeddingFiles
from server.engine.disk.prefix_disk import PrefixDisk
from server.engine.llama import build_description, build_files
from server.library.file_facts import FileFacts, file_facts
from server.prompt.answer_log import AnswerLog

_DIGEST_BYTES = 16
_CHANGED = "the model's files have changed since they were loaded"
_DAY_SECONDS = 24 * 3600.0


class OnDisk(NamedTuple):
    """What of one model outlives its worker: cached prefixes, tokens of answers, encoded images."""

    prefixes: PrefixDisk
    answers: AnswerLog
    images: EmbeddingFiles


def on_disk(
    info: ModelInfo, files: Sequence[FileFacts], settings: WorkerSettings, *, whole_states: bool
) -> OnDisk | None:
    """Where prefixes and answers of the model lie on disk; None if the settings want none.

    ``files`` are the model's, as they were before it was loaded. ``whole_states`` is what
    `PrefixDisk` says.
    """
    if not settings.prefix_disk_bytes:
        return None
    folder, room = Path(settings.prefixes_dir), settings.prefix_disk_bytes
    daily, age = settings.prefix_disk_daily_bytes, settings.prefix_disk_days * _DAY_SECONDS
    fingerprint = Fingerprint(info, files, settings, folder, whole_states=whole_states)
    return OnDisk(
        PrefixDisk(
            folder,
            model_id=info.model_id,
            most_bytes=room,
            daily_bytes=daily,
            most_age=age,
            fingerprint=fingerprint,
            whole_states=whole_states,
        ),
        AnswerLog(folder, folder_bytes=room, fingerprint=fingerprint),
        EmbeddingFiles(
            folder,
            most_bytes=room,
            daily_bytes=daily,
            most_age=age,
            fingerprint=fingerprint.if_known,
        ),
    )


class Fingerprint:
    """A digest of all that a state depends on besides its tokens.

    These are the contents of the model's files, llama.cpp with our kernels, the settings that
    change how cells are computed or laid out, and whether states are whole: how many cells fit
    decides, too, whether sliding windows keep all.
    """

    def __init__(
        self,
        info: ModelInfo,
        files: Sequence[FileFacts],
        settings: WorkerSettings,
        folder: Path,
        *,
        whole_states: bool,
    ) -> None:
        self._files = [*files, *file_facts(build_files())]
        self._contents: list[bytes] = []
        self._folder = folder
        self._settings = [build_description(), settings.kv_type, settings.flash_attention]
        self._settings += [str(info.safe_mode), str(info.gpu_layers), str(whole_states)]
        # llama.cpp rotates quantized cells, or not, which saved ones do not say (findings/).
        self._settings.append(os.environ.get("LLAMA_ATTN_ROT_DISABLE", ""))
        # Which of our kernels compute them (engine/llama/kernels/extension.cpp).
        self._settings.append(os.environ.get("GGML_DRAGOMAN_AVX2", ""))
        self._known = b""
        self._reading = threading.Lock()

    def if_known(self) -> bytes | None:
        """The digest; None while it has not been asked for, since that may read whole files.

        Raises:
            OSError: a file is not the one that was loaded.
        """
        return self() if self._known else None

    def __call__(self) -> bytes:
        """The digest.

        Raises:
            OSError: a file cannot be read, or is not the one that was loaded.
        """
        with self._reading:
            if self._known:
                self._look_again()
            else:
                self._read()
        return self._known

    def _read(self) -> None:
        contents = [_contents(file, self._folder) for file in self._files]
        # Another file may have come into the place of the one that llama.cpp opened.
        if file_facts(file.path for file in self._files) != self._files:
            raise OSError(_CHANGED)
        self._contents = contents
        text = "\0".join([digest.hex() for digest in contents] + self._settings).encode()
        self._known = hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()

    def _look_again(self) -> None:
        """Raise OSError if the files are no longer those that were read.

        A new name of a file (a hard link) changes its time of change, and so does writing to it
        and setting back its time of modification. Only reading it tells one from the other.
        """
        found = file_facts(file.path for file in self._files)
        for index, (before, now) in enumerate(zip(self._files, found, strict=True)):
            if now == before:
                continue
            same_file = now._replace(changed_ns=before.changed_ns) == before
            if not same_file or _contents(now, self._folder) != self._contents[index]:
                raise OSError(_CHANGED)
            self._files[index] = now


def _contents(facts: FileFacts, folder: Path) -> bytes:
    """XXH3-128 of a file, noted in ``folder`` until the file changes."""
    text = repr(facts[1:]).encode()
    note = folder / f"{hashlib.blake2b(text, digest_size=_DIGEST_BYTES).hexdigest()}.digest"
    with suppress(OSError):
        known = note.read_bytes()
        if known == _note(known[:_DIGEST_BYTES], text):
            return known[:_DIGEST_BYTES]
    hashed = xxhash.xxh3_128()
    with facts.path.open("rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            hashed.update(chunk)
    with suppress(OSError), written_whole(note) as written:
        written.write(_note(hashed.digest(), text))
    return hashed.digest()


def _note(digest: bytes, text: bytes) -> bytes:
    """A digest with a check: a power failure may leave zeros where a note was."""
    return digest + xxhash.xxh3_128_digest(text + digest)
