"""The official corpus format: JSON lines of {"code": ..., "prompt": ...}.

As the official preprocessing has it, "pretrain" takes the code alone, and "finetune" learns the
code behind its prompt. There one language is given for a whole dataset; here a field "language"
in a row goes before it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from geex_jax.data.document import Document, Passed
from geex_jax.data.sources.fields import language_index
from geex_jax.data.sources.lines import LineSource
from geex_jax.data.sources.listing import FileSource
from geex_jax.data.sources.tables import given_language
from geex_jax.errors import GeexError

MODES = ("pretrain", "finetune")


@dataclasses.dataclass(frozen=True)
class OfficialSource(LineSource):
    """Rows of code, with or without what comes before it.

    Attributes:
      language: of rows that do not tell theirs.
      mode: "pretrain" leaves prompts away, "finetune" has no loss on them.
    """

    language: str = ""
    mode: str = "pretrain"

    patterns = ("*.jsonl", "*.jsonl.gz", "*.jsonl.zst", "*.gz")

    def __post_init__(self) -> None:
        super().__post_init__()
        given_language(self.language)
        if self.mode not in MODES:
            raise GeexError(f"unknown mode {self.mode!r}", f"use {' or '.join(MODES)}")

    def of_row(self, path: str, row: dict[str, Any]) -> Document | Passed:
        """Returns the document of a row, or why there is none."""
        prompt = row.get("prompt") if self.mode == "finetune" else None
        return sample(self, path, row, row.get("code"), prompt, self.language)


def sample(
    source: FileSource, path: str, row: dict[str, Any], text: Any, prompt: Any, language: str
) -> Document | Passed:
    """Returns the document of a row with a text and perhaps a prompt, or why there is none."""
    if not isinstance(text, str) or not isinstance(prompt, str | None):
        return Passed("no_text", path)
    if len(text) + len(prompt or "") > source.limits.max_bytes:
        return Passed("too_large", path, 1, len(text) + len(prompt or ""))
    named = row.get("language") or row.get("lang")
    index = language_index(named) if isinstance(named, str) else given_language(language)
    if index < 0 and isinstance(named, str):
        return Passed("unknown_language", path, 1, len(text))
    licence = row.get("license") or row.get("licence")
    licence = licence if isinstance(licence, str) else source.licence
    return Document(
        source.name,
        path,
        text=text,
        language=index,
        ask_content=index < 0,
        licence=licence,
        prompt=prompt or None,
    )
