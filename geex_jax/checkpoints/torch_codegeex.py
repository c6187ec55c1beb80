"""CodeGeeX in plain PyTorch, from the official checkpoint files: what `geex verify` compares with.

It follows the official code step by step (FastGELU, masked scores minus 10000, the final norm
before the top query layer, the raw top query embedding as the query's input) and shares neither
names nor tables with our converter: a mistake made there shows here. Importing it needs PyTorch.
"""

from __future__ import annotations

import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from geex_jax.errors import GeexError

PART = re.compile(r"mp_rank_(\d+)_model_states\.pt")
# How model parallel parts join: the axis along which each tensor was cut; all others are copies.
# Top query embeddings are cut by rows like words, although their rows are positions.
JOIN = [
    (re.compile(r"(word_embeddings|top_query_embeddings)\.weight"), 0),
    (re.compile(r".*\.attention\.(query|key|value)\.(weight|bias)"), 0),
    (re.compile(r".*\.mlp\.dense_h_to_4h\.(weight|bias)"), 0),
    (re.compile(r".*\.(attention\.dense|mlp\.dense_4h_to_h)\.weight"), 1),
]


class Attention(nn.Module):
    """Causal attention; heads are contiguous columns."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.dense = nn.Linear(width, width)

    def forward(self, query_input: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Queries from query_input [B, T, D], keys and values from x [B, T, D]."""
        batch, length, width = x.shape

        def split(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

        query = split(self.query(query_input))
        scores = query @ split(self.key(x)).transpose(2, 3) / (width // self.heads) ** 0.5
        masked = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        scores = scores - masked * 10000.0
        out = torch.softmax(scores, dim=-1) @ split(self.value(x))
        return self.dense(out.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    """Two linears with the official `fast_gelu` between."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.dense_h_to_4h = nn.Linear(width, inner)
        self.dense_4h_to_h = nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """X [B, T, D] to [B, T, D]."""
        x = self.dense_h_to_4h(x)
        x = x / (1 + torch.exp(-1.702 * x.abs())) * torch.exp(0.851 * (x - x.abs()))
        return self.dense_4h_to_h(x)


class Block(nn.Module):
    """Pre-norm block under the official names."""

    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(width, eps=1e-5)
        self.attention = Attention(width, heads)
        self.post_attention_layernorm = nn.LayerNorm(width, eps=1e-5)
        self.mlp = Mlp(width, inner)

    def forward(self, x: torch.Tensor, query_input: torch.Tensor | None = None) -> torch.Tensor:
        """X [B, T, D]; the query comes from the normed x, or raw from query_input [B, T, D]."""
        normed = self.input_layernorm(x)
        x = x + self.attention(normed if query_input is None else query_input, normed)
        return x + self.mlp(self.post_attention_layernorm(x))


class CodeGeeX(nn.Module):
    """The whole model; parameters have the official names, without the outer dicts."""

    def __init__(self, shapes: Mapping[str, Sequence[int]], heads: int):
        super().__init__()
        vocab, width = shapes["word_embeddings.weight"]
        context = shapes["position_embeddings.weight"][0]
        inner = shapes["topQueryLayer.mlp.dense_h_to_4h.weight"][0]
        self.word_embeddings = nn.Embedding(vocab, width)
        self.position_embeddings = nn.Embedding(context, width)
        self.layers = nn.ModuleList(
            Block(width, heads, inner) for _ in range(number_of_layers(shapes))
        )
        self.final_layernorm = nn.LayerNorm(width, eps=1e-5)
        self.top_query_embeddings = nn.Embedding(context, width)
        self.topQueryLayer = Block(width, heads, inner)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Tokens [B, T] to logits [B, T, V] and the states [B, T, D] in the order they arise."""
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        states = [self.word_embeddings(tokens) + self.position_embeddings(positions)]
        for layer in self.layers:
            states.append(layer(states[-1]))
        states.append(self.final_layernorm(states[-1]))
        states.append(self.topQueryLayer(states[-1], self.top_query_embeddings(positions)))
        return states[-1] @ self.word_embeddings.weight.T, states


def number_of_layers(names: Mapping[str, Any]) -> int:
    """Ordinary layers among the official names; the top query layer is not counted."""
    found = {m[1] for m in (re.match(r"layers\.(\d+)\.", name) for name in names) if m}
    return len(found)


def build(state: dict[str, torch.Tensor], heads: int, dtype: torch.dtype) -> CodeGeeX:
    """Makes the model of a state that `read_state` gave, converted to `dtype`.

    Raises:
      GeexError: tensors are missing, unknown or of shapes that do not fit, or heads do not divide.
    """
    width = state["word_embeddings.weight"].shape[1]
    if heads < 1 or width % heads:
        raise GeexError(f"width {width} does not divide into {heads} heads", "check --num-heads")
    with torch.device("meta"):  # the file's tensors become the parameters: no second copy
        model = CodeGeeX({k: tuple(v.shape) for k, v in state.items()}, heads)
    try:
        model.load_state_dict({k: v.to(dtype) for k, v in state.items()}, assign=True)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise GeexError(f"not the CodeGeeX model: {first}", "fetch the checkpoint again") from None
    return model.eval()


def read_state(path: pathlib.Path, sizes_only: bool = False) -> dict[str, torch.Tensor]:
    """Reads the official checkpoint, in any of its forms, under its own flat names.

    Args:
      path: a .pt file (plain or with fused query_key_value), or a folder with one such file or
        with the parts mp_rank_XX_model_states.pt.
      sizes_only: tensors without values, which costs no reading and no joining.

    Raises:
      GeexError: nothing there, parts missing, or not such a checkpoint.
    """
    files = part_files(path)
    parts = [_read_part(file) for file in files]
    if sizes_only:
        parts = [{k: v.to("meta") for k, v in part.items()} for part in parts]
    for file, part in zip(files, parts, strict=True):
        if part.keys() != parts[0].keys():
            odd = sorted(part.keys() ^ parts[0].keys())[0]
            raise GeexError(f"{file} and {files[0]} differ in {odd}", "the parts do not match")
    merged = {name: _join(name, [part[name] for part in parts]) for name in parts[0]}
    state: dict[str, torch.Tensor] = {}
    for name, tensor in merged.items():
        state |= _unfuse(name, tensor)
    for name in ("word_embeddings", "position_embeddings", "top_query_embeddings"):
        if f"{name}.weight" not in state:
            raise GeexError(f"{path}: no tensor {name}.weight", "not an official checkpoint")
    if "topQueryLayer.mlp.dense_h_to_4h.weight" not in state:
        raise GeexError(f"{path}: no top query layer", "not an official checkpoint")
    return state


def part_files(path: pathlib.Path) -> list[pathlib.Path]:
    """The file, or the model parallel parts of a folder in the order of their ranks."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise GeexError(f"no checkpoint at {path}", "give a .pt file or a Hugging Face folder")
    ranks = {int(m[1]): p for p in path.iterdir() if (m := PART.fullmatch(p.name))}
    if ranks:
        missing = sorted(set(range(max(ranks) + 1)) - ranks.keys())
        if missing:
            raise GeexError(f"{path}: no part mp_rank_{missing[0]:02d}", "fetch all parts")
        return [ranks[i] for i in sorted(ranks)]
    single = sorted(path.glob("*.pt"))
    if len(single) != 1:
        found = ", ".join(p.name for p in single) or "none"
        raise GeexError(f"{path}: expected one .pt file, found {found}", "name the file itself")
    return single


def _read_part(path: pathlib.Path) -> dict[str, torch.Tensor]:
    try:
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, ValueError):  # files of PyTorch < 1.6 are no zip: not mappable
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError,
            zipfile.BadZipFile) as error:  # fmt: skip
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
        raise GeexError(f"{path} is unreadable ({reason})", "fetch the file again") from None
    try:
        model = saved["module"]["language_model"]
        rooms = [model[k] for k in ("embedding", "topQueryEmbedding", "transformer")]
        return {name: t for room in rooms for name, t in _flatten(room).items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise GeexError(
            f"{path}: no {error} inside", "not an official CodeGeeX checkpoint"
        ) from None


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, torch.Tensor]:
    out: dict[str, torch.Tensor] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        out |= _flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return out


def _join(name: str, pieces: list[torch.Tensor]) -> torch.Tensor:
    axis = next((axis for pattern, axis in JOIN if pattern.fullmatch(name)), None)
    if len(pieces) == 1 or axis is None:
        return pieces[0]
    return torch.cat(pieces, axis)


def _unfuse(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """Rows of a fused linear are all of q, then all of k, then all of v."""
    for fused in ("query_key_value", "key_value"):
        head, found, tail = name.partition(f".attention.{fused}.")
        if found:
            names = fused.split("_")
            pieces = tensor.chunk(len(names), 0)
            return {f"{head}.attention.{n}.{tail}": t for n, t in zip(names, pieces, strict=True)}
    return {name: tensor}
