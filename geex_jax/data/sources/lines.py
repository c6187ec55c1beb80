"""JSON lines: parts by byte ranges, lines of any length in bounded memory."""

from __future__ import annotations

import abc
import json
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from geex_jax.data.document import Document, Part, Passed
from geex_jax.data.sources.limits import Bomb, Budget, Readable, size_of, unpacked
from geex_jax.data.sources.listing import FileSource, locator

RANGE_BYTES = 64 << 20
_READ = 1 << 18
_PACKED = (".gz", ".zst", ".xz", ".bz2")


class Line(NamedTuple):
    """A line: where it begins in the (unpacked) file, and its bytes; None if it is too long."""

    start: int
    data: bytes | None


def packed(name: str) -> bool:
    """Tells whether a file's name is that of a compressed one."""
    return name.lower().endswith(_PACKED)


def line_parts(source: FileSource, index: int) -> Iterator[Part | Passed]:
    """Yields parts: byte ranges of plain files, compressed files whole.

    Raises:
      GeexError: there is no file.
    """
    for entry in source.entries():
        if packed(entry.path or source.spec):
            yield Part(index, locator(file=entry.path), entry.size, entry.stamp)
            continue
        for start in range(0, entry.size, RANGE_BYTES):
            end = min(start + RANGE_BYTES, entry.size)
            where = locator(file=entry.path, start=start, end=end)
            yield Part(index, where, end - start, entry.stamp)


class LineSource(FileSource, abc.ABC):
    """What sources of JSON lines have in common: a part is a range of lines."""

    def parts(self, index: int) -> Iterator[Part | Passed]:
        """Yields the parts of the files.

        Raises:
          GeexError: there is no file.
        """
        return line_parts(self, index)

    def read(self, part: Part) -> Iterator[Document | Passed]:
        """Reads the rows of a part."""
        for item in read_rows(self, part):
            yield item if isinstance(item, Passed) else self.of_row(*item)

    @abc.abstractmethod
    def of_row(self, path: str, row: dict[str, Any]) -> Document | Passed:
        """Returns the document of a row, or why there is none."""


def split_lines(
    stream: Readable, max_line: int, start: int = 0, end: int | None = None
) -> Iterator[Line]:
    """Yields the lines that begin before `end`, without their line ends.

    Args:
      stream: at `start`, where a line begins.
      max_line: of a longer line only the place is told; its rest is skipped.
      start: position in the file.
      end: position in the file, or None for all.
    """
    buffer, begun, long = bytearray(), start, False
    position = start
    while end is None or begun < end:
        chunk = stream.read(_READ)
        if not chunk:
            if long or buffer:
                yield Line(begun, None if long else bytes(buffer))
            return
        at = 0
        while (newline := chunk.find(b"\n", at)) >= 0:
            if not long:
                buffer += chunk[at:newline]
            yield Line(begun, None if long or len(buffer) > max_line else bytes(buffer))
            buffer.clear()
            long = False
            at = newline + 1
            begun = position + at
            if end is not None and begun >= end:
                return
        position += len(chunk)
        if not long:
            buffer += chunk[at:]
        if len(buffer) > max_line:
            buffer.clear()
            long = True
        if long and end is not None and position >= end:  # the next line is another part's
            yield Line(begun, None)
            return


def _to_line_start(file: IO[bytes], start: int, end: int) -> int | None:
    """Moves to the first line that begins at or after `start`; None if it is not before `end`."""
    if start == 0:
        file.seek(0)
        return 0
    file.seek(start - 1)
    position = start - 1
    while position < end - 1:
        chunk = file.read(min(_READ, end - 1 - position))
        if not chunk:
            return None
        newline = chunk.find(b"\n")
        if newline >= 0:
            file.seek(position + newline + 1)
            return position + newline + 1
        position += len(chunk)
    return None


def read_lines(source: FileSource, part: Part) -> Iterator[Line | Passed]:
    """Yields the lines of a part; what is wrong with the file becomes a `Passed`."""
    from geex_jax.data import storage

    where: dict[str, Any] = json.loads(part.locator)
    shown = source.shown(where["file"])
    # A character may take six bytes in JSON, and there are other fields beside the text.
    max_line = 4 * source.limits.max_bytes
    try:
        with storage.open_read(source.path_of(where["file"])) as file:
            if "start" not in where:
                budget = Budget(source.limits, size_of(file))
                yield from split_lines(unpacked(file, budget), max_line)
                return
            start = _to_line_start(file, where["start"], where["end"])
            if start is not None:
                yield from split_lines(file, max_line, start, where["end"])
    except Bomb:
        yield Passed("bomb", shown)
    except EOFError:
        yield Passed("truncated_file", shown)
    except MemoryError:
        raise
    except Exception as error:  # decompressors and remote storage raise errors of many kinds
        plain = isinstance(error, OSError) and not packed(shown)
        yield Passed("unreadable" if plain else "broken_file", shown)


def read_rows(source: FileSource, part: Part) -> Iterator[tuple[str, dict[str, Any]] | Passed]:
    """Yields (path, row) of a part's lines; the path is "file:position of the line"."""
    shown = source.shown(json.loads(part.locator)["file"])
    for line in read_lines(source, part):
        if isinstance(line, Passed):
            yield line
            continue
        path = f"{shown}:{line.start}"
        if line.data is None:
            yield Passed("too_large", path)
            continue
        if not line.data.strip():
            continue
        try:
            row = json.loads(line.data.removeprefix(b"\xef\xbb\xbf"))
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield path, row
        else:
            yield Passed("broken_line", path, 1, len(line.data))
