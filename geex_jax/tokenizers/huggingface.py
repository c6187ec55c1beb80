"""Vocabularies of other models: the Hugging Face `tokenizer.json`.

Byte-level vocabularies (GPT-J, GPT-NeoX, CodeGen, InCoder, StarCoder, Qwen) decode through a
table from id to bytes, so that streams and byte counts are exact. Others (SentencePiece-like with
U+2581 for the space, and byte pieces) decode through the same kind of table, as well as their
pieces tell. What the file does to the text before splitting (NFC in GPT-NeoX and Qwen, a space
put before it) stays done: those vocabularies are not lossless by design.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from geex_jax import files
from geex_jax.errors import GeexError
from geex_jax.tokenizers import base
from geex_jax.tokenizers.codegeex import byte_alphabet

TOKENIZER_FILE = "tokenizer.json"
SIDE_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "config.json",
)
_BRING = "bring the model's whole tokenizer.json"
_USUAL_EOS = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<|im_end|>", "<eos>", "[SEP]")


class HuggingFaceTokenizer(base.ByteTable):
    """A `tokenizer.json`; see Tokenizer for the methods.

    Added tokens that the file marks as special are control tokens: text under `encode`, ids under
    `allow_special=True`. `decode` prints them, cleans nothing up and strips nothing.

    Args:
      contents: file name -> content: tokenizer.json, and those of SIDE_FILES that exist, which
        tell the end-of-text and padding tokens.

    Raises:
      GeexError: the file is damaged, or no end-of-text token can be found.
    """

    kind = "huggingface"

    def __init__(self, contents: dict[str, bytes]):
        self._contents = dict(contents)
        try:
            self._spec = json.loads(self._contents[TOKENIZER_FILE])
            self._core = self._build(as_text=True)
        except Exception as error:  # the library raises bare Exception
            reason = " ".join(str(error).split())[:200]
            raise GeexError(f"{TOKENIZER_FILE} is truncated or not usable ({reason})", _BRING) \
                from None  # fmt: skip
        self._core_special: Any = None
        vocab = self._core.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocab.values(), default=-1) + 1
        added = {x["content"]: x for x in self._spec.get("added_tokens") or []}
        self._control = frozenset(x["id"] for x in added.values() if x.get("special"))
        self._control |= frozenset(range(self.vocab_size)) - frozenset(vocab.values())
        decoder = json.dumps(self._spec.get("decoder"))
        to_bytes = _byte_level if '"ByteLevel"' in decoder else _sentencepiece_like
        self._pieces = [b""] * self.vocab_size
        for piece, number in vocab.items():
            self._pieces[number] = piece.encode() if piece in added else to_bytes(piece)
        self._strips_first_space = '"Strip"' in decoder or (
            '"Metaspace"' in decoder and '"never"' not in decoder
        )
        self.eos_id, self.pad_id = _ends(self._contents, vocab)

    @classmethod
    def from_file(cls, path: files.Path) -> HuggingFaceTokenizer:
        """Opens a `tokenizer.json` and the settings that lie beside it."""
        path = pathlib.Path(path)
        contents = {TOKENIZER_FILE: base.read_bytes(path, _BRING)}
        for name in SIDE_FILES:
            if (path.parent / name).is_file():
                contents[name] = base.read_bytes(path.parent / name, _BRING)
        return cls(contents)

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Returns the ids of `text`; see Tokenizer."""
        try:
            return self._pick(allow_special).encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError):
            raise base.surrogate_error(text) from None

    def encode_batch(
        self, texts: Sequence[str], *, allow_special: bool = False, num_workers: int | None = None
    ) -> list[list[int]]:
        """Returns the ids of each text. The library itself spreads a batch over all cores.

        `num_workers=1` encodes one by one; other numbers mean all cores (RAYON_NUM_THREADS).
        """
        if num_workers == 1:
            return [self.encode(text, allow_special=allow_special) for text in texts]
        try:
            core = self._pick(allow_special)
            return [x.ids for x in core.encode_batch_fast(list(texts), add_special_tokens=False)]
        except (UnicodeEncodeError, TypeError):
            return [self.encode(text, allow_special=allow_special) for text in texts]

    def fingerprint(self) -> str:
        """Returns 16 hex digits over the file and the end tokens; see Tokenizer."""
        spec = json.dumps(self._spec, sort_keys=True)
        return files.fingerprint(self.kind, spec, f"{self.eos_id} {self.pad_id}")

    def save(self, folder: files.Path) -> None:
        """Writes `tokenizer.json` and the settings beside it; see Tokenizer."""
        base.save_folder(folder, self._contents, self.kind, self.fingerprint())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._contents,)

    def _build(self, *, as_text: bool) -> Any:
        from tokenizers import Tokenizer

        core = Tokenizer.from_buffer(self._contents[TOKENIZER_FILE])
        core.no_truncation()
        core.no_padding()
        core.encode_special_tokens = as_text
        return core

    def _pick(self, allow_special: bool) -> Any:
        # Two objects, because the switch is a property and threads may want it both ways.
        if not allow_special:
            return self._core
        if self._core_special is None:
            self._core_special = self._build(as_text=False)
        return self._core_special


def _byte_level(piece: str) -> bytes:
    alphabet = byte_alphabet()
    try:
        return bytes([alphabet[c] for c in piece])
    except KeyError:
        return piece.encode()


def _sentencepiece_like(piece: str) -> bytes:
    if re.fullmatch(r"<0x[0-9A-F]{2}>", piece):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("\u2581", " ").encode()


def _ends(contents: dict[str, bytes], vocab: dict[str, int]) -> tuple[int, int]:
    """Returns (eos_id, pad_id) from the settings, else from the usual names."""
    settings: list[dict[str, Any]] = []
    for name in SIDE_FILES:
        if name in contents:
            try:
                settings.append(json.loads(contents[name]))
            except ValueError:
                raise GeexError(f"{name} is truncated or not JSON", "bring it anew") from None

    def find(name: str) -> int | None:
        for setting in settings:
            token = setting.get(f"{name}_token")
            token = token.get("content") if isinstance(token, dict) else token
            if token in vocab:
                return vocab[token]
            number = setting.get(f"{name}_token_id")
            number = number[0] if isinstance(number, list) and number else number
            if isinstance(number, int):
                return number
        return None

    eos = find("eos")
    if eos is None:
        eos = next((vocab[word] for word in _USUAL_EOS if word in vocab), None)
    if eos is None:
        raise GeexError(
            f"{TOKENIZER_FILE} does not tell its end-of-text token",
            'put a tokenizer_config.json with "eos_token" beside it',
        )
    pad = find("pad")
    return eos, eos if pad is None else pad
