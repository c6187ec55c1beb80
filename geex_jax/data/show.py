"""A row of prepared data for people: segments, positions, tag, prompt, what carries loss."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from geex_jax import files
from geex_jax.data import manifest as manifests
from geex_jax.data import megatron
from geex_jax.data.batches import check_split, damaged, make_batch
from geex_jax.data.manifest import Manifest
from geex_jax.data.records import Row, decode_row
from geex_jax.errors import GeexError
from geex_jax.pages import clean

if TYPE_CHECKING:
    from geex_jax.tokenizers.base import Tokenizer

TAG, PROMPT, TEXT, END, SKIPPED = "tag", "prompt", "text", "end", "skipped"
_COLORS = {TAG: "\x1b[35m", PROMPT: "\x1b[36m", END: "\x1b[2m", SKIPPED: "\x1b[33m"}
_MARKS = {TAG: ("‹", "›"), PROMPT: ("«", "»"), SKIPPED: ("«", "»"), TEXT: ("", ""), END: ("", "")}
_RESET, _EVEN, _ODD = "\x1b[0m", "\x1b[7m", "\x1b[27m"
BOUNDARY = "│"


@dataclasses.dataclass(frozen=True)
class Token:
    """A token of a segment.

    `text` of it, invisible characters spelled out; `kind`: TAG (the tag line), PROMPT (without
    loss), TEXT, END (end of text) or SKIPPED (without loss, though no prompt); `loss`: whether a
    model is taught to predict it.
    """

    id: int
    text: str
    kind: str
    loss: bool


@dataclasses.dataclass(frozen=True)
class Segment:
    """A segment of a row: `start` in the row, its tokens, and how many of them are prompt."""

    start: int
    tokens: tuple[Token, ...]
    prompt: int
    tag: int

    @property
    def learned(self) -> int:
        """How many tokens carry loss."""
        return sum(token.loss for token in self.tokens)


@dataclasses.dataclass(frozen=True)
class Shown:
    """A row: `index` of `count` in `split` (of one language if asked), and its segments."""

    index: int
    count: int
    split: str
    language: str
    length: int
    used: int
    segments: tuple[Segment, ...]


def show(
    folder: files.Path,
    index: int = 0,
    split: str = "train",
    language: str | None = None,
    tokenizer: Tokenizer | None = None,
) -> Shown:
    """Reads one row of prepared data.

    Args:
      folder: prepared data.
      index: of the row, over all languages in the manifest's order, or within `language`; from
        the end if negative.
      split: "train" or "validation".
      language: a name or slug.
      tokenizer: the one that made the data; None opens the folder's own.

    Raises:
      GeexError: no such folder, split, language or row, or damaged shards.
    """
    from geex_jax import tokenizers

    manifest = manifests.load(folder)
    names = check_split(manifest, folder, split)
    if language is not None:
        wanted = manifest.languages[manifest.language_index(language)].name
        if wanted not in names:
            raise GeexError(
                f"{folder} has no rows of {wanted} in its {split} split",
                f"choose one of: {', '.join(names)}",
            )
        names = [wanted]
    count = sum(manifest.amount(split, name).rows for name in names)
    if not -count <= index < count:
        of = f" of {names[0]}" if language else ""
        raise GeexError(
            f"no row {index} in {folder}: its {split} split has {count:,} rows{of}",
            f"use --index 0 to {count - 1}",
        )
    index %= count
    name, row = _find(manifest, folder, split, names, index)
    tokenizer = tokenizer or tokenizers.load(os.path.join(folder, "tokenizer"))
    return Shown(
        index, count, split, name, len(row.tokens), row.used, segments(row, manifest, tokenizer)
    )


def _find(
    manifest: Manifest, folder: files.Path, split: str, names: Sequence[str], index: int
) -> tuple[str, Row]:
    for name in names:
        rows = manifest.amount(split, name).rows
        if index < rows:
            return name, _read(manifest, folder, split, name, index)
        index -= rows
    raise AssertionError(index)


def _read(manifest: Manifest, folder: files.Path, split: str, name: str, index: int) -> Row:
    from array_record.python.array_record_module import ArrayRecordReader

    outside = megatron.rows(manifest, split, name)
    if outside is not None:
        return outside[index]
    for path in manifest.shard_paths(folder, split, name):
        try:
            reader = ArrayRecordReader(str(path), "")
            count = reader.num_records()
            data = reader.read([index])[0] if index < count else None
            reader.close()
        except (RuntimeError, ValueError, IndexError) as error:  # ArrayRecord's ways to complain
            raise damaged(path, error) from None
        if data is not None:
            return decode_row(data)
        index -= count
    raise GeexError(
        f"the {split} shards of {name} hold fewer rows than the manifest says",
        "run geex prepare --overwrite again",
    )


def segments(row: Row, manifest: Manifest, tokenizer: Tokenizer) -> tuple[Segment, ...]:
    """Returns the segments of a row, with the loss mask that batches have."""
    learned = np.zeros(len(row.tokens), bool)
    learned[1:] = make_batch([row])["loss_mask"][0] > 0
    prompts = [0] * len(row.starts) if row.prompts is None else [int(x) for x in row.prompts]
    ends = [*(int(x) for x in row.starts[1:]), row.used]
    tag = tokenizer.encode(manifest.languages[row.language].tag + "\n") if manifest.tags else []
    found = []
    for start, end, prompt in zip((int(x) for x in row.starts), ends, prompts, strict=True):
        ids = [int(x) for x in row.tokens[start:end]]
        tagged = len(tag) if not prompt and ids[: len(tag)] == tag else 0
        tokens = tuple(
            Token(one, _text(tokenizer, one), _kind(at, one, tagged, prompt, mask, tokenizer), mask)
            for at, (one, mask) in enumerate(zip(ids, learned[start:end].tolist(), strict=True))
        )
        found.append(Segment(start, tokens, prompt, tagged))
    return tuple(found)


def _kind(at: int, one: int, tagged: int, prompt: int, learned: bool, tokenizer: Tokenizer) -> str:
    if at < tagged:
        return TAG
    if at < prompt:
        return PROMPT
    if one == tokenizer.eos_id:
        return END
    return TEXT if learned or at == 0 else SKIPPED


def _text(tokenizer: Tokenizer, one: int) -> str:
    """The text of one token; bytes that are no whole characters as \\xNN."""
    if one == tokenizer.eos_id:
        return "<end>"
    data = tokenizer.decode_bytes([one])
    if not data:
        return f"<{one}>"
    return clean(data.decode("utf-8", "backslashreplace"))


def runs(segment: Segment, tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
    """Yields (kind, text) of neighbouring tokens of one kind, decoded together."""
    start = 0
    tokens = segment.tokens
    for at in range(1, len(tokens) + 1):
        if at == len(tokens) or tokens[at].kind != tokens[start].kind:
            kind = tokens[start].kind
            if kind == END:
                text = "<end>" * (at - start)
            else:
                data = tokenizer.decode_bytes([token.id for token in tokens[start:at]])
                text = clean(data.decode("utf-8", "backslashreplace"))
            yield kind, text
            start = at


def render(
    shown: Shown, tokenizer: Tokenizer, *, color: bool = False, boundaries: bool = False
) -> str:
    """Returns the row as lines for a terminal (`color`) or a file.

    With `boundaries` tokens are told apart: by turns in reverse video, or by a sign between them.
    """
    fill = f"{shown.used:,} of {shown.length:,} tokens, {counted_segments(shown)}"
    lines = [f"row {shown.index:,} of {shown.count:,}, {shown.split}, {shown.language}: {fill}"]
    lines.append(_legend(color, boundaries))
    for number, segment in enumerate(shown.segments, 1):
        lines += ["", _heading(number, segment), _body(segment, tokenizer, color, boundaries)]
    padding = shown.length - shown.used
    if padding:
        lines += ["", f"padding: {padding:,} tokens"]
    return "\n".join(lines)


def counted_segments(shown: Shown) -> str:
    """Returns how many segments there are, in words."""
    return f"{len(shown.segments):,} segment{'s' * (len(shown.segments) != 1)}"


def _legend(color: bool, boundaries: bool) -> str:
    names = {TAG: "tag", PROMPT: "prompt, without loss"}
    words = [
        f"{_COLORS[kind]}{name}{_RESET}" if color else name.join(_MARKS[kind])
        for kind, name in names.items()
    ]
    if boundaries and not color:
        words.append(f"{BOUNDARY} between tokens")
    return "  ".join(words)


def _heading(number: int, segment: Segment) -> str:
    count = len(segment.tokens)
    parts = [f"{segment.learned:,} with loss"]
    if segment.tag:
        parts.append(f"tag {segment.tag}")
    if segment.prompt:
        parts.append(f"prompt {segment.prompt:,}")
    ended = segment.tokens[-1].kind == END
    parts.append("to its end" if ended else "goes on in another row")
    return (
        f"── segment {number}: tokens {segment.start:,} to {segment.start + count - 1:,}, "
        f"positions 0 to {count - 1:,} ({', '.join(parts)})"
    )


def _body(segment: Segment, tokenizer: Tokenizer, color: bool, boundaries: bool) -> str:
    text = ""
    if not boundaries:
        for kind, part in runs(segment, tokenizer):
            text += _painted(kind, part, color)
        return text
    for at, token in enumerate(segment.tokens):
        if color:
            part = (_EVEN if at % 2 else _ODD) + _COLORS.get(token.kind, "") + token.text
            text += part + _RESET
        else:
            before = segment.tokens[at - 1].kind if at else ""
            after = segment.tokens[at + 1].kind if at + 1 < len(segment.tokens) else ""
            opening, closing = _MARKS[token.kind]
            text += BOUNDARY * bool(at) + opening * (before != token.kind) + token.text
            text += closing * (after != token.kind)
    return text


def _painted(kind: str, part: str, color: bool) -> str:
    if color:
        return f"{_COLORS[kind]}{part}{_RESET}" if kind in _COLORS else part
    return part.join(_MARKS[kind])
