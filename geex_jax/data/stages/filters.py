"""The paper's filters as a stage: limits and reasons are those of `geex_jax.data.filters`."""

from __future__ import annotations

import dataclasses
from typing import Any

from geex_jax.data.document import Decision, Document
from geex_jax.data.filters import Filters, average_line, is_generated, letter_share


class PaperFilters:
    """Stage: size, average line, share of letters, "generated" in the head; section 3.1.

    Rows with a prompt pass: the limits are made for files, and an answer may be short.

    Args:
      filters: the limits.

    Raises:
      GeexError: limits that no file can meet.
    """

    name = "filters"

    def __init__(self, filters: Filters | None = None, **limits: Any):
        self.filters = dataclasses.replace(filters or Filters(), **limits)
        self.filters.check()

    def settings(self) -> dict[str, Any]:
        """Returns the limits; whether duplicates stay is a matter of another stage."""
        limits = dataclasses.asdict(self.filters)
        del limits["keep_duplicates"]
        return limits

    def __call__(self, document: Document) -> Decision:
        """Asks for size, lines, letters, head; the first reason that fits drops the document."""
        if document.prompt is not None:
            return Decision(True, note="a row with a prompt: the limits are for files")
        limits, text = self.filters, document.text
        size = len(text) if text.isascii() else len(text.encode())
        if reason := limits.judge_size(size):
            return Decision(False, reason, f"{size} bytes, {self._sizes()}")
        line = average_line(text)
        if limits.max_average_line and line > limits.max_average_line:
            note = f"average line {line:.1f} characters of at most {limits.max_average_line:g}"
            return Decision(False, "long_lines", note)
        letters = letter_share(text)
        if letters < limits.min_alpha:
            note = (
                f"{letters:.1%} of the characters are letters, of at least {limits.min_alpha:.0%}"
            )
            return Decision(False, "few_letters", note)
        if not limits.keep_generated and is_generated(text):
            return Decision(False, "generated", "its head says that a program wrote it")
        note = f"{size} bytes, average line {line:.1f}, {letters:.1%} letters"
        return Decision(True, note=note)

    def _sizes(self) -> str:
        most = self.filters.max_bytes or "any number"
        return f"of at least {self.filters.min_bytes} and at most {most}"
