"""XLCoST's files as translation rows: the prompt holds a program, the text its translation.

A folder for each pair of languages holds, line by line the same programs,

    C++-C/train-C++-C-tok.cpp    C++-C/train-C++-C-tok.c    C++-C/train-C-map.jsonl

(`val-`, `test-` too), tokenized; the map says which problem a line is about. `pair_data_tok_full`
has whole programs, `pair_data_tok_1` snippets, of which not every one parses by itself.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from geex_jax.data import storage
from geex_jax.data.detokenize import detokenize
from geex_jax.data.document import Document, Part, Passed
from geex_jax.data.sources.limits import Limits
from geex_jax.errors import GeexError, did_you_mean
from geex_jax.languages import LANGUAGES

LONGEST_LINE = 1 << 18  # bytes; programs of XLCoST have about a thousand
SPLITS = ("train", "val", "test")
# End of a file's name -> name in `languages.LANGUAGES`, name in the files.
LANGUAGE_OF = {
    "cpp": ("C++", "C++"),
    "java": ("Java", "Java"),
    "py": ("Python", "Python"),
    "cs": ("C#", "C#"),
    "js": ("JavaScript", "Javascript"),
    "php": ("PHP", "PHP"),
    "c": ("C", "C"),
}
_FILE = re.compile(r"(?P<split>\w+)-(?P<pair>[^/]+)-tok\.(?P<end>cpp|java|py|cs|js|php|c)")
_INDEX = {language.name: index for index, language in enumerate(LANGUAGES)}


@dataclasses.dataclass(frozen=True)
class XlcostSource:
    """Translations in both directions of every pair of languages, or of those that are named.

    Attributes:
      name: of the source in the recipe.
      spec: XLCoST's folder, one of its folders of pairs, or a pair's own.
      split: "train", "val" or "test".
      directions: such as "C++-Python", from and to; empty for all.
      licence: SPDX expression of all documents (XLCoST is published under CC-BY-SA-4.0).
      limits: bounds on what is read.
    """

    name: str
    spec: str
    split: str = "train"
    directions: tuple[str, ...] = ()
    licence: str = "CC-BY-SA-4.0"
    limits: Limits = dataclasses.field(default_factory=Limits)

    def __post_init__(self) -> None:
        self.limits.check()
        if self.split not in SPLITS:
            raise GeexError(f"XLCoST has no split {self.split!r}", did_you_mean(self.split, SPLITS))
        known = [f"{a}-{b}" for (a, _), (b, _) in itertools.permutations(LANGUAGE_OF.values(), 2)]
        for direction in self.directions:
            if direction not in known:
                raise GeexError(f"unknown direction {direction!r}", did_you_mean(direction, known))

    def settings(self) -> dict[str, Any]:
        """Returns what decides the documents, but for where the folder lies."""
        return {
            "kind": "xlcost",
            "name": self.name,
            "split": self.split,
            "directions": sorted(self.directions),
            "licence": self.licence,
            "limits": dataclasses.asdict(self.limits),
        }

    def parts(self, index: int) -> Iterator[Part | Passed]:
        """Yields a part for each direction of each pair; a file without its partner is passed.

        Raises:
          GeexError: there is no pair of files of this split.
        """
        pairs: dict[str, dict[str, storage.Entry]] = {}
        if storage.is_folder(self.spec):
            for entry in storage.find(self.spec, (f"{self.split}-*-tok.*",)):
                folder, _, name = entry.path.rpartition("/")
                match = _FILE.fullmatch(name)
                if match and match["split"] == self.split:
                    key = f"{folder}/{match['pair']}" if folder else match["pair"]
                    pairs.setdefault(key, {})[match["end"]] = entry
        if not any(len(ends) == 2 for ends in pairs.values()):
            raise GeexError(
                f"{self.spec} holds no pair of XLCoST files of the split {self.split}",
                f"give the folder of C++-C/{self.split}-C++-C-tok.cpp, or one above it",
            )
        for ends in pairs.values():
            if len(ends) != 2:
                for entry in ends.values():
                    yield Passed("no_partner", entry.path, 1, entry.size)
                continue
            for source, target in itertools.permutations(ends):
                direction = f"{LANGUAGE_OF[source][0]}-{LANGUAGE_OF[target][0]}"
                if not self.directions or direction in self.directions:
                    files = [ends[source], ends[target]]
                    yield Part(
                        index,
                        json.dumps([entry.path for entry in files]),
                        sum(entry.size for entry in files),
                        " ".join(entry.stamp for entry in files),
                    )

    def read(self, part: Part) -> Iterator[Document | Passed]:
        """Reads a direction of a pair, line by line; broken lines are passed."""
        source, target = json.loads(part.locator)
        try:
            with (
                storage.open_read(storage.join(self.spec, source)) as one,
                storage.open_read(storage.join(self.spec, target)) as other,
            ):
                yield from self._rows(source, target, one, other)
        except OSError:
            yield Passed("unreadable", target, 1, part.bytes)

    def _rows(
        self, source: str, target: str, one: IO[bytes], other: IO[bytes]
    ) -> Iterator[Document | Passed]:
        languages = [LANGUAGE_OF[path.rsplit(".", 1)[-1]][0] for path in (source, target)]
        titles = "-to-".join(languages)
        problems = self._problems(target)
        limit = min(self.limits.max_bytes, LONGEST_LINE)
        both = itertools.zip_longest(_lines(one, limit), _lines(other, limit))
        for number, lines in enumerate(both):
            problem = next(problems, "")
            folder = target.rpartition("/")[0]
            path = f"{folder}/" * bool(folder) + f"{self.split}/{titles}/{number}{problem}"
            if None in lines:
                yield Passed("no_partner", path)
            elif b"" in lines:
                yield Passed("too_large", path)
            else:
                yield self._document(path, languages, lines)

    def _document(
        self, path: str, languages: list[str], lines: tuple[bytes, bytes]
    ) -> Document | Passed:
        try:
            texts = [line.decode().rstrip("\r\n") for line in lines]
        except UnicodeDecodeError:
            return Passed("broken_line", path)
        programs = [detokenize(text, language)
                    for text, language in zip(texts, languages, strict=True)]  # fmt: skip
        if not all(programs):
            return Passed("empty", path)
        prompt = translation_prompt(languages[0], programs[0], languages[1])
        size = len(prompt) + len(programs[1])
        if size > self.limits.max_bytes:
            return Passed("too_large", path, 1, size)
        return Document(
            self.name,
            path,
            text=programs[1],
            language=_INDEX[languages[1]],
            licence=self.licence,
            prompt=prompt,
        )

    def _problems(self, target: str) -> Iterator[str]:
        """Yields "-1050-C-1" a line, from the map; ends where it does, or if there is none."""
        folder = target.rpartition("/")[0]
        name = LANGUAGE_OF[target.rsplit(".", 1)[-1]][1]
        path = f"{folder}/" * bool(folder) + f"{self.split}-{name}-map.jsonl"
        try:
            with storage.open_read(storage.join(self.spec, path)) as file:
                for line in _lines(file, 1000):
                    word = re.sub(r"[^\w+#.-]+", "", line.decode("utf-8", "replace"))
                    yield f"-{word[:80]}" if word else ""
        except OSError:
            return


def translation_prompt(source: str, program: str, target: str) -> str:
    """Returns the paper's prompt, without a declaration in the target language.

    Args:
      source, target: names as in `languages.LANGUAGES`.
      program: in the source language.
    """
    return f"code translation\n{source}:\n{program.rstrip()}\n{target}:\n"


def _lines(file: IO[bytes], limit: int) -> Iterator[bytes]:
    """Yields the lines; an empty one as a line end, a longer one than `limit` as b""."""
    while line := file.readline(limit + 1):
        if len(line) > limit and not line.endswith(b"\n"):
            while (rest := file.readline(limit + 1)) and not rest.endswith(b"\n"):
                pass
            yield b""
        else:
            yield line
