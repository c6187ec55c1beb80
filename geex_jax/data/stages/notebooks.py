"""Jupyter notebooks: the code cells, as one file in the kernel's language."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from geex_jax import languages
from geex_jax.errors import GeexError

_MAGIC = re.compile(r"^(\s*)([%!]|\?\S|[\w.]+\?\s*$)")
_KERNELS = {"ir": "R", "xcpp": "C++", "xpython": "Python", "ipython": "Python", "sos": "Python"}


class Notebook(NamedTuple):
    """Code of a notebook: `text`, the language's name ("" if it is none of the 23), cells."""

    text: str
    language: str
    cells: int


def read(text: str) -> Notebook | None:
    """Returns the code cells, an empty line between two, or None for what is no notebook.

    Lines for the notebook itself (`%matplotlib inline`, `!pip install`) become comments, cells in
    another language (`%%bash`) are left out, so that what is left parses.
    """
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(notebook, dict):
        return None
    language = _language(notebook.get("metadata"))
    python = language == "Python"
    sources = [_source(cell, python) for cell in _cells(notebook)]
    kept = [source for source in sources if source]
    if not kept and not isinstance(notebook.get("cells", notebook.get("worksheets")), list):
        return None
    return Notebook("\n\n".join(kept) + "\n" if kept else "", language, len(kept))


def _language(metadata: object) -> str:
    """Returns our name of the kernel's language; Python where the notebook says nothing."""
    if not isinstance(metadata, dict):
        return "Python"
    for part, key in (
        ("language_info", "name"),
        ("kernelspec", "language"),
        ("kernelspec", "name"),
    ):
        table = metadata.get(part)
        word = table.get(key) if isinstance(table, dict) else None
        if isinstance(word, str) and word:
            word = word.lower()
            word = _KERNELS.get(word, word.rstrip("0123456789.") if part == "kernelspec" else word)
            try:
                return languages.get(word).name
            except GeexError:
                return ""
    return "Python"


def _cells(notebook: dict) -> list[dict]:
    found = notebook.get("cells")
    if not isinstance(found, list):  # nbformat 3
        sheets = notebook.get("worksheets")
        sheets = sheets if isinstance(sheets, list) else []
        found = [
            cell
            for sheet in sheets
            if isinstance(sheet, dict) and isinstance(sheet.get("cells"), list)
            for cell in sheet["cells"]
        ]
    return [c for c in found if isinstance(c, dict) and c.get("cell_type") == "code"]


def _source(cell: dict, python: bool) -> str:
    source = cell.get("source", cell.get("input", ""))
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    if not isinstance(source, str):
        return ""
    source = source.strip("\n").rstrip()
    if not python:
        return source
    if source.lstrip().startswith("%%"):
        first, _, rest = source.lstrip().partition("\n")
        if first.split()[0] not in ("%%time", "%%timeit", "%%capture", "%%prun"):
            return ""
        source = f"# {first}\n{rest}"
    return "\n".join(_MAGIC.sub(r"\1# \2", line) for line in source.split("\n"))
