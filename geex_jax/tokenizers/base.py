"""The interface that every tokenizer has, and what the three kinds share.

The rules of the house:

* `encode` takes text as text. A string such as `<|endoftext|>` inside a source file becomes the
  ids of its characters; it becomes the control token only under `allow_special=True`.
* `decode` of invalid UTF-8 gives U+FFFD. Ids at or above `vocab_size` stand for nothing (models
  pad their vocabulary); negative ids are an error.
* Text with lone surrogates (halves of a UTF-16 pair, which no UTF-8 file holds) is refused with
  a GeexError: replacing them in silence would lose the round trip.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from geex_jax import files
from geex_jax.errors import GeexError

MARKER = "geex_tokenizer.json"  # written last into a saved folder: kind and fingerprint


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back.

    Attributes:
      kind: "codegeex", "sentencepiece" or "huggingface".
      vocab_size: number of ids in use; every id that `encode` gives is below it.
      eos_id: the id that ends a document.
      pad_id: the id that fills rows; may equal `eos_id`.
    """

    kind: str
    vocab_size: int
    eos_id: int
    pad_id: int

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Returns the ids of `text`; literal control strings are text unless `allow_special`."""
        ...

    def encode_batch(
        self, texts: Sequence[str], *, allow_special: bool = False, num_workers: int | None = None
    ) -> list[list[int]]:
        """Returns `[encode(t) for t in texts]`, on `num_workers` cores (None: all)."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        ...

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Returns the bytes of `ids`, which may end within a character."""
        ...

    def token_byte_lengths(self) -> np.ndarray:
        """Returns int32 [vocab_size]: bytes of text per id; 0 for control and unused ids."""
        ...

    def fingerprint(self) -> str:
        """Returns 16 hex digits that change whenever the ids of some text may change."""
        ...

    def save(self, folder: files.Path) -> None:
        """Writes all that `tokenizers.load(folder)` needs; each file is whole or absent."""
        ...


class ByteTable:
    """A tokenizer part: decoding through a table from id to bytes.

    A subclass sets `_pieces` (bytes of each id, [vocab_size]) and `_control` (ids that stand for
    no text, even if their piece is printed).
    """

    kind: str
    vocab_size: int
    eos_id: int
    pad_id: int
    _pieces: list[bytes]
    _control: frozenset[int]
    _strips_first_space = False  # SentencePiece's dummy prefix, in models of others

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Returns the bytes of `ids`; see Tokenizer."""
        numbers = id_list(ids)
        try:
            if numbers and min(numbers) < 0:
                raise GeexError(f"token id {min(numbers)} is negative", "drop it before decoding")
            data = b"".join(map(self._pieces.__getitem__, numbers))
        except IndexError:
            size = self.vocab_size
            data = b"".join(self._pieces[i] for i in numbers if i < size)
        if self._strips_first_space and data.startswith(b" "):
            return data[1:]
        return data

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`; see Tokenizer."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def token_byte_lengths(self) -> np.ndarray:
        """Returns int32 [vocab_size]; see Tokenizer."""
        lengths = np.fromiter(map(len, self._pieces), np.int32, self.vocab_size)
        lengths[list(self._control)] = 0
        return lengths


def id_list(ids: Iterable[int]) -> list[int]:
    """Returns plain ints from a list, a generator, or a numpy or jax array of one dimension."""
    if isinstance(ids, list):
        return ids
    if hasattr(ids, "__array__"):
        return np.asarray(ids).reshape(-1).tolist()
    return list(ids)


def surrogate_error(text: Any) -> GeexError:
    """Returns the error for an input that is no text: not a str, or with lone surrogates."""
    if not isinstance(text, str):
        return GeexError(
            f"cannot encode {type(text).__name__}", "give a str (decode bytes as UTF-8 first)"
        )
    found = re.search("[\ud800-\udfff]", text)
    place = f" U+{ord(found[0]):04X} at character {found.start()}" if found else ""
    return GeexError(
        f"text holds a lone surrogate{place}", "read the file with errors='replace', or leave it"
    )


def encode_special(
    text: str,
    special: re.Pattern[str],
    special_ids: Mapping[str, int],
    encode: Callable[[str], list[int]],
) -> list[int]:
    """Returns ids with the control strings that `special` matches as control tokens.

    Args:
      text: any text.
      special: matches the control strings.
      special_ids: control string to id.
      encode: encodes the text between them.
    """
    ids: list[int] = []
    end = 0
    for match in special.finditer(text):
        ids += encode(text[end : match.start()])
        ids.append(special_ids[match[0]])
        end = match.end()
    return ids + encode(text[end:])


def cores() -> int:
    """Returns the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_threads(
    function: Callable[[str], list[int]],
    texts: Sequence[str],
    num_workers: int | None,
    group_characters: int = 65_536,
) -> list[list[int]]:
    """Returns `[function(t) for t in texts]`, with threads over groups of texts.

    For functions that release the interpreter lock. Groups of about `group_characters` keep the
    cost of handing out work small; the result does not depend on them.
    """
    workers = num_workers or cores()
    if workers <= 1 or len(texts) < 2:
        return [function(text) for text in texts]
    groups: list[list[str]] = [[]]
    size = 0
    for text in texts:
        if size >= group_characters:
            groups.append([])
            size = 0
        groups[-1].append(text)
        size += len(text)
    if len(groups) == 1:
        return [function(text) for text in texts]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(workers, len(groups))) as pool:
        done = pool.map(lambda group: [function(text) for text in group], groups)
        return [ids for group in done for ids in group]


def read_bytes(path: pathlib.Path, remedy: str) -> bytes:
    """Returns a file's content. Raises GeexError with `remedy` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise GeexError(f"cannot read {path}: {reason}", remedy) from None


def save_folder(
    folder: files.Path, contents: dict[str, bytes], kind: str, fingerprint: str
) -> None:
    """Writes the files of a tokenizer and, last, the marker that `load` checks them against."""
    folder = pathlib.Path(folder)
    try:
        for name, data in contents.items():
            with files.atomic_write(folder / name, "wb") as file:
                file.write(data)
        files.write_json(folder / MARKER, {"kind": kind, "fingerprint": fingerprint, "format": 1})
    except OSError as error:
        reason = error.strerror or str(error)
        raise GeexError(
            f"cannot write the tokenizer to {folder}: {reason}", "choose a folder you may write to"
        ) from None
