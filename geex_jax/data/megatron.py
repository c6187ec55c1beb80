"""Megatron-LM's `.bin/.idx` files as a source of rows, read in place.

`PREFIX.idx` is `MMIDIDX\\0\\0`, version u64 (1), dtype u8, sequences u64, document ends u64, then
sizes int32 [sequences], byte offsets int64 [sequences] and the document index int64 [document
ends] (numbers of sequences); `PREFIX.bin` holds the tokens of all sequences, one after the other.
Rows are cut from the concatenated documents as Megatron cuts its samples, each beginning with the
token that the one before ended with, so that every token but the first is a target once; a
segment starts where a document does.

The official code of CodeGeeX writes three such pairs, `PREFIX_input_ids`, `_attention_mask` and
`_labels`, of windows that are padded to one length, and no document index: there every sequence
is a row, with the loss where its labels are not -100.

A folder of this kind has a manifest and a tokenizer and no shards; the manifest's settings name
the files. Memory is that of the pages that are read, which the system can take back.
"""

from __future__ import annotations

import bisect
import json
import os
import pathlib
import shutil
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from geex_jax import files
from geex_jax.data import manifest as manifests
from geex_jax.data.manifest import Amount, LanguageInfo, Licence, Manifest, TokenizerInfo
from geex_jax.data.records import Row
from geex_jax.errors import GeexError
from geex_jax.languages import LANGUAGES

if TYPE_CHECKING:
    from geex_jax.tokenizers.base import Tokenizer

UNKNOWN = "Unknown"  # the pseudo language of files that no flag gives one
_MAGIC = b"MMIDIDX\0\0"
_HEADER = struct.Struct("<9sQBQQ")
_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}  # 6, 7: floats
_BLOCK = 1 << 22
_TRIPLE = ("_input_ids", "_attention_mask", "_labels")


class Indexed:
    """One `.bin/.idx` pair.

    Attributes:
      tokens: all tokens, mapped [T].
      documents: where documents may begin: numbers of sequences, ascending, the end included.
    """

    def __init__(self, prefix: str):
        """Opens and checks the pair by its sizes.

        Raises:
          GeexError: a file is missing, of another form, or cut short.
        """
        self.prefix = prefix
        index, data = prefix + ".idx", prefix + ".bin"
        try:
            with open(index, "rb") as file:
                head = file.read(_HEADER.size)
            index_size, data_size = os.path.getsize(index), os.path.getsize(data)
        except OSError as error:
            raise GeexError(
                f"cannot read {error.filename}: {error.strerror}",
                "give the path without .bin and .idx",
            ) from None
        if len(head) < _HEADER.size or not head.startswith(_MAGIC):
            raise GeexError(f"{index} is no index of Megatron's mmap format", "check the path")
        _, version, code, sequences, ends = _HEADER.unpack(head)
        if version != 1 or code not in _DTYPES:
            raise GeexError(
                f"{index} has version {version} and dtype code {code}",
                "version 1 with integers can be read",
            )
        dtype, at = np.dtype(_DTYPES[code]), _HEADER.size
        # Multimodal indices have a byte for each sequence behind all this.
        expected = at + 12 * sequences + 8 * ends
        if index_size not in (expected, expected + sequences) or not sequences:
            raise _cut(index, index_size, expected)
        mapped = np.memmap(index, np.uint8, "r")

        def part(kind: str, count: int) -> np.ndarray:
            nonlocal at
            start, at = at, at + count * np.dtype(kind).itemsize
            return mapped[start:at].view(kind)

        self.sizes, self.offsets = part("<i4", sequences), part("<i8", sequences)
        self.documents = part("<i8", ends)
        expected = int(self.offsets[-1]) + int(self.sizes[-1]) * dtype.itemsize
        if data_size != expected or data_size % dtype.itemsize or not data_size:
            raise _cut(data, data_size, expected)
        self.tokens = np.memmap(data, dtype, "r")
        if ends < 2:  # the official code of CodeGeeX ends no documents
            self.documents = range(sequences + 1)
        elif self.documents[0] != 0 or self.documents[-1] != sequences:
            raise GeexError(f"the document index of {index} is damaged", "make the files again")

    def start(self, document: int) -> int:
        """Returns the number of the token that a document begins with."""
        sequence = int(self.documents[document])
        if sequence == len(self.offsets):
            return len(self.tokens)
        return int(self.offsets[sequence]) // self.tokens.dtype.itemsize

    def document_at(self, token: int) -> int:
        """Returns the first document that begins at or after a token (the last: the end)."""
        return bisect.bisect_left(range(len(self.documents)), token, key=self.start)

    def check_order(self) -> None:
        """Reads the whole index; raises GeexError unless sequences follow one another."""
        end = 0
        for first in range(0, len(self.sizes), _BLOCK):
            sizes = self.sizes[first : first + _BLOCK].astype(np.int64) * self.tokens.itemsize
            ends = end + np.cumsum(sizes)
            if np.any(sizes < 0) or np.any(self.offsets[first : first + _BLOCK] != ends - sizes):
                raise GeexError(
                    f"the sequences of {self.prefix}.bin do not follow one another",
                    "make the files again",
                )
            end = int(ends[-1])


