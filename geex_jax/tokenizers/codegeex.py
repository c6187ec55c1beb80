"""The CodeGeeX vocabulary: GPT-2's byte-level BPE and tokens for runs of spaces.

The official code replaces each run of n = 10, then 9, ..., 2 spaces by the string
`<|extratoken_{8+n}|>` and gives the result to `GPT2TokenizerFast`, where those strings are added
tokens that cut the text. Here the runs are one more alternative in the splitting pattern of
tiktoken's core: the same ids in one pass, and control strings in the text stay text.
Source: `codegeex/tokenizer/tokenizer.py` of the official repository.
"""

from __future__ import annotations

import functools
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from geex_jax import files
from geex_jax.errors import GeexError
from geex_jax.tokenizers import base

END_OF_TEXT = "<|endoftext|>"
NEEDED_FILES = ("vocab.json", "merges.txt", "added_tokens.json")
OPTIONAL_FILES = ("special_tokens_map.json", "tokenizer_config.json")
_BRING = "bring vocab.json, merges.txt and added_tokens.json of the official codegeex/tokenizer"

# White space but for the space, as Unicode has it; Python's \s would add U+001C..U+001F.
_BLANK = "\t\n\x0b\x0c\r\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# GPT-2's pattern; the alternative ` {2,10}` comes in, and white space ends before such a run.
_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?(?:\p{L}++|\p{N}++|[^\s\p{L}\p{N}]++)"
    r"| {2,10}|(?:[^\S ]| (?! ))+(?!\S)|\s"
)
# The pattern's engine keeps a stack for white space and gives up after some 300,000 characters.
_LONG = 50_000
_LONG_BLANK = re.compile(rf"[{_BLANK}](?:[{_BLANK}]| (?! )){{{_LONG},}}")


class CodeGeeXTokenizer(base.ByteTable):
    """Exactly the ids of the official tokenizer; see Tokenizer for the methods.

    With `allow_special=True` the ids are those of the official `encode_code`: a literal
    `<|endoftext|>` or `<|extratoken_N|>` is that token. By default it is text, so that every
    text survives `decode(encode(text))`.

    Args:
      contents: file name -> content, for vocab.json, merges.txt and added_tokens.json; others
        (special_tokens_map.json, tokenizer_config.json) are kept for `save`.

    Raises:
      GeexError: a file is damaged, or they are not a CodeGeeX vocabulary.
    """

    kind = "codegeex"

    def __init__(self, contents: dict[str, bytes]):
        self._contents = dict(contents)
        vocab, added = _parse(self._contents)
        self.vocab_size = len(vocab) + len(added)
        self.eos_id = self.pad_id = vocab[END_OF_TEXT]
        self._control = frozenset(
            i for s, i in ((END_OF_TEXT, self.eos_id), *added.items()) if not _spaces(s)
        )
        self._pieces, ranks = _tables(vocab, added, self.vocab_size)
        self._special = re.compile("|".join(map(re.escape, (END_OF_TEXT, *added))))
        self._special_ids = {**added, END_OF_TEXT: self.eos_id}
        self._core = _core(ranks)

    @classmethod
    def from_folder(cls, folder: files.Path) -> CodeGeeXTokenizer:
        """Opens the official folder, or one that `save` wrote."""
        folder = pathlib.Path(folder)
        missing = [name for name in NEEDED_FILES if not (folder / name).is_file()]
        if missing:
            raise GeexError(f"{folder} has no {' and no '.join(missing)}", _BRING)
        present = [n for n in (*NEEDED_FILES, *OPTIONAL_FILES) if (folder / n).is_file()]
        return cls({name: base.read_bytes(folder / name, _BRING) for name in present})

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Returns the ids of `text`; see Tokenizer."""
        try:
            if allow_special and "<|" in text:
                return self._encode_special(text)
            if len(text) > _LONG and _LONG_BLANK.search(text):
                return self._encode_long_blank(text)
            return self._core.encode_ordinary(text)
        except (UnicodeEncodeError, TypeError):
            raise base.surrogate_error(text) from None

    def encode_batch(
        self, texts: Sequence[str], *, allow_special: bool = False, num_workers: int | None = None
    ) -> list[list[int]]:
        """Returns the ids of each text; tiktoken's core lets threads use all cores."""
        function = functools.partial(self.encode, allow_special=allow_special)
        return base.map_threads(function, texts, num_workers)

    def fingerprint(self) -> str:
        """Returns 16 hex digits over the vocabulary's bytes, by id; see Tokenizer."""
        return files.fingerprint(self.kind, *self._pieces)

    def save(self, folder: files.Path) -> None:
        """Writes the files of the official folder; see Tokenizer."""
        base.save_folder(folder, self._contents, self.kind, self.fingerprint())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._contents,)

    def _encode_special(self, text: str) -> list[int]:
        return base.encode_special(text, self._special, self._special_ids, self.encode)

    def _encode_long_blank(self, text: str) -> list[int]:
        ids: list[int] = []
        end = 0
        for match in _LONG_BLANK.finditer(text):
            start, stop = match.span()
            before = text[end:start]
            # What tens of spaces leave over (one) belongs to the white space behind it.
            start -= (len(before) - len(before.rstrip(" "))) % 10 == 1
            # The last character stays with the word that follows, if one does.
            stop -= text[stop : stop + 1] not in ("", " ")
            ids += self._core.encode_ordinary(text[end:start])
            ids += self._core.encode_single_piece(text[start:stop].encode())
            end = stop
        return ids + self._core.encode_ordinary(text[end:])


