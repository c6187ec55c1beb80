"""What PyTorch computes from the original files: logits and hidden states of a peer.

PyTorch and transformers are imported inside the functions that run them: nothing else needs them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from geex_jax import files
from geex_jax.errors import GeexError

# Model type of a Hugging Face folder -> where its blocks and its last norm are.
PLACES = {
    "gptj": ("transformer.h", "transformer.ln_f"),
    "codegen": ("transformer.h", "transformer.ln_f"),
    "gpt_neox": ("gpt_neox.layers", "gpt_neox.final_layer_norm"),
    "xglm": ("model.layers", "model.layer_norm"),
    "llama": ("model.layers", "model.norm"),
    "qwen2": ("model.layers", "model.norm"),
    "starcoder2": ("model.layers", "model.norm"),
    "glm": ("model.layers", "model.norm"),
}
# transformers has no class of this name; it is GLM under other tensor names.
CHATGLM = "chatglm"


@dataclasses.dataclass(frozen=True)
class PeerShape:
    """What must be equal before a comparison makes sense, and how long rows may be."""

    kind: str
    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    context_length: int


@dataclasses.dataclass(frozen=True)
class PeerOutput:
    """Everything a model computed, in the order in which it arises.

    Attributes:
      logits: float32 [B, T, V].
      hidden: float32 [B, T, D] each: the input of layer 0, the output of each layer, the output
        of the final norm and, for CodeGeeX, of the top query layer. The last is the head's input.
      names: one for each of `hidden`, as in `state_names`.
    """

    logits: np.ndarray
    hidden: list[np.ndarray]
    names: list[str]


def state_names(num_layers: int, top_query_layer: bool) -> list[str]:
    """Names of hidden states, in order: embedding, layer 0, ..., final norm[, top query layer]."""
    layers = [f"layer {i}" for i in range(num_layers)]
    return ["embedding", *layers, "final norm", *(["top query layer"] if top_query_layer else [])]


def peer_shape(path: files.Path, num_heads: int | None = None) -> PeerShape:
    """Reads the sizes of a peer without reading its weights.

    Args:
      path: a Hugging Face folder, or an official CodeGeeX file or folder of parts.
      num_heads: for CodeGeeX, whose file does not tell (see `run_peer`).

    Raises:
      GeexError: neither of the two, or PyTorch is not installed.
    """
    path = pathlib.Path(path)
    config = _hf_config(path)
    if config is not None:
        return _hf_shape(path, config)
    _need("torch")
    from geex_jax.checkpoints import torch_codegeex

    state = torch_codegeex.read_state(path, sizes_only=True)
    vocab, width = state["word_embeddings.weight"].shape
    return PeerShape(
        kind="codegeex",
        vocab_size=vocab,
        d_model=width,
        num_layers=torch_codegeex.number_of_layers(state),
        num_heads=num_heads or _codegeex_heads(path, width),
        context_length=state["position_embeddings.weight"].shape[0],
    )


def run_peer(
    path: files.Path,
    tokens: np.ndarray,
    *,
    num_heads: int | None = None,
    dtype: str = "float32",
    batch_size: int | None = None,
) -> PeerOutput:
    """Runs the original files with PyTorch on the CPU.

    Args:
      path: a Hugging Face folder of a known family (also CodeGeeX2's and CodeGeeX4's original
        names), or the official CodeGeeX checkpoint: a .pt file, plain or with fused
        query_key_value, or a folder of mp_rank_XX_model_states.pt.
      tokens: int [B, T]; positions count from 0, nothing is masked but the future.
      num_heads: for CodeGeeX; by default what a config.json beside the file says
        (`num_attention_heads` or `num_heads`), else heads of 128.
      dtype: what to compute in: float32, float64 (not XGLM), bfloat16, float16.
      batch_size: rows at a time; by default all.

    Raises:
      GeexError: not such a checkpoint, incomplete, or PyTorch or transformers is missing.
    """
    path = pathlib.Path(path)
    torch = _need("torch")
    if dtype not in ("float32", "float64", "bfloat16", "float16"):
        raise GeexError(f"unknown dtype {dtype}", "choose float32, float64, bfloat16 or float16")
    tokens = np.asarray(tokens, np.int64)
    config = _hf_config(path)
    if config is None:
        from geex_jax.checkpoints import torch_codegeex

        state = torch_codegeex.read_state(path)
        heads = num_heads or _codegeex_heads(path, state["word_embeddings.weight"].shape[1])
        forward = torch_codegeex.build(state, heads, getattr(torch, dtype))
        names = state_names(len(forward.layers), True)
    else:
        shape = _hf_shape(path, config)
        _need("transformers")
        with _quiet():
            model = _load_hf(path, config, getattr(torch, dtype))
        forward = _Watched(model, *PLACES["glm" if shape.kind == CHATGLM else shape.kind])
        names = state_names(shape.num_layers, False)
    logits, hidden = _in_batches(forward, tokens, batch_size or len(tokens))
    return PeerOutput(logits, hidden, names)


def _in_batches(forward: Any, tokens: np.ndarray, rows: int) -> tuple[np.ndarray, list[np.ndarray]]:
    import torch  # pyright: ignore[reportMissingImports]

    def array(x: Any) -> np.ndarray:
        return x.float().numpy()

    progress = files.Progress("PyTorch", len(tokens), "rows")
    logits, hidden = [], []
    with torch.no_grad():
        for i in range(0, len(tokens), rows):
            batch = torch.from_numpy(tokens[i : i + rows])
            out, states = forward(batch)
            logits.append(array(out))
            hidden.append([array(x) for x in states])
            progress.update(len(batch))
    return np.concatenate(logits), [np.concatenate(x) for x in zip(*hidden, strict=True)]


class _Watched:
    """Runs a Hugging Face model and notes the states between its blocks.

    Hooks, not `output_hidden_states`: that tuple lacks the last block's raw output, and what it
    holds differs between families and versions.
    """

    def __init__(self, model: Any, blocks: str, norm: str):
        self.model = model
        self.states: list[Any] = []
        layers = model.get_submodule(blocks)
        layers[0].register_forward_pre_hook(self._before, with_kwargs=True)
        for layer in layers:
            layer.register_forward_hook(self._after)
        model.get_submodule(norm).register_forward_hook(self._after)

    def _before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        self.states.append(args[0] if args else kwargs["hidden_states"])

    def _after(self, module: Any, args: Any, output: Any) -> None:
        del module, args
        self.states.append(output[0] if isinstance(output, tuple) else output)

    def __call__(self, tokens: Any) -> tuple[Any, list[Any]]:
        """Tokens [B, T] to logits [B, T, V] and states [B, T, D]."""
        self.states = []
        logits = self.model(input_ids=tokens, use_cache=False).logits
        return logits, self.states


def _hf_config(path: pathlib.Path) -> dict[str, Any] | None:
    """config.json of a Hugging Face folder; None if `path` is something else that is there."""
    if not path.exists():
        raise GeexError(f"no checkpoint at {path}", "give a Hugging Face folder or a .pt file")
    about = _json_beside(path) if path.is_dir() else {}
    if "model_type" in about:
        return about
    if path.is_dir() and "model" in about and "leaves" in about:
        raise GeexError(f"{path} is a geex model", "give the files that it was converted from")
    if path.is_dir() and not any(path.glob("*.pt")):
        raise GeexError(
            f"{path} has neither a config.json with model_type nor .pt files",
            "give a Hugging Face folder, or the official CodeGeeX checkpoint",
        )
    return None


def _json_beside(path: pathlib.Path) -> dict[str, Any]:
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file():
        return {}
    try:
        about = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise GeexError(f"{file} is not readable ({error})", "fetch it again") from None
    return about if isinstance(about, dict) else {}


def _codegeex_heads(path: pathlib.Path, width: int) -> int:
    about = _json_beside(path)
    known = about.get("num_attention_heads") or about.get("num_heads")
    return known if isinstance(known, int) else max(width // 128, 1)


def _hf_shape(path: pathlib.Path, config: dict[str, Any]) -> PeerShape:
    kind = config["model_type"]
    if kind not in PLACES and kind != CHATGLM:
        known = ", ".join([*PLACES, CHATGLM])
        raise GeexError(f"{path}: model_type {kind!r} is not supported", f"known: {known}")

    def pick(*names: str) -> int:
        value = next((config[n] for n in names if isinstance(config.get(n), int)), None)
        if value is None:
            raise GeexError(f"{path}/config.json lacks {names[0]}", "fetch the folder again")
        return value

    return PeerShape(
        kind=kind,
        vocab_size=pick("padded_vocab_size", "vocab_size"),
        d_model=pick("hidden_size", "n_embd", "d_model"),
        num_layers=pick("num_hidden_layers", "n_layer", "num_layers"),
        num_heads=pick("num_attention_heads", "n_head", "attention_heads"),
        context_length=pick("max_position_embeddings", "n_positions", "seq_length"),
    )


def _load_hf(path: pathlib.Path, about: dict[str, Any], dtype: Any) -> Any:
    if about["model_type"] == CHATGLM:
        from geex_jax.checkpoints import torch_chatglm

        return torch_chatglm.load(path, about, dtype)
    transformers = _need("transformers")
    fields = dict(about)
    if int(transformers.__version__.split(".")[0]) < 5:
        fields = _as_version_4(fields)
    kind = fields.pop("model_type")
    fields.pop("auto_map", None)  # the class in transformers, never the folder's own code
    try:
        config = transformers.AutoConfig.for_model(kind, **fields)
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            attn_implementation="eager",
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # damaged files and odd configs raise many kinds
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
        raise GeexError(
            f"transformers cannot load {path} ({reason})", "fetch the folder again"
        ) from error
    # A tensor that is not in the files would be random: a comparison with it says nothing.
    if loading["missing_keys"]:
        missing = sorted(map(str, loading["missing_keys"]))[0]
        raise GeexError(f"{path}: no tensor {missing}", "the folder is incomplete")
    return model.eval()


def _as_version_4(fields: dict[str, Any]) -> dict[str, Any]:
    """Spells `rope_parameters` of transformers 5 as version 4 does, which would ignore them."""
    fields = dict(fields)
    rope = dict(fields.pop("rope_parameters", None) or {})
    theta, part = rope.pop("rope_theta", None), rope.pop("partial_rotary_factor", None)
    if theta is not None:
        fields |= {"rope_theta": theta, "rotary_emb_base": theta}
    if part is not None:
        fields |= {"partial_rotary_factor": part, "rotary_pct": part}
    if rope.get("rope_type", "default") != "default":
        fields["rope_scaling"] = rope
    return fields


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers from warning, advising and drawing bars while it loads."""
    from transformers.utils import logging  # pyright: ignore[reportMissingImports]

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _need(name: str) -> Any:
    import importlib

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        return importlib.import_module(name)
    except ImportError:
        raise GeexError(f"this needs {name}", 'pip install "geex-jax[convert]"') from None
