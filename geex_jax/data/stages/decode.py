"""From bytes to text: encodings, and what is no source although its name says so."""

from __future__ import annotations

import codecs
import re
from typing import Any

import numpy as np

from geex_jax import languages
from geex_jax.data.document import Decision, Document
from geex_jax.data.stages import names, notebooks
from geex_jax.data.stages.language import NOTEBOOK

# Longest first: UTF-32's mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le", "utf32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "utf32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "utf16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "utf16"),
)
_CONTROLS = bytes(sorted(set(range(32)) - set(b"\t\n\v\f\r\x1b") | {127}))
_HIGH_RUNS = re.compile(rb"[\x80-\xff]+")
_LETTER_BESIDE = re.compile(rb"(?:(?<=[A-Za-z])[\x80-\xff]|[\x80-\xff](?=[A-Za-z]))")
_SIGNS = frozenset("©®§°±«»µ·¡¿£¥²³¼½¾ªº\xa0\xad")


class Decode:
    """Stage: fills `document.text` from `document.data`, and empties the latter.

    Reasons: `lock_file`, `minified`, `generated`, `vendored` (by name), `too_large`, `binary`,
    `broken_utf8`, `broken_notebook`, `no_code`, `minified` (by its lines). Counts: `utf8_mark`,
    `utf16`, `utf32`, `latin1`, `notebooks`.

    Args:
      names: whether names alone drop a file.
      latin1: whether files that are no UTF-8, and surely text in Latin-1, are read as such.
      long_line: a line of more characters counts as minified; 0 for no such test.
      minified_share: a file of which lines as long as that hold a larger share is dropped.
      max_bytes: what is larger is not decoded; far above the paper's limit, for notebooks.
    """

    name = "decode"

    def __init__(
        self,
        *,
        names: bool = True,
        latin1: bool = True,
        long_line: int = 500,
        minified_share: float = 0.5,
        max_bytes: int = 16 * 1024 * 1024,
    ):
        self.names, self.latin1 = names, latin1
        self.long_line, self.minified_share = long_line, minified_share
        self.max_bytes = max_bytes

    def settings(self) -> dict[str, Any]:
        """Returns all of the arguments."""
        return {
            "names": self.names,
            "latin1": self.latin1,
            "long_line": self.long_line,
            "minified_share": self.minified_share,
            "max_bytes": self.max_bytes,
        }

    def __call__(self, document: Document) -> Decision:
        """Decodes, or says why not."""
        data, document.data = document.data, b""
        if self.names and (reason := names.judge(document.path)):
            return Decision(False, reason, "by its name")
        if len(data) > self.max_bytes:
            return Decision(False, "too_large", f"{len(data)} bytes of at most {self.max_bytes}")
        encoding = "text"
        if data:
            text, encoding = decode(data, latin1=self.latin1)
            if text is None:
                return Decision(False, encoding, "no text in an encoding that is known for sure")
            document.text = text
        elif "\0" in document.text:
            return Decision(False, "binary", "zero bytes in the text")
        elif not _encodes(document.text) or not _encodes(document.prompt or ""):
            return Decision(False, "broken_utf8", "half of a surrogate pair in the text")
        counts = {} if encoding in ("utf8", "text") else {encoding: 1}
        if document.path.lower().endswith(NOTEBOOK):
            counts["notebooks"] = 1
            dropped = _open_notebook(document)
            if dropped is not None:
                return dropped
        if self.long_line and document.prompt is None:
            share = long_line_share(document.text, self.long_line)
            if share > self.minified_share:
                note = f"{share:.0%} of it in lines of over {self.long_line} characters"
                return Decision(False, "minified", note)
        return Decision(True, note=encoding, counts=counts or None)


def decode(data: bytes, *, latin1: bool = True) -> tuple[str | None, str]:
    """Returns (text, encoding) or (None, reason: "binary" or "broken_utf8").

    Encodings: "utf8", "utf8_mark", "utf16", "utf32", "latin1".
    """
    for mark, codec, name in _MARKS:
        # FF FE 00 00 is UTF-32's mark; UTF-16 would begin with a zero character.
        if data.startswith(mark):
            try:
                text = data[len(mark) :].decode(codec)
            except UnicodeDecodeError:
                continue
            return (None, "binary") if "\0" in text else (text, name)
    if b"\0" in data or _is_binary(data):
        return None, "binary"
    marked = data.startswith(codecs.BOM_UTF8)
    try:
        text = data[3:].decode() if marked else data.decode()
    except UnicodeDecodeError:
        if latin1 and surely_latin1(data):
            return data.decode("latin-1"), "latin1"
        return None, "broken_utf8"
    return text, "utf8_mark" if marked else "utf8"


def _is_binary(data: bytes) -> bool:
    """Tells whether more than 1 byte in 200 is a control character that no text uses."""
    return 200 * (len(data) - len(data.translate(None, _CONTROLS))) > len(data)


def surely_latin1(data: bytes) -> bool:
    """Tells whether bytes that are no UTF-8 can only be Latin-1 text.

    All high bytes must be letters or common signs of Latin-1, and few; nearly all stand alone and
    beside an ASCII letter, as in "für": bytes of UTF-8 and of Asian encodings stand in groups.
    """
    runs = _HIGH_RUNS.findall(data)
    high = b"".join(runs)
    if not high or 10 * len(high) > len(data):
        return False
    if any(not (c.isalpha() or c in _SIGNS) for c in set(high.decode("latin-1"))):
        return False
    single = sum(len(run) == 1 for run in runs)
    signs = sum(high.count(c.encode("latin-1")) for c in _SIGNS)
    beside = len(_LETTER_BESIDE.findall(data))
    return 10 * single >= 9 * len(runs) and 10 * (beside + signs) >= 9 * len(high) and beside > 0


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def long_line_share(text: str, limit: int) -> float:
    """Returns the share of the characters that stand in lines of more than `limit`."""
    if len(text) <= limit:
        return 0.0
    data = np.frombuffer(text.encode(), np.uint8)
    ends = np.flatnonzero(data == 10)
    lengths = np.diff(ends, prepend=-1, append=len(data)) - 1
    return float(lengths[lengths > limit].sum()) / len(data)


def _open_notebook(document: Document) -> Decision | None:
    """Puts the code of the cells in place of the notebook; returns a decision if that fails."""
    notebook = notebooks.read(document.text)
    if notebook is None:
        return Decision(False, "broken_notebook", "no notebook in JSON")
    if not notebook.language:
        return Decision(False, "unknown_language", "the kernel's language is none of the 23")
    if not notebook.cells:
        return Decision(False, "no_code", "a notebook without code cells")
    document.text = notebook.text
    document.language = [x.name for x in languages.LANGUAGES].index(notebook.language)
    document.ask_content = False
    document.facts["cells"] = notebook.cells
    return None