def _core(ranks: dict[bytes, int]) -> Any:
    from tiktoken._tiktoken import CoreBPE

    return CoreBPE(ranks, {}, _PATTERN)


def _parse(contents: dict[str, bytes]) -> tuple[dict[str, int], dict[str, int]]:
    """Returns (vocab, added tokens), after checking that they and the merges fit together."""
    missing = [name for name in NEEDED_FILES if name not in contents]
    if missing:
        raise GeexError(f"the CodeGeeX vocabulary needs {', '.join(missing)}", _BRING)
    vocab = _json_ids(contents, "vocab.json")
    added = _json_ids(contents, "added_tokens.json")
    try:
        lines = contents["merges.txt"].decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise GeexError("merges.txt is not UTF-8", _BRING) from None
    merges = [x.rstrip("\r") for x in lines if x.strip() and not x.startswith("#version")]
    if END_OF_TEXT not in vocab or sorted(vocab.values()) != list(range(len(vocab))):
        raise GeexError(
            f"vocab.json ({len(vocab)} entries) is not a whole GPT-2 vocabulary: it lacks "
            f"{END_OF_TEXT} or ids", _BRING,
        )  # fmt: skip
    alphabet = byte_alphabet()
    if len(merges) != len(vocab) - 257 or any(c not in vocab or vocab[c] > 255 for c in alphabet):
        raise GeexError(
            f"vocab.json ({len(vocab)} entries) and merges.txt ({len(merges)} merges) do not "
            "belong together", _BRING,
        )  # fmt: skip
    for rank, merge in enumerate(merges):
        if vocab.get(merge.replace(" ", "", 1)) != 256 + rank:
            raise GeexError(
                f"merge {rank + 1} of merges.txt ({merge!r}) is not id {256 + rank} of vocab.json",
                _BRING,
            )
    first = len(vocab)
    if sorted(added.values()) != list(range(first, first + len(added))) or any(
        f"<|extratoken_{8 + n}|>" not in added for n in range(2, 11)
    ):
        raise GeexError(
            "added_tokens.json is not CodeGeeX's: it lacks <|extratoken_10|> to "
            f"<|extratoken_18|>, or its ids do not follow {first - 1}", _BRING,
        )  # fmt: skip
    return vocab, added


def _json_ids(contents: dict[str, bytes], name: str) -> dict[str, int]:
    try:
        value = json.loads(contents[name])
    except ValueError as error:  # also UnicodeDecodeError
        raise GeexError(f"{name} is truncated or not JSON ({error})", _BRING) from None
    if not isinstance(value, dict) or not all(type(v) is int for v in value.values()):
        raise GeexError(f"{name} does not map strings to ids", _BRING)
    return value


def _tables(
    vocab: dict[str, int], added: dict[str, int], size: int
) -> tuple[list[bytes], dict[bytes, int]]:
    """Returns (bytes of each id, bytes to id for the core, with the runs of spaces)."""
    alphabet = byte_alphabet()
    pieces = [b""] * size
    ranks: dict[bytes, int] = {}
    for symbol, number in vocab.items():
        if symbol == END_OF_TEXT:
            pieces[number] = symbol.encode()
            continue
        try:
            data = bytes([alphabet[c] for c in symbol])
        except KeyError:
            raise GeexError(f"vocab.json: {symbol!r} is not in the byte alphabet", _BRING) from None
        pieces[number] = data
        ranks[data] = number
    for symbol, number in added.items():
        spaces = _spaces(symbol)
        pieces[number] = b" " * spaces or symbol.encode()
        if spaces:
            ranks[b" " * spaces] = number
    return pieces, ranks


def _spaces(symbol: str) -> int:
    """Returns how many spaces an added token stands for: 2..10, or 0."""
    match = re.fullmatch(r"<\|extratoken_(1[0-8])\|>", symbol)
    return int(match[1]) - 8 if match else 0


@functools.cache
def byte_alphabet() -> dict[str, int]:
    """Returns GPT-2's table from printable character to byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in set(plain)]
    return {**{chr(b): b for b in plain}, **{chr(256 + i): b for i, b in enumerate(rest)}}