def _cut(path: str, size: int, expected: int) -> GeexError:
    return GeexError(
        f"{path} has {size:,} bytes, its index says {expected:,}: cut short or of another pair",
        "copy the files again",
    )


class Rows(Sequence[Row]):
    """The rows of one language of a split, at any place, made when they are read."""

    def __init__(self, pair: Indexed, labels: Indexed | None, spec: dict[str, Any], split: str):
        """Args:
        pair: the tokens.
        labels: of the official triple, else None.
        spec: of `manifest.settings["megatron"]`.
        split: which of the spec's ranges.
        """
        self.pair, self.labels = pair, labels
        self.first, self.end = spec["ranges"][split]
        self.seq_len, self.vocab_size = spec["seq_len"], spec["vocab_size"]
        self.language, self.pad_id = spec["language"], spec["pad_id"]

    def __len__(self) -> int:
        if self.labels is not None:
            return self.end - self.first
        return max(0, -(-(self.end - self.first - 1) // self.seq_len))

    def __getitem__(self, index: Any) -> Row:
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(index)
        length = self.seq_len + 1
        if self.labels is not None:
            begin = (self.first + index) * length
            return self._window(begin, begin + length)
        begin = self.first + index * self.seq_len
        end = min(begin + length, self.end)
        pair = self.pair
        ids = np.full(length, self.pad_id, np.int32)
        ids[: end - begin] = self._checked(pair.tokens[begin:end])
        low, high = pair.document_at(begin + 1), pair.document_at(end)
        starts = [pair.start(document) - begin for document in range(low, high)]
        return Row(ids, np.unique([0, *starts]), end - begin, self.language)

    def _window(self, begin: int, end: int) -> Row:
        """Returns the row of a window: prompt, code, padding; labels are -100 but on the code."""
        assert self.labels is not None
        ids = self._checked(self.pair.tokens[begin:end]).astype(np.int32)
        learned = np.flatnonzero(self.labels.tokens[begin:end] >= 0)
        if not len(learned):
            return Row(ids, np.zeros(0, np.int64), 0, self.language)
        prompt, used = int(learned[0]), int(learned[-1]) + 1
        return Row(ids, np.zeros(1, np.int64), used, self.language, np.array([prompt]))

    def _checked(self, tokens: np.ndarray) -> np.ndarray:
        if int(tokens.max()) >= self.vocab_size or int(tokens.min()) < 0:
            raise _other_vocabulary(self.pair.prefix, tokens, self.vocab_size)
        return tokens


def _other_vocabulary(prefix: str, tokens: np.ndarray, vocab_size: int) -> GeexError:
    wrong = tokens[(tokens >= vocab_size) | (tokens < 0)][0]
    return GeexError(
        f"{prefix}.bin has token {wrong}, the tokenizer's vocabulary has {vocab_size} pieces",
        "give the --tokenizer that made the files",
    )


def rows(manifest: Manifest, split: str, name: str) -> Rows | None:
    """Returns the rows of a language that a manifest has in Megatron's files, else None.

    Raises:
      GeexError: the files are gone or have changed.
    """
    spec = manifest.settings.get("megatron", {}).get(name)
    if spec is None:
        return None
    pair = Indexed(spec["tokens"])
    labels = Indexed(spec["labels"]) if spec["labels"] else None
    if len(pair.tokens) != spec["count"]:
        raise GeexError(
            f"{spec['tokens']}.bin has {len(pair.tokens):,} tokens, the manifest says "
            f"{spec['count']:,}",
            "run geex prepare --megatron --overwrite again",
        )
    return Rows(pair, labels, spec, split)


def prepare_megatron(
    prefix: str | Sequence[str],
    output: files.Path,
    tokenizer: Tokenizer | files.Path,
    *,
    seq_len: int = 2048,
    language: str = "",
    validation_fraction: float = 0.02,
    overwrite: bool = False,
) -> Manifest:
    """Makes a folder of prepared data that reads Megatron's files in place.

    Args:
      prefix: the files' path without `.bin` and `.idx` (of the official triple, without
        `_input_ids`); several, each of another language, as "LANGUAGE=PREFIX".
      output: the folder to make: a manifest and a tokenizer.
      tokenizer: what made the ids, or what `tokenizers.load` opens.
      seq_len: tokens that a row predicts; the official triple has its own.
      language: what a prefix without a language is of; else the pseudo language "Unknown".
      validation_fraction: share of the documents kept for validation: the last ones.
      overwrite: replace an earlier folder of prepared data.

    Raises:
      GeexError: files missing, cut short or of another vocabulary; settings out of range; an
        output that holds something else.
    """
    if seq_len < 1 or not 0 <= validation_fraction < 1:
        raise GeexError(
            f"seq_len {seq_len} or validation_fraction {validation_fraction} is out of range",
            "use --seq-len 2048 --validation-fraction 0.02",
        )
    if isinstance(tokenizer, str | os.PathLike):
        from geex_jax import tokenizers

        opened = tokenizers.load(os.fspath(tokenizer))
    else:
        opened = tokenizer
    target = pathlib.Path(output)
    infos = [LanguageInfo(x.name, x.slug, x.tag, 0) for x in LANGUAGES]
    infos.append(LanguageInfo(UNKNOWN, UNKNOWN.lower(), "", 0))
    sources = {}
    for word in [prefix] if isinstance(prefix, str) else prefix:
        name, equals, path = word.partition("=")
        name, path = (name, path) if equals and not os.path.exists(f"{word}.idx") else ("", word)
        index = _language_index(infos, name or language or UNKNOWN)
        if infos[index].name in sources:
            raise GeexError(
                f"two prefixes are of {infos[index].name}", "write each as LANGUAGE=PREFIX"
            )
        spec = _spec(os.path.abspath(path), opened, seq_len, index, validation_fraction)
        sources[infos[index].name] = spec
    lengths = {spec["seq_len"] for spec in sources.values()}
    if len(lengths) != 1:
        raise GeexError(f"the files have rows of {sorted(lengths)} tokens", "prepare them apart")
    manifest = _manifest(sources, infos, opened, validation_fraction)
    _make_room(target, overwrite)
    opened.save(target / "tokenizer")
    manifests.save(manifest, target)
    return manifest


def _language_index(infos: list[LanguageInfo], name: str) -> int:
    from geex_jax import languages

    if name == UNKNOWN:
        return len(infos) - 1
    return [info.name for info in infos].index(languages.get(name).name)


def _make_room(target: pathlib.Path, overwrite: bool) -> None:
    if not target.exists() or not os.listdir(target):
        return
    if not (target / manifests.NAME).exists():
        raise GeexError(
            f"{target} is not empty and holds no prepared data", "choose another --output"
        )
    if not overwrite:
        raise GeexError(
            f"{target} holds prepared data", "add --overwrite, or choose another --output"
        )
    shutil.rmtree(target)


def _spec(
    prefix: str, tokenizer: Tokenizer, seq_len: int, language: int, fraction: float
) -> dict[str, Any]:
    """Returns, as JSON values, where one language's rows are."""
    prefix = prefix.removesuffix(".bin").removesuffix(".idx")
    prefix = prefix.removesuffix(_TRIPLE[0]) if prefix.endswith(_TRIPLE[0]) else prefix
    triple = os.path.exists(prefix + _TRIPLE[0] + ".idx")
    path = prefix + _TRIPLE[0] if triple else prefix
    pair = Indexed(path)
    pair.check_order()
    labels = ""
    if triple:
        labels = prefix + _TRIPLE[2]
        seq_len = _window_length(pair, Indexed(labels)) - 1
    token_bytes = np.zeros(tokenizer.vocab_size, np.int64)
    token_bytes[:] = tokenizer.token_byte_lengths()
    size = 0
    for block in _blocks(pair.tokens):
        if int(block.max()) >= tokenizer.vocab_size or int(block.min()) < 0:
            raise _other_vocabulary(path, block, tokenizer.vocab_size)
        size += int(token_bytes[block].sum())
    count = len(pair.documents) - 1
    cut = count - int(count * fraction)
    ranges = {"train": (0, cut), "validation": (cut, count)}
    if not triple:
        ranges = {k: (pair.start(a), pair.start(b)) for k, (a, b) in ranges.items()}
    return {
        "tokens": path,
        "labels": labels,
        "count": len(pair.tokens),
        "bytes": size,
        "seq_len": seq_len,
        "vocab_size": tokenizer.vocab_size,
        "pad_id": tokenizer.pad_id,
        "language": language,
        "documents": {"train": cut, "validation": count - cut},
        "whole": count if triple else _whole(pair, seq_len, [a for a, _ in ranges.values()]),
        "ranges": {k: list(v) for k, v in ranges.items()},
    }


def _whole(pair: Indexed, seq_len: int, firsts: list[int]) -> int:
    """Returns how many documents no row's end cuts, of splits that begin at these tokens."""
    total = 0
    for first in range(0, len(pair.documents) - 1, _BLOCK):
        sequences = np.asarray(pair.documents[first : first + _BLOCK + 1])
        inside = np.minimum(sequences, len(pair.offsets) - 1)
        begins = pair.offsets[inside] // pair.tokens.itemsize
        begins[sequences == len(pair.offsets)] = len(pair.tokens)
        split = np.array(firsts)[np.searchsorted(firsts, begins[:-1], side="right") - 1]
        rows = (begins[:-1] - split) // seq_len
        total += int(np.count_nonzero(begins[1:] - 1 - split <= (rows + 1) * seq_len))
    return total


def _window_length(pair: Indexed, labels: Indexed) -> int:
    sizes = np.unique(pair.sizes)
    if len(sizes) != 1 or sizes[0] < 2 or not np.array_equal(pair.sizes, labels.sizes):
        raise GeexError(
            f"{pair.prefix} and its labels are not windows of one length", "make the files again"
        )
    return int(sizes[0])


def _blocks(tokens: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(tokens), _BLOCK):
        yield tokens[first : first + _BLOCK]


def _manifest(
    sources: dict[str, dict[str, Any]],
    infos: list[LanguageInfo],
    tokenizer: Tokenizer,
    fraction: float,
) -> Manifest:
    splits: dict[str, dict[str, Amount]] = {"train": {}, "validation": {}}
    for name, spec in sources.items():
        pair = Indexed(spec["tokens"])
        labels = Indexed(spec["labels"]) if spec["labels"] else None
        for split, amounts in splits.items():
            made = Rows(pair, labels, spec, split)
            tokens = made.end - made.first
            if labels is not None:
                tokens *= made.seq_len + 1
            if tokens:
                share = tokens / spec["count"]
                documents = spec["documents"][split]
                amounts[name] = Amount(documents, int(spec["bytes"] * share), tokens, len(made), 0)
    seq_len = next(iter(sources.values()))["seq_len"]
    contents = json.dumps(
        {k: {x: v for x, v in s.items() if x not in ("tokens", "labels")}
         for k, s in sources.items()}, sort_keys=True
    )  # fmt: skip
    print_of = tokenizer.fingerprint()
    count = sum(sum(s["documents"].values()) for s in sources.values())
    size = sum(s["bytes"] for s in sources.values())
    whole = sum(s["whole"] for s in sources.values())
    return Manifest(
        format=manifests.FORMAT,
        fingerprint=files.fingerprint(contents, print_of),
        seq_len=seq_len,
        seed=0,
        tags=False,
        recipe="",
        settings={"validation_fraction": fraction, "tokenizer": print_of, "megatron": sources},
        input=files.fingerprint(contents),
        tokenizer=TokenizerInfo(
            tokenizer.kind, print_of, tokenizer.vocab_size, tokenizer.eos_id, tokenizer.pad_id
        ),
        languages=tuple(infos),
        splits=splits,
        fill={split: 1.0 for split, amounts in splits.items() if amounts},
        whole=round(whole / max(count, 1), 6),
        seen={"documents": count, "bytes": size},
        dropped={},
        passed_by={},
        stages={},
        licences={"": Licence(count, size)},
        mixture={},
    )
