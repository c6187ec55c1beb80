"""Opens whatever holds a model: finds out from the files what it is."""

from __future__ import annotations

import fnmatch
import pathlib
import re
from collections.abc import Collection

from geex_jax import files
from geex_jax.checkpoints import codegeex, huggingface, own
from geex_jax.checkpoints.source import SIDE_FILES, Source
from geex_jax.errors import GeexError

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")


def open_source(
    path: files.Path,
    *,
    num_heads: int | None = None,
    vocab_size: int | None = None,
    ignore: Collection[str] = (),
) -> Source:
    """Opens a checkpoint and checks names and shapes of all its tensors; reads headers only.

    Args:
      path: an official CodeGeeX file or folder of `mp_rank_XX` parts, a Hugging Face folder or hub
        id, a geex model folder or training workdir.
      num_heads: of an official CodeGeeX checkpoint, which does not say it.
      vocab_size: rows of the embedding to keep (official CodeGeeX only).
      ignore: keys of config.json that the user vouches for.

    Raises:
      GeexError: a file or tensor is missing, unknown, cut short or misshaped; a config is not
        supported. One line that names it.
    """
    if not pathlib.Path(path).exists() and _HUB_ID.fullmatch(str(path)):
        path = download(str(path))
    path = pathlib.Path(path)
    if not path.exists():
        raise GeexError(f"no checkpoint at {path}", "give a file, a folder or a hub id org/name")
    if path.suffix == ".safetensors":
        raise GeexError(f"{path} alone does not say its shape", "give the folder with config.json")
    if codegeex.parts(path):
        return codegeex.open_codegeex(path, num_heads, vocab_size)
    if num_heads is not None or vocab_size is not None:
        raise GeexError(
            "--num-heads and --vocab-size are for official CodeGeeX checkpoints",
            f"{path} says its own shape",
        )
    if own.is_own(path):
        return own.open_own(path)
    values = huggingface.read_json(path / "config.json", path)
    return huggingface.open_folder(path, values, ignore)


def download(hub_id: str) -> pathlib.Path:
    """Fetches a model "org/name" or "org/name@revision" from the hub into its cache.

    Safetensors are preferred; files of PyTorch are fetched only where there are none.

    Returns:
      The folder with the files.

    Raises:
      GeexError: the hub does not give it (no network, no such model, not allowed); the message
        names the files to bring.
    """
    import huggingface_hub

    name, _, revision = hub_id.partition("@")
    try:
        # Not "*.safetensors": adapters, and the same weights once more, lie beside the model's.
        wanted = ["model*.safetensors", "model.safetensors.index.json"]
        if not _has_safetensors(name, revision or None):
            wanted = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]
        folder = huggingface_hub.snapshot_download(
            name, revision=revision or None, allow_patterns=[*SIDE_FILES, *wanted]
        )
    except Exception as error:  # its errors, httpx's, OSError: all mean "not fetched"
        raise GeexError(
            f"no file or folder {hub_id}, and the hub does not give it ({type(error).__name__})",
            "bring config.json, model.safetensors (or all shards with model.safetensors.index.json,"
            " or pytorch_model*.bin) and the tokenizer's files in one folder, and give its path",
        ) from None
    return pathlib.Path(folder)


def _has_safetensors(name: str, revision: str | None) -> bool:
    """Whether the model on the hub, or without network the one in its cache, has them."""
    import huggingface_hub

    try:
        # Not list_repo_files(): without network that one tries for half a minute.
        found = huggingface_hub.HfApi().model_info(name, revision=revision).siblings
        listed = [file.rfilename for file in found or []]
    except Exception:  # as above; a model fetched earlier is still there
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, local_files_only=True, allow_patterns=["config.json"]
        )
        listed = [file.name for file in pathlib.Path(folder).iterdir()]
    return any(fnmatch.fnmatch(file, "model*.safetensors") for file in listed)
