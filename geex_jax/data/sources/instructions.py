"""Instruction rows: {"prompt", "completion"}, or {"instruction", "input", "output"}.

The loss is on the completion alone.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from geex_jax.data.document import Document, Passed
from geex_jax.data.sources.fields import language_index
from geex_jax.data.sources.lines import LineSource
from geex_jax.data.sources.official import sample
from geex_jax.data.sources.tables import given_language

# (prompt, more of the prompt, completion): the first whose first and last field are there.
LAYOUTS = (
    ("prompt", "", "completion"),
    ("instruction", "input", "output"),
    ("instruction", "input", "response"),
    ("question", "", "answer"),
)
_FENCE = re.compile(r"^```([\w+#.-]+)[ \t]*$", re.M)


@dataclasses.dataclass(frozen=True)
class InstructionSource(LineSource):
    """Rows of a prompt and what should follow it.

    The language is that of a row's field "language", else the source's, else that of the first
    fenced block of the completion.

    Attributes:
      language: of rows that do not tell theirs.
      prompt_field: name of the field with the prompt; "" for the known names, as below.
      completion_field: name of the field with the completion.
    """

    language: str = ""
    prompt_field: str = ""
    completion_field: str = ""

    patterns = ("*.jsonl", "*.jsonl.gz", "*.jsonl.zst")

    def __post_init__(self) -> None:
        super().__post_init__()
        given_language(self.language)

    def of_row(self, path: str, row: dict[str, Any]) -> Document | Passed:
        """Returns the document of a row, or why there is none."""
        known = (layout for layout in LAYOUTS if layout[0] in row and layout[2] in row)
        first, more, last = next(known, LAYOUTS[0])
        prompt = row.get(self.prompt_field or first)
        completion = row.get(self.completion_field or last)
        if not isinstance(prompt, str) or not prompt or not isinstance(completion, str):
            return Passed("no_text", path)
        extra = row.get(more) if more and not self.prompt_field else None
        if isinstance(extra, str) and extra:
            prompt = f"{prompt}\n{extra}"
        language = self.language
        if not language and (fence := _FENCE.search(completion)):
            index = language_index(fence[1])
            if index >= 0:
                row = {"language": fence[1], **row}
        return sample(self, path, row, completion, prompt, language)
