"""The work folder: what each phase leaves there for the next.

parts.jsonl, parts.begins.npy     a line for each part: [source, locator, bytes, stamp]
documents/NNNNN.zst               zstd frames, one for each document kept by the stages
documents/NNNNN.index.npy         INDEX records, one for each of them
documents/NNNNN.signatures.npy    uint32 [documents, permutations] (near-dedup only)
bands/NNNNN.{npy,begins.npy}      scattered band keys of a part
edges/NNNNN.npy                   copies found in a bucket
fate/NNNNN.npy                    uint8 for each document of a part: KEPT, EXACT or NEAR
places/NNNNN.{npy,begins.npy}     scattered PLACE records of a part
shards/, validation/              what the pack phase writes, before it is published
"""

from __future__ import annotations

import json
import os
import pathlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from geex_jax import files
from geex_jax.data.dedup.shuffle import save
from geex_jax.data.document import Document, Part

INDEX = np.dtype(
    [
        ("sha256", "V32"),  # of the text, or of prompt, NUL, text
        ("offset", "<u8"),  # of the frame in its file
        ("stored", "<u4"),  # bytes of the frame
        ("bytes", "<u4"),  # of text and prompt in UTF-8
        ("language", "<i2"),
        ("licence", "<u2"),  # place in the part's list of licences
        ("signed", "u1"),  # whether it has a signature
        ("prompt", "u1"),  # whether it has a prompt
    ]
)
PLACE = np.dtype([("key", "V32"), ("part", "<u4"), ("row", "<u4"), ("copy", "<u2")])
KEPT, EXACT, NEAR = range(3)
OPEN_FILES = 64  # of documents, in one task


class Stored(NamedTuple):
    """A document read back."""

    source: str
    path: str
    text: str
    prompt: str | None
    facts: dict[str, Any]


class Layout:
    """Names of files below the work folder. Small: it is sent to workers."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def documents(self, part: int) -> pathlib.Path:
        """The frames of a part's documents."""
        return self.folder / "documents" / f"{part:05d}.zst"

    def index(self, part: int) -> np.ndarray:
        """Returns the INDEX records of a part, mapped."""
        return np.load(self.documents(part).with_suffix(".index.npy"), mmap_mode="r")

    def signatures(self, part: int) -> np.ndarray:
        """Returns the signatures of a part, mapped [documents, permutations]."""
        return np.load(self.documents(part).with_suffix(".signatures.npy"), mmap_mode="r")

    def bands(self, part: int) -> pathlib.Path:
        """The scattered band keys of a part."""
        return self.folder / "bands" / f"{part:05d}.npy"

    def edges(self, bucket: int) -> pathlib.Path:
        """The edges found in a bucket."""
        return self.folder / "edges" / f"{bucket:05d}.npy"

    def fate(self, part: int) -> pathlib.Path:
        """What deduplication decided of a part's documents."""
        return self.folder / "fate" / f"{part:05d}.npy"

    def places(self, part: int) -> pathlib.Path:
        """The scattered places of a part's documents."""
        return self.folder / "places" / f"{part:05d}.npy"

    def shard(self, number: int) -> pathlib.Path:
        """A shard, before its final name is known."""
        return self.folder / "shards" / f"{number:05d}.arrayrecord"

    def validation(self, number: int) -> pathlib.Path:
        """The texts of a validation shard."""
        return self.folder / "validation" / f"{number:05d}.jsonl"

    def write_parts(self, parts: Iterable[Part]) -> None:
        """Writes the list of parts, each to be found by its number."""
        begins = [0]
        with files.atomic_write(self.folder / "parts.jsonl", "wb") as file:
            for part in parts:
                line = json.dumps(part).encode() + b"\n"
                file.write(line)
                begins.append(begins[-1] + len(line))
        save(self.folder / "parts.begins.npy", np.array(begins, np.int64))

    def part(self, number: int) -> Part:
        """Returns a part by its number."""
        begins = np.load(self.folder / "parts.begins.npy", mmap_mode="r")
        with open(self.folder / "parts.jsonl", "rb") as file:
            file.seek(int(begins[number]))
            return Part(*json.loads(file.readline()))


class DocumentWriter:
    """Writes a part's documents: frames as they come, the index at the end.

    Both appear whole or not at all. Memory: 60 bytes a document.
    """

    def __init__(self, path: pathlib.Path):
        import zstandard

        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._writing = files.atomic_write(path, "wb")
        self._file = self._writing.__enter__()
        self._compress = zstandard.ZstdCompressor(level=1).compress
        self._offset = 0
        self._rows: list[tuple[Any, ...]] = []

    def add(self, document: Document, sha256: bytes, size: int, licence: int, signed: bool) -> None:
        """Appends a document."""
        header = {"source": document.source, "path": document.path}
        if document.prompt is not None:
            header["prompt"] = document.prompt
        if document.facts:
            header["facts"] = document.facts  # type: ignore[assignment]
        data = json.dumps(header).encode() + b"\n" + document.text.encode()
        frame = self._compress(data)
        self._file.write(frame)
        self._rows.append(
            (sha256, self._offset, len(frame), size, document.language, licence, signed,
             document.prompt is not None)
        )  # fmt: skip
        self._offset += len(frame)

    def close(self) -> None:
        """Puts frames and index in place."""
        self._writing.__exit__(None, None, None)
        save(self.path.with_suffix(".index.npy"), np.array(self._rows, INDEX))

    def abort(self, error: BaseException) -> None:
        """Removes what was written."""
        try:
            self._writing.__exit__(type(error), error, error.__traceback__)
        except type(error):
            pass


class DocumentReader:
    """Reads documents of any part; at most OPEN_FILES files are open."""

    def __init__(self, layout: Layout):
        import zstandard

        self.layout = layout
        self._decompress = zstandard.ZstdDecompressor().decompress
        self._open: OrderedDict[int, tuple[int, np.ndarray]] = OrderedDict()

    def _part(self, part: int) -> tuple[int, np.ndarray]:
        if part in self._open:
            self._open.move_to_end(part)
        else:
            if len(self._open) >= OPEN_FILES:
                os.close(self._open.popitem(last=False)[1][0])
            descriptor = os.open(self.layout.documents(part), os.O_RDONLY)
            self._open[part] = descriptor, self.layout.index(part)
        return self._open[part]

    def entry(self, part: int, row: int) -> np.void:
        """Returns the INDEX record of a document."""
        return self._part(part)[1][row]

    def read(self, part: int, row: int) -> Stored:
        """Returns a document."""
        descriptor, index = self._part(part)
        entry = index[row]
        frame = os.pread(descriptor, int(entry["stored"]), int(entry["offset"]))
        header, _, text = self._decompress(frame).partition(b"\n")
        value = json.loads(header)
        return Stored(
            value["source"], value["path"], text.decode(), value.get("prompt"),
            value.get("facts", {}),
        )  # fmt: skip

    def close(self) -> None:
        """Closes the files."""
        for descriptor, _ in self._open.values():
            os.close(descriptor)
        self._open.clear()


def bases(counts: Sequence[int]) -> np.ndarray:
    """Returns the number of documents before each part [parts + 1]."""
    out = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=out[1:])
    return out
