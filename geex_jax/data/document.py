"""What travels through the pipeline: documents, where they came from, what stages say of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable


@dataclasses.dataclass(slots=True)
class Document:
    """One file, table row or sample on its way from a source to packed rows.

    Attributes:
      source: name of the source in the recipe.
      path: where in the source, with "/" between folders and after the names of archives
        ("pool/x.deb/data.tar/usr/lib/x.py"); names that are not UTF-8 keep surrogate escapes.
      data: the content as read; the decoding stage empties it.
      text: the content once decoded (stages change it).
      language: index into `languages.LANGUAGES`, -1 until known.
      ask_content: True where the name leaves the language open.
      licence: SPDX expression; "" while unknown.
      prompt: of instruction and translation rows; there is no loss on it, and no tag before it.
      facts: small JSON values that stages leave for the report.
    """

    source: str
    path: str
    data: bytes = b""
    text: str = ""
    language: int = -1
    ask_content: bool = False
    licence: str = ""
    prompt: str | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


class Passed(NamedTuple):
    """What a source meets and does not read: a special file, a bomb, a broken line, ...

    `reason` is a word for the counts ("unreadable", "bomb", "broken_line"); `count` of them,
    `bytes` where known.
    """

    reason: str
    path: str = ""
    count: int = 1
    bytes: int = 0


class Part(NamedTuple):
    """A piece of a source that one worker reads: 256 files of a tree, an archive, a block of
    lines, a row group.

    Attributes:
      source: index of the source in the recipe.
      locator: JSON text that only the source understands; decides what is read.
      bytes: about how much there is to read, for the progress line.
      stamp: changes when the content does (size and time of the files); not part of the result.
    """

    source: int
    locator: str
    bytes: int
    stamp: str


@runtime_checkable
class Source(Protocol):
    """Where documents come from. Instances are sent to worker processes, so they are small."""

    name: str

    def settings(self) -> dict[str, Any]:
        """Returns, as JSON values, what decides the documents; no absolute paths of inputs."""
        ...

    def parts(self, index: int) -> Iterator[Part | Passed]:
        """Lists the parts in a fixed order, cheaply, without reading what is in them.

        Raises:
          GeexError: the input is missing, or its form is not that of this source.
        """
        ...

    def read(self, part: Part) -> Iterator[Document | Passed]:
        """Reads one part, in a fixed order and in bounded memory. Bad input never raises: it
        becomes a `Passed`, and the rest goes on."""
        ...


class Decision(NamedTuple):
    """What a stage made of a document.

    Attributes:
      keep: False drops it.
      reason: one word, why it is dropped; "" if kept.
      note: a sentence for `--explain`: what decided ("average line 31.2 of at most 100").
      counts: what to add to the stage's own counters in the manifest ("emails": 2).
    """

    keep: bool
    reason: str = ""
    note: str = ""
    counts: dict[str, int] | None = None


class Stage(Protocol):
    """One step of the pipeline over single documents. Instances are sent to worker processes.

    A stage may change the document in place. It must be a pure function of the document and its
    settings.
    """

    name: str

    def settings(self) -> dict[str, Any]:
        """Returns, as JSON values, what decides the outcome (lists by fingerprint)."""
        ...

    def __call__(self, document: Document) -> Decision:
        """Looks at one document."""
        ...
