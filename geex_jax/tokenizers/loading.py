"""Finds out which kind of tokenizer a folder, a file or a hub id holds, and opens it."""

from __future__ import annotations

import json
import os
import pathlib
import re

from geex_jax import files
from geex_jax.errors import GeexError, did_you_mean
from geex_jax.tokenizers import base, codegeex, huggingface, spm

KINDS = ("codegeex", "sentencepiece", "huggingface")
# The official code takes GPT-J's files, which hold the <|extratoken_N|> that CodeGeeX uses.
CODEGEEX_HUB_ID = "EleutherAI/gpt-j-6B"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
_FILES_TO_BRING = (
    "bring tokenizer.json with tokenizer_config.json, or *.model, or CodeGeeX's vocab.json with "
    "merges.txt and added_tokens.json, and give their folder"
)


def load(spec: files.Path, *, kind: str | None = None) -> base.Tokenizer:
    """Opens a tokenizer.

    Args:
      spec: a folder that `save` wrote; the official CodeGeeX folder (vocab.json, merges.txt,
        added_tokens.json); a `*.model` file or a folder with one; a `tokenizer.json` or a folder
        with it; a hub id "org/name" or "org/name@revision"; or "codegeex", the official
        vocabulary from the hub.
      kind: one of KINDS, where a folder holds several and the guess would be wrong (GPT-J's has a
        `tokenizer.json` for GPT-J, and the files that CodeGeeX uses).

    Raises:
      GeexError: nothing there, files missing or damaged, no network; the message says the remedy.
    """
    if kind is not None and kind not in KINDS:
        raise GeexError(f"unknown kind of tokenizer {kind!r}", did_you_mean(kind, KINDS))
    path = pathlib.Path(spec)
    if path.is_file():
        return _load_file(path)
    if path.is_dir():
        return _load_folder(path, kind)
    name = os.fspath(spec)
    if name == "codegeex":
        return _load_folder(_download(CODEGEEX_HUB_ID), "codegeex")
    if _HUB_ID.fullmatch(name):
        return _load_folder(_download(name), kind)
    raise GeexError(
        f"no tokenizer at {name}: no such file or folder",
        "give a folder, a *.model, a tokenizer.json or a hub id org/name",
    )


def _load_file(path: pathlib.Path) -> base.Tokenizer:
    if path.suffix == ".model":
        return spm.SentencePieceTokenizer.from_file(path)
    if path.name in (*codegeex.NEEDED_FILES, *codegeex.OPTIONAL_FILES, base.MARKER):
        return _load_folder(path.parent, None)
    if path.suffix == ".json":
        return huggingface.HuggingFaceTokenizer.from_file(path)
    raise GeexError(f"{path} is no tokenizer", "give a *.model, a tokenizer.json or a folder")


def _load_folder(folder: pathlib.Path, kind: str | None) -> base.Tokenizer:
    marker = _read_marker(folder)
    kind = marker.get("kind") or kind or _guess(folder)
    if kind == "codegeex":
        tokenizer: base.Tokenizer = codegeex.CodeGeeXTokenizer.from_folder(folder)
    elif kind == "sentencepiece":
        tokenizer = spm.SentencePieceTokenizer.from_file(_only_model(folder))
    elif kind == "huggingface":
        file = folder / huggingface.TOKENIZER_FILE
        tokenizer = huggingface.HuggingFaceTokenizer.from_file(file)
    else:
        raise GeexError(f"{folder / base.MARKER} names an unknown kind {kind!r}", "save it anew")
    if marker and tokenizer.fingerprint() != marker.get("fingerprint"):
        raise GeexError(
            f"the tokenizer in {folder} is not the one that was saved (fingerprint "
            f"{tokenizer.fingerprint()}, not {marker.get('fingerprint')})",
            f"save it anew, or delete {base.MARKER} to use the files as they are",
        )
    return tokenizer


def _read_marker(folder: pathlib.Path) -> dict[str, str]:
    path = folder / base.MARKER
    if not path.is_file():
        return {}
    try:
        value = json.loads(base.read_bytes(path, "save the tokenizer anew"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise GeexError(f"{path} is damaged", "save the tokenizer anew")
    return value


def _guess(folder: pathlib.Path) -> str:
    if (folder / huggingface.TOKENIZER_FILE).is_file():
        return "huggingface"
    if any((folder / name).is_file() for name in ("vocab.json", "merges.txt")):
        return "codegeex"
    if list(folder.glob("*.model")):
        return "sentencepiece"
    raise GeexError(f"no tokenizer in {folder}", _FILES_TO_BRING)


def _only_model(folder: pathlib.Path) -> pathlib.Path:
    usual = folder / spm.MODEL_FILE
    found = [usual] if usual.is_file() else sorted(folder.glob("*.model"))
    if len(found) == 1:
        return found[0]
    raise GeexError(
        f"{folder} has {len(found)} *.model files", f"keep one, or name it {spm.MODEL_FILE}"
    )


def _download(hub_id: str) -> pathlib.Path:
    """Returns the folder of the tokenizer's files in the hub's cache, fetched if need be."""
    import huggingface_hub

    name, _, revision = hub_id.partition("@")
    wanted = [
        huggingface.TOKENIZER_FILE,
        *huggingface.SIDE_FILES,
        *codegeex.NEEDED_FILES,
        "*.model",
    ]
    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision or None, allow_patterns=wanted
        )
    except Exception as error:  # its errors, httpx's, OSError: all mean "not fetched"
        reason = type(error).__name__
        raise GeexError(
            f"no folder {hub_id}, and the hub does not give it ({reason})", _FILES_TO_BRING
        ) from None
    return pathlib.Path(folder)
