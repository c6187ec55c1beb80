"""How much may come out of an archive, and streams that keep to it."""

from __future__ import annotations

import bz2
import dataclasses
import lzma
import zlib
from typing import IO, Any, Protocol

from geex_jax.errors import GeexError

_CHUNK = 1 << 16
_ZSTD_SLICE = 2048  # zstd makes at most 32,768 times as much of it in one call
_XZ_MEMORY = 1 << 28
_ZSTD_WINDOW = 1 << 27


class Readable(Protocol):
    """What reads at most n bytes, b"" at the end."""

    def read(self, n: int, /) -> bytes:
        """Reads."""
        ...


class Bomb(Exception):
    """More comes out of an archive than any honest one holds."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds on what is read.

    Attributes:
      max_bytes: a larger file, text or member is passed (`too_large`). A bound on memory, above
        what the filters drop: a notebook of 5 MB may hold 20 KB of code.
      max_total: bytes that may be unpacked from one archive, nested ones included.
      max_ratio: how many times its own size may be unpacked from an archive.
      slack: bytes that every archive may hold, whatever its size.
      max_nested: a larger zip inside another archive is passed, for it must be held in memory.
    """

    max_bytes: int = 8 << 20
    max_total: int = 64 << 30
    max_ratio: float = 100.0
    slack: int = 64 << 20
    max_nested: int = 64 << 20

    def check(self) -> None:
        """Raises GeexError for limits that nothing can meet."""
        if min(self.max_bytes, self.max_total, self.max_ratio, self.slack, self.max_nested) <= 0:
            raise GeexError("a source's limit is not positive", "leave it out for the usual one")


class Budget:
    """Counts what is unpacked from one archive, at all of its levels."""

    def __init__(self, limits: Limits, size: int):
        self.left = min(limits.max_total, max(limits.slack, int(limits.max_ratio * size)))

    def spend(self, count: int) -> None:
        """Raises Bomb when more than the limits allow has been unpacked."""
        self.left -= count
        if self.left < 0:
            raise Bomb


def take(stream: Readable, limit: int) -> bytes:
    """Returns the first `limit` bytes of a stream, or all if it ends before."""
    pieces, left = [], limit
    while left > 0:
        piece = stream.read(min(left, 1 << 20))
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


class Peeked:
    """A stream whose first bytes have been looked at."""

    def __init__(self, stream: Readable, count: int = 8):
        self.stream = stream
        self.head = self._rest = take(stream, count)

    def read(self, n: int, /) -> bytes:
        """Reads; the first bytes again first."""
        if self._rest:
            piece, self._rest = self._rest[:n], self._rest[n:]
            return piece
        return self.stream.read(n)


class Section:
    """The next `size` bytes of a stream. Raises EOFError where it ends before that."""

    def __init__(self, stream: Readable, size: int):
        self.stream, self.left = stream, size

    def read(self, n: int, /) -> bytes:
        """Reads."""
        n = min(n, self.left)
        if n <= 0:
            return b""
        piece = self.stream.read(n)
        if not piece:
            raise EOFError("cut short")
        self.left -= len(piece)
        return piece

    def skip(self) -> None:
        """Reads what is left."""
        while self.read(_CHUNK):
            pass


class _Fed:
    """What `bz2` and `lzma` tell, for decompressors that keep no input: the tail is kept here."""

    def __init__(self, decompressor: Any):
        self._object, self._tail = decompressor, b""

    @property
    def needs_input(self) -> bool:
        return not self._tail

    @property
    def eof(self) -> bool:
        return self._object.eof


class _Gzip(_Fed):
    def __init__(self) -> None:
        super().__init__(zlib.decompressobj(31))

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._object.decompress(self._tail + data, max_length)
        self._tail = self._object.unconsumed_tail
        return out

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data


class _Zstd(_Fed):
    """`decompressobj` knows no max_length, but whether a frame is whole: fed in small slices."""

    def __init__(self) -> None:
        import zstandard

        super().__init__(zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj())

    def decompress(self, data: bytes, max_length: int) -> bytes:
        import zstandard

        del max_length
        data = self._tail + data
        piece, self._tail = data[:_ZSTD_SLICE], data[_ZSTD_SLICE:]
        try:
            return self._object.decompress(piece) if piece else b""
        except zstandard.ZstdError as error:
            raise OSError(str(error)) from None

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data + self._tail


def _new_xz() -> Any:
    return lzma.LZMADecompressor(memlimit=_XZ_MEMORY)


_MAGIC: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", _Gzip),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", _new_xz),
    (b"\x5d\0\0", _new_xz),  # .lzma
    (b"\x28\xb5\x2f\xfd", _Zstd),
)


class Unpacked:
    """What comes out of a compressed stream, counted; several streams in a row are one.

    Raises, when read: EOFError where it is cut short, Bomb, and what the decompressors raise for
    broken data (OSError, EOFError, zlib.error, lzma.LZMAError).
    """

    def __init__(self, stream: Readable, make: Any, budget: Budget):
        self.stream, self.make, self.budget = stream, make, budget
        self.object = make()
        self.rest = b""
        self.begun = False

    def read(self, n: int, /) -> bytes:
        """Returns some bytes, at most n, b"" at the end."""
        while not self.rest:
            if self.object.eof:
                if not self._next_stream():
                    return b""
                continue
            data = self.stream.read(_CHUNK) if self.object.needs_input else b""
            ended = self.object.needs_input and not data
            self.rest = self.object.decompress(data, _CHUNK)
            self.budget.spend(len(self.rest))
            if ended and not self.rest and not self.object.eof:
                raise EOFError("cut short")
        piece, self.rest = self.rest[:n], self.rest[n:]
        return piece

    def _next_stream(self) -> bool:
        data = self.object.unused_data.lstrip(b"\0") or self.stream.read(_CHUNK)
        while data and not data.strip(b"\0"):  # padding
            data = self.stream.read(_CHUNK)
        if not data:
            return False
        self.object = self.make()
        self.rest = self.object.decompress(data, _CHUNK)
        self.budget.spend(len(self.rest))
        return True


def unpacked(stream: Readable, budget: Budget) -> Readable:
    """Returns the content of a stream, unpacked if its first bytes say that it is compressed."""
    peeked = Peeked(stream)
    for magic, make in _MAGIC:
        if peeked.head.startswith(magic):
            return Unpacked(peeked, make, budget)
    return peeked


def size_of(file: IO[bytes]) -> int:
    """Returns the size of a file that can seek; it is at its start afterwards."""
    size = file.seek(0, 2)
    file.seek(0)
    return size
