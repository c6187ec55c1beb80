"""Which fields of a row are what, in the layouts that are about."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from geex_jax.errors import GeexError, did_you_mean
from geex_jax.languages import LANGUAGES

# Names that are not the paper's, as the corpora write them.
_ALSO = {
    "c-sharp": "C#",
    "csharp": "C#",
    "c_sharp": "C#",
    "cpp": "C++",
    "golang": "Go",
    "bash": "Shell",
    "shellscript": "Shell",
    "latex": "TeX",
    "objectivec": "Objective-C",
    "objectivec++": "Objective-C++",
    "typescriptreact": "TypeScript",
    "javascriptreact": "JavaScript",
    "tsx": "TypeScript",
    "jsx": "JavaScript",
    "plpgsql": "SQL",
    "plsql": "SQL",
    "tsql": "SQL",
    "rlang": "R",
    "delphi": "Pascal",
    "object pascal": "Pascal",
    "fortran free form": "Fortran",
}


class Row(NamedTuple):
    """A row's values: `language` is an index, -1 for a name that is none of ours, None for none."""

    text: str
    language: int | None
    licence: str
    path: str
    code: bool


@dataclasses.dataclass(frozen=True)
class Fields:
    """Names of fields; "meta.path" is `path` in the field `meta`, which may be JSON text itself.

    Attributes:
      text: the code.
      language: its language's name; "" for none, as below.
      licence: SPDX expression, or a list of them.
      path: the file's name, which tells the language where no field does.
      subset: of mixed corpora: what part a row is of; rows of parts without code are passed.
    """

    text: str = ""
    language: str = ""
    licence: str = ""
    path: str = ""
    subset: str = ""

    def columns(self) -> list[str]:
        """Returns the top fields that are read."""
        values = dataclasses.astuple(self)
        return list(dict.fromkeys(value.split(".")[0] for value in values if value))

    def row(self, values: Mapping[str, Any]) -> Row | None:
        """Returns what a row holds, or None if it has no text."""
        text = _value(values, self.text)
        if not isinstance(text, str):
            return None
        language = _word(_value(values, self.language))
        return Row(
            text,
            language_index(language) if language else None,
            _joined(_value(values, self.licence)),
            _word(_value(values, self.path)),
            not self.subset or _word(_value(values, self.subset)).lower() in ("github", ""),
        )


# The Stack and its kin, CodeParrot's GitHub code, the Pile (other parts are no code), RedPajama.
LAYOUTS = {
    "the-stack": Fields("content", "lang", "max_stars_repo_licenses", "max_stars_repo_path"),
    "the-stack-v2": Fields("content", "language", "detected_licenses", "path"),
    "codeparrot": Fields("code", "language", "license", "path"),
    "codeparrot-clean": Fields("content", "", "license", "path"),
    "pile": Fields("text", "meta.language", "meta.license", "meta.path", "meta.pile_set_name"),
}
_CHOICES = {
    "text": ("content", "code", "text", "source", "func_code_string"),
    "language": ("lang", "language", "programming_language"),
    "licence": (
        "max_stars_repo_licenses",
        "detected_licenses",
        "license",
        "licence",
        "licenses",
        "spdx",
    ),
    "path": ("max_stars_repo_path", "path", "file_path", "filename", "file_name"),
}


def fields_of(columns: Iterable[str], layout: str = "auto", **given: str) -> Fields:
    """Returns the fields of rows with these columns.

    Args:
      columns: names of the top fields.
      layout: one of LAYOUTS, or "auto": known names, the first that is there.
      **given: names that stand above the layout's.

    Raises:
      GeexError: no such layout.
    """
    return _fields_of(frozenset(columns), layout, tuple(sorted(given.items())))


@functools.lru_cache(maxsize=256)
def _fields_of(columns: frozenset[str], layout: str, given: tuple[tuple[str, str], ...]) -> Fields:
    if layout == "auto":
        found = {
            key: next((name for name in names if name in columns), "")
            for key, names in _CHOICES.items()
        }
        base = Fields(**found)
        if "meta" in columns and found["text"] == "text":
            base = LAYOUTS["pile"]
    elif layout in LAYOUTS:
        base = LAYOUTS[layout]
    else:
        raise GeexError(f"unknown layout {layout!r}", did_you_mean(layout, ["auto", *LAYOUTS]))
    return dataclasses.replace(base, **{key: value for key, value in given if value})


def _value(values: Mapping[str, Any], name: str) -> Any:
    if not name:
        return None
    if name in values:
        return values[name]
    value: Any = values
    for key in name.split("."):
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def _word(value: Any) -> str:
    if isinstance(value, list):  # RedPajama: [{"name": "Python", "bytes": "1"}], largest first
        value = value[0] if value else ""
    if isinstance(value, Mapping):
        value = value.get("name", "")
    return value if isinstance(value, str) else ""


def _joined(value: Any) -> str:
    names = value if isinstance(value, list) else [value]
    words = [name for name in names if isinstance(name, str) and name]
    return " AND ".join(dict.fromkeys(words))


@functools.cache
def _names() -> dict[str, int]:
    index = {x.name: i for i, x in enumerate(LANGUAGES)}
    names = {word: index[name] for word, name in _ALSO.items()}
    for i, language in enumerate(LANGUAGES):
        names.update(dict.fromkeys(language.aliases, i))
    return names | {name.lower(): i for name, i in index.items()}


def language_index(name: str) -> int:
    """Returns the index of a language by any name that corpora use, -1 for none of ours."""
    return _names().get(name.strip().lower(), -1)
