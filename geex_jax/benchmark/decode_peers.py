"""The peers of `geex bench decode` and `prefill`: run as a script by the Python that has them.

It imports nothing of this package. A line of JSON in, `{"method": ..., "args": [...]}`, gives a
line of JSON out, `{"ok": value}` or `{"error": text}`. All peers compute one function, a GPT-2 with
the activation x * sigmoid(1.702 x), from one folder of arrays.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import os
import pathlib
import sys
import time
from typing import Any

import numpy as np


class Torch:
    """`transformers` on PyTorch: `generate` with its cache, in one dtype.

    Args:
      spec: "weights" (folder), "shape", "device" ("cpu" or "cuda"), "threads".
      variant: "float32" or "bfloat16".
    """

    def __init__(self, spec: dict[str, Any], variant: str):
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        torch.set_num_threads(spec["threads"])
        self.torch, self.device = torch, spec["device"]
        model = gpt2(spec, torch.float32 if spec["weights"] else getattr(torch, variant))
        self.model = model.to(self.device, getattr(torch, variant)).eval()
        self.version = f"transformers {transformers.__version__}, torch {torch.__version__}"

    def generate(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        """Continues prompts of one length greedily by `tokens` ids."""
        torch = self.torch
        ids = torch.tensor(prompts, device=self.device)
        with torch.inference_mode():
            out = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
            )
        return out[:, ids.shape[1] :].tolist()

    def peak_bytes(self) -> int:
        """The most memory allocated on a GPU; 0 on a CPU."""
        return self.torch.cuda.max_memory_allocated() if self.device == "cuda" else 0


class CTranslate2:
    """CTranslate2's `Generator`, in one compute type.

    Args:
      spec: as for `Torch`.
      variant: "int8" or "float32".
    """

    def __init__(self, spec: dict[str, Any], variant: str):
        import ctranslate2
        import torch
        from ctranslate2.converters import transformers as loaders

        folder = pathlib.Path(spec["weights"]) / "ctranslate2"
        if not folder.exists():
            loader: Any = loaders.GPT2Loader()
            made = loader.get_model_spec(gpt2(spec, torch.float32))
            made.register_vocabulary([str(i) for i in range(spec["shape"]["vocab_size"])])
            made.config.bos_token = made.config.eos_token = made.config.unk_token = "0"
            made.validate()
            made.optimize()
            made.save(str(_made(folder)))
        self.model = ctranslate2.Generator(
            str(folder),
            device=spec["device"],
            compute_type=variant,
            inter_threads=1,
            intra_threads=spec["threads"],
        )
        self.version = f"ctranslate2 {ctranslate2.__version__}"

    def generate(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        """Continues prompts of one length greedily by `tokens` ids."""
        found = self.model.generate_batch(
            [[str(i) for i in row] for row in prompts],
            max_length=tokens,
            min_length=tokens,
            beam_size=1,
            include_prompt_in_result=False,
        )
        return [list(x.sequences_ids[0]) for x in found]

    def peak_bytes(self) -> int:
        """Not known."""
        return 0


def _made(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir()
    return folder


def gpt2(spec: dict[str, Any], dtype: Any) -> Any:
    """The GPT2LMHeadModel of the arrays, or of random ones where "weights" is None."""
    import torch
    import transformers

    shape = spec["shape"]
    config = transformers.GPT2Config(
        vocab_size=shape["vocab_size"],
        n_positions=shape["context_length"],
        n_embd=shape["d_model"],
        n_layer=shape["num_layers"],
        n_head=shape["num_heads"],
        n_inner=shape["d_ff"],
        activation_function="quick_gelu",
        layer_norm_epsilon=shape["norm_eps"],
        bos_token_id=None,
        eos_token_id=None,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(spec["device"] if spec["weights"] is None else "cpu"):
            model = transformers.GPT2LMHeadModel(config)
    finally:
        torch.set_default_dtype(before)
    if spec["weights"] is not None:
        missing, extra = model.load_state_dict(state_dict(spec["weights"], shape), strict=False)
        if extra or set(missing) - {"lm_head.weight"}:
            raise ValueError(f"weights do not fit: {missing[:3]} {extra[:3]}")
        model.tie_weights()
    return model


def state_dict(folder: str, shape: dict[str, Any]) -> dict[str, Any]:
    """GPT-2's names for our arrays, files NAME.npy with / written as a dot."""
    import torch

    def read(name: str) -> np.ndarray:
        return np.load(pathlib.Path(folder) / f"{name}.npy", mmap_mode="r")

    out = {
        "transformer.wte.weight": read("embedding.tokens"),
        "transformer.wpe.weight": read("embedding.positions"),
        "transformer.ln_f.weight": read("final_norm.scale"),
        "transformer.ln_f.bias": read("final_norm.bias"),
    }
    linears = {"attn.c_proj": "attention.output", "mlp.c_fc": "mlp.up", "mlp.c_proj": "mlp.down"}
    norms = {"ln_1": "attention_norm", "ln_2": "mlp_norm"}
    heads = [f"layers.attention.{x}" for x in ("query", "key", "value")]
    for i in range(shape["num_layers"]):
        at = f"transformer.h.{i}."
        for kind, theirs in (("kernel", "weight"), ("bias", "bias")):
            parts = [read(f"{h}.{kind}")[i] for h in heads]
            out[f"{at}attn.c_attn.{theirs}"] = np.concatenate(parts, axis=-1)
            for name, ours in linears.items():
                out[f"{at}{name}.{theirs}"] = read(f"layers.{ours}.{kind}")[i]
        for name, ours in norms.items():
            out[f"{at}{name}.weight"] = read(f"layers.{ours}.scale")[i]
            out[f"{at}{name}.bias"] = read(f"layers.{ours}.bias")[i]
    return {k: torch.from_numpy(np.array(v, np.float32)) for k, v in out.items()}


PEERS = {"transformers": Torch, "ctranslate2": CTranslate2}


class Peers:
    """What this process answers: models by "peer variant", made when first asked for."""

    def __init__(self, spec: dict[str, Any]):
        self.spec, self.models = spec, {}

    def load(self, name: str) -> str | None:
        """Makes the model; returns its versions, or None where its package is missing."""
        peer, variant = name.split(" ")
        try:
            self.models[name] = PEERS[peer](self.spec, variant)
        except ImportError:
            return None
        return self.models[name].version

    def generate(self, name: str, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        """Ids that continue the prompts."""
        return self.models[name].generate(prompts, tokens)

    def prefill(self, name: str, prompts: list[list[int]]) -> float:
        """Seconds to the first token."""
        return self._timed(name, prompts, 1)

    def decode(self, name: str, prompts: list[list[int]], tokens: int) -> float:
        """Seconds of a decode step: over `tokens` steps after the first token."""
        start = self._timed(name, prompts, 1)
        return (self._timed(name, prompts, tokens + 1) - start) / tokens

    def _timed(self, name: str, prompts: list[list[int]], tokens: int) -> float:
        start = time.perf_counter()
        self.models[name].generate(prompts, tokens)  # its ids come back to the host
        return time.perf_counter() - start

    def peak_bytes(self, name: str) -> int:
        """The most memory of the device used so far, 0 where it is not known."""
        return self.models[name].peak_bytes()


def main() -> None:
    """Answers lines until they end; what libraries print goes to the standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peers = Peers(json.loads(sys.argv[1]))
    for line in sys.stdin:
        try:
            call = json.loads(line)
            answer = {"ok": getattr(peers, call["method"])(*call["args"])}
        except Exception as error:
            text = str(error).strip().splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {text[0]}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
