"""Archives read as streams: tar, zip, deb. Nothing is unpacked to disk.

What an archive holds is never trusted: names are only text, sizes are bounded, links and devices
are passed, and what unpacks to more than any honest archive holds is a `bomb`.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import json
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from typing import IO, Any

from geex_jax.data import storage
from geex_jax.data.document import Document, Part, Passed
from geex_jax.data.sources.licence_files import MAX_BYTES
from geex_jax.data.sources.limits import (
    Bomb,
    Budget,
    Limits,
    Readable,
    Section,
    size_of,
    take,
    unpacked,
)
from geex_jax.data.sources.listing import FileSource, whole_files
from geex_jax.data.sources.walk import VERSION_CONTROL
from geex_jax.data.stages.language import by_name
from geex_jax.data.stages.licences import LicenceMap, is_licence_file

_SUFFIXES = {
    **dict.fromkeys(
        (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".crate", ".gem",
         ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lzma"), "tar"),
    **dict.fromkeys(
        (".zip", ".whl", ".jar", ".war", ".ear", ".aar", ".egg", ".nupkg", ".vsix"), "zip"),
    **dict.fromkeys((".deb", ".udeb"), "deb"),
}  # fmt: skip
PATTERNS = tuple("*" + suffix for suffix in _SUFFIXES)
_MAX_HEADER = 1 << 20
_HEADER_TYPES = frozenset(
    (
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
    )
)


def kind_of(name: str) -> str | None:
    """Returns "tar", "zip" or "deb" for the name of an archive, else None."""
    name = os.path.basename(name).lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)


def is_archive(name: str) -> bool:
    """Tells whether a name is that of an archive."""
    return kind_of(name) is not None


@dataclasses.dataclass
class ArchiveReader:
    """Reads one archive, and the archives in it, one level deep.

    Attributes:
      source: name of the source, for the documents.
      limits: bounds.
      exclude: names of folders whose files are passed by.
      licence: of all documents. Without it the licence files and package metadata in the archive
        are read first, in a pass of its own.
    """

    source: str
    limits: Limits
    exclude: Collection[str] = ()
    licence: str = ""

    def __post_init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.left_out = frozenset(self.exclude) | VERSION_CONTROL
        self.licences = LicenceMap()

    def read(self, file: IO[bytes], path: str) -> Iterator[Document | Passed]:
        """Yields what is in an archive.

        Args:
          file: the archive; it can seek.
          path: its path in the source, and the first part of those of the documents.
        """
        if not self.licence:
            finder = _LicenceFinder(self.source, self.limits, self.exclude)
            collections.deque(finder.once(file, path), maxlen=0)
            self.licences = finder.licences
        yield from self.once(file, path)
        yield from self._counted(path)

    def once(self, file: IO[bytes], path: str) -> Iterator[Document | Passed]:
        """One pass over an archive, within a budget of its own."""
        try:
            self.budget = Budget(self.limits, size_of(file))
        except OSError:
            yield Passed("unreadable", path)
            return
        yield from self._guarded(file, path, kind_of(path) or "tar", 0)

    def _counted(self, path: str) -> Iterator[Passed]:
        size = self.counts.pop("bytes", 0)
        for reason, count in sorted(self.counts.items()):
            yield Passed(reason, path, count, size if reason == "files" else 0)

    def _guarded(
        self, stream: Any, path: str, kind: str, depth: int
    ) -> Iterator[Document | Passed]:
        """Opens an archive; whatever is wrong with it becomes a `Passed`."""
        formats: dict[str, Callable[[Any, str, int], Iterator[Document | Passed]]] = {
            "tar": self._tar,
            "zip": self._zip,
            "deb": self._deb,
        }
        try:
            yield from formats[kind](stream, path, depth)
        except Bomb:
            if depth:
                raise  # the budget is that of the whole: nothing is left of it
            yield Passed("bomb", path)
        except EOFError:
            yield Passed("truncated_archive", path)
        except tarfile.ReadError as error:
            ended = "end of data" in str(error)
            yield Passed("truncated_archive" if ended else "broken_archive", path)
        except MemoryError:
            raise
        except Exception:  # the formats' packages raise errors of a dozen kinds for broken data
            yield Passed("broken_archive", path)

    def _member(
        self, path: str, size: int, depth: int, open_member: Callable[[], Readable]
    ) -> Iterator[Document | Passed]:
        """Yields what a regular file in an archive gives: a document, the documents in it, ..."""
        self.counts["files"] += 1
        self.counts["bytes"] += size
        *folders, name = path.split("/")
        if not self.left_out.isdisjoint(folders):
            self.counts["excluded"] += 1
            return
        guess = by_name(name)
        kind = kind_of(name) if guess is None else None
        if kind is not None:
            yield from self._nested(path, kind, size, depth, open_member)
        elif guess is None:
            self.counts["unknown_language"] += 1
        elif size > self.limits.max_bytes:
            yield Passed("too_large", path, 1, size)
        else:
            data = take(open_member(), self.limits.max_bytes + 1)
            if len(data) < size:
                raise EOFError("cut short")
            language, ask = guess
            licence = self.licence or self.licences.of(path)
            yield Document(
                self.source, path, data, language=language, ask_content=ask, licence=licence
            )

    def _nested(
        self, path: str, kind: str, size: int, depth: int, open_member: Callable[[], Readable]
    ) -> Iterator[Document | Passed]:
        if depth:
            yield Passed("nested_archive", path, 1, size)
            return
        stream: Any = open_member()
        if kind == "zip":  # its directory is at its end
            if size > self.limits.max_nested:
                yield Passed("too_large", path, 1, size)
                return
            stream = io.BytesIO(take(stream, self.limits.max_nested))
        yield from self._guarded(stream, path, kind, depth + 1)

    # --- tar -------------------------------------------------------------------------------

    def _tar(self, stream: Readable, path: str, depth: int) -> Iterator[Document | Passed]:
        content: Any = unpacked(stream, self.budget)
        tar = tarfile.open(  # noqa: SIM115
            fileobj=content,
            mode="r|",
            bufsize=1 << 18,
            tarinfo=_Member,
            encoding="utf-8",
            errors="surrogateescape",
        )
        while (member := tar.next()) is not None:
            vars(tar)["members"].clear()  # else a list of all members grows
            name = f"{path}/{clean(member.name)}"
            if member.isreg() and not member.issparse():  # tarfile trusts maps of holes
                yield from self._member(
                    name, member.size, depth, lambda member=member: _opened(tar, member)
                )
            elif member.issym():
                self.counts["symlink"] += 1
            elif member.islnk():  # its content has come under another name
                self.counts["hard_link"] += 1
            elif not member.isdir():
                yield Passed("special_file", name)
        if not getattr(tar, "ended", False):
            raise EOFError("no mark at the end")

    # --- zip -------------------------------------------------------------------------------

    def _zip(self, file: Any, path: str, depth: int) -> Iterator[Document | Passed]:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield from self._zip_member(archive, info, path, depth)

    def _zip_member(
        self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, depth: int
    ) -> Iterator[Document | Passed]:
        name = f"{path}/{clean(info.filename.replace(chr(92), '/'))}"
        mode = info.external_attr >> 16
        size = info.file_size
        if stat.S_ISLNK(mode):
            self.counts["symlink"] += 1
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            yield Passed("special_file", name)
        elif info.flag_bits & 1:
            yield Passed("encrypted", name, 1, size)
        elif size > max(self.limits.slack, self.limits.max_ratio * info.compress_size):
            yield Passed("bomb", name, 1, size)
        else:
            try:
                yield from self._member(
                    name, size, depth, lambda: _Metered(archive.open(info), self.budget)
                )
            except (Bomb, MemoryError):
                raise
            except Exception:  # of this member only: the next one has a place of its own
                yield Passed("broken_member", name)

    # --- deb -------------------------------------------------------------------------------

    def _deb(self, stream: Readable, path: str, depth: int) -> Iterator[Document | Passed]:
        if take(stream, 8) != b"!<arch>\n":
            raise ValueError("no ar archive")
        while header := take(stream, 60):
            if len(header) < 60:
                raise EOFError("cut short")
            if header[58:] != b"`\n":
                raise ValueError("no ar header")
            name, size = header[:16].rstrip().rstrip(b"/"), int(header[48:58])
            if size < 0:
                raise ValueError("negative size")
            section = Section(stream, size)
            if name.startswith(b"data.tar"):
                yield from self._tar(section, f"{path}/data.tar", depth)
            section.skip()
            take(stream, size % 2)


class _LicenceFinder(ArchiveReader):
    """A pass over an archive that reads its licence files only, and yields no documents."""

    def _member(
        self, path: str, size: int, depth: int, open_member: Callable[[], Readable]
    ) -> Iterator[Document | Passed]:
        name = path.rsplit("/", 1)[-1]
        if is_licence_file(path):
            self.licences.add(path, take(open_member(), MAX_BYTES).decode("utf-8", "replace"))
        elif (kind := kind_of(name)) is not None and by_name(name) is None:
            yield from self._nested(path, kind, size, depth, open_member)


class _Member(tarfile.TarInfo):
    """Headers that cannot fill the memory or lead backwards, and whether the archive's end came.

    (`tarfile` takes a broken header for the end, and reads long names of any length.)
    """

    @classmethod
    def fromtarfile(cls, tarfile_: Any, /) -> Any:  # pyright: ignore
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # pyright: ignore
            tarfile_.ended = True
            raise
        except tarfile.InvalidHeaderError as error:  # pyright: ignore
            raise tarfile.ReadError(str(error)) from None

    def _proc_member(self, tar: Any) -> Any:
        if self.size < 0 or (self.type in _HEADER_TYPES and self.size > _MAX_HEADER):
            raise tarfile.ReadError("a header of impossible size")
        return super()._proc_member(tar)  # pyright: ignore


class _Metered:
    def __init__(self, stream: Readable, budget: Budget):
        self.stream, self.budget = stream, budget

    def read(self, n: int, /) -> bytes:
        piece = self.stream.read(n)
        self.budget.spend(len(piece))
        return piece


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Readable:
    file = tar.extractfile(member)
    assert file is not None  # it is a regular file
    return file


def clean(name: str) -> str:
    """Returns a member's name without what could lead out of a folder: "/x", "..", "."."""
    return "/".join(part for part in name.split("/") if part not in ("", ".", "..")) or "unnamed"


@dataclasses.dataclass(frozen=True)
class ArchiveSource(FileSource):
    """Archives, a part each.

    Attributes:
      exclude: names of folders whose files are passed by.
    """

    exclude: tuple[str, ...] = ()

    patterns = PATTERNS

    def parts(self, index: int) -> Iterator[Part | Passed]:
        """Yields a part for each archive.

        Raises:
          GeexError: there is none.
        """
        return whole_files(self, index)

    def read(self, part: Part) -> Iterator[Document | Passed]:
        """Reads what is in an archive."""
        name = json.loads(part.locator)["file"]
        reader = ArchiveReader(self.name, self.limits, self.exclude, self.licence)
        try:
            file = storage.open_read(self.path_of(name))
        except OSError:
            yield Passed("unreadable", self.shown(name))
            return
        with file:
            yield from reader.read(file, self.shown(name))
