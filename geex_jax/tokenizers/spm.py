"""SentencePiece vocabularies: trained here on code, or opened from a `*.model` of others.

A model trained here gives back every text exactly: bytes that no piece covers fall back to byte
pieces, nothing is normalised, and U+2581, which SentencePiece takes for a space, is encoded as
its three bytes. Indentation has pieces of its own (runs of spaces and tabs, alone or behind a
line end), and the learned pieces may mix letters with signs.

Measured on 10 MB of Python and C with 8,192 pieces, two cores, in bytes per token on 1.5 MB of
files that training did not see (more is better): BPE 3.97 after 2 s of training. On 6 MB: BPE
3.92 in 1 s, without pieces for line ends with indentation 3.80, with pieces that keep letters
and signs apart 3.02, and the unigram model 3.60 in 29 s. So BPE, with all of that.
"""

from __future__ import annotations

import functools
import io
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from geex_jax import files
from geex_jax.errors import GeexError
from geex_jax.tokenizers import base

MODEL_FILE = "tokenizer.model"
_SPACE = "\u2581"  # SentencePiece's picture of a space
_SPACE_RUNS = (*range(2, 17), 20, 24, 28, 32, 64)
_LINE_ENDS = ("\n", "\n\n", "\n\n\n", "\r\n", "\r\n\r\n", "\n\n    ", "\n\n        ")
# Pieces that every vocabulary trained here has, however rare they are in its corpus.
WHITESPACE_PIECES: tuple[str, ...] = (
    *(" " * n for n in _SPACE_RUNS),
    *("\t" * n for n in range(1, 9)),
    *_LINE_ENDS,
    *("\n" + " " * n for n in (2, 3, 4, 6, 8, 10, 12, 16, 20, 24)),
    *("\n" + "\t" * n for n in range(1, 6)),
)
# Four control pieces, 256 bytes, the whitespace above, and room for some letters.
MIN_VOCAB_SIZE = 4 + 256 + len(WHITESPACE_PIECES) + 64


class SentencePieceTokenizer(base.ByteTable):
    """A SentencePiece model; see Tokenizer for the methods.

    Models trained here are lossless. A model of others is used as it is: one that puts a space
    before the text has that space taken away by `decode`; one without byte fallback loses
    characters it does not know.

    Args:
      model: the bytes of a `*.model` file.

    Raises:
      GeexError: the bytes are no model, or it has no end-of-text piece.
    """

    kind = "sentencepiece"

    def __init__(self, model: bytes):
        import sentencepiece

        self._model = bytes(model)
        try:
            processor = sentencepiece.SentencePieceProcessor(model_proto=self._model)
            self.vocab_size = processor.vocab_size()
        except (RuntimeError, ValueError, OSError):
            self.vocab_size = 0
        if self.vocab_size == 0:
            raise GeexError(
                f"not a SentencePiece model ({len(model)} bytes)",
                "give a whole *.model file, or train one with 'geex tokenizer train'",
            )
        self._processor = processor
        self.eos_id = processor.eos_id()
        if self.eos_id < 0:
            raise GeexError("the SentencePiece model has no end-of-text piece", "train it with one")
        self.pad_id = processor.pad_id() if processor.pad_id() >= 0 else self.eos_id
        ids = range(self.vocab_size)
        self._pieces = [self._piece_bytes(i) for i in ids]
        controls = {processor.id_to_piece(i): i for i in ids if processor.is_control(i)}
        self._control = frozenset(i for i in ids if not self._pieces[i])
        self._special_ids = controls
        self._special = re.compile("|".join(map(re.escape, controls)) or r"(?!)")
        self._strips_first_space = self._adds_space()
        underline = [processor.piece_to_id(f"<0x{b:02X}>") for b in _SPACE.encode()]
        can_escape = not self._strips_first_space and all(map(processor.is_byte, underline))
        self._underline = underline if can_escape else None

    @classmethod
    def from_file(cls, path: files.Path) -> SentencePieceTokenizer:
        """Opens a `*.model` file."""
        remedy = "give a *.model file, or train one with 'geex tokenizer train'"
        return cls(base.read_bytes(pathlib.Path(path), remedy))

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Returns the ids of `text`; see Tokenizer."""
        if not isinstance(text, str):
            raise base.surrogate_error(text)
        if allow_special and self._special.search(text):
            return self._encode_special(text)
        if self._underline is not None and _SPACE in text:
            parts = [self._encode_plain(part) for part in text.split(_SPACE)]
            joined = parts[0]
            for part in parts[1:]:
                joined += self._underline + part
            return joined
        return self._encode_plain(text)

    def encode_batch(
        self, texts: Sequence[str], *, allow_special: bool = False, num_workers: int | None = None
    ) -> list[list[int]]:
        """Returns the ids of each text; the library releases the lock, so threads use all cores."""
        function = functools.partial(self.encode, allow_special=allow_special)
        return base.map_threads(function, texts, num_workers)

    def fingerprint(self) -> str:
        """Returns 16 hex digits over the model; see Tokenizer."""
        return files.fingerprint(self.kind, self._model)

    def save(self, folder: files.Path) -> None:
        """Writes `tokenizer.model`; see Tokenizer."""
        base.save_folder(folder, {MODEL_FILE: self._model}, self.kind, self.fingerprint())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._model,)

    def _encode_plain(self, text: str) -> list[int]:
        try:
            return self._processor.encode(text)
        except (RuntimeError, TypeError, UnicodeEncodeError):
            raise base.surrogate_error(text) from None

    def _encode_special(self, text: str) -> list[int]:
        return base.encode_special(text, self._special, self._special_ids, self.encode)

    def _piece_bytes(self, number: int) -> bytes:
        processor = self._processor
        piece = processor.id_to_piece(number)
        if processor.is_byte(number):
            return bytes([int(piece[1:-1], 16)])
        if processor.is_control(number) or processor.is_unknown(number):
            return b""
        return piece.replace(_SPACE, " ").encode()

    def _adds_space(self) -> bool:
        """Returns whether the model puts a space before the text."""
        ids = self._processor.encode("a")
        return bool(ids) and self._pieces[ids[0]].startswith(b" ")


def train_sentencepiece(
    texts: Iterable[str],
    folder: files.Path | None,
    vocab_size: int = 8192,
    *,
    model_type: str = "bpe",
    max_sentence_bytes: int = 4096,
    num_threads: int = 8,
) -> SentencePieceTokenizer:
    """Trains a vocabulary on source files and saves it. The same texts give the same model.

    Args:
      texts: whole files; read once, in order.
      folder: where to save it; None for not at all.
      vocab_size: number of pieces, control, byte and whitespace pieces included.
      model_type: "bpe" (see the top of this module for why) or "unigram".
      max_sentence_bytes: longer lines are cut there, so that one-line files stay cheap.
      num_threads: the pieces do not depend on it, but the model file records it, and so the
        fingerprint does: hence the same number on every machine.

    Raises:
      GeexError: the vocabulary is too small for the fixed pieces, or larger than the texts allow
        (the message says the largest size that works); or there is no text.
    """
    import sentencepiece

    if vocab_size < MIN_VOCAB_SIZE:
        raise GeexError(
            f"a vocabulary of {vocab_size} has no room for bytes and whitespace",
            f"choose at least {MIN_VOCAB_SIZE}",
        )
    model = io.BytesIO()
    sentences = _Sentences(texts, max_sentence_bytes)
    options: dict[str, Any] = {
        "model_type": model_type,
        "vocab_size": vocab_size,
        "user_defined_symbols": [x.replace(" ", _SPACE) for x in WHITESPACE_PIECES],
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "allow_whitespace_only_pieces": True,
        "split_by_unicode_script": False,
        "character_coverage": 0.9999,
        "pad_id": 3,
        "shuffle_input_sentence": False,
        "max_sentence_length": 8 * max_sentence_bytes,
        "num_threads": num_threads,
        "minloglevel": 2,
    }
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences), model_writer=model, **options
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise _training_error(error, vocab_size, sentences.count) from None
    tokenizer = SentencePieceTokenizer(model.getvalue())
    if tokenizer.vocab_size < vocab_size:
        raise _too_large(vocab_size, tokenizer.vocab_size)
    if folder is not None:
        tokenizer.save(folder)
    return tokenizer


class _Sentences:
    """The lines of the texts without what whitespace pieces cover, cut to a length."""

    def __init__(self, texts: Iterable[str], max_bytes: int):
        self.texts, self.max_bytes, self.count = texts, max_bytes, 0

    def __iter__(self) -> Iterator[str]:
        # A tab is the trainer's own separator and U+2581 its space: neither may reach it.
        separators = re.compile(rf"[\r\n\t\0{_SPACE}\ud800-\udfff]+")
        size = max(self.max_bytes // 4, 1)  # characters; at most 4 bytes each
        for text in self.texts:
            for line in separators.split(text):
                for start in range(0, len(line), size):
                    self.count += 1
                    yield line[start : start + size]


def _training_error(error: Exception, vocab_size: int, sentences: int) -> GeexError:
    if sentences == 0:
        return GeexError("no text to train a vocabulary on", "give folders with source files")
    largest = re.search(r"value <= (\d+)", str(error))
    if largest:
        return _too_large(vocab_size, int(largest[1]))
    smallest = re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error))
    if smallest:
        return GeexError(
            f"a vocabulary of {vocab_size} is too small for the characters of these texts",
            f"choose more than {smallest[1]}",
        )
    message = " ".join(str(error).split())
    return GeexError(f"SentencePiece cannot train: {message}", "try other settings")


def _too_large(vocab_size: int, largest: int) -> GeexError:
    return GeexError(
        f"a vocabulary of {vocab_size} is too large for these texts",
        f"choose at most {largest}, or give more text",
    )
